"""A world for one scenario: a loop of asyncio's or ours, a connection whose protocol writes down what it is told, a far end.

The far end is a socket in the same loop, its TLS the interpreter's `ssl` over MemoryBIO, whichever loop is under test.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import struct
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Callable, Optional

import trustme

import sslsock.ssl
from peers import DEADLINE
from sslsock.aio import EventLoop

NAME = "localhost"
BUFFER = 256 << 10  # bytes that the system is to hold for each direction, whatever its settings are
Event = tuple[Any, ...]


def described(exc: Optional[BaseException]) -> Any:
    """An exception as both loops can say it: class, and number or reason."""
    if exc is None:
        return None
    name = type(exc).__name__
    if getattr(exc, "reason", None) is not None:
        return name, exc.reason  # type: ignore[attr-defined]
    if isinstance(exc, OSError):
        return name, exc.errno
    return name, str(exc)


class FarEnd:
    """The peer of the connection under test."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self.loop, self.sock = loop, sock
        sock.setblocking(False)
        self.tls: Optional[ssl.SSLObject] = None

    async def start_tls(self, context: ssl.SSLContext, server_side: bool, name: str = NAME) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side, None if server_side else name)
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self.flush()
                if not await self.take():
                    raise ConnectionResetError("the end came in the handshake") from None
            except ssl.SSLError:
                await self.flush()
                raise
        await self.flush()

    async def flush(self) -> None:
        await self.loop.sock_sendall(self.sock, self.outgoing.read())

    async def take(self) -> bool:
        data = await self.loop.sock_recv(self.sock, 1 << 16)
        self.incoming.write(data) if data else self.incoming.write_eof()
        return bool(data)

    async def send(self, data: bytes) -> None:
        if self.tls is None:
            await self.loop.sock_sendall(self.sock, data)
            return
        self.tls.write(data)
        await self.flush()

    async def receive(self) -> bytes:
        """What there is next, b"" at the peer's end, in order or not."""
        if self.tls is None:
            return await self.loop.sock_recv(self.sock, 1 << 16)
        while True:
            try:
                return self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                await self.take()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def receive_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = await self.receive()
            assert more, "the connection has ended"
            data += more
        return data

    async def receive_all(self) -> bytes:
        pieces = []
        while piece := await self.receive():
            pieces.append(piece)
        return b"".join(pieces)

    async def say_end(self) -> None:
        """close_notify, where there is TLS, and the FIN."""
        if self.tls is not None:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.unwrap()
            await self.flush()
        self.sock.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """The FIN alone."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


class Recorder:
    """The protocol of a connection: each call is an event of the world. then: what else to do in a callback, by its name."""

    def __init__(self, world: World, **then: Callable[..., Any]) -> None:
        self.world, self.then = world, then
        self.transport: Any = None
        self.received = b""
        self.paused = self.lost = False
        world.recorders.append(self)

    def tell(self, name: str, *arguments: Any) -> Any:
        self.world.tell(name, *arguments)
        return self.then[name](self) if name in self.then else None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.tell("connection_made")

    def take(self, data: bytes) -> Any:
        if self.paused:
            self.world.tell("data while paused")
        self.received += data
        if self.world.events[-1:] != [("data",)]:
            self.world.tell("data")
        self.world.wake()

    def eof_received(self) -> Any:
        return self.tell("eof_received")

    def pause_writing(self) -> None:
        self.tell("pause_writing")

    def resume_writing(self) -> None:
        self.tell("resume_writing")

    def connection_lost(self, exc: Optional[BaseException]) -> None:
        self.lost = True
        self.tell("connection_lost", described(exc))


class Plain(Recorder, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.take(data)
        if "data_received" in self.then:
            self.then["data_received"](self)


class Buffered(Recorder, asyncio.BufferedProtocol):
    def get_buffer(self, hint: int) -> Any:
        if "get_buffer" in self.then:
            return self.then["get_buffer"](self)
        self.memory = memoryview(bytearray(1000))
        return self.memory

    def buffer_updated(self, size: int) -> None:
        self.take(bytes(self.memory[:size]))
        if "buffer_updated" in self.then:
            self.then["buffer_updated"](self)


class World:
    """One run of a scenario. ours: our loop and our `ssl`. tls: whether connections have it. server: the role under test.
    folder: where UNIX sockets are made; None: TCP. module: whose contexts the side under test has; None: ours with our
    loop, the interpreter's with asyncio's."""

    def __init__(
        self, certificates: Certificates, ours: bool, tls: bool, server: bool, folder: Optional[Path] = None, module: Any = None
    ) -> None:
        self.certificates, self.ours, self.tls, self.server = certificates, ours, tls, server
        self.folder = folder
        self.ssl: Any = module or (sslsock.ssl if ours else ssl)
        self.events: list[Event] = []
        self.recorders: list[Recorder] = []
        self.waiters: list[asyncio.Future[None]] = []
        self.closes: list[Callable[[], object]] = []
        self.loop: asyncio.AbstractEventLoop = EventLoop() if ours else asyncio.SelectorEventLoop()
        self.loop.set_exception_handler(self.handle)
        self.near = self.certificates.context(self.ssl, server)
        self.far = self.certificates.context(ssl, not server)

    def run(self, scenario: Callable[[World], Coroutine[Any, Any, None]]) -> list[Event]:
        try:
            self.loop.run_until_complete(asyncio.wait_for(scenario(self), DEADLINE))
        finally:
            for close in self.closes:
                close()
            for recorder in self.recorders:
                if recorder.transport is not None and not recorder.lost:
                    recorder.transport.abort()
            self.loop.run_until_complete(self.quiet())
            self.loop.close()
        gc.collect()
        return self.events

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.tell("exception handler", context["message"], described(context.get("exception")), sorted(context))

    def tell(self, *event: Any) -> None:
        self.events.append(event)
        self.wake()

    def wake(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            waiter = self.loop.create_future()
            self.waiters.append(waiter)
            try:
                await asyncio.wait_for(waiter, DEADLINE / 2)
            except asyncio.TimeoutError:
                raise AssertionError(f"it did not come; there was {self.events}") from None

    async def told(self, name: str) -> None:
        await self.until(lambda: any(event[0] == name for event in self.events))

    async def quiet(self) -> None:
        """What the system has for the loop now has been met: a byte has gone out and come, twice."""
        one, other = socket.socketpair()
        with one, other:
            for sock in (one, other):
                sock.setblocking(False)
            for _ in range(2):
                receiving = self.loop.create_task(self.loop.sock_recv(other, 1))
                await asyncio.sleep(0)  # there is nothing yet, so that the loop has to ask the system
                await self.loop.sock_sendall(one, b"x")
                await receiving

    def socket(self) -> socket.socket:
        """The far end's, or its listener."""
        sock = socket.socket(socket.AF_INET if self.folder is None else socket.AF_UNIX)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        sock.setblocking(False)
        return sock

    def listen(self) -> socket.socket:
        listener = self.socket()
        listener.bind(("127.0.0.1", 0) if self.folder is None else self.new_path())
        listener.listen()
        self.closes.append(listener.close)
        return listener

    def new_path(self) -> str:
        assert self.folder is not None
        return str(self.folder / str(sum(1 for _ in self.folder.iterdir())))

    async def raw(self, factory: Callable[[], Any], **more: Any) -> tuple[Any, FarEnd]:
        """The beginning of a connection: a task where it is a client's, its server where it is a server's; and the far end."""
        if self.server:
            if self.folder is None:
                served: Any = await self.loop.create_server(factory, "127.0.0.1", 0, **more)
            else:
                served = await self.loop.create_unix_server(factory, self.new_path(), **more)
            self.closes.append(served.close)
            sock = self.socket()
            await self.loop.sock_connect(sock, served.sockets[0].getsockname())
            far = FarEnd(self.loop, sock)
            self.closes.append(far.close)
            return served, far
        listener = self.listen()
        if "ssl" in more:
            more.setdefault("server_hostname", NAME)
        if self.folder is None:
            connecting: Any = self.loop.create_connection(factory, *listener.getsockname(), **more)
        else:
            connecting = self.loop.create_unix_connection(factory, listener.getsockname(), **more)
        task = self.loop.create_task(connecting)
        sock, _ = await self.loop.sock_accept(listener)
        far = FarEnd(self.loop, sock)
        self.closes.append(far.close)
        return task, far

    async def connect(self, kind: type[Recorder] = Plain, tls: Optional[bool] = None, **then: Any) -> tuple[Any, FarEnd]:
        """A connection that stands: its protocol, and the far end."""
        tls = self.tls if tls is None else tls
        before = len(self.recorders)
        beginning, far = await self.raw(lambda: kind(self, **then), **({"ssl": self.near} if tls else {}))
        if tls:
            await far.start_tls(self.far, not self.server)
        if not self.server:
            await beginning
        await self.until(lambda: len(self.recorders) > before and self.recorders[-1].transport is not None)
        near = self.recorders[-1]
        near.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        return near, far


class Certificates:
    """An authority, and contexts of either `ssl`."""

    def __init__(self) -> None:
        self.ca = trustme.CA()
        self.issued = self.ca.issue_cert(NAME)

    def context(self, module: Any, server: bool, trusted: bool = True, issued: Optional[trustme.LeafCert] = None) -> Any:
        context = module.SSLContext(module.PROTOCOL_TLS_SERVER if server else module.PROTOCOL_TLS_CLIENT)
        if server:
            (issued or self.issued).configure_cert(context)
        elif trusted:
            self.ca.configure_trust(context)
        return context
