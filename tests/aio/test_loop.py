"""The loop: its calls, timers, readers and writers, its turns, its beginning and its end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import sslsock
from sslsock.aio import EventLoop, new_event_loop


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    made = new_event_loop()
    yield made
    made.close()


def turn(loop: EventLoop) -> None:
    """One turn that waits for nothing."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_asyncio_is_imported_when_the_loop_is_used_only() -> None:
    code = "import sys, sslsock; assert 'asyncio' not in sys.modules; sslsock.new_event_loop().close(); sys.modules['asyncio']"
    subprocess.run([sys.executable, "-c", code], check=True)


# Calls


def test_handles_are_asyncios(loop: EventLoop) -> None:
    soon, later = loop.call_soon(print), loop.call_later(5, print)
    assert isinstance(soon, asyncio.Handle) and not isinstance(soon, asyncio.TimerHandle)
    assert isinstance(later, asyncio.TimerHandle) and later.when() > loop.time()
    assert repr(soon) == "<Handle print()>"
    assert repr(later) == f"<TimerHandle when={later.when()} print()>"
    soon.cancel()
    later.cancel()
    assert repr(soon) == "<Handle cancelled>" and soon.cancelled() and later.cancelled()


def test_calls_run_in_order_and_those_that_they_plan_in_the_next_turn(loop: EventLoop) -> None:
    seen: list[int] = []

    def first() -> None:
        seen.append(1)
        loop.call_soon(seen.append, 3)

    loop.call_soon(first)
    loop.call_soon(seen.append, 2)
    turn(loop)
    assert seen == [1, 2]
    turn(loop)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_programs_leaves_the_calls_behind_it_queued(loop: EventLoop, kind: type[BaseException]) -> None:
    seen: list[int] = []

    def ends() -> None:
        raise kind

    loop.call_soon(ends)
    loop.call_soon(seen.append, 1)
    with pytest.raises(kind):
        loop.run_forever()
    assert seen == []
    turn(loop)
    assert seen == [1]


def test_more_calls_than_the_queue_had_room_for(loop: EventLoop) -> None:
    seen: list[int] = []
    for number in range(40):
        loop.call_soon(seen.append, number)
    turn(loop)  # the ring begins in its middle now
    for number in range(40, 1000):
        loop.call_soon(seen.append, number)
    turn(loop)
    assert seen == list(range(1000))


def test_an_exception_goes_to_the_handler_of_the_loop(loop: EventLoop) -> None:
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: told.append(context))
    handle = loop.call_soon(int, "x")
    turn(loop)
    assert told[0]["handle"] is handle and isinstance(told[0]["exception"], ValueError)
    assert told[0]["message"].startswith("Exception in callback int(")  # from CPython 3.13 on without the arguments


def test_a_call_from_another_thread_ends_the_wait(loop: EventLoop) -> None:
    threading.Timer(0.01, loop.call_soon_threadsafe, [loop.stop]).start()
    loop.run_forever()


@pytest.mark.skipif(not hasattr(asyncio.events, "_ThreadSafeHandle"), reason="asyncio has no such handle before CPython 3.14")
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
def test_cancelling_in_another_thread_waits_for_a_call_that_runs(loop: EventLoop, debug: bool) -> None:
    loop.set_debug(debug)
    seen: list[str] = []
    canceller: list[threading.Thread] = []

    def cancel() -> None:
        handle.cancel()
        seen.append("cancelled")

    def call() -> None:
        canceller.append(threading.Thread(target=cancel))
        canceller[0].start()
        canceller[0].join(0.05)
        seen.append("called")

    handle = loop.call_soon_threadsafe(call)
    loop.call_soon_threadsafe(loop.stop)
    loop.run_forever()
    canceller[0].join(60)
    assert seen == ["called", "cancelled"]
    assert handle.cancelled()


def test_a_handle_knows_in_debug_mode_where_it_was_made(loop: EventLoop) -> None:
    loop.set_debug(True)
    plans: list[Callable[[], Any]] = [
        lambda: loop.call_soon(print), lambda: loop.call_soon_threadsafe(print),
        lambda: loop.call_later(60, print), lambda: loop.call_at(loop.time() + 60, print),
    ]  # fmt: skip
    for plan in plans:
        handle = plan()
        frame = handle._source_traceback[-1]
        assert (frame.filename, frame.lineno) == (__file__, plan.__code__.co_firstlineno)
        handle.cancel()


def test_it_belongs_to_the_thread_that_runs_it(loop: EventLoop) -> None:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(loop.run_until_complete(asyncio.sleep(0, "there"))))
    thread.start()
    thread.join(60)
    assert results == ["there"]
    assert loop.run_until_complete(asyncio.sleep(0, "here")) == "here"


# Timers


def test_timers_run_in_the_order_of_their_time(loop: EventLoop) -> None:
    seen: list[int] = []
    now = loop.time()
    for number in (3, 1, 2):
        loop.call_at(now - 10 + number, seen.append, number)
    turn(loop)
    assert seen == [1, 2, 3]


def test_a_cancelled_timer_lets_go_of_its_callback_at_once(loop: EventLoop) -> None:
    class Callback:
        def __call__(self) -> None: ...

    before = len(gc.get_objects())
    for _ in range(1000):
        loop.call_later(1000, Callback()).cancel()
    assert len(gc.get_objects()) < before + 100


class Frozen(EventLoop):
    """A loop whose time a test decides."""

    at = 1000.25

    def time(self) -> float:
        return self.at


@pytest.mark.parametrize("patched", [False, True])
@pytest.mark.parametrize("debug", [False, True])
def test_the_time_that_a_test_puts_in_place_of_the_loops(patched: bool, debug: bool) -> None:
    """In the loop or in a subclass: timers, `sleep` and timeouts go by it, as in asyncio's loop."""
    loop = new_event_loop() if patched else Frozen()
    loop.set_debug(debug)
    seen: list[str] = []

    def move(seconds: float) -> None:
        if patched:
            loop.time = lambda: seconds  # type: ignore[method-assign]
        else:
            loop.at = seconds  # type: ignore[attr-defined]

    try:
        before = loop.time()
        move(1000.25)
        hour = loop.call_later(3600, seen.append, "hour")
        loop.call_later(0.1, seen.append, "soon")
        assert hour.when() == 1000.25 + 3600
        turn(loop)
        assert seen == []
        move(1000.25 + 3600)  # the very time
        turn(loop)
        turn(loop)
        assert seen == ["soon", "hour"]
        if patched:
            del loop.time  # type: ignore[method-assign]
            assert loop.time() >= before
            loop.run_until_complete(asyncio.sleep(0.001))
    finally:
        loop.close()


@pytest.mark.parametrize("when", [float("inf"), 1e300, -1e300])
def test_a_time_that_no_clock_says(loop: EventLoop, when: float) -> None:
    handle = loop.call_at(when, lambda: None)
    turn(loop)
    assert handle.when() == when


# Readers and writers


def test_a_reader_is_told_in_each_turn_while_there_is_something(loop: EventLoop) -> None:
    one, other = socket.socketpair()
    told: list[int] = []
    with one, other:
        loop.add_reader(one, told.append, 1)
        other.send(b"x")
        while len(told) < 3:  # nobody reads it
            turn(loop)
        assert loop.remove_reader(one) and not loop.remove_reader(one)
        count = len(told)
        turn(loop)
        assert len(told) == count


def test_a_reader_and_a_writer_of_one_descriptor(loop: EventLoop) -> None:
    one, other = socket.socketpair()
    told: list[str] = []
    with one, other:
        loop.add_reader(one, told.append, "reader")
        loop.add_writer(one, told.append, "writer")
        turn(loop)
        assert set(told) == {"writer"}
        other.send(b"x")
        while "reader" not in told:
            turn(loop)
        assert loop.remove_writer(one)
        told.clear()
        turn(loop)
        turn(loop)
        assert set(told) == {"reader"}
        assert loop.remove_reader(one)


def test_a_descriptor_that_was_closed_is_forgotten_and_its_number_watched_again(loop: EventLoop) -> None:
    told: list[str] = []
    for name in ("first", "second"):
        one, other = socket.socketpair()
        loop.add_reader(one, told.append, name)
        other.send(b"x")
        while name not in told:
            turn(loop)
        number = one.fileno()
        one.close()
        other.close()
        assert loop.remove_reader(number)


def test_a_reader_of_what_is_no_descriptor(loop: EventLoop) -> None:
    with pytest.raises(ValueError, match="Invalid file"):
        loop.add_reader("x", print)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Invalid file descriptor"):
        loop.add_reader(-1, print)


def test_a_signal_handler_runs_in_a_turn(loop: EventLoop) -> None:
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.run_forever()
    assert loop.remove_signal_handler(signal.SIGUSR1)


# The end


def test_after_the_end_there_is_a_clear_error() -> None:
    loop = new_event_loop()
    loop.close()
    loop.close()
    for method in (loop.call_soon, loop.call_soon_threadsafe):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            method(print)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.call_later(1, print)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.add_reader(0, print)
    assert not loop.remove_reader(0)


def test_a_forked_child_is_told_so(loop: EventLoop) -> None:
    child = os.fork()
    if child == 0:
        try:
            loop.call_soon(print)
        except RuntimeError as exc:
            os._exit(0 if "belongs to the parent process" in str(exc) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    turn(loop)


def test_loops_that_are_made_and_closed_leave_nothing() -> None:
    new_event_loop().close()
    gc.collect()
    descriptors, objects = len(os.listdir("/proc/self/fd")), len(gc.get_objects())
    for _ in range(50):
        loop = new_event_loop()
        loop.call_soon(print)
        loop.call_later(1000, print)
        loop.close()
    del loop
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert len(gc.get_objects()) < objects + 50


def test_sockets_of_the_family_run_in_its_turns(loop: EventLoop) -> None:
    async def main() -> bytes:
        assert sslsock.EventLoop.current() is loop.core
        server = sslsock.TcpServer()
        assert server.listen(0, "127.0.0.1")
        received = loop.create_future()
        client = sslsock.TcpSocket()
        client.connected_handler = lambda client: client.write(b"hello")

        def accepted(server: sslsock.TcpServer) -> None:
            peer = server.next_pending_connection()
            peer.ready_read_handler = lambda peer: received.set_result(peer.read_all())

        server.new_connection_handler = accepted
        client.connect("127.0.0.1", server.port)
        try:
            return await received
        finally:
            client.abort()
            server.close()

    assert loop.run_until_complete(main()) == b"hello"
    assert not loop._watched(loop.core)


# Datagrams


def test_a_datagram_to_the_peer_that_has_no_name(loop: EventLoop) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    async def main() -> None:
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=one)
        assert transport.get_extra_info("peername") == "" and not transport.get_extra_info("peername")
        transport.sendto(b"without an address")
        other.setblocking(False)
        assert await loop.sock_recv(other, 100) == b"without an address"
        transport.close()

    with other:
        loop.run_until_complete(main())
