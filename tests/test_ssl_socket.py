"""SslSocket: handshakes, verification, STARTTLS, what was agreed on, resumption, and the ends of connections."""

from __future__ import annotations

import datetime
import gc
import socket
import ssl
import threading
import weakref

import pytest
import trustme

from peers import (
    Pair,
    Recorder,
    accept,
    listening,
    make_ssl_pair,
    make_tcp_pair,
    plain_listener,
    refused_port,
    reset,
    secure_server,
    silence,
    wait_for_end,
)
from sslsock import (
    PeerVerifyMode,
    SocketError,
    SocketState,
    SslCertificate,
    SslConfiguration,
    SslError,
    SslMode,
    SslProtocol,
    SslServer,
    SslSocket,
)

UNENCRYPTED, CLIENT, SERVER = SslMode
UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND, CLOSING = SocketState
HANDSHAKE_FAILED = SocketError.SSL_HANDSHAKE_FAILED_ERROR
VERSIONS = [SslProtocol.TLS_1_2, SslProtocol.TLS_1_3]


@pytest.fixture(params=VERSIONS, ids=str)
def version(request):
    return request.param


def limited(configuration, version):
    configuration.minimum_protocol = configuration.maximum_protocol = version
    return configuration


@pytest.fixture
def pair(host, certificates, version):
    pair = make_ssl_pair(host, limited(certificates.client(), version), certificates.server())
    yield pair
    pair.client.abort()
    pair.server.abort()


def attempt(host, client, server_configuration, name="127.0.0.1"):
    """Let `client` connect to a server with this configuration. Both recorders, when the client is encrypted or has
    failed."""
    server = SslServer()
    server.configuration = server_configuration
    listening(server)
    left = Recorder(client)
    client.connect_encrypted(name, server.port)
    right = accept(host, server)
    server.close()
    host.wait_for(lambda: left.has("encrypted") or left.has("disconnected"), left.events)
    return left, right


# The way to an encrypted connection


def test_the_events_of_an_encrypted_connection_in_order(host, certificates):
    server = secure_server(certificates)
    client = SslSocket()
    client.configuration = certificates.client()
    left = Recorder(client)
    encrypted = []
    client.encrypted_handler = lambda s: (encrypted.append(s.encrypted), left.events.append(("encrypted",)))
    client.connect_encrypted("localhost", server.port)
    right = accept(host, server)
    assert right.socket.mode is SERVER
    assert right.socket.state is CONNECTED
    host.wait_for(lambda: client.encrypted and right.socket.encrypted)
    assert left.events == [
        ("state", HOST_LOOKUP),
        ("host_found",),
        ("state", CONNECTING),
        ("state", CONNECTED),
        ("connected",),
        ("mode", CLIENT),
        ("encrypted",),
    ]
    assert encrypted == [True]
    assert right.events == [("encrypted",)]
    left.clear()
    client.disconnect()
    host.wait_for(lambda: right.has("disconnected"))
    assert left.events == [("state", UNCONNECTED), ("mode", UNENCRYPTED), ("disconnected",)]
    assert right.events[1:] == [
        ("error", SocketError.REMOTE_HOST_CLOSED_ERROR),
        ("state", UNCONNECTED),
        ("mode", UNENCRYPTED),
        ("disconnected",),
    ]
    assert not client.encrypted
    assert client.clean_close
    assert right.socket.clean_close


def test_data_written_at_once_waits_for_encryption(host, certificates):
    server = secure_server(certificates)
    client = SslSocket()
    client.configuration = certificates.client()
    left = Recorder(client)
    client.connect_encrypted("localhost", server.port)
    assert client.write(b"early") == 5
    client.connected_handler = lambda s: s.write(b", connected")
    client.mode_changed_handler = lambda s, mode: s.write(b", mode")
    client.encrypted_handler = lambda s: left.events.append(("pending", s.bytes_to_write, s.write(b", encrypted")))
    assert client.bytes_to_write == 5
    right = accept(host, server)
    right.socket.write(b"from the server")
    host.wait_for(lambda: right.data.endswith(b"encrypted"), left.events)
    assert right.data == b"early, connected, mode, encrypted"
    host.wait_for(lambda: left.data == b"from the server")
    assert left.events[-1] == ("pending", 22, 11)


def test_what_waits_for_encryption_never_goes_out_in_the_clear(host):
    with plain_listener() as listener:
        client = SslSocket()
        client.connected_handler = lambda s: (s.write(b"secret"), s.disconnect())
        client.connect_encrypted(*listener.getsockname())
        client.write(b"secret")
        host.wait_for(lambda: client.state is CLOSING)
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(5)
            received = peer.recv(1 << 16)
            assert received[:1] == b"\x16"  # a handshake record
            assert b"secret" not in received
        host.wait_for(lambda: client.state is UNCONNECTED)


def test_all_is_delivered_when_disconnecting_before_encryption(host, certificates):
    server = secure_server(certificates)
    client = SslSocket()
    client.configuration = certificates.client()
    client.connected_handler = lambda s: s.disconnect()
    left = Recorder(client)
    client.connected_handler = lambda s: s.disconnect()
    client.connect_encrypted("localhost", server.port)
    client.write(b"message")
    right = accept(host, server)
    host.wait_for(lambda: right.has("disconnected"), (left.events, right.events))
    assert right.data == b"message"
    assert right.socket.clean_close


def test_what_was_agreed_on_is_told(pair, version):
    assert pair.client.session_protocol is pair.server.session_protocol is version
    assert pair.client.session_cipher == pair.server.session_cipher != ""
    assert pair.client.session_group == pair.server.session_group != ""
    assert pair.client.peer_certificate.subject["CN"] == ["localhost"]
    assert pair.client.peer_certificate_chain[0] == pair.client.peer_certificate
    assert pair.server.peer_certificate is None
    assert pair.server.peer_certificate_chain == []
    assert pair.server.requested_server_name == "localhost"
    assert pair.client.next_negotiated_protocol is None
    assert not pair.client.session_reused
    assert pair.client.ssl_handshake_errors == []


def test_before_a_handshake_nothing_is_agreed_on(own_host):
    sock = SslSocket()
    assert sock.session_protocol is sock.peer_certificate is sock.next_negotiated_protocol is None
    assert sock.session_cipher == sock.session_group == ""
    assert sock.session_reused is False
    assert sock.peer_certificate_chain == sock.ssl_handshake_errors == []
    assert (sock.mode, sock.encrypted, sock.clean_close) == (UNENCRYPTED, False, True)


def test_what_was_agreed_on_can_be_asked_for_after_the_end_until_the_next_connection(host, pair, version):
    pair.client.disconnect()
    host.wait_for(lambda: pair.right.has("disconnected"))
    for sock in (pair.client, pair.server):
        assert sock.session_protocol is version
        assert not sock.encrypted
    assert pair.client.peer_certificate is not None
    pair.client.connect("localhost", 1)
    assert pair.client.session_protocol is None
    assert pair.client.peer_certificate is None


@pytest.mark.parametrize("size", [1, 1000, 1 << 14, (1 << 14) + 1, 1 << 20])
def test_data_goes_both_ways(host, pair, size):
    one, other = bytes(range(256)) * (size // 256 + 1), bytes(range(255)) * (size // 255 + 1)
    pair.client.write(one)
    pair.server.write(bytearray(other))
    host.wait_for(lambda: len(pair.right.data) == len(one) and len(pair.left.data) == len(other))
    assert pair.right.data == one
    assert pair.left.data == other
    assert pair.left.written == len(one)


def test_a_bounded_read_buffer_holds_the_peer_back(host, certificates):
    pair = make_ssl_pair(host, certificates.client(), certificates.server(), reads=False)
    pair.server.read_buffer_size = 1000
    pair.client.write(bytes(1 << 24))
    host.wait_for(lambda: pair.server.bytes_available == 1000)
    host.turn(10)
    assert pair.server.bytes_available <= 1000
    assert pair.client.bytes_to_write > 0
    received = 0
    pair.server.read_buffer_size = 0

    def take(s):
        nonlocal received
        received += len(s.read_all())

    pair.server.ready_read_handler = take
    take(pair.server)
    host.wait_for(lambda: received == 1 << 24)


# ALPN, SNI, client certificates, bounds


@pytest.mark.parametrize(
    ("offered", "known", "expected"),
    [
        (["h2", "http/1.1"], ["http/1.1", "h2"], "http/1.1"),
        ([b"h2"], ["h2"], "h2"),
        (["h2"], [], None),
        ([], ["h2"], None),
    ],
)
def test_a_protocol_is_agreed_on_by_alpn(host, certificates, offered, known, expected):
    client, server = certificates.client(), certificates.server()
    client.allowed_next_protocols = offered
    server.allowed_next_protocols = known
    pair = make_ssl_pair(host, client, server)
    assert pair.client.next_negotiated_protocol == pair.server.next_negotiated_protocol == expected


def test_no_common_protocol_ends_the_handshake(host, certificates):
    configuration = certificates.server()
    configuration.allowed_next_protocols = ["h2"]
    client = SslSocket()
    client.configuration = certificates.client()
    client.configuration.allowed_next_protocols = ["imap"]
    left, _ = attempt(host, client, configuration)
    assert left.of("error") == [HANDSHAKE_FAILED]
    assert "no application protocol" in client.error_string


@pytest.mark.parametrize(
    ("host_name", "peer_name", "expected"),
    [("127.0.0.1", "", None), ("localhost", "", "localhost"), ("127.0.0.1", "www.example.org", "www.example.org")],
)
def test_the_server_is_asked_for_by_name(host, certificates, host_name, peer_name, expected):
    client = SslSocket()
    client.configuration = certificates.client()
    client.peer_verify_name = peer_name
    client.peer_verify_mode = SslSocket.QUERY_PEER
    _, right = attempt(host, client, certificates.server(), host_name)
    host.wait_for(lambda: right.socket.encrypted)
    assert right.socket.requested_server_name == expected
    client.abort()


def test_an_international_name_is_sent_and_checked_in_its_ascii_form(host, certificates):
    client = SslSocket()
    client.configuration = certificates.client()
    client.peer_verify_name = "bücher.example"
    left, right = attempt(host, client, certificates.server("xn--bcher-kva.example"))
    assert left.has("encrypted"), client.error_string
    host.wait_for(lambda: right.socket.encrypted)
    assert right.socket.requested_server_name == "xn--bcher-kva.example"
    client.abort()


@pytest.mark.parametrize("mode", [PeerVerifyMode.AUTO_VERIFY_PEER, PeerVerifyMode.VERIFY_PEER, PeerVerifyMode.QUERY_PEER])
def test_a_client_certificate_is_shown(host, certificates, version, mode):
    server = certificates.server()
    server.peer_verify_mode = mode
    pair = make_ssl_pair(host, limited(certificates.client(identity=True), version), server)
    assert pair.server.peer_certificate.subject["CN"] == ["client"]
    assert pair.server.ssl_handshake_errors == []


def test_a_server_that_demands_a_certificate_gets_one_or_ends(host, certificates, version):
    server = certificates.server()
    server.peer_verify_mode = SslSocket.VERIFY_PEER
    client = SslSocket()
    client.configuration = limited(certificates.client(), version)
    left, right = attempt(host, client, server)
    host.wait_for(lambda: left.has("disconnected") and right.has("disconnected"))
    assert right.of("error") == [HANDSHAKE_FAILED]
    # In TLS 1.3 the client is done before the server has looked at its certificate: RFC 8446, 2.
    assert left.of("error") == [HANDSHAKE_FAILED if version is SslProtocol.TLS_1_2 else SocketError.SSL_INTERNAL_ERROR]
    assert "certificate" in right.socket.error_string


def test_an_unknown_client_certificate_is_reported_and_let_pass_by_query(host, certificates):
    stranger = trustme.CA().issue_cert("stranger@example.org")
    client = certificates.with_identity(stranger)
    client.add_ca_certificate(certificates.ca_certificate)
    pair = make_ssl_pair(host, client, certificates.server())
    assert pair.server.encrypted
    assert [error.depth for error in pair.server.ssl_handshake_errors] != []
    assert pair.right.has("ssl_errors")


def test_protocol_bounds_that_do_not_meet_end_the_handshake(host, certificates):
    client = SslSocket()
    client.configuration = limited(certificates.client(), SslProtocol.TLS_1_2)
    left, right = attempt(host, client, limited(certificates.server(), SslProtocol.TLS_1_3))
    host.wait_for(lambda: right.has("disconnected"))
    assert left.of("error") == right.of("error") == [HANDSHAKE_FAILED]
    assert "protocol version" in client.error_string


def test_cipher_suites_and_groups_are_those_of_the_configuration(host, certificates):
    client = limited(certificates.client(), SslProtocol.TLS_1_2)
    client.ciphers = "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
    pair = make_ssl_pair(host, client, certificates.server())
    assert "CHACHA20" in pair.client.session_cipher
    client = limited(certificates.client(), SslProtocol.TLS_1_3)
    client.ciphersuites = "TLS_AES_128_GCM_SHA256"
    client.groups = "P-384"
    pair = make_ssl_pair(host, client, certificates.server())
    assert pair.client.session_cipher == "TLS_AES_128_GCM_SHA256"
    assert pair.client.session_group == "secp384r1"


# Verification


NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)

BAD_SERVERS = {
    "expired": ({"not_before": NOW - 3 * DAY, "not_after": NOW - DAY}, ["127.0.0.1"], "expired"),
    "not yet valid": ({"not_before": NOW + DAY, "not_after": NOW + 3 * DAY}, ["127.0.0.1"], "not yet valid"),
    "wrong host": ({}, ["other.example"], "127.0.0.1"),
    "wrong address": ({}, ["127.0.0.2"], "127.0.0.1"),
}


def bad_server(certificates, case):
    options, names, words = BAD_SERVERS[case]
    return certificates.server(*names, **options), words


@pytest.fixture(params=[*BAD_SERVERS, "unknown CA", "self-signed"])
def bad(request, certificates):
    """A server's configuration with which something is wrong, and words that tell what."""
    if request.param == "unknown CA":
        return certificates.with_identity(trustme.CA().issue_cert("127.0.0.1")), "issuer|unable to verify"
    if request.param == "self-signed":
        ca = trustme.CA()
        configuration = SslConfiguration()
        from sslsock import SslKey

        configuration.local_certificate = SslCertificate(ca.cert_pem.bytes())
        configuration.private_key = SslKey(ca.private_key_pem.bytes())
        return configuration, "self.signed"
    return bad_server(certificates, request.param)


def test_a_client_verifies_by_default(host, certificates, bad):
    configuration, words = bad
    client = SslSocket()
    client.configuration = certificates.client()
    left, right = attempt(host, client, configuration)
    assert left.of("error") == [HANDSHAKE_FAILED]
    assert not left.has("encrypted")
    assert client.state is UNCONNECTED
    assert client.ssl_handshake_errors
    assert_words(words, client.error_string)
    assert_words(words, " ".join(error.error_string for error in client.ssl_handshake_errors))
    host.wait_for(lambda: right.has("disconnected"), right.events)
    # The server is told, too, by the alert.
    assert "certificate" in right.socket.error_string or "unknown CA" in right.socket.error_string


def assert_words(pattern, text):
    import re

    assert re.search(pattern, text), text


def test_verification_that_is_switched_off_lets_all_pass(host, certificates, bad):
    client = SslSocket()
    client.configuration = certificates.client()
    client.peer_verify_mode = SslSocket.VERIFY_NONE
    left, _ = attempt(host, client, bad[0])
    assert left.has("encrypted"), client.error_string
    assert not left.has("ssl_errors")
    client.abort()


def test_query_reports_and_goes_on(host, certificates, bad):
    client = SslSocket()
    client.configuration = certificates.client()
    client.configuration.peer_verify_mode = SslSocket.QUERY_PEER
    left, _ = attempt(host, client, bad[0])
    assert left.has("encrypted"), client.error_string
    assert left.of("ssl_errors") == [client.ssl_handshake_errors]
    assert client.ssl_handshake_errors
    assert left.names().index("ssl_errors") < left.names().index("encrypted")
    client.abort()


def test_errors_are_ignored_when_the_handler_says_so(host, certificates, bad):
    client = SslSocket()
    client.configuration = certificates.client()
    left = []
    client.ssl_errors_handler = lambda s, errors: (left.append(errors), s.ignore_ssl_errors())
    server = SslServer()
    server.configuration = bad[0]
    listening(server)
    client.connect_encrypted("127.0.0.1", server.port)
    accept(host, server)
    host.wait_for(lambda: client.encrypted, client)
    assert left == [client.ssl_handshake_errors]
    client.abort()


@pytest.mark.parametrize("choose", ["all", "none", "some", "others"])
def test_exactly_the_named_errors_are_ignored(host, certificates, choose):
    stranger = trustme.CA()
    issued = stranger.issue_cert("other.example", not_before=NOW - 3 * DAY, not_after=NOW - DAY)
    configuration = certificates.with_identity(issued)

    def handle(s, errors):
        assert len(errors) > 1
        chosen = {"all": list(reversed(errors)), "none": [], "some": errors[:1], "others": [SslError(1)]}
        s.ignore_ssl_errors(chosen[choose])

    client = SslSocket()
    client.configuration = certificates.client()
    server = SslServer()
    server.configuration = configuration
    listening(server)
    left = Recorder(client)
    client.ssl_errors_handler = handle
    client.connect_encrypted("127.0.0.1", server.port)
    accept(host, server)
    host.wait_for(lambda: left.has("encrypted") or left.has("disconnected"))
    assert left.has("encrypted") is (choose == "all")
    client.abort()


def test_errors_are_ignored_inside_the_handler_only(host, certificates):
    client = SslSocket()
    with pytest.raises(RuntimeError, match="ssl_errors_handler"):
        client.ignore_ssl_errors()
    client.configuration = certificates.client()
    client.ssl_errors_handler = lambda s, errors: s.ignore_ssl_errors()
    configuration, _ = bad_server(certificates, "expired")
    server = SslServer()
    server.configuration = configuration
    listening(server)
    client.connect_encrypted("127.0.0.1", server.port)
    accept(host, server)
    host.wait_for(lambda: client.encrypted)
    with pytest.raises(RuntimeError):
        client.ignore_ssl_errors()
    client.abort()


@pytest.mark.parametrize("action", ["abort", "close", "disconnect", "reconnect", "raise", "dispatch"])
def test_the_errors_handler_may_do_anything(host, certificates, action):
    good = SslServer()
    good.configuration = certificates.server()
    listening(good)
    client = SslSocket()
    client.configuration = certificates.client()
    left = Recorder(client)

    def handle(s, errors):
        left.events.append(("ssl_errors", errors))
        if action == "raise":
            raise ValueError("from the handler")
        if action == "dispatch":
            host.loop.dispatch(0)
        elif action == "reconnect":
            s.abort()
            s.connect_encrypted("127.0.0.1", good.port)
        else:
            getattr(s, action)()

    client.ssl_errors_handler = handle
    server = SslServer()
    server.configuration = bad_server(certificates, "expired")[0]
    listening(server)
    client.connect_encrypted("127.0.0.1", server.port)
    host.wait_for(lambda: server.has_pending_connections)
    right = Recorder(server.next_pending_secure_connection())
    if action == "reconnect":
        accept(host, good)
        host.wait_for(lambda: left.has("encrypted"), left.events)
        assert client.peer_certificate.not_after > NOW
    host.wait_for(lambda: right.has("disconnected"), (left.events, right.events))
    assert not right.has("encrypted")
    assert client.state is (CONNECTED if action == "reconnect" else UNCONNECTED)
    assert left.names().count("ssl_errors") == 1
    assert len(host.take_failures()) == (action == "raise")
    client.abort()


def test_a_name_is_not_checked_when_that_is_switched_off(host, certificates):
    client = SslSocket()
    client.configuration = certificates.client()
    client.configuration.verify_hostname = False
    left, _ = attempt(host, client, bad_server(certificates, "wrong host")[0])
    assert left.has("encrypted"), client.error_string
    client.abort()


@pytest.mark.parametrize(
    ("names", "asked", "good"),
    [
        (["*.example.org"], "www.example.org", True),
        (["*.example.org"], "a.b.example.org", False),
        (["*.example.org"], "example.org", False),
        (["www.example.org"], "WWW.Example.ORG", True),
        (["www.example.org"], "www.example.org.", True),
        (["127.0.0.1"], "127.0.0.1", True),
        (["::1"], "::1", True),
        (["::1"], "::2", False),
    ],
)
def test_names_are_checked_as_they_should_be(host, certificates, names, asked, good):
    client = SslSocket()
    client.configuration = certificates.client()
    client.peer_verify_name = asked
    left, _ = attempt(host, client, certificates.server(*names))
    assert left.has("encrypted") is good, client.error_string
    client.abort()


@pytest.mark.parametrize(("name", "error"), [(5, TypeError), ("a\0b", ValueError), ("a b", ValueError)])
def test_an_impossible_name_to_verify_raises(own_host, name, error):
    sock = SslSocket()
    with pytest.raises(error):
        sock.peer_verify_name = name


def test_a_missing_intermediate_is_an_error(host, certificates):
    root = trustme.CA()
    middle = root.create_child_ca()
    issued = middle.issue_cert("127.0.0.1")
    whole, cut = certificates.with_identity(issued), certificates.with_identity(issued)
    cut.local_certificate_chain = cut.local_certificate_chain[:1]
    for configuration, good in ((whole, True), (cut, False)):
        client = SslSocket()
        client.configuration.use_system_ca = False
        client.configuration.add_ca_certificate(SslCertificate(root.cert_pem.bytes()))
        left, _ = attempt(host, client, configuration)
        assert left.has("encrypted") is good, client.error_string
        client.abort()


def test_a_mode_that_is_set_during_the_handshake_counts_from_the_next_one_on(host, certificates):
    client = SslSocket()
    client.configuration = certificates.client()
    client.ssl_errors_handler = lambda s, errors: setattr(s, "peer_verify_mode", SslSocket.QUERY_PEER)
    for expected in (False, True):
        server = SslServer()
        server.configuration = bad_server(certificates, "wrong host")[0]
        listening(server)
        encrypted = []
        client.encrypted_handler = lambda s, encrypted=encrypted: (encrypted.append(s), s.disconnect())
        client.connect_encrypted("127.0.0.1", server.port)
        right = accept(host, server)
        host.wait_for(lambda right=right: right.has("disconnected"))
        assert bool(encrypted) is expected
        server.close()


# STARTTLS


def test_starttls_in_both_roles(host, certificates, version):
    pair = make_tcp_pair(host, SslSocket)
    pair.client.configuration = limited(certificates.client(), version)
    pair.server.configuration = certificates.server()
    pair.client.write(b"STARTTLS\n")
    host.wait_for(lambda: pair.right.data == b"STARTTLS\n")
    pair.server.write(b"OK\n")
    pair.server.start_server_encryption()
    assert pair.server.mode is SERVER
    host.wait_for(lambda: pair.left.data == b"OK\n")
    pair.client.start_client_encryption()
    pair.client.write(b"secret")
    host.wait_for(lambda: pair.client.encrypted and pair.right.data.endswith(b"secret"))
    assert pair.right.data == b"STARTTLS\nsecret"
    pair.server.write(b"answer")
    host.wait_for(lambda: pair.left.data == b"OK\nanswer")
    pair.client.disconnect()
    host.wait_for(lambda: pair.right.has("disconnected"))
    assert pair.server.clean_close


def test_bytes_that_came_before_the_handshake_started_belong_to_it(host, certificates):
    """A client that does not wait for the reply: its ClientHello has arrived before the server starts."""
    pair = make_tcp_pair(host, SslSocket, reads=False)
    pair.client.configuration = certificates.client()
    pair.server.configuration = certificates.server()
    pair.client.write(b"STARTTLS\n")
    pair.client.start_client_encryption()
    host.wait_for(lambda: pair.server.bytes_available > 50)
    assert pair.server.read_line() == b"STARTTLS\n"
    pair.server.start_server_encryption()
    host.wait_for(lambda: pair.client.encrypted and pair.server.encrypted)
    pair.client.abort()


# Configurations that cannot be used


def unusable(certificates, case):
    configuration = certificates.server()
    if case == "no certificate":
        configuration = SslConfiguration()
    elif case == "unknown cipher":
        configuration.ciphers = "NO-SUCH-CIPHER"
    elif case == "other key":
        configuration.private_key = certificates.with_identity(certificates.ca.issue_cert("x.example")).private_key
    elif case == "broken CA":
        configuration.add_ca_certificate(SslCertificate(b"-----BEGIN CERTIFICATE-----\nbroken"))
    return configuration


UNUSABLE = ["no certificate", "unknown cipher", "other key", "broken CA"]


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_server_with_an_unusable_configuration(host, certificates, case):
    server = listening(SslServer())
    server.configuration = unusable(certificates, case)  # too late for `listen` to see it
    client = SslSocket()
    client.configuration = certificates.client()
    left = Recorder(client)
    client.connect_encrypted("localhost", server.port)
    right = accept(host, server)
    assert right.socket.mode is SERVER
    assert right.socket.write(b"never in the clear") == -1
    host.wait_for(lambda: left.has("disconnected") and right.has("disconnected"))
    assert right.of("error")[-1] is SocketError.SSL_INVALID_USERDATA_ERROR
    assert right.socket.state is UNCONNECTED
    assert right.socket.error_string
    assert left.of("error") == [HANDSHAKE_FAILED]
    assert not left.data


@pytest.mark.parametrize("case", UNUSABLE[1:])
def test_a_client_with_an_unusable_configuration(host, certificates, case):
    with plain_listener() as listener:
        client = SslSocket()
        client.configuration = unusable(certificates, case)
        left = Recorder(client)
        client.connect_encrypted(*listener.getsockname())
        client.write(b"never in the clear")
        host.wait_for(lambda: left.has("disconnected"), left.events)
        assert left.of("error") == [SocketError.SSL_INVALID_USERDATA_ERROR]
        with listener.accept()[0] as peer:
            assert peer.recv(100) == b""
    assert client.error is SocketError.SSL_INVALID_USERDATA_ERROR


def test_a_changed_configuration_touches_no_live_connection(host, certificates):
    configuration = certificates.client()
    pair = make_ssl_pair(host, configuration, certificates.server())
    configuration.ciphers = "NO-SUCH-CIPHER"
    pair.client.write(b"still works")
    host.wait_for(lambda: pair.right.data == b"still works")
    pair.client.abort()
    left = Recorder(pair.client)
    with plain_listener() as listener:
        pair.client.connect_encrypted(*listener.getsockname())
        host.wait_for(lambda: left.has("disconnected"))
    assert left.of("error") == [SocketError.SSL_INVALID_USERDATA_ERROR]


# Resumption


def finish(host, pair):
    """End a pair after its tickets have come."""
    pair.server.write(b"x")
    host.wait_for(lambda: pair.left.data)
    pair.client.disconnect()
    host.wait_for(lambda: pair.right.has("disconnected"))


def test_sockets_that_share_a_configuration_resume_each_others_sessions(host, certificates, version):
    client, configuration = limited(certificates.client(), version), certificates.server()
    server = SslServer()
    server.configuration = configuration
    listening(server)
    reused = []
    for _ in range(3):
        sock = SslSocket()
        sock.configuration = client
        left = Recorder(sock)
        sock.connect_encrypted("localhost", server.port)
        right = accept(host, server)
        host.wait_for(lambda right=right, sock=sock: right.socket.encrypted and sock.encrypted)
        reused.append((sock.session_reused, right.socket.session_reused))
        assert sock.peer_certificate is not None
        finish(host, Pair(host, sock, right.socket, left, right))
    assert reused == [(False, False), (True, True), (True, True)]
    other = SslSocket()
    other.configuration = client
    other.peer_verify_name = "127.0.0.1"  # another peer, for all the client knows
    other.connect_encrypted("localhost", server.port)
    accept(host, server)
    host.wait_for(lambda: other.encrypted)
    assert not other.session_reused
    other.abort()


# Ends


@pytest.mark.parametrize("end", ["disconnect", "abort"])
def test_a_cut_connection_is_told_from_a_closed_one(host, pair, end):
    pair.server.write(b"last words")
    host.wait_for(lambda: pair.left.data == b"last words")
    getattr(pair.server, end)()
    host.wait_for(lambda: pair.left.has("disconnected"))
    assert pair.left.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]
    assert pair.client.clean_close is (end == "disconnect")
    assert ("close_notify" in pair.client.error_string) is (end == "abort")


def test_clean_close_is_known_in_the_error_handler(host, pair):
    seen = []
    pair.client.error_handler = lambda s, error: seen.append((s.clean_close, s.encrypted, s.mode))
    pair.server.abort()
    host.wait_for(lambda: seen)
    assert seen == [(False, True, CLIENT)]


def test_pending_data_goes_out_before_close_notify(host, pair):
    data = bytes(1 << 22)
    pair.client.write(data)
    pair.client.disconnect()
    assert pair.client.state is CLOSING
    host.wait_for(lambda: pair.right.has("disconnected"))
    assert pair.right.data == data
    assert pair.server.clean_close
    assert pair.client.state is UNCONNECTED


def test_disconnecting_in_the_middle_of_the_handshake(host):
    with plain_listener() as listener:
        client = SslSocket()
        left = Recorder(client)
        client.connect_encrypted(*listener.getsockname())
        host.wait_for(lambda: left.has("mode"))
        client.disconnect()
        assert client.state is UNCONNECTED
        assert left.names()[-1] == "disconnected"
        assert not left.has("error")


BAD_PEERS = {
    "plain http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "random": bytes(range(7, 200)),
    "fatal alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "endless record": b"\x16\x03\x03\xff\xff" + bytes(70000),
}


@pytest.mark.parametrize("case", BAD_PEERS)
@pytest.mark.parametrize("role", ["client", "server"])
def test_a_peer_that_does_not_speak_tls(host, certificates, case, role):
    sock, peer = ssl_socket_and_peer(host, certificates, role)
    recorder = Recorder(sock)
    with peer:
        peer.sendall(BAD_PEERS[case])
        host.wait_for(lambda: recorder.has("disconnected"), recorder.events)
    assert recorder.of("error") == [HANDSHAKE_FAILED]
    assert sock.state is UNCONNECTED
    assert len(sock.error_string) > 20
    assert not recorder.data


def ssl_socket_and_peer(host, certificates, role):
    """An SslSocket in its handshake, and the socket of the standard library at the other end."""
    if role == "client":
        with plain_listener() as listener:
            sock = SslSocket()
            sock.configuration = certificates.client()
            sock.connect_encrypted(*listener.getsockname())
            host.wait_for(lambda: sock.mode is CLIENT)
            peer, _ = listener.accept()
    else:
        server = secure_server(certificates)
        peer = socket.create_connection(("127.0.0.1", server.port))
        host.wait_for(lambda: server.has_pending_connections)
        sock = server.next_pending_secure_connection()
        server.close()
    return sock, peer


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_peer_that_goes_during_the_handshake(host, certificates, role, end):
    sock, peer = ssl_socket_and_peer(host, certificates, role)
    recorder = Recorder(sock)
    if end == "reset":
        reset(peer)
    else:
        peer.shutdown(socket.SHUT_WR)
    host.wait_for(lambda: recorder.has("disconnected"), recorder.events)
    peer.close()
    expected = HANDSHAKE_FAILED if end == "close" else SocketError.REMOTE_HOST_CLOSED_ERROR
    assert recorder.of("error") == [expected]
    assert sock.clean_close is False


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_handshake_has_a_deadline(host, certificates, role):
    if role == "client":
        with plain_listener() as listener:
            sock = SslSocket()
            sock.handshake_timeout = 0.05
            recorder = Recorder(sock)
            sock.connect_encrypted(*listener.getsockname())
            host.wait_for(lambda: recorder.has("disconnected"), recorder.events)
    else:
        server = SslServer()
        server.configuration = certificates.server()
        server.handshake_timeout = 0.05
        listening(server)
        with socket.create_connection(("127.0.0.1", server.port)):
            recorder = accept(host, server)
            assert recorder.socket.handshake_timeout == 0.05
            host.wait_for(lambda: recorder.has("disconnected"), recorder.events)
    assert recorder.of("error") == [HANDSHAKE_FAILED]
    assert "in time" in recorder.socket.error_string


def test_a_connection_that_fails_never_becomes_encrypted(host, certificates):
    with refused_port() as port:
        client = SslSocket()
        left = Recorder(client)
        client.connect_encrypted("127.0.0.1", port)
        client.write(b"x")
        host.wait_for(lambda: left.has("error"))
    assert left.of("error") == [SocketError.CONNECTION_REFUSED_ERROR]
    assert client.mode is UNENCRYPTED
    assert not left.has("mode")
    client.connect("127.0.0.1", 1)  # in the clear this time
    assert client.mode is UNENCRYPTED
    client.abort()


def test_connecting_in_the_clear_after_an_encrypted_connection(host, certificates):
    pair = make_ssl_pair(host, certificates.client(), certificates.server())
    pair.client.abort()
    server = listening(SslServer())
    left = Recorder(pair.client)
    pair.client.connect("127.0.0.1", server.port)
    host.wait_for(lambda: server.has_pending_connections and left.has("connected"))
    right = Recorder(server.next_pending_connection())
    pair.client.write(b"in the clear")
    host.wait_for(lambda: right.data == b"in the clear")
    assert not left.has("mode")
    pair.client.abort()


@pytest.mark.parametrize("end", ["disconnect", "abort", "close"])
@pytest.mark.parametrize("moment", ["connected", "encrypted"])
def test_a_socket_that_is_over_leaves_no_cycle(host, certificates, end, moment):
    if moment == "encrypted":
        pair = make_ssl_pair(host, certificates.client(), certificates.server())
    else:
        pair = make_tcp_pair(host, SslSocket)
        pair.client.configuration = certificates.client()
        pair.client.start_client_encryption()
    gc.collect()
    gc.disable()
    try:
        getattr(pair.client, end)()
        wait_for_end(host, pair.right)
        ended = weakref.ref(pair.client), weakref.ref(pair.server)
        silence(pair)
        del pair
        host.wait_for(lambda: not any(reference() for reference in ended), "the sockets to go, and nobody to collect them")
    finally:
        gc.enable()


# A foreign peer


def test_against_the_standard_library_as_server(host, certificates, version, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.ca.issue_cert("localhost").configure_cert(context)
    context.set_alpn_protocols(["test"])

    def serve(listener):
        raw, _ = listener.accept()
        with context.wrap_socket(raw, server_side=True) as peer:
            data = b""
            while not data.endswith(b"."):
                data += peer.recv(1 << 16)
            peer.sendall(data.upper())
            peer.unwrap()

    with plain_listener() as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        client = SslSocket()
        client.configuration = limited(certificates.client(), version)
        client.configuration.allowed_next_protocols = ["test"]
        left = Recorder(client)
        client.connect_encrypted("localhost", listener.getsockname()[1])
        client.write(b"hello\n" * 10000 + b".")
        host.wait_for(lambda: left.has("disconnected"), left.events)
        thread.join(10)
    assert left.data == b"HELLO\n" * 10000 + b"."
    assert client.clean_close
    assert client.next_negotiated_protocol == "test"


def test_against_the_standard_library_as_client(host, certificates, version):
    context = ssl.create_default_context()
    certificates.ca.configure_trust(context)
    context.minimum_version = context.maximum_version = ssl.TLSVersion(int(version))
    server = secure_server(certificates)
    received = []

    def talk():
        raw = socket.create_connection(("127.0.0.1", server.port))
        with context.wrap_socket(raw, server_hostname="localhost") as peer:
            peer.sendall(b"question")
            while data := peer.recv(1 << 16):
                received.append(data)
            peer.unwrap()

    thread = threading.Thread(target=talk)
    thread.start()
    right = accept(host, server)
    right.socket.ready_read_handler = lambda s: (s.write(s.read_all() * 1000), s.disconnect())
    host.wait_for(lambda: not thread.is_alive(), right.events)
    assert b"".join(received) == b"question" * 1000
    assert right.socket.session_protocol is version


# Text and STARTTLS


@pytest.mark.parametrize(
    ("encoding", "clear", "kept", "protected", "expected"),
    [
        ("iso2022_jp", b"ready\n\x1b$B", "ready\n", b"0F4A\n", "0F4A\n"),  # a shift
        ("utf-16", b"\xfe\xff\0r\0\n", "r\n", b"\xff\xfea\0\n\0", "a\n"),  # an order of bytes
        ("utf-8", b"ready\n", "ready\n", b"\x82\xac\n", "\ufffd\ufffd\n"),
        ("utf-7", b"ready\n+ZeVn-", "ready\n日", b"plain\n", "plain\n"),  # a unit that is read in part
    ],
)
def test_nothing_said_in_the_clear_decides_how_protected_bytes_are_read(
    host, certificates, encoding, clear, kept, protected, expected
):
    pair = make_tcp_pair(host, SslSocket, reads=False)
    client, server = pair.client, pair.server
    client.configuration = certificates.client()
    server.configuration = certificates.server()
    client.peer_verify_name = "localhost"
    client.encoding = encoding
    server.write(clear)
    host.wait_for(lambda: client.bytes_available == len(clear))
    assert client.read_string(len(kept)) == kept
    client.read()  # what the program has no use for
    client.start_client_encryption()
    server.start_server_encryption()
    server.write(protected)
    host.wait_for(lambda: client.bytes_available == len(protected), (pair.left.events, pair.right.events))
    assert client.read_string() == expected
    client.abort()
    server.abort()


def test_text_that_waits_to_be_encrypted_stays_one_text(host, certificates):
    """A byte order mark is written once, before the connection stands."""
    server = secure_server(certificates)
    client = SslSocket()
    client.configuration = certificates.client()
    client.encoding = "utf-16"
    client.connect_encrypted("localhost", server.port)
    client.write_string("one ")
    recorder = accept(host, server)
    host.wait_for(lambda: client.encrypted)
    client.write_string("two")
    size = len("one two".encode("utf-16"))
    host.wait_for(lambda: len(recorder.data) >= size)
    assert bytes(recorder.data) == "one two".encode("utf-16")
    client.abort()
    recorder.socket.abort()
    server.close()
