"""A user's program as a type checker sees it: `mypy --strict` on this file must find nothing."""

import asyncio
import socket
import ssl as stdlib_ssl
from typing import Optional

import sslsock
from sslsock import (
    ClientHello,
    Engine,
    EventLoop,
    SocketError,
    SocketFailure,
    SocketState,
    SslCertificate,
    SslConfiguration,
    SslError,
    SslKey,
    SslProtocol,
    SslServer,
    SslSocket,
    Stream,
    TcpSocket,
    ssl,
)


class Echo:
    """A server that sends back what it gets."""

    def __init__(self, certificate: SslCertificate, key: SslKey) -> None:
        configuration = SslConfiguration()
        configuration.local_certificate = certificate
        configuration.private_key = key
        configuration.minimum_protocol = SslProtocol.TLS_1_3
        configuration.allowed_next_protocols = ["echo"]
        self.server = SslServer()
        self.server.configuration = configuration
        self.server.new_connection_handler = self.accept
        self.server.client_hello_handler = self.choose

    def choose(self, socket: SslSocket, hello: ClientHello) -> None:
        name: Optional[str] = hello.server_name
        if name is None or SslProtocol.TLS_1_3 not in hello.protocols:
            socket.abort()
        elif "echo" not in hello.next_protocols:
            print(hello.ja4, hello.cipher_suites, hello.groups, hello.signature_algorithms, hello.extensions)
            socket.hold_handshake()
            socket.continue_handshake_async()

    def accept(self, server: SslServer) -> None:
        while (socket := server.next_pending_secure_connection()) is not None:
            socket.ready_read_handler = self.answer
            socket.disconnected_handler = self.ended

    def answer(self, socket: SslSocket) -> None:
        count: int = socket.write(socket.read_all())
        assert count >= 0

    def ended(self, socket: TcpSocket) -> None:
        error: Optional[SocketError] = socket.error
        print(error, socket.error_string)


def on_errors(socket: SslSocket, errors: list[SslError]) -> None:
    for error in errors:
        print(error.error_string, error.certificate)
    socket.ignore_ssl_errors(errors)


def on_state(socket: SslSocket, state: SocketState) -> None:
    if state is SslSocket.CONNECTED_STATE:
        print(socket.remote_address, socket.remote_port)


def client(port: int) -> SslSocket:
    socket = SslSocket()
    socket.ssl_errors_handler = on_errors
    socket.state_changed_handler = on_state
    socket.connect_encrypted("localhost", port, Stream.READ_WRITE_MODE)
    socket.write(b"hello")
    future = socket.read_async(5)
    if future is not None:
        text: bytes = future.result()
        print(text.decode())
    return socket


async def coroutine_client(port: int) -> Optional[bytes]:
    try:
        async with SslSocket() as socket:
            same: SslSocket = socket
            socket.connect_encrypted("localhost", port)
            await socket.connected()
            await asyncio.wait_for(socket.encrypted(), 10)
            truth: bool = socket.encrypted
            if socket.connected and truth:
                await same.bytes_written()
            count: int = await socket.ready_read()
            head: bytes = await socket.read_exactly(count) + await socket.read_until(b";", max=100)
            async for line in socket:
                head += line
            async for line in socket.lines(100):
                head += line
            text: bytes = await socket.read_async(5)
            bound: bool = await socket.bind_async(0)
            await socket.disconnected()
            return head + text if bound else None
    except SocketFailure as failure:
        error: SocketError = failure.error
        print(error, failure.error_string)
    return None


async def answer(socket: SslSocket) -> None:
    socket.write(await socket.read_until())


async def coroutine_server() -> None:
    async with SslServer() as server:
        server.listen(0)
        taken: SslSocket = await server.next_connection(secure=False)
        taken.ready_read_handler = answer
        async for one in server:
            secure: SslSocket = one
            await secure.encrypted()
    async with sslsock.TcpServer() as plain:
        first: TcpSocket = await plain.next_connection()
        async for other in plain:
            relay = sslsock.Relay(first, other)
            await relay.closed()


def memory(context: sslsock.Context) -> bytes:
    engine = Engine(context, server_name="localhost")
    hello: bytes = engine.start()
    return hello + engine.encrypt(memoryview(b"x"))


def like_the_standard_library(plain: socket.socket, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> Optional[bytes]:
    context: stdlib_ssl.SSLContext = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile="ca.pem")
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    own.minimum_version = ssl.TLSVersion.TLSv1_2
    own.options |= ssl.OP_NO_TICKET | ssl.OP_ENABLE_KTLS
    own.set_groups("X25519")
    try:
        with own.wrap_socket(plain, server_hostname="localhost") as tls:
            base: stdlib_ssl.SSLSocket = tls
            print(context, base, tls.group(), tls.get_verified_chain())
        return own.wrap_bio(incoming, outgoing, server_hostname="localhost").read()
    except ssl.SSLCertVerificationError as exc:
        print(exc.verify_code, exc.reason)
    except ssl.SSLError:
        ssl.install()
        ssl.uninstall()
    return None


def main() -> None:
    loop = EventLoop.current()
    timer = loop.call_later(0.5, sslsock.stop)
    timer.cancel()
    sslsock.run()
