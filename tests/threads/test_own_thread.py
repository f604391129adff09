"""What belongs to a loop stays in its thread, and says so; and the ways in from other threads."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any, Callable, Optional

import pytest
from crowd import DEADLINE, THREADS, Crowd, client_context, repeated, server_context

import sslsock
from sslsock import EventLoop, TcpServer, TcpSocket, aio
from sslsock.core.channel import Channel
from sslsock.core.engine import Engine

OTHER_THREAD = "another thread|thread of its event loop|other than the current one"


def elsewhere(call: Callable[[], object]) -> Optional[BaseException]:
    """What it raises in another thread."""
    raised: list[Optional[BaseException]] = []

    def work() -> None:
        try:
            call()
        except BaseException as exc:
            raised.append(exc)
        else:
            raised.append(None)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(DEADLINE)
    return raised[0]


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError, match=OTHER_THREAD):
        error = elsewhere(call)
        if error is not None:
            raise error


class Consumer:
    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *args: None
        raise AttributeError(name)


class Family:
    """A connection of the family's, with a server."""

    def __enter__(self) -> Family:
        self.server = TcpServer()
        assert self.server.listen(0, "127.0.0.1")
        self.accepted: list[Any] = []
        self.server.new_connection_handler = lambda server: self.accepted.append(server.next_pending_connection())
        self.client = TcpSocket()
        self.client.connect("127.0.0.1", self.server.port)
        self.loop = EventLoop.current()
        while not (self.accepted and self.client.writeable):
            self.loop.dispatch(DEADLINE)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.abort()
        for one in self.accepted:
            one.abort()
        self.server.close()
        self.loop.close()


FAMILY: dict[str, Callable[[Family], object]] = {
    "read": lambda it: it.client.read(),
    "read_all": lambda it: it.client.read_all(),
    "peek": lambda it: it.client.peek(),
    "read_line": lambda it: it.client.read_line(),
    "read_into": lambda it: it.client.read_into(bytearray(10)),
    "write": lambda it: it.client.write(b"x"),
    "can_read_line": lambda it: it.client.can_read_line,
    "disconnect": lambda it: it.client.disconnect(),
    "abort": lambda it: it.client.abort(),
    "server close": lambda it: it.server.close(),
    "call_soon": lambda it: it.loop.call_soon(print),
    "call_later": lambda it: it.loop.call_later(1, print),
    "dispatch": lambda it: it.loop.dispatch(),
    "run": lambda it: it.loop.run(),
    "stop": lambda it: it.loop.stop(),
    "close": lambda it: it.loop.close(),
    "fileno": lambda it: it.loop.fileno(),
    "watch": lambda it: it.loop.watch(0, 1, print),
}


@pytest.mark.parametrize("name", FAMILY)
def test_the_family_refuses_other_threads(name: str) -> None:
    with Family() as it:
        refused(lambda: FAMILY[name](it))
        it.client.write(b"still here")
        while not it.accepted[0].bytes_available:
            it.loop.dispatch(DEADLINE)
        assert it.accepted[0].read() == b"still here"


def test_a_timer_is_cancelled_in_its_thread() -> None:
    loop = EventLoop()
    timer = loop.call_later(1000, print)
    refused(timer.cancel)
    assert not timer.cancelled
    timer.cancel()
    assert timer.cancelled
    loop.close()


def test_a_channel_and_its_engine_refuse_other_threads() -> None:
    loop = EventLoop()
    one, two = socket.socketpair()
    for sock in (one, two):
        sock.setblocking(False)
    client, server = Channel(loop, Consumer()), Channel(loop, Consumer())
    client.attach(one.detach())
    server.attach(two.detach())
    engine = Engine(client_context(), verify_name="localhost")
    client.start_tls(engine, 0)
    refused(lambda: engine.cipher)  # the handshake may be under way
    server.start_tls(Engine(server_context()), 0)
    while not (client.encrypted and server.encrypted):
        loop.dispatch(DEADLINE)
    for call in (
        lambda: client.write(b"x"), lambda: client.read(), lambda: client.finish(), lambda: client.abort(),
        lambda: client.flush(),
        lambda: engine.encrypt(b"x"), lambda: engine.take(), lambda: engine.close(), lambda: engine.decrypt(b""),
        lambda: engine.peer_verified_chain(), lambda: engine.export_keying_material("EXPERIMENTAL x", 10),
        lambda: client.bytes_available,
    ):  # fmt: skip
        refused(call)
    assert elsewhere(lambda: (engine.cipher, engine.protocol, engine.peer_certificate_chain(), engine.session)) is None
    client.abort()
    server.abort()
    loop.close()


TRANSPORT: dict[str, Callable[[Any], object]] = {
    "write": lambda it: it.write(b"x"),
    "writelines": lambda it: it.writelines([b"x"]),
    "close": lambda it: it.close(),
    "abort": lambda it: it.abort(),
    "pause_reading": lambda it: it.pause_reading(),
    "write_eof": lambda it: it.write_eof(),
    "set_protocol": lambda it: it.set_protocol(asyncio.Protocol()),
    "set_write_buffer_limits": lambda it: it.set_write_buffer_limits(1),
}


@pytest.mark.parametrize("name", TRANSPORT)
def test_transports_refuse_other_threads(name: str) -> None:
    async def main() -> None:
        one, two = socket.socketpair()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=one)
        refused(lambda: TRANSPORT[name](transport))
        transport.write(b"still here")
        assert await asyncio.to_thread(two.recv, 100) == b"still here"
        refused(lambda: loop.add_reader(two, print))
        transport.close()
        two.close()

    aio.run(main())


@pytest.mark.parametrize("debug", [False, True])
def test_calls_come_from_everywhere_in_order(debug: bool) -> None:
    """call_soon_threadsafe of several threads, each in its order; what is cancelled does not run; none is lost."""
    seen: dict[int, list[int]] = {}
    loop = aio.EventLoop()
    loop.set_debug(debug)
    count = 300

    def note(thread: int, number: int) -> None:
        seen.setdefault(thread, []).append(number)

    def work() -> None:
        for number in range(count):
            handle = loop.call_soon_threadsafe(note, threading.get_ident(), number)
            if number % 3 == 2 and not debug:
                extra = loop.call_soon_threadsafe(note, threading.get_ident(), -1)
                extra.cancel()
                assert extra.cancelled() and not handle.cancelled()

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    Crowd().work(work).run()
    loop.call_soon_threadsafe(loop.stop)
    thread.join(DEADLINE)
    assert not thread.is_alive()
    loop.close()
    assert len(seen) == THREADS
    for numbers in seen.values():
        assert [number for number in numbers if number >= 0] == list(range(count))


def test_a_loop_is_used_before_the_thread_runs_it() -> None:
    """Whoever has made it plans while another thread takes it over."""
    for _ in range(20):
        loop = aio.EventLoop()
        ran = threading.Event()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        loop.call_soon_threadsafe(ran.set)
        assert ran.wait(DEADLINE)
        done = asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "done"), loop)
        assert done.result(DEADLINE) == "done"
        timer = threading.Event()
        handle = loop.call_later(1000, print)
        loop.call_later(0, timer.set)  # as asyncio lets it pass, and here it is safe
        assert timer.wait(DEADLINE)
        handle.cancel()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE)
        assert not loop.is_running()
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            loop.call_soon_threadsafe(print)


def test_a_loop_is_asked_how_it_is_while_it_runs_and_ends() -> None:
    """asyncio lets other threads ask, and set the debug mode."""

    async def turns() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    def run_and_ask() -> None:
        loop = aio.EventLoop()
        begun = threading.Barrier(3)
        wrong: list[BaseException] = []

        def ask() -> None:
            begun.wait()
            try:
                while not loop.is_closed():
                    loop.set_debug(not loop.get_debug())
                    assert isinstance(loop.is_running(), bool)
                    assert "closed=" in repr(loop)
            except BaseException as exc:
                if str(exc) != "Event loop is closed":  # since it was asked; then the mode cannot be set
                    wrong.append(exc)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        begun.wait()
        loop.run_until_complete(turns())
        loop.close()
        for thread in threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()
        assert wrong == []

    for _ in range(10):
        run_and_ask()


@pytest.mark.parametrize("kind", [EventLoop, aio.EventLoop])
def test_a_loop_is_closed_while_others_wake_it(kind: Callable[[], Any]) -> None:
    """Either a call is taken or it is said that the loop is closed; no descriptor of somebody else is written to."""

    def close_and_wake() -> None:
        loop = kind()
        said: list[str] = []
        begun = threading.Barrier(3)

        def wake() -> None:
            begun.wait()
            try:
                while True:
                    loop.call_soon_threadsafe(print)
            except RuntimeError as exc:
                said.append(str(exc).lower())

        threads = [threading.Thread(target=wake) for _ in range(2)]
        for thread in threads:
            thread.start()
        begun.wait()
        loop.close()
        pairs = [socket.socketpair() for _ in range(3)]  # they have the numbers that the loop had
        for thread in threads:
            thread.join(DEADLINE)
        for sock in (sock for pair in pairs for sock in pair):
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
        for sock in (sock for pair in pairs for sock in pair):
            sock.close()
        assert [text.replace("the ", "") for text in said] == ["event loop is closed"] * 2

    for _ in range(10):
        close_and_wake()


def test_a_handle_is_cancelled_by_all_and_looked_at() -> None:
    """In debug mode it keeps its text from before."""
    loop = aio.EventLoop()
    handles = [loop.call_soon(print, object()) for _ in range(200)]
    timers = [loop.call_later(1000, print, object()) for _ in range(200)]
    loop.set_debug(True)

    def cancel() -> None:
        for handle in handles + timers:
            handle.cancel()
            assert handle.cancelled() and "cancelled" in repr(handle)

    def look() -> None:
        for handle in handles + timers:
            assert repr(handle).startswith("<")

    Crowd().work(cancel).meanwhile(look).run()
    for handle in handles + timers:
        assert "cancelled" in repr(handle) and "print" in repr(handle)
    loop.close()


def test_twins_are_called_from_everywhere() -> None:
    ready, loops, sockets = threading.Event(), [], []
    got = bytearray()

    def main() -> None:
        server = TcpServer()
        assert server.listen(0, "127.0.0.1")
        loop = EventLoop.current()

        def accepted(server: TcpServer) -> None:
            sock = server.next_pending_connection()
            assert sock is not None
            sock.ready_read_handler = lambda sock: got.extend(sock.read())
            sock.disconnected_handler = lambda sock: (server.close(), sslsock.stop())

        server.new_connection_handler = accepted
        client = TcpSocket()
        client.connected_handler = lambda sock: ready.set()
        client.connect("127.0.0.1", server.port)
        loops.append(loop)
        sockets.append(client)

    thread = threading.Thread(target=sslsock.run, args=(main,))
    thread.start()
    assert ready.wait(DEADLINE)
    client = sockets[0]

    def write() -> None:
        assert client.write_async(b"f" * 100).result(DEADLINE) == 100

    Crowd().work(repeated(write)).run()
    client.disconnect_async().result(DEADLINE)
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert got == b"f" * 100 * THREADS * (len(got) // (100 * THREADS)) and got
