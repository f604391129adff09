"""Messages that bring no data after the handshake: 32 between two records with data are more than any library sends; the next
ends the connection with unexpected_message, in the middle of what one receive has brought.
"""

import contextlib
import itertools

import pytest

from sslsock.core.engine import Engine, TlsError

from .far import Joined, end
from .forged import DATA, HANDSHAKE, Forger, kinds
from .libssl import Libssl, PeerError, calls_libssl, shake_hands
from .pairs import DEADLINE, TLS_1_2, TLS_1_3, Recorder, channel_on, client_context, drive, server_context, socket_pair

ENOUGH = 32
RECEIVE = 512 * 1024
REASON = "too many messages without data"
ALERT = 21

MESSAGES = {
    "key updates": Libssl.key_update,
    "key updates with a wish": lambda peer: peer.key_update(requested=True),
    "tickets": Libssl.ticket,
}
KINDS = [
    (kind, server_side)
    for kind, server_side in itertools.product(MESSAGES, [True, False])
    if not (server_side and kind == "tickets")  # a server gets none
]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]} for a {'server' if kind[1] else 'client'}")
def ends(request):
    """An engine, its peer after the handshake, and what makes the peer's next message."""
    kind, server_side = request.param
    engine = Engine(server_context(TLS_1_3) if server_side else client_context(TLS_1_3))
    peer = Libssl(TLS_1_3, not server_side)
    shake_hands(peer, engine)
    return engine, peer, lambda: MESSAGES[kind](peer)


def hear(peer, data):
    """What the peer is told: the words of its failure."""
    try:
        peer.read(data)
    except PeerError as error:
        return str(error)
    return ""


def into(engine, wire):
    """`decrypt_into` with room for one byte more than a record."""
    room, plain = bytearray(16385), b""
    while got := engine.decrypt_into(wire, room):
        plain += room[:got]
        wire = b""
    return plain


@calls_libssl
@pytest.mark.parametrize("decrypt", [Engine.decrypt, into], ids=["decrypt", "decrypt_into"])
def test_enough_messages_pass_as_often_as_there_is_data_between(ends, decrypt):
    engine, peer, message = ends
    wire = b""
    for _ in range(5):
        wire += b"".join(message() for _ in range(ENOUGH)) + peer.write(b"x" * 100)
    assert decrypt(engine, wire) == b"x" * 500
    assert hear(peer, engine.take()) == ""
    assert peer.read(engine.encrypt(b"unharmed")) == b"unharmed"


@calls_libssl
def test_the_count_goes_on_over_receives(ends):
    engine, peer, message = ends
    for _ in range(ENOUGH):
        assert engine.decrypt(message()) == b""
    with pytest.raises(TlsError, match=REASON):
        engine.decrypt(message())
    assert "unexpected message" in hear(peer, engine.take())
    with pytest.raises(TlsError, match=REASON):
        engine.decrypt(b"")


@calls_libssl
def test_one_receive_full_of_them_is_not_worked_off(ends):
    engine, peer, message = ends
    wire = bytearray(peer.write(b"before"))
    while len(wire) < RECEIVE:
        wire += message()
    assert engine.decrypt(wire) == b"before"
    with pytest.raises(TlsError, match=REASON) as caught:
        engine.decrypt(b"")
    assert not caught.value.handshaking and caught.value.alert is None
    answer = engine.take()
    assert len(kinds(answer)) <= ENOUGH + 1, "it has answered more than it takes"
    assert "unexpected message" in hear(peer, answer)


@calls_libssl
def test_small_data_between_the_messages_is_all_given(ends):
    """More messages in one call than are worked off at a time."""
    engine, peer, message = ends
    wire = b"".join(message() + peer.write(b"%d," % number) for number in range(500))
    assert engine.decrypt(wire) == b"".join(b"%d," % number for number in range(500))


# channels and relays


def joined_wire(loop, server_side):
    """A channel, and its peer with the far end of the socket, after the handshake."""
    near, sock = socket_pair()
    channel, recorder = channel_on(loop, near, Recorder())
    peer = Libssl(TLS_1_3, not server_side)
    channel.start_tls(Engine(server_context(TLS_1_3) if server_side else client_context(TLS_1_3)), DEADLINE)

    def shaken():
        receive(peer, sock)
        if not peer.done:
            peer.shake()
        sock.send(peer.take())
        return channel.encrypted and peer.done

    drive(loop, shaken, "the handshake", 0)
    return channel, recorder, peer, sock


def receive(peer, sock):
    with contextlib.suppress(BlockingIOError):
        peer.feed(sock.recv(1 << 18))


@calls_libssl
@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
@pytest.mark.parametrize("relayed", [False, True], ids=["channel", "relay"])
def test_a_flood_ends_the_connection(loop, server_side, relayed):
    channel, recorder, peer, sock = joined_wire(loop, server_side)
    joined = Joined(loop, (channel, Behind(sock)), end(loop, "fd", False)) if relayed else None
    message = peer.key_update if server_side else peer.ticket
    sock.send(peer.write(b"before") + b"".join(message() for _ in range(ENOUGH + 1)))
    heard = []

    def ended():
        if not heard and (words := hear(peer, received(sock))):
            heard.append(words)
            sock.close()
        return heard and (joined.relay.closed if relayed else recorder.has("failed"))

    if relayed:
        joined.drive(lambda: joined.back.received == b"before", "the data")
        joined.back.finish()
        joined.drive(ended, "the end")
        assert joined.relay.error_text == REASON
    else:
        drive(loop, ended, "the end", 0)
        assert recorder.received == b"before"
        assert REASON in recorder.message
    assert "unexpected message" in heard[0]


def received(sock):
    try:
        return sock.recv(1 << 18)
    except BlockingIOError:
        return b""


class Behind:
    """What Joined needs of a peer that the test moves by itself."""

    def __init__(self, sock):
        self.sock, self.error = sock, None

    def pump(self):
        pass


# what only a forger sends


@pytest.fixture(params=[(TLS_1_2, True), (TLS_1_2, False), (TLS_1_3, True), (TLS_1_3, False)], ids=str)
def forger(request, loop, tmp_path):
    forger = Forger(loop, request.param[0], request.param[1], tmp_path)
    forger.read()
    yield forger
    forger.sock.close()


def told(loop, forger, records):
    """What comes back for `records` and a word of data, and how it ended."""
    forger.sock.send(b"".join(records) + forger.record(DATA, b"the end"))
    answers = bytearray()

    def ended():
        answers.extend(forger.read())
        return forger.recorder.received == b"the end" or forger.recorder.has("failed")

    drive(loop, ended, "the end", 0)
    answers.extend(forger.read())
    return answers


@pytest.mark.parametrize("count", [ENOUGH, ENOUGH + 1])
def test_empty_records(loop, forger, count):
    told(loop, forger, [forger.record(DATA, b"") for _ in range(count)])
    assert forger.recorder.has("failed") == (count > ENOUGH)


def renegotiation(forger):
    return b"\0\0\0\0" if forger.server_side else b"\1\0\0\0"  # HelloRequest, ClientHello: RFC 5246, 7.4.1


@pytest.mark.parametrize("count", [ENOUGH, ENOUGH + 1])
@pytest.mark.parametrize("a_record", [1, 1000], ids=lambda number: f"{number} a record")
def test_wishes_to_renegotiate(loop, forger, count, a_record):
    if forger.version != TLS_1_2:
        messages, reason = [forger.record(HANDSHAKE, renegotiation(forger))], "unexpected message"
        told(loop, forger, messages)
        assert reason in forger.recorder.message, "TLS 1.3 has none"
        return
    in_one = min(a_record, count)
    messages = [forger.record(HANDSHAKE, renegotiation(forger) * in_one) for _ in range(count // in_one)]
    answers = told(loop, forger, messages)
    assert forger.recorder.has("failed") == (count > ENOUGH)
    assert kinds(answers) == [ALERT] * count + [ALERT] * (count > ENOUGH)
    if count > ENOUGH:
        assert REASON in forger.recorder.message


def test_empty_records_and_wishes_by_turns(loop, forger):
    """Neither alone is too many."""
    records = []
    for _ in range(3 * ENOUGH):
        records.append(forger.record(DATA, b""))
        old = forger.version == TLS_1_2
        records.append(forger.record(HANDSHAKE, renegotiation(forger)) if old else forger.key_update())
    told(loop, forger, records)
    assert REASON in forger.recorder.message
