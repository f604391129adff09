"""What connections leave behind: no descriptor, object or callback, wherever they are cut short; start_tls loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import warnings
import weakref
from typing import Any

import pytest
from far_end import NAME, Certificates, FarEnd, Plain, World

from peers import DEADLINE, open_descriptors
from sslsock.aio import EventLoop


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


def descriptors() -> list[str]:
    return sorted(open_descriptors().values())


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def swallow(task: asyncio.Task[Any]) -> bool:
    """Whether it was done before it could be cancelled."""
    done = task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, OSError):
        await task
    return done


@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_that_is_cancelled_in_any_turn(tls: bool, certificates: Certificates) -> None:
    w = World(certificates, True, tls, False)

    async def main() -> int:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            more: dict[str, Any] = {"ssl": w.near, "server_hostname": NAME} if tls else {}
            for count in range(200):
                before = descriptors()
                connecting = w.loop.create_task(w.loop.create_connection(asyncio.Protocol, *listener.getsockname(), **more))
                accepting = w.loop.create_task(w.loop.sock_accept(listener))
                serving = w.loop.create_task(serve(accepting)) if tls else accepting
                await turns(count)
                done = await swallow(connecting)
                if done:
                    connecting.result()[0].abort()
                await w.quiet()
                await swallow(serving)
                await swallow(accepting)
                if not accepting.cancelled():
                    accepting.result()[0].close()
                else:
                    with contextlib.suppress(BlockingIOError):
                        listener.accept()[0].close()
                while descriptors() != before:  # one whose handshake was done ends in order, with its peer
                    await w.quiet()
                if done:
                    return count
        raise AssertionError("it was never done")

    async def serve(accepting: asyncio.Task[Any]) -> None:
        sock, _ = await asyncio.shield(accepting)
        await FarEnd(w.loop, sock).start_tls(w.far, True)

    try:
        assert w.loop.run_until_complete(asyncio.wait_for(main(), DEADLINE)) > 0
    finally:
        w.loop.close()
    assert w.events == []


@pytest.mark.parametrize("tls", [False, True])
def test_a_cancelled_connection_is_closed_at_once(tls: bool, certificates: Certificates) -> None:
    """Wherever it was, also between the end of the handshake and the task that awaits it."""
    w = World(certificates, True, tls, False)

    async def main() -> int:
        more: dict[str, Any] = {"ssl": w.near, "server_hostname": NAME} if tls else {}
        for count in range(1, 200):
            one, other = socket.socketpair()
            far, number = FarEnd(w.loop, other), one.fileno()
            connecting = w.loop.create_task(w.loop.create_connection(asyncio.Protocol, sock=one, **more))
            answering = w.loop.create_task(far.start_tls(w.far, True)) if tls else w.loop.create_task(asyncio.sleep(0))
            await turns(count)
            done = await swallow(connecting)
            if done:
                connecting.result()[0].abort()
            with pytest.raises(OSError):
                os.fstat(number)
            await swallow(answering)
            far.close()
            await w.quiet()
            if done:
                return count
        raise AssertionError("it was never done")

    try:
        assert w.loop.run_until_complete(asyncio.wait_for(main(), DEADLINE)) > 0
    finally:
        w.loop.close()
    assert w.events == []


@pytest.mark.parametrize("server", [False, True])
def test_start_tls_that_is_cancelled_in_any_turn(server: bool, certificates: Certificates) -> None:
    w = World(certificates, True, True, server)

    async def main() -> int:
        for count in range(1, 200):  # before the first turn it has not begun, and the connection is still the program's
            before = descriptors()
            one, other = socket.socketpair()
            far, number = FarEnd(w.loop, other), one.fileno()
            transport, protocol = await w.loop.create_connection(asyncio.Protocol, sock=one)
            name = None if server else NAME
            beginning = w.loop.create_task(
                w.loop.start_tls(transport, protocol, w.near, server_side=server, server_hostname=name)
            )
            answering = w.loop.create_task(far.start_tls(w.far, not server))
            await turns(count)
            done = await swallow(beginning)
            if done:
                beginning.result().abort()
            with pytest.raises(OSError):
                os.fstat(number)
            await swallow(answering)
            far.close()
            await w.quiet()
            assert descriptors() == before, count
            if done:
                return count
        raise AssertionError("it was never done")

    try:
        assert w.loop.run_until_complete(asyncio.wait_for(main(), DEADLINE)) > 0
    finally:
        w.loop.close()
    assert w.events == []


class Hello(FarEnd):
    """A client whose first message goes out behind `before`, in one packet."""

    before = b""

    async def flush(self) -> None:
        before, self.before = self.before, b""
        await self.loop.sock_sendall(self.sock, before + self.outgoing.read())


def test_a_stream_that_starts_tls_has_the_handshake_that_came_with_the_request(certificates: Certificates) -> None:
    w = World(certificates, True, True, True)

    async def main() -> None:
        one, other = socket.socketpair()
        far = Hello(w.loop, other)
        far.before = b"STARTTLS\r\n"
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await w.loop.create_connection(lambda: protocol, sock=one)
        answering = w.loop.create_task(far.start_tls(w.far, False))
        assert await reader.readline() == b"STARTTLS\r\n"
        secured = await w.loop.start_tls(transport, protocol, w.near, server_side=True)
        await answering
        await far.send(b"over TLS\n")
        assert await reader.readline() == b"over TLS\n"
        secured.abort()
        far.close()

    w.loop.run_until_complete(asyncio.wait_for(main(), DEADLINE))
    w.loop.close()
    assert w.events == []


class Eager(FarEnd):
    """A client whose last message of the handshake, and data, go out in one packet."""

    async def flush(self) -> None:
        if self.tls is not None and self.tls.version() is not None and self.outgoing.pending:
            with contextlib.suppress(ssl.SSLError):
                self.tls.write(b"early bird")
        await super().flush()


@pytest.mark.parametrize("server", [False, True])
def test_start_tls_when_the_peer_has_ended_already(server: bool, certificates: Certificates) -> None:
    async def main() -> None:
        near, far = await w.connect(tls=False)
        near.transport.pause_reading()
        far.cut()
        await w.quiet()
        starting = w.loop.start_tls(
            near.transport,
            near,
            w.near,
            server_side=server,
            server_hostname=None if server else NAME,
            ssl_handshake_timeout=1000,
        )
        with pytest.raises(ConnectionResetError):
            await starting

    w = World(certificates, True, True, server)
    w.loop.run_until_complete(asyncio.wait_for(main(), DEADLINE))
    for close in w.closes:
        close()
    w.loop.close()
    assert w.events == [("connection_made",), ("connection_lost", ("ConnectionResetError", 104))]


@pytest.mark.parametrize("starts", [False, True], ids=["from the beginning", "start_tls"])
def test_data_that_comes_with_the_end_of_the_handshake(starts: bool, certificates: Certificates) -> None:
    w = World(certificates, True, True, True)

    async def main() -> None:
        one, other = socket.socketpair()
        far = Eager(w.loop, other)
        near = Plain(w)
        if starts:
            transport, _ = await w.loop.create_connection(lambda: near, sock=one)
            beginning = w.loop.start_tls(transport, near, w.near, server_side=True)
        else:
            beginning = w.loop.connect_accepted_socket(lambda: near, one, ssl=w.near)
        task = w.loop.create_task(beginning)
        await asyncio.sleep(0)  # what comes before it has begun is the protocol's
        await far.start_tls(w.far, False)
        await task
        await w.until(lambda: near.received == b"early bird")
        assert w.events == [("connection_made",), ("data",)]
        near.transport.abort()
        far.close()

    w.loop.run_until_complete(asyncio.wait_for(main(), DEADLINE))
    w.loop.close()


@pytest.mark.parametrize("tls", [False, True])
def test_a_loop_that_is_closed_with_open_transports(tls: bool, certificates: Certificates) -> None:
    before = descriptors()
    w = World(certificates, True, tls, False)
    near, far = w.loop.run_until_complete(w.connect())
    near.transport.write(bytes(8 << 20))
    transport = weakref.ref(near.transport)
    for close in w.closes:
        close()
    told = list(w.events)
    gc.collect()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        w.loop.close()
        near.transport = None
        w.recorders.clear()
        assert w.events == told  # nobody is called
        del w, near, far
        gc.collect()
    assert [str(warning.message)[:19] for warning in warned if warning.category is ResourceWarning] == ["unclosed transport "]
    warned.clear()  # it holds the transport
    gc.collect()
    assert transport() is None
    assert descriptors() == before


@pytest.mark.parametrize("end", ["close", "abort", "far close", "failed handshake"])
def test_many_connections_leave_nothing(end: str, certificates: Certificates) -> None:
    w = World(certificates, True, True, True)
    strangers = certificates.context(ssl, False, trusted=False)
    lost = 0

    class Server(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            if end in ("close", "abort"):
                getattr(transport, end)()

        def connection_lost(self, exc: Any) -> None:
            nonlocal lost
            lost += 1
            w.wake()

    async def one() -> None:
        ours, other = socket.socketpair()
        far = FarEnd(w.loop, other)
        accepting = w.loop.create_task(w.loop.connect_accepted_socket(Server, ours, ssl=w.near))
        with contextlib.suppress(OSError):
            await far.start_tls(strangers if end == "failed handshake" else w.far, False)
        far.close()
        with contextlib.suppress(OSError):
            await accepting

    async def some(count: int) -> None:
        before = lost
        for _ in range(count):
            await one()
        if end != "failed handshake":
            await w.until(lambda: lost == before + count)
        await w.quiet()

    w.loop.run_until_complete(some(50))
    gc.collect()
    open_before, objects = descriptors(), len(gc.get_objects())
    w.loop.run_until_complete(some(300))
    gc.collect()
    assert descriptors() == open_before
    assert len(gc.get_objects()) < objects + 100
    w.loop.close()
    assert w.events == []


def test_a_transport_that_is_lost_lets_go_of_its_context(certificates: Certificates) -> None:
    w = World(certificates, True, True, False)
    near, far = w.loop.run_until_complete(w.connect())
    context = weakref.ref(w.near)
    w.near = None

    async def main() -> None:
        near.transport.close()
        await w.told("connection_lost")

    w.loop.run_until_complete(main())  # the peer has not ended: the channel lingers
    near.transport = None
    gc.collect()
    assert context() is None
    far.close()
    for close in w.closes:
        close()
    w.loop.close()


@pytest.mark.parametrize("asked", ["before", "after", "never"])
@pytest.mark.parametrize("server", [False, True])
def test_a_loop_that_is_closed_leaves_no_number_that_is_anothers(server: bool, asked: str) -> None:
    """Descriptors that the loop has closed are closed by nobody else: the number may be another's by then."""
    loop = EventLoop()
    kept: list[Any] = []
    sockets: list[Any] = []

    class Kept(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            kept.append(transport)

    async def main() -> int:
        if server:
            served = await loop.create_server(Kept, "127.0.0.1", 0)
            far.connect(served.sockets[0].getsockname())
            while not kept:
                await asyncio.sleep(0)
            served.close()
        else:
            listener.setblocking(False)
            await loop.create_connection(Kept, *listener.getsockname())
        if asked == "before":
            sockets.append(kept[0].get_extra_info("socket"))
        return int(kept[0]._sock_fd)

    with socket.socket() as far, socket.create_server(("127.0.0.1", 0)) as listener:
        number = loop.run_until_complete(main())
        loop.close()
    with pytest.raises(OSError):
        os.fstat(number)
    with socket.socket() as other:
        os.dup2(other.fileno(), number)
        if asked == "after":
            sockets.append(kept[0].get_extra_info("socket"))
        assert all(sock.fileno() < 0 for sock in sockets)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # of the connection that was not closed
            kept.clear()
            gc.collect()
        os.fstat(number)
        os.close(number)


class Planned:
    """A call that is planned."""

    def __call__(self) -> None:
        raise AssertionError("it ran in a closed loop")


def test_what_a_closed_loop_had_planned_is_freed_and_nothing_is_made() -> None:
    """Programs count what there is before and after (`gc.get_objects`), to find what they have forgotten to close."""
    loop = EventLoop()
    loop.run_until_complete(turns(1))
    left = []
    timers = []
    for count in range(1000):  # more than the queue holds at first
        soon, later = Planned(), Planned()
        left += [weakref.ref(soon), weakref.ref(later)]
        loop.call_soon(soon)
        timers.append(loop.call_later(3600 + count, later))
    del soon, later
    gc.collect()
    gc.disable()
    try:
        before = set(map(id, gc.get_objects()))
        loop.close()
        after = gc.get_objects()
    finally:
        gc.enable()
    assert [each for each in after if id(each) not in before and each is not before] == []
    del after
    for timer in timers:
        timer.cancel()
    del timer
    timers.clear()
    assert [each for each in left if each() is not None] == []


@pytest.mark.parametrize("contexts", ["ours", "the interpreter's"])
@pytest.mark.parametrize("begins", ["create_connection", "start_tls"])
def test_a_refused_certificate_leaves_nothing_for_the_collector(begins: str, contexts: str, certificates: Certificates) -> None:
    """The transport and its protocol end with the exception."""
    w = World(certificates, True, True, False, module=ssl if contexts != "ours" else None)
    untrusting = certificates.context(w.ssl, False, trusted=False)
    left: list[weakref.ref[Any]] = []

    def factory() -> Plain:
        protocol = Plain(w)
        w.recorders.clear()
        left.append(weakref.ref(protocol))
        return protocol

    async def connect(address: Any, **more: Any) -> None:
        transport, protocol = await w.loop.create_connection(factory, *address, **more)
        left.append(weakref.ref(transport))
        await w.loop.start_tls(transport, protocol, untrusting, server_hostname=NAME)

    async def main() -> None:
        listener = w.listen()
        more = {"ssl": untrusting, "server_hostname": NAME} if begins == "create_connection" else {}
        connecting = w.loop.create_task(connect(listener.getsockname(), **more))
        sock, _ = await w.loop.sock_accept(listener)
        far = FarEnd(w.loop, sock)
        w.closes.append(far.close)
        with contextlib.suppress(ssl.SSLError, OSError):
            await far.start_tls(w.far, True)
        with pytest.raises(ssl.SSLCertVerificationError):
            await connecting
        del connecting
        await w.quiet()
        assert [one() for one in left] == [None] * (1 if begins == "create_connection" else 2)

    gc.collect()
    gc.disable()
    try:
        w.run(lambda w: main())
    finally:
        gc.enable()
