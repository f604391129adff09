"""What `create_server` takes besides asyncio's arguments: a choice by the ClientHello, PROXY headers, a bound of handshakes.
And certificates that are replaced while a server serves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl as standard
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from peers import DEADLINE, Certificates
from sslsock import aio, ssl
from sslsock.proxy_protocol import PP2_TYPE_AUTHORITY, encode_v1, encode_v2

CLIENT = ("192.0.2.7", 4711)
SERVICE = ("198.51.100.1", 443)


class Names(asyncio.Protocol):
    """Tells each client what the server knows of it, and stays."""

    made: list[Names]

    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()
        self.made.append(self)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        info = transport.get_extra_info
        self.known = info("peername"), info("sslcontext"), info("ssl_object")
        transport.write(b"made\n")

    def connection_lost(self, exc: Any) -> None:
        self.lost.set_result(exc)


@pytest.fixture(autouse=True)
def fresh_names() -> None:
    Names.made = []


async def until(condition: Callable[[], Any]) -> None:
    async def turns() -> None:
        while not condition():
            await asyncio.sleep(0)

    await asyncio.wait_for(turns(), DEADLINE)


@contextlib.contextmanager
def client(address: Any) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as sock:
        sock.connect(address)
        sock.setblocking(False)
        yield sock


def context_for(certificates: Certificates, *names: str, module: Any = ssl) -> Any:
    context = module.SSLContext(module.PROTOCOL_TLS_SERVER)
    certificates.ca.issue_cert(*names).configure_cert(context)
    return context


class Client:
    """The interpreter's TLS, over a socket in the loop."""

    def __init__(self, certificates: Certificates, sock: socket.socket, name: str) -> None:
        context = standard.create_default_context()
        certificates.ca.configure_trust(context)
        self.sock = sock
        self.incoming, self.outgoing = standard.MemoryBIO(), standard.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, False, name)

    async def step(self, action: Callable[..., Any], *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        while True:
            try:
                result = action(*arguments)
            except standard.SSLWantReadError:
                await loop.sock_sendall(self.sock, self.outgoing.read())
                data = await asyncio.wait_for(loop.sock_recv(self.sock, 1 << 16), DEADLINE)
                self.incoming.write(data) if data else self.incoming.write_eof()
            else:
                await loop.sock_sendall(self.sock, self.outgoing.read())
                return result

    async def names(self) -> set[str]:
        """Of the certificate that the server shows, after the handshake and its first line."""
        await self.step(self.tls.do_handshake)
        assert await self.step(self.tls.read, 5) == b"made\n"
        certificate = self.tls.getpeercert()
        assert certificate is not None
        return {value for _, value in certificate["subjectAltName"]}  # type: ignore[misc]


async def names_shown(certificates: Certificates, address: Any, name: str, before: bytes = b"") -> set[str]:
    with client(address) as sock:
        await asyncio.get_running_loop().sock_sendall(sock, before)
        return await Client(certificates, sock, name).names()


async def alert_shown(certificates: Certificates, address: Any, name: str) -> str:
    with pytest.raises(standard.SSLError) as caught, client(address) as sock:
        await Client(certificates, sock, name).names()
    return str(caught.value.reason)


async def serve(host: Any, context: Any, **options: Any) -> Any:
    return await aio.create_server(host, Names, "127.0.0.1", 0, ssl=context, **options)


async def end(server: Any) -> None:
    server.close()
    await asyncio.wait_for(asyncio.gather(*(one.lost for one in Names.made if hasattr(one, "transport"))), DEADLINE)


# The choice by the ClientHello


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("module", [ssl, standard], ids=["ours", "the interpreter's"])
def test_a_context_for_each_name(host: Any, certificates: Certificates, way: str, module: Any) -> None:
    other = context_for(certificates, "other.example", module=module)
    seen: list[Any] = []

    def choose(hello: Any, peername: Any) -> Any:
        seen.append((hello.server_name, peername[0]))
        return other if hello.server_name == "other.example" else None

    async def choose_later(hello: Any, peername: Any) -> Any:
        await asyncio.sleep(0)
        return choose(hello, peername)

    async def main() -> None:
        context = context_for(certificates, "localhost")
        server = await serve(host, context, client_hello_handler=choose if way == "sync" else choose_later)
        address = server.sockets[0].getsockname()
        assert await names_shown(certificates, address, "other.example") == {"other.example"}
        assert await names_shown(certificates, address, "localhost") == {"localhost"}
        assert seen == [("other.example", "127.0.0.1"), ("localhost", "127.0.0.1")]
        peername, used, tls_object = Names.made[0].known
        assert peername[0] == "127.0.0.1" and used is other and tls_object.server_side
        await end(server)

    host.run_until_complete(main())


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize(
    "error, alert, told",
    [
        (KeyError("nobody"), "TLSV1_UNRECOGNIZED_NAME", False),
        (ValueError("a fault"), "TLSV1_ALERT_INTERNAL_ERROR", True),
        (None, "TLSV1_ALERT_INTERNAL_ERROR", True),
    ],
    ids=["LookupError", "ValueError", "no context"],
)
def test_a_handler_that_gives_no_context(
    host: Any, certificates: Certificates, way: str, error: Any, alert: str, told: bool
) -> None:
    def choose(hello: Any, peername: Any) -> Any:
        if error is None:
            return "no context"
        raise error

    async def choose_later(hello: Any, peername: Any) -> Any:
        await asyncio.sleep(0)
        return choose(hello, peername)

    async def main() -> None:
        contexts: list[Any] = []
        host.set_exception_handler(lambda loop, context: contexts.append(context))
        handler = choose if way == "sync" else choose_later
        server = await serve(host, context_for(certificates, "localhost"), client_hello_handler=handler)
        assert await alert_shown(certificates, server.sockets[0].getsockname(), "localhost") == alert
        assert not Names.made and bool(contexts) is told
        if told:
            assert isinstance(contexts[0]["exception"], TypeError if error is None else ValueError)
        server.close()

    host.run_until_complete(main())


def test_bytes_that_are_no_client_hello(host: Any, certificates: Certificates) -> None:
    async def main() -> None:
        server = await serve(host, context_for(certificates, "localhost"), client_hello_handler=lambda hello, peername: None)
        with client(server.sockets[0].getsockname()) as sock:
            await host.sock_sendall(sock, b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(host.sock_recv(sock, 100), DEADLINE) == b""
        assert not Names.made
        server.close()

    host.run_until_complete(main())


@pytest.mark.parametrize("what", ["nothing is sent", "half is sent", "the handler waits"])
def test_the_handshakes_time_limit_holds_before_it(host: Any, certificates: Certificates, what: str) -> None:
    async def main() -> None:
        cancelled: list[bool] = []

        async def waits(hello: Any, peername: Any) -> Any:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                cancelled.append(True)

        context = context_for(certificates, "localhost")
        server = await serve(host, context, client_hello_handler=waits, ssl_handshake_timeout=0.05)
        with client(server.sockets[0].getsockname()) as sock:
            peer = Client(certificates, sock, "localhost")
            if what != "nothing is sent":
                with contextlib.suppress(standard.SSLWantReadError):
                    peer.tls.do_handshake()
                hello = peer.outgoing.read()
                await host.sock_sendall(sock, hello if what == "the handler waits" else hello[: len(hello) // 2])
            with contextlib.suppress(ConnectionResetError):
                assert (await asyncio.wait_for(host.sock_recv(sock, 100), DEADLINE))[:1] in (b"", b"\x15")
        assert not Names.made and bool(cancelled) is (what == "the handler waits")
        server.close()

    host.run_until_complete(main())


def test_a_server_that_is_closed_meanwhile(host: Any, certificates: Certificates) -> None:
    async def main() -> None:
        deciding = asyncio.get_running_loop().create_future()

        async def closes(hello: Any, peername: Any) -> None:
            await deciding

        server = await serve(host, context_for(certificates, "localhost"), client_hello_handler=closes)
        with client(server.sockets[0].getsockname()) as waits, client(server.sockets[0].getsockname()) as decided:
            peer = Client(certificates, decided, "localhost")
            shaking = asyncio.ensure_future(peer.step(peer.tls.do_handshake))
            await until(lambda: len(server._entrances) == 2)
            server.close()
            deciding.set_result(None)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(host.sock_recv(waits, 1), DEADLINE) == b""
            with pytest.raises((standard.SSLError, ConnectionResetError)):
                await shaking
        await server.wait_closed()
        assert not Names.made

    host.run_until_complete(main())


# PROXY headers


@pytest.mark.parametrize("split", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("version", [1, 2])
def test_the_client_is_whom_the_header_names(
    host: Any, certificates: Certificates, version: int, tls: bool, split: bool
) -> None:
    header = encode_v1(CLIENT, SERVICE) if version == 1 else encode_v2(CLIENT, SERVICE, authority="x.example")

    async def main() -> None:
        context = context_for(certificates, "localhost") if tls else None
        seen: list[Any] = []
        options = {"client_hello_handler": lambda hello, peername: seen.append(peername)} if tls else {}
        server = await serve(host, context, trusted_proxies=["127.0.0.0/8"], **options)
        address = server.sockets[0].getsockname()
        with client(address) as sock:
            for piece in (header[i : i + 1] for i in range(len(header))) if split else [header]:
                await host.sock_sendall(sock, piece)
                await asyncio.sleep(0)
            if tls:
                await Client(certificates, sock, "localhost").names()
                assert seen == [CLIENT]
            else:
                assert await asyncio.wait_for(host.sock_recv(sock, 5), DEADLINE) == b"made\n"
            info = Names.made[0].transport.get_extra_info
            assert info("peername") == CLIENT and info("sockname") == SERVICE
            assert info("socket").getpeername() == sock.getsockname()
            assert info("proxy_header").version == version
            if version == 2:
                assert info("proxy_header").tlv(PP2_TYPE_AUTHORITY) == b"x.example"
        await end(server)

    host.run_until_complete(main())


def test_streams_of_asyncio_take_the_same_arguments(certificates: Certificates) -> None:
    async def main() -> None:
        def connected(reader: Any, writer: Any) -> None:
            seen.append(writer.get_extra_info("peername"))
            writer.write(b"made\n")
            writer.close()

        seen: list[Any] = []
        names: list[Any] = []
        context = context_for(certificates, "localhost")
        server = await asyncio.start_server(
            connected,
            "127.0.0.1",
            0,
            ssl=context,
            trusted_proxies=["127.0.0.1"],
            max_handshakes=1,
            client_hello_handler=lambda hello, peername: names.append(hello.server_name),
        )
        assert isinstance(server, asyncio.Server) and isinstance(server, aio.Server)
        address = server.sockets[0].getsockname()
        assert await names_shown(certificates, address, "localhost", encode_v1(CLIENT, SERVICE)) == {"localhost"}
        assert seen == [CLIENT] and names == ["localhost"]
        server.close()

    aio.run(main())


def test_data_behind_a_header_is_the_protocols(host: Any) -> None:
    received = bytearray()

    class Takes(Names):
        def data_received(self, data: bytes) -> None:
            received.extend(data)

    async def main() -> None:
        server = await aio.create_server(host, Takes, "127.0.0.1", 0, trusted_proxies="127.0.0.1")
        with client(server.sockets[0].getsockname()) as sock:
            await host.sock_sendall(sock, encode_v1(("2001:db8::1", 1), ("2001:db8::2", 2)) + b"data behind")
            await until(lambda: received == b"data behind")
            assert Names.made[0].transport.get_extra_info("peername") == ("2001:db8::1", 1, 0, 0)
        await end(server)

    host.run_until_complete(main())


def test_a_proxy_that_speaks_for_itself_is_the_peer(host: Any) -> None:
    async def main() -> None:
        server = await serve(host, None, trusted_proxies=["::1", "127.0.0.1"])
        with client(server.sockets[0].getsockname()) as sock:
            await host.sock_sendall(sock, encode_v2(None, None))
            await until(lambda: Names.made and hasattr(Names.made[0], "transport"))
            assert Names.made[0].transport.get_extra_info("peername") == sock.getsockname()
        await end(server)

    host.run_until_complete(main())


@pytest.mark.parametrize("what", ["untrusted", "no header", "ended"])
def test_who_is_not_let_in(host: Any, what: str) -> None:
    async def main() -> None:
        trusted = ["10.0.0.0/8"] if what == "untrusted" else ["127.0.0.1"]
        server = await serve(host, None, trusted_proxies=trusted)
        with client(server.sockets[0].getsockname()) as sock:
            with contextlib.suppress(ConnectionError):
                await host.sock_sendall(sock, b"PROXY TCP4 1" if what == "ended" else b"GET / HTTP/1.1\r\n\r\n")
                sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(host.sock_recv(sock, 1), DEADLINE) == b""
        assert not Names.made and not server._entrances
        server.close()
        await asyncio.wait_for(server.wait_closed(), DEADLINE)

    host.run_until_complete(main())


@pytest.mark.parametrize("trusted", [True, ["10.0.0.0/8"]])
def test_a_unix_socket_behind_a_proxy(host: Any, tmp_path: Path, trusted: Any) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        server = await aio.create_unix_server(host, Names, path, trusted_proxies=trusted)
        with client(path) as sock:
            answer = b""
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                await host.sock_sendall(sock, encode_v1(CLIENT, SERVICE))
                answer = await asyncio.wait_for(host.sock_recv(sock, 5), DEADLINE)
            assert answer == (b"made\n" if trusted is True else b"")
            if answer:
                assert Names.made[0].transport.get_extra_info("peername") == CLIENT
        await end(server)

    host.run_until_complete(main())


# The bound of handshakes


@pytest.mark.parametrize("module", [ssl, standard], ids=["ours", "the interpreter's"])
@pytest.mark.parametrize("hello", [False, True], ids=["", "hello"])
def test_no_more_handshakes_at_once_than_allowed(host: Any, certificates: Certificates, module: Any, hello: bool) -> None:
    async def main() -> None:
        options = {"client_hello_handler": lambda hello, peername: None} if hello else {}
        context = context_for(certificates, "localhost", module=module)
        made: list[Any] = []
        server = await serve(host, context, max_handshakes=2, **options)
        (listener,) = aio.hosted.hosted(host)._listeners.values()
        address = server.sockets[0].getsockname()
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(client(address)) for _ in range(5)]
            clients = [Client(certificates, sock, "localhost") for sock in socks]
            await asyncio.sleep(0)
            waiting = asyncio.ensure_future(clients[4].names())  # behind four that say nothing
            await until(lambda: listener.shaking == 2)
            for _ in range(5):
                await asyncio.sleep(0)
            assert listener.shaking == 2 and not waiting.done()
            assert await clients[0].names() == {"localhost"}  # a success makes room
            socks[1].close()  # and so does a failure
            await clients[2].names()
            await clients[3].names()
            assert await waiting == {"localhost"}
            await until(lambda: listener.shaking == 0)
            made += [one for one in Names.made if hasattr(one, "transport")]
            assert len(made) == 4
        await end(server)

    host.run_until_complete(main())


# Certificates that are replaced


def test_the_next_connection_has_what_the_context_has_now(host: Any, certificates: Certificates) -> None:
    """A certificate that is loaded into a context counts for the next connection; nothing happens to those that are there."""

    async def main() -> None:
        context = context_for(certificates, "first.example")
        server = await serve(host, context)
        address = server.sockets[0].getsockname()
        with client(address) as sock:
            first = Client(certificates, sock, "first.example")
            assert await first.names() == {"first.example"}
            certificates.ca.issue_cert("second.example").configure_cert(context)
            assert await names_shown(certificates, address, "second.example") == {"second.example"}
            other = context_for(certificates, "third.example")
            server.set_ssl(other)
            assert server.ssl is other
            assert await names_shown(certificates, address, "third.example") == {"third.example"}
            server.set_ssl(context_for(certificates, "fourth.example", module=standard))
            assert await names_shown(certificates, address, "fourth.example") == {"fourth.example"}
            Names.made[0].transport.write(b"still")
            assert await first.step(first.tls.read, 5) == b"still"
        await end(server)

    host.run_until_complete(main())


def test_what_cannot_be_set(host: Any, certificates: Certificates) -> None:
    async def main() -> None:
        context = context_for(certificates, "localhost")
        plain, server = await serve(host, None), await serve(host, context)
        assert plain.ssl is None and server.ssl is context
        with pytest.raises(ValueError, match="with TLS or without"):
            plain.set_ssl(context)
        with pytest.raises(ValueError, match="with TLS or without"):
            server.set_ssl(None)
        with pytest.raises(TypeError, match="SSLContext"):
            server.set_ssl("context")
        with pytest.raises(TypeError, match="SSLContext"):
            await serve(host, "context")
        plain.close()
        server.close()
        server.set_ssl(context)
        for options, error in (
            ({"client_hello_handler": lambda hello, peername: None}, ValueError),
            ({"max_handshakes": 5}, ValueError),
            ({"max_handshakes": -1, "ssl": context}, ValueError),
            ({"max_handshakes": 1.5, "ssl": context}, TypeError),
            ({"client_hello_handler": 5, "ssl": context}, TypeError),
            ({"trusted_proxies": False}, TypeError),
            ({"trusted_proxies": ["10.0.0.0/33"]}, ValueError),
            ({"trusted_proxies": [5]}, TypeError),
        ):
            with pytest.raises(error):
                await aio.create_server(host, Names, "127.0.0.1", 0, **options)

    host.run_until_complete(main())
