"""The same connections in each loop: ours, and by `attach` and the functions in asyncio's and uvloop's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl as standard
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from peers import Certificates
from sslsock import aio, ssl

WAYS = ["attach", "functions"]
SIZE = 300_000


@pytest.fixture
def contexts(certificates: Certificates) -> tuple[Any, Any]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.create_default_context()
    certificates._server.configure_cert(server)
    certificates.ca.configure_trust(client)
    return server, client


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Reader(asyncio.Protocol):
    def __init__(self, size: int) -> None:
        self.size = size
        self.received = bytearray()
        self.done = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        if len(self.received) >= self.size and not self.done.done():
            self.done.set_result(bytes(self.received))

    def connection_lost(self, exc: Any) -> None:
        self.lost.set_result(exc)


def calls(loop: Any, way: str) -> Callable[..., Any]:
    """name, arguments -> the coroutine of that function, by `way`."""
    if way == "attach":
        assert aio.attach(loop) is loop and aio.attach(loop) is loop
        return lambda name, *args, **kwargs: getattr(loop, name)(*args, **kwargs)
    return lambda name, *args, **kwargs: getattr(aio, name)(loop, *args, **kwargs)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_an_echo(host: Any, contexts: tuple[Any, Any], way: str, tls: bool, family: str, tmp_path: Path) -> None:
    async def main() -> None:
        call = calls(host, way)
        server_context, client_context = contexts if tls else (None, None)
        name = "localhost" if tls else None
        if family == "tcp":
            server = await call("create_server", Echo, "127.0.0.1", 0, ssl=server_context)
            address = server.sockets[0].getsockname()
            transport, reader = await call(
                "create_connection", lambda: Reader(SIZE), *address, ssl=client_context, server_hostname=name
            )
        else:
            path = str(tmp_path / "socket")
            server = await call("create_unix_server", Echo, path, ssl=server_context)
            address = path
            transport, reader = await call(
                "create_unix_connection", lambda: Reader(SIZE), path, ssl=client_context, server_hostname=name
            )
        assert server.get_loop() is host
        assert isinstance(transport, asyncio.Transport) and isinstance(transport, aio.Transport)
        assert isinstance(transport, asyncio.transports._FlowControlMixin)
        assert transport.__class__.__name__ == ("SslTransport" if tls else "Transport")
        assert repr(transport).startswith(f"<{transport.__class__.__name__} open ")
        assert transport.get_extra_info("peername") == address
        assert isinstance(transport.get_extra_info("socket"), asyncio.trsock.TransportSocket)
        tls_object = transport.get_extra_info("ssl_object")
        if tls:
            assert isinstance(tls_object, standard.SSLObject) and tls_object.version() == "TLSv1.3"
            assert transport.get_extra_info("sslcontext") is client_context
            assert transport.get_extra_info("peercert") == tls_object.getpeercert() != {}
            assert transport.get_extra_info("cipher") == tls_object.cipher()
            assert transport.get_extra_info("tls_version") == "TLSv1.3" and transport.get_extra_info("group")
            assert transport.get_extra_info("session_reused") is False
            assert transport.get_extra_info("clean_close") is None
            with pytest.raises(ValueError, match="read and written by its transport"):
                tls_object.read(1)
        else:
            assert tls_object is None and transport.get_extra_info("sslcontext") is None
        data = os.urandom(SIZE)
        transport.write(data[:10])
        transport.writelines([data[10:1000], memoryview(data)[1000:]])
        assert await reader.done == data
        transport.close()
        assert await reader.lost is None and transport.is_closing()
        server.close()

    host.run_until_complete(main())


@pytest.mark.parametrize("way", WAYS)
def test_streams_that_turn_to_tls(host: Any, contexts: tuple[Any, Any], way: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go ahead\n")
        await writer.drain()
        transport = await call("start_tls", writer.transport, writer.transport.get_protocol(), contexts[0], server_side=True)
        transport.write(b"welcome\n")
        transport.close()

    async def main() -> None:
        server = await aio.start_server(host, serve, "127.0.0.1", 0)
        reader, writer = await aio.open_connection(host, *server.sockets[0].getsockname())
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go ahead\n"
        protocol = writer.transport.get_protocol()
        transport = await call("start_tls", writer.transport, protocol, contexts[1], server_hostname="localhost")
        assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        assert await reader.readline() == b"welcome\n"
        assert await reader.read() == b""
        assert transport.get_extra_info("clean_close") is True
        transport.close()
        server.close()

    call = calls(host, way)
    host.run_until_complete(main())


def test_a_context_of_the_standard_library_works_too(host: Any, certificates: Certificates) -> None:
    server_context = standard.SSLContext(standard.PROTOCOL_TLS_SERVER)
    client_context = standard.create_default_context()
    certificates._server.configure_cert(server_context)
    certificates.ca.configure_trust(client_context)

    async def main() -> None:
        server = await aio.create_server(host, Echo, "127.0.0.1", 0, ssl=server_context)
        address = server.sockets[0].getsockname()
        transport, reader = await aio.create_connection(
            host, lambda: Reader(5), *address, ssl=client_context, server_hostname="localhost"
        )
        assert isinstance(transport, aio.Transport)
        transport.write(b"hello")
        assert await reader.done == b"hello"
        transport.close()
        assert await reader.lost is None
        server.close()

    host.run_until_complete(main())


def test_an_unknown_authority_is_the_exception_of_ssl(host: Any, contexts: tuple[Any, Any]) -> None:
    async def main() -> None:
        server = await aio.create_server(host, Echo, "127.0.0.1", 0, ssl=contexts[0])
        address = server.sockets[0].getsockname()
        with pytest.raises(standard.SSLCertVerificationError) as raised:
            await aio.create_connection(host, lambda: Reader(5), *address, ssl=True, server_hostname="localhost")
        assert raised.value.reason == "CERTIFICATE_VERIFY_FAILED" and raised.value.verify_code
        server.close()

    host.run_until_complete(main())


def test_a_default_context_of_the_programs_own_is_used(
    host: Any, contexts: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        server = await aio.create_server(host, Echo, "127.0.0.1", 0, ssl=contexts[0])
        address = server.sockets[0].getsockname()
        monkeypatch.setattr("ssl.create_default_context", lambda: contexts[1])
        transport, _ = await aio.create_connection(host, lambda: Reader(5), *address, ssl=True, server_hostname="localhost")
        assert transport.get_extra_info("sslcontext") is contexts[1]
        transport.abort()
        server.close()

    host.run_until_complete(main())


def test_a_file_is_sent(host: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))

    async def main() -> None:
        one, other = socket.socketpair()
        with contextlib.closing(one):
            one.setblocking(False)
            transport, _ = await aio.create_unix_connection(host, lambda: Reader(1), sock=other)
            with path.open("rb") as file:
                sending = host.create_task(aio.sendfile(host, transport, file, 1000))
                received = bytearray()
                while len(received) < SIZE - 1000:
                    received += await host.sock_recv(one, 1 << 20)
                assert await sending == SIZE - 1000
            assert received == path.read_bytes()[1000:]
            transport.abort()

    host.run_until_complete(main())


@pytest.mark.parametrize("key", ["ssl_incoming_bio_size", "ssl_outgoing_bio_size"])
def test_sizes_of_buffers_that_do_not_exist_are_checked(key: str) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match=key):
            await aio.create_server(asyncio.get_running_loop(), Echo, "127.0.0.1", 0, **{key: 100})
        (await aio.create_server(asyncio.get_running_loop(), Echo, "127.0.0.1", 0, **{key: 65536})).close()

    aio.run(main())


def test_what_is_no_loop() -> None:
    with pytest.raises(TypeError, match="an asyncio event loop is needed"):
        aio.attach("x")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError):
        aio.attach()


# Running


def test_run() -> None:
    async def main() -> object:
        loop = asyncio.get_running_loop()
        assert loop.get_debug()
        return type(loop)

    assert aio.run(main(), debug=True) is aio.EventLoop


def test_run_below_a_loop_that_runs() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="running event loop"):
            aio.run(asyncio.sleep(0))

    aio.run(main())


def test_the_policy() -> None:
    code = (
        "import asyncio, sslsock.aio\n"
        "sslsock.aio.install_policy()\n"
        "async def main(): return type(asyncio.get_running_loop()) is sslsock.aio.EventLoop\n"
        "assert asyncio.run(main())"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
