"""How connections end that are not read, or that send without end: what a channel and a side of a relay have in common."""

import contextlib
import fcntl
import os
import socket
import struct
import termios

import pytest

from sslsock.core import channel as channel_module
from sslsock.core.engine import Engine
from sslsock.core.relay import RELAY_RESET, RELAY_TLS

from .far import Joined, end, join
from .pairs import (
    MIB,
    TLS_1_2,
    TLS_1_3,
    Recorder,
    channel_on,
    channel_pair,
    client_context_of,
    drive,
    server_context_of,
    socket_pair,
    tcp_pair,
    tls_channel_pair,
    turns,
)

MODES = [0, TLS_1_2, TLS_1_3]
BOUND = 1000


@pytest.fixture(params=MODES, ids=["plain", "tls1.2", "tls1.3"])
def mode(request):
    return request.param


def joined_channels(loop, mode, far, pair=tcp_pair):
    return tls_channel_pair(loop, mode, far=far, pair=pair) if mode else channel_pair(loop, far=far, pair=pair)


def reset(end):
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def reset_channel(channel):
    with socket.socket(fileno=os.dup(channel.fileno())) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    channel.abort()


# At the bound


@pytest.mark.parametrize("size", [BOUND, 30 * BOUND, 300 * BOUND])
def test_a_reset_is_told_at_the_bound(loop, mode, size):
    near, _, far, record = joined_channels(loop, mode, Recorder(greedy=False))
    far.read_bound = BOUND
    data = os.urandom(size)
    near.write(data)
    drive(loop, lambda: far.bytes_available >= BOUND, "the data")
    turns(loop)
    assert record.failure is None
    reset_channel(near)
    drive(loop, lambda: record.failure is not None, "the failure")
    assert record.failure == channel_module.FAILURE_RESET
    assert far.fileno() == -1 and not far.is_open
    with pytest.raises(RuntimeError, match="finished or closed"):
        far.write(b"more")
    assert far.read() == data[:BOUND]


def test_a_reset_is_told_that_came_before_the_bound_was_reached(loop, mode):
    """The edge that announces it is the one that announces the data."""
    near, _, far, record = joined_channels(loop, mode, Recorder(greedy=False))
    with socket.socket(fileno=os.dup(near.fileno())) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.read_bound = BOUND
    near.write(bytes(30 * BOUND))
    near.flush()
    near.abort()
    drive(loop, lambda: record.failure is not None, "the failure")
    assert far.bytes_available <= BOUND


def test_a_reset_is_told_when_the_bound_comes_after_it(loop):
    near, far = tcp_pair()
    bounds = iter([BOUND])
    record = Recorder(greedy=False, readable=lambda record: setattr(record.channel, "read_bound", next(bounds, BOUND)))
    channel, _ = channel_on(loop, near, record)
    far.send(bytes(500_000))
    reset(far)
    drive(loop, lambda: record.failure is not None, "the failure")
    assert channel.bytes_available > BOUND


def test_a_failed_send_is_told_at_the_bound(loop, mode):
    """The peer goes while the kernel takes no more for it."""
    near, near_record, far, record = joined_channels(loop, mode, Recorder(greedy=False))
    far.read_bound = BOUND
    near.read_bound = 1
    near_record.greedy = False
    near.write(bytes(30 * BOUND))
    drive(loop, lambda: far.bytes_available >= BOUND, "the data")
    far.write(bytes(20 * MIB))
    turns(loop)
    assert far.bytes_to_write
    reset_channel(near)
    drive(loop, lambda: record.failure is not None, "the failure")
    assert record.failure == channel_module.FAILURE_RESET and far.bytes_available == BOUND and far.bytes_to_write == 0


@pytest.mark.parametrize("pair", [socket_pair, tcp_pair])
def test_a_fin_directly_behind_what_is_unread_is_told_at_the_bound(loop, mode, pair):
    near, _, far, record = joined_channels(loop, mode, Recorder(greedy=False), pair)
    far.read_bound = BOUND
    near.write(bytes(BOUND))
    drive(loop, lambda: far.bytes_available == BOUND, "the data")
    turns(loop)
    with socket.socket(fileno=os.dup(near.fileno())) as raw:
        raw.shutdown(socket.SHUT_WR)
    drive(loop, lambda: record.count("peer_closed"), "the end")
    assert record.has("peer_closed", not mode) and far.bytes_available == BOUND
    near.abort()
    far.abort()


@pytest.mark.parametrize("pair", [socket_pair, tcp_pair])
def test_a_fin_behind_more_than_the_bound_comes_behind_it(loop, mode, pair):
    near, _, far, record = joined_channels(loop, mode, Recorder(greedy=False), pair)
    far.read_bound = BOUND
    data = os.urandom(30 * BOUND)
    near.write(data)
    near.finish()
    drive(loop, lambda: far.bytes_available == BOUND, "the data")
    turns(loop, 20)
    assert not record.count("peer_closed")
    received = bytearray()

    def read():
        received.extend(far.read())
        return record.count("peer_closed")

    drive(loop, read, "the end", patience=0)
    assert received == data and record.has("peer_closed", True)
    far.abort()


# In a relay, behind a peer that takes nothing


def blocked(joined, here, there):
    """Write until nothing goes through any more."""
    there.reading = False
    here.write(bytes(12 * MIB))
    name = "bytes_forward" if here is joined.front else "bytes_back"
    last = -1
    while getattr(joined.relay, name) != last:
        last = getattr(joined.relay, name)
        joined.turns(20)
    return last


@pytest.mark.parametrize("direction", ["forward", "back"])
@pytest.mark.parametrize("kinds", [("fd", "fd"), ("tls1.3", "tls1.2")], ids="-".join)
def test_a_reset_is_told_while_the_other_side_takes_nothing(loop, kinds, direction):
    joined = join(loop, kinds, tcp_pair)
    here, there = (joined.front, joined.back) if direction == "forward" else (joined.back, joined.front)
    blocked(joined, here, there)
    here.reset()
    side = "front" if direction == "forward" else "back"
    joined.drive(lambda: joined.relay.failed_side == side, "the failure")
    there.reading = True  # what the system holds of the one that is gone still goes to the other
    joined.drive(lambda: there.ended, "the end")
    assert not there.clean or there.engine is None
    there.sock.close()
    joined.until_closed()
    assert joined.observer.reason == RELAY_RESET


def test_nothing_is_lost_of_what_came_before_a_reset(loop):
    """The other side is slow, not dead: it gets all that the system has received."""
    joined = join(loop, ("fd", "fd"), tcp_pair)
    there, sender, data = joined.back, joined.front.sock.fileno(), bytearray()
    there.reading = False
    while joined.relay.bytes_forward == len(data):
        data += os.urandom(65536)
        joined.front.write(data[-65536:])
        # All of it has been acknowledged: what a reset destroys is what is still on its way.
        joined.drive(lambda: not joined.front.out and not unacknowledged(sender), "the acknowledgement")
        joined.turns(10)
    joined.front.reset()
    joined.drive(lambda: joined.relay.failed_side == "front", "the failure")
    there.reading = True
    joined.drive(lambda: there.ended, "the end")
    assert there.received == data
    there.sock.close()
    joined.until_closed()


def unacknowledged(fd):
    return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), "little")


# Input after the end


def small_tcp_pair():
    """The system holds little between the two."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        near = socket.socket()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        near.connect(listening.getsockname())
        far, _ = listening.accept()
    near.setblocking(False)
    far.setblocking(False)
    return far, near  # the second one sends


KERNEL = 512 * 1024  # more than the two sockets of such a pair hold


def flood(loop, sock, most):
    """Send until the connection is reset, `most` bytes at the most: how many have gone."""
    sent = 0

    def cut():
        nonlocal sent
        try:
            while sent < most:
                sent += sock.send(bytes(min(65536, most - sent)))
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    drive(loop, cut, "the reset", patience=0)
    return sent


@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
def test_after_a_failed_handshake_little_is_thrown_away(loop, server_side):
    near, far = small_tcp_pair()
    channel, record = channel_on(loop, near)
    channel.start_tls(Engine(server_context_of(0) if server_side else client_context_of(0)), 60.0)
    far.send(b"this is not TLS at all\r\n")
    drive(loop, lambda: record.failure is not None, "the failure")
    assert record.failure == channel_module.FAILURE_HANDSHAKE
    sent = flood(loop, far, 8 * MIB)
    assert sent < 65536 + KERNEL
    assert channel.fileno() == -1 and loop.idle
    far.close()


def test_after_a_failure_of_tls_little_is_thrown_away(loop, version):
    near, near_record, far, _ = tls_channel_pair(loop, version, pair=small_tcp_pair)
    with socket.socket(fileno=os.dup(far.fileno())) as raw:
        far.abort()
        raw.setblocking(False)
        raw.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        drive(loop, lambda: near_record.failure is not None, "the failure")
        assert near_record.failure == channel_module.FAILURE_TLS
        assert flood(loop, raw, 8 * MIB) < 65536 + KERNEL
    assert near.fileno() == -1


def test_after_an_end_before_tls_that_is_none_in_order_little_is_thrown_away(loop):
    """Such as a ClientHello that is refused before libssl has seen it."""
    near, far = small_tcp_pair()
    channel, record = channel_on(loop, near)
    channel.write(b"\x15\x03\x03\0\2\2\x32")
    channel.finish(failed=True)
    drive(loop, lambda: record.count("drained"), "the end")
    assert flood(loop, far, 8 * MIB) < 65536 + KERNEL
    assert channel.fileno() == -1 and loop.idle
    far.close()


def test_after_an_end_in_order_a_bounded_upload_is_thrown_away(loop):
    near, far = small_tcp_pair()
    channel, record = channel_on(loop, near)
    channel.write(b"413 Content Too Large")
    channel.finish()
    drive(loop, lambda: record.count("drained"), "the end")
    sent = flood(loop, far, 64 * MIB)
    assert 16 * MIB <= sent < 16 * MIB + KERNEL
    assert channel.fileno() == -1 and loop.idle
    far.close()


def test_an_upload_within_the_bound_does_not_cost_the_answer(loop):
    near, far = small_tcp_pair()
    channel, _ = channel_on(loop, near)
    channel.write(b"the answer")
    channel.finish()
    assert flood(loop, far, 8 * MIB) == 8 * MIB
    far.shutdown(socket.SHUT_WR)
    drive(loop, lambda: channel.fileno() == -1, "the end")
    assert far.recv(100) == b"the answer" and far.recv(100) == b""
    far.close()


def test_a_peer_that_takes_nothing_of_what_is_left_cannot_send_for_ever(loop):
    near, far = small_tcp_pair()
    channel, record = channel_on(loop, near)
    channel.write(bytes(8 * MIB))
    channel.finish()
    sent = flood(loop, far, 64 * MIB)
    assert 16 * MIB <= sent < 16 * MIB + KERNEL
    assert record.failure == channel_module.FAILURE_NETWORK and channel.fileno() == -1
    far.close()


def test_a_peer_that_takes_what_is_left_may_send_meanwhile(loop):
    """An exchange of bulk data both ways, of which one has enough: more goes by than may lie between two sends."""
    near, far = small_tcp_pair()
    channel, record = channel_on(loop, near)
    size = 24 * MIB
    channel.write(bytes(size))
    channel.finish()
    sent = received = 0

    def exchange():
        nonlocal sent, received
        with contextlib.suppress(BlockingIOError):
            sent += far.send(bytes(65536))
        with contextlib.suppress(BlockingIOError):
            received += len(far.recv(65536))
        return received == size

    drive(loop, exchange, "what was written", patience=0)
    assert record.failure is None and record.count("drained")
    far.close()


@pytest.mark.parametrize("side", ["front", "back"])
def test_a_side_of_a_relay_whose_tls_has_failed_is_not_listened_to(loop, side):
    """The other, whose fault it is not, may be in the middle of an upload."""
    kinds = ("tls1.3", "fd") if side == "front" else ("fd", "tls1.3")
    ends = [end(loop, kind, number == 0, small_tcp_pair) for number, kind in enumerate(kinds)]
    joined = Joined(loop, *ends)
    failing, other = (joined.front, joined.back) if side == "front" else (joined.back, joined.front)
    failing.out += b"\x17\x03\x03\x00\x20" + bytes(32)
    joined.drive(lambda: joined.relay.failed_side == side, "the failure")
    joined.drive(lambda: other.ended, "the end for the other")
    assert flood(loop, other.sock, 4 * MIB) == 4 * MIB
    assert flood(loop, failing.sock, 8 * MIB) < 65536 + KERNEL
    with contextlib.suppress(OSError):
        other.sock.close()
    drive(loop, lambda: joined.relay.closed, "the relay's end")
    assert joined.observer.reason == RELAY_TLS
