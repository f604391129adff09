"""Relay: two sockets joined. Each test has two pairs: `alice` talks to `front`, `back` talks to `bob`."""

from __future__ import annotations

import contextlib
import gc
import shutil
import socket
import ssl
import subprocess
import threading
import weakref

import pytest

import sslsock.sockets.relay as relay_module
from interop.talkers import talk_with_key_updates, talkers
from peers import DEADLINE, Recorder, accept, listening, make_ssl_pair, make_tcp_pair, plain_listener, reset, silence
from sslsock import (
    Context,
    Engine,
    EventLoop,
    Relay,
    RelayReason,
    SocketError,
    SocketState,
    SslCertificate,
    SslMode,
    SslServer,
    SslSocket,
    TcpServer,
    TcpSocket,
    TlsError,
)

MIB = 1 << 20
UNCONNECTED = SocketState.UNCONNECTED_STATE
CONNECTED = SocketState.CONNECTED_STATE
KINDS = ("plain-plain", "plain-tls", "tls-plain", "tls-tls")


class Line:
    """alice – front = back – bob, and the relay between when it is made."""

    def __init__(self, host, certificates, kinds, reads=True):
        self.host = host
        self.certificates = certificates
        first, second = kinds.split("-")
        one, two = self.make(first, reads), self.make(second, reads)
        self.alice, self.front, self.back, self.bob = one.client, one.server, two.client, two.server
        self.at_alice, self.at_front, self.at_back, self.at_bob = one.left, one.right, two.left, two.right
        self.relay = None
        self.ends = []

    def make(self, kind, reads=True):
        if kind == "plain":
            return make_tcp_pair(self.host, SslSocket, reads)
        return make_ssl_pair(self.host, self.certificates.client(), self.certificates.server(), reads)

    def join(self, **options):
        self.at_front.clear()
        self.at_back.clear()
        self.relay = Relay(self.front, self.back, **options)
        self.relay.closed_handler = self.on_closed
        return self.relay

    def on_closed(self, relay, reason):
        assert relay is self.relay
        assert relay.closed and not relay.joined and relay.reason is reason
        assert self.front.state is UNCONNECTED and self.back.state is UNCONNECTED
        self.ends.append(reason)

    def said(self):
        return self.at_alice.events, self.at_bob.events, self.relay

    def wait(self, condition):
        self.host.wait_for(condition, self.said())

    def end(self):
        self.wait(lambda: self.ends)
        assert len(self.ends) == 1
        return self.ends[0]

    def wait_for_talk(self):
        self.alice.write(b"question")
        self.wait(lambda: self.at_bob.data == b"question")
        self.bob.write(b"answer")
        self.wait(lambda: self.at_alice.data == b"answer")


@pytest.fixture(params=KINDS)
def kinds(request):
    return request.param


@pytest.fixture
def line(host, certificates, kinds):
    made = Line(host, certificates, kinds)
    yield made
    hang_up(made)


@pytest.fixture
def plain(own_host, certificates):
    made = Line(own_host, certificates, "plain-plain")
    yield made
    hang_up(made)


@pytest.fixture
def encrypted(own_host, certificates):
    made = Line(own_host, certificates, "tls-tls")
    yield made
    hang_up(made)


def hang_up(line):
    for sock in (line.alice, line.bob, line.front, line.back):
        silence_one(sock)
        sock.abort()


def silence_one(sock):
    for name in [name for name in dir(sock) if name.endswith("_handler")]:
        setattr(sock, name, None)


def data(count, seed):
    """`count` bytes in which no long piece occurs twice, so that nothing can be lost, doubled or swapped unnoticed."""
    words = bytearray()
    for number in range(count // 64 + 1):
        words += b"%064x" % (number * 0x9E3779B97F4A7C15 + seed)
    return bytes(words[:count])


# What goes through


def test_both_directions_and_both_ends(line):
    relay = line.join()
    assert relay.joined and not relay.closed and relay.reason is None
    line.wait_for_talk()
    line.alice.disconnect()
    assert line.end() is RelayReason.ENDED
    line.wait(lambda: line.at_bob.has("disconnected"))
    assert line.at_bob.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]
    assert line.bob.clean_close and line.alice.clean_close and line.front.clean_close and line.back.clean_close
    assert (relay.bytes_forward, relay.bytes_back) == (8, 6)
    assert relay.error_string == "" and relay.duration > 0
    duration = relay.duration
    assert relay.duration == duration, "it counts after the end"
    assert line.at_front.events == line.at_back.events == [], "a handler of a relayed socket was called"


def test_the_other_side_may_end_first(line):
    line.join()
    line.wait_for_talk()
    line.bob.disconnect()
    assert line.end() is RelayReason.ENDED
    line.wait(lambda: line.at_alice.has("disconnected"))


def test_unread_bytes_go_first(host, certificates, kinds):
    line = Line(host, certificates, kinds, reads=False)
    line.alice.write(b"early ")
    line.bob.write(b"soon ")
    line.wait(lambda: line.front.bytes_available == 6 and line.back.bytes_available == 5)
    assert line.front.read(1) == b"e"
    line.join()
    assert line.front.bytes_available == 0 and line.front.read_all() == line.front.peek(9) == line.front.read_line() == b""
    line.alice.write(b"late")
    line.bob.write(b"later")
    line.wait(lambda: line.bob.bytes_available == 9 and line.alice.bytes_available == 10)
    assert line.bob.read_all() == b"arly late" and line.alice.read_all() == b"soon later"
    assert (line.relay.bytes_forward, line.relay.bytes_back) == (9, 10)
    hang_up(line)


def test_unsent_bytes_go_first(host, certificates, kinds):
    """More than the kernel takes is written to each socket before they are joined."""
    line = Line(host, certificates, kinds)
    first, second = data(4 * MIB, 1), data(4 * MIB, 2)
    line.front.write(first)
    line.back.write(second)
    line.join()
    line.alice.write(b"forward")
    line.bob.write(b"back")
    line.wait(lambda: len(line.at_bob.data) == len(second) + 7 and len(line.at_alice.data) == len(first) + 4)
    assert line.at_alice.data == first + b"back" and line.at_bob.data == second + b"forward"
    assert not line.at_front.written
    hang_up(line)


def test_much_both_ways_at_once(line):
    count = 16 * MIB if line.host.kind == "own" else 4 * MIB
    forward, back = data(count, 3), data(count, 4)
    line.join()
    line.alice.write(forward)
    line.bob.write(back)
    line.host.wait_for(
        lambda: len(line.at_bob.data) >= count and len(line.at_alice.data) >= count, line.said(), seconds=60.0, pause=0.001
    )
    assert line.at_bob.data == forward and line.at_alice.data == back
    assert (line.relay.bytes_forward, line.relay.bytes_back) == (count, count)


def test_a_side_is_read_only_while_the_other_takes_what_it_is_sent(line):
    """The reader stops for a while: no more waits in the relay than the kernel's buffers and one receive."""
    count = 32 * MIB
    sent = bytes(count)
    line.bob.read_buffer_size = 1000
    line.at_bob.data = got = bytearray()
    line.bob.ready_read_handler = None
    line.join()
    line.alice.write(sent)
    counts = []

    def is_still():
        counts.append(line.relay.bytes_forward)
        return len(counts) > 40 and len(set(counts[-40:])) == 1

    line.wait(is_still)
    assert 0 < line.relay.bytes_forward < count // 2, line.relay.bytes_forward
    line.bob.write(b"the other way goes on")
    line.wait(lambda: line.at_alice.data == b"the other way goes on")
    line.bob.read_buffer_size = 0
    line.bob.ready_read_handler = lambda s: got.extend(s.read_all())
    got += line.bob.read_all()
    line.host.wait_for(lambda: len(got) >= count, line.said(), seconds=60.0, pause=0.001)
    assert got == sent


# Half-close


def half_close(sock):
    """End the direction of a plain socket by the descriptor, as `shutdown -w` of other programs does."""
    with socket.socket(fileno=socket.dup(sock._channel.fileno())) as own:
        own.shutdown(socket.SHUT_WR)


class EnginePeer:
    """A blocking TLS client that can half-close (the `ssl` module cannot), in a thread's hands."""

    def __init__(self, sock, context):
        self.sock = sock
        self.engine = Engine(context, verify_name="localhost", server_name="localhost")
        self.heard = b""
        sock.sendall(self.engine.start())
        while not self.engine.handshake_done:
            self.take()
            sock.sendall(self.engine.take())

    def take(self):
        piece = self.sock.recv(65536)
        if piece:
            self.heard += self.engine.decrypt(piece)
        return piece

    def send(self, piece):
        self.sock.sendall(self.engine.encrypt(piece))

    def end(self):
        self.sock.sendall(self.engine.close())
        self.sock.shutdown(socket.SHUT_WR)

    def rest(self):
        while not self.engine.peer_closed and self.take():
            pass
        assert self.engine.peer_closed, "cut without close_notify"
        return self.heard


class PlainPeer:
    def __init__(self, sock, context):
        self.sock = sock

    def send(self, piece):
        self.sock.sendall(piece)

    def end(self):
        self.sock.shutdown(socket.SHUT_WR)

    def rest(self):
        heard = b""
        while piece := self.sock.recv(65536):
            heard += piece
        return heard


@contextlib.contextmanager
def in_thread(function, *args):
    """The result list of a function that runs in a thread; what it raises is raised at the end."""
    results, errors = [], []

    def run():
        try:
            results.append(function(*args))
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield results, errors
    finally:
        thread.join(DEADLINE)
        assert not thread.is_alive(), "the peer's thread hangs"
    if errors:
        raise errors[0]


class Gate:
    """A server that joins each connection to a fresh one to `port`: what relays are for."""

    def __init__(self, host, certificates, kinds, port):
        self.host = host
        self.certificates = certificates
        first, self.second = kinds.split("-")
        self.port_behind = port
        self.reasons = []
        self.errors = []
        self.relays = []
        self.secure = first == "tls"
        self.server = SslServer()
        self.server.configuration = certificates.server()
        self.server.new_connection_handler = self.on_new_connection
        listening(self.server)
        self.port = self.server.port

    def on_new_connection(self, server):
        take = server.next_pending_secure_connection if self.secure else server.next_pending_connection
        while (front := take()) is not None:
            back = SslSocket()
            back.configuration = self.certificates.client()
            back.peer_verify_name = "localhost"
            back.connected_handler = lambda back, front=front: self.join(front, back)
            connect = back.connect_encrypted if self.second == "tls" else back.connect
            connect("127.0.0.1", self.port_behind)

    def join(self, front, back):
        relay = Relay(front, back)
        relay.closed_handler = self.on_closed
        self.relays.append(weakref.ref(relay))

    def on_closed(self, relay, reason):
        self.reasons.append(reason)
        self.errors.append(relay.error_string)

    def close(self):
        self.server.close()


@pytest.fixture
def files(certificates, tmp_path):
    """The server's certificate for programs: paths of authority and certificate with key."""
    certificates.ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = certificates.ca.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    return str(tmp_path / "ca.pem"), str(tmp_path / "server.pem")


def answer_at_the_end(listener, secure, files, answer):
    """A server of the standard library that reads to the end of the request and then answers, without a length."""
    sock, _ = listener.accept()
    sock.settimeout(DEADLINE)
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files[1])
        sock = context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
    heard = b""
    with sock:
        while piece := sock.recv(65536):
            heard += piece
        sock.sendall(answer)
        if secure:
            with contextlib.suppress(OSError):  # its connection may be closed by then
                sock.unwrap()
    return heard


def ask_and_end(port, secure, files, question):
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as sock:
        authority = SslCertificate.from_path(files[0])
        context = Context(server_side=False, ca_certificates=authority, use_system_ca=False) if secure else None
        peer = (EnginePeer if secure else PlainPeer)(sock, context)
        peer.send(question)
        peer.end()
        return peer.rest()


def test_a_client_that_half_closes_has_its_whole_answer(host, certificates, kinds, files):
    question, answer = data(300_000, 5), b"HTTP/1.0 200 OK\r\n\r\n" + data(3 * MIB, 6)
    first, second = (kind == "tls" for kind in kinds.split("-"))
    with plain_listener() as listener, in_thread(answer_at_the_end, listener, second, files, answer) as (heard, failed):
        gate = Gate(host, certificates, kinds, listener.getsockname()[1])
        with in_thread(ask_and_end, gate.port, first, files, question) as (told, refused):
            host.wait_for(lambda: (heard or failed) and (told or refused) and gate.reasons, gate.reasons, pause=0.001)
        assert heard == [question] and told == [answer]
        assert gate.reasons == [RelayReason.ENDED]
        gate.close()


def test_openssl_with_piped_input(host, certificates, kinds, files):
    """`echo question | openssl s_client` on one side, `openssl s_server -rev` or a plain server on the other."""
    if not kinds.startswith("tls"):
        pytest.skip("s_client speaks TLS")
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl(1)")
    second = kinds.endswith("tls")
    answer = b"HTTP/1.0 200 OK\r\n\r\n" + data(300_000, 8)
    with plain_listener() as listener, in_thread(answer_a_line, listener, second, files, answer) as (heard, failed):
        gate = Gate(host, certificates, kinds, listener.getsockname()[1])
        command = [program, "s_client", "-quiet", "-verify_return_error", "-CAfile", files[0]]
        command += ["-connect", f"127.0.0.1:{gate.port}"]
        with in_thread(piped, command, b"GET / HTTP/1.0\r\n\r\n") as (out, broken):
            host.wait_for(lambda: (heard or failed) and (out or broken) and gate.reasons, gate.reasons, pause=0.001)
        assert out == [answer] and heard == [b"GET / HTTP/1.0\r\n\r\n"]
        assert gate.reasons[0] in (RelayReason.ENDED, RelayReason.TRUNCATED)  # how s_client leaves is its own affair
        gate.close()


def piped(command, text):
    """What a program says that is given `text` on its standard input, and the end of it."""
    return subprocess.run(command, input=text, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=DEADLINE).stdout


def answer_a_line(listener, secure, files, answer):
    sock, _ = listener.accept()
    sock.settimeout(DEADLINE)
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files[1])
        sock = context.wrap_socket(sock, server_side=True)
    heard = b""
    with sock:
        while b"\r\n\r\n" not in heard:
            heard += sock.recv(65536)
        sock.sendall(answer)
        if secure:
            with contextlib.suppress(OSError):
                sock.unwrap()
    return heard


def test_key_updates_on_both_sides(host, certificates, files, tmp_path):
    """Each side has its own keys: the other one sees nothing of theirs."""
    authority, identity = files
    with talkers(host.wait_for, authority, identity, tmp_path) as (server, port, connect):
        gate = Gate(host, certificates, "tls-tls", port)
        talk_with_key_updates(host.wait_for, connect(gate.port), server)
        assert gate.relays and not gate.reasons, "the relay has ended"
        gate.close()


def test_a_side_whose_peer_has_ended_is_joined_inside_its_error_handler(line):
    """The end of the stream is told there, and the socket would be closed after it."""
    line.alice.write(b"last words")
    line.wait(lambda: line.at_front.data == b"last words")
    made = []

    def on_error(sock, error):
        assert error is SocketError.REMOTE_HOST_CLOSED_ERROR
        made.append(line.join())

    line.front.error_handler = on_error
    line.bob.write(b"to nobody")
    line.alice.disconnect()
    line.wait(lambda: made)
    assert line.end() is RelayReason.ENDED
    line.wait(lambda: line.at_bob.has("disconnected"))
    assert line.bob.clean_close


# Ends that are none


def test_a_stream_that_is_cut_without_close_notify(encrypted):
    line = encrypted
    line.join()
    line.wait_for_talk()
    line.alice.write(b"all of it")
    line.wait(lambda: line.at_bob.data.endswith(b"all of it"))
    half_close(line.alice)
    line.wait(lambda: line.at_bob.has("disconnected"))
    assert line.bob.clean_close is False, "a cut stream was passed on as a clean one"
    assert line.end() is RelayReason.TRUNCATED
    assert line.front.clean_close is False and line.back.clean_close is True


@pytest.mark.parametrize("side", ["front", "back"])
def test_a_reset_ends_the_other_side_after_what_came_before(host, certificates, side):
    """A peer of the standard library sends and resets; what it has sent arrives, and then an end."""
    line = Line(host, certificates, "plain-plain")
    with plain_listener() as listener:
        replaced = SslSocket()
        recorder = Recorder(replaced)
        replaced.connect("127.0.0.1", listener.getsockname()[1])
        host.wait_for(lambda: recorder.has("connected"), recorder.events)
        peer, _ = listener.accept()
        silence_one(getattr(line, side))
        getattr(line, side).abort()
        setattr(line, side, replaced)
        other = line.at_bob if side == "front" else line.at_alice
        line.join()
        peer.sendall(b"the last words")
        host.wait_for(lambda: other.data == b"the last words", other.events)
        reset(peer)
        assert line.end() is RelayReason.RESET
        host.wait_for(lambda: other.has("disconnected"), other.events)
        assert f"port {listener.getsockname()[1]}: Connection reset by peer" in line.relay.error_string
        assert replaced.clean_close is False
    hang_up(line)


def test_tls_that_fails(encrypted):
    line = encrypted
    line.join()
    line.wait_for_talk()
    with socket.socket(fileno=socket.dup(line.alice._channel.fileno())) as own:
        own.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))  # a record that does not decrypt
    assert line.end() is RelayReason.TLS_ERROR
    assert "bad record mac" in line.relay.error_string, line.relay.error_string
    line.wait(lambda: line.at_bob.has("disconnected") and line.at_alice.has("disconnected"))
    assert line.bob.clean_close is False
    assert line.front.clean_close is False and line.back.clean_close is True
    assert "bad record mac" in line.alice.error_string, "the peer has had no alert"


def send_and_give_up(port, files):
    """A client that sends, and then takes what it hears for damaged: that is a fatal alert."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as sock:
        peer = EnginePeer(sock, Context(server_side=False, ca_certificates=SslCertificate.from_path(files[0])))
        peer.send(b"the last words")
        with contextlib.suppress(TlsError):
            peer.engine.decrypt(b"\x17\x03\x03\x00\x20" + bytes(32))
        sock.sendall(peer.engine.take())
        with contextlib.suppress(TlsError):  # nothing is read after it
            while peer.take():
                pass


def test_a_fatal_alert(host, certificates, files):
    with plain_listener() as listener:
        gate = Gate(host, certificates, "tls-plain", listener.getsockname()[1])
        with in_thread(send_and_give_up, gate.port, files) as (left, failed), in_thread(read_all, listener) as (heard, broken):
            host.wait_for(lambda: gate.reasons and (left or failed) and (heard or broken), gate.reasons)
        assert heard == [b"the last words"] and gate.reasons == [RelayReason.TLS_ERROR]
        assert "port" in gate.errors[0] and 'the peer sent the alert "bad record mac"' in gate.errors[0]
        gate.close()


def read_all(listener):
    sock, _ = listener.accept()
    with sock:
        return PlainPeer(sock, None).rest()


# Idle


def test_idle_timeout(line):
    line.join(idle_timeout=0.05)
    assert line.relay.idle_timeout == 0.05
    assert line.end() is RelayReason.IDLE_TIMEOUT
    assert line.relay.duration >= 0.05
    line.wait(lambda: line.at_alice.has("disconnected") and line.at_bob.has("disconnected"))
    assert line.relay.error_string == ""


def test_idle_timeout_set_and_taken_back_while_it_runs(plain):
    line = plain
    line.join()
    line.relay.idle_timeout = 0.03
    line.relay.idle_timeout = 0
    timer = []
    line.host.loop.call_later(0.1, timer.append, 1)
    line.wait(lambda: timer)
    assert line.relay.joined
    line.relay.idle_timeout = 0.03
    assert line.end() is RelayReason.IDLE_TIMEOUT


def test_an_idle_timeout_in_one_direction_only_is_none(plain):
    line = plain
    line.join(idle_timeout=1.0)
    ticks = []

    def tick():
        line.alice.write(b".")
        ticks.append(line.host.loop.call_later(0.02, tick))

    tick()
    over = []
    line.host.loop.call_later(1.5, over.append, 1)
    line.wait(lambda: over)
    assert line.relay.joined
    ticks[-1].cancel()
    line.relay.idle_timeout = 0.03
    assert line.end() is RelayReason.IDLE_TIMEOUT


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan")])
def test_bad_idle_timeouts(plain, seconds):
    with pytest.raises(ValueError, match="idle_timeout"):
        plain.join(idle_timeout=seconds)
    assert plain.front._relay is None and plain.front.state is CONNECTED
    plain.join(idle_timeout=float("inf"))
    with pytest.raises(ValueError, match="idle_timeout"):
        plain.relay.idle_timeout = seconds
    with pytest.raises(TypeError):
        plain.relay.idle_timeout = "soon"
    assert plain.relay.idle_timeout == float("inf")
    plain.wait_for_talk()


# The sockets meanwhile


def test_what_a_relayed_socket_says(encrypted):
    line = encrypted
    names = [(s.local_address, s.local_port, s.remote_address, s.remote_port) for s in (line.alice, line.back)]
    cipher, certificate = line.back.session_cipher, line.back.peer_certificate
    relay = line.join()
    assert relay.front is line.front and relay.back is line.back and relay.loop is line.front.loop
    assert "joined" in repr(relay)
    line.wait_for_talk()
    for sock in (line.front, line.back):
        assert sock.state is CONNECTED and sock.valid and sock.encrypted and sock.error is None
        assert sock.bytes_available == 0 and sock.bytes_to_write == 0 and sock.at_end and not sock.can_read_line
    assert line.back.session_cipher == cipher and line.back.peer_certificate == certificate and cipher
    assert (line.front.remote_address, line.front.remote_port, line.front.local_address, line.front.local_port) == names[0]
    assert (line.back.local_address, line.back.local_port, line.back.remote_address, line.back.remote_port) == names[1]
    line.alice.disconnect()
    line.end()
    assert line.back.session_cipher == cipher and not line.back.encrypted and line.back.mode is SslMode.UNENCRYPTED_MODE
    assert line.back.local_port == line.back.remote_port == 0
    assert "ENDED" in repr(relay)


def test_local_address_that_nobody_has_asked_for_before(plain):
    port = plain.alice.remote_port
    plain.join()
    assert plain.front.local_port == port and plain.front.local_address == "127.0.0.1"


def test_write_is_refused(plain):
    line = plain
    line.join()
    assert line.front.write(b"x") == -1
    assert line.front.error is SocketError.OPERATION_ERROR and "relay" in line.front.error_string
    assert line.at_front.events == [("error", SocketError.OPERATION_ERROR)]
    with pytest.raises(TypeError):
        line.front.write("text")
    line.wait_for_talk()


def test_connecting_or_binding_a_relayed_socket_is_refused(plain):
    line = plain
    line.join()
    line.front.connect("127.0.0.1", 9)
    assert line.front.error is SocketError.OPERATION_ERROR
    assert line.back.bind(0) is False
    line.wait_for_talk()


@pytest.mark.parametrize("start", ["start_client_encryption", "start_server_encryption"])
def test_encryption_does_not_start_in_a_relay(plain, start):
    """Silently it must not be refused: the program would think that what goes through is encrypted."""
    plain.join()
    with pytest.raises(RuntimeError, match="before the socket is put in a relay"):
        getattr(plain.back, start)()
    assert plain.back.mode is SslMode.UNENCRYPTED_MODE
    plain.wait_for_talk()


@pytest.mark.parametrize("act", ["close", "abort", "disconnect"])
@pytest.mark.parametrize("who", ["front", "back", "relay"])
def test_the_program_ends_it(line, act, who):
    if who == "relay" and act != "close":
        pytest.skip("a relay has close only")
    line.join()
    line.wait_for_talk()
    getattr(getattr(line, who), act)()
    assert line.ends == [RelayReason.ABORTED]
    line.relay.close()
    assert line.ends == [RelayReason.ABORTED], "told twice"
    line.wait(lambda: line.at_alice.has("disconnected") and line.at_bob.has("disconnected"))
    expected = [] if who == "relay" or act == "disconnect" else [("about_to_close",)]
    assert line.at_front.events + line.at_back.events == expected


def test_twins(plain):
    line = plain
    line.join()
    results = []
    front = line.front
    with in_thread(lambda: [front.read_async().result(DEADLINE), front.write_async(b"x").result(DEADLINE)]) as (got, bad):
        line.wait(lambda: got or bad)
    assert got == [[b"", -1]]
    with in_thread(lambda: line.relay.close_async(lambda relay, result, error: results.append((relay, result, error)))):
        line.wait(lambda: results)
    assert results == [(line.relay, None, None)] and line.ends == [RelayReason.ABORTED]


def test_a_foreign_thread_is_refused(plain):
    line = plain

    def attempt(action):
        with pytest.raises(RuntimeError):
            action()
        return True

    with in_thread(attempt, line.join) as (refused, _):
        pass
    assert refused
    line.join()
    for action in (line.relay.close, lambda: setattr(line.relay, "idle_timeout", 1)):
        with in_thread(attempt, action) as (refused, _):
            pass
        assert refused
    assert line.relay.joined and line.relay.idle_timeout == 0
    line.wait_for_talk()


def test_sockets_of_two_loops(plain):
    def elsewhere():
        loop = EventLoop.current()
        try:
            with pytest.raises(ValueError, match="one loop"):
                Relay(TcpSocket(), plain.back)
        finally:
            loop.close()
        return True

    with in_thread(elsewhere) as (done, _):
        pass
    assert done


def test_what_cannot_be_joined(plain, own_host):
    line = plain
    for wrong in (None, 3, socket.socket, object()):
        with pytest.raises(TypeError, match="a relay joins sockets"):
            Relay(line.front, wrong)
        with pytest.raises(TypeError, match="a relay joins sockets"):
            Relay(wrong, line.back)
    with pytest.raises(ValueError, match="itself"):
        Relay(line.front, line.front)
    with pytest.raises(ValueError, match="UNCONNECTED"):
        Relay(line.front, SslSocket())
    assert line.front._relay is None
    line.join()
    with pytest.raises(ValueError, match="already"):
        Relay(line.alice, line.front)
    assert line.alice._relay is None
    line.wait_for_talk()


@pytest.mark.parametrize("name", ["state_changed_handler", "error_handler", "disconnected_handler"])
def test_a_connection_that_has_failed_cannot_be_joined(own_host, certificates, name):
    """Inside the handlers that tell of it the socket may still be CONNECTED."""
    line = Line(own_host, certificates, "plain-plain")
    with plain_listener() as listener:
        sock = SslSocket()
        sock.connect("127.0.0.1", listener.getsockname()[1])
        own_host.wait_for(lambda: sock.state is CONNECTED)
        peer, _ = listener.accept()
        refusals = []

        def on_event(s, *args):
            with pytest.raises(ValueError, match="a relay joins connected sockets"):
                Relay(line.front, s)
            refusals.append(s.state)

        setattr(sock, name, on_event)
        reset(peer)
        own_host.wait_for(lambda: refusals)
    line.join()
    line.wait_for_talk()
    hang_up(line)


def test_the_sockets_may_be_connected_again_in_the_end(line):
    server = listening(TcpServer())
    recorder = Recorder(line.back)
    line.join()

    def on_closed(relay, reason):
        line.ends.append(reason)
        line.back.connect("127.0.0.1", server.port)
        line.back.write(b"again")

    line.relay.closed_handler = on_closed
    line.alice.disconnect()
    line.end()
    again = accept(line.host, server)
    line.wait(lambda: again.data == b"again")
    assert recorder.of("state")[-1] is CONNECTED
    assert line.back.error is None and line.back.state is CONNECTED and line.back._relay is None
    again.socket.write(b"welcome")
    line.wait(lambda: recorder.data == b"welcome")
    silence_one(again.socket)
    again.socket.abort()
    server.close()


# Waiting for a handshake


class Shaking:
    """alice has connected to `front` in the clear; `back` has connected to a listener that does nothing yet."""

    def __init__(self, host, certificates):
        self.host = host
        self.certificates = certificates
        pair = make_tcp_pair(host, SslSocket)
        self.alice, self.front, self.at_alice, self.at_front = pair.client, pair.server, pair.left, pair.right
        self.server = SslServer()
        self.server.configuration = certificates.server()
        listening(self.server)
        self.back = SslSocket()
        self.back.configuration = certificates.client()
        self.back.peer_verify_name = "localhost"
        self.at_back = Recorder(self.back)
        self.ends = []
        self.relay = None
        self.written_first = b""
        self.bob = self.at_bob = None

    def connect(self):
        self.back.connected_handler = self.on_connected
        self.back.connect_encrypted("127.0.0.1", self.server.port)
        self.host.wait_for(lambda: self.relay)

    def on_connected(self, sock):
        self.at_front.clear()
        self.at_back.clear()
        sock.write(self.written_first)
        self.relay = Relay(self.front, sock)
        self.relay.closed_handler = lambda relay, reason: self.ends.append(reason)

    def take(self):
        self.at_bob = accept(self.host, self.server)
        self.bob = self.at_bob.socket

    def close(self):
        self.server.close()
        for sock in (self.alice, self.front, self.back, self.bob):
            if sock is not None:
                silence_one(sock)
                sock.abort()


@pytest.fixture
def shaking(host, certificates):
    made = Shaking(host, certificates)
    yield made
    made.close()


def test_a_handshake_under_way_is_awaited(shaking):
    """Meanwhile one side may have more to say than is kept of it; the relay is made where it is not yet begun."""
    line, sent = shaking, data(8 * MIB, 9)
    line.connect()
    assert "waiting" in repr(line.relay) and not line.relay.joined and not line.relay.closed
    assert (line.relay.bytes_forward, line.relay.bytes_back, line.relay.duration) == (0, 0, 0)
    line.alice.write(sent)
    line.host.wait_for(lambda: line.front._channel.bytes_available == 64 * 1024)
    line.host.turn(10)
    assert line.front._channel.bytes_available == 64 * 1024, "what is kept of a waiting side is not bounded"
    line.front.read_buffer_size = 100
    line.front.read_buffer_size = 0
    line.host.turn(10)
    assert line.front._channel.bytes_available == 64 * 1024
    assert line.front.bytes_available == 0 and line.front.read_all() == b""
    line.take()
    line.host.wait_for(lambda: len(line.at_bob.data) == len(sent), line.at_back.events, pause=0.001)
    assert line.at_bob.data == sent
    assert line.at_back.names() == ["mode", "encrypted"] and line.at_front.events == []
    assert line.back.encrypted and line.relay.joined


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_a_small_read_buffer_does_not_stop_it(shaking, size):
    line = shaking
    line.front.read_buffer_size = line.back.read_buffer_size = size
    line.connect()
    line.alice.write(data(100_000, 1))
    line.take()
    line.bob.write(data(100_000, 2))
    line.host.wait_for(lambda: len(line.at_bob.data) == len(line.at_alice.data) == 100_000, pause=0.001)
    assert line.at_bob.data == data(100_000, 1) and line.at_alice.data == data(100_000, 2)


def test_what_was_written_before_the_handshake_leaves_encrypted_and_first(shaking):
    line = shaking
    line.written_first = b"first "
    line.connect()
    line.alice.write(b"second")
    line.take()
    line.host.wait_for(lambda: line.at_bob.data == b"first second", line.at_back.events)
    assert line.bob.encrypted


def test_a_handshake_that_fails_is_told_by_its_error_handler_alone(shaking):
    line = shaking
    line.back.peer_verify_name = "other.example"
    line.connect()
    line.take()
    line.host.wait_for(lambda: line.ends, line.at_back.events)
    assert line.ends == [RelayReason.HANDSHAKE_FAILED]
    assert line.at_back.names() == ["mode", "ssl_errors", "error"] and line.at_front.events == []
    assert line.relay.error_string == line.back.error_string != ""
    assert line.back.error is SocketError.SSL_HANDSHAKE_FAILED_ERROR and line.front.error is None
    line.host.wait_for(lambda: line.at_alice.has("disconnected") and line.at_bob.has("disconnected"))
    assert "alert" in line.at_bob.socket.error_string, "the peer has not had the alert"


def test_a_handshake_timeout_ends_it(shaking):
    line = shaking
    line.back.handshake_timeout = 0.05
    line.connect()
    line.host.wait_for(lambda: line.ends)
    assert line.ends == [RelayReason.HANDSHAKE_FAILED] and "in time" in line.relay.error_string


def test_a_configuration_that_cannot_encrypt_lets_nothing_through_in_the_clear(shaking):
    """`start_client_encryption` with it fails later, from the loop; until then the channel has no TLS."""
    line = shaking
    line.back.configuration.ciphers = "no such cipher"
    line.alice.write(b"secret")
    line.connect()
    line.host.wait_for(lambda: line.ends)
    assert line.ends == [RelayReason.HANDSHAKE_FAILED]
    assert line.at_back.of("error") == [SocketError.SSL_INVALID_USERDATA_ERROR]
    line.host.wait_for(lambda: line.server.has_pending_connections)
    plain = Recorder(line.server.next_pending_connection())
    line.host.wait_for(lambda: plain.has("disconnected"))
    assert plain.data == b"", "bytes went out that were to be encrypted"
    assert line.relay.bytes_forward == 0


def test_the_waiting_side_may_end_its_stream(shaking):
    line = shaking
    line.connect()
    line.alice.write(b"the only line")
    line.alice.disconnect()
    line.host.wait_for(lambda: line.front._channel.bytes_available)
    line.host.turn(10)
    line.take()
    line.host.wait_for(lambda: line.ends, line.at_back.events)
    assert line.ends == [RelayReason.ENDED] and line.at_bob.data == b"the only line"
    assert line.at_front.events == []


def test_a_waiting_side_that_resets_ends_it(host, certificates):
    line = Shaking(host, certificates)
    with plain_listener() as listener:
        line.front.abort()
        line.front = SslSocket()
        at_front = Recorder(line.front)
        line.front.connect("127.0.0.1", listener.getsockname()[1])
        host.wait_for(lambda: line.front.state is CONNECTED)
        peer, _ = listener.accept()
        at_front.clear()
        line.at_front = at_front
        line.connect()
        reset(peer)
        host.wait_for(lambda: line.ends)
    assert line.ends == [RelayReason.RESET]
    assert at_front.names() == ["error"] and line.back.state is UNCONNECTED
    line.close()


@pytest.mark.parametrize("who", ["front", "back", "relay"])
def test_closed_before_it_is_joined(shaking, who):
    line = shaking
    line.connect()
    line.alice.write(b"into nowhere")
    line.host.wait_for(lambda: line.front._channel.bytes_available)
    (line.relay if who == "relay" else getattr(line, who)).close()
    assert line.ends == [RelayReason.ABORTED]
    assert line.front.state is UNCONNECTED and line.back.state is UNCONNECTED
    line.host.wait_for(lambda: line.at_alice.has("disconnected"))
    assert line.relay.bytes_forward == 0 and line.relay.duration == 0


def test_both_sides_are_shaking_hands(host, certificates):
    """STARTTLS on both: each has begun, neither is done."""
    one, two = make_tcp_pair(host, SslSocket), make_tcp_pair(host, SslSocket, reads=False)
    for sock in (one.client, two.client):
        sock.configuration = certificates.client()
        sock.peer_verify_name = "localhost"
    for sock in (one.server, two.server):
        sock.configuration = certificates.server()
    one.server.start_server_encryption()
    two.client.start_client_encryption()
    relay = Relay(one.server, two.client)
    ends = []
    relay.closed_handler = lambda relay, reason: ends.append(reason)
    one.client.start_client_encryption()
    one.client.write(b"from the left")
    host.wait_for(lambda: one.server.encrypted)
    assert not relay.joined
    two.right = Recorder(two.server)
    two.server.start_server_encryption()
    two.server.write(b"from the right")
    host.wait_for(lambda: one.left.data == b"from the right" and two.right.data == b"from the left")
    one.client.disconnect()
    host.wait_for(lambda: ends)
    assert ends == [RelayReason.ENDED]
    silence(one)
    silence(two)
    for sock in (one.client, two.server):
        sock.abort()


def test_sockets_that_the_system_cannot_watch(shaking, monkeypatch):
    """The failure is told from the loop, when there can be a handler for it."""
    line = shaking

    def refuse(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(relay_module, "ChannelRelay", refuse)
    relay = Relay(line.front, make_tcp_pair(line.host).client)
    ends = []
    assert not relay.closed and not relay.joined
    relay.closed_handler = lambda relay, reason: ends.append(reason)
    line.host.wait_for(lambda: ends)
    assert ends == [RelayReason.RESOURCE_ERROR] and "No space left" in relay.error_string
    assert line.front.state is UNCONNECTED


# The ClientHello


class Passing:
    """A server whose connections ask `client_hello_handler`; `bob` is the server that the client means."""

    def __init__(self, host, certificates, decide, seconds=5.0):
        self.host = host
        self.certificates = certificates
        self.ends = []
        self.hellos = []
        self.behind = SslServer()
        self.behind.configuration = certificates.server()
        listening(self.behind)
        self.back = SslSocket()
        self.at_back = Recorder(self.back)
        self.back.connect("127.0.0.1", self.behind.port)
        host.wait_for(lambda: self.back.state is CONNECTED)
        self.gate = SslServer()
        self.gate.configuration = certificates.server("gate.example")
        self.gate.handshake_timeout = seconds
        self.gate.client_hello_handler = lambda sock, hello: (self.hellos.append(hello), decide(self, sock))
        listening(self.gate)
        self.alice = SslSocket()
        self.alice.configuration = certificates.client()
        self.alice.peer_verify_name = "localhost"
        self.at_alice = Recorder(self.alice)
        self.alice.connect_encrypted("127.0.0.1", self.gate.port)
        self.alice.write(b"through")
        # The ClientHello is on its way before the handshake's time begins.
        host.wait_for(lambda: self.gate.has_pending_connections and self.alice.mode is SslMode.SSL_CLIENT_MODE)
        self.front = self.gate.next_pending_secure_connection()
        self.at_front = Recorder(self.front)
        self.relay = None

    def join(self):
        self.at_front.clear()
        self.relay = Relay(self.front, self.back)
        self.relay.closed_handler = lambda relay, reason: self.ends.append(reason)

    def check_passed(self):
        """alice and bob shake hands with each other."""
        bob = accept(self.host, self.behind)
        self.host.wait_for(lambda: bob.data == b"through", (bob.events, self.at_alice.events))
        bob.socket.write(b"and back")
        self.host.wait_for(lambda: self.at_alice.data == b"and back")
        assert self.alice.peer_certificate == self.behind.configuration.local_certificate_chain[0]
        assert self.front.mode is SslMode.UNENCRYPTED_MODE and not self.front.encrypted and not self.front.handshake_held
        assert self.front.session_cipher == "" and self.relay.joined
        self.front.continue_handshake()
        self.alice.disconnect()
        self.host.wait_for(lambda: self.ends)
        assert self.ends == [RelayReason.ENDED] and len(self.hellos) == 1
        assert self.at_front.events == []
        silence_one(bob.socket)
        bob.socket.abort()
        self.close()

    def close(self):
        self.gate.close()
        self.behind.close()
        for sock in (self.alice, self.front, self.back):
            silence_one(sock)
            sock.abort()


def test_passthrough_from_inside_client_hello_handler(host, certificates):
    passing = Passing(host, certificates, lambda passing, sock: passing.join())
    host.wait_for(lambda: passing.relay)
    assert passing.hellos[0].server_name == "localhost"
    passing.check_passed()


def test_passthrough_of_a_held_handshake(host, certificates):
    passing = Passing(host, certificates, lambda passing, sock: sock.hold_handshake())
    host.wait_for(lambda: passing.hellos)
    host.turn(5)
    passing.join()
    assert passing.relay.joined
    passing.check_passed()


def test_a_held_handshake_whose_deadline_has_been_taken_off(own_host, certificates):
    """Passed through, it is no handshake of ours, and nothing ends it."""
    passing = Passing(own_host, certificates, lambda passing, sock: passing.join(), seconds=0.05)
    own_host.wait_for(lambda: passing.relay)
    timer = []
    own_host.loop.call_later(0.1, timer.append, 1)
    own_host.wait_for(lambda: timer)
    passing.check_passed()


def test_what_was_written_to_be_encrypted_does_not_pass(own_host, certificates):
    passing = Passing(own_host, certificates, lambda passing, sock: sock.hold_handshake())
    own_host.wait_for(lambda: passing.hellos)
    passing.front.write(b"for the client alone")
    with pytest.raises(ValueError, match="to be encrypted"):
        passing.join()
    assert passing.front.handshake_held and passing.back._relay is None
    passing.front.configuration = certificates.server()
    passing.front.continue_handshake()
    own_host.wait_for(lambda: passing.at_alice.data == b"for the client alone")
    passing.close()


@pytest.mark.parametrize("hold", [False, True])
def test_a_relay_made_before_the_clienthello_has_come(host, certificates, hold):
    """There is a handshake under way: the handler is asked, the handshake made, then it is joined."""
    terms = certificates.server()

    def decide(passing, sock):
        sock.configuration = terms
        if hold:
            sock.hold_handshake()

    passing = Passing(host, certificates, decide)
    passing.join()
    assert not passing.relay.joined
    host.wait_for(lambda: passing.hellos)
    if hold:
        host.turn(5)
        assert not passing.relay.joined and passing.front.handshake_held
        passing.front.continue_handshake()
    bob = Recorder(_taken(passing))
    host.wait_for(lambda: bob.data == b"through", passing.at_alice.events)
    assert passing.front.encrypted and passing.relay.joined and passing.at_front.names() == ["encrypted"]
    passing.alice.disconnect()
    host.wait_for(lambda: passing.ends)
    assert passing.ends == [RelayReason.ENDED]
    silence_one(bob.socket)
    bob.socket.abort()
    passing.close()


def _taken(passing):
    passing.host.wait_for(lambda: passing.behind.has_pending_connections)
    return passing.behind.next_pending_connection()


@pytest.mark.parametrize("how", ["closed", "garbage", "overdue", "raised"])
def test_a_clienthello_that_comes_to_nothing(own_host, certificates, how):
    """The relay that waits for it ends."""

    def decide(passing, sock):
        if how == "raised":
            raise ZeroDivisionError
        sock.hold_handshake()

    passing = Passing(own_host, certificates, decide)
    if how != "raised":
        own_host.wait_for(lambda: passing.hellos)
        passing.alice.abort()
        passing.front.abort()
        peer = socket.create_connection(("127.0.0.1", passing.gate.port), DEADLINE)
        passing.gate.handshake_timeout = 0.05 if how == "overdue" else 5.0
        own_host.wait_for(lambda: passing.gate.has_pending_connections)
        passing.front = passing.gate.next_pending_secure_connection()
        passing.at_front = Recorder(passing.front)
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n" if how == "garbage" else b"\x16\x03\x01")
    passing.join()
    if how == "closed":
        peer.close()
    own_host.wait_for(lambda: passing.ends)
    assert passing.ends == [RelayReason.HANDSHAKE_FAILED]
    assert passing.at_front.names() == ["error"] and passing.relay.error_string
    assert passing.back.state is UNCONNECTED
    failures = own_host.take_failures()
    assert [type(failure) for failure in failures] == ([ZeroDivisionError] if how == "raised" else [])
    if how != "raised":
        peer.close()
    passing.close()


# Lives


def test_it_lives_without_references_and_dies_with_its_end(line):
    line.join()
    reference, ends = weakref.ref(line.relay), []
    line.relay.closed_handler = lambda relay, reason: ends.append(reason)
    line.relay = None
    gc.collect()
    assert reference() is not None
    line.alice.write(b"still here")
    line.host.wait_for(lambda: line.at_bob.data == b"still here")
    line.alice.disconnect()
    line.host.wait_for(lambda: ends)
    gc.collect()
    assert reference() is None, gc.get_referrers(reference())


def test_a_loop_that_is_closed_leaves_nothing(own_host, certificates):
    line = Line(own_host, certificates, "tls-plain")
    waiting = Shaking(own_host, certificates)
    waiting.connect()
    references = [weakref.ref(line.join()), weakref.ref(waiting.relay), weakref.ref(line.front), weakref.ref(waiting.back)]
    own_host.loop.close()
    for one in (line, waiting):
        for sock in (one.alice, one.bob, one.front, one.back):
            if sock is not None:
                silence_one(sock)
    del line, waiting, one, sock
    gc.collect()
    assert [reference() for reference in references] == [None] * 4
