"""Streams over connections: who gets ours, and that they do what asyncio's do."""

from __future__ import annotations

import asyncio
import ssl as standard
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from peers import Certificates
from sslsock import aio, ssl

try:
    import uvloop
except ImportError:
    uvloop = None

HOSTS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"ours": aio.new_event_loop, "asyncio": asyncio.SelectorEventLoop}
if uvloop is not None:
    HOSTS["uvloop"] = uvloop.new_event_loop
CLASSES = ("StreamReader", "StreamWriter", "StreamReaderProtocol")


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    loop = HOSTS[request.param]()
    asyncio.set_event_loop(loop)
    yield loop
    loop.run_until_complete(loop.shutdown_asyncgens())
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def contexts(certificates: Certificates) -> tuple[Any, Any]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.create_default_context()
    certificates._server.configure_cert(server)
    certificates.ca.configure_trust(client)
    return server, client


def is_ours(*streams: Any) -> list[bool]:
    for stream, name in zip(streams, CLASSES):
        assert isinstance(stream, getattr(asyncio, name)) and type(stream).__name__ == name
    return [type(stream) is getattr(aio, name) for stream, name in zip(streams, CLASSES)]


def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello\n")
    writer.close()


Open = Callable[..., Coroutine[Any, Any, Any]]


def by_asyncio(name: str) -> Open:
    return getattr(asyncio, name)  # type: ignore[no-any-return]


def by_us(name: str) -> Open:
    return lambda *args, **kwargs: getattr(aio, name)(asyncio.get_running_loop(), *args, **kwargs)


@pytest.mark.parametrize("way", [by_asyncio, by_us])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_conversation(
    host: Any, contexts: tuple[Any, Any], way: Callable[[str], Open], tls: bool, family: str, tmp_path: Path
) -> None:
    """Lines, exact pieces, separators and the end, in both directions. Both ends' readers are ours."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ours.append(is_ours(reader, writer, writer.transport.get_protocol()))
        async for line in reader:
            writer.writelines([line.upper(), b"\r\n"])
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server_context, client_context = contexts if tls else (None, None)
        name = "localhost" if tls else None
        if family == "tcp":
            server = await way("start_server")(serve, "127.0.0.1", 0, ssl=server_context)
            address = server.sockets[0].getsockname()
            reader, writer = await way("open_connection")(*address, ssl=client_context, server_hostname=name)
        else:
            path = str(tmp_path / "socket")
            server = await way("start_unix_server")(serve, path, ssl=server_context)
            reader, writer = await way("open_unix_connection")(path, ssl=client_context, server_hostname=name)
        assert is_ours(reader, writer, writer.transport.get_protocol()) == [True, way is by_us, True]
        writer.write(b"one\n")
        assert await reader.readline() == b"ONE\n"
        writer.write(b"two\nthree\nfour")
        await writer.drain()
        assert await reader.readexactly(4) == b"\r\nTW"
        assert await reader.readuntil(b"E\n\r\n") == b"O\n\r\nTHREE\n\r\n"
        if writer.can_write_eof():
            writer.write_eof()
            assert await reader.read() == b"FOUR\r\n"
        assert writer.get_extra_info("peername") is not None
        writer.close()
        await writer.wait_closed()
        assert await reader.read() == b"" and reader.at_eof()
        with pytest.raises(ConnectionResetError):
            await writer.drain()
        server.close()
        assert ours == [[True, True, True]]

    ours: list[list[bool]] = []
    aio.attach(host)
    host.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="StreamWriter.start_tls is of CPython 3.11")
@pytest.mark.parametrize("way", [by_asyncio, by_us])
def test_a_writer_starts_tls(host: Any, contexts: tuple[Any, Any], way: Callable[[str], Open]) -> None:
    async def serve(reader: Any, writer: Any) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.transport.pause_reading()
        writer.write(b"go ahead\n")
        await writer.start_tls(contexts[0])
        assert writer.get_extra_info("sslcontext") is contexts[0]
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await way("start_server")(serve, "127.0.0.1", 0)
        reader, writer = await way("open_connection")(*server.sockets[0].getsockname())
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go ahead\n"
        await writer.start_tls(contexts[1], server_hostname="localhost")
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        writer.write(b"welcome\n")
        assert await reader.readline() == b"welcome\n"
        assert await reader.read() == b""
        writer.close()
        server.close()

    aio.attach(host)
    host.run_until_complete(main())


def test_a_slow_reader_stops_the_writer_and_the_sender(host: Any, contexts: tuple[Any, Any]) -> None:
    """20 MB through streams of 64 KiB, over TLS: both ends wait for each other, and nothing is lost."""
    size, piece = 20_000_000, bytes(range(256)) * 400

    async def serve(reader: Any, writer: Any) -> None:
        left = size
        while left:
            part = piece[: min(len(piece), left)]
            writer.write(part)
            await writer.drain()
            left -= len(part)
            most.append(writer.transport.get_write_buffer_size())
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=contexts[0])
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address, ssl=contexts[1], server_hostname="localhost")
        got = 0
        while data := await reader.read(70_000):
            assert data == (piece * 2)[got % len(piece) :][: len(data)]
            got += len(data)
            assert len(reader._buffer) <= 2 * 65536 + 512 * 1024
        assert got == size
        writer.close()
        server.close()

    most: list[int] = []
    aio.attach(host)
    host.run_until_complete(main())
    assert max(most) < 2_000_000


def test_classes_of_a_program_stay_what_they_are() -> None:
    class Reader(asyncio.StreamReader):
        def feed_data(self, data: Any) -> None:
            super().feed_data(data.upper())

    class Protocol(asyncio.StreamReaderProtocol):
        pass

    async def main() -> None:
        server = await asyncio.start_server(hello, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        loop = asyncio.get_running_loop()
        for reader_class, protocol_class in ((Reader, asyncio.StreamReaderProtocol), (asyncio.StreamReader, Protocol)):
            reader = reader_class(loop=loop)
            protocol = protocol_class(reader, loop=loop)
            transport, _ = await loop.create_connection(lambda: protocol, *address)  # noqa: B023
            assert type(reader) is reader_class
            assert type(protocol) is (Protocol if protocol_class is Protocol else aio.StreamReaderProtocol)
            assert await reader.readline() == (b"HELLO\n" if reader_class is Reader else b"hello\n")
            transport.close()
        server.close()

    aio.run(main())


def test_nothing_of_asyncios_is_changed() -> None:
    """Elsewhere asyncio's streams are its own, also in a process that has ours."""

    async def main() -> Any:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await reader.read()
        writer.close()
        server.close()
        return is_ours(reader, writer, writer._protocol)  # type: ignore[attr-defined]

    assert aio.run(main()) == [True, False, True]
    loop = asyncio.SelectorEventLoop()
    assert loop.run_until_complete(main()) == [False, False, False]
    loop.close()


@pytest.mark.parametrize("name", ["readline", "readuntil", "feed_data"])
def test_what_a_program_has_put_into_asyncios_classes_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = getattr(asyncio.StreamReader, name)

    def counted(self: Any, *args: Any) -> Any:
        calls.append(args)
        return original(self, *args)

    async def main() -> None:
        server = await asyncio.start_server(hello, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.readline() == b"hello\n"
        assert type(reader) is asyncio.StreamReader
        writer.close()
        server.close()

    monkeypatch.setattr(asyncio.StreamReader, name, counted)
    aio.run(main())
    assert calls


def test_a_context_of_the_standard_library_works_too(certificates: Certificates) -> None:
    server_context = standard.SSLContext(standard.PROTOCOL_TLS_SERVER)
    client_context = standard.create_default_context()
    certificates._server.configure_cert(server_context)
    certificates.ca.configure_trust(client_context)

    async def serve(reader: Any, writer: Any) -> None:
        writer.write(await reader.readuntil(b"\r\n"))
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address, ssl=client_context, server_hostname="localhost")
        writer.write(b"hello\r\n")
        assert await reader.read() == b"hello\r\n"
        writer.close()
        server.close()

    aio.run(main())


def test_debug_mode_remembers_where_a_reader_was_made() -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert type(reader) is aio.StreamReader
        assert reader._source_traceback  # type: ignore[attr-defined]
        assert await reader.read() == b""
        writer.close()
        server.close()

    aio.run(main(), debug=True)


@pytest.mark.skipif(sys.version_info < (3, 11, 5), reason="asyncio's StreamWriter warns from CPython 3.11.5 on")
def test_a_writer_that_was_forgotten_warns() -> None:
    async def main() -> None:
        server = await aio.start_server(asyncio.get_running_loop(), hello, "127.0.0.1", 0)
        reader, writer = await aio.open_connection(asyncio.get_running_loop(), *server.sockets[0].getsockname())
        transport = writer.transport
        assert not transport.is_closing()
        with pytest.warns(ResourceWarning, match="unclosed <StreamWriter"):
            del writer
        assert transport.is_closing()
        await reader.read()
        server.close()

    aio.run(main())
