"""A certificate and its key tried against a context, which stays as it was."""

import pytest

from sslsock.core.certificate import SslCertificate
from sslsock.core.context import ConfigurationError
from sslsock.core.identity_check import check_identity
from sslsock.core.key import SslKey

from .pairs import client_context, engines, identity, server_context


@pytest.mark.parametrize("context", [client_context, server_context])
@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_what_fits_is_taken(context, kind):
    own = identity(kind)
    for _ in range(2):
        check_identity(context(), own.certificate, [own.authority], own.key)


@pytest.mark.parametrize(
    ("certificate", "chain", "key", "reason"),
    [
        ("rsa", None, "ecdsa", "the private key does not fit the certificate"),
        ("ecdsa", None, None, "a certificate was given without its private key"),
        (None, None, "ecdsa", "a private key was given without its certificate"),
        ("null", None, "ecdsa", "the certificate did not load"),
        ("ecdsa", None, "null", "the private key did not load"),
        ("ecdsa", "null", "ecdsa", "a certificate of the chain did not load"),
    ],
)
def test_what_does_not_fit_is_refused_as_a_context_refuses_it(certificate, chain, key, reason):
    def chosen(kind, null, name):
        return null if kind == "null" else getattr(identity(kind), name) if kind else None

    given = (
        chosen(certificate, SslCertificate(), "certificate"),
        [SslCertificate()] if chain else [],
        chosen(key, SslKey(), "key"),
    )
    context = server_context()
    with pytest.raises(ConfigurationError, match=f"^{reason}"):
        check_identity(context, *given)
    with pytest.raises(ConfigurationError, match=f"^{reason}"):
        server_context(certificate=None, private_key=None, certificates=[given])
    check_identity(context, identity().certificate, [], identity().key)


def test_the_context_decides_how_strong_it_has_to_be():
    own = identity("rsa")
    check_identity(server_context(ciphers="DEFAULT:@SECLEVEL=2"), own.certificate, [], own.key)
    with pytest.raises(ConfigurationError, match=r"^the certificate is refused: .*too small"):
        check_identity(server_context(ciphers="DEFAULT:@SECLEVEL=5"), own.certificate, [], own.key)


def test_the_context_stays_as_it_was():
    server = server_context()
    check_identity(server, identity(by="second").certificate, [], identity(by="second").key)
    near, _ = engines(client=client_context(), server=server)
    assert near.peer_certificate_chain()[0] == identity().certificate


@pytest.mark.parametrize("wrong", [(None,) * 4, (1, 2, 3, 4)])
def test_other_things_are_no_context(wrong):
    with pytest.raises(TypeError):
        check_identity(*wrong)
