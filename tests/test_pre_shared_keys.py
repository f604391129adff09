"""Pre-shared keys: by engines and sockets, with and without certificates beside them, and handlers that do what they should
not."""

from __future__ import annotations

import copy
import pickle

import pytest

from core.pairs import OPENSSL, TLS_1_2, TLS_1_3, client_context, identity, server_context, shake
from peers import Recorder, accept, listening, wait_for_end
from sslsock import (
    ConfigurationError,
    Context,
    Engine,
    SocketError,
    SslConfiguration,
    SslPreSharedKeyAuthenticator,
    SslServer,
    SslSocket,
    TlsError,
)
from sslsock.core.pre_shared_key import MOST_IDENTITY, MOST_KEY

KEY = bytes(range(32))
NAMES = {"server_name": "localhost", "verify_name": "localhost"}


@pytest.fixture(params=[TLS_1_2, TLS_1_3], ids=["TLS 1.2", "TLS 1.3"])
def version(request):
    return request.param


def keyed_contexts(version, certificate=False, **server_settings):
    if not certificate:
        server_settings.update(certificate=None, private_key=None)
    return (
        client_context(version, pre_shared_keys=True),
        server_context(version, pre_shared_keys=True, **server_settings),
    )


def answering(answer, asked=None):
    def handler(said):
        if asked is not None:
            asked.append(said)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return handler


def pair(contexts, of_client, of_server, **settings):
    client, server = contexts
    return (
        Engine(client, pre_shared_key_handler=of_client, **{**NAMES, **settings}),
        Engine(server, pre_shared_key_handler=of_server),
    )


# Engines


def test_a_key_authenticates_both(version):
    hints, identities = [], []
    contexts = keyed_contexts(version, pre_shared_key_identity_hint="which one?")
    left, right = pair(contexts, answering(("me", KEY), hints), answering(("", KEY), identities))
    shake(left, right)
    assert left.pre_shared_key_used
    assert right.pre_shared_key_used
    assert identities == ["me"]
    assert hints == ["which one?" if version == TLS_1_2 else None]
    assert (left.session_reused, right.session_reused) == (False, False)
    assert left.peer_certificate_chain() == right.peer_certificate_chain() == left.peer_verified_chain() == []
    assert right.decrypt(left.encrypt(b"question")) == b"question"
    assert left.decrypt(right.encrypt(b"answer")) == b"answer"
    for kind in ("tls-exporter", "tls-server-end-point", "tls-unique"):
        assert left.channel_binding(kind) == right.channel_binding(kind)
    assert left.channel_binding("tls-server-end-point") is None
    if version == TLS_1_2:
        assert left.cipher == "ECDHE-PSK-CHACHA20-POLY1305"  # forward secrecy, without a certificate
    assert left.group == ("X25519MLKEM768" if version == TLS_1_3 and OPENSSL >= (3, 5) else "x25519")


@pytest.mark.parametrize("identity_", [b"\xff\xfe bytes", "names: äß\U0001f511", "x" * MOST_IDENTITY])
@pytest.mark.parametrize("size", [1, 16, MOST_KEY])
def test_identities_and_keys_of_any_kind(version, identity_, size):
    identities = []
    key = bytearray(b"k" * size)
    left, right = pair(keyed_contexts(version), answering((identity_, key)), answering((None, memoryview(key)), identities))
    shake(left, right)
    assert left.pre_shared_key_used
    said = identities[0].encode("utf-8", "surrogateescape")
    assert said == (identity_ if isinstance(identity_, bytes) else identity_.encode())
    assert key == b"k" * size


def test_another_key_ends_the_handshake(version):
    left, right = pair(keyed_contexts(version), answering(("me", KEY)), answering(("", KEY[::-1])))
    with pytest.raises(TlsError):
        shake(left, right)


def test_an_unknown_identity_ends_the_handshake(version):
    left, right = pair(keyed_contexts(version), answering(("me", KEY)), answering(None))
    with pytest.raises(TlsError):
        shake(left, right)
    with pytest.raises(TlsError, match="alert"):
        left.decrypt(right.take())


@pytest.mark.parametrize("side", ["client", "server"])
def test_without_a_key_certificates_decide(version, side):
    """With TLS 1.3; with TLS 1.2 too, where the client's handler is not even asked then."""
    contexts = keyed_contexts(version, certificate=True, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")
    answers = {"client": ("me", KEY), "server": ("", KEY), side: None}
    left, right = pair(contexts, answering(answers["client"]), answering(answers["server"]))
    shake(left, right)
    assert not left.pre_shared_key_used
    assert not right.pre_shared_key_used
    assert left.peer_certificate_chain() == [identity().certificate]


def test_certificates_that_decide_are_verified(version):
    """A handler for keys is no way around the verification."""
    contexts = (
        client_context(version, pre_shared_keys=True, ca_certificates=[]),
        keyed_contexts(version, certificate=True, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")[1],
    )
    left, right = pair(contexts, answering(("me", KEY)), answering(None))
    with pytest.raises(TlsError, match="certificate verify failed"):
        shake(left, right)


def test_a_context_that_is_not_for_keys(version):
    """Without the context's consent no suite is offered in TLS 1.2, and a server needs a certificate."""
    with pytest.raises(ConfigurationError, match="certificate"):
        Context(server_side=True)
    Context(server_side=True, pre_shared_keys=True)
    left = Engine(client_context(TLS_1_2), pre_shared_key_handler=answering(("me", KEY)), **NAMES)
    right = Engine(keyed_contexts(TLS_1_2)[1], pre_shared_key_handler=answering(("", KEY)))
    with pytest.raises(TlsError):
        shake(left, right)


def test_a_server_that_knows_no_keys_shows_its_certificate(version):
    left = Engine(client_context(version, pre_shared_keys=True), pre_shared_key_handler=answering(("me", KEY)), **NAMES)
    right = Engine(server_context(version))
    shake(left, right)
    assert not left.pre_shared_key_used
    assert left.peer_certificate_chain() == [identity().certificate]


def test_after_a_hello_retry_request():
    asked = []
    client = client_context(TLS_1_3, pre_shared_keys=True, groups="X25519:P-256")
    server = server_context(TLS_1_3, pre_shared_keys=True, groups="P-256", certificate=None, private_key=None)
    left, right = pair((client, server), answering(("me", KEY), asked), answering(("", KEY)))
    shake(left, right)
    assert left.pre_shared_key_used
    assert len(asked) == 2


WRONG = [1, "key", b"key", [], ("me",), ("me", KEY, 1), ("me", "text"), ("me", None), (None, KEY), (1, KEY), True, object()]
IMPOSSIBLE = [("", KEY), ("a\0b", KEY), ("x" * (MOST_IDENTITY + 1), KEY), ("me", b""), ("me", b"k" * (MOST_KEY + 1))]


@pytest.mark.parametrize("answer", WRONG, ids=lambda answer: repr(answer)[:20])
def test_wrong_answers_raise_and_end_the_handshake(version, answer):
    left, right = pair(keyed_contexts(version), answering(answer), answering(("", KEY)))
    with pytest.raises(TypeError):
        shake(left, right)
    with pytest.raises(TlsError, match="pre-shared key"):
        left.decrypt(b"")


@pytest.mark.parametrize("answer", IMPOSSIBLE, ids=lambda answer: repr(answer)[:20])
def test_impossible_answers_raise_and_end_the_handshake(version, answer):
    left, right = pair(keyed_contexts(version), answering(answer), answering(("", KEY)))
    with pytest.raises(ValueError):
        shake(left, right)
    with pytest.raises(TlsError):
        left.decrypt(b"")


@pytest.mark.parametrize("answer", [1, ("", "text"), ("", b""), ("", b"k" * (MOST_KEY + 1)), KeyboardInterrupt(), False])
def test_a_server_whose_handler_answers_wrongly(version, answer):
    left, right = pair(keyed_contexts(version, certificate=True), answering(("me", KEY)), answering(answer))
    with pytest.raises((TypeError, ValueError, KeyboardInterrupt, TlsError)):
        shake(left, right)
    with pytest.raises(TlsError):
        right.decrypt(b"")
    assert not right.handshake_done


def test_a_refusal_is_no_way_to_certificates(version):
    asked = []
    left, right = pair(keyed_contexts(version, certificate=True), answering(False, asked), answering(("", KEY)))
    with pytest.raises(TlsError, match="no pre-shared key that may be used"):
        shake(left, right)
    assert asked


def test_the_handler_may_not_use_the_engine(version):
    def handler(said):
        with pytest.raises(RuntimeError):
            engines[0].decrypt(b"")
        assert engines[0].session_reused is False
        return "me", KEY

    engines = pair(keyed_contexts(version), handler, answering(("", KEY)))
    shake(*engines)
    assert engines[0].pre_shared_key_used


# Sessions


def visit(client, server, **settings):
    left = Engine(client, pre_shared_key_handler=answering(("me", KEY)), session_key="key", **NAMES, **settings)
    right = Engine(server, pre_shared_key_handler=answering(("", KEY)))
    shake(left, right)
    left.decrypt(right.encrypt(b"with a ticket, if there is one"))
    return left, right


def test_a_key_is_shown_each_time(version):
    """Who has lost his key does not come in by an old session, and whose it is is known each time."""
    client, server = keyed_contexts(version)
    for _ in range(2):
        left, right = visit(client, server)
        assert left.pre_shared_key_used
        assert right.pre_shared_key_used
        assert left.session is None


def test_a_certificates_session_is_resumed_beside_keys(version):
    """By a client that has no key. The server's handler is asked for the ticket too, where it is short enough."""
    _, server = keyed_contexts(version, certificate=True)
    client = client_context(version)
    for reused in (False, True):
        left = Engine(client, session_key="key", **NAMES)
        right = Engine(server, pre_shared_key_handler=answering(None))
        shake(left, right)
        left.decrypt(right.encrypt(b"ticket"))
        assert (left.session_reused, right.session_reused) == (reused, reused)
        assert not left.pre_shared_key_used
        assert not right.pre_shared_key_used


# Sockets


def client_configuration(version=None):
    configuration = SslConfiguration()
    configuration.use_system_ca = False
    if version:
        configuration.minimum_protocol = configuration.maximum_protocol = version
    return configuration


def keyed_server(handler, configuration=None):
    server = SslServer()
    server.configuration = configuration or SslConfiguration()
    server.pre_shared_key_handler = handler
    return listening(server)


def give(identity_="me", key=KEY):
    def handler(sock, authenticator):
        if sock.mode is SslSocket.SSL_CLIENT_MODE:
            authenticator.identity = identity_
        authenticator.pre_shared_key = key

    return handler


def dial(server, handler, version=None, configuration=None):
    client = SslSocket()
    client.configuration = configuration or client_configuration(version)
    client.pre_shared_key_handler = handler
    recorder = Recorder(client)
    client.connect_encrypted("localhost", server.port)
    client.write(b"hello")
    return recorder


def test_sockets_without_certificates(host, version):
    seen = []

    def of_server(sock, authenticator):
        seen.append((authenticator.identity, authenticator.identity_hint, repr(authenticator)))
        with pytest.raises(AttributeError, match="client"):
            authenticator.identity = "other"
        authenticator.pre_shared_key = bytearray(KEY)
        seen.append(authenticator)

    def of_client(sock, authenticator):
        seen.append(authenticator.identity_hint)
        assert (authenticator.identity, authenticator.pre_shared_key) == ("", b"")
        authenticator.identity = b"me"
        authenticator.pre_shared_key = memoryview(KEY)
        assert (authenticator.identity, authenticator.pre_shared_key) == ("me", KEY)

    configuration = SslConfiguration()
    configuration.pre_shared_key_identity_hint = "hint"
    server = keyed_server(of_server, configuration)
    left = dial(server, of_client, version)
    right = accept(host, server)
    host.wait_for(lambda: right.data == b"hello", (left.events, right.events))
    assert left.socket.pre_shared_key_used
    assert right.socket.pre_shared_key_used
    assert left.socket.peer_certificate is None
    assert ("me", "", "<SslPreSharedKeyAuthenticator of 'me'>") in seen
    assert ("hint" if version == TLS_1_2 else "") in seen
    assert next(thing for thing in seen if isinstance(thing, SslPreSharedKeyAuthenticator)).pre_shared_key == b""
    left.socket.disconnect()
    wait_for_end(host, left)
    right.socket.abort()
    server.close()


def test_methods_are_handlers(host, version):
    class Client(SslSocket):
        __slots__ = ()

        def pre_shared_key_handler(self, authenticator):
            give()(self, authenticator)

    class Server(SslServer):
        __slots__ = ()

        def pre_shared_key_handler(self, sock, authenticator):
            give()(sock, authenticator)

    server = Server()
    server.configuration = SslConfiguration()
    listening(server)
    client = Client()
    client.configuration = client_configuration(version)
    left = Recorder(client)
    client.connect_encrypted("localhost", server.port)
    right = accept(host, server)
    host.wait_for(lambda: client.encrypted and right.socket.encrypted, (left.events, right.events))
    assert client.pre_shared_key_used
    client.abort()
    right.socket.abort()
    server.close()


def test_sockets_that_share_a_configuration_keep_their_keys(host, version):
    """No session carries one's identity to the other."""
    configuration = client_configuration(version)
    asked = []

    def of_server(sock, authenticator):
        asked.append(authenticator.identity)
        authenticator.pre_shared_key = KEY

    server = keyed_server(of_server)
    for name in ("anna", "bert", "anna"):
        left = dial(server, give(name), configuration=configuration)
        right = accept(host, server)
        right.socket.write(b"hello")
        host.wait_for(lambda left=left: left.data == b"hello", left.events)
        assert not left.socket.session_reused
        assert left.socket.session is None
        left.socket.abort()
        right.socket.abort()
    assert asked == ["anna", "bert", "anna"]
    server.close()


def test_certificates_beside_keys(host, certificates):
    """One server for clients of both kinds, with TLS 1.3."""
    server = keyed_server(give(), certificates.server())
    for handler, used in ((give(), True), (None, False), (lambda sock, authenticator: None, False)):
        left = dial(server, handler, configuration=certificates.client())
        right = accept(host, server)
        host.wait_for(lambda right=right: right.data == b"hello", (left.events, right.events))
        assert left.socket.pre_shared_key_used is right.socket.pre_shared_key_used is used
        assert (left.socket.peer_certificate is None) is used
        left.socket.abort()
        right.socket.abort()
    server.close()


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize(
    "deed",
    ["abort", "disconnect", "close", "raise", "no key", "text", "too long", "no identity", "nothing", "turn", "take off"],
)
def test_handlers_that_do_what_they_should_not(own_host, version, side, deed):
    def nasty(sock, authenticator):
        if deed in ("abort", "disconnect", "close"):
            give()(sock, authenticator)
            getattr(sock, deed)()
        elif deed == "raise":
            give()(sock, authenticator)
            raise RuntimeError("nasty")
        elif deed == "text":
            authenticator.pre_shared_key = "text"
        elif deed == "too long":
            authenticator.pre_shared_key = b"k" * (MOST_KEY + 1)
        elif deed == "no key":
            if side == "client":
                authenticator.identity = "me"
        elif deed == "no identity":
            authenticator.pre_shared_key = KEY
        elif deed == "turn":
            own_host.turn()
            give()(sock, authenticator)
        elif deed == "take off":
            sock.pre_shared_key_handler = None
            give()(sock, authenticator)

    handlers = {"client": give(), "server": give(), side: nasty}
    server = keyed_server(handlers["server"])
    left = dial(server, handlers["client"], version)
    right = accept(own_host, server)
    raises = {"raise": RuntimeError, "text": TypeError, "too long": ValueError}
    works = deed in ("turn", "take off") or (deed == "no identity" and side == "server")
    if works:
        own_host.wait_for(lambda: right.data == b"hello", (left.events, right.events))
    else:
        for recorder in (left, right):
            own_host.wait_for(lambda r=recorder: r.socket.state is SslSocket.UNCONNECTED_STATE, (left.events, right.events))
        if deed not in ("disconnect", "close"):  # what was written before leaves, encrypted
            assert not left.has("encrypted")
            assert not right.has("encrypted")
            assert right.data == b""
    failures = own_host.take_failures()
    if deed in raises:
        assert failures and all(isinstance(failure, raises[deed]) for failure in failures)
    elif deed == "no identity" and side == "client":
        assert failures and "identity" in str(failures[0])
    else:
        assert not failures
    if deed in raises or deed in ("no key", "nothing"):
        assert (left if side == "client" else right).of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
    left.socket.abort()
    right.socket.abort()
    server.close()


def test_a_server_without_certificate_needs_the_handler(host):
    server = SslServer()
    server.configuration = SslConfiguration()
    assert not server.listen(0, "127.0.0.1")
    assert "no certificate" in server.error_string
    server.pre_shared_key_handler = give()
    assert server.listen(0, "127.0.0.1")
    server.close()


def test_the_authenticator_is_a_careful_one():
    authenticator = SslPreSharedKeyAuthenticator("hint", True)
    assert authenticator.identity_hint == "hint"
    assert (authenticator.maximum_identity_length, authenticator.maximum_pre_shared_key_length) == (MOST_IDENTITY, MOST_KEY)
    authenticator.pre_shared_key = KEY
    authenticator.identity = "x" * MOST_IDENTITY
    for name, wrong, error in (
        ("pre_shared_key", "text", TypeError),
        ("pre_shared_key", None, TypeError),
        ("pre_shared_key", 32, TypeError),
        ("pre_shared_key", b"k" * (MOST_KEY + 1), ValueError),
        ("identity", 1, TypeError),
        ("identity", None, TypeError),
        ("identity", "a\0", ValueError),
        ("identity", "ä" * MOST_IDENTITY, ValueError),
    ):
        with pytest.raises(error):
            setattr(authenticator, name, wrong)
    assert authenticator.pre_shared_key == KEY
    assert authenticator.identity == "x" * MOST_IDENTITY
    assert KEY.hex() not in repr(authenticator) and str(KEY) not in repr(authenticator)
    with pytest.raises(TypeError):
        pickle.dumps(authenticator)
    with pytest.raises(TypeError):
        copy.copy(authenticator)
    with pytest.raises(AttributeError):
        authenticator.presharedkey = KEY


def test_the_hint_is_checked():
    configuration = SslConfiguration()
    assert configuration.pre_shared_key_identity_hint == ""
    configuration.pre_shared_key_identity_hint = b"hint"
    assert configuration.pre_shared_key_identity_hint == "hint"
    assert configuration != SslConfiguration()
    for wrong, error in ((1, TypeError), (None, TypeError), ("a\0b", ValueError), ("x" * 257, ValueError)):
        with pytest.raises(error):
            configuration.pre_shared_key_identity_hint = wrong
    assert configuration.pre_shared_key_identity_hint == "hint"
