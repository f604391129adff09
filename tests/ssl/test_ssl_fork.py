"""A fork: contexts and connections of the parent work in the child, whatever its threads were about."""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import threading
from collections.abc import Callable
from typing import Any

import pytest
from test_ssl_threads import handshake
from tls_pairs import NAME, Files, connected

from sslsock import ssl


def in_child(task: Callable[[], object]) -> None:
    """Run it after a fork; the child ends at once, with what it has raised on standard error."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(30)
            task()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_contexts_and_connections_in_the_child(files: Files) -> None:
    client, server = files.client(ssl), files.server(ssl)
    with connected(client, server) as (one, other):
        one.sendall(b"before")

        def task() -> None:
            handshake(client, server)
            client.set_ciphers("ECDHE+AESGCM")
            client.load_verify_locations(files.ca_file)
            handshake(client, server)
            assert other.recv(10) == b"before"
            other.sendall(b"of the child")

        in_child(task)
        assert one.recv(100) == b"of the child"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_thread_of_the_parent_was_reading(files: Files) -> None:
    """It holds the connection's lock, and is not there in the child."""
    client, server = files.client(ssl), files.server(ssl)
    with connected(client, server) as (one, other):
        other.sendall(b"first")  # and the session tickets before it
        assert one.recv(10) == b"first"
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(one.recv(10)), daemon=True)
        reader.start()
        one.settimeout(0)
        while True:  # until it waits, and holds the lock
            try:
                assert one._sslobj.read(1) is None
            except ssl.SSLWantReadError:
                break
        one.settimeout(20)

        def task() -> None:
            near, far = socket.socketpair()  # the parent is still reading the old ones
            os.dup2(near.fileno(), one.fileno())
            os.dup2(far.fileno(), other.fileno())
            other.sendall(b"to the child")
            assert one.recv(100) == b"to the child"
            assert one.pending() == 0

        in_child(task)
        other.sendall(b"x")
        reader.join()


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(self.request.recv(100).upper())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("kind", [socketserver.ForkingMixIn, socketserver.ThreadingMixIn])
def test_a_server_of_socketserver(files: Files, kind: Any) -> None:
    context = files.server(ssl)

    class Server(kind, socketserver.TCPServer):  # type: ignore[misc]
        def get_request(self) -> Any:
            connection, address = super().get_request()
            return context.wrap_socket(connection, server_side=True), address

    with Server(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            for _ in range(5):
                plain = socket.create_connection(server.server_address)
                with files.client(ssl).wrap_socket(plain, server_hostname=NAME) as one:
                    one.sendall(b"hello")
                    assert one.recv(100) == b"HELLO"
                    assert one.recv(100) == b""
        finally:
            server.shutdown()
            thread.join()
