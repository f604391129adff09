"""Channels over socket pairs: what consumers are told, what they may do, and that every byte arrives once."""

import contextlib
import gc
import os
import random
import select
import socket
import struct
import weakref

import pytest

from sslsock.core import channel as channel_module
from sslsock.core.channel import Channel
from sslsock.core.context import VERIFY_QUERY
from sslsock.core.engine import Engine
from sslsock.core.loop import Loop

from .pairs import (
    DEADLINE,
    MIB,
    RECORD,
    SANITIZED,
    TLS_1_2,
    TLS_1_3,
    VERSIONS,
    Recorder,
    channel_on,
    channel_pair,
    client_context,
    client_context_of,
    descriptors,
    drive,
    exchange,
    resident,
    server_context,
    server_context_of,
    socket_pair,
    start_tls_pair,
    tcp_pair,
    tls_channel_pair,
    turns,
)

MODES = [0, TLS_1_2, TLS_1_3]


@pytest.fixture(params=MODES, ids=["plain", "tls1.2", "tls1.3"])
def mode(request):
    return request.param


def joined(loop, mode, near=None, far=None, pair=socket_pair):
    """Two channels, in the clear (0) or with this version of TLS."""
    if mode:
        return tls_channel_pair(loop, mode, near, far, pair)
    return channel_pair(loop, near, far, pair)


def closed(*channels):
    return all(channel.fileno() == -1 for channel in channels)


# data


def test_both_directions_work(loop, mode):
    exchange(loop, *joined(loop, mode))


@pytest.mark.parametrize("size", [0, 1, RECORD - 1, RECORD, RECORD + 1, 255 * 1024, 256 * 1024, MIB + 1, 5 * MIB])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_size_arrives(loop, mode, size, kind):
    near, _, _, far_record = joined(loop, mode)
    data = os.urandom(size)
    assert near.write(kind(data)) == size
    drive(loop, lambda: len(far_record.received) >= size)
    assert far_record.received == data
    assert near.bytes_to_write == 0


def test_a_changed_buffer_does_not_change_what_was_written(loop, mode):
    near, _, _, far_record = joined(loop, mode)
    data = bytearray(b"before")
    near.write(data)
    data[:] = b"after!"
    drive(loop, lambda: len(far_record.received) == 6)
    assert far_record.received == b"before"


def test_many_small_writes_arrive_in_order(loop, mode):
    near, _, _, far_record = joined(loop, mode)
    choice, expected = random.Random(3), bytearray()
    for number in range(5000):
        piece = number.to_bytes(2, "big") * choice.choice([1, 1, 1, 5, 300, 9000])
        expected += piece
        near.write(piece)
    drive(loop, lambda: len(far_record.received) >= len(expected))
    assert far_record.received == expected


def test_what_is_no_buffer_is_a_type_error(loop, mode):
    near, *_ = joined(loop, mode)
    for thing in ("text", 7, None, [1]):
        with pytest.raises(TypeError):
            near.write(thing)
    assert near.bytes_to_write == 0


def test_writes_before_attach_are_queued(loop):
    ends = socket_pair()
    recorder = Recorder()
    recorder.channel = near = Channel(loop, recorder)
    near.write(b"early ")
    near.write(b"bird")
    assert near.bytes_to_write == 10 and not near.is_open and near.fileno() == -1
    _, far_record = channel_on(loop, ends[1])
    turns(loop, 2)
    near.attach(ends[0].detach())
    assert near.is_open
    drive(loop, lambda: far_record.received == b"early bird")


def test_data_that_is_there_before_attach_is_delivered(loop):
    ends = socket_pair()
    ends[0].send(b"waiting")
    _, recorder = channel_on(loop, ends[1])
    drive(loop, lambda: recorder.received == b"waiting")
    ends[0].close()


def test_a_descriptor_that_cannot_be_watched_stays_the_callers(loop, tmp_path):
    channel = Channel(loop, Recorder())
    with open(tmp_path / "file", "w") as file:
        with pytest.raises(PermissionError):
            channel.attach(file.fileno())
        file.write("still open")
    with pytest.raises(OSError):
        channel.attach(-1)
    ends = socket_pair()
    channel.attach(ends[0].detach())
    with pytest.raises(RuntimeError, match="already"):
        channel.attach(ends[1].fileno())
    ends[1].close()


# reading


def test_the_ways_to_read_agree(loop, mode):
    _, _, far, _ = pair = joined(loop, mode, far=Recorder(greedy=False))
    pair[0].write(b"one\ntwo\nthree")
    drive(loop, lambda: far.bytes_available == 13)
    assert far.can_read_line and far.peek() == b"one\ntwo\nthree" and far.peek(2) == b"on"
    assert far.read_line() == b"one\n" and far.read_line(2) == b"tw" and far.read_line() == b"o\n"
    assert not far.can_read_line and far.read(0) == b"" and far.read(2) == b"th"
    buffer = bytearray(2)
    assert far.read_into(buffer) == 2 and buffer == b"re"
    assert far.read_line() == b"e" and far.read() == b"" and far.read_into(buffer) == 0
    pair[0].write(b"gone")
    drive(loop, lambda: far.bytes_available)
    far.discard()
    assert far.bytes_available == 0 and far.peek() == b""


def test_a_consumer_may_read_a_part_and_the_rest_later(loop, mode):
    got = bytearray()

    def some(recorder):
        got.extend(recorder.channel.read(3))

    near, _, far, _ = joined(loop, mode, far=Recorder(greedy=False, readable=some))
    data = os.urandom(100_000)
    near.write(data)
    drive(loop, lambda: len(got) + far.bytes_available == len(data))
    while far.bytes_available:
        got.extend(far.read(977))
    assert got == data


def test_what_was_read_stays_as_it_was(loop, mode):
    # Much at once comes in a bytes object that a consumer which takes all gets as it is.
    got, total = [], 0

    def some(recorder):
        nonlocal total
        channel, number = recorder.channel, len(got)
        ahead = channel.peek()
        piece = channel.read(-1 if number % 3 == 0 else len(ahead) - 1 if number % 3 == 1 else len(ahead) // 2)
        assert ahead.startswith(piece) and piece is not ahead
        if number % 5 == 4:
            channel.halted = True  # what is left waits, and more comes behind it
            loop.call_soon(setattr, channel, "halted", False)
        got.append((piece, bytearray(piece)))
        total += len(piece)

    near, _, far, _ = joined(loop, mode, far=Recorder(greedy=False, readable=some))
    data = os.urandom(6 * MIB)
    near.write(data)
    drive(loop, lambda: total + far.bytes_available == len(data))
    assert all(piece == before for piece, before in got)
    assert b"".join(piece for piece, _ in got) + far.read() == data


@pytest.mark.parametrize("bound", [1, 100, RECORD, 100_000])
def test_the_read_bound_is_kept_and_reading_goes_on(loop, mode, bound):
    most, got = [0], bytearray()

    def look(recorder):
        most[0] = max(most[0], recorder.channel.bytes_available)

    near, _, far, _ = joined(loop, mode, far=Recorder(greedy=False, readable=look))
    far.read_bound = bound
    assert far.read_bound == bound
    data = os.urandom(min(3 * MIB, bound * 300))
    near.write(data)
    while len(got) < len(data):
        drive(loop, lambda: far.bytes_available, "data below the bound")
        turns(loop, 3)
        assert far.bytes_available <= bound
        got += far.read(max(1, bound // 2))
    assert got == data and most[0] <= bound


def test_a_lowered_and_lifted_bound_loses_nothing(loop, mode):
    near, _, far, _ = joined(loop, mode, far=Recorder(greedy=False))
    data = os.urandom(2 * MIB)
    near.write(data)
    drive(loop, lambda: far.bytes_available)
    far.read_bound = 10
    turns(loop)
    far.read_bound = 0
    drive(loop, lambda: far.bytes_available == len(data))
    assert far.read() == data
    with pytest.raises(OverflowError):
        far.read_bound = -1


def test_a_halted_channel_delivers_nothing_until_it_is_told_to_go_on(loop, mode):
    near, _, far, far_record = joined(loop, mode)
    far.halted = True
    assert far.halted
    data = os.urandom(3 * MIB)
    near.write(data)
    turns(loop)
    assert far_record.received == b"" and far.bytes_available == 0
    far.halted = False
    assert far_record.received == b"", "it is told in a turn, not inside the assignment"
    drive(loop, lambda: len(far_record.received) == len(data))
    assert far_record.received == data


def test_a_channel_that_is_halted_in_a_handler_is_called_no_more(loop, mode):
    """What has been received with the data that it was called for stays where it is."""

    def halt(recorder):
        recorder.channel.halted = True

    near, _, far, far_record = joined(loop, mode, far=Recorder(readable=halt))
    data = os.urandom(2 * MIB)
    near.write(data)
    drive(loop, lambda: far_record.received)
    while len(far_record.received) < len(data):
        before = far_record.count("readable")
        turns(loop, 4)
        assert far_record.count("readable") == before, "it was halted"
        far.halted = False
        drive(loop, lambda before=before: far_record.count("readable") > before)
    assert far_record.received == data


def test_a_halted_channel_shakes_hands_and_tells_of_an_error(loop, version):
    near, _, far, far_record = channel_pair(loop, pair=tcp_pair)
    far.halted = True
    start_tls_pair(loop, near, far, version)
    assert far_record.has("encrypted")
    near.write(b"data")
    turns(loop)
    assert not far_record.received
    near.refuse()  # a reset
    drive(loop, lambda: far_record.failure is not None)
    assert far_record.failure == channel_module.FAILURE_RESET


def test_what_libssl_refuses_to_encrypt_is_told(loop, version):
    near, near_record, _, _ = tls_channel_pair(loop, version)
    near.engine.close()  # behind the channel's back: nothing can be encrypted after close_notify
    near.write(b"data")
    drive(loop, lambda: near_record.failure is not None)
    assert near_record.failure == channel_module.FAILURE_TLS and "shutdown" in near_record.message
    assert near_record.count("failed") == 1


def test_one_direction_can_end_before_the_other(loop, mode):
    near, near_record, far, far_record = joined(loop, mode)
    data = os.urandom(2 * MIB)
    near.write(data)
    near.end_output()
    near.end_output()
    with pytest.raises(RuntimeError, match="nothing can be written"):
        near.write(b"more")
    drive(loop, lambda: near_record.has("output_ended") and far_record.has("peer_closed", True))
    assert far_record.received == data and near.is_open
    assert near_record.count("output_ended") == 1
    for _ in range(3):
        before = len(near_record.received)
        far.write(data)
        drive(loop, lambda before=before: len(near_record.received) == before + len(data))
    far.finish()
    drive(loop, lambda: near_record.has("peer_closed", True))
    assert near_record.received == data * 3
    near.finish()
    drive(loop, lambda: closed(near, far))
    assert near_record.count("drained") == far_record.count("drained") == 1


@pytest.mark.parametrize("end", ["finish", "abort"])
def test_a_channel_whose_output_is_ending_can_be_ended_whole(loop, mode, end):
    """While the peer takes nothing, so that the end of the output still waits."""
    near, near_record, far, far_record = joined(loop, mode)
    far.halted = True
    data = bytes(8 * MIB)
    near.write(data)
    turns(loop)
    near.end_output()
    turns(loop)
    assert not near_record.has("output_ended")
    getattr(near, end)()
    far.halted = False
    if end == "finish":
        drive(loop, lambda: far_record.has("peer_closed", True))
        assert len(far_record.received) == len(data)
        assert not near_record.has("output_ended") and near_record.count("drained") == 1
    else:
        drive(loop, lambda: far_record.failure is not None or far_record.has("peer_closed", not mode))
        assert near_record.events == [] or near_record.events == [("encrypted",)]
    far.finish()
    drive(loop, lambda: closed(near, far))


def test_output_that_ends_in_the_handshake_leaves_after_it(loop, version):
    near, near_record, far, far_record = channel_pair(loop)
    start_tls_pair(loop, near, far, version, wait=False)
    near.write(b"all of it")
    near.end_output()
    drive(loop, lambda: far_record.has("peer_closed", True))
    assert far_record.received == b"all of it" and near_record.has("output_ended")
    far.write(b"answer")
    drive(loop, lambda: near_record.received == b"answer")


def test_a_channel_whose_output_has_ended_joins_no_relay(loop):
    near, near_record, _, _ = channel_pair(loop)
    assert near.can_join
    near.end_output()
    assert not near.can_join
    drive(loop, lambda: near_record.has("output_ended"))
    assert not near.can_join


def test_the_end_comes_after_what_the_bound_held_back(loop, mode):
    near, _, far, far_record = joined(loop, mode, far=Recorder(greedy=False))
    far.read_bound = 1000
    data = os.urandom(50_000)
    near.write(data)
    near.finish()
    got = bytearray()
    while len(got) < len(data):
        assert not far_record.count("peer_closed")
        drive(loop, lambda: far.bytes_available)
        got += far.read()
    drive(loop, lambda: far_record.count("peer_closed"))
    assert got == data and far_record.has("peer_closed", True)


# writing


def test_written_counts_sum_up_exactly(loop, mode):
    near, near_record, _, far_record = joined(loop, mode)
    near.notify_written = True
    choice, total = random.Random(5), 0
    for _ in range(60):
        size = choice.choice([1, 50, RECORD, 70_000, 300_000])
        near.write(bytes(size))
        total += size
        if choice.random() < 0.3:
            near.flush()
        if choice.random() < 0.5:
            loop.dispatch(0)
        assert near.bytes_to_write + near_record.written <= total
    drive(loop, lambda: len(far_record.received) == total)
    drive(loop, lambda: near_record.written == total)
    turns(loop)
    assert near_record.written == total and near.bytes_to_write == 0


def test_a_flush_outside_a_turn_is_told(loop, mode):
    near, near_record, _, _ = joined(loop, mode)
    turns(loop)
    near.notify_written = True
    near.write(b"x" * 10)
    near.flush()
    assert near.bytes_to_write == 0
    drive(loop, lambda: near_record.written == 10)


def test_nobody_is_told_who_did_not_ask(loop, mode):
    near, near_record, _, far_record = joined(loop, mode)
    near.write(bytes(MIB))
    drive(loop, lambda: len(far_record.received) == MIB)
    assert not near_record.count("written")


def test_an_idle_channel_costs_no_turn(loop, mode):
    """Room in the send buffer is announced only to those whom the kernel has refused something."""
    near, _, _, far_record = joined(loop, mode)
    near.write(b"word")
    drive(loop, lambda: far_record.received == b"word")
    assert loop.dispatch() == 0  # the kernel has new room now
    near.write(bytes(16 * MIB))  # more than it has
    drive(loop, lambda: len(far_record.received) == 4 + 16 * MIB)
    assert near.bytes_to_write == 0


def test_a_peer_that_reads_byte_by_byte_gets_everything(loop, mode):
    """The kernel's buffer is as small as it can be, so that most sends are taken in part."""
    ends = socket_pair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    near, near_record = channel_on(loop, ends[0])
    near.notify_written = True
    peer = ends[1]
    data = os.urandom(120_000)
    got = bytearray()
    engine = None
    if mode:
        near.start_tls(Engine(client_context_of(mode)), DEADLINE)
        engine = Engine(server_context_of(mode))
    to_peer = []

    def step():
        loop.dispatch(0)
        for _ in range(50):
            try:
                piece = peer.recv(1)
            except BlockingIOError:
                break
            got.extend(engine.decrypt(piece) if engine else piece)
            if engine and engine.to_send:
                to_peer.append(engine.take())
        if to_peer:
            with contextlib.suppress(BlockingIOError):
                to_peer[0] = to_peer[0][peer.send(to_peer[0][:1]) :]
                if not to_peer[0]:
                    to_peer.pop(0)
        return len(got) >= len(data)

    near.write(data[:7])
    near.write(data[7:])
    drive(loop, step, patience=0)
    assert got == data
    drive(loop, lambda: near_record.written == len(data))
    peer.close()
    turns(loop)
    near.abort()


@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_a_stream_that_comes_in_pieces_is_put_together(loop, mode, steps):
    ends = socket_pair()
    far, far_record = channel_on(loop, ends[1])
    peer = ends[0]
    data = os.urandom(2000 if steps < 10 else 60_000)

    def send(wire):
        for start in range(0, len(wire), steps):
            peer.sendall(wire[start : start + steps])
            loop.dispatch(0)

    if mode:
        far.start_tls(Engine(server_context_of(mode)), DEADLINE)
        engine = Engine(client_context_of(mode))
        send(engine.start())
        while not (engine.handshake_done and far.encrypted):
            turns(loop, 2)
            with contextlib.suppress(BlockingIOError):
                engine.decrypt(peer.recv(65536))
            send(engine.take())
        send(engine.encrypt(data) + engine.close())
    else:
        send(data)
        peer.shutdown(socket.SHUT_WR)
    drive(loop, lambda: far_record.count("peer_closed"))
    assert far_record.received == data and far_record.has("peer_closed", True)
    peer.close()
    far.abort()


@pytest.mark.parametrize("finishing", [False, True])
def test_urgent_data_hides_nothing_behind_it(loop, finishing):
    """A read stops short at its mark (tcp(7)), although more lies there, which no edge will announce."""
    near, peer = tcp_pair()
    channel, recorder = channel_on(loop, near)
    turns(loop)
    peer.send(b"before")
    peer.send(b"!", socket.MSG_OOB)
    peer.send(b"after")
    if finishing:
        channel.finish()
        drive(loop, lambda: recorder.count("drained"))
        assert peer.recv(10) == b"", "the end has not come"
        turns(loop)
        peer.send(b"and more")  # whoever closes over unread bytes answers with a reset
        turns(loop)
        peer.shutdown(socket.SHUT_WR)
        drive(loop, lambda: closed(channel))
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    else:
        drive(loop, lambda: recorder.received == b"beforeafter", "what follows urgent data")
        peer.send(b"!", socket.MSG_OOB)
        turns(loop)
        peer.send(b"again")
        drive(loop, lambda: recorder.received == b"beforeafteragain", "what follows urgent data")
        channel.abort()
    peer.close()


def test_urgent_data_in_the_middle_of_tls(loop, version):
    near, peer = tcp_pair()
    channel, recorder = channel_on(loop, near)
    channel.start_tls(Engine(server_context_of(version)), DEADLINE)
    engine = Engine(client_context_of(version), verify_name="localhost")
    peer.send(engine.start())

    def shaken():
        with contextlib.suppress(BlockingIOError):
            engine.decrypt(peer.recv(65536))
            peer.send(engine.take())
        return engine.handshake_done and channel.encrypted

    drive(loop, shaken, "the handshake", 0)
    turns(loop)
    record = engine.encrypt(b"one record")
    peer.send(record[:7])
    peer.send(b"!", socket.MSG_OOB)
    peer.send(record[7:])
    drive(loop, lambda: recorder.received == b"one record", "the rest of the record")
    peer.close()


def test_held_writes_wait_for_tls(loop, version):
    ends = socket_pair()
    near, _ = channel_on(loop, ends[0])
    near.hold_writes = True
    near.write(b"secret")
    turns(loop)
    near.flush()
    with pytest.raises(BlockingIOError):
        ends[1].recv(10)
    assert near.bytes_to_write == 6
    far, far_record = channel_on(loop, ends[1])
    start_tls_pair(loop, near, far, version)
    drive(loop, lambda: far_record.received == b"secret")
    assert not near.hold_writes


def test_what_was_queued_before_writes_are_held_is_held_too(loop, version):
    """`hold_writes` is about all that has not left: who wants it in the clear flushes first, as STARTTLS does."""
    ends = socket_pair()
    near, _ = channel_on(loop, ends[0])
    near.write(b"in the clear ")
    near.flush()
    near.write(b"queued ")
    near.hold_writes = True
    near.write(b"secret")
    turns(loop)
    assert ends[1].recv(100) == b"in the clear "
    far, far_record = channel_on(loop, ends[1])
    start_tls_pair(loop, near, far, version)
    drive(loop, lambda: far_record.received == b"queued secret")


def test_held_writes_never_leave_in_the_clear(loop):
    ends = socket_pair()
    near, near_record = channel_on(loop, ends[0])
    near.hold_writes = True
    near.write(b"secret")
    near.finish()
    turns(loop)
    assert near_record.count("drained") == 1
    assert ends[1].recv(10) == b""
    ends[1].close()
    drive(loop, lambda: closed(near))


def test_writes_during_the_handshake_wait_for_its_end(loop, version):
    near, _, far, far_record = channel_pair(loop)
    start_tls_pair(loop, near, far, version, wait=False)
    near.write(b"first")
    near.write(bytes(MIB))
    drive(loop, lambda: len(far_record.received) == MIB + 5)
    assert far_record.received.startswith(b"first")


def test_what_was_written_before_tls_goes_out_in_the_clear_before_it(loop, version):
    """STARTTLS: a server's last line in the clear, then the handshake; what the client sends then belongs to it."""
    near, near_record, far, far_record = channel_pair(loop)
    far.notify_written = True
    far.write(b"220 go on\r\n")
    far.start_tls(Engine(server_context_of(version)), DEADLINE)
    drive(loop, lambda: near_record.received == b"220 go on\r\n")
    near.start_tls(Engine(client_context_of(version)), DEADLINE)
    exchange(loop, near, near_record, far, far_record)
    assert far_record.written >= 11


def test_a_large_plaintext_before_tls_arrives_whole(loop, version):
    near, near_record, far, far_record = channel_pair(loop)
    data = os.urandom(3 * MIB)
    far.write(data)
    far.start_tls(Engine(server_context_of(version)), DEADLINE)
    drive(loop, lambda: near_record.received == data)
    near.start_tls(Engine(client_context_of(version)), DEADLINE)
    exchange(loop, near, near_record, far, far_record)


def test_what_was_received_and_not_read_belongs_to_the_handshake(loop, version):
    near, near_record, far, far_record = channel_pair(loop, far=Recorder(greedy=False))
    near.start_tls(Engine(client_context_of(version)), DEADLINE)
    drive(loop, lambda: far.bytes_available > 100)
    far_record.greedy = True
    far.start_tls(Engine(server_context_of(version)), DEADLINE)
    assert far.bytes_available == 0
    exchange(loop, near, near_record, far, far_record)


def test_tls_may_start_in_the_handler_that_reads_the_go_ahead(loop, version):
    def start(recorder):
        if recorder.received == b"go\r\n" and recorder.channel.engine is None:
            recorder.channel.start_tls(Engine(client_context_of(version)), DEADLINE)

    near, near_record, far, far_record = channel_pair(loop, near=Recorder(readable=start))
    far.write(b"go\r\n")
    far.start_tls(Engine(server_context_of(version)), DEADLINE)
    drive(loop, lambda: near.encrypted and far.encrypted)
    near_record.received.clear()
    exchange(loop, near, near_record, far, far_record)


def test_tls_starts_once_and_on_an_open_channel_only(loop, version):
    near, *_ = tls_channel_pair(loop, version)
    with pytest.raises(RuntimeError, match="once"):
        near.start_tls(Engine(client_context_of(version)), 1)
    with pytest.raises(RuntimeError, match="open channel"):
        Channel(loop, Recorder()).start_tls(Engine(client_context_of(version)), 1)
    with pytest.raises(TypeError):
        near.start_tls(None, 1)


# the end


def test_finish_sends_what_is_queued_and_closes_cleanly(loop, mode):
    near, near_record, far, far_record = joined(loop, mode)
    data = os.urandom(3 * MIB)
    near.write(data)
    near.finish()
    assert not near.is_open
    with pytest.raises(RuntimeError, match="finished"):
        near.write(b"more")
    drive(loop, lambda: far_record.count("peer_closed"))
    assert far_record.received == data and far_record.has("peer_closed", True)
    drive(loop, lambda: near_record.count("drained"))
    assert near_record.events[-1] == ("drained",)
    far.finish()
    drive(loop, lambda: closed(near, far))
    near.finish()
    far.abort()
    assert near_record.count("failed") == far_record.count("failed") == 0


def test_both_may_finish_at_once(loop, mode):
    near, near_record, far, far_record = joined(loop, mode)
    near.write(b"a")
    far.write(b"b")
    near.finish()
    far.finish()
    drive(loop, lambda: closed(near, far))
    assert near_record.count("drained") == far_record.count("drained") == 1
    assert near_record.count("failed") == far_record.count("failed") == 0


def test_a_half_closed_peer_can_still_be_written_to(loop, mode):
    near, near_record, far, far_record = joined(loop, mode, pair=tcp_pair)
    ends_early = near.finish if mode else (lambda: os_shutdown(near))
    ends_early()
    drive(loop, lambda: far_record.count("peer_closed"))
    assert far.is_open
    far.write(b"answer")
    far.finish()
    drive(loop, lambda: closed(far))
    if not mode:
        drive(loop, lambda: near_record.received == b"answer")


def os_shutdown(channel):
    with socket.socket(fileno=os.dup(channel.fileno())) as end:
        end.shutdown(socket.SHUT_WR)


def test_a_cut_stream_is_not_clean_with_tls(loop, version):
    near, _, far, far_record = tls_channel_pair(loop, version)
    near.write(b"part")
    drive(loop, lambda: far_record.received == b"part")
    near.abort()
    drive(loop, lambda: far_record.count("peer_closed"))
    assert far_record.has("peer_closed", False)
    far.abort()


def test_a_peer_that_ignores_the_end_is_left_after_a_while(loop, mode, monkeypatch):
    """The linger time is fixed; its timer is what the loop waits for, so it is enough that it is there."""
    near, near_record, far, _ = joined(loop, mode)
    near.finish()
    drive(loop, lambda: near_record.count("drained"))
    assert near.fileno() >= 0
    turns(loop)
    before = loop.time()
    loop.dispatch(0.05)
    assert loop.time() - before > 0.03, "a lingering channel keeps the loop spinning"
    far.abort()
    drive(loop, lambda: closed(near))


@pytest.mark.parametrize("bound", [0, 10])
def test_finishing_with_unread_data_does_not_spin(loop, mode, bound):
    near, _, far, far_record = joined(loop, mode, far=Recorder(greedy=False))
    far.read_bound = bound
    near.write(bytes(200_000))
    drive(loop, lambda: far.bytes_available)
    far.finish()
    drive(loop, lambda: far_record.count("drained"))
    turns(loop, 20)
    before, rounds = loop.time(), 0
    while loop.time() - before < 0.05:
        loop.dispatch(0.05)
        rounds += 1
    assert rounds < 20
    near.abort()
    drive(loop, lambda: closed(far))


def test_aborting_tells_nobody_and_drops_what_is_queued(loop, mode):
    near, near_record, far, _ = joined(loop, mode)
    count = len(near_record.events)
    near.write(bytes(10 * MIB))
    near.abort()
    assert closed(near) and near.bytes_to_write == 0
    near.abort()
    near.finish()
    near.flush()
    turns(loop)
    assert len(near_record.events) == count
    far.abort()


def reset(end):
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def test_a_reset_is_reported_after_the_data_before_it(loop):
    near, far = tcp_pair()
    channel, recorder = channel_on(loop, near)
    turns(loop)
    far.send(b"last words")
    drive(loop, lambda: recorder.received == b"last words")
    reset(far)
    drive(loop, lambda: recorder.failure is not None)
    assert recorder.failure == channel_module.FAILURE_RESET and "reset" in recorder.message
    assert closed(channel)


@pytest.mark.parametrize("tls", VERSIONS)
def test_a_reset_in_the_middle_of_a_record_is_reported(loop, tls):
    _, near_record, far, _ = tls_channel_pair(loop, tls, pair=tcp_pair)
    with socket.socket(fileno=os.dup(far.fileno())) as raw:
        raw.send(b"\x17\x03\x03\x10\x00 half a record")
        turns(loop)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.abort()
    drive(loop, lambda: near_record.failure is not None)
    assert near_record.failure == channel_module.FAILURE_RESET


def test_a_reset_in_the_middle_of_the_handshake_is_reported(loop, version):
    near, far = tcp_pair()
    channel, recorder = channel_on(loop, near)
    channel.start_tls(Engine(client_context_of(version)), DEADLINE)
    turns(loop)
    reset(far)
    drive(loop, lambda: recorder.failure is not None)
    assert recorder.failure == channel_module.FAILURE_RESET


def test_a_close_in_the_middle_of_the_handshake_is_reported(loop, version):
    near, far = tcp_pair()
    channel, recorder = channel_on(loop, near)
    channel.start_tls(Engine(client_context_of(version)), DEADLINE)
    drive(loop, lambda: select.select([far], [], [], 0)[0], "the ClientHello", patience=0)
    far.recv(65536)
    far.close()
    drive(loop, lambda: recorder.failure is not None)
    assert recorder.failure == channel_module.FAILURE_HANDSHAKE_CLOSED


def test_writing_to_a_peer_that_is_gone_reads_what_it_sent_and_then_fails(loop):
    near, far = tcp_pair()
    channel, recorder = channel_on(loop, near, Recorder(greedy=False))
    far.send(b"goodbye")
    drive(loop, lambda: channel.bytes_available == 7)
    reset(far)
    for _ in range(5):
        with contextlib.suppress(RuntimeError):
            channel.write(bytes(300_000))
        turns(loop, 2)
    drive(loop, lambda: recorder.failure is not None)
    assert recorder.failure == channel_module.FAILURE_RESET
    assert channel.read() == b"goodbye"


def test_finishing_with_data_for_a_peer_that_is_gone_fails(loop):
    near, far = tcp_pair()
    channel, recorder = channel_on(loop, near)
    turns(loop)
    channel.write(bytes(20 * MIB))
    channel.finish()
    reset(far)
    drive(loop, lambda: recorder.failure is not None)
    assert recorder.failure == channel_module.FAILURE_RESET and closed(channel)


def test_a_failure_told_during_write_may_drop_the_last_reference(loop):
    near, far = tcp_pair()
    recorder = Recorder(failed=lambda recorder: setattr(recorder, "channel", None))
    recorder.channel = Channel(loop, recorder)
    recorder.channel.attach(near.detach())
    far.shutdown(socket.SHUT_WR)
    drive(loop, lambda: recorder.count("peer_closed"))
    reset(far)
    for _ in range(10):
        if recorder.channel is not None:
            with contextlib.suppress(RuntimeError):
                recorder.channel.write(bytes(MIB))
        gc.collect()
        turns(loop, 1)
    drive(loop, lambda: recorder.failure is not None)


# TLS that fails


def test_the_handshake_has_a_deadline(loop, version):
    ends = socket_pair()
    channel, recorder = channel_on(loop, ends[0])
    channel.start_tls(Engine(client_context_of(version)), 0.02)
    drive(loop, lambda: recorder.failure is not None)
    assert recorder.failure == channel_module.FAILURE_HANDSHAKE_TIMEOUT and "in time" in recorder.message
    ends[1].close()
    drive(loop, lambda: closed(channel))


def test_the_deadline_is_gone_when_the_handshake_is_done(loop, version):
    near, near_record, far, far_record = channel_pair(loop)
    start_tls_pair(loop, near, far, version, timeout=0.2)
    loop.call_later(0.3, lambda: near_record.events.append(("late",)))
    drive(loop, lambda: ("late",) in near_record.events)
    exchange(loop, near, near_record, far, far_record)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.0\r\n\r\n", bytes(50), b"\xa5" * 200], ids=["http", "zeroes", "other"])
def test_what_is_not_tls_fails_the_handshake_and_the_peer_gets_an_answer(loop, version, data):
    ends = socket_pair()
    channel, recorder = channel_on(loop, ends[0])
    channel.start_tls(Engine(server_context_of(version)), DEADLINE)
    ends[1].send(data + bytes(300))
    drive(loop, lambda: recorder.failure is not None)
    assert recorder.failure == channel_module.FAILURE_HANDSHAKE
    if data.startswith(b"GET"):
        assert "http request" in recorder.message
    assert recorder.count("encrypted") == 0 and not channel.encrypted
    ends[1].close()
    drive(loop, lambda: closed(channel))


def test_a_certificate_that_is_refused_reaches_both_sides_in_words(loop, version):
    near, near_record, far, far_record = channel_pair(loop)
    far.start_tls(Engine(server_context_of(version)), DEADLINE)
    near.start_tls(Engine(client_context(version, by="second")), DEADLINE)
    drive(loop, lambda: near_record.failure is not None and far_record.failure is not None)
    assert near_record.failure == channel_module.FAILURE_HANDSHAKE
    assert "certificate verify failed" in near_record.message and "unable to get" in near_record.message
    assert 'the alert "unknown' in far_record.message
    drive(loop, lambda: closed(near, far))


def test_a_record_that_does_not_decrypt_fails_and_the_peer_is_told(loop, version):
    near, near_record, far, far_record = tls_channel_pair(loop, version)
    with socket.socket(fileno=os.dup(far.fileno())) as raw:
        raw.send(b"\x17\x03\x03\x00\x30" + bytes(48))
    drive(loop, lambda: near_record.failure is not None and far_record.failure is not None)
    assert near_record.failure == channel_module.FAILURE_TLS
    assert far_record.failure == channel_module.FAILURE_TLS and "bad record mac" in far_record.message
    drive(loop, lambda: closed(near, far))


def test_an_endless_record_ends_in_a_failure(loop, version):
    ends = socket_pair()
    channel, recorder = channel_on(loop, ends[0])
    channel.start_tls(Engine(server_context_of(version)), DEADLINE)
    with contextlib.suppress(BrokenPipeError, BlockingIOError):
        for _ in range(100):
            ends[1].send(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16380))
            turns(loop, 1)
    drive(loop, lambda: recorder.failure is not None)
    assert recorder.failure == channel_module.FAILURE_HANDSHAKE
    ends[1].close()
    drive(loop, lambda: closed(channel))


def test_a_peer_that_talks_on_after_close_notify_is_not_kept(loop, version):
    near, _, far, far_record = tls_channel_pair(loop, version)
    before = resident()
    with socket.socket(fileno=os.dup(near.fileno())) as raw:
        raw.send(near.engine.close())
        drive(loop, lambda: far_record.count("peer_closed"))
        sent = 0
        while sent < 64 * MIB:
            with contextlib.suppress(BlockingIOError):
                sent += raw.send(bytes(65536))
            loop.dispatch(0)
    assert far.bytes_available == 0
    assert SANITIZED or resident() - before < 32_000
    near.abort()
    far.abort()


# consumers that misbehave

CALLBACKS = ["readable", "written", "encrypted", "drained", "peer_closed", "failed"]


def misdeeds():
    def finish(channel, loop, world):
        channel.finish()

    def abort(channel, loop, world):
        channel.abort()

    def write(channel, loop, world):
        channel.write(b"from the handler")

    def write_a_lot(channel, loop, world):
        channel.write(bytes(5 * MIB))

    def read(channel, loop, world):
        channel.read()
        channel.discard()

    def raise_(channel, loop, world):
        raise LookupError("mine")

    def interrupt(channel, loop, world):
        raise KeyboardInterrupt

    def nest(channel, loop, world):
        for _ in range(5):
            loop.dispatch(0)

    def wait_for_another(channel, loop, world):
        exchange(loop, *world["bystanders"])

    def drop(channel, loop, world):
        world["recorder"].channel = None
        world["dropped"] = True
        gc.collect()

    def start_tls(channel, loop, world):
        channel.start_tls(Engine(client_context_of(TLS_1_3)), DEADLINE)

    def close_the_loop(channel, loop, world):
        loop.close()

    def abort_and_nest(channel, loop, world):
        channel.abort()
        loop.dispatch(0)
        world["decoys"] = socket_pair()  # their numbers are the ones that have just become free

    return [
        finish, abort, write, write_a_lot, read, raise_, interrupt, nest, wait_for_another, drop, start_tls,
        close_the_loop, abort_and_nest,
    ]  # fmt: skip


@pytest.mark.parametrize("misdeed", misdeeds(), ids=lambda misdeed: misdeed.__name__)
@pytest.mark.parametrize("callback", CALLBACKS)
def test_a_consumer_may_do_anything_and_harms_nobody(loop, mode, callback, misdeed):
    if callback == "encrypted" and not mode:
        pytest.skip("there is no handshake")
    world, done = {}, []

    def act(recorder):
        if not done:
            done.append(True)
            misdeed(recorder.channel, loop, world)

    recorder = world["recorder"] = Recorder(**({callback: act} if callback != "encrypted" else {}))
    victim, _, peer, peer_record = joined(loop, mode if callback != "encrypted" else 0, near=recorder, pair=tcp_pair)
    world["bystanders"] = bystanders = joined(loop, TLS_1_3)

    victim.notify_written = True
    if callback == "encrypted":
        recorder.hooks["encrypted"] = act
        start_tls_pair(loop, victim, peer, mode, wait=False)
    elif callback == "readable":
        peer.write(bytes(300_000))
    elif callback == "written":
        victim.write(b"to be counted")
    elif callback == "drained":
        victim.write(b"the last")
        victim.finish()
    elif callback == "peer_closed":
        peer.write(b"the last")
        peer.finish()
    else:
        with socket.socket(fileno=os.dup(peer.fileno())) as raw:
            if mode:
                raw.send(b"\x17\x03\x03\x00\x30" + bytes(48))
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if not mode:
            peer.abort()
    del victim, _

    interrupted = False
    for _ in range(2):
        try:
            drive(loop, lambda: done)
            turns(loop, 20)
        except KeyboardInterrupt:
            interrupted = True
    assert done and interrupted == (misdeed.__name__ == "interrupt")

    expected = {"raise_": LookupError, "start_tls": RuntimeError, "close_the_loop": RuntimeError, "write": RuntimeError}
    expected["write_a_lot"] = RuntimeError
    complaints = loop.exception_handler.take()
    assert all(isinstance(complaint, expected.get(misdeed.__name__, ())) for complaint in complaints), complaints
    if misdeed.__name__ in ("raise_", "close_the_loop"):
        assert complaints
    exchange(loop, *bystanders)
    for channel in (recorder.channel, peer):
        if channel is not None:
            channel.abort()
    assert not peer_record.hooks
    for decoy in world.get("decoys", ()):
        os.fstat(decoy.fileno())
        decoy.close()


@pytest.mark.parametrize("misdeed", misdeeds(), ids=lambda misdeed: misdeed.__name__)
@pytest.mark.parametrize("answer", [True, False])
def test_a_verify_handler_may_do_anything_and_harms_nobody(loop, version, misdeed, answer):
    near, near_record, far, far_record = channel_pair(loop)
    world, done = {"recorder": near_record, "bystanders": joined(loop, TLS_1_3)}, []

    def handler(errors):
        done.append(errors)
        misdeed(near_record.channel, loop, world)
        return answer

    far.start_tls(Engine(server_context_of(version)), DEADLINE)
    near.start_tls(Engine(client_context(version, by="second"), verify_handler=handler), DEADLINE)
    del near
    interrupted = False
    for _ in range(2):
        try:
            drive(loop, lambda: done)
            turns(loop, 20)
        except KeyboardInterrupt:
            interrupted = True
    assert len(done) == 1 and interrupted == (misdeed.__name__ == "interrupt")
    complaints = loop.exception_handler.take()
    assert all(isinstance(complaint, (LookupError, RuntimeError)) for complaint in complaints), complaints
    exchange(loop, *world["bystanders"])
    raises, ends = ("raise_", "interrupt", "start_tls", "close_the_loop"), ("finish", "abort", "abort_and_nest")
    if answer and misdeed.__name__ not in raises + ends:
        drive(loop, lambda: far.encrypted)
        far.write(b"unharmed")
        drive(loop, lambda: world.get("dropped") or near_record.received.endswith(b"unharmed"))
    else:
        drive(loop, lambda: far_record.failure is not None or far_record.count("peer_closed"))
    for channel in (near_record.channel, far):
        if channel is not None:
            channel.abort()
    for decoy in world.get("decoys", ()):
        os.fstat(decoy.fileno())
        decoy.close()


def test_the_deadline_may_pass_while_the_verify_handler_waits(loop, version):
    near, near_record, far, far_record = channel_pair(loop)

    def handler(errors):
        drive(loop, lambda: near_record.failure is not None)
        return True

    far.start_tls(Engine(server_context_of(version)), DEADLINE)
    near.start_tls(Engine(client_context(version, by="second"), verify_handler=handler), 0.05)
    drive(loop, lambda: near_record.failure is not None and far_record.failure is not None)
    assert near_record.failure == channel_module.FAILURE_HANDSHAKE_TIMEOUT
    assert near_record.count("encrypted") == 0
    drive(loop, lambda: closed(near, far))


def test_a_handler_may_wait_for_more_in_nested_turns(loop, mode):
    data = os.urandom(4 * MIB)

    def wait(recorder):
        recorder.hooks = {}
        recorder.greedy = False
        drive(loop, lambda: len(recorder.received) + recorder.channel.bytes_available == len(data))

    near, _, far, far_record = joined(loop, mode, far=Recorder(readable=wait))
    near.write(data)
    drive(loop, lambda: len(far_record.received) + far.bytes_available == len(data))
    assert far_record.received + far.read() == data


def test_a_handler_that_reads_in_a_nested_turn_keeps_the_order(loop, mode):
    got = bytearray()

    def nest(recorder):
        got.extend(recorder.channel.read(1000))
        if len(recorder.events) < 40:
            loop.dispatch(0)
        got.extend(recorder.channel.read())

    near, _, far, _ = joined(loop, mode, far=Recorder(greedy=False, readable=nest))
    data = os.urandom(3 * MIB)
    near.write(data)
    drive(loop, lambda: len(got) + far.bytes_available == len(data))
    assert got + far.read() == data


@pytest.mark.parametrize("callback", ["written", "drained"])
def test_drained_comes_even_if_written_raises(loop, mode, callback):
    def fail(recorder):
        raise LookupError("mine")

    near, near_record, far, _ = joined(loop, mode, near=Recorder(**{callback: fail}))
    near.notify_written = True
    near.write(b"x")
    near.finish()
    drive(loop, lambda: near_record.count("drained"))
    assert loop.exception_handler.take()
    far.abort()


def test_a_consumer_that_aborts_in_its_finalizer_closes_once(loop):
    class Last(Recorder):
        def __del__(self):
            self.channel.abort()
            decoys.extend(os.open("/dev/null", os.O_RDONLY) for _ in range(3))

    decoys = []
    ends = socket_pair()
    channel, recorder = channel_on(loop, ends[0], Last())
    number = channel.fileno()
    del recorder
    channel.abort()
    assert number in decoys
    del channel
    gc.collect()
    turns(loop)
    for decoy in decoys:
        os.fstat(decoy)
        os.close(decoy)
    ends[1].close()


def test_the_pair_of_channels_is_freed_without_the_collector(loop, mode):
    """A cycle per connection would leave the memory of thousands to the collector's mood."""
    near, near_record, far, far_record = joined(loop, mode)
    gone = [weakref.ref(near), weakref.ref(far)]
    gc.collect()
    gc.disable()
    try:
        near.abort()
        far.abort()
        near_record.channel = far_record.channel = None
        del near, far, near_record, far_record
        turns(loop, 2)
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()


def test_a_verify_handler_makes_no_cycle(loop, version):
    near, near_record, far, _ = channel_pair(loop)
    far.start_tls(Engine(server_context_of(version)), DEADLINE)
    near.start_tls(Engine(client_context_of(version), verify_handler=lambda errors: True), DEADLINE)
    drive(loop, lambda: near_record.channel.encrypted and far.encrypted)
    gone = weakref.ref(near)
    gc.collect()
    gc.disable()
    try:
        near.abort()
        near_record.channel = None
        del near
        turns(loop, 2)
        assert gone() is None
    finally:
        gc.enable()
        far.abort()


# volume


@pytest.mark.parametrize("bound", [0, 65536])
def test_64_mib_each_way_at_once(loop, mode, bound):
    volume(loop, mode, bound, 64 * MIB)


@pytest.mark.parametrize("bound", [0, 5000])
def test_some_mib_each_way_at_once(loop, mode, bound):
    volume(loop, mode, bound, 4 * MIB)


def volume(loop, mode, bound, size):
    near, near_record, far, far_record = joined(loop, mode, pair=tcp_pair)
    near.notify_written = far.notify_written = True
    near.read_bound = far.read_bound = bound
    block = os.urandom(MIB)
    for _ in range(size // MIB):
        near.write(block)
        far.write(block)
    drive(loop, lambda: len(near_record.received) == len(far_record.received) == size)
    assert near_record.received[-MIB:] == far_record.received[:MIB] == block
    drive(loop, lambda: near_record.written == far_record.written == size)


def test_many_connections_leave_nothing_behind(loop, mode):
    rounds, batch = (20, 100) if not mode else (10, 50)

    def one_round():
        pairs = [channel_pair(loop) for _ in range(batch)]
        if mode:
            for near, _, far, _ in pairs:
                start_tls_pair(loop, near, far, mode, wait=False)
        for near, *_ in pairs:
            near.write(b"hello")
            near.finish()
        drive(loop, lambda: all(pair[3].count("peer_closed") for pair in pairs))
        assert all(pair[3].received == b"hello" for pair in pairs)
        for pair in pairs:
            pair[2].finish()
        drive(loop, lambda: closed(*(pair[0] for pair in pairs), *(pair[2] for pair in pairs)))

    def measure():
        gc.collect()
        return descriptors(), len(gc.get_objects()), resident()

    one_round()
    one_round()
    files, objects, memory = measure()
    for _ in range(rounds):
        one_round()
    files_after, objects_after, memory_after = measure()
    assert files_after == files
    assert objects_after - objects < 50
    assert SANITIZED or memory_after - memory < 8_000, f"{memory_after - memory} KiB more"


def test_sessions_are_resumed_between_channels(loop, version):
    client, server = client_context(version), server_context(version)
    for number in range(3):
        near, near_record, far, far_record = channel_pair(loop)
        far.start_tls(Engine(server), DEADLINE)
        near.start_tls(Engine(client, session_key="here"), DEADLINE)
        exchange(loop, near, near_record, far, far_record)
        assert near.engine.session_reused == (number > 0)
        near.finish()
        far.finish()
        drive(loop, lambda near=near, far=far: closed(near, far))


def test_the_read_after_the_loop_was_closed_gives_what_was_received(mode):
    loop = Loop()
    near, _, far, _ = joined(loop, mode, far=Recorder(greedy=False))
    near.write(b"kept")
    drive(loop, lambda: far.bytes_available == 4)
    loop.close()
    assert far.read() == b"kept"
    for use in (lambda: far.write(b""), far.finish, far.abort, far.flush):
        with pytest.raises(RuntimeError, match="closed"):
            use()


def test_a_server_that_asks_for_certificates_works_over_channels(loop, version):
    near, near_record, far, far_record = channel_pair(loop)
    server = server_context(version, verify_mode=VERIFY_QUERY)
    far.start_tls(Engine(server), DEADLINE)
    near.start_tls(Engine(client_context_of(version)), DEADLINE)
    exchange(loop, near, near_record, far, far_record)
