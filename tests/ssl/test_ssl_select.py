"""Programs that look with `select` whether there is something, and never ask `pending()`: what a handshake or a read has not
needed is in the socket still, whatever came together with it.

Every test is run with the interpreter's `ssl` too, which has to do the same.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl as stdlib
import threading
from typing import Any

import pytest
from tls_pairs import NAME, Files, connected

from sslsock import ssl

both = pytest.mark.parametrize("module", [ssl, stdlib], ids=["ours", "the interpreter's"])
versions = pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
kinds = pytest.mark.parametrize("limit", [None, 20.0], ids=["blocking", "with a time limit"])


class Peer:
    """An SSLObject of the interpreter over a socket, whose records wait until they are let go."""

    def __init__(self, context: Any, sock: socket.socket, **options: Any) -> None:
        self.incoming, self.outgoing = stdlib.MemoryBIO(), stdlib.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, **options)
        self.sock = sock

    def handshake(self) -> None:
        """All of it, but for what the last step has to send."""
        while True:
            try:
                self.tls.do_handshake()
                return
            except stdlib.SSLWantReadError:
                self.let_go()
                self.incoming.write(self.sock.recv(65536))

    def let_go(self) -> None:
        self.sock.sendall(self.outgoing.read())


def is_readable(end: Any) -> bool:
    return bool(select.select([end], [], [], 20)[0])


@both
@versions
@kinds
def test_what_comes_with_a_clients_last_flight(files: Files, module: Any, version: str, limit: Any) -> None:
    left, right = socket.socketpair()
    context = files.server(module)
    context.maximum_version = module.TLSVersion[version]
    peer = Peer(files.client(stdlib), left, server_hostname=NAME)
    right.settimeout(limit)
    with left, context.wrap_socket(right, server_side=True, do_handshake_on_connect=False) as server:
        thread = threading.Thread(target=peer.handshake, daemon=True)
        if version == "TLSv1_3":  # the client is done first, and its Finished waits
            server.setblocking(False)
            thread.start()
            with pytest.raises(module.SSLWantReadError):
                while True:
                    try:
                        server.do_handshake()
                    except module.SSLWantReadError:
                        thread.join(0.01)
                        if not thread.is_alive():
                            raise
            server.settimeout(limit)
            for _ in range(3):
                peer.tls.write(b"request")
            peer.let_go()
            server.do_handshake()
        else:
            thread.start()
            server.do_handshake()
            thread.join()
            for _ in range(3):
                peer.tls.write(b"request")
            peer.let_go()
        got = b""
        while len(got) < 21:
            assert is_readable(server), f"nobody is told of what comes after {got!r}"
            got += server.recv(7)
        assert got == b"request" * 3


@both
@kinds
@versions
def test_what_comes_with_a_servers_last_flight(files: Files, module: Any, version: str, limit: Any) -> None:
    """A banner. In TLS 1.3 it may even come before the client's Finished."""
    left, right = socket.socketpair()
    context = files.client(module)
    context.maximum_version = module.TLSVersion[version]
    peer = Peer(files.server(stdlib), right, server_side=True)
    left.settimeout(limit)
    with right, context.wrap_socket(left, server_hostname=NAME, do_handshake_on_connect=False) as client:
        failed: list[Exception] = []

        def serve() -> None:
            try:
                peer.handshake()
                peer.tls.write(b"220 ready")
                peer.let_go()
            except Exception as exc:
                failed.append(exc)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        client.do_handshake()
        thread.join()
        assert not failed
        assert is_readable(client)
        assert client.recv(100) == b"220 ready"


@both
def test_after_a_blocking_handshake_no_call_blocks(files: Files, module: Any) -> None:
    """The handshake waits, and then a loop of events has the socket."""
    left, right = socket.socketpair()
    incoming, outgoing = stdlib.MemoryBIO(), stdlib.MemoryBIO()
    client = files.client(stdlib).wrap_bio(incoming, outgoing, server_hostname=NAME)
    made: list[Any] = []
    context = files.server(module)
    thread = threading.Thread(target=lambda: made.append(context.wrap_socket(right, server_side=True)), daemon=True)
    thread.start()
    with left:
        while True:
            try:
                client.do_handshake()
                break
            except stdlib.SSLWantReadError:
                left.sendall(outgoing.read())
                incoming.write(left.recv(65536))
        records = outgoing.read()
        for number in range(10):
            client.write(b"%d" % number)
        left.sendall(records + outgoing.read())  # Finished and data in one piece
        thread.join()
        with made[0] as server:
            server.setblocking(False)
            got = b""
            while len(got) < 10:
                assert is_readable(server), f"nobody is told of what comes after {got!r}"
                with contextlib.suppress(module.SSLWantReadError):
                    got += server.recv(1)
            assert got == b"0123456789"


@both
@versions
@kinds
@pytest.mark.parametrize("sizes", [[400] * 40, [4096] * 9, [1, 4000, 2, 96, 4096] * 4, [3000] * 10], ids=str)
def test_reads_that_hold_a_record(files: Files, module: Any, version: str, limit: Any, sizes: list[int]) -> None:
    """No read is smaller than a record, so nothing is ever pending; much more is in the socket than a read takes."""
    client = files.client(module)
    client.maximum_version = module.TLSVersion[version]
    with connected(client, files.server(module)) as (one, other):
        one.settimeout(limit)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sent = b"".join(bytes([number % 256]) * size for number, size in enumerate(sizes))
        other.sendall(b"the tickets come before this")
        assert one.recv(100) == b"the tickets come before this"
        start = 0
        for size in sizes:
            other.sendall(sent[start : start + size])
            start += size
        got = b""
        while len(got) < len(sent):
            assert is_readable(one), f"nobody is told of the last {len(sent) - len(got)} bytes"
            got += one.recv(4096)
        assert got == sent
