"""EventLoop: whose it is, how it runs, how it follows an asyncio loop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
import time
import weakref

import pytest

import sslsock
from peers import Recorder, listening, make_tcp_pair
from sslsock import EventLoop, TcpServer, TcpSocket


@pytest.fixture
def loop(own_host):
    return own_host.loop


def in_thread(function):
    """The result of a call in a thread of its own."""
    results = []

    def run():
        try:
            results.append(function())
        except BaseException as exc:
            results.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    return results[0]


def test_each_thread_has_one_loop(loop):
    assert EventLoop.current() is loop
    other = in_thread(lambda: (EventLoop.current(), EventLoop.current()))
    assert other[0] is other[1] is not loop


def test_a_closed_loop_is_replaced(loop):
    loop.close()
    assert loop.closed
    fresh = EventLoop.current()
    assert fresh is not loop
    fresh.close()


def test_run_ends_when_nothing_is_left(loop):
    calls = []
    loop.call_soon(calls.append, 1)
    loop.call_later(0.001, calls.append, 2)
    loop.call_later(0, lambda: loop.call_soon(calls.append, 3))
    sslsock.run()
    assert sorted(calls) == [1, 2, 3]


def test_run_calls_main_inside_the_loop(loop):
    seen = []
    sslsock.run(lambda: seen.append((loop.running, EventLoop.current() is loop)))
    assert seen == [(True, True)]


def test_what_main_raises_comes_out(loop):
    def main():
        loop.call_later(60, print)
        raise ValueError("from main")

    with pytest.raises(ValueError, match="from main"):
        sslsock.run(main)


async def coroutine():
    raise AssertionError("it runs")


@pytest.mark.parametrize("main", [coroutine, coroutine(), 1], ids=["function", "coroutine", "no function"])
@pytest.mark.filterwarnings("error")
def test_run_runs_no_coroutines(loop, main):
    with pytest.raises(TypeError, match=r"run\(\) calls a function, not int" if main == 1 else r"sslsock\.aio\.run\(\) does"):
        sslsock.run(main)


def test_stop_ends_run(loop):
    timer = loop.call_later(60, print)
    sslsock.run(sslsock.stop)
    loop.call_later(0.001, sslsock.stop)
    sslsock.run()
    assert not timer.cancelled
    timer.cancel()


@pytest.mark.parametrize("times", [1, 2])
def test_stop_before_run_lets_main_be_called_in_that_run(loop, times):
    timer, seen = loop.call_later(60, print), []
    for _ in range(times):
        sslsock.stop()
    sslsock.run(lambda: seen.append("first"))
    assert seen == ["first"]
    sslsock.run(lambda: (seen.append("second"), sslsock.stop()))
    assert seen == ["first", "second"]
    timer.cancel()
    sslsock.run()
    assert seen == ["first", "second"] and loop.idle


def test_what_main_raises_comes_out_of_a_run_that_was_stopped_before(loop):
    sslsock.stop()
    with pytest.raises(ZeroDivisionError):
        sslsock.run(lambda: 1 / 0)


def test_a_cancelled_timer_does_not_keep_the_loop(loop):
    loop.call_later(60, print).cancel()
    sslsock.run()


def test_running_twice_raises(loop):
    errors = []

    def again():
        try:
            sslsock.run(lambda: errors.append("main was called"))
        except RuntimeError as exc:
            errors.append(str(exc))

    sslsock.run(again)
    assert len(errors) == 1
    assert "running" in errors[0]


def test_exceptions_go_to_the_exception_handler(loop, own_host):
    def fail():
        raise ValueError("from a call")

    loop.call_soon(fail)
    sslsock.run()
    assert [str(exc) for exc in own_host.take_failures()] == ["from a call"]


def test_exceptions_are_logged_by_default(loop, caplog):
    loop.exception_handler = None
    sock = TcpSocket()
    sock.error_handler = lambda s, error: 1 / 0
    with caplog.at_level(logging.ERROR, "sslsock"):
        sock.write(b"")
    assert "error_handler" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_programs_leaves_run(loop, kind):
    def fail():
        raise kind

    loop.call_soon(fail)
    loop.call_later(60, print)
    with pytest.raises(kind):
        sslsock.run()


def test_ctrl_c_ends_run(loop):
    loop.call_later(60, print)
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        sslsock.run(timer.start)  # inside the loop: elsewhere the signal would end the tests
    assert time.monotonic() - start < 30, "the signal has waited for the next timer"
    assert signal.set_wakeup_fd(before) == before


def test_a_call_from_another_thread_wakes_the_loop(loop):
    seen = []

    def from_loop():
        seen.append(threading.current_thread())
        sslsock.stop()

    loop.call_later(60, print)
    thread = threading.Timer(0.02, loop.call_soon_threadsafe, [from_loop])
    thread.start()
    sslsock.run()
    assert seen == [threading.current_thread()]


def test_a_loop_runs_in_any_thread(own_host):
    def echo():
        server = listening(TcpServer())
        received = []

        def new(s):
            peer = s.next_pending_connection()
            peer.ready_read_handler = lambda p: p.write(p.read_all())
            s.close()

        server.new_connection_handler = new
        sock = TcpSocket()
        sock.ready_read_handler = lambda s: (received.append(s.read_all()), s.disconnect())
        sock.connect("localhost", server.port)
        sock.write(b"hello")
        sslsock.run()
        EventLoop.current().close()
        return received

    assert in_thread(echo) == [b"hello"]


# Foreign threads, closed loops, forks


SOCKET_CALLS = {
    "connect": ("127.0.0.1", 80),
    "disconnect": (),
    "abort": (),
    "close": (),
    "bind": (0,),
    "open": (3,),
    "write": (b"x",),
}


@pytest.mark.parametrize(("name", "arguments"), SOCKET_CALLS.items())
def test_a_socket_is_for_its_own_thread(own_host, name, arguments):
    pair = make_tcp_pair(own_host)
    for sock in (pair.client, TcpSocket()):
        result = in_thread(lambda sock=sock: getattr(sock, name)(*arguments))
        assert isinstance(result, RuntimeError)
        assert "thread" in str(result)
    assert pair.client.state is TcpSocket.CONNECTED_STATE
    pair.client.abort()


@pytest.mark.parametrize("name", ["read", "read_all", "peek", "read_line", "read_string"])
def test_reading_is_for_the_own_thread(own_host, name):
    pair = make_tcp_pair(own_host, reads=False)
    pair.client.write(b"data")
    own_host.wait_for(lambda: pair.server.bytes_available == 4)
    assert isinstance(in_thread(getattr(pair.server, name)), RuntimeError)
    assert pair.server.read() == b"data"
    pair.client.abort()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("listen", (0,)),
        ("close", ()),
        ("pause_accepting", ()),
        ("resume_accepting", ()),
        ("next_pending_connection", ()),
    ],
)
def test_a_server_is_for_its_own_thread(own_host, name, arguments):
    server = TcpServer()
    assert isinstance(in_thread(lambda: getattr(server, name)(*arguments)), RuntimeError)
    assert not server.listening


@pytest.mark.parametrize(("name", "arguments"), SOCKET_CALLS.items())
def test_a_closed_loop_raises(own_host, name, arguments):
    pair = make_tcp_pair(own_host)
    unconnected = TcpSocket()
    own_host.loop.close()
    for sock in (pair.client, unconnected):
        with pytest.raises(RuntimeError, match="closed"):
            getattr(sock, name)(*arguments)


def test_what_was_received_is_readable_after_the_loop_was_closed(own_host):
    pair = make_tcp_pair(own_host, reads=False)
    pair.client.write(b"data")
    own_host.wait_for(lambda: pair.server.bytes_available == 4)
    own_host.loop.close()
    assert pair.server.read_all() == b"data"


def run_child(function):
    """What a forked child returns: a word through its exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if function() else 2
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def test_a_forked_child_cannot_use_the_parents_connections(own_host):
    pair = make_tcp_pair(own_host)

    def child():
        for call in (lambda: pair.client.write(b"x"), pair.client.disconnect, pair.client.abort, own_host.loop.run):
            try:
                call()
            except RuntimeError:
                continue
            return False
        return EventLoop.current() is not own_host.loop

    assert run_child(child)
    pair.client.write(b"from the parent")
    own_host.wait_for(lambda: pair.right.data == b"from the parent")


def test_a_forked_child_has_a_loop_and_a_resolver_of_its_own(own_host):
    server = listening(TcpServer(), "")
    server.new_connection_handler = lambda s: Recorder(s.next_pending_connection())
    sock = TcpSocket()
    recorder = Recorder(sock)
    sock.connect("localhost", server.port)  # so that the resolver's threads exist before the fork
    own_host.wait_for(lambda: recorder.has("connected"))

    def child():
        again = TcpSocket()
        again.connected_handler = lambda s: s.abort()
        again.connect("localhost", server.port)
        connected = []
        again.state_changed_handler = lambda s, state: connected.append(state)
        sslsock.run()
        return TcpSocket.CONNECTED_STATE in connected

    assert run_child(child)
    sock.abort()


# Inside asyncio


def test_sockets_work_inside_asyncio_with_no_further_call():
    async def main():
        server = listening(TcpServer())
        server.new_connection_handler = lambda s: setattr(
            s.next_pending_connection(), "ready_read_handler", lambda p: p.write(p.read_all().upper())
        )
        answer = asyncio.get_running_loop().create_future()
        sock = TcpSocket()
        sock.ready_read_handler = lambda s: answer.set_result(s.read_all())
        sock.connect("localhost", server.port)
        sock.write(b"question")
        assert await asyncio.wait_for(answer, 10) == b"QUESTION"
        EventLoop.current().close()

    asyncio.run(main())


def test_run_is_refused_inside_asyncio():
    async def main():
        called = []
        with pytest.raises(RuntimeError, match="asyncio"):
            sslsock.run(lambda: called.append(1))
        assert called == []
        EventLoop.current().close()

    asyncio.run(main())


def test_the_loop_goes_from_host_to_host(own_host):
    server = listening(TcpServer())
    server.new_connection_handler = lambda s: Recorder(s.next_pending_connection())
    sock = TcpSocket()

    async def connect():
        connected = asyncio.get_running_loop().create_future()
        sock.connected_handler = connected.set_result
        sock.connect("127.0.0.1", server.port)
        await asyncio.wait_for(connected, 10)
        sock.abort()

    asyncio.run(connect())
    asyncio.run(connect())
    recorder = Recorder(sock)
    sock.connect("127.0.0.1", server.port)
    sock.connected_handler = lambda s: (s.abort(), server.close())
    sslsock.run()
    assert recorder.has("disconnected")
    asyncio.run(connect_fails(sock))


async def connect_fails(sock):
    failed = asyncio.get_running_loop().create_future()
    sock.error_handler = lambda s, error: failed.set_result(error)
    sock.connect("", 1)
    assert await asyncio.wait_for(failed, 10) is TcpSocket.HOST_NOT_FOUND_ERROR


def test_a_socket_made_before_asyncio_runs_works_in_it(own_host):
    sock = TcpSocket()
    asyncio.run(connect_fails(sock))


def test_writes_outside_a_turn_go_out_under_asyncio(own_host):
    pair = make_tcp_pair(own_host)

    async def main():
        EventLoop.current()
        pair.client.write(b"from a coroutine")
        while not pair.right.data:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(main(), 10))
    assert pair.right.data == b"from a coroutine"


def test_asyncio_is_not_imported_by_sslsock():
    import subprocess
    import sys

    code = "import sslsock, sys; sslsock.TcpSocket(); sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_closed_loop_is_not_kept_by_its_thread(own_host):
    """It has scratch memory of 1.7 MB; and what its handlers refer to is kept with it."""
    kept = []

    def run():
        loop = EventLoop.current()
        loop.close()
        gone = weakref.ref(loop)
        del loop
        gc.collect()
        kept.append(gone())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert kept == [None]
