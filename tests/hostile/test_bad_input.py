"""What is wrong, from peer, network or program: one error that tells what and why, and nothing else disturbed."""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import random
import socket
import ssl
import threading
from types import SimpleNamespace

import pytest
import trustme

import sslsock
from peers import (
    Recorder,
    accept,
    listening,
    make_ssl_pair,
    make_tcp_pair,
    plain_listener,
    refused_port,
    reset,
    silence,
)
from sslsock import (
    EventLoop,
    SocketError,
    SocketState,
    SslCertificate,
    SslConfiguration,
    SslEncoding,
    SslKey,
    SslMode,
    SslServer,
    SslSocket,
    TcpServer,
    TcpSocket,
)
from sslsock.core.channel import Channel
from sslsock.core.listener import Listener
from sslsock.core.loop import Loop
from sslsock.sockets.twins import Twin

from .witness import check_consistent

HANDSHAKE_FAILED = SocketError.SSL_HANDSHAKE_FAILED_ERROR
REMOTE_CLOSED = SocketError.REMOTE_HOST_CLOSED_ERROR
TLS_FAILED = SocketError.SSL_INTERNAL_ERROR
UNUSABLE = SocketError.SSL_INVALID_USERDATA_ERROR
UNCONNECTED = SocketState.UNCONNECTED_STATE

ROLES = ["client", "server"]

peers: list[socket.socket] = []


@pytest.fixture(autouse=True)
def close_peers():
    """Also when a test has failed, so that its failure is the only one."""
    yield
    while peers:
        peers.pop().close()


class Stage:
    """One socket under test, and a socket of the standard library as its peer."""

    def __init__(self, host, certificates, role, timeout=30.0, secure=True):
        self.host = host
        if role == "client":
            with plain_listener() as listener:
                self.sock = SslSocket()
                self.sock.configuration = certificates.client()
                self.sock.handshake_timeout = timeout
                self.recorder = Recorder(self.sock)
                (self.sock.connect_encrypted if secure else self.sock.connect)(*listener.getsockname())
                host.wait_for(lambda: self.sock.state is SocketState.CONNECTED_STATE)
                self.peer, _ = listener.accept()
        else:
            server = SslServer()
            server.configuration = certificates.server()
            server.handshake_timeout = timeout
            listening(server)
            self.peer = socket.create_connection(("127.0.0.1", server.port))
            if secure:
                self.recorder = accept(host, server)
            else:
                host.wait_for(lambda: server.has_pending_connections)
                self.recorder = Recorder(server.next_pending_connection())
            self.sock = self.recorder.socket
            server.close()
        self.peer.setblocking(False)
        peers.append(self.peer)

    def feed(self, data):
        """Send from the peer, as far as somebody takes it, until the socket under test has had enough."""
        view = memoryview(data)
        sent = 0

        def fed():
            nonlocal sent
            try:
                while sent < len(view):
                    sent += self.peer.send(view[sent : sent + (1 << 18)])
            except BlockingIOError:
                pass
            except ConnectionError:
                return True
            return sent == len(view) or self.recorder.has("disconnected")

        self.host.wait_for(fed, "the peer could send all")

    def wait_for_end(self):
        self.host.wait_for(lambda: self.recorder.has("disconnected"), self.recorder.events)

    def received(self):
        """What the peer can read now."""
        data = b""
        try:
            while piece := self.peer.recv(1 << 16):
                data += piece
        except (BlockingIOError, ConnectionError):
            pass
        return data

    def check_end(self, error, *words, clean=False):
        """The socket has ended by this one error, with these words in it."""
        assert self.recorder.of("error") == [error], self.sock.error_string
        assert self.recorder.names()[-1] == "disconnected"
        assert self.sock.error is error
        for word in words:
            assert word in self.sock.error_string, self.sock.error_string
        assert self.sock.clean_close is clean
        assert self.sock.state is UNCONNECTED
        check_consistent(self.sock)

    def end(self):
        self.peer.close()
        for name in ("state_changed_handler", "disconnected_handler"):
            setattr(self.sock, name, None)
        silence_one(self.sock)
        self.sock.abort()


def silence_one(sock):
    silence(SimpleNamespace(client=sock, server=sock))


def record(kind, body, version=b"\3\3", length=None):
    return bytes((kind,)) + version + (len(body) if length is None else length).to_bytes(2, "big") + body


# Peers that do not speak TLS as it is


GARBAGE = {
    # What comes, and what the error has to say for a client and for a server.
    "plain http request": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "http request", "http request"),
    "plain http answer": (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "wrong version number", ""),
    "proxy request": (b"CONNECT localhost:443 HTTP/1.1\r\n\r\n", "https proxy request", "https proxy request"),
    "smtp greeting": (b"220 mail.example ESMTP ready\r\n", "wrong version number", ""),
    "ssh greeting": (b"SSH-2.0-OpenSSH_9.2\r\n", "wrong version number", ""),
    "an old record version": (record(22, b"\1" + bytes(50), b"\2\0"), "", ""),
    "an unknown record type": (record(99, bytes(50)), "unexpected message", "unexpected message"),
    "data before the handshake": (record(23, b"early"), "", ""),
    "an empty handshake record": (record(22, b""), "", ""),
    # "packet length" up to OpenSSL 3.1, then "data length".
    "a record longer than allowed": (record(22, bytes(17000)), "length too long", "length too long"),
    "the longest length there is": (record(22, bytes(60000), length=65535), "length too long", "length too long"),
    "a handshake message that is too long": (
        record(22, b"\1\xff\xff\xff" + bytes(16000)),
        "",
        "excessive message size",
    ),
    "a change of ciphers": (record(20, b"\1") * 50, "", ""),
}


@pytest.mark.parametrize("case", GARBAGE)
@pytest.mark.parametrize("role", ROLES)
def test_what_is_not_tls_ends_the_handshake_with_openssls_reason(host, certificates, bystander, role, case):
    data, of_client, of_server = GARBAGE[case]
    stage = Stage(host, certificates, role)
    stage.feed(data)
    if case == "an empty handshake record":
        stage.peer.shutdown(socket.SHUT_WR)
    stage.wait_for_end()
    stage.check_end(HANDSHAKE_FAILED, "handshake", "127.0.0.1", of_client if role == "client" else of_server)
    assert not stage.recorder.data
    stage.end()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("role", ROLES)
def test_random_bytes_end_the_handshake(host, certificates, bystander, role, seed):
    data = random.Random(seed).randbytes(70_000)
    if seed % 2:  # as far as the header looks right, so that libssl waits for the rest and looks into it
        data = record(22, data[:16_000]) + data
    stage = Stage(host, certificates, role)
    stage.feed(data)
    stage.peer.close()
    stage.wait_for_end()
    assert stage.recorder.of("error")[0] in (HANDSHAKE_FAILED, REMOTE_CLOSED)
    assert len(stage.recorder.of("error")) == 1
    assert not stage.recorder.has("encrypted") and not stage.recorder.data
    stage.end()


@pytest.mark.parametrize("role", ROLES)
def test_an_endless_handshake_message_is_cut_off(host, certificates, bystander, role):
    """The message says that it is sixteen megabytes long, and goes on and on."""
    stage = Stage(host, certificates, role)
    stage.feed(record(22, (b"\2" if role == "client" else b"\1") + b"\xff\xff\xff" + bytes(16_000)) * 1024)
    stage.wait_for_end()
    stage.check_end(HANDSHAKE_FAILED, "excessive message size")
    stage.end()


@pytest.mark.parametrize("role", ROLES)
def test_endless_empty_records_are_cut_off(host, certificates, bystander, role):
    stage = Stage(host, certificates, role)
    stage.feed(record(22, b"") * 100_000)
    stage.wait_for_end()
    assert stage.recorder.of("error") == [HANDSHAKE_FAILED]
    stage.end()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("case", ["silent", "a byte now and then"])
def test_a_stalled_handshake_has_a_deadline(host, certificates, bystander, role, case):
    timeout = 0.15
    stage = Stage(host, certificates, role, timeout=timeout)
    message = record(22, bytes(9000))  # far longer than is sent in that time
    sent = []

    timers = []

    def drip():
        with contextlib.suppress(OSError):
            sent.append(stage.peer.send(message[len(sent) : len(sent) + 1]))
        timers.append(host.loop.call_later(timeout / 10, drip))

    if case != "silent":
        drip()
    host.wait_for(lambda: stage.recorder.has("disconnected"))
    if timers:
        timers.pop().cancel()
    stage.check_end(HANDSHAKE_FAILED, "in time", "127.0.0.1")
    assert len(sent) > 1 or case == "silent"
    stage.end()


# Peers that go


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("before", [b"", b"\x16\x03", record(22, b"\x02", length=200)], ids=["nothing", "header", "record"])
def test_a_peer_that_goes_in_the_handshake(host, certificates, bystander, role, end, before):
    stage = Stage(host, certificates, role)
    stage.feed(before)
    host.turn()
    reset(stage.peer) if end == "reset" else stage.peer.shutdown(socket.SHUT_WR)
    stage.wait_for_end()
    if end == "reset":
        stage.check_end(REMOTE_CLOSED, "reset", "127.0.0.1")
    else:
        stage.check_end(HANDSHAKE_FAILED, "closed the connection during the TLS handshake")
    stage.end()


class TlsPeer:
    """The `ssl` module over memory, joined to a socket under test by a Stage: what it sends can be altered."""

    def __init__(self, host, certificates, role, version, authority=None):
        self.stage = Stage(host, certificates, role)
        self.host = host
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        issued = certificates.ca.issue_cert("localhost", "127.0.0.1")
        if role == "client":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            issued.configure_cert(context)
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            certificates.ca.configure_trust(context)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version.replace("TLS_", "TLSv")]
        name = None if role == "client" else "localhost"
        self.tls = context.wrap_bio(self.incoming, self.outgoing, role == "client", name)
        host.wait_for(self.shake)
        host.wait_for(lambda: self.stage.sock.encrypted)
        self.tls_read()

    def shake(self):
        self.incoming.write(self.stage.received())
        try:
            self.tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            done = False
        self.flush()
        return done

    def flush(self):
        self.stage.peer.send(self.outgoing.read())

    def tls_read(self):
        self.incoming.write(self.stage.received())
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.read()

    def protect(self, data):
        """The records that this peer would send."""
        self.tls.write(data)
        return self.outgoing.read()


AFTER_DATA = {
    "closed in the middle of a record": (
        lambda peer, rest: (peer.stage.feed(rest), peer.stage.peer.shutdown(socket.SHUT_WR)),
        False,
    ),
    "reset in the middle of a record": (lambda peer, rest: (peer.stage.feed(rest), reset(peer.stage.peer)), True),
    "closed after data": (lambda peer, rest: peer.stage.peer.shutdown(socket.SHUT_WR), False),
    "reset after data": (lambda peer, rest: reset(peer.stage.peer), True),
}


@pytest.mark.parametrize("case", AFTER_DATA)
@pytest.mark.parametrize("role", ROLES)
def test_a_connection_cut_without_close_notify_is_not_clean(host, certificates, bystander, role, version, case):
    act, is_reset = AFTER_DATA[case]
    peer = TlsPeer(host, certificates, role, version)
    stage = peer.stage
    stage.feed(peer.protect(b"first"))
    host.wait_for(lambda: stage.recorder.data == b"first")
    act(peer, peer.protect(b"second" * 1000)[:-1])
    stage.wait_for_end()
    stage.check_end(REMOTE_CLOSED, "reset" if is_reset else "close_notify")
    assert stage.recorder.data == b"first"
    stage.end()


DAMAGE = {
    "a flipped bit": (lambda data: data[:9] + bytes((data[9] ^ 1,)) + data[10:], "bad record mac"),
    "a record longer than allowed": (lambda data: record(23, bytes(17_000)), "length too long"),
    "a record that is too short": (lambda data: record(23, b"x"), ""),
    "plain text": (lambda data: b"250 this is not encrypted\r\n", ""),
    "a repeated record": (lambda data: data + data, "bad record mac"),
    "a handshake message": (lambda data: record(22, b"\1\0\0\0"), ""),
}


@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.parametrize("role", ROLES)
def test_a_damaged_record_ends_the_connection_and_is_never_data(host, certificates, bystander, role, version, case):
    damage, words = DAMAGE[case]
    peer = TlsPeer(host, certificates, role, version)
    stage = peer.stage
    stage.feed(damage(peer.protect(b"true")))
    stage.wait_for_end()
    stage.check_end(TLS_FAILED, "TLS failed", "127.0.0.1", words)
    assert stage.recorder.data == (b"true" if case == "a repeated record" else b"")
    stage.end()


# RFC 8446, 6.2: the descriptions that a peer may send, in OpenSSL's words.
ALERTS = {
    10: "unexpected message",
    20: "bad record mac",
    22: "record overflow",
    40: "handshake failure",
    42: "bad certificate",
    43: "unsupported certificate",
    44: "certificate revoked",
    45: "certificate expired",
    46: "certificate unknown",
    47: "illegal parameter",
    48: "unknown CA",
    49: "access denied",
    50: "decode error",
    51: "decrypt error",
    70: "protocol version",
    71: "insufficient security",
    80: "internal error",
    86: "inappropriate fallback",
    109: "missing extension",
    110: "unsupported extension",
    112: "unrecognized name",
    113: "bad certificate status response",
    115: "unknown PSK identity",
    116: "certificate required",
    120: "no application protocol",
}


def client_hello():
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def send_alert(stage, role, number):
    if role == "server":  # which takes an alert only from one who has begun to talk TLS
        stage.feed(client_hello())
        stage.host.wait_for(stage.received)
    stage.feed(record(21, bytes((2, number))))
    stage.wait_for_end()


@pytest.mark.parametrize("number", ALERTS)
@pytest.mark.parametrize("role", ROLES)
def test_a_fatal_alert_is_named(own_host, certificates, own_bystander, role, number):
    stage = Stage(own_host, certificates, role)
    send_alert(stage, role, number)
    stage.check_end(HANDSHAKE_FAILED, f'the peer sent the alert "{ALERTS[number]}"')
    stage.end()


@pytest.mark.parametrize("role", ROLES)
def test_an_alert_that_nobody_knows_is_told_by_its_number(own_host, certificates, own_bystander, role):
    stage = Stage(own_host, certificates, role)
    send_alert(stage, role, 200)
    stage.check_end(HANDSHAKE_FAILED, 'alert "number 200"')
    stage.end()


@pytest.mark.parametrize("role", ROLES)
def test_a_peer_that_refuses_our_certificate_is_understood(host, certificates, bystander, version, role):
    """Both ends ours, and the alert is what libssl chose: the one names the certificate, the other the alert."""
    stranger = trustme.CA()
    server, client = certificates.server(), certificates.client(identity=True)
    if role == "client":
        client = SslConfiguration()
        client.use_system_ca = False
        client.add_ca_certificate(SslCertificate(stranger.cert_pem.bytes()))
    else:
        server = certificates.with_identity(certificates.ca.issue_cert("localhost"))
        server.peer_verify_mode = SslConfiguration.VERIFY_PEER
        server.add_ca_certificate(SslCertificate(stranger.cert_pem.bytes()))
    client.maximum_protocol = sslsock.SslProtocol[version]
    left, right = attempt(host, client, server)
    refusing, refused = (left, right) if role == "client" else (right, left)
    assert refusing.of("error") == [HANDSHAKE_FAILED]
    assert "certificate" in refusing.socket.error_string and "SslCertificate" in refusing.socket.error_string
    assert "unknown CA" in refused.socket.error_string
    end_attempt(left, right)


def attempt(host, client_configuration, server_configuration):
    """Client and server of ours, until both have ended."""
    server = SslServer()
    server.configuration = server_configuration
    listening(server)
    client = SslSocket()
    client.configuration = client_configuration
    client.peer_verify_name = "localhost"
    left = Recorder(client)
    client.connect_encrypted("127.0.0.1", server.port)
    client.write(b"secret")
    right = accept(host, server)
    server.close()
    host.wait_for(lambda: left.has("disconnected") and right.has("disconnected"), (left.events, right.events))
    return left, right


def end_attempt(*recorders):
    for recorder in recorders:
        check_consistent(recorder.socket)
        assert recorder.socket.state is UNCONNECTED
        silence_one(recorder.socket)


# What the program gives


def damaged(certificates, case):
    """A configuration with something wrong in it, and what the error has to say."""
    identity = certificates.ca.issue_cert("localhost")
    other = certificates.ca.issue_cert("localhost")
    certificate, key = identity.cert_chain_pems[0].bytes(), identity.private_key_pem.bytes()
    der = SslCertificate(certificate).to_der()
    configuration = certificates.with_identity(identity)
    configuration.local_certificate_chain = []
    configuration.local_certificate = SslCertificate(certificate)
    changes = {
        "certificate empty": ("local_certificate", SslCertificate(b""), "certificate did not load"),
        "certificate empty der": ("local_certificate", SslCertificate(b"", SslEncoding.DER), "certificate did not load"),
        "certificate truncated": ("local_certificate", SslCertificate(certificate[:300]), "certificate did not load"),
        "certificate truncated der": (
            "local_certificate", SslCertificate(der[:300], SslEncoding.DER), "certificate did not load",
        ),
        "certificate of the wrong kind": ("local_certificate", SslCertificate(key), "certificate did not load"),
        "certificate in the wrong encoding": ("local_certificate", SslCertificate(der), "certificate did not load"),
        "chain": ("local_certificate_chain", [SslCertificate(certificate), SslCertificate(b"junk")], "chain did not load"),
        "authority": ("ca_certificates", [SslCertificate(b"junk")], "CA certificate did not load"),
        "key empty": ("private_key", SslKey(b""), "key did not load"),
        "key truncated": ("private_key", SslKey(key[:100]), "key did not load"),
        "key of the wrong kind": ("private_key", SslKey(certificate), "key did not load"),
        "key that does not fit": ("private_key", SslKey(other.private_key_pem.bytes()), "does not fit"),
        "key missing": ("private_key", None, "without its private key"),
        "certificate missing": ("local_certificate", None, "without its certificate"),
        "wrong passphrase": ("private_key", SslKey(encrypted_key(identity), passphrase="wrong"), "passphrase"),
        "no passphrase": ("private_key", SslKey(encrypted_key(identity)), "passphrase"),
        "unknown cipher": ("ciphers", "ECDHE-NONSENSE-SHA999", "ECDHE-NONSENSE-SHA999"),
        "unknown ciphersuite": ("ciphersuites", "TLS_NONSENSE", "TLS_NONSENSE"),
        "unknown group": ("groups", "X25519:nonsense", "X25519:nonsense"),
        "nul in ciphers": ("ciphers", "HIGH\0aNULL", "NUL"),
        "nul in groups": ("groups", "X25519\0", "NUL"),
        "bounds that cross": ("maximum_protocol", SslConfiguration.TLS_1_2, "newer than maximum_protocol"),
    }  # fmt: skip
    if case == "bounds that cross":
        configuration.minimum_protocol = SslConfiguration.TLS_1_3
    name, value, words = changes[case]
    setattr(configuration, name, value)
    return configuration, words


def encrypted_key(identity):
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(identity.private_key_pem.bytes(), None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"right"),
    )


CASES = [
    "certificate empty", "certificate empty der", "certificate truncated", "certificate truncated der",
    "certificate of the wrong kind", "certificate in the wrong encoding", "chain", "authority", "key empty", "key truncated",
    "key of the wrong kind", "key that does not fit", "key missing", "certificate missing", "wrong passphrase",
    "no passphrase", "unknown cipher", "unknown ciphersuite", "unknown group", "nul in ciphers", "nul in groups",
    "bounds that cross",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("role", ROLES)
def test_an_unusable_configuration_is_told_and_nothing_leaves_in_the_clear(own_host, certificates, own_bystander, role, case):
    configuration, words = damaged(certificates, case)
    stage = Stage(own_host, certificates, role, secure=False)
    stage.sock.configuration = configuration
    told = []
    stage.sock.error_handler = lambda s, error: told.append((error, s.error_string))
    (stage.sock.start_client_encryption if role == "client" else stage.sock.start_server_encryption)()
    assert stage.sock.write(b"secret") == -1
    stage.wait_for_end()
    assert stage.sock.write(b"secret") == -1
    assert [error for error, _ in told] == [SocketError.OPERATION_ERROR, UNUSABLE, SocketError.OPERATION_ERROR]
    assert words in told[1][1] and "127.0.0.1" in told[1][1], told
    check_consistent(stage.sock)
    own_host.turn()
    assert stage.received() == b""
    stage.end()


class Wrong:
    """Calls of a program that can never be right: each has to raise, and to change nothing."""

    HOSTS = (None, 1, b"localhost")
    PORTS = (0, -1, 65536, 70000, 1 << 40)


@pytest.mark.parametrize("name", ["connect", "connect_encrypted"])
def test_impossible_hosts_and_ports_raise_and_change_nothing(own_host, certificates, own_bystander, name):
    sock = SslSocket()
    recorder = Recorder(sock)
    for port in Wrong.PORTS:
        with pytest.raises(ValueError, match="1 to 65535"):
            getattr(sock, name)("127.0.0.1", port)
    for port in (None, "443", 44.3):
        with pytest.raises(TypeError, match="port"):
            getattr(sock, name)("127.0.0.1", port)
    for host in Wrong.HOSTS:
        with pytest.raises(TypeError, match="host name"):
            getattr(sock, name)(host, 443)
    with pytest.raises((TypeError, ValueError)):
        getattr(sock, name)("127.0.0.1", 443, 99)
    server = TcpServer()
    for port in (-1, 65536, 70000):
        with pytest.raises(ValueError, match="0 to 65535"):
            server.listen(port)
        with pytest.raises(ValueError, match="0 to 65535"):
            sock.bind(port)
    own_host.turn()
    assert recorder.events == [] and sock.state is UNCONNECTED and not server.listening
    check_consistent(sock)


@pytest.mark.parametrize("data", [None, 1, "text", [1, 2], object(), 3.5, {}], ids=lambda data: type(data).__name__)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "encrypted"])
def test_what_is_no_buffer_cannot_be_written(own_host, certificates, own_bystander, secure, data):
    pair = make_ssl_pair(own_host, certificates.client(), certificates.server()) if secure else make_tcp_pair(own_host)
    pair.left.clear()
    for sock in (pair.client, TcpSocket()):
        for method in (sock.write, sock.write_bytes):
            with pytest.raises(TypeError):
                method(data)
    with pytest.raises((TypeError, BufferError)):
        pair.client.read_into(b"not writable" if data is None else data)
    assert pair.client.bytes_to_write == 0
    pair.client.write(b"real")
    own_host.wait_for(lambda: pair.right.data == b"real")
    assert not pair.left.events
    silence(pair)
    pair.client.abort()
    pair.server.abort()


def test_a_buffer_that_is_not_contiguous_is_written_as_its_bytes(own_host, certificates, own_bystander):
    pair = make_ssl_pair(own_host, certificates.client(), certificates.server())
    assert pair.client.write(memoryview(bytes(range(100)))[::3]) == 34
    own_host.wait_for(lambda: pair.right.data == bytes(range(0, 100, 3)))
    silence(pair)
    pair.client.abort()
    pair.server.abort()


# Hosts that are not there


HOSTS = {
    # name, what the resolver does, error, words
    "nul": ("local\0host", None, SocketError.HOST_NOT_FOUND_ERROR, "NUL"),
    "empty": ("", None, SocketError.HOST_NOT_FOUND_ERROR, "empty"),
    "space": ("local host", None, SocketError.HOST_NOT_FOUND_ERROR, "character"),
    "surrogate": ("\udc80", None, SocketError.HOST_NOT_FOUND_ERROR, "not valid"),
    "very long": ("a." * 200 + "example", None, SocketError.HOST_NOT_FOUND_ERROR, "longer"),
    "unknown": ("nobody.invalid", socket.EAI_NONAME, SocketError.HOST_NOT_FOUND_ERROR, "not known"),
    "no address": ("nobody.invalid", "nothing", SocketError.HOST_NOT_FOUND_ERROR, "no address"),
    "failing": ("nobody.invalid", socket.EAI_FAIL, SocketError.HOST_NOT_FOUND_ERROR, "nobody.invalid"),
    "not now": ("nobody.invalid", socket.EAI_AGAIN, SocketError.TEMPORARY_ERROR, "nobody.invalid"),
    "system": ("nobody.invalid", OSError(errno.EMFILE, "Too many open files"), None, "nobody.invalid"),
}


@pytest.mark.parametrize("case", HOSTS)
def test_a_host_that_is_not_there_is_told_with_the_reason(host, monkeypatch, certificates, bystander, case):
    name, outcome, error, words = HOSTS[case]

    def getaddrinfo(*arguments, **options):
        if isinstance(outcome, Exception):
            raise outcome
        if outcome == "nothing":
            return []
        text = "Name or service not known" if outcome == socket.EAI_NONAME else "no answer"
        raise socket.gaierror(outcome, text)

    if outcome is not None:
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    sock = SslSocket()
    recorder = Recorder(sock)
    sock.connect_encrypted(name, 443)
    assert sock.write(b"never sent") == 10
    host.wait_for(lambda: sock.state is UNCONNECTED, recorder.events)
    if error is not None:
        assert recorder.of("error") == [error]
    assert recorder.names() == ["state", "state", "error"]
    assert words in sock.error_string
    check_consistent(sock)
    silence_one(sock)


@pytest.mark.parametrize("name", ["connect", "connect_encrypted"])
def test_a_refused_connection_is_told_with_address_and_port(host, certificates, bystander, name):
    with refused_port() as port:
        sock = SslSocket()
        recorder = Recorder(sock)
        getattr(sock, name)("127.0.0.1", port)
        host.wait_for(lambda: sock.state is UNCONNECTED)
    assert recorder.of("error") == [SocketError.CONNECTION_REFUSED_ERROR]
    assert f"port {port}" in sock.error_string and os.strerror(errno.ECONNREFUSED) in sock.error_string
    check_consistent(sock)
    silence_one(sock)


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.ENOBUFS, errno.ETIMEDOUT])
def test_what_the_system_says_against_a_connection_is_told(host, monkeypatch, certificates, bystander, number):
    from sslsock.sockets import connector

    class RefusedDial:
        def __init__(self, loop, address, consumer, *, local=b""):
            pass

        def start(self, timeout):
            return -number

    monkeypatch.setattr(connector, "Dial", RefusedDial)
    sock = SslSocket()
    recorder = Recorder(sock)
    sock.connect_encrypted("127.0.0.1", 443)
    host.wait_for(lambda: sock.state is UNCONNECTED)
    expected = {
        errno.EACCES: SocketError.SOCKET_ACCESS_ERROR,
        errno.ENOBUFS: SocketError.SOCKET_RESOURCE_ERROR,
        errno.ETIMEDOUT: SocketError.CONNECTION_REFUSED_ERROR,
    }
    assert recorder.of("error") == [expected.get(number, SocketError.NETWORK_ERROR)]
    assert os.strerror(number) in sock.error_string and "127.0.0.1" in sock.error_string
    check_consistent(sock)
    silence_one(sock)


# Foreign threads, closed loops, forked children


# What may be called from anywhere: it says so in its documentation, or is a value.
FREE = {"call_soon_threadsafe", "in_thread", "time", "current", "report"}
ARGUMENTS = {
    "connect": ("127.0.0.1", 80), "connect_encrypted": ("127.0.0.1", 80), "bind": (0,), "open": (3,), "write": (b"x",),
    "write_bytes": (b"x",), "write_string": ("x",), "read_into": (bytearray(4),), "seek": (0,), "listen": (0,),
    "call_soon": (print,), "call_later": (0, print), "watch": (0, 1, print), "watch_level": (0, 1, print),
    "call_soon_threadsafe": (print,), "connect_local": ("/nonexistent/socket",), "set_socket_descriptor": (0,),
    "connect_local_encrypted": ("/nonexistent/socket",), "listen_local": ("/nonexistent/socket",),
    "request_certificate": (None,), "read_exactly": (1,), "read_until": (b"x",), "find": (b"x", 0),
    "channel_binding": ("tls-exporter",), "export_keying_material": ("EXPERIMENTAL", 32),
    "attach": (0,), "follow": (None,), "start_tls": (sslsock.Engine(sslsock.Context(server_side=False)), 1.0),
}  # fmt: skip


def plain_methods(kind):
    """All public methods of a class, those that no test has heard of as well."""
    for name in sorted(dir(kind)):
        attribute = inspect.getattr_static(kind, name)
        if name.startswith("_") or name in FREE or isinstance(attribute, (Twin, property, classmethod, staticmethod)):
            continue
        # on_something: what connector and channel tell, which are of the loop
        if callable(getattr(kind, name)) and not inspect.isclass(attribute) and not name.startswith("on_"):
            yield name


def in_thread(function, *arguments):
    results = []

    def run():
        try:
            results.append(function(*arguments))
        except BaseException as exc:
            results.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results[0]


KINDS = {
    "TcpSocket": lambda pair: TcpSocket(),
    "SslSocket": lambda pair: SslSocket(),
    "SslSocket, connected": lambda pair: pair.client,
    "TcpServer": lambda pair: TcpServer(),
    "SslServer": lambda pair: SslServer(),
    "SslServer, listening": lambda pair: listening(SslServer()),
    "EventLoop": lambda pair: pair.host.loop,
    "Channel": lambda pair: Channel(pair.host.loop, None),
    "Channel, open": lambda pair: pair.client._channel,
    "Listener": lambda pair: listening(TcpServer())._listener,
}


def arguments_of(name):
    return ARGUMENTS.get(name, ())


def called(target, name):
    """What the method returns, or what can be awaited of it does at first."""
    result = getattr(target, name)(*arguments_of(name))
    if inspect.isasyncgen(result) or hasattr(result, "__anext__"):
        result = result.__anext__()
    if not inspect.iscoroutine(result):
        return result
    try:
        return result.send(None)
    finally:
        result.close()


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_raises_in_a_foreign_thread_and_changes_nothing(own_host, certificates, own_bystander, kind):
    pair = make_ssl_pair(own_host, certificates.client(), certificates.server(), reads=False)
    pair.server.write(b"unread")
    own_host.wait_for(lambda: pair.client.bytes_available == 6)
    pair.left.clear()
    target = KINDS[kind](pair)
    names = list(plain_methods(type(target)))
    assert len(names) >= 5, names
    silent = []
    for name in names:
        if name == "fileno" and isinstance(target, (Channel, Listener)):  # a number to look at
            continue
        result = in_thread(called, target, name)
        if not isinstance(result, RuntimeError) or not ("thread" in str(result) or "ssl_errors_handler" in str(result)):
            silent.append(f"{name}: {result!r}")
    assert not silent, silent
    assert not pair.left.events
    assert pair.client.read_all() == b"unread"
    assert pair.client.state is SocketState.CONNECTED_STATE and pair.client.encrypted
    silence(pair)
    pair.client.abort()
    pair.server.abort()
    if isinstance(target, (TcpServer, Listener)):
        target.close()


def test_twins_and_only_they_work_from_a_foreign_thread(own_host, certificates, own_bystander):
    """Each method that raises there has a twin, or is none that another thread could want."""
    without = {"hold_handshake", "ignore_ssl_errors", "pause_accepting", "resume_accepting"}
    without |= {"channel_binding", "export_keying_material"}  # for what the connection says next
    for kind in (TcpSocket, SslSocket, TcpServer, SslServer):
        for name in plain_methods(kind):
            is_awaited = inspect.iscoroutinefunction(getattr(kind, name)) or name == "lines"
            assert name in without or is_awaited or hasattr(kind, f"{name}_async"), f"{kind.__name__}.{name} has no twin"


def test_every_method_raises_after_the_loop_was_closed(own_host, certificates):
    pair = make_ssl_pair(own_host, certificates.client(), certificates.server())
    targets = [pair.client, pair.server, SslSocket(), listening(SslServer()), SslServer(), own_host.loop]
    own_host.loop.close()
    silent = []
    for target in targets:
        for name in plain_methods(type(target)):
            if name.startswith(("read", "peek")) or name in ("seek", "reset", "release"):
                continue  # what has been received stays readable
            if name == "close" and not isinstance(target, SslSocket):  # the second time
                continue
            try:
                called(target, name)
            except RuntimeError:
                continue
            silent.append(f"{type(target).__name__}.{name}")
    assert not silent, silent
    for sock in (pair.client, pair.server):
        assert sock.read_all() == b"" and sock.bytes_to_write == 0
        assert sock.local_port == 0


def test_a_forked_child_touches_nothing_of_its_parent(own_host, certificates, own_bystander):
    pair = make_ssl_pair(own_host, certificates.client(), certificates.server())
    server = listening(SslServer())
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        found = "the child did not come to an end"
        try:
            silent = []
            for target in (pair.client, pair.server, SslSocket(), server, own_host.loop, own_bystander.pair.client):
                if target.__class__ is SslSocket and target.state is UNCONNECTED:
                    continue  # made here, it lives on the child's own loop
                for name in plain_methods(type(target)):
                    if name in ("close",) and target is own_host.loop:
                        continue
                    try:
                        called(target, name)
                    except RuntimeError:
                        continue
                    silent.append(f"{type(target).__name__}.{name}")
            own_host.loop.close()  # gives its descriptors back, and disturbs nobody
            client = SslSocket()  # on a loop of the child's own
            client.configuration = certificates.client()
            left = Recorder(client)
            client.connect("127.0.0.1", server_port_of(own_bystander))
            while not left.has("disconnected") and not left.has("error") and not left.has("connected"):
                EventLoop.current().dispatch(1)
            client.abort()
            found = repr(silent) if silent else "fine"
        except BaseException as exc:
            found = repr(exc)
        finally:
            os.write(writing, found.encode())
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"fine"
    own_bystander.check()
    pair.client.write(b"still here")
    own_host.wait_for(lambda: pair.right.data == b"still here")
    silence(pair)
    pair.client.abort()
    pair.server.abort()
    server.close()


def server_port_of(bystander):
    return bystander.pair.client.remote_port


def test_a_nul_in_a_name_to_verify_raises(own_host):
    for name in ("good.example\0.evil.example", "\0"):
        with pytest.raises(ValueError, match="NUL"):
            SslSocket().peer_verify_name = name
    assert SslSocket().mode is SslMode.UNENCRYPTED_MODE


def test_the_methods_that_these_tests_know_exist():
    known = {name for kind in (SslSocket, SslServer, EventLoop, Channel, Listener) for name in dir(kind)}
    assert set(ARGUMENTS) | FREE <= known, (set(ARGUMENTS) | FREE) - known
    assert issubclass(EventLoop, Loop)
