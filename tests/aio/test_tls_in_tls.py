"""TLS over transports: over TLS of ours, and over the transports of other loops and libraries."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Coroutine
from typing import Any, Callable

import pytest
from far_end import NAME, Certificates, FarEnd

import sslsock.ssl
from peers import DEADLINE
from sslsock import aio

MODULES = {"own": sslsock.ssl, "foreign": ssl}


class Within(FarEnd):
    """The far end of TLS in TLS: its bytes are those of another far end's stream."""

    def __init__(self, lower: FarEnd) -> None:
        self.loop, self.lower = lower.loop, lower
        self.tls = None

    async def flush(self) -> None:
        data = self.outgoing.read()
        if data:
            await self.lower.send(data)

    async def take(self) -> bool:
        data = await self.lower.receive()
        self.incoming.write(data) if data else self.incoming.write_eof()
        return bool(data)

    async def say_end(self) -> None:
        assert self.tls is not None
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        await self.flush()
        await self.lower.say_end()


class Told(asyncio.Protocol):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.received = b""
        self.lost = asyncio.get_running_loop().create_future()
        self.wanted = 0
        self.came = asyncio.Event()
        self.full, self.room = asyncio.Event(), asyncio.Event()
        self.room.set()

    def connection_made(self, transport: Any) -> None:
        self.calls.append("connection_made")
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        if len(self.received) >= self.wanted:
            self.came.set()

    async def receive(self, size: int) -> bytes:
        self.wanted = size
        self.came.clear()
        if len(self.received) < size:
            await self.came.wait()
        data, self.received = self.received, b""
        return data

    def eof_received(self) -> None:
        self.calls.append("eof_received")

    def pause_writing(self) -> None:
        self.calls.append("pause_writing")
        self.room.clear()
        self.full.set()

    def resume_writing(self) -> None:
        self.calls.append("resume_writing")
        self.room.set()

    def connection_lost(self, exc: Any) -> None:
        self.calls.append("connection_lost")
        self.lost.set_result(exc)


class Minimal(asyncio.Protocol):
    """A transport of somebody's: the least that asyncio's interface has, over another one; and that one's protocol."""

    def __init__(self, protocol: Any) -> None:
        self.protocol: Any = protocol

    def connection_made(self, transport: Any) -> None:
        self.lower = transport
        self.protocol.connection_made(self)

    def connection_lost(self, exc: Any) -> None:
        self.protocol.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.protocol.data_received(data)

    def eof_received(self) -> Any:
        return self.protocol.eof_received()

    def pause_writing(self) -> None:
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        self.protocol.resume_writing()

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "lower":
            raise AttributeError(name)
        return getattr(self.lower, name)


def run(host: Any, main: Coroutine[Any, Any, None]) -> None:
    host.run_until_complete(asyncio.wait_for(main, DEADLINE))


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


class Pair:
    """A connection of `host` by `below`, and the far end of it."""

    def __init__(self, host: Any, certificates: Certificates, below: str) -> None:
        self.host, self.certificates, self.below = host, certificates, below

    async def __aenter__(self) -> Pair:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        kind, _, tls = self.below.partition("-")
        more: dict[str, Any] = {}
        if tls:
            more = {"ssl": self.certificates.context(MODULES[tls], False), "server_hostname": NAME}
        self.told = Told()
        factory: Callable[[], Any] = lambda: Minimal(self.told) if kind == "minimal" else self.told  # noqa: E731
        create = self.host.create_connection if kind == "host" else lambda *a, **k: aio.create_connection(self.host, *a, **k)
        beginning = self.host.create_task(create(factory, *listener.getsockname(), **more))
        sock, _ = await self.host.sock_accept(listener)
        listener.close()
        self.bottom = FarEnd(self.host, sock)
        if tls:
            await self.bottom.start_tls(self.certificates.context(ssl, True), True)
        self.lower, made = await beginning
        if kind == "minimal":
            self.lower = made
        return self

    async def start_tls(self, context: Any, server_side: bool = False, protocol: Any = None, **more: Any) -> Any:
        if not server_side:
            more.setdefault("server_hostname", NAME)
        protocol = protocol or self.told
        return await aio.start_tls(self.host, self.lower, protocol, context, server_side=server_side, **more)

    async def both(self, module: Any, server_side: bool = False, **more: Any) -> tuple[Any, Within]:
        """TLS on both sides: our transport, and the far end."""
        far = Within(self.bottom)
        context = self.certificates.context(module, server_side)
        ours = self.host.create_task(self.start_tls(context, server_side, **more))
        await asyncio.sleep(0)  # what comes before it has begun is the protocol's
        await far.start_tls(self.certificates.context(ssl, not server_side), not server_side)
        return await ours, far

    async def __aexit__(self, *failure: Any) -> None:
        self.bottom.close()
        self.lower.abort()
        if not self.told.lost.done():
            await self.told.lost


BELOW = ["ours-own", "ours-foreign", "host", "host-foreign", "minimal", "minimal-own"]


@pytest.mark.parametrize("server", [False, True], ids=["client", "server"])
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("below", BELOW)
def test_data_and_the_end(host: Any, certificates: Certificates, below: str, module: str, server: bool) -> None:
    async def main() -> None:
        async with Pair(host, certificates, below) as pair:
            transport, far = await pair.both(MODULES[module], server)
            told = pair.told
            assert isinstance(transport, aio.Transport) and not transport.is_closing()
            assert told.calls == ["connection_made"]  # and not again
            data = os.urandom(1_000_001)
            transport.write(data[:1000])
            transport.writelines([data[1000:2000], memoryview(data)[2000:]])
            assert await far.receive_exactly(len(data)) == data
            sending = host.create_task(far.send(data))
            assert await told.receive(len(data)) == data
            await sending
            info = transport.get_extra_info
            assert info("peername") == pair.bottom.sock.getsockname()
            assert info("sockname") == pair.bottom.sock.getpeername()
            assert info("socket").fileno() >= 0
            assert info("ssl_object").server_side is server and info("tls_version") == "TLSv1.3"
            assert info("ssl_object") is not pair.lower.get_extra_info("ssl_object") or transport is pair.lower
            assert info("no such thing", 5) == 5
            transport.write(b"last")
            transport.close()
            assert await far.receive_all() == b"last"
            assert await told.lost is None
            assert await pair.bottom.receive() == b""
            assert info("peername") is not None and info("tls_version") == "TLSv1.3"
            assert [call for call in told.calls if "writing" not in call] == ["connection_made", "connection_lost"]

    run(host, main())


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("below", BELOW)
def test_the_peers_end(host: Any, certificates: Certificates, below: str, module: str) -> None:
    async def main() -> None:
        async with Pair(host, certificates, below) as pair:
            transport, far = await pair.both(MODULES[module])
            await far.send(b"last")
            await far.say_end()
            assert await pair.told.lost is None
            assert pair.told.received == b"last"
            assert pair.told.calls == ["connection_made", "eof_received", "connection_lost"]
            assert transport.get_extra_info("clean_close") is True

    run(host, main())


@pytest.mark.parametrize("below", BELOW)
def test_a_cut(host: Any, certificates: Certificates, below: str) -> None:
    async def main() -> None:
        async with Pair(host, certificates, below) as pair:
            transport, _ = await pair.both(sslsock.ssl)
            await pair.bottom.say_end()
            assert await pair.told.lost is None
            assert pair.told.calls == ["connection_made", "eof_received", "connection_lost"]
            assert transport.get_extra_info("clean_close") is False

    run(host, main())


@pytest.mark.parametrize("below", BELOW)
def test_a_reset(host: Any, certificates: Certificates, below: str) -> None:
    async def main() -> None:
        async with Pair(host, certificates, below) as pair:
            await pair.both(sslsock.ssl)
            pair.bottom.reset()
            lost = await pair.told.lost
            if below == "host-foreign":
                assert lost is None or isinstance(lost, ConnectionError)  # uvloop's and asyncio's TLS differ in what they tell
            else:
                assert isinstance(lost, ConnectionResetError)
            assert pair.told.calls[-1] == "connection_lost"

    run(host, main())


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("below", BELOW)
def test_a_wrong_name(host: Any, certificates: Certificates, below: str, module: str) -> None:
    async def main() -> None:
        async with Pair(host, certificates, below) as pair:
            far = Within(pair.bottom)
            context = certificates.context(MODULES[module], False)
            ours = host.create_task(pair.start_tls(context, server_hostname="wrong.example"))
            with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
                await far.start_tls(certificates.context(ssl, True), True)
                await far.receive()
            with pytest.raises(ssl.SSLCertVerificationError):
                await ours
            assert pair.lower.is_closing()

    run(host, main())


@pytest.mark.parametrize("below", BELOW)
def test_the_end_in_the_handshake(host: Any, certificates: Certificates, below: str) -> None:
    async def main() -> None:
        async with Pair(host, certificates, below) as pair:
            ours = host.create_task(pair.start_tls(certificates.context(sslsock.ssl, False)))
            await pair.bottom.receive()
            await pair.bottom.say_end()
            with pytest.raises(ConnectionResetError):
                await ours

    run(host, main())


@pytest.mark.parametrize("below", BELOW)
def test_an_overdue_handshake(host: Any, certificates: Certificates, below: str) -> None:
    async def main() -> None:
        async with Pair(host, certificates, below) as pair:
            with pytest.raises(ConnectionAbortedError, match=r"SSL handshake is taking longer than 0.01 seconds"):
                await pair.start_tls(certificates.context(sslsock.ssl, False), ssl_handshake_timeout=0.01)
            assert pair.lower.is_closing()

    run(host, main())


@pytest.mark.parametrize("below", BELOW)
def test_cancelled(host: Any, certificates: Certificates, below: str) -> None:
    async def main() -> None:
        async with Pair(host, certificates, below) as pair:
            ours = host.create_task(pair.start_tls(certificates.context(sslsock.ssl, False)))
            await pair.bottom.receive()
            ours.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ours
            assert pair.lower.is_closing()

    run(host, main())


@pytest.mark.parametrize("below", BELOW)
def test_a_closing_transport(host: Any, certificates: Certificates, below: str) -> None:
    async def main() -> None:
        async with Pair(host, certificates, below) as pair:
            pair.lower.close()
            with pytest.raises(ConnectionError):
                await pair.start_tls(certificates.context(sslsock.ssl, False))

    run(host, main())


@pytest.mark.parametrize("below", BELOW)
def test_a_slow_reader(host: Any, certificates: Certificates, below: str) -> None:
    async def main() -> None:
        async with Pair(host, certificates, below) as pair:
            transport, far = await pair.both(sslsock.ssl)
            piece = bytes(1 << 16)
            count = most = 0

            async def write() -> None:
                nonlocal count, most
                while count < 200:
                    await pair.told.room.wait()
                    transport.write(piece)
                    count += 1
                    most = max(most, transport.get_write_buffer_size())

            writing = host.create_task(write())
            await pair.told.full.wait()
            assert not writing.done()
            received = 0
            while received < 200 * len(piece):
                received += len(await far.receive())
            await writing
            assert most < 3 << 20
            assert pair.told.calls.count("pause_writing") - pair.told.calls.count("resume_writing") in (0, 1)

    run(host, main())


@pytest.mark.parametrize("below", BELOW)
def test_paused_reading(host: Any, certificates: Certificates, below: str) -> None:
    async def main() -> None:
        async with Pair(host, certificates, below) as pair:
            transport, far = await pair.both(sslsock.ssl)
            transport.pause_reading()
            data = os.urandom(20 << 20)
            sending = host.create_task(far.send(data))
            one, other = socket.socketpair()
            with one, other:
                for _ in range(20):  # what the system has for the loop is met
                    one.send(b"x")
                    other.setblocking(False)
                    await host.sock_recv(other, 1)
            assert pair.told.received == b"" and not sending.done()
            transport.resume_reading()
            assert await pair.told.receive(len(data)) == data
            await sending

    run(host, main())


@pytest.mark.parametrize("below", BELOW)
def test_a_paused_writer_is_resumed_once(host: Any, certificates: Certificates, below: str) -> None:
    async def main() -> None:
        async with Pair(host, certificates, below) as pair:
            for _ in range(2):  # asyncio's TLS pauses at the second only
                pair.lower.write(bytes(8 << 20))
            await pair.told.full.wait()
            far = Within(pair.bottom)
            beginning = host.create_task(pair.start_tls(certificates.context(sslsock.ssl, False)))
            left = 16 << 20
            while left > 0:
                plain = pair.bottom.tls is None
                left -= len(await (host.sock_recv(pair.bottom.sock, min(left, 1 << 16)) if plain else pair.bottom.receive()))
            await far.start_tls(certificates.context(ssl, True), True)
            await beginning
            await pair.told.room.wait()
            assert pair.told.calls == ["connection_made", "pause_writing", "resume_writing"]

    run(host, main())


STREAMS = ["ours-own", "ours-foreign", "host", "host-foreign"]


@pytest.mark.parametrize("below", STREAMS)
def test_what_a_stream_reader_holds_belongs_to_the_handshake(host: Any, certificates: Certificates, below: str) -> None:
    async def main() -> None:
        reader = asyncio.StreamReader(loop=host)
        protocol = asyncio.StreamReaderProtocol(reader, loop=host)
        async with Pair(host, certificates, below) as pair:
            pair.lower.set_protocol(protocol)
            protocol.connection_made(pair.lower)
            far = Within(pair.bottom)
            client = certificates.context(ssl, False)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            far.tls, far.incoming, far.outgoing = client.wrap_bio(incoming, outgoing, False, NAME), incoming, outgoing
            with pytest.raises(ssl.SSLWantReadError):
                far.tls.do_handshake()
            await pair.bottom.send(b"STARTTLS\n" + outgoing.read())  # in one piece
            assert await reader.readline() == b"STARTTLS\n"
            beginning = host.create_task(pair.start_tls(certificates.context(sslsock.ssl, True), True, protocol))
            while True:
                try:
                    far.tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await far.flush()
                    await far.take()
            await far.flush()
            transport = await beginning
            transport.write(b"welcome\n")
            assert await far.receive_exactly(8) == b"welcome\n"
            await far.send(b"bye\n")
            await far.say_end()
            assert await reader.read() == b"bye\n"
            transport.close()
            pair.told.lost.set_result(None)  # another protocol is told

    run(host, main())


def test_what_cannot_carry_tls(host: Any, certificates: Certificates) -> None:
    async def main() -> None:
        transport, _ = await host.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
        with pytest.raises(TypeError, match="is not supported by start_tls"):
            await aio.start_tls(host, transport, asyncio.Protocol(), certificates.context(sslsock.ssl, False))
        transport.abort()

    run(host, main())


@pytest.mark.parametrize("wrong", [None, True, 5, "context", ssl])
def test_what_is_no_context(host: Any, certificates: Certificates, wrong: Any) -> None:
    async def main() -> None:
        async with Pair(host, certificates, "host") as pair:
            with pytest.raises(TypeError, match=r"sslcontext is expected to be an instance of ssl.SSLContext, got"):
                await pair.start_tls(wrong)
            assert not pair.lower.is_closing()

    run(host, main())
