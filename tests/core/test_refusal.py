"""A channel that refuses its peer: no end that looks clean, an alert where TLS stands, a reset where nothing is left to say."""

import pytest

from sslsock.core.engine import Engine, TlsError

from .pairs import (
    TLS_1_2,
    TLS_1_3,
    VERSIONS,
    Recorder,
    channel_on,
    client_context_of,
    drive,
    feed,
    server_context_of,
    tcp_pair,
)

INTERNAL_ERROR, ACCESS_DENIED, UNRECOGNIZED_NAME = 80, 49, 112
REFUSED_SIZE = 64 * 1024  # what the channel throws away so that the alert is heard


class Peer:
    """The other end, blocking, with an engine."""

    def __init__(self, sock, engine=None):
        self.sock, self.engine = sock, engine
        sock.setblocking(True)
        sock.settimeout(30)

    def __del__(self):
        self.sock.close()

    def end(self):
        """Everything up to the end: (plaintext, what has ended it)."""
        data = bytearray()
        while True:
            try:
                received = self.sock.recv(65536)
                if not received:
                    return bytes(data), "FIN"
                data += self.engine.decrypt(received) if self.engine is not None else received
            except ConnectionResetError:
                return bytes(data), "RST"
            except TlsError as exc:
                return bytes(data), exc.alert


def encrypted(loop, version, near_is_client=False):
    """A channel with TLS, and its peer."""
    near, far = tcp_pair()
    recorder = Recorder()
    channel, _ = channel_on(loop, near, recorder)
    contexts = [server_context_of(version), client_context_of(version)]
    if near_is_client:
        contexts.reverse()
    names = {"server_name": "localhost", "verify_name": "localhost"}
    channel.start_tls(Engine(contexts[0], **(names if near_is_client else {})), 30)
    engine = Engine(contexts[1], **({} if near_is_client else names))
    far.sendall(engine.start())

    def shaken():
        try:
            while True:
                feed(engine, far.recv(65536))
                waiting = engine.take()
                if waiting:
                    far.sendall(waiting)
        except BlockingIOError:
            return channel.encrypted and engine.handshake_done

    drive(loop, shaken, "the handshake", patience=0.01)
    return channel, recorder, Peer(far, engine)


@pytest.mark.parametrize("alert, name", [(INTERNAL_ERROR, "internal error"), (ACCESS_DENIED, "access denied")])
def test_tls_1_3_hears_the_alert(loop, alert, name):
    channel, recorder, peer = encrypted(loop, TLS_1_3)
    before = list(recorder.events)
    channel.refuse(alert)
    assert channel.fileno() == -1
    assert peer.end() == (b"", name)
    assert not peer.engine.peer_closed, "close_notify says that all was well"
    assert recorder.events == before, "nobody is told"


@pytest.mark.parametrize("alert", [INTERNAL_ERROR, ACCESS_DENIED])
def test_tls_1_2_hears_internal_error(loop, alert):
    """libssl can be brought to no other."""
    channel, _, peer = encrypted(loop, TLS_1_2)
    channel.refuse(alert)
    assert peer.end() == (b"", "internal error")
    assert not peer.engine.peer_closed


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_refuses_a_server(loop, version):
    channel, _, peer = encrypted(loop, version, near_is_client=True)
    channel.refuse(INTERNAL_ERROR)
    assert peer.end() == (b"", "internal error")


@pytest.mark.parametrize("version", VERSIONS)
def test_without_an_alert_it_is_a_reset(loop, version):
    channel, _, peer = encrypted(loop, version)
    channel.refuse()
    assert peer.end() == (b"", "RST")
    assert not peer.engine.peer_closed


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("read", [False, True], ids=["in the kernel", "read and kept"])
def test_the_alert_is_heard_over_data_that_nobody_reads(loop, version, read):
    channel, recorder, peer = encrypted(loop, version)
    recorder.greedy = False
    peer.sock.sendall(peer.engine.encrypt(b"request" * 1000))
    if read:
        drive(loop, lambda: channel.bytes_available == 7000, "the request")
    channel.refuse(INTERNAL_ERROR)
    assert peer.end() == (b"", "internal error")


@pytest.mark.parametrize("version", VERSIONS)
def test_what_comes_later_is_reset(loop, version):
    """Nothing is taken for seconds, as if somebody read it."""
    channel, _, peer = encrypted(loop, version)
    channel.refuse(INTERNAL_ERROR)
    with pytest.raises(ConnectionError):
        while True:  # until the reset has come; the buffers of loopback are finite, and the time limit is the socket's
            peer.sock.sendall(peer.engine.encrypt(bytes(1000)))


def test_a_peer_that_has_sent_more_than_is_thrown_away(loop):
    channel, _, peer = encrypted(loop, TLS_1_3)
    channel.read_bound = 1
    peer.sock.setblocking(False)
    try:
        while True:
            peer.sock.sendall(peer.engine.encrypt(bytes(REFUSED_SIZE)))
    except BlockingIOError:
        pass
    channel.refuse(INTERNAL_ERROR)
    peer.sock.setblocking(True)
    assert peer.end()[1] in ("internal error", "RST")
    assert channel.fileno() == -1


def test_in_the_clear_it_is_a_reset(loop):
    near, far = tcp_pair()
    channel, recorder = channel_on(loop, near)
    channel.refuse()
    assert Peer(far).end() == (b"", "RST")
    assert recorder.events == []


def test_an_alert_in_the_clear_is_heard(loop):
    near, far = tcp_pair()
    channel, _ = channel_on(loop, near)
    alert = bytes((0x15, 3, 3, 0, 2, 2, UNRECOGNIZED_NAME))
    far.sendall(b"a ClientHello that nobody reads")
    channel.write(alert)
    channel.refuse()
    assert Peer(far).end() == (alert, "FIN")


def test_during_the_handshake_it_is_a_reset(loop):
    near, far = tcp_pair()
    channel, _ = channel_on(loop, near)
    channel.start_tls(Engine(server_context_of(0)), 30)
    channel.write(b"never in the clear")
    channel.refuse(INTERNAL_ERROR)
    assert Peer(far).end() == (b"", "RST")


def test_what_is_held_never_leaves_in_the_clear(loop):
    near, far = tcp_pair()
    channel, _ = channel_on(loop, near)
    channel.hold_writes = True
    channel.write(b"secret")
    channel.refuse()
    assert Peer(far).end() == (b"", "RST")


@pytest.mark.parametrize("version", VERSIONS)
def test_in_the_handler_of_the_handshake(loop, version):
    near, far = tcp_pair()
    channel, _ = channel_on(loop, near, Recorder(encrypted=lambda me: me.channel.refuse(INTERNAL_ERROR)))
    channel.start_tls(Engine(server_context_of(version)), 30)
    engine = Engine(client_context_of(version), server_name="localhost", verify_name="localhost")
    far.sendall(engine.start())
    ended = []

    def over():
        try:
            while True:
                engine.decrypt(far.recv(65536))
                waiting = engine.take()
                if waiting:
                    far.sendall(waiting)
        except BlockingIOError:
            return False
        except (TlsError, ConnectionError) as exc:
            ended.append(getattr(exc, "alert", "RST"))
            return True

    drive(loop, over, "the end", patience=0.01)
    far.close()
    assert ended == ["internal error"]


@pytest.mark.parametrize("twice", [False, True])
def test_a_second_end_does_nothing(loop, twice):
    channel, _, peer = encrypted(loop, TLS_1_3)
    if twice:
        channel.refuse(INTERNAL_ERROR)
    else:
        channel.abort()
    channel.refuse(ACCESS_DENIED)
    assert peer.end()[1] == ("internal error" if twice else "FIN")
