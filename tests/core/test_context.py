"""Contexts: what they accept, what they refuse, and the words they refuse it with."""

import ssl
import subprocess

import pytest

from judged import issue
from sslsock.core.certificate import SslCertificate
from sslsock.core.client_hello import parse_client_hello
from sslsock.core.context import (
    VERIFY_NONE,
    VERIFY_PEER,
    ConfigurationError,
    Context,
    openssl_version,
    protocol_supported,
)
from sslsock.core.engine import Engine, TlsError
from sslsock.core.key import SslKey

from .pairs import OPENSSL, TLS_1_2, TLS_1_3, client_context, engines, identity, server_context, shake


def test_the_linked_openssl_has_a_name():
    assert openssl_version().startswith("OpenSSL ")


def test_a_server_needs_an_identity():
    with pytest.raises(ConfigurationError, match="a server needs a certificate"):
        Context(server_side=True)


def test_a_client_needs_nothing():
    context = Context(server_side=False)
    assert not context.server_side


@pytest.mark.parametrize(("one", "other"), [("ecdsa", "rsa"), ("rsa", "ecdsa"), ("ecdsa", "ed25519")])
def test_a_key_of_another_kind_does_not_fit(one, other):
    with pytest.raises(ConfigurationError, match=r"does not fit|refused"):
        server_context(certificate=identity(one).certificate, private_key=identity(other).key)


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_another_key_of_the_same_kind_does_not_fit(kind):
    with pytest.raises(ConfigurationError, match=r"does not fit.*mismatch"):
        server_context(certificate=identity(kind).certificate, private_key=identity(kind, "second").key)


def test_half_an_identity_is_refused():
    with pytest.raises(ConfigurationError, match="without its certificate"):
        server_context(certificate=None)
    with pytest.raises(ConfigurationError, match="without its private key"):
        client_context(certificate=identity().certificate)
    with pytest.raises(ConfigurationError, match="chain was given without"):
        client_context(certificate_chain=[identity().authority])


def test_what_did_not_load_is_named():
    with pytest.raises(ConfigurationError, match="the certificate did not load"):
        server_context(certificate=SslCertificate(b"nonsense"))
    with pytest.raises(ConfigurationError, match="the private key did not load"):
        server_context(private_key=SslKey(b"nonsense"))
    with pytest.raises(ConfigurationError, match="CA certificate did not load"):
        client_context(ca_certificates=[SslCertificate(b"")])
    with pytest.raises(ConfigurationError, match="of the chain did not load"):
        server_context(certificate_chain=[SslCertificate(b"")])


@pytest.mark.parametrize("setting", ["certificate", "private_key", "ca_certificates", "certificate_chain"])
def test_the_wrong_type_is_a_type_error(setting):
    with pytest.raises(TypeError):
        server_context(verify_mode=1, **{setting: "text"})


@pytest.mark.parametrize("setting", ["ciphers", "ciphersuites", "groups", "signature_algorithms"])
@pytest.mark.parametrize("text", ["NO-SUCH-THING", "\0", "AES\0", "x" * 5000])
def test_an_unknown_algorithm_is_named(setting, text):
    with pytest.raises(ConfigurationError, match=setting):
        client_context(**{setting: text})


def test_algorithms_are_used(version):
    # With TLS 1.2 the list bounds the certificate's curve too.
    group, names = ("P-256", "secp256r1 p-256 prime256v1") if version == TLS_1_2 else ("P-384", "secp384r1 p-384")
    client = client_context(
        version, ciphers="ECDHE-ECDSA-CHACHA20-POLY1305", ciphersuites="TLS_CHACHA20_POLY1305_SHA256", groups=group
    )
    engine, _ = engines(version, client=client)
    assert "CHACHA20" in engine.cipher
    assert engine.group.lower() in names.split()


def test_signature_algorithms_are_what_a_client_asks_for(version):
    client = client_context(version, signature_algorithms="rsa_pss_rsae_sha384:ECDSA+SHA256")
    assert parse_client_hello(Engine(client).start()).signature_algorithms == (0x0805, 0x0403)


def test_signature_algorithms_are_what_a_server_signs_with(version):
    """The client's are OpenSSL's; the server's alone say no."""
    with pytest.raises(TlsError, match=r"no suitable signature algorithm|no shared (signature algorithms|cipher)"):
        engines(version, "rsa", server=server_context(version, "rsa", signature_algorithms="ECDSA+SHA256"))
    engines(version, "rsa", server=server_context(version, "rsa", signature_algorithms="RSA-PSS+SHA256"))


def test_signature_algorithms_are_what_a_clients_certificate_is_asked_for(version):
    own = identity("rsa")
    client = client_context(version, certificate=own.certificate, private_key=own.key)
    settings = {"verify_mode": VERIFY_PEER, "ca_certificates": [own.authority]}
    engines(version, client=client, server=server_context(version, **settings))
    server = server_context(version, signature_algorithms="ECDSA+SHA256", **settings)
    with pytest.raises(TlsError, match="did not return a certificate"):
        engines(version, client=client, server=server)


@pytest.mark.parametrize("prefer", [True, False])
def test_whose_order_of_ciphers_decides(version, prefer):
    suites = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"]
    ciphers = ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"]
    server = server_context(
        version, ciphers=":".join(ciphers), ciphersuites=":".join(suites), prefer_server_ciphers=prefer
    )
    client = client_context(version, ciphers=":".join(ciphers[::-1]), ciphersuites=":".join(suites[::-1]))
    _, engine = engines(version, client=client, server=server)
    assert engine.cipher in (ciphers if version == TLS_1_2 else suites)[0 if prefer else 1]


def test_the_depth_counts_intermediate_certificates(version):
    root = issue("root", ca=True)
    middle = issue("middle", root, ca=True)
    for depth, chains in ((0, [True, False]), (1, [True, True]), (-1, [True, True])):
        for signer, good in zip((root, middle), chains):
            own = issue("localhost", signer)
            server = server_context(
                version, certificate=own.ours, private_key=own.our_key,
                certificate_chain=[] if signer is root else [middle.ours],
            )  # fmt: skip
            client = client_context(version, ca_certificates=[root.ours], verify_depth=depth)
            if good:
                engines(version, client=client, server=server)
            else:
                with pytest.raises(TlsError, match="certificate verify failed"):
                    engines(version, client=client, server=server)


@pytest.mark.parametrize("group", ["X25519", "P-256", "P-384", "P-521"])
def test_a_server_agrees_to_each_of_its_default_groups(version, group):
    # An RSA certificate, for with TLS 1.2 the client's list bounds the curve of the certificate too.
    _, server = engines(version, client=client_context(version, "rsa", groups=group), server=server_context(version, "rsa"))
    aliases = {"P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}
    assert server.group.lower() in (group.lower(), aliases.get(group), "secp256r1" if group == "P-256" else None)


def test_the_post_quantum_hybrid_is_agreed_on_where_openssl_has_it():
    for engine in engines(TLS_1_3):
        assert engine.group.lower() == ("x25519mlkem768" if OPENSSL >= (3, 5) else "x25519")


@pytest.mark.parametrize("group", ["X448", "ffdhe2048", "ffdhe8192"])
def test_a_server_does_not_agree_to_groups_that_cost_it_much(group):
    client, server = Engine(client_context(TLS_1_3, groups=group)), Engine(server_context(TLS_1_3))
    with pytest.raises(TlsError, match="no suitable key share"):
        server.decrypt(client.start())
    named = server_context(TLS_1_3, groups=group)
    assert engines(TLS_1_3, client=client_context(TLS_1_3, groups=group), server=named)[1].group.lower() == group.lower()


def test_a_server_verifies_a_client_certificate_on_any_of_its_curves(version):
    own = identity("p521")
    client = client_context(version, certificate=own.certificate, private_key=own.key)
    server = server_context(version, verify_mode=VERIFY_PEER, ca_certificates=[own.authority])
    _, engine = engines(version, client=client, server=server)
    assert engine.handshake_done


def test_no_common_cipher_fails_on_both_sides(version):
    one = {"ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256", "ciphersuites": "TLS_AES_128_GCM_SHA256"}
    other = {"ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384", "ciphersuites": "TLS_AES_256_GCM_SHA384"}
    client = Engine(client_context(version, **one))
    server = Engine(server_context(version, **other))
    with pytest.raises(TlsError, match=r"no shared cipher|no suitable"):
        server.decrypt(client.start())
    with pytest.raises(TlsError) as caught:
        client.decrypt(server.take())
    assert caught.value.alert == "handshake failure"


# protocol bounds


def test_the_default_is_tls_1_3():
    client, server = engines()
    assert client.protocol == server.protocol == TLS_1_3


def test_the_maximum_is_kept():
    client, _ = engines(client=client_context(maximum_protocol=TLS_1_2))
    assert client.protocol == TLS_1_2


def test_crossed_bounds_are_refused():
    with pytest.raises(ConfigurationError, match=r"TLS 1\.3 is newer than maximum_protocol TLS 1\.2"):
        client_context(minimum_protocol=TLS_1_3, maximum_protocol=TLS_1_2)


@pytest.mark.parametrize("version", [0x0305, 1, -1, 0xFEFD])
def test_an_unknown_version_is_refused(version):
    with pytest.raises(ConfigurationError, match="unknown protocol version"):
        client_context(minimum_protocol=version)
    with pytest.raises(ConfigurationError, match="unknown protocol version"):
        client_context(maximum_protocol=version)


def test_a_minimum_of_nothing_is_refused():
    """To OpenSSL it would mean: all that it has."""
    with pytest.raises(ConfigurationError, match="unknown protocol version"):
        client_context(minimum_protocol=0)


@pytest.mark.parametrize("version", [0x0300, 0x0301, 0x0302, 0x0303, 0x0304])
def test_what_is_supported_can_shake_hands_and_the_rest_says_that_it_is_not_there(version):
    """Two engines have the last word: OpenSSL takes bounds also for versions that it was built without."""
    try:
        contexts = server_context(version, "rsa"), client_context(version, "rsa")
    except ConfigurationError as error:
        assert not protocol_supported(version)
        assert "was built or configured without" in str(error)
        return
    assert protocol_supported(version)
    client, _ = engines(client=contexts[1], server=contexts[0])
    assert client.protocol == version


def test_what_is_supported_is_what_the_ssl_module_says_of_the_same_openssl():
    if openssl_version() != ssl.OPENSSL_VERSION:
        return  # the interpreter's is another one
    told = {0x0300: ssl.HAS_SSLv3, 0x0301: ssl.HAS_TLSv1, 0x0302: ssl.HAS_TLSv1_1, 0x0303: ssl.HAS_TLSv1_2}
    assert {version: protocol_supported(version) for version in told} == told


def test_a_version_that_nobody_knows_is_not_supported():
    assert not protocol_supported(0x0305) and not protocol_supported(0x0002)


def test_an_old_version_needs_to_be_asked_for():
    """A server that would speak TLS 1.1 meets a client with the defaults."""
    if protocol_supported(0x0302):
        old = server_context(minimum_protocol=0x0302, maximum_protocol=0x0302)
        with pytest.raises(TlsError):
            shake(Engine(client_context()), Engine(old))


# the rest


@pytest.mark.parametrize("name", ["text", b"", b"x" * 256, 7])
def test_a_bad_alpn_name_is_refused(name):
    with pytest.raises(ConfigurationError, match="ALPN"):
        client_context(next_protocols=[name])


def test_an_alpn_list_that_is_too_long_is_refused():
    with pytest.raises(ConfigurationError, match="ALPN"):
        client_context(next_protocols=[b"x" * 255] * 300)


@pytest.mark.parametrize("mode", [-1, 3, 100])
def test_an_unknown_verify_mode_is_refused(mode):
    with pytest.raises(ConfigurationError, match="verification mode"):
        client_context(verify_mode=mode)


def test_a_refused_context_leaves_no_error_behind():
    for _ in range(3):
        with pytest.raises(ConfigurationError):
            client_context(ciphers="NO-SUCH-THING")
    engines()


def test_the_certificate_chain_is_sent():
    own = identity()
    server = server_context(certificate_chain=[own.authority])
    client, _ = engines(client=client_context(verify_mode=VERIFY_NONE), server=server)
    assert client.peer_certificate_chain() == [own.certificate, own.authority]


def test_engines_keep_their_context_alive(version):
    client, server = Engine(client_context(version)), Engine(server_context(version, next_protocols=[b"h2"]))
    shake(client, server)
    assert server.decrypt(client.encrypt(b"x")) == b"x"


# trust settings of OpenSSL's own: openssl-x509(1), "Trust Settings"


@pytest.mark.parametrize(
    ("options", "side", "trusted"),
    [
        ((), "client", True),
        (("-addtrust", "serverAuth"), "client", True),
        (("-addtrust", "clientAuth"), "client", False),
        (("-addreject", "serverAuth"), "client", False),
        (("-addreject", "clientAuth"), "client", True),
        (("-addtrust", "clientAuth"), "server", True),
        (("-addtrust", "serverAuth"), "server", False),
        (("-addreject", "clientAuth"), "server", False),
    ],
)
def test_an_authority_is_trusted_for_what_its_settings_say(options, side, trusted):
    own = identity()
    made = subprocess.run(
        ["openssl", "x509", "-trustout", *options], input=own.authority.to_pem(), check=True, capture_output=True
    )
    authority = SslCertificate(made.stdout)
    pair = {"certificate": own.certificate, "private_key": own.key}
    client = Engine(client_context(ca_certificates=[authority if side == "client" else own.authority], **pair))
    verify_mode = VERIFY_PEER if side == "server" else VERIFY_NONE
    server = Engine(server_context(ca_certificates=[authority], verify_mode=verify_mode))
    if trusted:
        shake(client, server)
    else:
        with pytest.raises(TlsError, match="certificate"):
            shake(client, server)
