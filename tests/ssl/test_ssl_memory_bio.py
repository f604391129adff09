"""Connections between two `MemoryBIO`, ours or another's: records in pieces, much at once, ends, objects that misbehave.

The tests with `module` are run with the interpreter's `ssl` too, which has to do the same.
"""

from __future__ import annotations

import contextlib
import ssl as stdlib
import struct
from typing import Any

import pytest
from tls_pairs import NAME, Files

from sslsock import ssl

both = pytest.mark.parametrize("module", [ssl, stdlib], ids=["ours", "the interpreter's"])
versions = pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])


class Pair:
    """Two ends after their handshake, and what lies between them. kind: makes a MemoryBIO."""

    def __init__(self, files: Files, module: Any = ssl, version: str = "TLSv1_3", kind: Any = None) -> None:
        client = files.client(module)
        client.maximum_version = module.TLSVersion[version]
        kind = kind or module.MemoryBIO
        self.to_client, self.to_server = kind(), kind()
        self.client = client.wrap_bio(self.to_client, self.to_server, server_hostname=NAME)
        self.server = files.server(module).wrap_bio(self.to_server, self.to_client, server_side=True)
        waiting = [self.client, self.server]
        while waiting:
            for end in list(waiting):
                with contextlib.suppress(module.SSLWantReadError):
                    end.do_handshake()
                    waiting.remove(end)


# ---- records in pieces, and many of them ---------------------------------------------------------------------


def hello_of_sslv2(challenge: bytes) -> bytes:
    """A ClientHello for TLS 1.2 as old clients framed it: RFC 5246, E.2."""
    suites = [0xC02B, 0xC02F, 0xC02C, 0xC030, 0x009C, 0x00FF]
    listed = b"".join(struct.pack(">BH", 0, suite) for suite in suites)
    body = b"\x01\x03\x03" + struct.pack(">HHH", len(listed), 0, len(challenge)) + listed + challenge
    return struct.pack(">H", 0x8000 | len(body)) + body


@both
@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 11, 40, 1000])
# what looks like the header of a record, whatever piece begins with it
@pytest.mark.parametrize("challenge", [b"\x16\x03\x03\x40\x00" * 6 + b"\x16\x03", b"\x17" * 32, b"\x03" * 16])
def test_a_hello_of_sslv2_in_pieces(files: Files, module: Any, step: int, challenge: bytes) -> None:
    incoming, outgoing = module.MemoryBIO(), module.MemoryBIO()
    server = files.server(module).wrap_bio(incoming, outgoing, server_side=True)
    hello = hello_of_sslv2(challenge)
    for start in range(0, len(hello), step):
        last = start + step >= len(hello)
        incoming.write(hello[start : start + step])
        # Its curves are not named, so our certificate, which is of an elliptic curve, is not for it.
        with pytest.raises(module.SSLError if last else module.SSLWantReadError) as caught:
            server.do_handshake()
    assert caught.value.reason == "NO_SHARED_CIPHER"
    assert outgoing.read()[:1] == b"\x15"  # the alert


@both
@versions
def test_every_record_byte_by_byte(files: Files, module: Any, version: str) -> None:
    client = files.client(module)
    client.maximum_version = module.TLSVersion[version]
    ways = [module.MemoryBIO() for _ in range(4)]
    one = client.wrap_bio(ways[0], ways[1], server_hostname=NAME)
    other = files.server(module).wrap_bio(ways[2], ways[3], server_side=True)

    def drip(source: Any, target: Any, call: Any) -> list[Any]:
        """What `call` returns, called after each byte."""
        returned = []
        while source.pending:
            target.write(source.read(1))
            with contextlib.suppress(module.SSLWantReadError):
                returned.append(call())
        return returned

    with pytest.raises(module.SSLWantReadError):
        one.do_handshake()
    for _ in range(3):
        drip(ways[1], ways[2], other.do_handshake)
        drip(ways[3], ways[0], one.do_handshake)
    assert one.version() == other.version() == version.replace("_", ".")
    one.write(b"data" * 5000)
    assert drip(ways[1], ways[2], lambda: other.read(100_000)) == [b"data" * 4096, b"data" * 904]
    with pytest.raises(module.SSLWantReadError):
        one.unwrap()
    assert drip(ways[1], ways[2], lambda: other.read(10)) == [b""]


def test_many_small_records_are_each_looked_at_once(files: Files) -> None:
    """A peer sends a byte in each, and the program reads as little: for each read anew, that is many minutes."""
    count = 300_000
    pair = Pair(files)
    for _ in range(count):
        pair.client.write(b"x")
    assert pair.to_server.pending > 20 * count
    for _ in range(count):
        assert pair.server.read(1) == b"x"
    assert pair.to_server.pending == 0


@both
@versions
def test_a_huge_input(files: Files, module: Any, version: str) -> None:
    """Read in pieces of all sizes, while more is written behind it."""
    pair = Pair(files, module, version)
    block = bytes(range(256)) * 4096
    for _ in range(16):
        assert pair.client.write(block) == len(block)
    sizes, got, size = [1, 100, 16384, 100_000, 1 << 20], 0, 0
    for turn in range(20_000):
        if turn < 2:
            pair.client.write(block)
        data = pair.server.read(sizes[turn % len(sizes)])
        size = max(size, len(data))
        expected = got % len(block)
        assert data == (block * 3)[expected : expected + len(data)]
        got += len(data)
        if got == 18 * len(block):
            break
    else:
        pytest.fail("it does not come to an end")
    with pytest.raises(module.SSLWantReadError):
        pair.server.read(1)


def test_what_a_program_takes_away_or_puts_in_between(files: Files) -> None:
    """The count of what is known to be complete records goes with the bytes, whoever moves them."""
    pair = Pair(files)
    for _ in range(5):
        pair.client.write(b"record")
    assert pair.server.read(3) == b"rec"
    rest = pair.to_server.read()  # a program that moves it
    assert pair.server.read(3) == b"ord"
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.read(1)
    pair.to_server.write(rest[:30])
    assert pair.server.read(100) == b"record"
    pair.to_server.write(rest[30:40])
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.read(100)
    pair.to_server.write(rest[40:])
    assert pair.server.read(100) == b"record" * 3


def test_two_connections_over_the_same_input(files: Files) -> None:
    """One takes what it can, and the other is given what is left of it: an alert, for it is not its own, and no crash."""
    pair = Pair(files)
    other = files.server(ssl).wrap_bio(pair.to_server, ssl.MemoryBIO(), server_side=True)
    for _ in range(3):
        pair.client.write(b"record")
    assert pair.server.read(6) == b"record"
    with pytest.raises(ssl.SSLError):
        other.do_handshake()
    pair.client.write(b"x")
    with pytest.raises(ssl.SSLError):
        while True:
            pair.server.read(100)


def test_one_memory_bio_both_ways(files: Files) -> None:
    """It reads its own hello, and refuses it as the interpreter's does."""
    told = []
    for module in ssl, stdlib:
        way = module.MemoryBIO()
        client = files.client(module).wrap_bio(way, way, server_hostname=NAME)
        with pytest.raises(module.SSLError) as caught:
            for _ in range(2):
                with contextlib.suppress(module.SSLWantReadError):
                    client.do_handshake()
        told.append((type(caught.value), caught.value.reason))
    assert told[0] == told[1]
