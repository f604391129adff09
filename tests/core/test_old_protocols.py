"""Protocols before TLS 1.2, for whoever asks for them: they work, and weaken nothing but themselves."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from sslsock.core.certificate import SslCertificate
from sslsock.core.client_hello import parse_client_hello
from sslsock.core.context import VERIFY_NONE, VERIFY_QUERY, Context, protocol_supported
from sslsock.core.engine import Engine, TlsError
from sslsock.core.key import SslKey

from .pairs import TLS_1_2, TLS_1_3, client_context, server_context, shake

TLS_1_0, TLS_1_1 = 0x0301, 0x0302
OLD = [pytest.param(version, id=name) for version, name in ((TLS_1_0, "tls1.0"), (TLS_1_1, "tls1.1"))]
SHA256_WITH_RSA, SHA1_WITH_RSA = (bytes.fromhex("06092a864886f70d0101") + end for end in (b"\x0b", b"\x05"))  # RFC 8017, A.2.4
ALL = [*OLD, pytest.param(TLS_1_2, id="tls1.2"), pytest.param(TLS_1_3, id="tls1.3")]


@pytest.fixture(autouse=True)
def supported():
    if not protocol_supported(TLS_1_0):
        pytest.skip("this OpenSSL was built without old protocols")


def signed(builder, key, with_sha1):
    """The certificate as DER. With SHA-1 `cryptography` signs none: it is made from one with SHA-256."""
    certificate = builder.sign(key, hashes.SHA256())
    whole, body = certificate.public_bytes(serialization.Encoding.DER), certificate.tbs_certificate_bytes
    if not with_sha1:
        return whole
    changed = body.replace(SHA256_WITH_RSA, SHA1_WITH_RSA)
    signature = key.sign(changed, padding.PKCS1v15(), hashes.SHA1())
    head, tail = whole.split(body)
    return head + changed + tail.replace(SHA256_WITH_RSA, SHA1_WITH_RSA)[: -len(signature)] + signature


def chain_of(key_size=2048, sha1=()):
    """A root, and a server's certificate, chain and key below it. sha1: who is signed with it."""
    issuer, issuer_key, made = None, None, []
    now = datetime.datetime.now(datetime.timezone.utc)
    for name in ("root", "middle", "localhost"):
        key = rsa.generate_private_key(65537, key_size if name == "localhost" else 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder(issuer or subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name != "localhost", path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        )
        made.append(SslCertificate(signed(builder, issuer_key or key, name in sha1), SslCertificate.DER))
        issuer, issuer_key = subject, key
    root, middle, leaf = made
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return root, middle, leaf, SslKey(secret)


CHAINS = {
    "strong": {},
    "RSA with 1024 bits": {"key_size": 1024},
    "signed with SHA-1": {"sha1": ["localhost"]},
    "an authority signed with SHA-1": {"sha1": ["middle"]},
}


@pytest.fixture(scope="module")
def chains():
    return {name: chain_of(**weakness) for name, weakness in CHAINS.items()}


def engines_with(chain, version=0, **settings):
    """A client that trusts the root of the chain, with these settings, and a server that shows the chain, however weak."""
    root, middle, leaf, key = chain
    common = {"use_system_ca": False, "maximum_protocol": version}
    server = Context(
        server_side=True,
        certificate=leaf,
        certificate_chain=[middle],
        private_key=key,
        verify_mode=VERIFY_NONE,
        minimum_protocol=TLS_1_0,
        ciphers="DEFAULT:@SECLEVEL=0",
        **common,
    )
    client = Context(server_side=False, ca_certificates=[root], **common, **settings)
    return Engine(client, verify_name="localhost"), Engine(server)


def verdict(chain, version, minimum):
    """What a client with that minimum says of the chain at that version: "" or the words of its refusal."""
    client, server = engines_with(chain, version, minimum_protocol=minimum)
    try:
        shake(client, server)
    except TlsError as error:
        return str(error)
    assert client.protocol == version
    assert server.decrypt(client.encrypt(b"question")) == b"question"
    return ""


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
@pytest.mark.parametrize("version", ALL)
def test_every_version_works_beside_old_ones(version, kind):
    client = Engine(client_context(kind=kind, minimum_protocol=TLS_1_0), verify_name="localhost")
    server = Engine(server_context(kind=kind, minimum_protocol=TLS_1_0, maximum_protocol=version))
    shake(client, server)
    assert client.protocol == server.protocol == version
    assert server.decrypt(client.encrypt(b"question")) == b"question"


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_judged_as_without_old_protocols(chains, version, name):
    newest = verdict(chains[name], TLS_1_3, TLS_1_2)
    assert verdict(chains[name], version, TLS_1_0) == newest
    if "SHA-1" in name:
        assert "too weak" in newest
    elif name == "strong":
        assert newest == ""


def test_newer_protocols_are_offered_the_same():
    """A client that takes old ones too must not take old signatures in new ones."""
    offers = []
    for minimum in (TLS_1_0, TLS_1_2):
        settings = client_context(minimum_protocol=minimum, ciphers="DEFAULT")
        offers.append(parse_client_hello(Engine(settings).start()))
    old, new = offers
    assert old.signature_algorithms == new.signature_algorithms
    assert set(old.cipher_suites) >= set(new.cipher_suites)
    assert old.groups == new.groups


@pytest.mark.parametrize("version", OLD)
def test_an_old_version_is_not_spoken_unasked(version):
    client = Engine(client_context())
    with pytest.raises(TlsError):
        shake(client, Engine(server_context(minimum_protocol=version, maximum_protocol=version)))


def test_a_client_that_only_looks_sees_what_is_weak(chains):
    client, server = engines_with(chains["signed with SHA-1"], verify_mode=VERIFY_QUERY, minimum_protocol=TLS_1_0)
    shake(client, server)
    assert any("too weak" in text for _, _, text, _ in client.verify_errors)
