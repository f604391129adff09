"""SslConfiguration is a value: checked when set, compared, copied, and frozen by a snapshot."""

import copy
import gc
import pickle

import pytest

from sslsock import PeerVerifyMode, SslCertificate, SslConfiguration, SslKey, SslProtocol, SslSocket
from sslsock.core.context import ConfigurationError
from sslsock.sockets import snapshot as module

CHANGES = {
    "peer_verify_mode": PeerVerifyMode.QUERY_PEER,
    "peer_verify_depth": 3,
    "verify_hostname": False,
    "use_system_ca": False,
    "minimum_protocol": SslProtocol.TLS_1_3,
    "maximum_protocol": SslProtocol.TLS_1_2,
    "ciphers": "ECDHE+AESGCM",
    "ciphersuites": "TLS_AES_128_GCM_SHA256",
    "groups": "P-256",
    "signature_algorithms": "ECDSA+SHA256",
    "post_handshake_authentication": True,
    "legacy_server_connect": True,
    "prefer_server_ciphers": False,
    "pre_shared_key_identity_hint": "which device?",
    "allowed_next_protocols": ["h2", "http/1.1"],
}


def context(configuration, server_side=False, mode=PeerVerifyMode.VERIFY_PEER):
    return configuration.context(server_side, mode)


def test_defaults_are_safe():
    configuration = SslConfiguration()
    assert configuration.peer_verify_mode is PeerVerifyMode.AUTO_VERIFY_PEER
    assert configuration.verify_hostname is True
    assert configuration.use_system_ca is True
    assert configuration.minimum_protocol is SslProtocol.TLS_1_2
    assert configuration.maximum_protocol is None
    assert configuration.local_certificate is None
    assert configuration.private_key is None
    assert configuration.local_certificate_chain == configuration.ca_certificates == []


@pytest.mark.parametrize(("name", "value"), CHANGES.items())
def test_a_setting_is_kept_and_makes_a_difference(name, value):
    configuration = SslConfiguration()
    setattr(configuration, name, value)
    assert getattr(configuration, name) == value
    assert configuration != SslConfiguration()
    setattr(configuration, name, getattr(SslConfiguration(), name))
    assert configuration == SslConfiguration()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("peer_verify_mode", "none"),
        ("peer_verify_mode", True),
        ("peer_verify_depth", "1"),
        ("verify_hostname", 1),
        ("use_system_ca", None),
        ("minimum_protocol", "TLSv1.2"),
        ("maximum_protocol", 1.2),
        ("ciphers", b"HIGH"),
        ("ciphersuites", None),
        ("groups", ["P-256"]),
        ("signature_algorithms", ["ECDSA+SHA256"]),
        ("allowed_next_protocols", "h2"),
        ("allowed_next_protocols", [2]),
        ("local_certificate", b"PEM"),
        ("local_certificate_chain", [None]),
        ("local_certificate_chain", SslCertificate()),
        ("ca_certificates", ["x"]),
        ("private_key", "PEM"),
    ],
)
def test_wrong_types_raise(name, value):
    with pytest.raises(TypeError):
        setattr(SslConfiguration(), name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("peer_verify_mode", 7),
        ("peer_verify_depth", -1),
        ("minimum_protocol", 0x0305),
        ("maximum_protocol", 0),
        ("allowed_next_protocols", [""]),
        ("allowed_next_protocols", ["x" * 256]),
    ],
)
def test_impossible_values_raise(name, value):
    with pytest.raises(ValueError):
        setattr(SslConfiguration(), name, value)


def test_there_are_no_other_settings():
    with pytest.raises(AttributeError):
        SslConfiguration().minimum_protocoll = SslProtocol.TLS_1_3


def test_lists_are_copies(certificates):
    configuration = certificates.client()
    configuration.ca_certificates.clear()
    assert configuration.ca_certificates == [certificates.ca_certificate]


def test_ca_file_adds_all_its_certificates(certificates, tmp_path):
    path = tmp_path / "ca.pem"
    path.write_bytes(certificates.ca.cert_pem.bytes() * 2)
    configuration = SslConfiguration()
    configuration.add_ca_file(path)
    configuration.add_ca_file(str(path))
    assert configuration.ca_certificates == [certificates.ca_certificate] * 4


def test_ca_file_that_cannot_be_read_raises(tmp_path):
    with pytest.raises(OSError):
        SslConfiguration().add_ca_file(tmp_path / "missing.pem")
    (tmp_path / "empty.pem").write_text("nothing here")
    with pytest.raises(ValueError, match=r"empty\.pem"):
        SslConfiguration().add_ca_file(tmp_path / "empty.pem")


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_a_copy_is_equal_and_independent(certificates, make):
    original = certificates.server()
    original.allowed_next_protocols = ["h2"]
    twin = make(original)
    assert twin == original
    twin.allowed_next_protocols = []
    assert original.allowed_next_protocols == ["h2"]
    assert twin != original


def test_it_is_neither_hashed_nor_pickled():
    with pytest.raises(TypeError):
        hash(SslConfiguration())
    with pytest.raises(TypeError):
        pickle.dumps(SslConfiguration())


def test_it_does_not_show_its_key(certificates):
    assert "PRIVATE KEY" not in repr(certificates.server())


def test_equal_snapshots_share_a_context(certificates):
    first, second = certificates.server(), certificates.server()
    assert context(first) is context(second)
    assert context(first) is context(first)
    second.peer_verify_depth = 2
    assert context(first) is not context(second)


def test_roles_and_modes_have_contexts_of_their_own(certificates):
    configuration = certificates.server()
    made = {
        context(configuration, True),
        context(configuration, False),
        context(configuration, False, PeerVerifyMode.QUERY_PEER),
    }
    assert len(made) == 3


def snapshot_of(configuration):
    return configuration.snapshot(False, PeerVerifyMode.VERIFY_PEER)


def test_a_context_lives_as_long_as_its_configuration(certificates, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 0)
    configuration = certificates.client()
    configuration.groups = "P-384"  # so that no other test holds the same
    kept = id(context(configuration))
    gc.collect()
    assert id(context(configuration)) == kept
    key = module.key_of(snapshot_of(configuration))
    assert key in module.contexts
    configuration.groups = ""
    gc.collect()
    assert key not in module.contexts


@pytest.mark.parametrize("system", [False, True])
def test_equal_configurations_made_one_after_another_share_a_context(certificates, system):
    def made(ciphers=""):
        configuration = certificates.client()
        configuration.use_system_ca = system
        configuration.ciphers = ciphers
        return context(configuration)

    first = id(made("ECDHE-ECDSA-AES128-GCM-SHA256"))
    gc.collect()
    assert id(made("ECDHE-ECDSA-AES128-GCM-SHA256")) == first
    made("ECDHE-ECDSA-AES256-GCM-SHA384")
    assert id(made("ECDHE-ECDSA-AES128-GCM-SHA256")) == first


def test_no_more_contexts_live_on_than_are_said(certificates, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 3)
    names = [f"protocol{number}" for number in range(5)]

    def ask(name):
        configuration = certificates.client()
        configuration.allowed_next_protocols = [name]
        context(configuration)
        return module.key_of(snapshot_of(configuration))

    keys = [ask(name) for name in names]
    ask(names[2])
    keys.append(ask("another"))  # the one that was asked for longest ago makes room
    gc.collect()
    assert [key in module.contexts for key in keys] == [False, False, True, False, True, True]
    assert len(module.recent) == 3


def test_what_openssl_refuses_is_not_kept(certificates):
    configuration = certificates.client()
    configuration.ciphers = "NO-SUCH-CIPHER"
    for _ in range(2):
        with pytest.raises(ConfigurationError):
            context(configuration)
    assert module.key_of(snapshot_of(configuration)) not in module.recent


def test_the_chain_may_begin_with_the_own_certificate(certificates):
    whole = certificates.server()
    chain = whole.local_certificate_chain
    apart = certificates.server()
    apart.local_certificate, apart.local_certificate_chain = chain[0], chain[1:]
    both = certificates.server()
    both.local_certificate = chain[0]
    snapshots = [each.snapshot(True, PeerVerifyMode.VERIFY_NONE) for each in (whole, apart, both)]
    assert snapshots[0] == snapshots[1] == snapshots[2]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ciphers", "NO-SUCH-CIPHER", "NO-SUCH-CIPHER"),
        ("ciphersuites", "TLS_NONE", "TLS_NONE"),
        ("groups", "P-1", "P-1"),
        ("signature_algorithms", "RSA+SHA3", "RSA\\+SHA3"),
        ("local_certificate", SslCertificate(b"rubbish"), "did not load|without"),
        ("private_key", SslKey(b"rubbish"), "did not load|without"),
        ("ca_certificates", [SslCertificate(b"rubbish")], "did not load"),
    ],
)
def test_what_openssl_refuses_is_told_with_its_name(certificates, name, value, words):
    configuration = certificates.server()
    setattr(configuration, name, value)
    with pytest.raises(ConfigurationError, match=words):
        context(configuration)


def test_each_socket_has_a_configuration_to_change():
    first, second = SslSocket(), SslSocket()
    first.configuration.peer_verify_depth = 4
    assert first.configuration.peer_verify_depth == 4
    assert second.configuration.peer_verify_depth == 0


def test_a_socket_verifies_as_its_configuration_says_until_told_otherwise():
    sock = SslSocket()
    assert sock.peer_verify_mode is SslSocket.AUTO_VERIFY_PEER
    sock.configuration.peer_verify_mode = SslSocket.QUERY_PEER
    assert sock.peer_verify_mode is SslSocket.QUERY_PEER
    sock.peer_verify_mode = 0
    assert sock.peer_verify_mode is SslSocket.VERIFY_NONE
    sock.peer_verify_mode = None
    assert sock.peer_verify_mode is SslSocket.QUERY_PEER
    for wrong, error in (("x", TypeError), (9, ValueError)):
        with pytest.raises(error):
            sock.peer_verify_mode = wrong
    with pytest.raises(TypeError):
        sock.configuration = {}
