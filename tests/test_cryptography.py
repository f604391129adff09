"""Certificates, keys and revocation lists of the package `cryptography`, and whole identities from memory."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519

from judged import issue, revoke
from peers import make_ssl_pair, silence
from sslsock import KeyAlgorithm, KeyType, SslCertificate, SslConfiguration, SslCrl, SslEncoding, SslKey

DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM
PKCS8, PLAIN = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
ROOT = issue("root", ca=True)
MIDDLE = issue("middle", ROOT, ca=True)
OWN = issue("localhost", MIDDLE)
OTHER = issue("localhost", MIDDLE)
LIST = x509.load_pem_x509_crl(revoke(ROOT))
KEYS = {
    KeyAlgorithm.RSA: rsa.generate_private_key(65537, 2048),
    KeyAlgorithm.EC: ec.generate_private_key(ec.SECP256R1()),
    KeyAlgorithm.ED25519: ed25519.Ed25519PrivateKey.generate(),
    KeyAlgorithm.ED448: ed448.Ed448PrivateKey.generate(),
    None: x25519.X25519PrivateKey.generate(),
}


def secret(key, encoding=PEM, passphrase=None):
    secrecy = serialization.BestAvailableEncryption(passphrase) if passphrase else PLAIN
    return key.private_bytes(encoding, PKCS8, secrecy)


# One by one


def test_a_certificate_is_taken():
    ours = SslCertificate(OWN.certificate)
    assert not ours.null
    assert ours == OWN.ours
    assert ours.to_der() == OWN.certificate.public_bytes(DER)
    for format in SslEncoding:
        assert SslCertificate(OWN.certificate, format) == ours


def test_a_revocation_list_is_taken():
    ours = SslCrl(LIST)
    assert not ours.null
    assert ours.to_der() == LIST.public_bytes(DER)


@pytest.mark.parametrize("algorithm", KEYS, ids=str)
def test_both_halves_of_a_key_are_taken(algorithm):
    theirs = KEYS[algorithm]
    private = SslKey(theirs)
    assert (private.null, private.type, private.algorithm) == (False, KeyType.PRIVATE, algorithm)
    assert private == SslKey(secret(theirs))
    public = SslKey(theirs.public_key(), type=KeyType.PUBLIC)
    assert (public.null, public.type, public.algorithm) == (False, KeyType.PUBLIC, algorithm)
    assert SslKey(theirs, type=KeyType.PUBLIC) == public
    assert secret(theirs) == secret(theirs)  # it is as it was


def test_a_key_of_another_kind_is_refused():
    key = SslKey(KEYS[KeyAlgorithm.RSA], KeyAlgorithm.EC)
    assert key.null
    assert "RSA" in key.error_string
    key = SslKey(KEYS[KeyAlgorithm.RSA].public_key())
    assert key.null
    assert "public key, not a private key" in key.error_string


def test_what_is_something_else_is_refused():
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(OWN.key, hashes.SHA256())
    assert "a certificate request" in SslCertificate(request).error_string
    assert "a certificate request" in SslCrl(request).error_string
    assert "revocation list" in SslCertificate(LIST).error_string
    for make, wrong in (
        *((kind, thing) for kind in (SslCertificate, SslCrl) for thing in (OWN.key, OWN.key.public_key(), x509, object())),
        *((SslKey, thing) for thing in (OWN.certificate, LIST, object())),
    ):
        with pytest.raises(TypeError):
            make(wrong)


class Duck:
    """Has the methods and is of no package; gives the same object each time."""

    def __init__(self, thing):
        self.thing = thing
        self.given = []

    def public_bytes(self, encoding):
        assert encoding is DER
        return self.thing.public_bytes(encoding)


class DuckKey:
    def __init__(self, answer):
        self.answer = answer

    def private_bytes(self, encoding, format, encryption_algorithm):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_what_has_the_methods_is_as_good():
    assert SslCertificate(Duck(OWN.certificate)) == OWN.ours
    der = secret(OWN.key, DER)
    kept = bytes(bytearray(der))
    assert SslKey(DuckKey(der)) == OWN.our_key
    assert der == kept  # what is wiped was a copy


@pytest.mark.parametrize("answer", [None, 1, "text", [b"x"], KeyError("no")], ids=repr)
def test_methods_that_do_not_do_what_they_should(answer):
    with pytest.raises(KeyError if isinstance(answer, KeyError) else TypeError):
        SslKey(DuckKey(answer))
    assert SslKey(DuckKey(b"")).null
    assert SslKey(DuckKey(b"x")).null


def test_the_package_is_not_imported():
    code = "import sslsock; sslsock.SslKey(b''), sslsock.SslCertificate(b''), sslsock.SslSocket(); import sys; "
    code += "print([name for name in sys.modules if name.startswith('cryptography')])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


# In a configuration


def test_a_configuration_takes_them():
    theirs, ours = SslConfiguration(), SslConfiguration()
    theirs.local_certificate = OWN.certificate
    theirs.local_certificate_chain = [OWN.certificate, MIDDLE.certificate]
    theirs.private_key = OWN.key
    theirs.ca_certificates = [ROOT.certificate]
    theirs.add_ca_certificate(MIDDLE.certificate)
    theirs.crls = [LIST]
    theirs.add_crl(LIST)
    ours.local_certificate = OWN.ours
    ours.local_certificate_chain = [OWN.ours, MIDDLE.ours]
    ours.private_key = OWN.our_key
    ours.ca_certificates = [ROOT.ours, MIDDLE.ours]
    ours.crls = [SslCrl(LIST.public_bytes(PEM))] * 2
    assert theirs == ours
    assert isinstance(theirs.private_key, SslKey)
    assert copy.copy(theirs) == ours


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("local_certificate", OWN.key),
        ("local_certificate_chain", OWN.certificate),
        ("local_certificate_chain", [OWN.key]),
        ("private_key", OWN.certificate),
        ("private_key", OWN.key.public_key()),
        ("ca_certificates", ROOT.certificate),
        ("crls", LIST),
        ("crls", [OWN.key]),
    ],
)
def test_a_configuration_refuses_others(name, wrong):
    configuration = SslConfiguration()
    with pytest.raises(TypeError):
        setattr(configuration, name, wrong)
    assert configuration == SslConfiguration()


def test_certificates_are_checked_without_a_connection():
    trusting = SslConfiguration()
    trusting.use_system_ca = False
    trusting.add_ca_certificate(ROOT.certificate)
    assert SslCertificate.verify([OWN.certificate, MIDDLE.certificate], "localhost", trusting) == []
    assert SslCertificate.verify([OWN.certificate], "localhost", trusting)


# A whole identity

TEXT = OWN.pem + MIDDLE.pem
GIVEN = {
    "text": (TEXT.decode(), secret(OWN.key).decode()),
    "PEM": (TEXT, secret(OWN.key)),
    "PEM, with the key in it": (secret(OWN.key) + TEXT, None),
    "DER": (bytearray(OWN.certificate.public_bytes(DER) + MIDDLE.certificate.public_bytes(DER)), secret(OWN.key, DER)),
    "a buffer": (memoryview(TEXT), memoryview(secret(OWN.key, DER))),
    "objects of ours": ([OWN.ours, MIDDLE.ours], OWN.our_key),
    "objects of cryptography": ((OWN.certificate, MIDDLE.certificate), OWN.key),
    "both": (iter([OWN.certificate, MIDDLE.ours]), secret(OWN.key)),
}


@pytest.mark.parametrize("given", GIVEN)
def test_an_identity_is_set(given):
    chain, key = GIVEN[given]
    configuration = SslConfiguration()
    configuration.set_identity(iter([OWN.certificate, MIDDLE.ours]) if given == "both" else chain, key)
    assert configuration.local_certificate == OWN.ours
    assert configuration.local_certificate_chain == [MIDDLE.ours]
    assert configuration.private_key == OWN.our_key


@pytest.mark.parametrize("one", [OWN.certificate, OWN.ours, OWN.pem], ids=["theirs", "ours", "PEM"])
def test_an_identity_without_a_chain(one):
    configuration = SslConfiguration()
    configuration.set_identity(one, OWN.key)
    assert configuration.local_certificate == OWN.ours
    assert configuration.local_certificate_chain == []


@pytest.mark.parametrize("encoding", [PEM, DER], ids=["PEM", "DER"])
def test_an_encrypted_key(encoding):
    sealed = secret(OWN.key, encoding, b"open sesame")
    configuration = SslConfiguration()
    configuration.set_identity(TEXT, sealed, "open sesame")
    assert configuration.private_key == OWN.our_key
    for passphrase, words in ((None, "no passphrase"), (b"wrong", "passphrase is wrong")):
        with pytest.raises(ValueError, match=words):
            configuration.set_identity(TEXT, sealed, passphrase)


REFUSED = {
    "nothing": (b"", b"", ValueError, "no certificate"),
    "no certificate": (secret(OWN.key), None, ValueError, "no certificate"),
    "a damaged certificate": (TEXT[:-40], OWN.key, ValueError, "block 2"),
    "no key": (TEXT, None, ValueError, "private key"),
    "a path": ("server.pem", "server.key", ValueError, "path"),
    "the key of another": (TEXT, OTHER.key, ValueError, "does not fit"),
    "the wrong order": (MIDDLE.pem + OWN.pem, OWN.key, ValueError, "does not fit"),
    "a null certificate": (SslCertificate(), OWN.key, ValueError, "did not load"),
    "a null key": (TEXT, SslKey(), ValueError, "did not load"),
    "an empty list": ([], OWN.key, ValueError, "no certificate"),
    "a public key": (TEXT, OWN.key.public_key(), TypeError, "private_key"),
    "a number": (1, OWN.key, TypeError, "int"),
    "a list of text": ([TEXT], OWN.key, TypeError, "member of chain"),
    "a key that is a list": (TEXT, [OWN.key], TypeError, "private_key"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_identity_that_cannot_be_changes_nothing(case):
    chain, key, error, words = REFUSED[case]
    configuration = SslConfiguration()
    configuration.set_identity(TEXT, OWN.key)
    before = copy.copy(configuration)
    with pytest.raises(error, match=words) as raised:
        configuration.set_identity(chain, key)
    assert configuration == before
    assert "PRIVATE KEY" not in str(raised.value)


def test_connections_with_what_cryptography_has_made(host):
    server, client = SslConfiguration(), SslConfiguration()
    server.set_identity([OWN.certificate, MIDDLE.certificate], OWN.key)
    client.use_system_ca = False
    client.add_ca_certificate(ROOT.certificate)
    pair = make_ssl_pair(host, client, server)
    assert pair.client.peer_certificate_chain == [OWN.ours, MIDDLE.ours]
    silence(pair)
    pair.client.abort()
    pair.server.abort()
