"""`create_server(handshake_threads=)`: handshakes in threads, and a loop that serves meanwhile.

A handshake is held up in its thread by its key log, a pipe that is full: libssl writes to it in the midst.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl as standard
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from peers import DEADLINE, Certificates
from sslsock import aio, ssl


class FullPipe:
    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self.reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)

    def fill(self) -> None:
        for size in (4096, 1):
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(self.writer, bytes(size))

    def drain(self) -> None:
        """From now on nobody waits."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.reader, 1 << 20):
                pass

    def close(self) -> None:
        self.drain()
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[FullPipe]:
    pipe = FullPipe(tmp_path / "keys")
    yield pipe
    pipe.close()


class Echo(asyncio.Protocol):
    """Sends back what comes, and keeps what it is told."""

    def __init__(self) -> None:
        self.made = False
        self.lost: list[Any] = []
        self.thread = 0

    def connection_made(self, transport: Any) -> None:
        self.made, self.transport, self.thread = True, transport, threading.get_ident()

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Any) -> None:
        self.lost.append(exc)


def server_context(certificates: Certificates, *names: str, tls12: bool = False) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.ca.issue_cert(*(names or ("localhost",))).configure_cert(context)
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def client_context(certificates: Certificates) -> Any:
    """The interpreter's."""
    context = standard.create_default_context()
    certificates.ca.configure_trust(context)
    return context


async def until(condition: Callable[[], Any]) -> None:
    async def turns() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(turns(), DEADLINE)


async def serving(certificates: Certificates, context: Any, threads: int = 1, **options: Any) -> tuple[Any, int, list[Echo]]:
    made: list[Echo] = []

    def factory() -> Echo:
        made.append(Echo())
        return made[-1]

    loop = asyncio.get_running_loop()
    server = await aio.create_server(loop, factory, "127.0.0.1", 0, ssl=context, handshake_threads=threads, **options)
    return server, server.sockets[0].getsockname()[1], made


def pool_of(server: Any) -> Any:
    return server._options.handshake_pool


async def opened(certificates: Certificates, port: int, name: str = "localhost") -> Any:
    """By the interpreter's TLS, in a thread of its own."""

    def connect() -> standard.SSLSocket:
        sock = socket.create_connection(("127.0.0.1", port), DEADLINE)
        try:
            return client_context(certificates).wrap_socket(sock, server_hostname=name)
        except BaseException:
            sock.close()
            raise

    return await asyncio.wait_for(asyncio.to_thread(connect), DEADLINE)


async def echoed(sock: Any, data: bytes) -> bytes:
    def exchange() -> bytes:
        sock.sendall(data)
        return sock.recv(1 << 16)

    return await asyncio.wait_for(asyncio.to_thread(exchange), DEADLINE)


def run(host: Any, coroutine: Any) -> None:
    host.run_until_complete(asyncio.wait_for(coroutine, 3 * DEADLINE))


@pytest.mark.parametrize("tls12", [False, True])
def test_a_handshake_in_a_thread(host, certificates, tls12):
    async def main() -> None:
        server, port, made = await serving(certificates, server_context(certificates, tls12=tls12))
        assert pool_of(server).running == 0
        with await opened(certificates, port) as client:
            assert await echoed(client, b"hello") == b"hello"
            assert client.version() == ("TLSv1.2" if tls12 else "TLSv1.3")
        await until(lambda: made[0].lost)
        assert made[0].lost == [None]
        assert pool_of(server).running == 1
        assert made[0].thread == threading.get_ident()
        server.close()
        await server.wait_closed()

    run(host, main())


def test_connections_are_served_while_handshakes_are_in_their_threads(host, certificates, pipe):
    async def main() -> None:
        context = server_context(certificates)
        server, port, made = await serving(certificates, context)
        with await opened(certificates, port) as served:
            context.keylog_filename = pipe.path
            pipe.fill()
            waiting = [asyncio.ensure_future(opened(certificates, port)) for _ in range(3)]
            await until(lambda: (pool_of(server).busy, pool_of(server).waiting) == (1, 2))
            for _ in range(3):
                assert await echoed(served, b"are you there?") == b"are you there?"
            assert not any(each.done() for each in waiting)
            assert sum(each.made for each in made) == 1
            pipe.drain()
            for each in waiting:
                with await each as client:
                    assert await echoed(client, b"and you?") == b"and you?"
        await until(lambda: all(each.lost for each in made))
        server.close()

    run(host, main())


def test_the_names_callback_is_the_loops_and_the_certificate_it_has_chosen_is_used(host, certificates, pipe):
    async def main() -> None:
        context, other = server_context(certificates), server_context(certificates, "other.example")
        other.keylog_filename = pipe.path
        pipe.fill()
        asked = []

        def choose(tls: Any, name: Any, _: Any) -> None:
            asked.append((name, threading.get_ident()))
            if name == "other.example":
                tls.context = other

        context.sni_callback = choose
        server, port, made = await serving(certificates, context)
        waiting = asyncio.ensure_future(opened(certificates, port, "other.example"))
        await until(lambda: pool_of(server).busy == 1)
        pipe.drain()
        with await waiting as client:
            assert client.getpeercert()["subjectAltName"] == (("DNS", "other.example"),)
            assert await echoed(client, b"hello") == b"hello"
        assert asked == [("other.example", threading.get_ident())]
        await until(lambda: made[0].lost)
        server.close()

    run(host, main())


@pytest.mark.parametrize("way", ["messages", "keys"])
def test_what_would_be_asked_in_the_middle_keeps_the_handshake_in_the_loop(host, certificates, way):
    async def main() -> None:
        context = server_context(certificates)
        asked = set()
        if way == "messages":
            context._msg_callback = lambda *args: asked.add(threading.get_ident())
        else:
            context.set_psk_server_callback(lambda identity: b"")
        server, port, made = await serving(certificates, context)
        with await opened(certificates, port) as client:
            assert await echoed(client, b"hello") == b"hello"
        assert pool_of(server).running == 0
        assert asked <= {threading.get_ident()}
        assert asked or way == "keys"
        await until(lambda: made[0].lost)
        server.close()

    run(host, main())


@pytest.mark.parametrize("module", [standard], ids=["the interpreter's"])
def test_another_librarys_context_is_served_as_ever(host, certificates, module):
    async def main() -> None:
        context = module.SSLContext(module.PROTOCOL_TLS_SERVER)
        certificates.ca.issue_cert("localhost").configure_cert(context)
        server, port, made = await serving(certificates, context)
        with await opened(certificates, port) as client:
            assert await echoed(client, b"hello") == b"hello"
        assert pool_of(server).running == 0
        await until(lambda: made[0].lost)
        server.close()

    run(host, main())


@pytest.mark.parametrize("way", ["time", "peer", "server", "context"])
def test_an_end_while_it_is_in_its_thread(host, certificates, pipe, way):
    async def main() -> None:
        context = server_context(certificates)
        context.keylog_filename = pipe.path
        pipe.fill()
        options = {"ssl_handshake_timeout": 0.2} if way == "time" else {}
        server, port, made = await serving(certificates, context, **options)
        sock = socket.create_connection(("127.0.0.1", port), DEADLINE)
        incoming, outgoing = standard.MemoryBIO(), standard.MemoryBIO()
        tls = client_context(certificates).wrap_bio(incoming, outgoing, False, "localhost")
        with pytest.raises(standard.SSLWantReadError):
            tls.do_handshake()
        sock.sendall(outgoing.read())
        if way != "time":  # which may be over before a thread of a busy machine comes
            await until(lambda: pool_of(server).busy == 1)
        channels = host.core.watching if hasattr(host, "core") else None
        if way == "time":
            assert await asyncio.wait_for(asyncio.to_thread(sock.recv, 1), DEADLINE) == b""
        elif way == "peer":
            sock.close()
            if channels is not None:
                await until(lambda: host.core.watching < channels)
        elif way == "server":
            server.close()
        else:
            certificates.ca.issue_cert("localhost").configure_cert(context)  # who changes it does not wait for the thread
        pipe.drain()
        await until(lambda: pool_of(server).busy == 0)
        sock.close()
        await until(lambda: server._active_count == 0 if hasattr(server, "_active_count") else not server._clients)
        assert not any(each.made for each in made)
        if way == "time":
            server.close()
        elif way != "server":
            with await opened(certificates, port) as client:
                assert await echoed(client, b"hello") == b"hello"
            await until(lambda: made[-1].lost)
            server.close()

    run(host, main())


def test_a_loop_that_is_closed_while_a_handshake_is_in_its_thread(certificates, pipe):
    loop = aio.new_event_loop()
    asyncio.set_event_loop(loop)
    left = []

    async def main() -> None:
        context = server_context(certificates)
        context.keylog_filename = pipe.path
        pipe.fill()
        server, port, _ = await serving(certificates, context)
        sock = socket.create_connection(("127.0.0.1", port), DEADLINE)
        outgoing = standard.MemoryBIO()
        tls = client_context(certificates).wrap_bio(standard.MemoryBIO(), outgoing, False, "localhost")
        with pytest.raises(standard.SSLWantReadError):
            tls.do_handshake()
        sock.sendall(outgoing.read())
        await until(lambda: pool_of(server).busy == 1)
        left.extend((server, sock))

    loop.run_until_complete(main())
    server, sock = left
    with pytest.warns(ResourceWarning):
        server.close()
        loop.close()
        server = None
        left.clear()
        gc.collect()
    asyncio.set_event_loop(None)
    sock.settimeout(DEADLINE)
    with contextlib.suppress(ConnectionResetError):
        assert sock.recv(1) == b"", "the descriptor is not closed"
    sock.close()


def test_start_tls_of_a_servers_connection_is_done_in_its_threads(host, certificates, pipe):
    async def main() -> None:
        context = server_context(certificates)
        context.keylog_filename = pipe.path
        pipe.fill()
        loop = asyncio.get_running_loop()

        class Starting(Echo):
            def data_received(self, data: bytes) -> None:
                if data == b"STARTTLS\r\n":
                    self.transport.pause_reading()
                    self.transport.write(b"go\r\n")
                    self.task = asyncio.ensure_future(self.start())
                else:
                    super().data_received(data)

            async def start(self) -> None:
                await aio.start_tls(loop, self.transport, self, context, server_side=True)
                self.transport.resume_reading()

        server = await aio.create_server(loop, Starting, "127.0.0.1", 0, handshake_threads=1)

        def connect() -> standard.SSLSocket:
            sock = socket.create_connection(server.sockets[0].getsockname(), DEADLINE)
            sock.sendall(b"STARTTLS\r\n")
            assert sock.recv(4) == b"go\r\n"
            return client_context(certificates).wrap_socket(sock, server_hostname="localhost")

        connecting = asyncio.ensure_future(asyncio.to_thread(connect))
        await until(lambda: pool_of(server).busy == 1)
        pipe.drain()
        with await connecting as client:
            assert await echoed(client, b"hello") == b"hello"
        server.close()

    run(host, main())


def test_streams(host, certificates):
    async def main() -> None:
        async def serve(reader: Any, writer: Any) -> None:
            writer.write(await reader.readline())
            writer.close()

        context = server_context(certificates)
        server = await aio.start_server(host, serve, "127.0.0.1", 0, ssl=context, handshake_threads=2)
        with await opened(certificates, server.sockets[0].getsockname()[1]) as client:
            assert await echoed(client, b"hello\n") == b"hello\n"
        assert pool_of(server).running == 1
        server.close()

    run(host, main())


def test_a_handshake_that_fails_in_its_thread_is_told_to_the_client(host, certificates):
    async def main() -> None:
        context = server_context(certificates, tls12=True)
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        server, port, made = await serving(certificates, context)

        def connect() -> None:
            client = client_context(certificates)
            client.maximum_version = standard.TLSVersion.TLSv1_2
            client.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
            with socket.create_connection(("127.0.0.1", port), DEADLINE) as sock:
                client.wrap_socket(sock, server_hostname="localhost")

        with pytest.raises(standard.SSLError, match="HANDSHAKE_FAILURE"):
            await asyncio.to_thread(connect)
        assert pool_of(server).running == 1
        await until(lambda: made)
        assert not made[0].made
        server.close()

    run(host, main())


@pytest.mark.parametrize(("threads", "error"), [(-1, ValueError), (257, ValueError), ("1", TypeError), (True, TypeError)])
def test_an_impossible_number_of_threads(host, certificates, threads, error):
    async def main() -> None:
        with pytest.raises(error, match="handshake_threads"):
            await serving(certificates, server_context(certificates), threads)

    run(host, main())
