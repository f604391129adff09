"""What is written arrives, however small the records are and however much each of them grows by.

Our batches and scratches are made for records of 16 KiB. A client can ask for 512 bytes (max_fragment_length, RFC 6066, 4), a
server can send records as small as it likes, and cipher suites add between 21 and 85 bytes to each.
"""

import os

import pytest

from sslsock.core.engine import Engine

from .far import Joined, end
from .libssl import Libssl, calls_libssl, shake_hands
from .pairs import (
    DEADLINE,
    MIB,
    RECORD,
    TLS_1_2,
    TLS_1_3,
    Recorder,
    channel_on,
    client_context,
    drive,
    server_context,
    socket_pair,
)

pytestmark = calls_libssl

CIPHERS = {
    "tls1.2, GCM": (TLS_1_2, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    "tls1.2, ChaCha20": (TLS_1_2, "ECDHE-ECDSA-CHACHA20-POLY1305"),
    "tls1.2, CBC and SHA-1": (TLS_1_2, "ECDHE-ECDSA-AES128-SHA"),
    "tls1.2, CBC and SHA-256": (TLS_1_2, "ECDHE-ECDSA-AES128-SHA256"),
    "tls1.2, CBC and SHA-384": (TLS_1_2, "ECDHE-ECDSA-AES256-SHA384"),
    "tls1.3": (TLS_1_3, ""),
}
FRAGMENTS = [0, 512, 1024, 2048, 4096]
SIZES = [1, 511, 512, 513, 100, RECORD - 1, RECORD, RECORD + 1, 3 * RECORD + 7, 100_003, 64, MIB + 1, 700]
MUCH = 3 * MIB + 5


@pytest.fixture(params=CIPHERS.values(), ids=CIPHERS)
def suite(request):
    return request.param


@pytest.fixture(params=FRAGMENTS, ids=lambda size: f"records of {size}" if size else "full records")
def fragment(request):
    return request.param


def server_engine(suite):
    version, ciphers = suite
    return Engine(server_context(version, ciphers=ciphers))


def client_engine(suite):
    version, ciphers = suite
    return Engine(client_context(version, ciphers=ciphers), verify_name="localhost")


def peer_of(suite, server_side, fragment):
    version, ciphers = suite
    settings = {"send_fragment": fragment} if server_side else {"fragment": fragment}
    return Libssl(version, server_side, ciphers=ciphers or None, **settings)


both_sides = pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])


@both_sides
def test_an_engine_gives_every_byte(suite, fragment, server_side):
    """server_side: ours. A client of ours asks for no size, but gets the records that a server makes."""
    engine = server_engine(suite) if server_side else client_engine(suite)
    peer = peer_of(suite, not server_side, fragment)
    shake_hands(peer, engine)
    for size in SIZES:
        data = os.urandom(size)
        assert peer.read(engine.encrypt(data)) == data
        assert engine.take() == b""
        assert engine.decrypt(peer.write(data)) == data
    room = bytearray(1000)
    wire, received = peer.write(data := os.urandom(100_000)), bytearray()
    while len(received) < len(data):
        received += room[: engine.decrypt_into(wire, room)]
        wire = b""
    assert received == data


def test_two_engines_give_every_byte(suite):
    client, server = client_engine(suite), server_engine(suite)
    server.decrypt(client.start())
    while not server.handshake_done:
        client.decrypt(server.take())
        server.decrypt(client.take())
    client.decrypt(server.take())
    for size in SIZES:
        data = os.urandom(size)
        assert server.decrypt(client.encrypt(data)) == data
        assert client.decrypt(server.encrypt(data)) == data


class Wire:
    """A Libssl at a socket. `pump` moves what can be moved."""

    def __init__(self, peer, sock):
        self.peer, self.sock = peer, sock
        self.out, self.received = bytearray(), bytearray()
        self.reading, self.error = True, None

    def write(self, data):
        self.out += self.peer.write(data)

    def pump(self):
        try:
            while self.reading and (data := self.sock.recv(1 << 18)):
                self.peer.feed(data)
                if self.peer.done:
                    self.received += self.peer.read()
        except BlockingIOError:
            pass
        if not self.peer.done:
            self.peer.shake()
        self.out += self.peer.take()
        try:
            while self.out:
                del self.out[: self.sock.send(self.out)]
        except BlockingIOError:
            pass


@pytest.fixture
def wire_to(loop):
    """wire_to(suite, server_side, fragment): a channel after its handshake, its recorder, and the Wire far of it."""
    wires = []

    def make(suite, server_side, fragment):
        near, far = socket_pair()
        channel, recorder = channel_on(loop, near, Recorder(greedy=False))
        wire = Wire(peer_of(suite, not server_side, fragment), far)
        wires.append(wire)
        channel.start_tls(server_engine(suite) if server_side else client_engine(suite), DEADLINE)

        def shaken():
            wire.pump()
            return channel.encrypted and wire.peer.done

        drive(loop, shaken, "the handshake", 0)
        return channel, recorder, wire

    yield make
    for wire in wires:
        wire.sock.close()


@both_sides
@pytest.mark.parametrize("piece", [MUCH, 1000], ids=lambda size: f"written by {size}")
def test_a_channel_sends_every_byte_and_says_so(loop, wire_to, suite, fragment, server_side, piece):
    channel, recorder, wire = wire_to(suite, server_side, fragment)
    channel.notify_written = True
    data = os.urandom(MUCH)
    for start in range(0, MUCH, piece):
        channel.write(data[start : start + piece])
    channel.finish()

    def ended():
        wire.pump()
        return wire.peer.closed

    drive(loop, ended, "the end", 0)
    assert wire.received == data
    assert recorder.written == MUCH and recorder.has("drained")


@both_sides
def test_a_peer_that_sends_all_before_it_reads(loop, wire_to, suite, fragment, server_side):
    """What waits for the peer is no reason not to read it, however much larger it is than the data in it."""
    channel, _, wire = wire_to(suite, server_side, fragment)
    data = os.urandom(MUCH)
    channel.write(data)
    wire.write(data[::-1])
    wire.reading = False
    received = bytearray()

    def moved():
        received.extend(channel.read())
        wire.pump()
        wire.reading = not wire.out
        return len(received) == len(wire.received) == MUCH

    drive(loop, moved, "all of it", 0)
    assert wire.received == data and received == data[::-1]


@both_sides
def test_a_relay_passes_on_every_byte(loop, wire_to, suite, fragment, server_side):
    channel, _, wire = wire_to(suite, server_side, fragment)
    early, late = os.urandom(MUCH), os.urandom(MUCH)
    channel.write(early)  # what is queued already goes with the channel
    joined = Joined(loop, (channel, wire), end(loop, "fd", False))
    joined.back.write(late)
    wire.write(late[::-1])
    joined.drive(lambda: len(wire.received) == 2 * MUCH and len(joined.back.received) == MUCH, "all of it")
    assert wire.received == early + late
    assert joined.back.received == late[::-1]
    joined.relay.close()
