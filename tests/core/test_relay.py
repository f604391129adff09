"""Relays over socket pairs: every byte both ways, ends passed on as what they were, back-pressure, errors."""

import contextlib
import fcntl
import itertools
import os
import random
import socket
import struct
import termios

import pytest

from sslsock.core.channel import Channel
from sslsock.core.engine import Engine
from sslsock.core.loop import Loop
from sslsock.core.relay import (
    RELAY_ABORTED,
    RELAY_ENDED,
    RELAY_IDLE,
    RELAY_NETWORK,
    RELAY_RESET,
    RELAY_TLS,
    RELAY_TRUNCATED,
    ChannelRelay,
)

from .far import KINDS, VERSION, Far, Joined, Observer, end, join
from .forged import Forger
from .pairs import (
    DEADLINE,
    MIB,
    TLS_1_3,
    Recorder,
    channel_on,
    client_context_of,
    descriptors,
    drive,
    pieces,
    server_context_of,
    socket_pair,
    tcp_pair,
    turns,
)

ALL = [*itertools.product(KINDS, KINDS)]
TLS = ("tls1.2", "tls1.3")
SOME = [("fd", "fd"), ("channel", "tls1.3"), ("tls1.2", "channel"), ("tls1.3", "tls1.3")]


def pytest_generate_tests(metafunc):
    for name, values in (("kinds", ALL), ("some", SOME)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, values, ids="-".join)


@pytest.fixture(params=[socket_pair, tcp_pair], ids=["unix", "tcp"])
def pair(request):
    return request.param


@pytest.fixture
def small_pair():
    """The kernel takes little at a time."""

    def make():
        ends = socket_pair()
        for one in ends:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        return ends

    return make


# data


def test_every_byte_both_ways_and_both_ends(loop, kinds, pair):
    joined = join(loop, kinds, pair)
    there, back = os.urandom(2 * MIB + 17), os.urandom(3 * MIB + 5)
    joined.front.write(there)
    joined.back.write(back)
    joined.front.finish()
    joined.drive(lambda: joined.back.ended)
    assert joined.back.received == there and joined.back.clean
    joined.drive(lambda: len(joined.front.received) == len(back))
    assert joined.front.received == back and not joined.front.ended and not joined.relay.closed
    joined.back.write(b"long after")
    joined.drive(lambda: joined.front.received.endswith(b"long after"))
    joined.back.finish()
    joined.until_closed()
    assert joined.front.clean and joined.observer.reason == RELAY_ENDED
    assert joined.relay.bytes_forward == len(there) and joined.relay.bytes_back == len(back) + 10
    assert joined.relay.failed_side is None and joined.relay.error_text == ""
    assert loop.idle


def test_pieces_of_every_size(loop, some):
    joined, choice = join(loop, some), random.Random(11)
    there, back = bytearray(), bytearray()
    for _ in range(300):
        for peer, data in ((joined.front, there), (joined.back, back)):
            piece = choice.randbytes(choice.choice([1, 2, 1000, 16384, 16385, 60000]))
            peer.write(piece)
            data += piece
        if choice.random() < 0.3:
            joined.turns(1)
    joined.drive(lambda: len(joined.back.received) >= len(there) and len(joined.front.received) >= len(back))
    assert joined.back.received == there and joined.front.received == back


def test_records_byte_by_byte(loop):
    joined = join(loop, ("tls1.3", "tls1.2"))
    joined.front.write(b"slowly")
    wire, joined.front.out = bytes(joined.front.out), bytearray()
    for byte in pieces(wire, 1):
        joined.front.out += byte
        joined.turns(2)
    assert joined.back.received == b"slowly"


def test_a_kernel_that_takes_little(loop, some, small_pair):
    joined = join(loop, some, small_pair)
    there, back = os.urandom(300_000), os.urandom(300_001)
    joined.front.write(there)
    joined.back.write(back)
    joined.front.finish()
    joined.back.finish()
    joined.until_closed()
    assert joined.back.received == there and joined.front.received == back
    assert joined.front.clean and joined.back.clean and joined.observer.reason == RELAY_ENDED


def test_a_descriptor_that_blocks_does_not_block_the_loop(loop):
    joined = join(loop)
    blocking = socket.socketpair()
    blocked = Joined(loop, (blocking[0].detach(), Far(blocking[1])), end(loop, "fd", False))
    joined.front.write(b"past the other")
    joined.drive(lambda: joined.back.received == b"past the other")
    blocking[1].setblocking(False)
    blocked.back.write(bytes(4 * MIB))
    blocked.drive(lambda: len(blocked.front.received) == 4 * MIB)


def test_urgent_data_hides_nothing_behind_it(loop):
    joined = join(loop, ("fd", "fd"), tcp_pair)
    joined.turns(2)
    joined.front.sock.send(b"before")
    joined.front.sock.send(b"!", socket.MSG_OOB)
    joined.front.sock.send(b"after")
    joined.drive(lambda: joined.back.received == b"beforeafter", "what follows urgent data")


# what is under way already


def test_unread_data_and_queued_writes_go_first(loop, some):
    front, back = end(loop, some[0], True), end(loop, some[1], False)
    expected = [bytearray(), bytearray()]
    for number, (near, far) in enumerate((front, back)):
        if isinstance(near, Channel):
            far.write(b"unread ")
            expected[not number] += b"unread "
            drive(loop, lambda far=far, near=near: far.pump() or near.bytes_available == 7)
            queued = os.urandom(4 * MIB)  # more than the kernel takes
            near.write(b"small ")
            near.write(queued)
            expected[number] += b"small " + queued
            turns(loop, 3)
            near.write(b"and more ")
            expected[number] += b"and more "
    joined = Joined(loop, front, back, head=b"head ")
    for near, _ in (front, back):
        assert not isinstance(near, Channel) or (near.fileno() == -1 and not near.is_open)
    joined.front.write(b"new")
    joined.back.write(b"new")
    joined.front.finish()
    joined.back.finish()
    joined.until_closed()
    assert joined.observer.reason == RELAY_ENDED
    assert sorted_parts(joined.front.received, expected[0]) and sorted_parts(joined.back.received, expected[1], b"head ")


def sorted_parts(got, expected, head=b""):
    """`expected` was collected unread first; on the wire the queue is first, then the head, then what was unread."""
    unread = b"unread " if expected.startswith(b"unread ") else b""
    if not unread and expected.find(b"unread ") >= 0:
        unread, expected = b"unread ", expected.replace(b"unread ", b"", 1)
    else:
        expected = expected[len(unread) :]
    return bytes(got) == bytes(expected) + head + unread + b"new"


@pytest.mark.parametrize("kind", ["channel", *TLS])
@pytest.mark.parametrize("data", [b"", b"last words"])
def test_input_that_had_ended_before(loop, kind, data):
    near, far = end(loop, kind, True)
    far.write(data)
    far.finish()
    drive(loop, lambda: far.pump() or not far.finishing)
    turns(loop, 5)
    joined = Joined(loop, (near, far), end(loop, "tls1.3", False))
    joined.drive(lambda: joined.back.ended)
    assert joined.back.received == data and joined.back.clean
    joined.back.write(b"answer")
    joined.back.finish()
    joined.until_closed()
    assert joined.front.received == b"answer" and joined.front.clean and joined.observer.reason == RELAY_ENDED


@pytest.mark.parametrize("kind", TLS)
def test_close_notify_that_came_with_data_and_without_fin(loop, kind):
    recorder, made = Recorder(greedy=False), []
    near, far = end(loop, kind, True, consumer=recorder)
    back = end(loop, "fd", False)
    recorder.hooks["readable"] = lambda _: made or made.append(Joined(loop, (near, far), back))
    far.write(b"all of it")
    far.out += far.engine.close()
    drive(loop, lambda: far.pump() or made)
    joined = made[0]
    joined.drive(lambda: joined.back.ended, "the end that only the engine knows")
    assert joined.back.received == b"all of it"


@pytest.mark.parametrize("kind", TLS)
def test_a_bad_record_behind_data_that_is_just_being_read(loop, kind):
    recorder, made = Recorder(greedy=False), []
    near, far = end(loop, kind, True, consumer=recorder)
    back = end(loop, "fd", False)
    recorder.hooks["readable"] = lambda _: made or made.append(Joined(loop, (near, far), back))
    far.write(b"good")
    far.write(b"bad")
    far.out[-1] ^= 1
    drive(loop, lambda: far.pump() or made)
    joined = made[0]
    joined.drive(lambda: joined.back.ended)
    assert joined.back.received == b"good"
    joined.back.finish()
    joined.drive(lambda: joined.front.ended)
    joined.front.sock.close()
    joined.until_closed()
    assert joined.front.alert == "bad record mac" and joined.observer.reason == RELAY_TLS


@pytest.mark.parametrize("kind", TLS)
def test_data_that_came_with_the_last_handshake_message(loop, kind):
    near, far = socket_pair()
    channel, recorder = channel_on(loop, near, Recorder(greedy=False))
    made = []
    back = end(loop, "fd", False)
    peer = Far(far, Engine(client_context_of(VERSION[kind]), verify_name="localhost"))
    recorder.hooks["encrypted"] = lambda _: made.append(Joined(loop, (channel, peer), back))
    channel.start_tls(Engine(server_context_of(VERSION[kind])), DEADLINE)
    far.send(peer.engine.start())
    while not peer.engine.handshake_done:
        loop.dispatch(0)
        try:
            peer.engine.decrypt(far.recv(65536))
        except BlockingIOError:
            continue
        last = peer.engine.take()
        if peer.engine.handshake_done:
            last += peer.engine.encrypt(b"early")  # TLS 1.2: the server speaks last, so there it comes behind
        far.send(last)
    drive(loop, lambda: made)
    joined = made[0]
    joined.drive(lambda: joined.back.received == b"early")
    joined.back.write(b"back")
    joined.drive(lambda: joined.front.received == b"back")


# ends


@pytest.mark.parametrize("direction", ["forward", "back"])
def test_tls_that_is_cut_is_passed_on_as_cut(loop, some, direction):
    joined = join(loop, some)
    here, there = (joined.front, joined.back) if direction == "forward" else (joined.back, joined.front)
    here.write(b"half of it")
    here.finish(notify=False)
    joined.drive(lambda: there.ended)
    assert there.received == b"half of it"
    cut = here.engine is not None
    assert there.clean == (there.engine is None or not cut)
    there.write(b"still here")
    there.finish()
    joined.until_closed()
    assert here.received == b"still here" and here.clean
    assert joined.observer.reason == (RELAY_TRUNCATED if cut else RELAY_ENDED)


@pytest.mark.parametrize("direction", ["forward", "back"])
def test_who_answers_a_cut_with_an_alert_does_not_change_what_has_happened(loop, direction):
    """OpenSSL 3 takes an end without close_notify for an error, and says so."""
    joined = join(loop, ("tls1.3", "tls1.3"))
    here, there = (joined.front, joined.back) if direction == "forward" else (joined.back, joined.front)
    here.write(b"all that there was")
    here.finish(notify=False)
    joined.drive(lambda: there.ended)
    assert there.received == b"all that there was"
    there.give_up()
    there.finish(notify=False)
    joined.until_closed()
    assert joined.observer.reason == RELAY_TRUNCATED
    assert joined.relay.failed_side is None and joined.relay.error_text == ""


def test_the_peers_close_at_once(loop, kinds):
    joined = join(loop, kinds)
    joined.front.finish()
    joined.back.finish()
    joined.until_closed()
    assert joined.front.clean and joined.back.clean and joined.observer.reason == RELAY_ENDED


# back-pressure


def test_memory_is_bounded_while_a_peer_does_not_read(loop, some):
    joined = join(loop, some)
    joined.front.reading = joined.back.reading = False
    there, back = os.urandom(6 * MIB), os.urandom(6 * MIB)
    joined.front.write(there)
    joined.back.write(back)
    joined.turns(100)
    # One receive at the most, and what the kernel holds for the socket behind.
    assert 0 < joined.relay.bytes_forward < 2 * MIB and 0 < joined.relay.bytes_back < 2 * MIB
    held = joined.relay.bytes_forward
    joined.turns(20)
    assert joined.relay.bytes_forward == held, "it goes on reading for nobody"
    joined.back.reading = True
    joined.drive(lambda: len(joined.back.received) == len(there))
    assert joined.relay.bytes_back < 2 * MIB
    joined.front.reading = True
    joined.drive(lambda: len(joined.front.received) == len(back))
    assert joined.back.received == there and joined.front.received == back


@pytest.mark.parametrize("kind", ["fd", "tls1.2", "tls1.3"])
@pytest.mark.parametrize("piece", [50_000, 8 * MIB], ids=["answers", "bulk"])
def test_a_peer_that_does_not_read_makes_little_wait(loop, kind, piece):
    """Whatever the other one sends: what the system has not taken is held, and that is not much."""
    joined = join(loop, ("fd", kind), tcp_pair)
    joined.front.reading = False
    before, still = -1, 0
    while still < 5:
        joined.turns(10)
        still = still + 1 if joined.relay.bytes_back == before and joined.back.out else 0
        before = joined.relay.bytes_back
        while len(joined.back.out) < piece:
            joined.back.write(bytes(min(piece, MIB)))
    passed = joined.relay.bytes_back
    joined.relay.close()  # what the system has taken is still delivered
    joined.front.reading = True
    drive(loop, lambda: joined.front.pump() or joined.front.ended, "the end", 0)
    assert passed > 256 * 1024
    assert passed - len(joined.front.received) <= 32 * 1024


@pytest.mark.parametrize("kind", VERSION)
def test_a_peer_that_does_not_read_leaves_no_record_half_read(loop, kind):
    """libssl would hold a buffer of 16 KiB for it. What has been read of the other side ends where a record does."""
    fds, wire = [], bytearray()

    def pair():
        near, far = socket_pair()
        fds.append(near.dup())
        return near, far

    joined = join(loop, ("fd", kind), pair)
    joined.front.reading = False
    before, still = 0, 0
    with fds[0], fds[1] as receiving:
        while still < 5:
            while len(joined.back.out) < MIB:
                waiting = len(joined.back.out)
                joined.back.write(bytes(10_000))
                wire += joined.back.out[waiting:]
            joined.back.pump()
            loop.dispatch(0)
            still = still + 1 if before and joined.relay.bytes_back == before else 0
            before = joined.relay.bytes_back
        unread = struct.unpack("i", fcntl.ioctl(receiving, termios.FIONREAD, bytes(4)))[0]
    read, end_of_record = len(wire) - len(joined.back.out) - unread, 0
    while end_of_record < read:
        end_of_record += 5 + int.from_bytes(wire[end_of_record + 3 : end_of_record + 5], "big")
    joined.relay.close()
    assert end_of_record == read


class Packets:
    """A relay from a stream to packets, so that each piece that it passes on can be told from the next."""

    def __init__(self, loop):
        self.loop = loop
        (near, self.sending), (far, self.receiving) = socket_pair(), socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.receiving.setblocking(False)
        for one in (self.sending, far):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 104 * 1024)  # socket(7): the kernel doubles it
        self.joined = Joined(loop, (near.detach(), Far(self.sending)), (far.detach(), Far(self.receiving)))
        self.sent = 0

    def send(self, size):
        assert self.sending.send(bytes(size)) == size
        self.sent += size
        drive(self.loop, lambda: self.joined.relay.bytes_forward == self.sent, patience=0)

    def sizes(self):
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(len(self.receiving.recv(MIB)))
        return found


def test_a_receive_takes_all_once_much_has_come(loop):
    """A kernel that always sees its buffer emptied in two steps does not enlarge it (tcp(7), tcp_moderate_rcvbuf)."""
    packets = Packets(loop)
    packets.send(96 * 1024)
    assert packets.sizes() == [32 * 1024, 64 * 1024]
    for size in (96 * 1024, 100_000, 40_000):
        packets.send(size)
        assert packets.sizes() == [size]
    packets.send(10_000)
    packets.send(50_000)
    assert packets.sizes() == [10_000, 32 * 1024, 50_000 - 32 * 1024]


ROUNDS = 96 * 1024, 150_000  # bytes: what makes a relay one of bulk, and what it has to move then


def much_to_move(loop):
    """Relays that have more to move than fits in one turn."""
    busy = [join(loop) for _ in range(100)]
    for one in busy:
        assert one.front.sock.send(bytes(ROUNDS[0])) == ROUNDS[0]
        one.drive(lambda one=one: len(one.back.received) == ROUNDS[0])
    for one in busy:
        assert one.front.sock.send(bytes(ROUNDS[1])) == ROUNDS[1]
    return busy


def test_little_does_not_wait_for_much(loop):
    """A turn that serves every connection is long when many have much: who has little comes first, in each of short ones."""
    little = join(loop)
    busy = much_to_move(loop)
    little.front.sock.send(b"little")
    loop.dispatch(0)
    assert little.relay.bytes_forward == 6
    assert busy[-1].relay.bytes_forward == ROUNDS[0], "all have moved all that they had before the next look at who is ready"
    drive(loop, lambda: all(one.relay.bytes_forward == sum(ROUNDS) for one in busy), patience=0)


def test_what_waits_for_its_turn_comes_before_a_deadline(loop):
    busy, late = much_to_move(loop), []
    loop.call_later(0.0, lambda: late.extend(one for one in busy if one.relay.bytes_forward == ROUNDS[0]))
    loop.dispatch(0)
    assert not late, f"{len(late)} relays had still to move what had come before"


@pytest.mark.parametrize("memory_short", [False, True], ids=["memory", "short of memory"])
def test_a_slow_peer_gets_what_there_is_room_for(loop, memory_short):
    """But little, where a sixth of the send buffer waits, once the kernel was seen to take less than it had room for."""
    if memory_short:
        refuse_much(loop)
    packets = Packets(loop)
    packets.send(80 * 1024)
    packets.sending.send(bytes(100_000))
    loop.dispatch(0)
    first, second, third, *_ = packets.sizes()
    assert first + second == 80 * 1024
    assert third == 64 * 1024 if memory_short else third > 72 * 1024


def refuse_much(loop):
    """A bound on what is unsent (tcp(7)), before a small window, has the kernel refuse what a send buffer has room for."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least that there is
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        near = socket.create_connection(listening.getsockname())
        far, _ = listening.accept()
    incoming, sending = socket_pair()
    for one in (near, sending):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 40_000)  # no less: the first receive is taken whole
    joined = Joined(loop, (incoming.detach(), Far(sending)), (near.detach(), Far(far)))
    assert sending.send(bytes(300_000)) == 300_000
    drive(loop, lambda: joined.relay.bytes_forward == 300_000, patience=0)
    joined.relay.close()


def test_an_end_behind_a_peer_that_does_not_read(loop, some):
    joined = join(loop, some)
    joined.back.reading = False
    data = os.urandom(6 * MIB)
    joined.front.write(data)
    joined.front.finish()
    joined.turns(100)
    assert not joined.back.ended
    joined.back.reading = True
    joined.drive(lambda: joined.back.ended)
    assert joined.back.received == data and joined.back.clean


# errors


@pytest.mark.parametrize("direction", ["forward", "back"])
def test_a_reset_comes_behind_the_data_before_it(loop, some, direction):
    joined = join(loop, some, tcp_pair)
    here, there = (joined.front, joined.back) if direction == "forward" else (joined.back, joined.front)
    here.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or its kernel holds the data back, and drops it
    here.write(b"received")
    here.pump()
    here.reset()
    joined.drive(lambda: there.ended)
    assert there.received == b"received"
    assert there.engine is None or not there.clean
    there.write(bytes(100_000))  # an upload goes on for a while
    joined.turns(10)
    there.finish()
    joined.until_closed()
    assert joined.observer.reason == RELAY_RESET and there.error is None
    assert joined.relay.failed_side == ("front" if direction == "forward" else "back")
    assert joined.relay.error_text


def test_a_send_that_fails_leaves_what_was_received(loop, some):
    joined = join(loop, some, tcp_pair)
    joined.front.reading = joined.back.reading = False
    data, answer = os.urandom(4 * MIB), os.urandom(200_000)
    joined.front.write(data)
    joined.turns(30)
    joined.back.write(answer)
    joined.back.pump()
    joined.back.reset()  # with unread input, while the relay is blocked in sending to it
    joined.front.reading = True
    joined.drive(lambda: joined.front.ended, "the end of the side that is left")
    # A reset throws away what the other kernel has not delivered: what came through is a beginning of it.
    assert answer.startswith(joined.front.received)
    joined.front.out.clear()
    joined.front.finish(notify=False)
    joined.until_closed()
    assert joined.observer.reason == RELAY_RESET and joined.relay.failed_side == "back"


def test_a_peer_that_has_gone_while_its_last_words_are_unread(loop):
    joined = join(loop, ("fd", "fd"))
    joined.front.reading = False
    last = os.urandom(2 * MIB)
    joined.back.write(last)
    joined.turns(20)
    joined.drive(lambda: True)
    left = len(joined.back.out)
    joined.back.sock.close()
    joined.front.write(b"to nobody")
    joined.turns(20)
    joined.front.reading = True
    joined.drive(lambda: joined.front.ended, "the end")
    assert joined.front.received == last[: len(last) - left]
    joined.front.finish()
    joined.until_closed()
    assert joined.observer.reason == RELAY_RESET and joined.relay.failed_side == "back"


def test_both_peers_gone_while_both_are_blocked(loop, some):
    joined = join(loop, some, tcp_pair)
    joined.front.reading = joined.back.reading = False
    joined.front.write(bytes(8 * MIB))
    joined.back.write(bytes(8 * MIB))
    joined.turns(30)
    joined.front.reset()
    joined.back.reset()
    drive(loop, lambda: joined.relay.closed, "the relay's end")
    assert joined.observer.reason == RELAY_RESET and loop.idle


@pytest.fixture(params=[*itertools.product(TLS, ["fd", "tls1.3"], ["front", "back"])], ids="-".join)
def failing(request, loop):
    """A relay, the peer whose TLS is to fail, the other one, and the name of the first one's side."""
    kind, other, side = request.param
    joined = join(loop, (kind, other) if side == "front" else (other, kind))
    return joined, getattr(joined, side), joined.back if side == "front" else joined.front, side


def test_a_bad_record_sends_an_alert_and_ends_the_other(failing):
    joined, culprit, other, side = failing
    culprit.write(b"good ")
    culprit.write(b"bad")
    culprit.out[-1] ^= 0xFF
    joined.drive(lambda: other.ended)
    assert other.received == b"good "
    assert other.engine is None or not other.clean
    other.finish()
    joined.drive(lambda: culprit.ended)
    culprit.sock.close()
    joined.until_closed()
    assert culprit.alert == "bad record mac" and joined.observer.reason == RELAY_TLS
    assert joined.relay.failed_side == side
    assert "mac" in joined.relay.error_text


def test_a_fatal_alert_ends_the_other_behind_the_data_before_it(failing):
    joined, culprit, other, side = failing
    other.write(b"heard")
    joined.drive(lambda: culprit.received == b"heard")
    culprit.write(b"the last words")
    culprit.give_up()
    joined.drive(lambda: other.ended)
    assert other.received == b"the last words"
    assert other.engine is None or not other.clean, "nobody has said that the data is complete"
    other.finish()
    joined.drive(lambda: culprit.ended)
    assert culprit.received == b"heard"
    culprit.sock.close()
    joined.until_closed()
    assert joined.observer.reason == RELAY_TLS and joined.relay.failed_side == side
    assert joined.relay.error_text == 'the peer sent the alert "bad record mac"'


@pytest.mark.parametrize("kind", TLS)
def test_an_alert_says_more_than_the_reset_behind_it(loop, kind):
    """Who refuses, and closes over data that it has not read, sends both; they are met together."""
    joined = join(loop, (kind, "fd"), tcp_pair)
    joined.front.give_up()
    joined.front.pump()
    joined.front.reset()
    while joined.relay.failed_side is None and not joined.observer.reasons:
        loop.dispatch(0.1)
    joined.back.sock.close()
    drive(loop, lambda: joined.observer.reasons, "the end")
    assert joined.observer.reason == RELAY_TLS and joined.relay.failed_side == "front"
    assert joined.relay.error_text == 'the peer sent the alert "bad record mac"'


@pytest.mark.parametrize("kind", TLS)
@pytest.mark.parametrize("failure", ["record", "alert"])
def test_a_failure_behind_data_for_a_peer_that_is_slow(loop, small_pair, kind, failure):
    """The kernel takes little, so all of it still lies in the relay when TLS fails."""
    joined = Joined(loop, end(loop, kind, True), end(loop, "tls1.3", False, small_pair))
    joined.back.reading = False
    data = os.urandom(20_000)
    joined.front.write(data)
    if failure == "alert":
        joined.front.give_up()
    else:
        joined.front.write(b"bad")
        joined.front.out[-1] ^= 0xFF
    joined.drive(lambda: joined.relay.failed_side == "front", "the failure")
    assert joined.relay.bytes_forward == len(data) and not joined.back.received
    joined.back.reading = True
    joined.drive(lambda: joined.back.ended)
    assert joined.back.received == data and not joined.back.clean
    joined.front.sock.close()
    joined.back.sock.close()
    joined.until_closed()
    assert joined.observer.reason == RELAY_TLS


def test_the_survivor_gets_its_last_bytes_in_spite_of_its_upload(loop):
    joined = join(loop, ("fd", "fd"), tcp_pair)
    joined.back.write(b"the last bytes")
    joined.back.pump()
    joined.front.reading = False
    joined.front.write(bytes(8 * MIB))
    joined.turns(5)
    joined.back.reset()
    joined.turns(60)
    joined.front.reading = True
    joined.drive(lambda: joined.front.ended or joined.front.error)
    assert joined.front.error is None, "the upload was answered with a reset"
    assert b"the last bytes".startswith(joined.front.received)
    joined.front.finish()
    joined.until_closed()


@pytest.mark.slow
def test_a_survivor_that_reads_nothing_is_given_up(loop, small_pair):
    joined = Joined(loop, end(loop, "fd", True, small_pair), end(loop, "tls1.3", False))
    joined.front.reading = False
    joined.back.write(os.urandom(20_000))
    joined.back.write(b"bad")
    joined.back.out[-1] ^= 1
    joined.drive(lambda: joined.relay.failed_side == "back")
    assert not joined.relay.closed
    joined.until_closed()
    assert joined.observer.reason == RELAY_TLS and joined.back.alert == "bad record mac"


@pytest.mark.slow
def test_a_survivor_that_lacks_its_last_bytes_is_told_no_end(loop):
    """It reads again when it has been given up: what it has got is not all, and a FIN would say so."""
    joined = join(loop, ("fd", "fd"), tcp_pair)
    joined.front.reading = False
    data = bytes(16 * MIB)
    joined.back.write(data)
    joined.turns()
    joined.back.reset()
    joined.until_closed()
    assert joined.relay.failed_side == "back"
    joined.front.reading = True
    joined.drive(lambda: joined.front.ended or joined.front.error, "the end")
    assert len(joined.front.received) < len(data)
    assert isinstance(joined.front.error, ConnectionResetError), "a FIN says that the data is complete"


def test_a_descriptor_that_is_no_socket_ends_it(loop):
    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    os.write(write_end, b"x")
    nobody = socket.socket()
    joined = Joined(loop, (read_end, Far(nobody)), end(loop, "fd", False))
    nobody.close()
    joined.back.finish()
    joined.drive(lambda: joined.relay.closed)
    assert joined.observer.reason == RELAY_NETWORK and "socket" in joined.relay.error_text.lower()
    os.close(write_end)


# what cannot be joined


def test_what_cannot_be_watched_leaves_everything_as_it_was(loop, tmp_path):
    channel, recorder = channel_on(loop, (ends := socket_pair())[0])
    other, far = socket_pair()
    before = descriptors()
    with open(tmp_path / "file", "w") as file:
        for front, back in ((channel, file.fileno()), (file.fileno(), channel), (other.fileno(), file.fileno())):
            with pytest.raises(PermissionError):
                ChannelRelay(loop, front, back, Observer())
    for bad in (-1, 1 << 20):
        with pytest.raises(OSError):
            ChannelRelay(loop, channel, bad, Observer())
    with pytest.raises(FileExistsError):
        ChannelRelay(loop, channel, channel.fileno(), Observer())
    assert descriptors() == before + 0 and loop.watching == 1
    ends[1].send(b"still a channel")
    drive(loop, lambda: recorder.received == b"still a channel")
    channel.write(b"with two directions")
    drive(loop, lambda: channel.bytes_to_write == 0)
    assert ends[1].recv(99) == b"with two directions"
    joined = Joined(loop, (other.detach(), Far(far)), (channel, Far(ends[1])))
    joined.front.write(b"and can be joined")
    joined.drive(lambda: joined.back.received == b"and can be joined")


def test_what_is_no_end_of_a_relay(loop):
    channel, _ = channel_on(loop, (ends := socket_pair())[0])
    other = Loop()
    foreign, _ = channel_on(other, (foreign_ends := socket_pair())[0])
    closed = Channel(loop, Recorder())
    fd = ends[1].fileno()
    for front, back in ((channel, channel), (fd, fd), (channel, closed), (foreign, fd), (fd, foreign)):
        with pytest.raises(ValueError):
            ChannelRelay(loop, front, back, Observer())
    for bad in ("7", None, ends[1], 1.5):
        with pytest.raises(TypeError):
            ChannelRelay(loop, channel, bad, Observer())
    with pytest.raises(TypeError):
        ChannelRelay.__new__(ChannelRelay)
    assert channel.is_open and foreign.is_open and loop.watching == 1
    other.close()
    for one in (ends[1], foreign_ends[1]):
        one.close()


# idling


def assert_none_was_told_an_end(joined):
    """No close_notify, and without TLS no FIN but a reset: nobody has said that the data is complete."""
    peers = (joined.front, joined.back)
    joined.drive(lambda: all(peer.ended or peer.error for peer in peers), "the end of both")
    for peer in peers:
        if peer.engine is None:
            assert isinstance(peer.error, ConnectionResetError), "a FIN says that the data is complete"
        else:
            assert not peer.clean


def test_an_idle_relay_is_ended_and_says_nothing_untrue(loop, some):
    joined = join(loop, some, tcp_pair, idle_seconds=0.01)
    joined.until_closed()
    assert joined.observer.reason == RELAY_IDLE and joined.relay.error_text == ""
    assert_none_was_told_an_end(joined)


@pytest.mark.parametrize("rounds", [0, 5])
def test_a_relay_that_is_aborted_says_nothing_untrue(loop, some, rounds):
    joined = join(loop, some, tcp_pair)
    joined.front.write(b"a part of what was to come")
    joined.turns(rounds)
    joined.relay.abort()
    joined.relay.abort()
    assert joined.observer.reasons == [RELAY_ABORTED]
    assert_none_was_told_an_end(joined)


@pytest.mark.parametrize("end", ["idle", "abort"])
def test_who_was_told_the_end_is_not_reset(loop, end):
    """All that there was has been said to be complete: a reset could make the peer lose what it has yet to read."""
    joined = join(loop, ("fd", "fd"), tcp_pair)
    joined.front.reading = False
    joined.back.write(b"all of it")
    joined.back.finish()
    joined.turns()
    if end == "abort":
        joined.relay.abort()
    else:
        joined.relay.idle_seconds = 0.01
    joined.until_closed()
    joined.front.reading = True
    joined.drive(lambda: joined.front.ended and joined.back.error, "both ends")
    assert joined.front.received == b"all of it" and joined.front.error is None
    assert isinstance(joined.back.error, ConnectionResetError)


def slow_pair():
    """The far end takes little at a time, the kernel of the near end much."""
    near, far = tcp_pair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
    return near, far


@pytest.mark.parametrize("kind", ["fd", "tls1.3"])
def test_a_peer_that_reads_slowly_keeps_a_relay_from_being_idle(loop, kind):
    """Though all has been sent: the kernel delivers it for a long time yet."""
    limit, size = 0.2, MIB
    joined = join(loop, (kind, "fd"), slow_pair, idle_seconds=limit)
    front = joined.front
    front.reading = False
    joined.back.write(bytes(size))
    joined.drive(lambda: joined.relay.bytes_back == size, "all is read")

    def read():
        front.reading = True
        with contextlib.suppress(OSError):  # `drive` meets it, too
            front.pump(size // 16)
        front.reading = False
        if front.error is None and len(front.received) < size:
            loop.call_later(limit / 4, read)

    read()
    joined.drive(lambda: front.error or len(front.received) == size, "all that was sent")
    assert front.error is None and len(front.received) == size
    front.reading = True
    joined.until_closed()
    assert joined.observer.reason == RELAY_IDLE


def test_a_peer_that_reads_nothing_keeps_no_relay_from_being_idle(loop):
    joined = join(loop, ("fd", "fd"), slow_pair, idle_seconds=0.05)
    joined.front.reading = False
    joined.back.write(bytes(MIB // 2))
    joined.until_closed()
    assert joined.observer.reason == RELAY_IDLE


def test_the_idle_limit_can_be_changed(loop):
    joined = join(loop, idle_seconds=1000)
    assert joined.relay.idle_seconds == 1000
    joined.relay.idle_seconds = 0
    assert loop.watching == 2
    joined.relay.idle_seconds = 0.01
    joined.until_closed()
    assert joined.observer.reason == RELAY_IDLE
    joined.relay.idle_seconds = 5
    assert loop.idle


@pytest.mark.parametrize("side", ["front", "back"])
def test_messages_without_data_keep_no_relay_from_being_idle(loop, tmp_path, side):
    """Key updates (RFC 8446, 4.6.3) come faster than the limit passes."""
    forger = Forger(loop, TLS_1_3, side == "front", tmp_path)
    near, far = socket_pair()
    limit, questions, observer = 0.2, 24, Observer()
    sides = [forger.channel, near.detach()]
    relay = ChannelRelay(loop, *(sides if side == "front" else sides[::-1]), observer, limit)

    def ask():
        nonlocal questions
        questions -= 1
        if questions and not relay.closed:
            forger.sock.send(forger.key_update())
            loop.call_later(limit / 4, ask)

    ask()
    drive(loop, lambda: relay.closed or not questions, "the relay's end")
    assert relay.closed, "each of them was taken for data"
    assert observer.reason == RELAY_IDLE
    far.close()
    forger.sock.close()
