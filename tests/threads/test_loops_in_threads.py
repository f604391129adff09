"""Loops in threads, each with its connections, that share contexts, pools and ports: what serves in production."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from typing import Any

import pytest
from crowd import DEADLINE, ROUNDS, Crowd, files, path_of, repeated

import sslsock
from sslsock import Relay, SslCertificate, SslConfiguration, SslKey, SslServer, SslSocket, TcpServer, TcpSocket, aio, ssl

SIZE = 20_000


def own_contexts() -> tuple[Any, Any]:
    files()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path_of("cert0.pem"), path_of("key0.pem"))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(path_of("ca0.pem"))
    client.resume_sessions = True
    return client, server


def configurations() -> tuple[SslConfiguration, SslConfiguration]:
    certificate, key, authority = files()[0][0]
    server, client = SslConfiguration(), SslConfiguration()
    server.local_certificate, server.private_key = SslCertificate(certificate), SslKey(key)
    client.ca_certificates = [SslCertificate(authority)]
    client.use_system_ca = server.use_system_ca = False
    return client, server


async def answer(reader: Any, writer: Any) -> None:
    writer.write(await reader.readexactly(SIZE))
    await writer.drain()
    writer.close()


async def ask(port: int, context: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    writer.write(b"g" * SIZE)
    assert await reader.read() == b"g" * SIZE
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("kind", ["contexts", "configurations"])
@pytest.mark.parametrize("pool", [0, 2])
def test_loops_share_contexts(kind: str, pool: int) -> None:
    client, server = own_contexts() if kind == "contexts" else configurations()

    async def main() -> None:
        options: dict[str, Any] = {"handshake_threads": pool} if pool else {}
        listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server, **options)
        port = listening.sockets[0].getsockname()[1]
        for _ in range(3):
            await asyncio.gather(*(ask(port, client) for _ in range(3)))
        listening.close()
        await listening.wait_closed()

    Crowd().work(lambda: aio.run(main())).run()


def test_a_live_context_changes_under_loops() -> None:
    client, server = own_contexts()
    client.load_verify_locations(path_of("ca1.pem"))

    async def main() -> None:
        listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server)
        port = listening.sockets[0].getsockname()[1]
        for _ in range(ROUNDS):
            await ask(port, client)
        listening.close()
        await listening.wait_closed()

    def change() -> None:
        for number in (1, 0):
            server.load_cert_chain(path_of(f"cert{number}.pem"), path_of(f"key{number}.pem"))
            server.set_alpn_protocols([f"protocol{number}"])

    Crowd().work(lambda: aio.run(main())).meanwhile(change).run()


def test_serve_in_threads() -> None:
    client, server = own_contexts()
    served = set()

    async def app(reader: Any, writer: Any) -> None:
        served.add(threading.get_ident())
        await answer(reader, writer)

    errors: list[BaseException] = []

    def started(addresses: list[Any]) -> None:
        def call() -> None:
            sock = client.wrap_socket(socket.create_connection(addresses[0]), server_hostname="localhost")
            sock.sendall(b"h" * SIZE)
            got = 0
            while piece := sock.recv(SIZE):
                got += len(piece)
            sock.close()
            assert got == SIZE

        def calls() -> None:
            try:
                Crowd().work(repeated(call)).run()
            except BaseException as exc:
                errors.append(exc)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=calls).start()

    aio.serve(app, "127.0.0.1", 0, threads=2, started=started, ssl=server)
    if errors:
        raise errors[0]
    assert 1 <= len(served) <= 2


def test_the_family_relays_in_threads() -> None:
    """In each thread a server with TLS whose connections are relayed to an echo, and a client."""
    client_settings, server_settings = configurations()

    def main() -> None:
        echo, front = TcpServer(), SslServer()
        assert echo.listen(0, "127.0.0.1") and front.listen(0, "127.0.0.1")
        front.configuration = server_settings
        left = [3]
        kept: list[Any] = []

        def echoed(server: TcpServer) -> None:
            sock = server.next_pending_connection()
            kept.append(sock)
            sock.ready_read_handler = lambda sock: sock.write(sock.read())

        def relayed(server: SslServer) -> None:
            sock = server.next_pending_connection()
            sock.start_server_encryption()
            back = TcpSocket()
            kept.extend((sock, back))
            back.connected_handler = lambda back: kept.append(Relay(sock, back))
            back.connect("127.0.0.1", echo.port)

        echo.new_connection_handler, front.new_connection_handler = echoed, relayed

        def connect() -> None:
            sock = SslSocket()
            kept.append(sock)
            sock.configuration = client_settings
            sock.peer_verify_name = "localhost"
            sock.encrypted_handler = lambda sock: sock.write(b"i" * SIZE)

            def read(sock: SslSocket) -> None:
                if sock.bytes_available == SIZE:
                    sock.disconnect()
                    left[0] -= 1
                    if left[0]:
                        connect()
                    else:
                        sslsock.stop()

            sock.ready_read_handler = read
            sock.connect_encrypted("127.0.0.1", front.port)

        connect()
        kept.append(sslsock.EventLoop.current().call_later(DEADLINE, sslsock.stop))
        sslsock.run()
        assert left == [0]
        sslsock.EventLoop.current().close()

    Crowd().work(main).run()


def test_names_are_looked_up_by_all_threads() -> None:
    def main() -> None:
        server = TcpServer()
        assert server.listen(0, "127.0.0.1")
        found = []
        sock = TcpSocket()
        sock.connected_handler = lambda sock: (found.append(sock.remote_address), sslsock.stop())
        sock.error_handler = lambda sock, *args: sslsock.stop()
        sock.connect("localhost", server.port)
        sslsock.run()
        assert found
        sslsock.EventLoop.current().close()

    Crowd().work(repeated(main, 3)).run()
