"""Certificates of clients: what our server makes of them, and how ours are received."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any, Callable, Optional

import pytest

from sslsock import PeerVerifyMode, SocketError, SocketState, SslMode

from .ours import (
    OurServer,
    client_configuration,
    connected,
    dial,
    echo,
    ended,
    exchange,
    limited,
    server_configuration,
)
from .pki import CLIENT, NAME, SERVER, Identity, Pki, issue, trusting
from .programs import in_thread
from .ssl_peers import SslModuleServer, blocking_client, client_context, server_context

NONE, QUERY, VERIFY, AUTO = PeerVerifyMode

# The certificate of a client: what OpenSSL finds (its X509_V_ERR_ numbers), and the alert for it.
CLIENTS: dict[str, tuple[Callable[[Pki], Identity], tuple[int, ...], str]] = {
    "good": (lambda pki: pki.client, (), ""),
    "no usage named": (lambda pki: issue("plain client", issuer=pki.middle), (), ""),
    "no name": (lambda pki: issue("nameless", issuer=pki.middle, usages=[CLIENT]), (), ""),
    "expired": (
        lambda pki: issue("old client", issuer=pki.middle, days=(-30, -1), usages=[CLIENT]),
        (10,),
        "certificate expired",
    ),
    "not yet valid": (
        lambda pki: issue("early client", issuer=pki.middle, days=(1, 30), usages=[CLIENT]),
        (9,),
        "bad certificate",
    ),
    "unknown authority": (
        lambda pki: issue("foreign client", issuer=pki.other_root, usages=[CLIENT]),
        (20, 21),
        "unknown ca",
    ),
    "self-signed": (lambda pki: issue("lone client", usages=[CLIENT]), (18,), "unknown ca"),
    "usage of a server": (
        lambda pki: issue("server as client", issuer=pki.middle, usages=[SERVER]),
        (26,),
        "unsupported certificate",
    ),
}


@pytest.fixture(scope="session")
def clients(pki: Pki) -> dict[str, Identity]:
    return {name: make(pki) for name, (make, _, _) in CLIENTS.items()}


def call(host: Any, server: OurServer, context: ssl.SSLContext, session: Optional[ssl.SSLSession] = None) -> tuple[Any, str]:
    """Connect with the `ssl` module and have a word echoed: the session afterwards, and the error in words."""

    def talk() -> ssl.SSLSession:
        with blocking_client(context, server.port, session=session) as tls:
            tls.sendall(b"word")
            if tls.recv(10) != b"word":
                raise ConnectionResetError("cut off")
            received = tls.session
            with contextlib.suppress(OSError):
                tls.unwrap().close()
            return received

    result = in_thread(talk)
    host.wait_for(result.done)
    try:
        return result.result(), ""
    except OSError as exc:
        return None, str(exc).lower().replace("_", " ")


# Our server


@pytest.mark.parametrize("mode", [QUERY, AUTO, VERIFY], ids=lambda mode: mode.name)
@pytest.mark.parametrize("name", CLIENTS)
def test_a_server_judges_the_certificate_of_a_client(own_host, pki, version, clients, name, mode):
    codes, alert = CLIENTS[name][1:]
    configuration = server_configuration(pki, version)
    configuration.peer_verify_mode = mode
    server = OurServer(configuration, echo)
    context = client_context(pki, clients[name])
    for _ in range(2):
        before = len(server.taken)
        _, words = call(own_host, server, context)
        assert len(server.taken) == before + 1
        taken = server.last(own_host)
        sock = taken.socket
        ended(own_host, taken)
        assert tuple(error.code for error in sock.ssl_handshake_errors) == codes
        assert taken.of("ssl_errors") == ([sock.ssl_handshake_errors] if codes else [])
        if mode is VERIFY and codes:
            assert f"alert {alert}" in words
            assert taken.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
            assert clients[name].subject in sock.error_string
            assert sock.ssl_handshake_errors[0].error_string in sock.error_string
            assert sock.mode is SslMode.UNENCRYPTED_MODE
            assert not taken.has("encrypted")
        else:
            assert words == ""
            assert sock.peer_certificate == clients[name].ours
    server.close()


@pytest.mark.parametrize("mode", PeerVerifyMode, ids=lambda mode: mode.name)
def test_a_client_without_a_certificate_is_refused_by_verify_peer_only(host, pki, version, mode):
    configuration = server_configuration(pki, version)
    configuration.peer_verify_mode = mode
    server = OurServer(configuration, echo)
    _, words = call(host, server, client_context(pki))
    taken = server.last(host)
    ended(host, taken)
    if mode is VERIFY:
        # RFC 8446, 4.4.2.4 has an alert of its own for it; RFC 5246, 7.4.6 the general one.
        alert = "certificate required" if version == "TLS_1_3" else "handshake failure"
        assert f"alert {alert}" in words
        assert taken.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
        assert "peer did not return a certificate" in taken.socket.error_string
    else:
        assert words == ""
        assert taken.socket.peer_certificate is None
        assert taken.socket.ssl_handshake_errors == []
    server.close()


def test_a_server_that_does_not_verify_does_not_ask(host, pki, version):
    configuration = server_configuration(pki, version)
    configuration.peer_verify_mode = NONE
    server = OurServer(configuration, echo)
    assert call(host, server, client_context(pki, pki.client))[1] == ""
    taken = server.last(host)
    assert taken.socket.peer_certificate is None
    server.close()


@pytest.mark.parametrize("name", ["expired", "self-signed"])
@pytest.mark.parametrize("tolerant", [True, False], ids=["ignores", "does not ignore"])
def test_a_server_may_ignore_the_errors_of_a_client(host, pki, version, clients, name, tolerant):
    configuration = server_configuration(pki, version)
    configuration.peer_verify_mode = VERIFY

    def serve(recorder):
        echo(recorder)
        if tolerant:
            recorder.socket.ssl_errors_handler = lambda sock, errors: sock.ignore_ssl_errors(errors)

    server = OurServer(configuration, serve)
    context = client_context(pki, clients[name])
    session, words = call(host, server, context)
    assert (words == "") is tolerant
    if tolerant:
        # A ticket would let it in a second time without a look at its certificate.
        call(host, server, context, session)
        taken = server.last(host)
        assert not taken.socket.session_reused
        assert [error.code for error in taken.socket.ssl_handshake_errors] == list(CLIENTS[name][1])
    server.close()


def test_a_session_brings_the_certificate_of_the_client_back(host, pki, version):
    configuration = server_configuration(pki, version)
    configuration.peer_verify_mode = VERIFY
    server = OurServer(configuration, echo)
    context = client_context(pki, pki.client)
    session, _ = call(host, server, context)
    _, words = call(host, server, context, session)
    assert words == ""
    taken = server.last(host)
    assert taken.socket.session_reused
    assert taken.socket.peer_certificate == pki.client.ours
    assert taken.socket.ssl_handshake_errors == []
    server.close()


def test_a_session_without_a_certificate_opens_no_door_that_needs_one(own_host, pki, version):
    lax, strict = server_configuration(pki, version), server_configuration(pki, version)
    lax.peer_verify_mode, strict.peer_verify_mode = NONE, VERIFY
    context = client_context(pki)
    first, second = OurServer(lax, echo), OurServer(strict, echo)
    session, words = call(own_host, first, context)
    assert words == ""
    _, words = call(own_host, second, context, session)
    assert "alert" in words
    assert not second.last(own_host).socket.session_reused
    first.close()
    second.close()


def test_a_server_names_the_authorities_it_trusts(own_host, pki, version):
    """A client with several certificates picks by these names."""
    configuration = server_configuration(pki, version)
    configuration.add_ca_certificate(pki.other_root.ours)
    server = OurServer(configuration, echo)

    def talk():
        from OpenSSL import SSL

        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        with contextlib.closing(__import__("socket").create_connection(("127.0.0.1", server.port), 10)) as raw:
            raw.setblocking(True)
            connection = SSL.Connection(context, raw)
            connection.set_connect_state()
            connection.do_handshake()
            return [name.CN for name in connection.get_client_ca_list()]

    pytest.importorskip("OpenSSL")
    result = in_thread(talk)
    own_host.wait_for(result.done)
    assert sorted(result.result()) == ["Other Root", "Test Root"]
    server.close()


# Our client


def demanding(pki: Pki, version: Optional[str] = None, required: bool = True) -> ssl.SSLContext:
    context = server_context(pki, version=version)
    context.load_verify_locations(pki.root_file)
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context


def test_a_client_shows_its_certificate(own_host, pki, version, algorithm):
    identity = pki.clients[algorithm]
    with SslModuleServer(demanding(pki, version)) as server:
        configuration = client_configuration(pki, identity=identity)
        for again in (False, True):
            client = connected(own_host, server.port, configuration)
            exchange(own_host, client, b"let me in")
            assert client.socket.session_reused is again
            client.socket.disconnect()
            ended(own_host, client)
        own_host.wait_for(lambda: len(server.seen) == 2)
        for seen in server.seen:
            assert seen.certificate is not None
            assert seen.certificate["subject"] == ((("commonName", identity.subject),),)


@pytest.mark.parametrize(
    ("name", "alert"),
    [
        ("none", None),
        ("expired", "certificate expired"),
        ("unknown authority", "unknown ca"),
        ("usage of a server", "unsupported certificate"),
    ],
)
def test_a_client_is_told_that_its_certificate_is_refused(host, pki, version, clients, name, alert):
    """In TLS 1.3 a client is done before the server has looked at its certificate (RFC 8446, 4.4.2)."""
    identity = clients.get(name)
    if alert is None:
        alert = "certificate required" if version == "TLS_1_3" else "handshake failure"
    with SslModuleServer(demanding(pki, version)) as server:
        configuration = client_configuration(pki, identity=identity)
        for _ in range(2):
            client = dial(server.port, configuration)
            client.socket.write(b"first words")
            ended(host, client)
            sock = client.socket
            if version == "TLS_1_3":
                assert client.names().index("encrypted") < client.names().index("error")
                assert client.of("error") == [SocketError.SSL_INTERNAL_ERROR]
                assert "TLS failed" in sock.error_string
            else:
                assert not client.has("encrypted")
                assert client.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
                assert "the TLS handshake failed" in sock.error_string
            assert f'the peer sent the alert "{alert}"' in sock.error_string.lower()
            assert client.names()[-1] == "disconnected"
            assert sock.state is SocketState.UNCONNECTED_STATE
            assert not sock.clean_close
            assert not sock.session_reused
        host.wait_for(lambda: len(server.seen) == 2)
        assert all(seen.error is not None for seen in server.seen)


def test_a_client_without_a_certificate_passes_where_none_is_required(host, pki, version):
    with SslModuleServer(demanding(pki, version, required=False)) as server:
        client = connected(host, server.port, client_configuration(pki))
        exchange(host, client, b"nobody")
        client.socket.disconnect()
        host.wait_for(lambda: server.seen)
        assert server.seen[0].certificate is None


def test_the_certificate_of_a_client_is_not_shown_unasked(host, pki, version):
    with SslModuleServer(server_context(pki, version=version)) as server:
        client = connected(host, server.port, client_configuration(pki, identity=pki.client))
        exchange(host, client, b"nobody asked")
        client.socket.disconnect()
        host.wait_for(lambda: server.seen)
        assert server.seen[0].certificate is None


# Both


@pytest.mark.parametrize("peer", ["rsa", "ecdsa", "ed25519"])
def test_both_ends_ours_with_every_kind_of_key(own_host, pki, version, algorithm, peer):
    configuration = server_configuration(pki, version, pki.servers[algorithm])
    configuration.peer_verify_mode = VERIFY
    server = OurServer(configuration, echo)
    mine = limited(pki.clients[peer].configuration(pki.root), version)
    client = connected(own_host, server.port, mine)
    exchange(own_host, client, b"word")
    taken = server.last(own_host)
    assert taken.socket.peer_certificate == pki.clients[peer].ours
    assert client.socket.peer_certificate == pki.servers[algorithm].ours
    client.socket.disconnect()
    ended(own_host, taken)
    assert taken.socket.clean_close
    server.close()


def test_a_client_may_have_the_server_verify_its_usage(own_host, pki, version):
    """A server's certificate does not serve as a client's, nor the reverse, between two of ours."""
    wrong_way = server_configuration(pki, version, pki.client)
    server = OurServer(wrong_way)
    client = dial(server.port, trusting(pki.root), NAME)
    ended(own_host, client)
    assert 26 in [error.code for error in client.socket.ssl_handshake_errors]
    assert client.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
    taken = server.last(own_host)
    assert 'alert "unsupported certificate"' in taken.socket.error_string.lower()
    server.close()
