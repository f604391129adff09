"""client_hello_handler: what a server does between the client's first bytes and the handshake."""

from __future__ import annotations

import contextlib
import gc
import random
import shutil
import socket
import ssl
import subprocess
import threading
import weakref

import pytest

from core.hellos import alpn, body_of, made_by_ssl, message_of, records_of, server_name, signatures, versions
from peers import (
    DEADLINE,
    Pair,
    Recorder,
    accept,
    listening,
    make_tcp_pair,
    reset,
    silence,
    wait_for_end,
)
from sslsock import ClientHello, SocketError, SocketState, SslConfiguration, SslMode, SslProtocol, SslServer, SslSocket

UNENCRYPTED, CLIENT, SERVER = SslMode
HANDSHAKE_FAILED = SocketError.SSL_HANDSHAKE_FAILED_ERROR
HELLO = records_of(
    message_of(body_of([0x1301], [server_name(b"localhost"), alpn(b"h2"), signatures(0x0403), versions(0x0304)]))
)


def quieten(*sockets):
    """Take all handlers off, the recorders' too."""
    for sock in sockets:
        silence(Pair(None, sock, sock, None, None))
        sock.client_hello_handler = None


class Peer:
    """A plain socket for a client, on a server socket of ours that waits for its ClientHello."""

    def __init__(self, host, certificates, handler, timeout=10.0, **settings):
        self.host = host
        self.hellos = []
        server = listening(SslServer())
        server.configuration = certificates.server()
        server.handshake_timeout = timeout

        def note(sock, hello):
            self.hellos.append(hello)
            if handler is not None:
                handler(sock, hello)

        server.client_hello_handler = note
        self.peer = socket.create_connection(("127.0.0.1", server.port))
        self.peer.settimeout(DEADLINE)
        self.recorder = accept(host, server)
        self.socket = self.recorder.socket
        for name, value in settings.items():
            setattr(self.socket, name, value)
        server.close()

    def wait(self, condition):
        self.host.wait_for(condition, (self.recorder.events, self.hellos))

    def wait_for_hello(self):
        self.wait(lambda: self.hellos)

    def answer(self):
        """All that is sent to the client until the end."""
        self.peer.setblocking(False)
        data = bytearray()

        def ended():
            try:
                piece = self.peer.recv(65536)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True
            data.extend(piece)
            return not piece

        self.wait(ended)
        return bytes(data)

    def check_failure(self, *words):
        wait_for_end(self.host, self.recorder)
        assert self.recorder.of("error") == [HANDSHAKE_FAILED]
        for word in words:
            assert word in self.socket.error_string
        assert self.recorder.events[-1] == ("disconnected",)
        assert self.socket.state is SocketState.UNCONNECTED_STATE and self.socket.mode is UNENCRYPTED
        assert not self.socket.handshake_held and not self.socket.clean_close
        assert not self.recorder.has("encrypted") and not self.recorder.data

    def close(self):
        self.peer.close()
        self.socket.abort()
        quieten(self.socket)


@pytest.fixture
def peer(host, certificates):
    made = []

    def make(handler=None, timeout=10.0, **settings):
        made.append(Peer(host, certificates, handler, timeout, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Talk:
    """A client of the ssl module in a thread: handshake, a question, the answer."""

    def __init__(self, port, certificates, name="localhost", newest=ssl.TLSVersion.TLSv1_3, protocols=()):
        self._address = ("127.0.0.1", port)
        self._name = name
        self.error = None
        self.answer = b""
        self.names = ()
        self.protocol = None
        self._context = ssl.create_default_context(cadata=certificates.ca.cert_pem.bytes().decode())
        self._context.maximum_version = newest
        if protocols:
            self._context.set_alpn_protocols(list(protocols))
        # A thread, not a subclass of one, whose attributes could be the interpreter's own (`_context` is, in new ones).
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def is_alive(self):
        return self._thread.is_alive()

    def _run(self):
        try:
            plain = socket.create_connection(self._address, DEADLINE)
            with plain, self._context.wrap_socket(plain, server_hostname=self._name) as sock:
                self.names = tuple(value for _, value in sock.getpeercert()["subjectAltName"])
                self.protocol = sock.selected_alpn_protocol()
                sock.sendall(b"question")
                while piece := sock.recv(100):
                    self.answer += piece
        except OSError as exc:
            self.error = exc


def serve(host, server, client):
    """Answer one client, and wait until it has got it."""
    recorder = accept(host, server)
    host.wait_for(lambda: recorder.data == b"question" or recorder.has("disconnected"), recorder.events)
    recorder.socket.write(b"answer")
    recorder.socket.disconnect()
    wait_for_end(host, recorder)
    host.wait_for(lambda: not client.is_alive(), "the client's end")
    server.close()
    return recorder


def server_with(handler, configuration):
    server = listening(SslServer())
    server.configuration = configuration
    server.client_hello_handler = handler
    return server


# The handler decides


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["one.example", "two.example"])
def test_it_chooses_the_configuration_by_name(host, certificates, newest, name):
    choice = {each: certificates.server(each) for each in ("one.example", "two.example")}
    seen = []

    def choose(sock, hello):
        seen.append((hello.server_name, hello.next_protocols, hello.protocols[0]))
        sock.configuration = choice[hello.server_name]

    server = server_with(choose, certificates.server())
    client = Talk(server.port, certificates, name, newest, ["h2", "http/1.1"])
    recorder = serve(host, server, client)
    assert client.error is None and client.answer == b"answer"
    assert client.names == (name,)
    assert seen == [(name, ("h2", "http/1.1"), newest)]
    assert recorder.socket.requested_server_name == name
    assert recorder.of("mode") == [UNENCRYPTED]  # to SSL_SERVER_MODE it went before the recorder came


def test_it_chooses_by_protocol(host, certificates):
    http2 = certificates.server()
    http2.allowed_next_protocols = ["h2"]

    def choose(sock, hello):
        if "h2" in hello.next_protocols:
            sock.configuration = http2

    for offer, agreed in ((["h2"], "h2"), (["http/1.1"], None)):
        server = server_with(choose, certificates.server())
        client = Talk(server.port, certificates, protocols=offer)
        serve(host, server, client)
        assert client.error is None and client.protocol == agreed


def test_versions_compare_with_SslProtocol(peer):
    p = peer()
    p.peer.sendall(HELLO)
    p.wait_for_hello()
    assert SslProtocol.TLS_1_3 in p.hellos[0].protocols
    assert isinstance(p.hellos[0], ClientHello)


def test_it_is_called_once_and_only_for_servers_that_have_one(host, certificates):
    calls = []
    server = server_with(lambda sock, hello: calls.append(sock), certificates.server())
    client = SslSocket()
    client.configuration = certificates.client()
    client.client_hello_handler = lambda sock, hello: calls.append("client")
    left = Recorder(client)
    client.peer_verify_name = "localhost"
    client.connect_encrypted("127.0.0.1", server.port)
    right = accept(host, server)
    host.wait_for(lambda: client.encrypted and right.socket.encrypted, (left.events, right.events))
    assert calls == [right.socket]
    server.client_hello_handler = None
    other = SslSocket()
    other.configuration, other.peer_verify_name = certificates.client(), "localhost"
    other.connect_encrypted("127.0.0.1", server.port)
    last = accept(host, server)
    host.wait_for(lambda: other.encrypted and last.socket.encrypted, last.events)
    assert len(calls) == 1
    for sock in (client, right.socket, other, last.socket):
        sock.abort()
        quieten(sock)
    server.close()


def test_the_modes_and_what_can_be_read_on_the_way(peer):
    seen = []

    def look(sock, hello):
        seen.append((sock.mode, sock.encrypted, sock.handshake_held, sock.bytes_available, sock.read(), sock.peek()))

    p = peer(look)
    assert p.socket.mode is SERVER and not p.socket.handshake_held
    p.peer.sendall(HELLO[:40])
    p.host.turn()
    assert p.socket.bytes_available == 0 and not p.hellos
    p.peer.sendall(HELLO[40:])
    p.wait_for_hello()
    assert seen == [(SERVER, False, True, 0, b"", b"")]
    assert not p.socket.handshake_held


@pytest.mark.parametrize("step", [1, 3, 100])
@pytest.mark.parametrize("record", [1, 50, 16384])
def test_it_may_come_in_pieces(host, certificates, step, record):
    """Our own client's, cut into records and packets; the handshake then still succeeds."""
    server = server_with(lambda sock, hello: calls.append(hello.server_name), certificates.server())
    calls = []
    listener = socket.create_server(("127.0.0.1", 0))
    client = Talk(listener.getsockname()[1], certificates)
    near, _ = listener.accept()
    far = socket.create_connection(("127.0.0.1", server.port))
    far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def relay():
        first = near.recv(65536)
        while len(first) < 5 + int.from_bytes(first[3:5], "big"):
            first += near.recv(65536)
        data = records_of(first[5:], record)
        for start in range(0, len(data), step):
            far.sendall(data[start : start + step])
        back = threading.Thread(target=pump, args=(far, near), daemon=True)
        back.start()
        pump(near, far)
        back.join()

    def pump(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    serve(host, server, client)
    assert client.error is None and client.answer == b"answer" and calls == ["localhost"]
    for sock in (near, far, listener):
        sock.close()
    thread.join(DEADLINE)


@pytest.mark.parametrize("bound", [1, 100, 5000])
def test_a_small_read_buffer_is_no_obstacle(peer, certificates, bound):
    p = peer(read_buffer_size=bound)
    p.peer.sendall(records_of(message_of(body_of(extensions=[(21, bytes(20_000))]))))
    p.wait_for_hello()
    assert p.hellos[0].extensions == (21,)
    assert p.socket.read_buffer_size == bound


def test_the_read_buffers_bound_is_in_force_afterwards(host, certificates):
    server = server_with(lambda sock, hello: None, certificates.server())
    client = SslSocket()
    client.configuration, client.peer_verify_name = certificates.client(), "localhost"
    client.connect_encrypted("127.0.0.1", server.port)
    client.write(bytes(100_000))
    right = accept(host, server, reads=False)
    right.socket.read_buffer_size = 700
    host.wait_for(lambda: right.socket.bytes_available, right.events)
    host.turn(20)
    assert right.socket.bytes_available == 700
    for sock in (client, right.socket):
        sock.abort()
        quieten(sock)
    server.close()


def test_what_is_written_early_is_encrypted(host, certificates):
    server = server_with(lambda sock, hello: sock.write(b"two "), certificates.server())
    client = Talk(server.port, certificates)
    host.wait_for(lambda: server.has_pending_connections, "a connection")
    sock = server.next_pending_secure_connection()
    assert sock.write(b"one ") == 4
    recorder = Recorder(sock)
    host.wait_for(lambda: recorder.data == b"question", recorder.events)
    sock.write(b"three")
    sock.disconnect()
    wait_for_end(host, recorder)
    host.wait_for(lambda: not client.is_alive(), "the client's end")
    assert client.error is None and client.answer == b"one two three"
    server.close()


# Later


def test_it_may_hold_the_handshake_and_decide_later(host, certificates):
    other = certificates.server("later.example")
    held = []

    def hold(sock, hello):
        sock.hold_handshake()
        held.append(sock)

    server = server_with(hold, certificates.server())
    client = Talk(server.port, certificates, "later.example")
    recorder = accept(host, server)
    host.wait_for(lambda: held, recorder.events)
    host.turn(10)
    assert recorder.socket.handshake_held and not recorder.socket.encrypted and recorder.socket.mode is SERVER
    assert recorder.socket.session_protocol is None
    recorder.socket.configuration = other
    recorder.socket.continue_handshake()
    assert not recorder.socket.handshake_held
    recorder.socket.continue_handshake()  # no effect
    host.wait_for(lambda: recorder.data == b"question", recorder.events)
    recorder.socket.disconnect()
    wait_for_end(host, recorder)
    host.wait_for(lambda: not client.is_alive(), "the client's end")
    assert client.error is None and client.names == ("later.example",)
    assert recorder.of("mode") == [UNENCRYPTED]
    server.close()


def test_another_thread_may_decide(host, certificates):
    def hold(sock, hello):
        sock.hold_handshake()
        threading.Thread(target=sock.continue_handshake_async, daemon=True).start()

    server = server_with(hold, certificates.server())
    client = Talk(server.port, certificates)
    serve(host, server, client)
    assert client.error is None and client.answer == b"answer"


def test_it_may_be_continued_in_a_nested_turn(host, certificates):
    """Below the handler, where the bytes are still those of the outer turn."""
    steps = []

    def hold(sock, hello):
        sock.hold_handshake()
        host.loop.call_soon(sock.continue_handshake)
        for _ in range(20):
            host.loop.dispatch()
        steps.append(sock.handshake_held)

    server = server_with(hold, certificates.server())
    client = Talk(server.port, certificates)
    serve(host, server, client)
    assert steps == [False]
    assert client.error is None and client.answer == b"answer"


def test_turns_inside_the_handler_begin_nothing(host, certificates):
    seen = []

    def turn(sock, hello):
        for _ in range(5):
            host.loop.dispatch()
        seen.append((sock.handshake_held, sock.encrypted))

    server = server_with(turn, certificates.server())
    client = Talk(server.port, certificates)
    serve(host, server, client)
    assert seen == [(True, False)]
    assert client.error is None and client.answer == b"answer"


def test_holding_is_for_inside_the_handler(peer):
    p = peer()
    with pytest.raises(RuntimeError, match="inside client_hello_handler"):
        p.socket.hold_handshake()
    p.socket.continue_handshake()  # no effect
    p.peer.sendall(HELLO)
    p.wait_for_hello()
    with pytest.raises(RuntimeError, match="inside client_hello_handler"):
        p.socket.hold_handshake()
    with pytest.raises(RuntimeError, match="inside client_hello_handler"):
        SslSocket().hold_handshake()
    SslSocket().continue_handshake()


def test_a_held_connection_is_untouched(peer):
    """What a relay would take over: the channel, TLS not started, every byte in it, also those that come later."""
    p = peer(lambda sock, hello: sock.hold_handshake())
    p.peer.sendall(HELLO)
    p.wait_for_hello()
    p.peer.sendall(b"more")
    channel = p.socket._channel
    p.wait(lambda: channel.bytes_available > len(HELLO))
    assert channel.peek() == HELLO + b"more"
    assert channel.engine is None and not channel.encrypted and channel.is_open
    assert not p.recorder.has("ready") and p.socket.bytes_available == 0


@pytest.mark.parametrize("later", [False, True])
def test_a_held_connection_can_be_handed_over(peer, later):
    """Inside the handler or later; nothing of the handshake comes after it, neither its start nor its deadline."""
    overdue = threading.Event()

    def hand_over(sock, hello):
        if later:
            sock.hold_handshake()
        else:
            sock._release_hello()

    p = peer(hand_over, timeout=0.05, read_buffer_size=5000)
    p.peer.sendall(HELLO)
    p.wait_for_hello()
    if later:
        p.socket._release_hello()
    p.host.loop.call_later(0.1, overdue.set)
    p.wait(overdue.is_set)
    channel = p.socket._channel
    assert channel.is_open and channel.engine is None and channel.peek() == HELLO
    assert not channel.hold_writes and channel.read_bound == 5000
    assert not p.socket.handshake_held and not p.recorder.has("error")
    channel.write(b"in the clear")
    p.wait(lambda: not channel.bytes_to_write)
    assert p.peer.recv(100) == b"in the clear"


def test_a_held_connection_takes_no_more_than_a_hello_may_be(peer):
    p = peer(lambda sock, hello: sock.hold_handshake())
    p.peer.sendall(HELLO)
    p.wait_for_hello()
    p.peer.setblocking(False)
    sent = 0
    while sent < 1 << 20:
        try:
            sent += p.peer.send(bytes(65536))
        except BlockingIOError:
            break
        p.host.turn()
    p.host.turn(20)
    assert p.socket._channel.bytes_available <= 65536


def test_other_starts_have_no_effect_meanwhile(peer):
    p = peer(lambda sock, hello: sock.hold_handshake())
    for _ in range(2):
        for start in (p.socket.start_server_encryption, p.socket.start_client_encryption):
            with pytest.warns(RuntimeWarning, match="no effect"):
                start()
        p.peer.sendall(HELLO if not p.hellos else b"")
        p.wait_for_hello()
    assert len(p.hellos) == 1 and p.socket.handshake_held and p.socket._channel.engine is None


# STARTTLS


def test_starttls_with_a_handler(host, certificates):
    """The reply goes out in the clear, before anything waits for the ClientHello."""
    pair = make_tcp_pair(host, SslSocket)
    seen = []

    def ready(sock):
        assert sock.read_all() == b"STARTTLS\r\n"
        sock.write(b"OK\r\n")
        sock.start_server_encryption()

    def reply(sock):
        if not sock.encrypted and sock.read_all() == b"OK\r\n":
            sock.start_client_encryption()

    pair.server.ready_read_handler = ready
    pair.server.configuration = certificates.server()
    pair.server.client_hello_handler = lambda sock, hello: seen.append(hello.server_name)
    pair.client.ready_read_handler = reply
    pair.client.configuration = certificates.client()
    pair.client.peer_verify_name = "localhost"
    pair.client.write(b"STARTTLS\r\n")
    host.wait_for(lambda: pair.client.encrypted and pair.server.encrypted, (pair.left.events, pair.right.events))
    assert seen == ["localhost"]
    pair.client.abort()
    pair.server.abort()
    silence(pair)


@pytest.mark.parametrize("unread", [20, len(HELLO)])
def test_what_is_unread_belongs_to_the_hello(host, certificates, unread):
    pair = make_tcp_pair(host, SslSocket, reads=False)
    seen = []

    def note(sock, hello):
        seen.append(hello.server_name)
        sock.hold_handshake()

    pair.server.client_hello_handler = note
    pair.client.write(HELLO[:unread])
    host.wait_for(lambda: pair.server.bytes_available == unread, "the first bytes")
    pair.server.start_server_encryption()
    assert not seen and pair.server.bytes_available == 0  # handlers are called by the loop
    pair.client.write(HELLO[unread:])
    host.wait_for(lambda: seen, pair.right.events)
    assert seen == ["localhost"] and pair.server._channel.peek() == HELLO
    pair.client.abort()
    pair.server.abort()
    silence(pair)


def test_a_reply_that_does_not_fit_goes_before_what_is_encrypted(host, certificates):
    """More was written in the clear than the system takes: nothing else is accepted until the handshake, and none is lost."""
    pair = make_tcp_pair(host, SslSocket)
    calls = []
    big = bytes(range(256)) * 4096 * 16
    pair.server.client_hello_handler = lambda sock, hello: calls.append(hello)
    pair.server.configuration = certificates.server()
    pair.client.read_buffer_size = 1000
    pair.server.write(big)
    pair.server.start_server_encryption()
    assert pair.server.bytes_to_write > 0
    assert pair.server.write(b"secret") == -1
    assert pair.server.error is SocketError.OPERATION_ERROR
    received = bytearray()

    def take(sock):
        received.extend(sock.read_all())

    pair.client.ready_read_handler = take
    pair.client.read_buffer_size = 0
    host.wait_for(lambda: len(received) + len(pair.left.data) >= len(big), len(received))
    assert bytes(pair.left.data) + bytes(received) == big
    pair.client.configuration = certificates.client()
    pair.client.peer_verify_name = "localhost"
    pair.client.start_client_encryption()
    host.wait_for(lambda: pair.client.encrypted and pair.server.encrypted, (pair.left.events, pair.right.events))
    del received[:]
    assert pair.server.write(b"secret") == 6
    host.wait_for(lambda: received == b"secret", received)
    assert len(calls) == 1
    pair.client.abort()
    pair.server.abort()
    silence(pair)
    pair.server.client_hello_handler = None


def test_a_reply_that_does_not_fit_goes_out_before_the_end(host, certificates):
    """As without a handler: what was written in the clear before is sent, though the handshake is given up."""
    pair = make_tcp_pair(host, SslSocket, reads=False)
    big = bytes(range(256)) * 4096 * 16
    pair.server.client_hello_handler = lambda sock, hello: None
    pair.server.handshake_timeout = 0.05
    pair.client.read_buffer_size = 1000
    pair.server.write(big)
    pair.server.start_server_encryption()
    pair.server.disconnect()
    assert pair.server.state is SocketState.CLOSING_STATE
    late = threading.Event()
    host.loop.call_later(0.1, late.set)
    host.wait_for(late.is_set, "longer than the handshake's deadline")
    received = bytearray()
    pair.client.ready_read_handler = lambda sock: received.extend(sock.read_all())
    pair.client.read_buffer_size = 0
    received.extend(pair.client.read_all())
    wait_for_end(host, pair.right)
    wait_for_end(host, pair.left)
    assert received == big
    assert not pair.right.has("error")
    silence(pair)
    quieten(pair.server)


def test_a_handler_that_is_taken_off_meanwhile_is_not_called(host, certificates):
    calls = []
    server = server_with(lambda sock, hello: calls.append(hello), certificates.server())
    client = Talk(server.port, certificates)
    host.wait_for(lambda: server.has_pending_connections, "a connection")
    sock = server.next_pending_secure_connection()
    sock.client_hello_handler = None
    recorder = Recorder(sock)
    host.wait_for(lambda: recorder.data == b"question", recorder.events)
    sock.disconnect()
    wait_for_end(host, recorder)
    host.wait_for(lambda: not client.is_alive(), "the client's end")
    assert client.error is None and not calls
    server.close()


# The handler ends it


@pytest.mark.parametrize("how", ["disconnect", "close", "abort"])
@pytest.mark.parametrize("when", ["awaited", "deciding", "held"])
def test_it_may_be_ended_at_any_time(peer, how, when):
    def decide(sock, hello):
        if when == "deciding":
            getattr(sock, how)()
        else:
            sock.hold_handshake()

    p = peer(decide)
    p.socket.write(b"never in the clear")
    if when == "awaited":
        p.peer.sendall(HELLO[:10])
        p.host.turn()
    else:
        p.peer.sendall(HELLO)
        p.wait_for_hello()
    if when != "deciding":
        getattr(p.socket, how)()
    wait_for_end(p.host, p.recorder)
    assert not p.recorder.has("error") and not p.recorder.has("encrypted")
    assert p.socket.mode is UNENCRYPTED and not p.socket.handshake_held
    assert p.answer() == b""


def test_a_handler_that_raises_fails_the_handshake(peer):
    def fail(sock, hello):
        raise KeyError(hello.server_name)

    p = peer(fail)
    p.peer.sendall(HELLO)
    p.check_failure("client_hello_handler has raised an exception", "127.0.0.1")
    assert [type(failure) for failure in p.host.take_failures()] == [KeyError]
    assert p.answer() == b"\x15\3\3\0\2\2\x50"  # fatal, internal_error


def test_a_client_hears_of_it_by_an_alert(host, certificates):
    def fail(sock, hello):
        raise ValueError

    server = server_with(fail, certificates.server())
    client = Talk(server.port, certificates)
    recorder = accept(host, server)
    wait_for_end(host, recorder)
    host.wait_for(lambda: not client.is_alive(), "the client's end")
    assert "internal error" in str(client.error).replace("_", " ").lower()
    host.take_failures()
    server.close()


def test_what_was_written_keeps_the_alert_back_and_does_not_leave(peer):
    def fail(sock, hello):
        sock.write(b"secret")
        raise ValueError

    p = peer(fail)
    p.peer.sendall(HELLO)
    p.check_failure("has raised")
    p.host.take_failures()
    assert p.answer() == b""


def test_a_configuration_that_cannot_be_used_is_an_error(peer):
    def choose(sock, hello):
        sock.configuration = SslConfiguration()

    p = peer(choose)
    p.peer.sendall(HELLO)
    wait_for_end(p.host, p.recorder)
    assert p.recorder.of("error") == [SocketError.SSL_INVALID_USERDATA_ERROR]
    assert "needs a certificate" in p.socket.error_string


def test_it_may_connect_the_socket_elsewhere(peer):
    """A handler may do anything, also begin another connection with this very socket."""
    listener = socket.create_server(("127.0.0.1", 0))

    def leave(sock, hello):
        sock.abort()
        sock.connect("127.0.0.1", listener.getsockname()[1])

    p = peer(leave)
    p.peer.sendall(HELLO)
    p.wait(lambda: p.recorder.has("connected"))
    assert p.socket.mode is UNENCRYPTED and not p.socket.handshake_held and p.socket.state is SocketState.CONNECTED_STATE
    assert p.socket.write(b"plain") == 5
    near, _ = listener.accept()
    near.settimeout(DEADLINE)
    p.wait(lambda: not p.socket.bytes_to_write)
    assert near.recv(5) == b"plain"
    near.close()
    listener.close()


@pytest.mark.parametrize("hold", [False, True])
def test_nothing_is_kept_alive(own_host, certificates, hold):
    p = Peer(own_host, certificates, (lambda sock, hello: sock.hold_handshake()) if hold else None)
    if hold:
        p.peer.sendall(HELLO)
        p.wait_for_hello()
    else:
        p.peer.sendall(HELLO[:9])
        own_host.turn()
    seen = weakref.ref(p.socket)
    p.peer.close()
    wait_for_end(own_host, p.recorder)
    p.close()
    del p
    gc.collect()
    assert seen() is None


def test_an_open_socket_lives_without_references(own_host, certificates):
    """As every other: nobody refers to it while the handshake is held, and later it is found by its handler."""
    held = []

    def hold(sock, hello):
        sock.hold_handshake()
        held.append(weakref.ref(sock))

    server = server_with(hold, certificates.server())
    client = Talk(server.port, certificates)
    own_host.wait_for(lambda: server.has_pending_connections, "a connection")
    server.next_pending_secure_connection()
    own_host.wait_for(lambda: held, "the ClientHello")
    gc.collect()
    sock = held[0]()
    assert sock is not None and sock.handshake_held
    recorder = Recorder(sock)
    sock.continue_handshake()
    own_host.wait_for(lambda: recorder.data == b"question", recorder.events)
    sock.disconnect()
    wait_for_end(own_host, recorder)
    own_host.wait_for(lambda: not client.is_alive(), "the client's end")
    assert client.error is None
    server.close()


# The client ends it


NO_HELLO = {
    "plain HTTP": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "does not speak TLS", b""),
    "one byte": (b"G", "does not speak TLS", b""),
    "SSL 2": (b"\x80\x2e\1\3\1\0\x15\0\0\0\x10" + bytes(40), "does not speak TLS", b""),
    "an alert": (b"\x15\3\1\0\2\2\x28", "does not begin with a ClientHello", b"\x15\3\3\0\2\2\x0a"),
    "a malformed one": (records_of(message_of(body_of()[:-1])), "extensions", b"\x15\3\3\0\2\2\x32"),
    "two names": (
        records_of(message_of(body_of(extensions=[server_name(b"a"), server_name(b"b")]))),
        "extension 0 twice",
        b"\x15\3\3\0\2\2\x2f",
    ),
    "one too long": (records_of(b"\1\2\0\0" + bytes(16_000)), "longer than 65536 bytes", b"\x15\3\3\0\2\2\x16"),
}


@pytest.mark.parametrize("case", NO_HELLO)
def test_what_is_no_hello_fails_the_handshake(peer, case):
    data, words, alert = NO_HELLO[case]
    p = peer()
    p.peer.sendall(data)
    p.check_failure("the TLS handshake failed", words, "127.0.0.1")
    assert p.answer() == alert
    assert not p.hellos


def test_what_was_written_before_and_a_handler_that_writes_on(own_host, certificates):
    """STARTTLS, and the peer goes on in the clear: what is written while the failure takes its course is refused."""
    sock, results = SslSocket(), []
    sock.configuration = certificates.server()
    sock.client_hello_handler = lambda sock, hello: None
    recorder = Recorder(sock)
    sock.bytes_written_handler = lambda sock, count: results.append(sock.write(b"more"))
    sock.ready_read_handler = None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock.connect("127.0.0.1", listener.getsockname()[1])
        own_host.wait_for(lambda: recorder.has("connected"), recorder.events)
        with listener.accept()[0] as peer:
            peer.sendall(b"STARTTLS\r\nPASSWORD in the clear\r\n")
            own_host.wait_for(lambda: sock.bytes_available, recorder.events)
            sock.write(b"go on")
            sock.start_server_encryption()
            wait_for_end(own_host, recorder)
    assert recorder.of("error")[0] is HANDSHAKE_FAILED
    assert set(results) <= {-1}, results
    assert sock.write(b"more") == -1
    quieten(sock)


def test_the_handler_cannot_be_avoided(host, certificates):
    """libssl understands an SSL 2 ClientHello (RFC 5246, E.2), which we do not: it must not come to a handshake."""
    calls = []
    server = server_with(lambda sock, hello: calls.append(hello), certificates.server())
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        body = b"\1\3\3\0\6\0\0\0\x10\0\xc0\x2b\0\xc0\x2f" + bytes(range(16))
        client.sendall((0x8000 | len(body)).to_bytes(2, "big") + body)
        recorder = accept(host, server)
        wait_for_end(host, recorder)
    assert recorder.of("error") == [HANDSHAKE_FAILED] and not calls
    server.close()


def test_one_that_never_ends_is_cut_off(peer):
    p = peer()
    p.peer.setblocking(False)
    body = message_of(body_of(extensions=[(21, bytes(60_000))]))
    data = memoryview(records_of(body, 1))

    def fed():
        nonlocal data
        with contextlib.suppress(BlockingIOError, ConnectionError):
            data = data[p.peer.send(data) :]
        return p.recorder.has("disconnected")

    p.wait(fed)
    p.check_failure("longer than 65536 bytes")


@pytest.mark.parametrize("seed", range(40))
def test_damaged_hellos_end_in_the_handler_or_in_an_error(own_host, certificates, seed):
    generator = random.Random(seed)
    data = bytearray(made_by_ssl("localhost"))
    for _ in range(generator.randint(1, 6)):
        data[generator.randrange(len(data))] = generator.randrange(256)
    p = Peer(own_host, certificates, None)
    p.peer.sendall(data)
    p.peer.shutdown(socket.SHUT_WR)
    wait_for_end(own_host, p.recorder)
    assert p.recorder.of("error") == [HANDSHAKE_FAILED]
    assert len(p.hellos) <= 1 and not p.recorder.has("encrypted")
    p.close()


@pytest.mark.parametrize("sent", [0, 1, 40])
def test_a_client_that_leaves_before_fails_the_handshake(peer, sent):
    p = peer()
    p.peer.sendall(HELLO[:sent])
    p.peer.shutdown(socket.SHUT_WR)
    p.check_failure("the peer closed the connection during the TLS handshake")
    assert p.answer() == b"" and not p.hellos


def test_a_client_that_leaves_while_held_is_told(peer):
    p = peer(lambda sock, hello: sock.hold_handshake())
    p.peer.sendall(HELLO)
    p.wait_for_hello()
    p.peer.close()
    p.check_failure("the peer closed the connection during the TLS handshake")
    p.socket.continue_handshake()  # too late: no effect
    assert p.socket.state is SocketState.UNCONNECTED_STATE


def test_a_client_that_sends_all_and_leaves_at_once(peer):
    p = peer()
    p.peer.sendall(HELLO)
    p.peer.shutdown(socket.SHUT_WR)
    p.check_failure()
    assert len(p.hellos) == 1


def test_a_reset_while_held(peer):
    p = peer(lambda sock, hello: sock.hold_handshake())
    p.peer.sendall(HELLO)
    p.wait_for_hello()
    reset(p.peer)
    wait_for_end(p.host, p.recorder)
    assert p.recorder.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]
    assert p.socket.mode is UNENCRYPTED and not p.socket.handshake_held


@pytest.mark.parametrize("case", ["silent", "a part", "held", "after the handler"])
def test_the_deadline_covers_all_of_it(peer, case):
    p = peer((lambda sock, hello: sock.hold_handshake()) if case == "held" else None, timeout=0.15)
    p.peer.sendall({"silent": b"", "a part": HELLO[:30]}.get(case, made_by_ssl("localhost")))
    p.check_failure("not done in time")
    assert len(p.hellos) == (case in ("held", "after the handler"))


def test_no_deadline_when_it_is_zero(peer):
    p = peer(timeout=0)
    p.peer.sendall(HELLO[:30])
    p.host.turn(10)
    p.peer.sendall(HELLO[30:])
    p.wait_for_hello()


def test_a_deadline_inside_the_handler(peer):
    """The handler turns the loop until the time is over: nothing goes on afterwards."""
    seen = []

    def linger(sock, hello):
        while sock.mode is SERVER:
            p.host.loop.dispatch(0.01)
        seen.append(sock.state)

    p = peer(linger, timeout=0.1)
    p.peer.sendall(HELLO)
    p.wait(lambda: seen)
    p.check_failure("not done in time")
    assert seen == [SocketState.UNCONNECTED_STATE]


def test_the_loop_may_be_closed_meanwhile(own_host, certificates):
    p = Peer(own_host, certificates, lambda sock, hello: sock.hold_handshake())
    p.peer.sendall(HELLO)
    p.wait_for_hello()
    own_host.loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        p.socket.continue_handshake()
    assert p.peer.recv(10) == b""
    p.peer.close()


# Other programs


def program_answer(host, arguments, port, server, stdin=None):
    program = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out = []
    thread = threading.Thread(target=lambda: out.append(program.communicate(stdin)[0]), daemon=True)
    thread.start()
    recorder = accept(host, server)
    try:
        host.wait_for(lambda: recorder.data or recorder.has("disconnected"), recorder.events)
        recorder.socket.write(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nanswer")
        recorder.socket.disconnect()
        host.wait_for(lambda: not thread.is_alive(), "the program's end")
    finally:
        program.kill()
    return out[0]


@pytest.mark.parametrize("name", ["openssl", "curl"])
def test_other_clients(host, certificates, tmp_path, name):
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(certificates.ca.cert_pem.bytes())
    other, seen = certificates.server("other.example"), []

    def choose(sock, hello):
        seen.append((hello.server_name, hello.next_protocols, hello.ja4[:4]))
        sock.configuration = other

    server = server_with(choose, certificates.server())
    port = server.port
    if name == "openssl":
        where = ["s_client", "-connect", f"127.0.0.1:{port}", "-servername", "other.example", "-alpn", "h2,http/1.1"]
        arguments = ["openssl", *where, "-CAfile", str(trusted), "-verify_return_error", "-ign_eof"]
    else:
        where = ["--connect-to", f"other.example:443:127.0.0.1:{port}", "https://other.example/"]
        arguments = ["curl", "-sS", "--http1.1", "--cacert", str(trusted), *where]
    out = program_answer(host, arguments, port, server, b"question\n")
    assert b"answer" in out, out
    protocols = ("h2", "http/1.1") if name == "openssl" else ("http/1.1",)
    assert seen == [("other.example", protocols, "t13d")]
    server.close()
