"""How each library is asked to run the apps: as a server (in a process of its own) and as a client."""

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
from typing import Any, Callable, Optional

from ... import EventLoop, SocketError, SslCertificate, SslConfiguration, SslKey, SslServer, SslSocket
from ... import run as run_loop
from ... import stop as stop_loop
from .apps import ECHO_SIZE, HIGH, PIECE, REQUEST, Job, ServerApp, SocketTransport

HOST = "127.0.0.1"
RECEIVE = 256 * 1024

KINDS = (
    "sslsock",
    "sslsock-asyncio",
    "sslsock-uvloop",
    "ssl-threads",
    "asyncio",
    "uvloop",
    "aiofastnet",
    "aiofastnet-uvloop",
)

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


def server_context(certificate: bytes, key: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with memory_file(certificate + key) as path:
        context.load_cert_chain(path)
    return context


def client_context(authority: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.decode("ascii"))
    return context


def server_configuration(certificate: bytes, key: bytes) -> SslConfiguration:
    configuration = SslConfiguration()
    configuration.local_certificate = SslCertificate(certificate)
    configuration.private_key = SslKey(key)
    configuration.peer_verify_mode = SslConfiguration.VERIFY_NONE
    configuration.use_system_ca = False
    return configuration


def client_configuration(authority: bytes) -> SslConfiguration:
    configuration = SslConfiguration()
    configuration.add_ca_certificate(SslCertificate(authority))
    configuration.use_system_ca = False
    return configuration


def new_asyncio_loop(kind: str) -> asyncio.AbstractEventLoop:
    """The asyncio loop that a kind runs on."""
    loop: asyncio.AbstractEventLoop
    if kind.startswith("aiofastnet"):
        fast: Any = importlib.import_module("aiofastnet")
        if kind.endswith("uvloop"):
            loop = fast.loop_factory(importlib.import_module("uvloop").new_event_loop)()
        else:
            loop = fast.loop_factory()()
    elif kind.endswith("uvloop"):
        loop = importlib.import_module("uvloop").new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    return loop


# Servers: they call `listening(port)` and never return.


def serve(kind: str, certificate: bytes, key: bytes, listening: Callable[[int], object]) -> None:
    if kind.startswith("sslsock"):
        serve_sslsock(kind, server_configuration(certificate, key), listening)
    elif kind == "ssl-threads":
        serve_threads(server_context(certificate, key), listening)
    else:
        serve_asyncio(kind, server_context(certificate, key), listening)


def serve_sslsock(kind: str, configuration: SslConfiguration, listening: Callable[[int], object]) -> None:
    def accept(server: SslServer) -> None:
        while (taken := server.next_pending_secure_connection()) is not None:
            SocketTransport(taken, ServerApp()).begin()

    def begin() -> SslServer:
        server = SslServer()
        server.configuration = configuration
        server.max_pending_connections = 1024
        server.new_connection_handler = accept
        if not server.listen(0, HOST):
            raise OSError(server.error_string)
        listening(server.port)
        return server

    async def main() -> None:
        server = begin()
        await asyncio.Event().wait()
        server.close()

    if kind == "sslsock":
        run_loop(begin)
    else:
        new_asyncio_loop(kind).run_until_complete(main())


def serve_asyncio(kind: str, context: ssl.SSLContext, listening: Callable[[int], object]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        make: Any = ServerApp
        server = await loop.create_server(make, HOST, 0, ssl=context, backlog=1024)
        listening(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    new_asyncio_loop(kind).run_until_complete(main())


def serve_threads(context: ssl.SSLContext, listening: Callable[[int], object]) -> None:
    listener = socket.create_server((HOST, 0), backlog=1024)
    listening(listener.getsockname()[1])
    while True:
        raw, _ = listener.accept()
        threading.Thread(target=serve_thread, args=(context, raw), daemon=True).start()


def receive_exactly(connection: ssl.SSLSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError("the connection was closed too early")
        data += more
    return data


def send_size(connection: ssl.SSLSocket, size: int) -> None:
    while size:
        piece = PIECE if size >= len(PIECE) else PIECE[:size]
        connection.sendall(piece)
        size -= len(piece)


def take_size(connection: ssl.SSLSocket, size: int) -> None:
    buffer = bytearray(RECEIVE)
    while size > 0:
        count = connection.recv_into(buffer)
        if not count:
            raise ConnectionError("the connection was closed too early")
        size -= count


def serve_thread(context: ssl.SSLContext, raw: socket.socket) -> None:
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


def run_client(kind: str, authority: bytes, port: int, job: Job) -> None:
    if kind.startswith("sslsock"):
        run_sslsock(kind, client_configuration(authority), port, job)
    elif kind == "ssl-threads":
        run_threads(client_context(authority), port, job)
    else:
        run_asyncio(kind, client_context(authority), port, job)
    if job.error is not None:
        raise job.error


def note_agreed(job: Job, version: Optional[str], cipher: Optional[tuple[str, str, int]]) -> None:
    job.agreed = (version or "", cipher[0] if cipher else "")


def run_sslsock(kind: str, configuration: SslConfiguration, port: int, job: Job) -> None:
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
    if kind == "sslsock":
        job.finish = stop_loop
        run_loop(begin)
        end()
    else:
        run_in_asyncio(new_asyncio_loop(kind), main())


def run_asyncio(kind: str, context: ssl.SSLContext, port: int, job: Job) -> None:
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

    run_in_asyncio(new_asyncio_loop(kind), main())


def run_in_asyncio(loop: asyncio.AbstractEventLoop, main: Any) -> None:
    try:
        loop.run_until_complete(main)
        loop.run_until_complete(asyncio.sleep(0))  # transports report their end
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


def run_threads(context: ssl.SSLContext, port: int, job: Job) -> None:
    connections: list[ssl.SSLSocket] = []
    lock = threading.Lock()
    failures: list[BaseException] = []

    def client(connection: ssl.SSLSocket) -> None:
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

    def echo_in_thread(connection: ssl.SSLSocket) -> int:
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
