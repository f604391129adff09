"""Sessions that a program keeps: as bytes, bound to what decided about the server, told of by a handler."""

from __future__ import annotations

import copy
import datetime
import pickle
import struct

import pytest

from core.pairs import TLS_1_2, TLS_1_3, client_context, engines, identity, server_context, shake
from judged import DAY, NOW, issue, revoke
from peers import DEADLINE, Recorder, accept, forget_contexts, make_ssl_pair, secure_server, silence, wait_for_end
from sslsock import Engine, SslConfiguration, SslCrl, SslSession, SslSocket, TlsError
from sslsock.core.context import VERIFY_NONE, VERIFY_PEER, VERIFY_QUERY
from sslsock.sockets.snapshot import context_of

NAMES = {"server_name": "localhost", "verify_name": "localhost"}
WEEK = 7 * 86400


@pytest.fixture(params=[TLS_1_2, TLS_1_3], ids=["TLS 1.2", "TLS 1.3"])
def version(request):
    return request.param


def session_of(version, server=None, client=None, **settings):
    """A new session by way of bytes, and the server's context that takes it."""
    server = server or server_context(version)
    left, right = engines(version, client=client, server=server, **(settings or NAMES))
    left.decrypt(right.encrypt(b"with a ticket"))
    assert left.session is not None
    return SslSession(left.session.to_bytes()), server


def offered(session, server, client, **settings):
    """Whether a connection that is given the session resumes it."""
    left, right = Engine(client, session=session, **(settings or NAMES)), Engine(server)
    shake(left, right)
    assert left.session_reused is right.session_reused
    return left.session_reused


# A value


def test_a_session_is_a_value(version):
    session, server = session_of(version)
    assert not session.null
    assert session.error_string == ""
    assert session.protocol == version
    assert session.ticket_lifetime_hint == 7200
    assert abs(session.created - datetime.datetime.now(datetime.timezone.utc)) < datetime.timedelta(seconds=DEADLINE)
    assert session.peer_certificate == identity().certificate
    again = SslSession(bytearray(session.to_bytes()))
    assert again == session
    assert hash(again) == hash(session)
    assert session != session_of(version)[0]
    assert copy.copy(session) is copy.deepcopy(session) is session
    assert offered(again, server, client_context(version))


def test_its_secret_is_shown_nowhere(version):
    session, _ = session_of(version)
    with pytest.raises(TypeError, match="secret"):
        pickle.dumps(session)
    der = session.to_bytes()
    assert "localhost" not in repr(session) or "SslCertificate" in repr(session)
    assert not any(der[start : start + 6].hex() in repr(session) for start in range(len(der) - 6))
    assert "to_bytes" in dir(session)
    assert not hasattr(session, "__dict__")


@pytest.mark.parametrize("wrong", ["text", None, 1, [b"x"]])
def test_a_session_is_made_of_bytes(wrong):
    with pytest.raises(TypeError):
        SslSession(wrong)


def test_what_is_damaged_is_null_and_is_not_offered(version):
    session, server = session_of(version)
    der = session.to_bytes()
    reasons = {
        b"": "the data is empty",
        b"x" + der: "not DER",
        der + b"x": "bytes too many",
        der[:-1]: "truncated",
        identity().certificate.to_der(): "this is a certificate",
        b"-----BEGIN SSL SESSION PARAMETERS-----\n": "PEM",
    }
    for data, words in reasons.items():
        null = SslSession(data)
        assert null.null
        assert words in null.error_string
        assert words in repr(null)
        assert (null.to_bytes(), null.protocol, null.created, null.peer_certificate) == (b"", 0, None, None)
        assert not offered(null, server, client_context(version))
    assert all(SslSession(der[:size]).null for size in range(len(der)))


def test_a_byte_that_is_another_does_no_harm(version):
    """Whatever it means, the handshake is done, resumed or not, or fails in words."""
    session, server = session_of(version)
    client = client_context(version)
    der = session.to_bytes()
    outcomes = set()
    for place in range(len(der)):
        for bit in (1, 0x80):
            changed = SslSession(der[:place] + bytes((der[place] ^ bit,)) + der[place + 1 :])
            repr(changed)
            assert changed.null or changed.to_bytes()
            left, right = Engine(client, session=changed, **NAMES), Engine(server)
            try:
                shake(left, right)
            except TlsError:
                outcomes.add("refused")
            else:
                outcomes.add(left.session_reused)
    assert outcomes == {True, False, "refused"}


# What it is bound to

OWN = issue("client")
ROOT = issue("root", ca=True)
OTHER_SETTINGS = {
    "verification is asked for": {"verify_mode": VERIFY_QUERY},
    "no verification": {"verify_mode": VERIFY_NONE},
    "the depth": {"verify_depth": 3},
    "an authority more": {"ca_certificates": [identity().authority, ROOT.ours]},
    "the system's authorities": {"use_system_ca": True},
    "the flags": {"verify_flags": 0x20},
    "the oldest protocol": {"minimum_protocol": 0x0302},
    "the ciphers": {"ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"},
    "the suites of TLS 1.3": {"ciphersuites": "TLS_AES_128_GCM_SHA256"},
    "the groups": {"groups": "P-256"},
    "the signature algorithms": {"signature_algorithms": "ECDSA+SHA256:RSA-PSS+SHA256:RSA+SHA256"},
    "legacy servers": {"legacy_server_connect": True},
    "the own certificate": {"certificate": OWN.ours, "private_key": OWN.our_key},
}


@pytest.mark.parametrize("settings", OTHER_SETTINGS.values(), ids=OTHER_SETTINGS)
def test_a_session_is_not_offered_under_other_settings(version, settings):
    session, server = session_of(version)
    assert offered(session, server, client_context(version))
    session, server = session_of(version)
    other = client_context(version, **settings)
    assert not offered(session, server, other)
    back, server = session_of(version, client=other)
    assert not offered(back, server, client_context(version))
    back, server = session_of(version, client=other)
    assert offered(back, server, other)


@pytest.mark.parametrize(
    "names",
    [{"server_name": "localhost"}, {"verify_name": "localhost"}, {"server_name": "other", "verify_name": "localhost"}],
    ids=str,
)
def test_a_session_is_not_offered_under_other_names(version, names):
    session, server = session_of(version)
    assert not offered(session, server, client_context(version), **names)
    assert offered(session, server, client_context(version), server_name="localhost", verify_name="LocalHost.")


def test_a_session_is_not_offered_where_a_list_revokes(version):
    root = issue("authority", ca=True)
    own = issue("localhost", root)
    server = server_context(version, certificate=own.ours, private_key=own.our_key)
    trusting = {"ca_certificates": [root.ours]}
    session, _ = session_of(version, server, client_context(version, **trusting))
    lists = [SslCrl(revoke(root))]
    assert offered(session, server, client_context(version, **trusting))
    assert not offered(session, server, client_context(version, crls=lists, **trusting))


def test_the_trust_store_of_the_system_is_that_of_then(version, tmp_path, monkeypatch):
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(identity().authority.to_pem())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    system = {"use_system_ca": True, "ca_certificates": []}
    session, server = session_of(version, client=client_context(version, **system))
    assert offered(session, server, client_context(version, **system))
    bundle.write_bytes(identity().authority.to_pem() + ROOT.ours.to_pem())
    assert not offered(session, server, client_context(version, **system))


def test_other_settings_do_not_matter(version):
    session, server = session_of(version)
    lines = []
    assert offered(session, server, client_context(version, key_log=lines.append, maximum_protocol=version))


def test_nobody_elses_session_is_offered(version):
    """One that was begun by another program bears no mark, for nobody knows what that has verified."""
    session, server = session_of(version)
    der = bytearray(session.to_bytes())
    place = der.index(b"\xa4\x22\x04\x20")  # [4], the session id context
    der[place + 4 + 5] ^= 1
    changed = SslSession(der)
    assert not changed.null
    assert not offered(changed, server, client_context(version))


def aged(session, seconds):
    """The same session, of so many seconds before."""
    made = int(session.created.timestamp())
    der = session.to_bytes()
    old, new = (b"\xa1\x06\x02\x04" + struct.pack(">I", at) for at in (made, made - seconds))
    assert der.count(old) == 1
    return SslSession(der.replace(old, new))


def test_a_session_ends_with_the_time_that_the_server_gave(version):
    session, server = session_of(version)
    assert offered(aged(session, 3600), server, client_context(version))
    session, server = session_of(version)
    assert not offered(aged(session, 7201), server, client_context(version))
    assert not offered(aged(session, WEEK + 1), server, client_context(version))


def test_a_session_ends_with_the_certificate_of_the_server(version):
    ended = issue("localhost", begin=NOW - 2 * DAY, end=NOW - DAY)
    server = server_context(version, certificate=ended.ours, private_key=ended.our_key)
    client = client_context(version, verify_mode=VERIFY_NONE)
    session, _ = session_of(version, server, client)
    assert not offered(session, server, client)
    session, server = session_of(version, client=client)
    assert offered(session, server, client)


# Given and not given


@pytest.mark.parametrize("mode", [VERIFY_PEER, VERIFY_QUERY])
def test_a_connection_whose_errors_were_ignored_gives_none(version, mode):
    client = client_context(version, ca_certificates=[], verify_mode=mode)
    left, right = Engine(client, verify_handler=lambda errors: True, **NAMES), Engine(server_context(version))
    shake(left, right)
    left.decrypt(right.encrypt(b"with a ticket"))
    assert left.verify_errors
    assert left.session is None


def test_a_server_has_none(version):
    left, right = engines(version, **NAMES)
    right.decrypt(left.encrypt(b"data"))
    assert right.session is None


def test_a_session_of_tls_1_2_goes_on(version):
    """With TLS 1.3 the ticket is used up, and the next has not come; with TLS 1.2 the session is the same."""
    session, server = session_of(version)
    left, right = Engine(client_context(version), session=session, **NAMES), Engine(server)
    to_server = left.start()
    assert left.session is None
    right.decrypt(to_server)
    left.decrypt(right.take())
    right.decrypt(left.take())
    left.decrypt(right.take())
    assert left.session_reused
    assert left.session is not None
    assert (left.session == session) is (version == TLS_1_2)


def test_one_that_a_program_offers_is_not_offered_by_itself_again():
    client, server = client_context(TLS_1_3), server_context(TLS_1_3)
    left, right = engines(TLS_1_3, client=client, server=server, session_key="key", **NAMES)
    left.decrypt(right.encrypt(b"with a ticket"))
    session = left.session
    for given, reused in ((session, True), (None, False)):
        left, right = Engine(client, session_key="key", session=given, **NAMES), Engine(server)
        hello = left.start()
        right.decrypt(hello)
        left.decrypt(right.take())
        assert left.session_reused is reused


# Sockets


def limited(configuration, version):
    configuration.minimum_protocol = configuration.maximum_protocol = version
    return configuration


def connect(host, server, configuration, session=None, prepare=None, name="localhost"):
    """A client whose handshake is done and whose server has greeted it, with the server's side."""
    client = SslSocket()
    client.configuration = configuration
    client.peer_verify_name = name
    client.session = session
    left = Recorder(client)
    told = []
    client.new_session_handler = lambda sock, new: told.append(new)
    if prepare is not None:
        prepare(client)
    client.connect_encrypted("127.0.0.1", server.port)
    right = accept(host, server)
    right.socket.write(b"hello")
    host.wait_for(lambda: left.data == b"hello" or left.has("error"), left.events)
    return left, right, told


def test_a_socket_keeps_and_gives_its_session(host, certificates, version):
    server = secure_server(certificates)
    sessions = [None]
    for reused in (False, True, True):
        forget_contexts()
        left, right, told = connect(host, server, limited(certificates.client(), version), sessions[-1])
        assert left.socket.session_reused is right.socket.session_reused is reused
        if told:
            assert told == [left.socket.session]
        else:
            assert reused and version == TLS_1_2
        sessions.append(SslSession(left.socket.session.to_bytes()))
        left.socket.disconnect()
        wait_for_end(host, left)
        assert left.socket.session == sessions[-1]
    server.close()


def test_a_session_is_offered_once(host, certificates):
    server = secure_server(certificates)
    left, _, told = connect(host, server, limited(certificates.client(), TLS_1_3))
    [session] = told
    left.socket.disconnect()
    wait_for_end(host, left)
    forget_contexts()
    client = left.socket
    client.configuration = limited(certificates.client(), TLS_1_3)
    client.session = session
    assert client.session is session
    for reused in (True, False):
        forget_contexts()
        client.configuration = limited(certificates.client(), TLS_1_3)
        left.clear()
        client.connect_encrypted("127.0.0.1", server.port)
        right = accept(host, server)
        host.wait_for(lambda right=right: right.socket.encrypted and client.encrypted, left.events)
        assert client.session_reused is reused
        client.abort()
    server.close()


def test_a_session_whose_errors_were_ignored_is_not_given(host, certificates, version):
    configuration = limited(SslConfiguration(), version)
    configuration.use_system_ca = False

    def tolerant(client):
        client.ssl_errors_handler = lambda sock, errors: sock.ignore_ssl_errors()

    server = secure_server(certificates)
    left, _, told = connect(host, server, configuration, prepare=tolerant)
    assert left.socket.encrypted
    assert left.socket.session is None
    assert told == []
    left.socket.abort()
    server.close()


def test_null_and_foreign_sessions_make_a_full_handshake(host, certificates, version):
    server = secure_server(certificates)
    strict = limited(certificates.client(), version)
    strict.verify_flags = SslConfiguration.VERIFY_X509_PARTIAL_CHAIN
    left, _, _ = connect(host, server, strict)
    session = left.socket.session
    left.socket.abort()
    for given in (session, SslSession(b"rubbish"), None):
        forget_contexts()
        left, _, _ = connect(host, server, limited(certificates.client(), version), given)
        assert left.socket.encrypted
        assert not left.socket.session_reused
        left.socket.abort()
    server.close()


def test_only_a_session_can_be_assigned():
    sock = SslSocket()
    assert sock.session is None
    for wrong in (b"x", 1, SslSession, "x"):
        with pytest.raises(TypeError, match="SslSession"):
            sock.session = wrong
    assert sock.session is None


@pytest.mark.parametrize("deed", ["abort", "disconnect", "close", "raise", "drop"])
def test_a_handler_of_sessions_may_do_anything(host, certificates, version, deed):
    def handler(sock, session):
        if deed == "raise":
            raise RuntimeError("nasty")
        if deed == "drop":
            sock.new_session_handler = sock.ready_read_handler = sock.session = None
        else:
            getattr(sock, deed)()

    def prepare(client):
        client.new_session_handler = handler

    server = secure_server(certificates)
    client = SslSocket()
    client.configuration = limited(certificates.client(), version)
    client.peer_verify_name = "localhost"
    left = Recorder(client)
    prepare(client)
    client.connect_encrypted("127.0.0.1", server.port)
    right = accept(host, server)
    right.socket.write(b"hello")
    if deed == "raise":
        host.wait_for(lambda: left.data == b"hello", left.events)
        assert [str(failure) for failure in host.take_failures()] == ["nasty"]
    elif deed == "drop":
        host.wait_for(lambda: client.bytes_available == 5, left.events)
    else:
        host.wait_for(lambda: client.state is SslSocket.UNCONNECTED_STATE, left.events)
        host.wait_for(lambda: right.socket.state is SslSocket.UNCONNECTED_STATE, right.events)
        assert left.data in (b"", b"hello")
    client.abort()
    right.socket.abort()
    server.close()


def test_data_stays_in_order_when_the_handler_turns_the_loop(own_host, certificates):
    """The ticket and the first data come in one receive; while the handler is told of the session, more comes."""
    server = secure_server(certificates)
    client = SslSocket()
    client.configuration = limited(certificates.client(), TLS_1_3)
    client.peer_verify_name = "localhost"
    left = Recorder(client)
    seen = []

    def handler(sock, session):
        seen.append(bytes(left.data))
        right.socket.write(b"second")
        own_host.wait_for(lambda: len(left.data) + client.bytes_available >= 11)

    client.new_session_handler = handler
    client.connect_encrypted("127.0.0.1", server.port)
    right = accept(own_host, server)
    right.socket.write(b"first")
    own_host.wait_for(lambda: len(left.data) >= 11, left.events)
    assert left.data == b"firstsecond"
    assert seen == [b""]
    client.abort()
    right.socket.abort()
    server.close()


def test_a_method_is_a_handler_of_sessions(host, certificates):
    class Client(SslSocket):
        __slots__ = ("kept",)

        def new_session_handler(self, session):
            self.kept = session

    server = secure_server(certificates)
    client = Client()
    client.configuration = certificates.client()
    client.peer_verify_name = "localhost"
    client.connect_encrypted("127.0.0.1", server.port)
    right = accept(host, server)
    right.socket.write(b"hello")
    host.wait_for(lambda: client.bytes_available == 5)
    assert client.kept == client.session
    client.abort()
    right.socket.abort()
    server.close()


def test_a_socket_in_the_middle_tells_nothing(host, certificates):
    """Its session can be read, and no reference is left behind."""
    pair = make_ssl_pair(host, certificates.client(), certificates.server())
    pair.server.write(b"hello")
    host.wait_for(lambda: pair.left.data == b"hello")
    assert pair.client.session is not None
    assert pair.server.session is None
    silence(pair)
    pair.client.abort()
    pair.server.abort()


@pytest.mark.parametrize("turn", [1, 2])
def test_a_test_starts_without_the_sessions_of_others(certificates, turn):
    """The fixture of conftest.py: in both turns the configurations are equal and the sessions' key is the same."""
    client = context_of(certificates.client().snapshot(False, SslSocket.VERIFY_PEER))
    server = context_of(certificates.server().snapshot(True, SslSocket.VERIFY_NONE))
    for reused in (False, True):
        left, right = Engine(client, session_key="one", **NAMES), Engine(server)
        shake(left, right)
        left.decrypt(right.encrypt(b"with a ticket"))
        assert left.session_reused is reused
