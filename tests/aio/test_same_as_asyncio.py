"""Each scenario on asyncio's loop with the interpreter's ssl, and on ours with ours: callbacks, extra info and exceptions are
the same, but for what is listed here with its reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Callable

import pytest
from far_end import Buffered, Certificates, Event, FarEnd, Plain, Recorder, World, described

import sslsock.ssl

Scenario = Callable[[World], Coroutine[Any, Any, None]]
SCENARIOS: dict[str, tuple[Scenario, bool, bool]] = {}


def scenario(plain: bool = True, tls: bool = True) -> Callable[[Scenario], Scenario]:
    def enter(function: Scenario) -> Scenario:
        SCENARIOS[function.__name__] = function, plain, tls
        return function

    return enter


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


# What is otherwise with us over TLS, made of asyncio's events, and why.


def without(*names: str) -> Callable[[list[Event]], list[Event]]:
    return lambda events: [event for event in events if event[0] not in names]


def says_which(callback: str) -> Callable[[list[Event]], list[Event]]:
    """asyncio says "Fatal error on SSL protocol", over a plain connection which callback has failed. We say that for both."""
    message = f"Fatal error: protocol.{callback}() call failed."
    return lambda events: [(event[0], message, *event[2:]) if event[0] == "exception handler" else event for event in events]


def says_the_cause(events: list[Event]) -> list[Event]:
    """OpenSSL 3.2 and newer put RECORD_LAYER_FAILURE behind the cause. `ssl` says what is last."""
    return [
        tuple(("SSLError", "BAD_RECORD_TYPE") if part == ("SSLError", "RECORD_LAYER_FAILURE") else part for part in event)
        for event in events
    ]


def closed_reads_nothing(events: list[Event]) -> list[Event]:
    """A transport that closes gives its protocol nothing more, so it is not reading. asyncio's plain one says so too."""
    return [("closing", True, False) if event == ("closing", True, True) else event for event in END_IS_NOT_AWAITED(events)]


# The end is told when the system has all that was written: the peer's close_notify is not awaited (RFC 8446, 6.1, does not
# ask for it), and nothing is told between close() and connection_lost().
END_IS_NOT_AWAITED = without("eof_received")
DIFFERENCES: dict[str, Callable[[list[Event]], list[Event]]] = {
    "echo": closed_reads_nothing,
    "write_after_close": END_IS_NOT_AWAITED,
    "close_with_much_queued": END_IS_NOT_AWAITED,
    "the_names_of_its_socket_behind_close": END_IS_NOT_AWAITED,
    "a_slow_reader": END_IS_NOT_AWAITED,
    "data_received_raises": says_which("data_received"),
    "eof_received_raises": says_which("eof_received"),
    "buffer_updated_raises": says_which("buffer_updated"),
    # asyncio pauses at a limit of 0 a protocol that has written nothing
    "limits_of_the_write_buffer": without("pause_writing", "resume_writing"),
}


# Where the TLS is ours as well.
OF_OUR_TLS = {"plain_bytes_in_an_encrypted_connection": says_the_cause}

# CPython 3.12.0 to 3.12.8, 3.13.0 and 3.13.1 lose what is written to a transport that closes, and with it what asyncio's TLS
# has still to write (https://github.com/python/cpython/issues/115514): the connection never ends. Ours is held against what the
# asyncio of all others says.
ASYNCIO_LOSES = (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2)
LOST: dict[str, list[Event]] = {
    "the_peers_end_with_much_queued": [
        ("connection_made",),
        ("pause_writing",),
        ("eof_received",),
        ("resume_writing",),
        ("connection_lost", None),
        ("far", True),
    ],
}

MODULES = {"plain": None, "tls": sslsock.ssl, "foreign": ssl}  # from which the contexts of our side are


def cases() -> list[Any]:
    """TLS from CPython 3.11 on only: the asyncio of before has another, which tells neither of ends nor of errors alike."""
    return [
        pytest.param(name, tls, server, id=f"{name}-{tls}-{'server' if server else 'client'}")
        for name, (_, with_plain, with_tls) in SCENARIOS.items()
        for tls in MODULES
        if tls == "plain" or sys.version_info >= (3, 11)
        for server in (False, True)
        if (with_plain if tls == "plain" else with_tls)
    ]


# Data, and its end


@scenario()
async def echo(w: World) -> None:
    near, far = await w.connect()
    info = near.transport.get_extra_info
    sock = info("socket")
    w.tell("addresses", info("peername") == far.sock.getsockname(), info("sockname") == sock.getsockname())
    w.tell("socket", type(sock).__name__, sock.fileno() >= 0)
    w.tell("nothing", info("no such thing"), info("no such thing", 5))
    if w.tls:
        w.tell("context", info("sslcontext") is w.near)
        w.tell("object", info("ssl_object").version(), info("ssl_object").server_side, info("ssl_object").server_hostname)
        w.tell("cipher", len(info("cipher")), info("compression"), sorted(info("peercert") or ()))
    else:
        w.tell("no TLS", info("sslcontext"), info("ssl_object"), info("cipher"))
    for kind in (bytes, bytearray, memoryview):
        near.transport.write(kind(b"request"))
        await far.receive_exactly(7)
        near.received = b""
        await far.send(b"answer")
        await w.until(lambda: near.received == b"answer")
    near.transport.writelines([b"a", bytearray(b"b"), memoryview(b"c")])
    w.tell("joined", await far.receive_exactly(3))
    near.transport.close()
    w.tell("closing", near.transport.is_closing(), near.transport.is_reading())
    near.transport.close()
    if w.tls:
        await far.receive_all()
        await far.say_end()
    await w.told("connection_lost")


@scenario(tls=False)
async def half_close(w: World) -> None:
    near, far = await w.connect()
    w.tell("can", near.transport.can_write_eof())
    near.transport.write(b"request")
    near.transport.write_eof()
    near.transport.write_eof()
    try:
        near.transport.write(b"more")
    except RuntimeError as exc:
        w.tell("refused", str(exc))
    w.tell("far", await far.receive_all())
    await far.send(b"answer")
    await w.until(lambda: near.received == b"answer")
    far.cut()
    await w.told("connection_lost")


@scenario(plain=False)
async def no_half_close_over_tls(w: World) -> None:
    near, _far = await w.connect()
    w.tell("can", near.transport.can_write_eof())
    try:
        near.transport.write_eof()
    except NotImplementedError:
        w.tell("refused")


@scenario()
async def the_peers_end(w: World) -> None:
    near, far = await w.connect()
    await far.send(b"last")
    await far.say_end()
    await w.told("connection_lost")
    w.tell("received", near.received)


@scenario(tls=False)
async def the_peers_end_and_the_protocol_goes_on(w: World) -> None:
    near, far = await w.connect(eof_received=lambda near: True)
    far.cut()
    await w.told("eof_received")
    near.transport.write(b"answer")
    w.tell("far", await far.receive_exactly(6), near.transport.is_closing())
    near.transport.close()
    await w.told("connection_lost")


@scenario()
async def the_peers_end_with_much_queued(w: World) -> None:
    near, far = await w.connect()
    data = os.urandom(8 << 20)
    near.transport.write(data[: 4 << 20])
    near.transport.write(data[4 << 20 :])
    await far.say_end()
    await w.told("eof_received")
    right = await far.receive_all() == data
    await w.told("connection_lost")
    w.tell("far", right)


@scenario()
async def the_peers_reset(w: World) -> None:
    _near, far = await w.connect()
    far.reset()
    await w.told("connection_lost")


@scenario(plain=False)
async def a_cut_without_close_notify(w: World) -> None:
    near, far = await w.connect()
    await far.send(b"last")
    far.cut()
    await w.told("connection_lost")
    w.tell("received", near.received)


@scenario(plain=False)
async def plain_bytes_in_an_encrypted_connection(w: World) -> None:
    _near, far = await w.connect()
    await w.loop.sock_sendall(far.sock, b"GET / HTTP/1.1\r\n\r\n")
    await w.told("connection_lost")


@scenario()
async def close_with_much_queued(w: World) -> None:
    near, far = await w.connect()
    data = os.urandom(8 << 20)
    near.transport.write(data[: 4 << 20])
    near.transport.write(data[4 << 20 :])
    near.transport.close()
    w.tell("closing")
    right = await far.receive_all() == data
    if w.tls:
        await far.say_end()
    await w.told("connection_lost")
    w.tell("far", right)


@scenario()
async def abort_with_much_queued(w: World) -> None:
    near, _far = await w.connect()
    near.transport.write(bytes(4 << 20))
    near.transport.write(bytes(4 << 20))  # asyncio's TLS pauses at the second only
    near.transport.abort()
    w.tell("aborted")
    await w.told("connection_lost")


@scenario()
async def abort_behind_a_write(w: World) -> None:
    near, far = await w.connect()
    await far.send(b"x")  # behind it nothing lies unread that a reset would answer
    await w.until(lambda: near.received == b"x")
    near.transport.write(b"last words")
    near.transport.abort()
    await w.told("connection_lost")
    w.tell("far", await far.receive_exactly(len(b"last words")))


@scenario()
async def an_exception_behind_a_write(w: World) -> None:
    def answer(near: Recorder) -> None:
        near.transport.write(b"last words")
        raise ConnectionAbortedError("in a callback")

    _near, far = await w.connect(data_received=answer)
    await far.send(b"x")
    await w.told("connection_lost")
    w.tell("far", await far.receive_exactly(len(b"last words")))


@scenario()
async def write_after_close(w: World) -> None:
    near, far = await w.connect()
    near.transport.close()
    near.transport.write(b"too late")
    if w.tls:
        w.tell("far", await far.receive_all())
        await far.say_end()
    await w.told("connection_lost")
    near.transport.write(b"too late")
    near.transport.close()
    near.transport.abort()


@scenario()
async def not_bytes(w: World) -> None:
    near, _far = await w.connect()
    for wrong in ("text", 5, None, [1]):
        try:
            near.transport.write(wrong)
        except TypeError as exc:  # the words for what it is to be are other ones in newer CPythons
            w.tell("refused", str(exc).replace("bytes, bytearray, or memoryview object", "bytes-like object"))


@scenario(tls=False)
async def a_buffer_that_changes_after_write(w: World) -> None:
    near, far = await w.connect()
    data = bytearray(b"before")
    near.transport.write(data)
    data[:] = b"behind"
    w.tell("far", await far.receive_exactly(6))


# Who awaits the connection


@scenario(tls=False)
async def who_has_made_the_connection_goes_on_before_data_comes(w: World) -> None:
    one, other = socket.socketpair()
    w.closes.append(other.close)
    other.sendall(b"greeting")
    transport, near = await w.loop.create_connection(lambda: Plain(w), sock=one)
    w.tell("connected", near.received)
    await w.until(lambda: near.received == b"greeting")
    transport.close()
    await w.told("connection_lost")


@scenario(tls=False)
async def who_has_made_the_connection_goes_on_before_its_end(w: World) -> None:
    one, other = socket.socketpair()
    other.close()
    transport, _near = await w.loop.create_connection(lambda: Plain(w), sock=one)
    w.tell("connected", transport.is_closing(), transport.get_extra_info("socket").fileno() >= 0)
    await w.told("connection_lost")


@scenario()
async def the_names_of_its_socket_behind_close(w: World) -> None:
    """aiohttp asks who it was whose certificate has another fingerprint than the one expected."""
    near, far = await w.connect()
    before, names = near.transport.get_extra_info("socket"), (far.sock.getpeername(), far.sock.getsockname())
    near.transport.close()
    for sock in (before, near.transport.get_extra_info("socket")):
        w.tell("names", (sock.getsockname(), sock.getpeername()) == names)
    if w.tls:
        await far.receive_all()
        await far.say_end()
    await w.told("connection_lost")


@scenario(tls=False)
async def who_has_made_the_connection_pauses_it_at_once(w: World) -> None:
    one, other = socket.socketpair()
    w.closes.append(other.close)
    other.sendall(b"greeting")
    other.shutdown(socket.SHUT_WR)
    transport, near = await w.loop.create_connection(lambda: Plain(w), sock=one)
    transport.pause_reading()
    near.paused = True
    await w.quiet()
    near.paused = False
    w.tell("resumed")
    transport.resume_reading()
    await w.told("connection_lost")
    w.tell("received", near.received)


# Flow control


@scenario()
async def nothing_comes_after_pause_reading(w: World) -> None:
    def pause(near: Recorder) -> None:
        if not near.paused:
            near.paused = True
            near.transport.pause_reading()
            w.tell("paused", near.transport.is_reading())

    near, far = await w.connect(data_received=pause)
    data = os.urandom(100_000)
    await far.send(data[:10_000])
    await w.told("paused")

    async def go_on() -> None:  # beside the rest: how much the system holds for somebody who does not read is its affair
        for start in range(10_000, len(data), 10_000):
            await far.send(data[start : start + 10_000])

    rest = w.loop.create_task(go_on())
    await w.quiet()
    near.transport.pause_reading()
    near.then = {}
    near.paused = False
    before = len(near.received)
    near.transport.resume_reading()
    w.tell("resumed", near.transport.is_reading(), len(near.received) == before)
    near.transport.resume_reading()
    await w.until(lambda: near.received == data)
    await rest


@scenario()
async def the_peers_end_while_reading_is_paused(w: World) -> None:
    near, far = await w.connect()
    near.transport.pause_reading()
    near.paused = True
    await far.send(b"last")
    await far.say_end()
    await w.quiet()
    near.paused = False
    w.tell("resumed")
    near.transport.resume_reading()
    await w.told("connection_lost")
    w.tell("received", near.received)


@scenario()
async def a_slow_reader(w: World) -> None:
    room = asyncio.Event()
    room.set()
    near, far = await w.connect(pause_writing=lambda near: room.clear(), resume_writing=lambda near: room.set())
    data, piece, most = os.urandom(20 << 20), 64 << 10, 0
    _, high = near.transport.get_write_buffer_limits()

    async def write() -> None:
        nonlocal most
        for start in range(0, len(data), piece):
            await room.wait()
            near.transport.write(data[start : start + piece])
            most = max(most, near.transport.get_write_buffer_size())
        near.transport.close()

    writing = w.loop.create_task(write())
    await w.told("pause_writing")
    right = await far.receive_all() == data
    await writing
    if w.tls:
        await far.say_end()
    await w.told("connection_lost")
    names = [event[0] for event in w.events if event[0] in ("pause_writing", "resume_writing")]
    in_turn = all(name == ("pause_writing", "resume_writing")[at % 2] for at, name in enumerate(names))
    w.events[:] = [event for event in w.events if event[0] not in ("pause_writing", "resume_writing")]
    w.tell("written", right, most <= high + piece, in_turn)


@scenario()
async def limits_of_the_write_buffer(w: World) -> None:
    near, _far = await w.connect()
    for limits in ({"high": 1000}, {"low": 500}, {"high": 1000, "low": 10}, {"high": 0}):
        near.transport.set_write_buffer_limits(**limits)
        w.tell("limits", near.transport.get_write_buffer_limits())
    try:
        near.transport.set_write_buffer_limits(high=1, low=2)
    except ValueError as exc:
        w.tell("refused", str(exc))


@scenario(plain=False)
async def limits_that_are_moved_resume_and_pause(w: World) -> None:
    near, _far = await w.connect()
    near.transport.write(bytes(16 << 20))
    near.transport.write(bytes(16 << 20))  # asyncio's TLS pauses at the second only
    await w.told("pause_writing")
    size = near.transport.get_write_buffer_size()
    near.transport.set_write_buffer_limits(size + 2048, size + 1)
    w.tell("raised")
    near.transport.set_write_buffer_limits(size - 2048, 0)
    w.tell("lowered")


# BufferedProtocol


@scenario()
async def a_buffered_protocol(w: World) -> None:
    near, far = await w.connect(Buffered)
    data = os.urandom(300_000)
    sending = w.loop.create_task(far.send(data))
    await w.until(lambda: near.received == data)
    await sending
    await far.say_end()
    await w.told("connection_lost")


@scenario(tls=False)
async def a_buffered_protocol_with_a_bytearray(w: World) -> None:
    def lend(near: Any) -> bytearray:
        near.memory = bytearray(1000)
        return near.memory  # type: ignore[no-any-return]

    near, far = await w.connect(Buffered, get_buffer=lend)
    await far.send(bytes(10_000))
    await w.until(lambda: len(near.received) == 10_000)


@scenario(tls=False)
async def an_empty_buffer(w: World) -> None:
    _near, far = await w.connect(Buffered, get_buffer=lambda near: bytearray())
    await far.send(b"x")
    await w.told("connection_lost")


@scenario()
async def set_protocol(w: World) -> None:
    near, far = await w.connect()
    other = Buffered(w)
    near.transport.set_protocol(other)
    w.tell("protocol", near.transport.get_protocol() is other)
    await far.send(b"for the other")
    await w.until(lambda: other.received == b"for the other")


# Exceptions of protocols


def fails(near: Recorder) -> None:
    raise ZeroDivisionError("in a callback")


@scenario()
async def data_received_raises(w: World) -> None:
    _near, far = await w.connect(data_received=fails)
    await far.send(b"x")
    await w.told("connection_lost")


@scenario(tls=False)
async def connection_made_raises(w: World) -> None:
    near, far = await w.connect(connection_made=fails)
    await far.send(b"request")
    await w.until(lambda: near.received == b"request")
    near.transport.write(b"answer")
    w.tell("far", await far.receive_exactly(6))
    near.transport.close()
    await w.told("connection_lost")
    w.events[:] = [event[:1] if event[0] == "exception handler" else event for event in w.events]


@scenario()
async def buffer_updated_raises(w: World) -> None:
    _near, far = await w.connect(Buffered, buffer_updated=fails)
    await far.send(b"x")
    await w.told("connection_lost")


@scenario(tls=False)
async def get_buffer_raises(w: World) -> None:
    _near, far = await w.connect(Buffered, get_buffer=fails)
    await far.send(b"x")
    await w.told("connection_lost")


@scenario()
async def eof_received_raises(w: World) -> None:
    _near, far = await w.connect(eof_received=fails)
    await far.say_end()
    await w.told("connection_lost")


@scenario()
async def connection_lost_raises(w: World) -> None:
    near, _far = await w.connect(connection_lost=fails)
    near.transport.abort()
    await w.told("exception handler")
    w.events[:] = [event[:1] if event[0] == "exception handler" else event for event in w.events]


@scenario()
async def pause_writing_raises(w: World) -> None:
    near, far = await w.connect(pause_writing=fails, resume_writing=fails)
    near.transport.write(bytes(4 << 20))
    near.transport.write(bytes(4 << 20))  # asyncio's TLS pauses at the second only
    await w.told("pause_writing")
    reading = w.loop.create_task(far.receive_exactly(8 << 20))
    await w.told("resume_writing")
    await reading
    w.tell("closing", near.transport.is_closing())


# The handshake


async def refused(w: World, handshake: Callable[[FarEnd], Any], near: Any, **more: Any) -> None:
    """A handshake that fails: what the call says, or the server's protocol hears."""
    beginning, far = await w.raw(lambda: Plain(w), ssl=near, **more)
    with contextlib.suppress(ssl.SSLError, OSError):
        await handshake(far)
    if w.server:
        with contextlib.suppress(OSError):
            while await w.loop.sock_recv(far.sock, 1 << 16):
                pass
        return
    try:
        await beginning
    except OSError as exc:
        w.tell("failed", described(exc))


@scenario(plain=False)
async def an_unknown_authority(w: World) -> None:
    far = w.far if not w.server else w.certificates.context(ssl, False, trusted=False)
    near = w.near if w.server else w.certificates.context(w.ssl, False, trusted=False)
    await refused(w, lambda end: end.start_tls(far, not w.server), near)


@scenario(plain=False)
async def a_wrong_name(w: World) -> None:
    more = {} if w.server else {"server_hostname": "other.example"}
    await refused(w, lambda end: end.start_tls(w.far, not w.server, "other.example"), w.near, **more)


@scenario(plain=False)
async def a_peer_that_speaks_no_tls(w: World) -> None:
    await refused(w, lambda end: w.loop.sock_sendall(end.sock, b"GET / HTTP/1.1\r\n\r\n"), w.near)


@scenario(plain=False)
async def a_silent_peer(w: World) -> None:
    await refused(w, lambda end: asyncio.sleep(0), w.near, ssl_handshake_timeout=0.05)


@scenario(plain=False)
async def an_end_in_the_handshake(w: World) -> None:
    async def cut(end: FarEnd) -> None:
        if w.server:
            end.cut()  # only: it is to hear when the server has closed as well
        else:
            await w.loop.sock_recv(end.sock, 1)
            end.close()

    await refused(w, cut, w.near)


# start_tls


@scenario(plain=False)
async def start_tls(w: World) -> None:
    near, far = await w.connect(tls=False)
    near.transport.write(b"starttls")
    await far.receive_exactly(8)
    name = None if w.server else "localhost"
    begun = w.loop.create_task(w.loop.start_tls(near.transport, near, w.near, server_side=w.server, server_hostname=name))
    await asyncio.sleep(0)  # what comes before it has begun is the protocol's
    await far.start_tls(w.far, not w.server)
    transport = await begun
    w.tell("begun", transport.get_extra_info("sslcontext") is w.near, transport.get_extra_info("ssl_object").version())
    transport.write(b"secret")
    await far.receive_exactly(6)
    await far.send(b"answer")
    await w.until(lambda: near.received == b"answer")
    await far.say_end()
    await w.told("connection_lost")


@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize("name, tls, server", cases())
def test_the_same_as_asyncio(
    name: str, tls: str, server: bool, family: str, certificates: Certificates, tmp_path: Path
) -> None:
    folder = tmp_path if family == "unix" else None
    if ASYNCIO_LOSES and tls != "plain" and name in LOST:
        theirs = LOST[name]
    else:
        theirs = World(certificates, False, tls != "plain", server, folder).run(SCENARIOS[name][0])
    ours = World(certificates, True, tls != "plain", server, folder, MODULES[tls]).run(SCENARIOS[name][0])
    if tls != "plain" and name in DIFFERENCES:
        theirs = DIFFERENCES[name](theirs)
    if tls == "tls" and name in OF_OUR_TLS:
        theirs = OF_OUR_TLS[name](theirs)
    assert ours == theirs
