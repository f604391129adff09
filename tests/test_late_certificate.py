"""The client's certificate after the handshake: engines, sockets, the standard library's `ssl` as the other side."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from cryptography.hazmat.primitives import serialization

from core.pairs import TLS_1_2, TLS_1_3, client_context, server_context, shake
from judged import issue
from peers import Recorder, accept, listening, make_ssl_pair, silence, wait_for_end
from sslsock import (
    Engine,
    PeerVerifyMode,
    Relay,
    SocketError,
    SslServer,
    SslSocket,
    TicketKeys,
    TlsError,
)
from sslsock.core.context import VERIFY_NONE, VERIFY_PEER, VERIFY_QUERY

ROOT = issue("root", ca=True)
OWN = issue("client", ROOT, use="client")
STRANGER = issue("client", use="client")
NAMES = {"server_name": "localhost", "verify_name": "localhost"}


def contexts(mode=VERIFY_PEER, own=OWN, agrees=True, version=TLS_1_3, late=True, **server_settings):
    certificate = {"certificate": own.ours, "private_key": own.our_key} if own is not None else {}
    client = client_context(version, post_handshake_authentication=agrees, **certificate)
    server = server_context(
        version, verify_mode=mode, ca_certificates=[ROOT.ours], post_handshake_authentication=late, **server_settings
    )
    return client, server


def pair(client, server, handler=None, **settings):
    left, right = Engine(client, **NAMES, **settings), Engine(server, verify_handler=handler)
    shake(left, right)
    return left, right


def answer(left, right, request):
    """The client's answer, between data."""
    assert left.decrypt(request) == b""
    return right.decrypt(left.take() + left.encrypt(b"after"))


# Engines


@pytest.mark.parametrize("mode", [VERIFY_PEER, VERIFY_QUERY])
def test_a_certificate_after_the_handshake(mode):
    left, right = pair(*contexts(mode))
    assert right.peer_certificate_chain() == []
    assert not right.certificate_requested
    request = right.request_certificate()
    assert request
    assert right.certificate_requested
    assert right.decrypt(left.encrypt(b"before")) == b"before"
    assert right.certificate_requested
    assert answer(left, right, request) == b"after"
    assert not right.certificate_requested
    assert right.peer_certificate_chain() == [OWN.ours]
    assert right.peer_verified_chain() == [OWN.ours, ROOT.ours]
    assert right.verify_errors == []
    assert left.decrypt(right.encrypt(b"and back")) == b"and back"


def test_in_pieces():
    left, right = pair(*contexts())
    left.decrypt(right.request_certificate())
    data = left.take()
    for place in range(len(data)):
        assert right.certificate_requested
        right.decrypt(data[place : place + 1])
    assert not right.certificate_requested
    assert right.peer_certificate_chain() == [OWN.ours]


def test_a_client_without_a_certificate():
    left, right = pair(*contexts(VERIFY_QUERY, own=None))
    assert answer(left, right, right.request_certificate()) == b"after"
    assert not right.certificate_requested
    assert right.peer_certificate_chain() == []
    left, right = pair(*contexts(VERIFY_PEER, own=None))
    with pytest.raises(TlsError, match="did not return a certificate"):
        answer(left, right, right.request_certificate())
    assert right.certificate_missing
    with pytest.raises(TlsError, match="certificate required"):
        left.decrypt(right.take())


@pytest.mark.parametrize("accepts", [True, False])
def test_a_certificate_with_errors(accepts):
    asked = []
    left, right = pair(*contexts(own=STRANGER), handler=lambda errors: asked.append(errors) or accepts)
    assert not asked
    request = right.request_certificate()
    if accepts:
        assert answer(left, right, request) == b"after"
        assert right.peer_certificate_chain() == [STRANGER.ours]
        assert right.peer_verified_chain() == []
    else:
        with pytest.raises(TlsError, match="certificate verify failed"):
            answer(left, right, request)
        assert right.refused_certificate == STRANGER.ours
    assert len(asked) == 1
    assert right.verify_errors == asked[0] != []


def test_a_handler_that_raises_ends_the_connection():
    def handler(errors):
        raise KeyError("nasty")

    left, right = pair(*contexts(own=STRANGER), handler=handler)
    with pytest.raises(KeyError):
        answer(left, right, right.request_certificate())
    with pytest.raises(TlsError):
        right.decrypt(b"")


def test_asking_again():
    left, right = pair(*contexts())
    for _ in range(3):
        request = right.request_certificate()
        with pytest.raises(RuntimeError, match="has not answered"):
            right.request_certificate()
        assert answer(left, right, request) == b"after"
        assert right.peer_certificate_chain() == [OWN.ours]
        assert len(right.peer_verified_chain()) == 2


REFUSED = {
    "no consent": ({"agrees": False}, "has not agreed"),
    "an older protocol": ({"version": TLS_1_2}, "older than TLS 1.3"),
    "no verification": ({"mode": VERIFY_NONE}, "asks for no certificate"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_says_why(case):
    settings, words = REFUSED[case]
    left, right = pair(*contexts(**settings))
    with pytest.raises(RuntimeError, match=words):
        right.request_certificate()
    assert not right.certificate_requested
    assert right.decrypt(left.encrypt(b"data")) == b"data"


def test_only_a_server_asks_and_not_before_the_handshake():
    left, right = pair(*contexts())
    with pytest.raises(RuntimeError, match="the server asks"):
        left.request_certificate()
    with pytest.raises(RuntimeError, match="handshake is done"):
        Engine(contexts()[1]).request_certificate()
    right.close()
    with pytest.raises(RuntimeError):
        right.request_certificate()


def test_a_client_that_has_not_agreed_is_not_asked_in_secret():
    """RFC 8446, 4.6.2: whoever is asked without consent ends the connection; the extension says so."""
    left, right = pair(*contexts(agrees=False, late=False, mode=VERIFY_QUERY))
    assert right.peer_certificate_chain() == [OWN.ours]
    with pytest.raises(RuntimeError, match="has not agreed"):
        right.request_certificate()
    assert left.decrypt(right.encrypt(b"data")) == b"data"


def test_with_tls_1_2_it_is_asked_for_in_the_handshake():
    _, right = pair(*contexts(version=TLS_1_2))
    assert right.peer_certificate_chain() == [OWN.ours]


# Sessions


def test_a_session_from_before_the_question_opens_no_demanding_server():
    """Both share keys for tickets; one asks later, the other in the handshake."""
    keys = TicketKeys()
    client, late = contexts(own=None, ticket_keys=keys)
    _, at_once = contexts(own=None, late=False, ticket_keys=keys)
    left, right = pair(client, late)
    left.decrypt(right.encrypt(b"ticket"))
    session = left.session
    left, right = Engine(client, session=session, **NAMES), Engine(at_once)
    with pytest.raises(TlsError, match="did not return a certificate"):
        shake(left, right)


def test_a_session_from_after_the_answer_has_the_certificate():
    client, server = contexts()
    left, right = pair(client, server)
    answer(left, right, right.request_certificate())
    left.decrypt(right.encrypt(b"ticket"))
    left, right = pair(client, server, session=left.session)
    assert right.session_reused
    assert right.peer_certificate_chain() == [OWN.ours]


def test_errors_that_were_let_pass_leave_no_session():
    client, server = contexts(own=STRANGER)
    left, right = pair(client, server, handler=lambda errors: True)
    answer(left, right, right.request_certificate())
    left.decrypt(right.encrypt(b"ticket"))
    left, right = pair(client, server, session=left.session)
    assert not right.session_reused
    assert right.peer_certificate_chain() == []


# The standard library


def stdlib(context, server_side, ours, **settings):
    """An SSLObject after its handshake with an engine, and its two ends."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = context.wrap_bio(incoming, outgoing, server_side=server_side, **settings)
    incoming.write(ours.start())
    for _ in range(6):
        with contextlib.suppress(ssl.SSLWantReadError):
            theirs.do_handshake()
        ours.decrypt(outgoing.read())
        incoming.write(ours.take())
    assert ours.handshake_done
    return theirs, incoming, outgoing


def files(tmp_path, own):
    plain = serialization.NoEncryption()
    pem = own.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (tmp_path / "own.pem").write_bytes(own.pem + pem)
    (tmp_path / "root.pem").write_bytes(ROOT.pem)
    return tmp_path / "own.pem"


def test_a_client_of_the_standard_library(tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(files(tmp_path, OWN))
    context.post_handshake_auth = True
    right = Engine(contexts()[1])
    theirs, incoming, outgoing = stdlib(context, False, right)
    incoming.write(right.request_certificate())
    with pytest.raises(ssl.SSLWantReadError):
        theirs.read()
    right.decrypt(outgoing.read())
    assert not right.certificate_requested
    assert right.peer_certificate_chain() == [OWN.ours]


def test_a_server_of_the_standard_library(tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files(tmp_path, issue("localhost")))
    context.load_verify_locations(tmp_path / "root.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.post_handshake_auth = True
    client = client_context(
        TLS_1_3, verify_mode=VERIFY_NONE, post_handshake_authentication=True, certificate=OWN.ours, private_key=OWN.our_key
    )
    left = Engine(client)
    theirs, incoming, outgoing = stdlib(context, True, left)
    assert theirs.getpeercert() in (None, {})
    theirs.verify_client_post_handshake()
    theirs.write(b"which certificate?")
    assert left.decrypt(outgoing.read()) == b"which certificate?"
    incoming.write(left.take() + left.encrypt(b"this one"))
    assert theirs.read(100) == b"this one"
    assert theirs.getpeercert(True) == OWN.ours.to_der()


# Sockets


def configured(certificates, own=OWN, agrees=True, mode=PeerVerifyMode.VERIFY_PEER):
    client, server = certificates.client(), certificates.server()
    if own is not None:
        client.set_identity(own.certificate, own.key)
    client.post_handshake_authentication = agrees
    server.ca_certificates = [ROOT.ours]
    server.peer_verify_mode = mode
    server.post_handshake_authentication = True
    return client, server


def test_sockets(host, certificates):
    pair_ = make_ssl_pair(host, *configured(certificates))
    server, told = pair_.server, []
    server.peer_certificate_handler = lambda sock: told.append((sock.peer_certificate, sock.ssl_handshake_errors))
    assert server.peer_certificate is None
    assert server.request_peer_certificate() is True
    pair_.client.write(b"meanwhile")
    host.wait_for(lambda: told, (pair_.left.events, pair_.right.events))
    assert told == [(OWN.ours, [])]
    assert server.peer_certificate == OWN.ours
    server.write(b"welcome")
    host.wait_for(lambda: pair_.left.data == b"welcome" and pair_.right.data == b"meanwhile")
    silence(pair_)
    pair_.client.abort()
    server.abort()


def test_the_twin(host, certificates):
    pair_ = make_ssl_pair(host, *configured(certificates))
    future = pair_.server.request_peer_certificate_async()
    host.wait_for(lambda: future.done() and pair_.server.peer_certificate is not None)
    assert future.result() is True
    silence(pair_)
    pair_.client.abort()
    pair_.server.abort()


@pytest.mark.parametrize("tolerant", [True, False])
def test_sockets_and_a_certificate_with_errors(host, certificates, tolerant):
    pair_ = make_ssl_pair(host, *configured(certificates, own=STRANGER))
    server, told = pair_.server, []

    def on_errors(sock, errors):
        told.append(errors)
        if tolerant:
            sock.ignore_ssl_errors()

    server.ssl_errors_handler = on_errors
    server.peer_certificate_handler = lambda sock: told.append(sock.peer_certificate)
    assert server.request_peer_certificate()
    if tolerant:
        host.wait_for(lambda: len(told) == 2, pair_.right.events)
        assert told[1] == STRANGER.ours
        assert server.ssl_handshake_errors == told[0] != []
    else:
        wait_for_end(host, pair_.right)
        assert pair_.right.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
        assert "certificate verify failed" in server.error_string
        assert len(told) == 1
        wait_for_end(host, pair_.left)
    silence(pair_)
    pair_.client.abort()
    server.abort()


@pytest.mark.parametrize("mode", [PeerVerifyMode.VERIFY_PEER, PeerVerifyMode.QUERY_PEER])
def test_sockets_and_a_client_without_one(host, certificates, mode):
    pair_ = make_ssl_pair(host, *configured(certificates, own=None, mode=mode))
    told = []
    pair_.server.peer_certificate_handler = lambda sock: told.append(sock.peer_certificate)
    assert pair_.server.request_peer_certificate()
    if mode is PeerVerifyMode.QUERY_PEER:
        host.wait_for(lambda: told, pair_.right.events)
        assert told == [None]
        assert pair_.server.encrypted
    else:
        wait_for_end(host, pair_.right)
        assert pair_.right.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
        assert told == []
    silence(pair_)
    pair_.client.abort()
    pair_.server.abort()


def test_what_cannot_be_is_false(host, certificates):
    pair_ = make_ssl_pair(host, *configured(certificates, agrees=False))
    for sock, recorder, words in (
        (SslSocket(), None, "no encrypted connection"),
        (pair_.client, pair_.left, "the server asks"),
        (pair_.server, pair_.right, "has not agreed"),
    ):
        recorder = recorder or Recorder(sock)
        assert sock.request_peer_certificate() is False
        assert words in sock.error_string
        assert recorder.of("error") == [SocketError.OPERATION_ERROR]
    pair_.server.write(b"still here")
    host.wait_for(lambda: pair_.left.data == b"still here")
    silence(pair_)
    pair_.client.abort()
    pair_.server.abort()


@pytest.mark.parametrize("where", ["errors", "answer"])
@pytest.mark.parametrize("deed", ["abort", "disconnect", "close", "raise", "write", "ask", "turn"])
def test_handlers_that_do_what_they_should_not(own_host, certificates, where, deed):
    pair_ = make_ssl_pair(own_host, *configured(certificates, own=STRANGER), reads=False)
    server = pair_.server
    much = b"x" * 600_000
    seen = []

    def nasty(sock):
        seen.append(where)
        if deed == "raise":
            raise RuntimeError("nasty")
        if deed == "write":
            sock.write(much)
        elif deed == "ask":
            assert sock.request_peer_certificate() is (where == "answer" and len(seen) == 1)
        elif deed == "turn":
            own_host.turn()
        else:
            getattr(sock, deed)()

    def on_errors(sock, errors):
        sock.ignore_ssl_errors()
        if where == "errors":
            nasty(sock)

    def on_answer(sock):
        if where == "answer":
            nasty(sock)
        seen.append("answered")

    server.ssl_errors_handler = on_errors
    server.peer_certificate_handler = on_answer
    assert server.request_peer_certificate()
    pair_.client.write(b"after")
    if deed in ("abort", "disconnect", "close") or (deed == "raise" and where == "errors"):
        wait_for_end(own_host, pair_.left)
        own_host.wait_for(lambda: server.state is SslSocket.UNCONNECTED_STATE)
        assert "answered" not in seen or where == "answer"
    else:
        told = "answered" if deed != "raise" else where
        own_host.wait_for(lambda: server.bytes_available == 5 and told in seen, lambda: seen)
        if deed == "write":
            own_host.wait_for(lambda: pair_.client.bytes_available == len(much))
    failures = own_host.take_failures()
    assert [str(failure) for failure in failures] == (["nasty"] if deed == "raise" else [])
    silence(pair_)
    pair_.client.abort()
    server.abort()


def test_a_relay_waits_for_the_answer(host, certificates):
    pair_ = make_ssl_pair(host, *configured(certificates))
    other = make_ssl_pair(host, certificates.client(), certificates.server())
    told = []
    pair_.server.peer_certificate_handler = lambda sock: told.append(relay.joined)
    assert pair_.server.request_peer_certificate()
    relay = Relay(pair_.server, other.client)
    assert not relay.joined
    pair_.client.write(b"through")
    host.wait_for(lambda: other.right.data == b"through", lambda: (told, relay.reason, relay.error_string))
    assert told == [False]
    assert pair_.server.peer_certificate == OWN.ours
    relay.close()
    for each in (pair_, other):
        silence(each)
        each.client.abort()
        each.server.abort()


def test_a_request_in_a_relay_is_refused(host, certificates):
    pair_ = make_ssl_pair(host, *configured(certificates))
    other = make_ssl_pair(host, certificates.client(), certificates.server())
    relay = Relay(pair_.server, other.client)
    assert pair_.server.request_peer_certificate() is False
    assert "of the program's own" in pair_.server.error_string
    relay.close()
    for each in (pair_, other):
        silence(each)
        each.client.abort()
        each.server.abort()


def test_a_server_that_never_hears_frees_all(host, certificates):
    pair_ = make_ssl_pair(host, *configured(certificates))
    pair_.client.read_buffer_size = 1
    assert pair_.server.request_peer_certificate()
    pair_.server.disconnect()
    wait_for_end(host, pair_.right)
    assert "certificate" not in pair_.server.error_string
    silence(pair_)
    pair_.client.abort()


def test_servers_give_it_to_their_sockets(host, certificates):
    """By the configuration alone: the handler is the taken socket's."""
    client_configuration, server_configuration = configured(certificates)
    server = SslServer()
    server.configuration = server_configuration
    listening(server)
    client = SslSocket()
    client.configuration = client_configuration
    client.peer_verify_name = "localhost"
    left = Recorder(client)
    client.connect_encrypted("127.0.0.1", server.port)
    right = accept(host, server)
    host.wait_for(lambda: right.socket.encrypted and client.encrypted, left.events)
    assert right.socket.request_peer_certificate()
    host.wait_for(lambda: right.socket.peer_certificate is not None)
    client.abort()
    right.socket.abort()
    server.close()
