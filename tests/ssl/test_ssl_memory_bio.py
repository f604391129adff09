"""Connections between two `MemoryBIO`, ours or another's: records in pieces, much at once, ends, objects that misbehave.

The tests with `module` are run with the interpreter's `ssl` too, which has to do the same.
"""

from __future__ import annotations

import contextlib
import ssl as stdlib
import struct
from typing import Any

import pytest
from tls_pairs import NAME, Files, reasons

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


def knows_sslv2(module: Any) -> bool:
    """Whether it takes that hello."""
    return bool(module.OPENSSL_VERSION_INFO < (4,))


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
    if knows_sslv2(module):
        assert caught.value.reason == "NO_SHARED_CIPHER"
        assert outgoing.read()[:1] == b"\x15"  # the alert
    else:
        assert caught.value.reason == "WRONG_VERSION_NUMBER"
        assert outgoing.read() == b""  # it is not TLS, so nobody would understand one


@both
@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"\x16\x03\x01\x48\x00", "PACKET_LENGTH_TOO_LONG"),
        (b"\x16\x03\x01\x42\x00", "PACKET_LENGTH_TOO_LONG"),
        (b"\xc8\x00\x01\x03\x03", "PACKET_LENGTH_TOO_LONG"),
        (b"\x80\x00\x01\x03\x03", "LENGTH_TOO_SHORT"),
        (b"\x80\x02\x01\x03\x03", "LENGTH_TOO_SHORT"),
        (b"\x16\x02\x01\x00\x50", "WRONG_VERSION_NUMBER"),
        (b"GET /", "HTTP_REQUEST"),
    ],
)
def test_a_header_that_cannot_be_is_refused_at_once(files: Files, module: Any, header: bytes, reason: str) -> None:
    """Nobody waits for what should follow it."""
    incoming = module.MemoryBIO()
    server = files.server(module).wrap_bio(incoming, module.MemoryBIO(), server_side=True)
    for index, byte in enumerate(header):
        incoming.write(bytes([byte]))
        with pytest.raises(module.SSLError if index == 4 else module.SSLWantReadError) as caught:
            server.do_handshake()
    if header[0] & 0x80 and not knows_sslv2(module):
        reason = "WRONG_VERSION_NUMBER"
    assert caught.value.reason in reasons(module, reason)


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


# ---- ends, and what lies behind them -------------------------------------------------------------------------
both_kinds = pytest.mark.parametrize(
    ("module", "kind"),
    [(ssl, ssl.MemoryBIO), (ssl, stdlib.MemoryBIO), (stdlib, stdlib.MemoryBIO)],
    ids=["ours", "ours over the interpreter's", "the interpreter's"],
)


def told(call: Any, *arguments: Any) -> Any:
    """What it returns or raises, without the place in the source."""
    try:
        return call(*arguments)
    except OSError as exc:
        return type(exc).__name__, exc.args[0], exc.args[1].rsplit(" (", 1)[0]


@both_kinds
@versions
def test_what_follows_close_notify_stays_in_the_memory_bio(files: Files, module: Any, kind: Any, version: str) -> None:
    """anyio's and trio's `unwrap` look for it there."""
    pair = Pair(files, module, version, kind)
    pair.client.write(b"data")
    told(pair.client.unwrap)
    pair.to_server.write(b"plain ")
    assert pair.server.read(100) == b"data"
    assert pair.server.read(100) == b""
    pair.to_server.write(b"text")
    pair.server.unwrap()
    assert pair.to_server.pending == len(b"plain text")
    assert pair.to_server.read() == b"plain text"


@both_kinds
@versions
@pytest.mark.parametrize("cut", [0, 3, 5, 20], ids=lambda cut: f"{cut} bytes of a record")
def test_an_end_of_the_input(files: Files, module: Any, kind: Any, version: str, cut: int) -> None:
    """What was whole is read first. Afterwards every call says the same as the interpreter's."""

    def run(module: Any, kind: Any) -> list[Any]:
        pair = Pair(files, module, version, kind)
        pair.client.write(b"data")
        whole = pair.to_server.read()
        pair.client.write(b"more data")
        pair.to_server.write(whole + pair.to_server.read()[:cut])
        pair.to_server.write_eof()
        server = pair.server
        said = [
            told(call, *arguments)
            for call, arguments in (
                (server.read, (100,)),
                (server.read, (100,)),
                (server.read, (100,)),
                (server.write, (b"x",)),
                (server.unwrap, ()),
                (server.pending, ()),
                (server.do_handshake, ()),
            )
        ]
        return [*said, pair.to_client.pending > 0, pair.to_server.eof, pair.to_server.pending]

    assert run(module, kind) == run(stdlib, stdlib.MemoryBIO)


@both_kinds
def test_an_end_in_the_handshake(files: Files, module: Any, kind: Any) -> None:
    def run(module: Any, kind: Any) -> list[Any]:
        incoming, outgoing = kind(), kind()
        client = files.client(module).wrap_bio(incoming, outgoing, server_hostname=NAME)
        said = [told(client.do_handshake)]
        incoming.write(b"\x16\x03\x03\x00\x50\x02")
        said.append(told(client.do_handshake))
        incoming.write_eof()
        return [*said, told(client.do_handshake), told(client.do_handshake), told(client.read, 1), incoming.eof]

    assert run(module, kind) == run(stdlib, stdlib.MemoryBIO)


# ---- objects that are no MemoryBIO ---------------------------------------------------------------------------


class Strange:
    """Has the methods of a MemoryBIO, each of which can be replaced."""

    def __init__(self) -> None:
        self.data, self.ended = bytearray(), False

    def read(self, size: int = -1) -> Any:
        taken = bytes(self.data if size < 0 else self.data[:size])
        del self.data[: len(taken)]
        return taken

    def write(self, data: Any) -> int:
        self.data += data
        return len(data)

    @property
    def pending(self) -> int:
        return len(self.data)

    @property
    def eof(self) -> Any:
        return self.ended and not self.data


class Raised(Exception):
    pass


def refuse(*_: object) -> Any:
    raise Raised


@versions
def test_an_object_with_its_methods_will_do(files: Files, version: str) -> None:
    pair = Pair(files, ssl, version, Strange)
    pair.client.write(b"data" * 10_000)
    got = b""
    while len(got) < 40_000:
        got += pair.server.read(7000)
    assert got == b"data" * 10_000
    told(pair.client.unwrap)
    assert pair.server.read(1) == b""


def every_other(data: bytes) -> memoryview:
    return memoryview(bytes(byte for pair in zip(data, data) for byte in pair))[::2]


@pytest.mark.parametrize("made", [bytearray, memoryview, every_other])
def test_input_of_all_kinds(files: Files, made: Any) -> None:
    pair = Pair(files, kind=Strange)
    pair.to_server.read = lambda: made(Strange.read(pair.to_server))
    pair.client.write(b"data")
    assert pair.server.read(10) == b"data"


@pytest.mark.parametrize("wrong", [None, "text", 5, [b"data"], object()])
def test_input_that_is_none(files: Files, wrong: Any) -> None:
    """The call says so (a write reads nothing), and the connection goes on when there is some again."""
    pair = Pair(files, kind=Strange)
    pair.client.write(b"data")
    for call in (lambda: pair.server.read(1), pair.server.do_handshake, pair.server.unwrap):
        pair.to_server.read = lambda *_: wrong
        with pytest.raises(TypeError):
            call()
    del pair.to_server.read
    assert pair.server.read(10) == b"data"


@pytest.mark.parametrize("call", ["read", "do_handshake", "unwrap"])
def test_input_that_raises(files: Files, call: str) -> None:
    pair = Pair(files, kind=Strange)
    pair.client.write(b"data")
    pair.to_server.read = refuse
    with pytest.raises(Raised):
        getattr(pair.server, call)(*[1] * (call == "read"))
    del pair.to_server.read
    assert pair.server.read(10) == b"data"


class Untrue:
    def __bool__(self) -> bool:
        raise Raised


@pytest.mark.parametrize("answer", ["raises", "is no truth"])
def test_an_end_that_cannot_be_asked_for_loses_no_input(files: Files, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(files, kind=Strange)
    pair.client.write(b"data")
    with monkeypatch.context() as patched:
        patched.setattr(Strange, "eof", property(refuse if answer == "raises" else lambda self: Untrue()))
        with pytest.raises(Raised):
            pair.server.read(10)
    assert pair.server.read(10) == b"data"


def test_output_that_is_refused_goes_later_and_in_order(files: Files) -> None:
    pair = Pair(files, kind=Strange)
    pair.to_server.write = refuse
    for piece in (b"1", b"2", b"3"):
        with pytest.raises(Raised):
            pair.client.write(piece)
    assert pair.to_server.pending == 0
    del pair.to_server.write
    pair.client.write(b"4")
    assert pair.server.read(10) == b"1234"


@pytest.mark.parametrize("place", ["read", "write"])
def test_methods_that_use_the_connection_are_told_so(files: Files, place: str) -> None:
    """They are called in the middle of a call of it."""
    pair = Pair(files, kind=Strange)
    found: list[Any] = []
    target = pair.to_server if place == "read" else pair.to_client

    def method(*arguments: Any) -> Any:
        for call in (
            lambda: pair.server.read(1),
            lambda: pair.server.write(b"x"),
            pair.server.do_handshake,
            pair.server.unwrap,
            pair.server.pending,
            pair.server.version,
            lambda: setattr(pair.server, "context", files.server(ssl)),
            lambda: pair.server.session,
        ):
            try:
                call()
            except Exception as exc:
                found.append((type(exc), str(exc)))
        return getattr(Strange, place)(target, *arguments)

    pair.client.write(b"data")
    setattr(target, place, method)
    pair.server.write(b"answer")
    assert pair.server.read(10) == b"data"
    delattr(target, place)
    assert pair.client.read(10) == b"answer"
    assert set(found) == {(RuntimeError, "this connection is in use by the callback that uses it")}
    assert len(found) % 4 == 0


def test_what_lacks_a_method_is_refused(files: Files) -> None:
    class Half:
        read = write = pending = None

    whole = ssl.MemoryBIO()
    for incoming, outgoing, name in ((Half(), whole, "incoming"), (whole, Half(), "outgoing"), (None, None, "incoming")):
        with pytest.raises(TypeError, match=f"argument '{name}"):
            files.client(ssl).wrap_bio(incoming, outgoing, server_hostname=NAME)


@both
def test_a_memory_bio_cannot_be_derived_from(module: Any) -> None:
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Mine", (module.MemoryBIO,), {})
