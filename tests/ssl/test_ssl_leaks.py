"""What is made and dropped many times leaves no memory, descriptor or object behind."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_ssl_threads import handshake
from tls_pairs import NAME, Files, connected, in_memory

from sslsock import ssl

pytestmark = pytest.mark.slow
CONNECTIONS = 20_000 if os.environ.get("SSLSOCK_FULL") else 4000
PAGE = os.sysconf("SC_PAGE_SIZE")
TURN = 50  # times, then a collection: how much garbage there is at once must not depend on when the interpreter looks for it


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def repeat(task: Callable[[], object], times: int) -> None:
    """Free-threaded CPython may let thousands of connections lie, and malloc keeps what they took (docs/threads.md)."""
    for number in range(times):
        task()
        if number % TURN == 0:
            gc.collect()
    gc.collect()


def assert_flat(task: Callable[[], object], times: int, room: int = 3 << 20) -> None:
    """room: bytes that the allocator may keep."""
    repeat(task, times // 4)
    before = resident(), len(os.listdir("/proc/self/fd")), len(gc.get_objects())
    repeat(task, times)
    after = resident(), len(os.listdir("/proc/self/fd")), len(gc.get_objects())
    assert after[1] == before[1], "descriptors"
    assert after[2] - before[2] < 100, "objects"
    assert after[0] - before[0] < room, f"{after[0] - before[0]} bytes in {times} times"


def forgotten(files: Files, client: Any, server: Any) -> None:
    """A connection that nobody closes, in a cycle with its context."""
    one, other = in_memory(client, server, ssl)
    one.write(b"unread")
    one.cycle = [one, other]


def in_threads(client: Any, server: Any) -> None:
    """Each connection's ends in threads that begin and end with it, as in servers with a thread a client."""
    with connected(client, server) as (one, other):
        one.sendall(b"question")
        assert other.recv(10) == b"question"


@pytest.mark.parametrize("way", ["closed", "forgotten", "in threads"])
def test_connections(files: Files, way: str) -> None:
    client, server = files.client(ssl), files.server(ssl)
    tasks: dict[str, Callable[[], object]] = {
        "closed": lambda: handshake(client, server),
        "forgotten": lambda: forgotten(files, client, server),
        "in threads": lambda: in_threads(client, server),
    }
    task = tasks[way]
    assert_flat(task, CONNECTIONS // 4 if way == "in threads" else CONNECTIONS)


def test_contexts_with_callbacks_that_know_them(files: Files, tmp_path: Path) -> None:
    def task() -> None:
        client, server = files.client(ssl), files.server(ssl)
        server.sni_callback = lambda *_: None if (client, server) else 1
        client._msg_callback = lambda *_: server
        client.keylog_filename = tmp_path / "keys"
        server.set_alpn_protocols(["h2"])
        server.set_alpn_protocols(["h2", "http/1.1"])
        client.load_verify_locations(cadata=files.ca.cert_pem.bytes().decode())
        in_memory(client, server, ssl)

    assert_flat(task, 1000, 6 << 20)


def refused(context: Any, *data: bytes) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_side=context.protocol == ssl.PROTOCOL_TLS_SERVER)
    for one in data:
        incoming.write(one)
        with contextlib.suppress(ssl.SSLError):
            connection.do_handshake()
    incoming.write_eof()
    with contextlib.suppress(ssl.SSLError):
        connection.do_handshake()


def test_errors(files: Files, tmp_path: Path) -> None:
    client, server, stranger = files.client(ssl), files.server(ssl), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    raising = files.server(ssl)
    raising.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    telling = files.client(ssl)
    telling._msg_callback = lambda *_: 1 // 0
    empty = tmp_path / "empty"
    empty.touch()

    def over_gone_socket() -> None:
        left, right = socket.socketpair()
        right.close()
        with left:
            client.wrap_socket(left, server_hostname=NAME)

    def out_of_time() -> None:
        left, right = socket.socketpair()
        left.settimeout(0.0001)
        with right, client.wrap_socket(left, server_hostname=NAME, do_handshake_on_connect=False) as one:
            for call in one.do_handshake, one.recv, one.unwrap:
                with contextlib.suppress(OSError):
                    call()

    class Refusing:
        read = write = lambda *_: 1 // 0
        pending, eof = 0, False

    def over_what_raises(side: str) -> None:
        ways = {"incoming": ssl.MemoryBIO(), "outgoing": ssl.MemoryBIO(), side: Refusing()}
        one = client.wrap_bio(ways["incoming"], ways["outgoing"], server_hostname=NAME)
        for call in one.do_handshake, one.read, one.unwrap:
            with contextlib.suppress(ssl.SSLError, ZeroDivisionError):
                call()

    tasks: list[Callable[[], object]] = [
        lambda: refused(server, b"GET / HTTP/1.0\r\n\r\n"),
        lambda: refused(server, b"\x16\x03\x01\x00\x05\x01\0\0\x01\0"),
        lambda: in_memory(stranger, server, ssl),
        lambda: in_memory(client, raising, ssl),
        lambda: in_memory(telling, server, ssl),
        lambda: client.load_cert_chain(files.ca_file),
        lambda: client.load_cert_chain(files.server_file, empty),
        lambda: client.load_cert_chain(tmp_path / "none"),
        lambda: client.load_verify_locations(empty),
        lambda: client.load_verify_locations(cadata="words"),
        lambda: client.load_verify_locations(cadata=b"\x30\x03abc"),
        lambda: client.set_ciphers("none"),
        lambda: client.set_ecdh_curve("none"),
        lambda: client.load_dh_params(empty),
        lambda: client.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=".x"),
        lambda: ssl.SSLContext(99),
        lambda: setattr(client, "keylog_filename", tmp_path),
        over_gone_socket,
        out_of_time,
        lambda: over_what_raises("incoming"),
        lambda: over_what_raises("outgoing"),
    ]

    def task() -> None:
        for one in tasks:
            with contextlib.suppress(OSError, ValueError, TypeError, ZeroDivisionError):
                one()

    assert_flat(task, 1000, 6 << 20)
