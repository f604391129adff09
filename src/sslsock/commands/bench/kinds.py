"""How each library is asked to run the apps: as a server (in a process of its own) and as a client.

A cipher suite is named to sslsock's own sockets only ("": their default). The others have their OpenSSL's default, which is
why the suite that all share is that one (`SHARED_SUITE`).
"""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import Any, Callable, NamedTuple, Optional

from ... import EventLoop, SocketError, SslCertificate, SslConfiguration, SslKey, SslServer, SslSocket, TcpServer
from ... import run as run_loop
from ... import stop as stop_loop
from .apps import ECHO_SIZE, HIGH, PIECE, REQUEST, Job, ServerApp, SocketTransport

HOST = "127.0.0.1"
RECEIVE = 256 * 1024

SHARED_SUITE = "TLS_AES_256_GCM_SHA384"  # the first that OpenSSL offers, SSL_CTX_set_ciphersuites(3)


class Kind(NamedTuple):
    """A way to run the apps. style: on "sockets" of sslsock, as "protocols" of asyncio, or in blocking "threads". loop: where
    they run; "": none of asyncio's. own_ssl: with sslsock.ssl in the place of the interpreter's.
    """

    style: str
    loop: str = ""
    own_ssl: bool = False


KINDS = {
    "sslsock": Kind("sockets"),
    "sslsock-asyncio": Kind("sockets", "asyncio"),
    "sslsock-uvloop": Kind("sockets", "uvloop"),
    "sslsock-aio": Kind("protocols", "sslsock", own_ssl=True),
    "sslsock-ssl-threads": Kind("threads", own_ssl=True),
    "ssl-threads": Kind("threads"),
    "asyncio": Kind("protocols", "asyncio"),
    "uvloop": Kind("protocols", "uvloop"),
    "aiofastnet": Kind("protocols", "aiofastnet"),
    "aiofastnet-uvloop": Kind("protocols", "aiofastnet-uvloop"),
}
PLAIN = "plain"  # no peer: the back end of the proxies, on TcpServer

# TLS settings: each library's defaults, but for whom is trusted.


@contextmanager
def memory_file(data: bytes) -> Iterator[str]:
    """A path to bytes that lie in memory: `ssl` loads keys from files only, and ours are never written to a
    disk."""
    fd = os.memfd_create("sslsock-bench", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def ssl_module(own: bool) -> Any:
    """The interpreter's ssl, or ours."""
    return importlib.import_module("sslsock.ssl") if own else ssl


def server_context(certificate: bytes, key: bytes, own: bool = False) -> Any:
    """An SSLContext of the interpreter's ssl or of ours."""
    context = ssl_module(own).SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with memory_file(certificate + key) as path:
        context.load_cert_chain(path)
    return context


def client_context(authority: bytes, own: bool = False) -> Any:
    context = ssl_module(own).SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.decode("ascii"))
    return context


def server_configuration(certificate: bytes, key: bytes, suite: str) -> SslConfiguration:
    configuration = SslConfiguration()
    configuration.ciphersuites = suite
    configuration.local_certificate = SslCertificate(certificate)
    configuration.private_key = SslKey(key)
    configuration.peer_verify_mode = SslConfiguration.VERIFY_NONE
    configuration.use_system_ca = False
    return configuration


def client_configuration(authority: bytes, suite: str) -> SslConfiguration:
    configuration = SslConfiguration()
    configuration.ciphersuites = suite
    configuration.add_ca_certificate(SslCertificate(authority))
    configuration.use_system_ca = False
    return configuration


def new_asyncio_loop(name: str) -> asyncio.AbstractEventLoop:
    """The loop of a kind."""
    loop: asyncio.AbstractEventLoop
    if name == "sslsock":
        loop = importlib.import_module("sslsock.aio").new_event_loop()
    elif name.startswith("aiofastnet"):
        fast: Any = importlib.import_module("aiofastnet")
        if name.endswith("uvloop"):
            loop = fast.loop_factory(importlib.import_module("uvloop").new_event_loop)()
        else:
            loop = fast.loop_factory()()
    elif name == "uvloop":
        loop = importlib.import_module("uvloop").new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    return loop


# Servers: they call `listening(port)` and never return.


def serve(name: str, certificate: bytes, key: bytes, suite: str, listening: Callable[[int], object]) -> None:
    if name == PLAIN:
        run_loop(lambda: begin_server(TcpServer(), listening))
        return
    kind = KINDS[name]
    if kind.style == "sockets":
        serve_sslsock(kind, server_configuration(certificate, key, suite), listening)
    elif kind.style == "threads":
        serve_threads(server_context(certificate, key, kind.own_ssl), listening)
    else:
        serve_asyncio(kind, server_context(certificate, key, kind.own_ssl), listening)


def begin_server(server: Any, listening: Callable[[int], object]) -> Any:
    """Have a TcpServer or SslServer listen; the server, which serves as long as it is kept."""
    take = server.next_pending_secure_connection if isinstance(server, SslServer) else server.next_pending_connection

    def accept(server: Any) -> None:
        while (taken := take()) is not None:
            SocketTransport(taken, ServerApp()).begin()

    server.max_pending_connections = 1024
    server.new_connection_handler = accept
    if not server.listen(0, HOST):
        raise OSError(server.error_string)
    listening(server.port)
    return server


def serve_sslsock(kind: Kind, configuration: SslConfiguration, listening: Callable[[int], object]) -> None:
    def begin() -> Any:
        server = SslServer()
        server.configuration = configuration
        return begin_server(server, listening)

    async def main() -> None:
        server = begin()
        await asyncio.Event().wait()
        server.close()

    if kind.loop:
        new_asyncio_loop(kind.loop).run_until_complete(main())
    else:
        run_loop(begin)


def serve_asyncio(kind: Kind, context: Any, listening: Callable[[int], object]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        make: Any = ServerApp
        server = await loop.create_server(make, HOST, 0, ssl=context, backlog=1024)
        listening(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    new_asyncio_loop(kind.loop).run_until_complete(main())


def serve_threads(context: Any, listening: Callable[[int], object]) -> None:
    listener = socket.create_server((HOST, 0), backlog=1024)
    listening(listener.getsockname()[1])
    while True:
        raw, _ = listener.accept()
        threading.Thread(target=serve_thread, args=(context, raw), daemon=True).start()


def receive_exactly(connection: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError("the connection was closed too early")
        data += more
    return data


def send_size(connection: Any, size: int) -> None:
    while size:
        piece = PIECE if size >= len(PIECE) else PIECE[:size]
        connection.sendall(piece)
        size -= len(piece)


def take_size(connection: Any, size: int) -> None:
    buffer = bytearray(RECEIVE)
    while size > 0:
        count = connection.recv_into(buffer)
        if not count:
            raise ConnectionError("the connection was closed too early")
        size -= count


def serve_thread(context: Any, raw: socket.socket) -> None:
    with suppress(OSError), raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(raw, server_side=True) as connection:
            wanted, size = REQUEST.unpack(receive_exactly(connection, REQUEST.size))
            if wanted == b"U":
                take_size(connection, size)
                connection.sendall(b"!")
                connection.recv(1)
            elif wanted == b"D":
                send_size(connection, size)
                connection.recv(1)
            else:
                while data := connection.recv(RECEIVE):
                    connection.sendall(data)


# Clients: they run a job to its end. What it raises comes out.


def run_client(name: str, authority: bytes, suite: str, port: int, job: Job) -> None:
    kind = KINDS[name]
    if kind.style == "sockets":
        run_sslsock(kind, client_configuration(authority, suite), port, job)
    elif kind.style == "threads":
        run_threads(client_context(authority, kind.own_ssl), port, job)
    else:
        run_asyncio(kind, client_context(authority, kind.own_ssl), port, job)
    if job.error is not None:
        raise job.error


def note_agreed(job: Job, version: Optional[str], cipher: Optional[tuple[str, str, int]]) -> None:
    job.agreed = (version or "", cipher[0] if cipher else "")


def run_sslsock(kind: Kind, configuration: SslConfiguration, port: int, job: Job) -> None:
    sockets: list[SslSocket] = []

    def on_error(taken: SslSocket, error: SocketError) -> None:
        job.fail(ConnectionError(taken.error_string))

    def on_encrypted(taken: SslSocket) -> None:
        protocol = taken.session_protocol
        job.agreed = (
            "" if protocol is None else protocol.name.replace("TLS_1_", "TLSv1."),
            taken.session_cipher,
        )
        SocketTransport(taken, job.make_client()).begin()

    def begin() -> None:
        for _ in range(job.count):
            taken = SslSocket()
            sockets.append(taken)
            taken.configuration = configuration
            taken.peer_verify_name = "localhost"
            taken.encrypted_handler = on_encrypted
            taken.error_handler = on_error
            taken.connect_encrypted(HOST, port)

    def end() -> None:
        for taken in sockets:
            taken.disconnected_handler = taken.error_handler = None
            taken.abort()

    async def main() -> None:
        done = asyncio.Event()
        job.finish = done.set
        begin()
        await done.wait()
        end()

    loop = EventLoop.current()
    loop.exception_handler = lambda loop, context: job.fail(context["exception"])
    if kind.loop:
        run_in_asyncio(new_asyncio_loop(kind.loop), main())
    else:
        job.finish = stop_loop
        run_loop(begin)
        end()


def run_asyncio(kind: Kind, context: Any, port: int, job: Job) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        job.finish = done.set
        transports = []
        for _ in range(job.count):
            make: Any = job.make_client
            transport, _ = await loop.create_connection(make, HOST, port, ssl=context, server_hostname="localhost")
            transport.set_write_buffer_limits(HIGH)
            transports.append(transport)
        connection = transports[0].get_extra_info("ssl_object")
        note_agreed(job, connection.version(), connection.cipher())
        await done.wait()
        for transport in transports:
            transport.abort()

    run_in_asyncio(new_asyncio_loop(kind.loop), main())


def run_in_asyncio(loop: asyncio.AbstractEventLoop, main: Any) -> None:
    try:
        loop.run_until_complete(main)
        loop.run_until_complete(asyncio.sleep(0))  # transports report their end
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


def run_threads(context: Any, port: int, job: Job) -> None:
    connections: list[Any] = []
    lock = threading.Lock()
    failures: list[BaseException] = []

    def client(connection: Any) -> None:
        try:
            if job.kind == b"E":
                count = echo_in_thread(connection)
            else:
                connection.sendall(REQUEST.pack(job.kind, job.size))
                if job.kind == b"U":
                    send_size(connection, job.size)
                    receive_exactly(connection, 1)
                else:
                    take_size(connection, job.size)
                count = job.size
            with lock:
                job.units += count
        except OSError as exc:
            failures.append(exc)

    def echo_in_thread(connection: Any) -> int:
        data, buffer, count = bytes(ECHO_SIZE), bytearray(ECHO_SIZE), 0
        while True:  # once at least, as the other clients do
            connection.sendall(data)
            got = connection.recv_into(buffer)
            while got < ECHO_SIZE:
                more = connection.recv_into(memoryview(buffer)[got:])
                if not more:
                    raise ConnectionError("the connection was closed too early")
                got += more
            count += 1
            if perf_counter() >= job.end:
                return count

    try:
        for _ in range(job.count):
            raw = socket.create_connection((HOST, port))
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = context.wrap_socket(raw, server_hostname="localhost")
            connections.append(connection)
            if job.kind == b"E":
                connection.sendall(REQUEST.pack(b"E", 0) + bytes(ECHO_SIZE))
                receive_exactly(connection, ECHO_SIZE)
        note_agreed(job, connections[0].version(), connections[0].cipher())
        threads = [threading.Thread(target=client, args=(connection,)) for connection in connections]
        job.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        job.note_end()
    finally:
        for connection in connections:
            connection.close()
    if failures:
        raise failures[0]
