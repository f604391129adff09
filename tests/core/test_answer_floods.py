"""Peers that have libssl answer again and again and read no answer: what they can make us hold is bounded."""

import itertools

import pytest

from sslsock.core.channel import FAILURE_RESET
from sslsock.core.relay import RELAY_RESET, ChannelRelay

from .far import Observer
from .forged import DATA, HANDSHAKE, Forger, kinds
from .pairs import TLS_1_2, TLS_1_3, drive, socket_pair, turns

ALERT = 21
ENOUGH = 1 << 19  # bytes of questions: what the kernel holds, one receive and the answers that are allowed to wait


class Plain:
    """What comes out behind a relay."""

    def __init__(self, loop, channel):
        near, self.sock = socket_pair()
        self.observer = Observer()
        self.relay = ChannelRelay(loop, channel, near.detach(), self.observer)

    def received(self):
        try:
            return self.sock.recv(65536)
        except BlockingIOError:
            return b""


@pytest.fixture
def forge(loop, tmp_path):
    """forge(version, server_side): a Forger that is closed at the end."""
    made = []

    def make(version, server_side):
        made.append(Forger(loop, version, server_side, tmp_path))
        return made[-1]

    yield make
    for forger in made:
        forger.sock.close()


class Flood:
    """`count` questions of a Forger with as much data between them as is needed not to be a flood without data, and a word of
    data. answers: bytes that answer them, and a word in return."""

    def __init__(self, forger, kind, count):
        self.forger = forger
        if kind == "renegotiation":  # refused with a warning: RFC 5246, 7.2.2
            hello = b"\0\0\0\0" if forger.server_side else b"\1\0\0\0"
            ask = lambda: forger.record(HANDSHAKE, hello)  # noqa: E731
            self.answers, self.kinds = count * 31 + 35, [ALERT] * count + [DATA]
        else:  # RFC 8446, 4.6.3; libssl answers when the next one comes, or with its next data
            ask = forger.key_update
            self.answers, self.kinds = count * 27 + 28, [DATA] * (count + 1)
        questions = [ask() if number % 33 else forger.record(DATA, b"x") for number in range(count + (count + 31) // 32)]
        self.data = b"x" * (len(questions) - count) + b"the end"
        self.rest = memoryview(b"".join(questions) + forger.record(DATA, b"the end"))
        self.size = len(self.rest)

    @property
    def taken(self):
        return self.size - len(self.rest)

    def send(self):
        """What can be sent now; whether that is all."""
        try:
            while self.rest:
                self.rest = self.rest[self.forger.sock.send(self.rest) :]
        except BlockingIOError:
            pass
        return not self.rest


@pytest.fixture(params=[*itertools.product(["renegotiation", "key updates"], ["client", "server"])], ids=" of a ".join)
def make_flood(request, forge):
    """make_flood(count)"""
    kind, role = request.param
    forger = forge(TLS_1_2 if kind == "renegotiation" else TLS_1_3, role == "server")
    return lambda count: Flood(forger, kind, count)


@pytest.mark.parametrize("relayed", [False, True], ids=["channel", "relay"])
def test_who_reads_no_answers_is_not_read(loop, make_flood, relayed):
    flood = make_flood(22_000)
    forger = flood.forger
    forger.read()  # a ticket
    behind = Plain(loop, forger.channel) if relayed else None
    for _ in range(300):
        flood.send()
        turns(loop, 1)
    taken = flood.taken
    assert taken < ENOUGH < flood.size, f"{taken} bytes of questions were read"
    for _ in range(20):
        loop.dispatch(0)
        assert not flood.send()
    assert flood.taken == taken, "it goes on reading"

    # Once the answers are read all goes on, and nothing is lost.
    answers, received = bytearray(), bytearray()

    def read():
        answers.extend(forger.read())
        received.extend(behind.received() if relayed else forger.recorder.received[len(received) :])
        return flood.send() and received == flood.data

    drive(loop, read, "the end of the flood", 0)
    (behind.sock.send if relayed else forger.channel.write)(b"answer")
    drive(loop, lambda: read() and len(answers) >= flood.answers, "the answer", 0)
    assert kinds(answers) == flood.kinds
    if relayed:
        behind.relay.close()
        behind.sock.close()


@pytest.mark.parametrize("relayed", [False, True], ids=["channel", "relay"])
def test_the_end_of_who_reads_no_answers_is_told(loop, make_flood, relayed):
    """Though it is not read: the system resets what is closed over answers that were not read."""
    flood = make_flood(22_000)
    forger = flood.forger
    behind = Plain(loop, forger.channel) if relayed else None
    for _ in range(100):
        flood.send()
        turns(loop, 1)
    assert flood.taken < flood.size
    forger.sock.close()
    if relayed:
        drive(loop, lambda: (behind.received(), behind.relay.failed_side)[1] == "front", "the failure")
        behind.sock.close()
        drive(loop, lambda: behind.relay.closed, "the relay's end")
        assert behind.observer.reason == RELAY_RESET
    else:
        drive(loop, lambda: forger.recorder.failure is not None, "the failure")
        assert forger.recorder.failure == FAILURE_RESET


def test_who_reads_the_answers_is_read(loop, make_flood):
    flood = make_flood(5000)
    forger, answers = flood.forger, bytearray()
    forger.read()

    def read():
        answers.extend(forger.read())
        return flood.send() and forger.recorder.received == flood.data

    drive(loop, read, "the end of the flood", 0)
    forger.channel.write(b"answer")
    drive(loop, lambda: read() and len(answers) >= flood.answers, "the answer", 0)
    assert kinds(answers) == flood.kinds
