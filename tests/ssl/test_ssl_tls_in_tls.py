"""TLS in TLS, up to three levels: `SSLObject` over objects that look like sockets, as urllib3's `SSLTransport` is for proxies.

Every level may be of either module.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import itertools
import socket
import ssl as stdlib
import threading
from typing import Any

import pytest
from tls_pairs import NAME, Files

from sslsock import ssl


class Transport:
    """Looks like a socket and is TLS over another one. bios: whose MemoryBIO."""

    def __init__(self, sock: Any, context: Any, bios: Any, **options: Any) -> None:
        self.sock = sock
        self.incoming, self.outgoing = bios.MemoryBIO(), bios.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, **options)
        self.lock = threading.Lock()
        self.run(self.tls.do_handshake)

    def run(self, call: Any, *arguments: Any) -> Any:
        """The loop of urllib3: call, send what that has made, receive what it lacks."""
        while True:
            wants = False
            result = None
            try:
                result = call(*arguments)
            except (ssl.SSLWantReadError, stdlib.SSLWantReadError):
                wants = True
            with self.lock:
                self.sock.sendall(self.outgoing.read())
            if not wants:
                return result
            data = self.sock.recv(16384)
            if data:
                self.incoming.write(data)
            else:
                self.incoming.write_eof()

    def recv(self, size: int = 1024, flags: int = 0) -> bytes:
        return self.run(self.tls.read, size)

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        return self.run(self.tls.read, size or len(buffer), buffer)

    def send(self, data: Any) -> int:
        return self.run(self.tls.write, data)

    def sendall(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        while view:
            view = view[self.send(view) :]

    def unwrap(self) -> Any:
        self.run(self.tls.unwrap)
        return self.sock

    def makefile(self, mode: str, *_: Any) -> Any:
        assert mode == "rb"
        return io.BufferedReader(Raw(self))

    def close(self) -> None:
        self.sock.close()


class Raw(io.RawIOBase):
    def __init__(self, end: Transport) -> None:
        self.end = end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self.end.recv_into(buffer)


@contextlib.contextmanager
def nested(files: Files, clients: tuple[Any, ...], servers: tuple[Any, ...], bios: Any) -> Any:
    """The innermost ends of as many levels as there are modules for them; the outermost is a socket's."""
    left, right = socket.socketpair()
    made: list[Any] = []

    def serve() -> None:
        try:
            end: Any = files.server(servers[0]).wrap_socket(right, server_side=True)
            for module in servers[1:]:
                end = Transport(end, files.server(module), bios, server_side=True)
            made.append(end)
        except Exception as exc:
            made.append(exc)
            right.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with left:
        end: Any = files.client(clients[0]).wrap_socket(left, server_hostname=NAME)
        for module in clients[1:]:
            end = Transport(end, files.client(module), bios, server_hostname=NAME)
        thread.join()
        if isinstance(made[0], Exception):
            raise made[0]
        try:
            yield end, made[0]
        finally:
            end.close()
            made[0].close()


@pytest.mark.parametrize("bios", [ssl, stdlib], ids=["our MemoryBIO", "the interpreter's MemoryBIO"])
@pytest.mark.parametrize("levels", [2, 3])
def test_data_goes_through_all_levels(files: Files, levels: int, bios: Any) -> None:
    mixes = [
        clients
        for clients in itertools.product((ssl, stdlib), repeat=levels)
        if bios is stdlib or all(module is ssl for module in clients[1:])  # the interpreter's takes its own only
    ]
    data = bytes(range(256)) * 4000
    for clients in mixes:
        servers = tuple(ssl if bios is ssl or module is stdlib else stdlib for module in clients)
        with nested(files, clients, servers, bios) as (one, other):
            thread = threading.Thread(target=one.sendall, args=(data,), daemon=True)
            thread.start()
            got = b""
            while len(got) < len(data):
                piece = other.recv(70_000)
                assert piece, clients
                got += piece
            thread.join()
            assert got == data, clients
            other.sendall(b"answer")
            memory = bytearray(10)
            assert one.recv_into(memory) == 6 and memory[:6] == b"answer"


@pytest.mark.parametrize("levels", [2, 3])
def test_the_levels_end_from_the_inside(files: Files, levels: int) -> None:
    """`unwrap` of one leaves the next one in use, down to the plain socket."""
    with nested(files, (ssl,) * levels, (ssl,) * levels, ssl) as (one, other):
        failed: list[BaseException] = []

        def answer() -> None:
            try:
                end = other
                for level in range(levels + 1):
                    assert end.recv(100) == b"ping"
                    end.sendall(b"pong")
                    if level < levels:
                        assert end.recv(100) == b""
                        end = end.unwrap()
            except BaseException as exc:
                failed.append(exc)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        end = one
        for level in range(levels + 1):
            end.sendall(b"ping")
            assert end.recv(100) == b"pong"
            if level < levels:
                end = end.unwrap()
        thread.join()
        assert not failed
        assert end.version() is None


def test_http_through_two_levels(files: Files) -> None:
    """An HTTPS request through an HTTPS proxy, by the standard library's client."""
    with nested(files, (ssl, ssl), (stdlib, ssl), ssl) as (one, other):

        def serve() -> None:
            with other.makefile("rb") as lines:
                for _ in range(3):
                    while lines.readline().strip():
                        pass
                    other.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        connection = http.client.HTTPConnection(NAME)
        connection.sock = one
        for _ in range(3):
            connection.request("GET", "/")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"x" * 100_000)
        thread.join()
