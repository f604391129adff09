"""What is assigned to sockets, servers, relays and configurations is looked at before anything changes; and none of the objects
that live on a loop is copied."""

from __future__ import annotations

import copy
import pickle
from decimal import Decimal
from fractions import Fraction

import pytest

import sslsock
from peers import accept, listening, make_tcp_pair
from sslsock import (
    Relay,
    SslCertificate,
    SslConfiguration,
    SslKey,
    SslServer,
    SslSession,
    SslSocket,
    Stream,
    TcpServer,
    TcpSocket,
)

HUGE = 10**400
NAN = float("nan")

SECONDS = ([None, "30", b"30", True, [], object()], [-1, -0.001, NAN, -float("inf"), HUGE])
COUNT = ([None, "1", 1.0, True, []], [-1, 2**63, HUGE])
HANDLER = ([0, "name", True, object()], [])
ENUM = ([None, "1", 1.0, True], [-1, 99, HUGE])
TEXT = ([None, 1, b"x"], [])
FLAG = ([None, 1, "yes"], [])

SOCKET_HANDLERS = [
    *("ready_read_handler", "bytes_written_handler", "about_to_close_handler", "connected_handler", "disconnected_handler"),
    *("error_handler", "state_changed_handler", "host_found_handler"),
]
SSL_HANDLERS = [
    *("client_hello_handler", "encrypted_handler", "mode_changed_handler", "new_session_handler", "ssl_errors_handler"),
    *("pre_shared_key_handler", "peer_certificate_handler"),
]

# Class, attribute, values of the wrong type, values that are impossible.
ATTRIBUTES = [
    *((TcpSocket, name, *HANDLER) for name in SOCKET_HANDLERS),
    *((SslSocket, name, *HANDLER) for name in SSL_HANDLERS),
    (TcpSocket, "connect_timeout", *SECONDS),
    (TcpSocket, "read_buffer_size", *COUNT),
    (TcpSocket, "encoding", TEXT[0], ["no such encoding", "hex", "utf\0", "\udc80"]),
    (SslSocket, "handshake_timeout", *SECONDS),
    (SslSocket, "configuration", [None, 1, SslConfiguration], []),
    (SslSocket, "peer_verify_mode", ["1", 1.0, True], [-1, 99]),
    (SslSocket, "session", [1, "x", b"x", SslSession], []),
    (SslSocket, "peer_verify_name", TEXT[0], ["a b", "[", "x" * 300]),
    (TcpServer, "new_connection_handler", *HANDLER),
    (TcpServer, "accept_error_handler", *HANDLER),
    (TcpServer, "reuse_port", *FLAG),
    (TcpServer, "max_pending_connections", COUNT[0], [0, *COUNT[1]]),
    (TcpServer, "trusted_proxies", [1, 1.0, [1], [None]], ["no network", "10.0.0.0/33", ["10.0.0.1", ""]]),
    (SslServer, "handshake_timeout", *SECONDS),
    (SslServer, "handshake_threads", COUNT[0], [-1, 257, HUGE]),
    (SslServer, "max_handshakes", COUNT[0], [-1, HUGE]),
    (SslServer, "client_hello_handler", *HANDLER),
    (SslServer, "pre_shared_key_handler", *HANDLER),
    (SslServer, "configuration", [None, 1], []),
    (SslConfiguration, "local_certificate", [1, b"x", SslKey], []),
    (SslConfiguration, "local_certificate_chain", [1, [None], [b"x"]], []),
    (SslConfiguration, "private_key", [1, b"x", SslCertificate], []),
    (SslConfiguration, "post_handshake_authentication", *FLAG),
    (SslConfiguration, "legacy_server_connect", *FLAG),
    (SslConfiguration, "prefer_server_ciphers", *FLAG),
    (SslConfiguration, "pre_shared_key_identity_hint", [None, 1, ["x"]], ["a\0b", "x" * 257]),
    (SslConfiguration, "peer_verify_mode", *ENUM),
    (SslConfiguration, "peer_verify_depth", COUNT[0], [-1, 2**31, HUGE]),
    (SslConfiguration, "verify_hostname", *FLAG),
    (SslConfiguration, "ca_certificates", [1, [None]], []),
    (SslConfiguration, "use_system_ca", *FLAG),
    (SslConfiguration, "minimum_protocol", *ENUM),
    (SslConfiguration, "maximum_protocol", ["1", 1.0, True], [-1, 99, HUGE]),
    (SslConfiguration, "ciphers", *TEXT),
    (SslConfiguration, "ciphersuites", *TEXT),
    (SslConfiguration, "groups", *TEXT),
    (SslConfiguration, "signature_algorithms", *TEXT),
    (SslConfiguration, "allowed_next_protocols", [None, 1, "h2", [1]], [[""], ["x" * 256], ["x" * 255] * 256]),
]


@pytest.mark.parametrize(
    ("cls", "name", "wrong", "impossible"), ATTRIBUTES, ids=[f"{cls.__name__}-{name}" for cls, name, *_ in ATTRIBUTES]
)
def test_what_cannot_be_is_refused_when_it_is_assigned(own_host, cls, name, wrong, impossible):
    thing = cls()
    before = getattr(thing, name)
    for value in wrong:
        with pytest.raises(TypeError) as raised:
            setattr(thing, name, value)
        assert str(raised.value), value
        assert getattr(thing, name) == before, value
    for value in impossible:
        with pytest.raises((ValueError, LookupError)) as raised:
            setattr(thing, name, value)
        assert str(raised.value), value
        assert getattr(thing, name) == before, value


@pytest.mark.parametrize("cls", [TcpSocket, SslSocket, TcpServer, SslServer])
def test_no_attribute_is_without_a_check(own_host, cls):
    """Whatever can be assigned stands in the table above."""
    listed = {name for owner, name, *_ in ATTRIBUTES if issubclass(cls, owner)}
    thing = cls()
    settable = set()
    for name in dir(cls):
        if not name.startswith("_"):
            try:
                setattr(thing, name, getattr(thing, name))
            except AttributeError:
                continue
            settable.add(name)
    assert settable == listed


def test_a_relays_attributes_are_checked(own_host):
    pair = make_tcp_pair(own_host)
    other = make_tcp_pair(own_host)
    for value in (*SECONDS[0], *SECONDS[1]):
        with pytest.raises((TypeError, ValueError), match="idle_timeout"):
            Relay(pair.server, other.server, idle_timeout=value)
    relay = Relay(pair.server, other.server, idle_timeout=5)
    for value in (*SECONDS[0], *SECONDS[1]):
        with pytest.raises((TypeError, ValueError), match="idle_timeout"):
            relay.idle_timeout = value
    for value in HANDLER[0]:
        with pytest.raises(TypeError, match="closed_handler"):
            relay.closed_handler = value
    assert relay.idle_timeout == 5.0
    with pytest.raises(TypeError, match="Relay"):
        copy.copy(relay)
    relay.close()
    for sock in (pair.client, other.client):
        sock.abort()


@pytest.mark.parametrize("value", [0, 0.5, 7, Decimal("1.5"), Fraction(1, 4), float("inf")])
def test_seconds_are_any_number(own_host, value):
    for cls, name in ((SslSocket, "handshake_timeout"), (TcpSocket, "connect_timeout"), (SslServer, "handshake_timeout")):
        thing = cls()
        setattr(thing, name, value)
        assert getattr(thing, name) == float(value)
        assert type(getattr(thing, name)) is float


def test_infinite_timeouts_are_none(host, certificates):
    server = SslServer()
    server.configuration = certificates.server()
    server.handshake_timeout = float("inf")
    client = SslSocket()
    client.configuration = certificates.client()
    client.handshake_timeout = client.connect_timeout = float("inf")
    listening(server)
    client.connect_encrypted("localhost", server.port)
    taken = accept(host, server).socket
    host.wait_for(lambda: client.encrypted and taken.encrypted)
    client.abort()
    taken.abort()
    server.close()


def test_a_port_is_no_bool_and_no_text(own_host):
    for port in (True, "80", 80.0, None):
        with pytest.raises(TypeError):
            TcpSocket().connect("localhost", port)
        with pytest.raises(TypeError):
            TcpServer().listen(port)
        with pytest.raises(TypeError):
            TcpSocket().bind(port)
    for port in (-1, 65536, HUGE):
        with pytest.raises(ValueError):
            TcpSocket().connect("localhost", port)
        with pytest.raises(ValueError):
            TcpServer().listen(port)


COPIES = [copy.copy, copy.deepcopy, *(lambda thing, p=p: pickle.dumps(thing, p) for p in range(pickle.HIGHEST_PROTOCOL + 1))]


class Derived(SslSocket):
    """With a `__dict__`, which the copying of others would take along."""


@pytest.mark.parametrize("cls", [TcpSocket, SslSocket, TcpServer, SslServer, Derived])
@pytest.mark.parametrize("make", COPIES)
def test_what_lives_on_a_loop_is_not_copied(own_host, cls, make):
    thing = cls()
    if isinstance(thing, TcpServer):
        listening(thing) if cls is TcpServer else None
    with pytest.raises(TypeError, match=cls.__name__):
        make(thing)
    if isinstance(thing, TcpServer):
        thing.close()


def test_a_configuration_is_copied_but_not_pickled(certificates):
    class Named(SslConfiguration):
        def __init__(self, name):
            super().__init__()
            self.name = name

    for configuration in (certificates.server(), Named("x")):
        for make in COPIES[:2]:
            twin = make(configuration)
            assert type(twin) is type(configuration)
            assert twin == configuration
            assert vars(twin) == vars(configuration) if isinstance(twin, Named) else True
            twin.ciphers = "AES128-SHA"
            assert configuration.ciphers == ""
        for make in COPIES[2:]:
            with pytest.raises(TypeError, match="pickled"):
                make(configuration)


@pytest.mark.parametrize("make", COPIES[2:])
def test_a_key_is_not_pickled(certificates, make):
    key = certificates.server().private_key
    with pytest.raises(TypeError, match=r"SslKey|key"):
        make(key)


def handlers_of_public_classes():
    """Every handler of every public class, by what the classes themselves say."""
    for cls in (getattr(sslsock, name) for name in sslsock.__all__):
        if isinstance(cls, type) and cls not in (Relay, Stream):  # the one needs sockets, the other is abstract
            yield from ((cls, name) for name in dir(cls) if name.endswith("_handler") and not name.startswith("_"))


@pytest.mark.parametrize(("cls", "name"), [*handlers_of_public_classes()], ids=lambda value: getattr(value, "__name__", value))
def test_each_handler_is_none_or_a_callable(cls, name):
    thing = cls()
    assert getattr(thing, name) is None
    for wrong in (0, False, "name", b"name", [], {}, object()):
        with pytest.raises(TypeError, match=rf"{name}.*callable.*{type(wrong).__name__}"):
            setattr(thing, name, wrong)
        assert getattr(thing, name) is None
    setattr(thing, name, print)
    assert getattr(thing, name) is print
    with pytest.raises(TypeError):
        setattr(thing, name, 1)
    assert getattr(thing, name) is print, "what was refused has changed the handler"
    setattr(thing, name, None)
    assert getattr(thing, name) is None
