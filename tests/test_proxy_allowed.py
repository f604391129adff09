"""Which client certificates a list of names lets in."""

from __future__ import annotations

from typing import Optional

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from self_signed import EC_KEY, RSA_KEY, certificate, key_pem, make
from sslsock import Context, Engine, SslCertificate, SslKey, TlsError
from sslsock.core.context import VERIFY_NONE, VERIFY_PEER
from sslsock.proxy.settings.allowed import NameList


def match(glob: str, *names: str, cn: Optional[str] = None) -> Optional[str]:
    return NameList([glob]).match(certificate(*names, cn=cn))


@pytest.mark.parametrize(
    ("glob", "name", "fits"),
    [
        # DNS
        ("web.example.org", "web.example.org", True),
        ("WEB.example.org", "web.Example.ORG", True),
        ("web.example.org.", "web.example.org", True),
        ("web.example.org", "web.example.org.", True),
        ("web.example.org", "xweb.example.org", False),
        ("web.example.org", "web.example.org.evil.test", False),
        ("web.example.org", "webxexample.org", False),
        ("*.example.org", "web.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", ".example.org", False),
        ("*.example.org", "a.b.example.org", False),
        ("*.example.org", "a\\x00.example.org", False),
        ("*.example.org", "*.example.org", False),
        ("*.*.example.org", "a.b.example.org", True),
        ("web*.example.org", "web.example.org", True),
        ("web*.example.org", "web12.example.org", True),
        ("web*.example.org", "web.1.example.org", False),
        ("*-db.example.org", "eu-db.example.org", True),
        ("a*b*c.test", "abc.test", True),
        ("a*b*c.test", "axxbyyc.test", True),
        ("a*b*c.test", "axxyyc.test", False),
        ("*", "localhost", True),
        ("*", "web.example.org", False),
        ("**", "web.example.org", True),
        ("**.example.org", "a.b.example.org", True),
        ("**.example.org", "example.org", False),
        ("[ab].test", "a.test", False),
        ("web?.test", "web1.test", False),
        ("web.example.org", "email:web.example.org", False),
        # e-mail
        ("ann@example.org", "email:ann@example.org", True),
        ("ann@example.org", "email:ann@EXAMPLE.org", True),
        ("ann@example.org", "email:Ann@example.org", False),
        ("*@example.org", "email:ann.b+c@example.org", True),
        ("*@example.org", "email:@example.org", False),
        ("*@example.org", "email:ann@sub.example.org", False),
        ("*@*.example.org", "email:ann@sub.example.org", True),
        ("*@example.org", "email:ann@evil.test@example.org", False),
        ("*@example.org", "ann@example.org", False),
        # URI
        ("spiffe://example.org/ns/prod/sa/web", "URI:spiffe://example.org/ns/prod/sa/web", True),
        ("spiffe://example.org/ns/*/sa/web", "URI:spiffe://example.org/ns/prod/sa/web", True),
        ("SPIFFE://Example.org/ns/*/sa/web", "URI:spiffe://example.ORG/ns/prod/sa/web", True),
        ("spiffe://example.org/ns/*/sa/web", "URI:spiffe://example.org/NS/prod/sa/web", False),
        ("spiffe://example.org/ns/*/sa/web", "URI:spiffe://example.org/ns/a/b/sa/web", False),
        ("spiffe://example.org/ns/*/sa/web", "URI:spiffe://example.org/ns//sa/web", False),
        ("spiffe://example.org/*", "URI:spiffe://example.org/web", True),
        ("spiffe://example.org/*", "URI:spiffe://example.org/web/more", False),
        ("spiffe://example.org/**", "URI:spiffe://example.org/web/more", True),
        ("spiffe://example.org/**", "URI:spiffe://example.org.evil.test/web", False),
        ("spiffe://*/web", "URI:spiffe://localhost/web", True),
        ("spiffe://*/web", "URI:spiffe://example.org/web", False),
        ("spiffe://*.example.org/web", "URI:spiffe://a.example.org/web", True),
        ("spiffe://*.example.org/web", "URI:spiffe://evil.test/a.example.org/web", False),
        ("spiffe://*.example.org/web", "URI:spiffe://x@a.example.org/web", False),
        ("spiffe://example.org/web", "URI:spiffe://example.org/web?more", False),
        ("spiffe://example.org/w*", "URI:spiffe://example.org/web#part", False),
        ("urn:uuid:*", "URI:urn:uuid:7f0e", True),
        ("urn:uuid:*", "URI:urn:oid:7f0e", False),
        ("spiffe://example.org/web", "spiffe.example.org", False),
        # IP
        ("10.0.0.7", "IP:10.0.0.7", True),
        ("10.0.0.7", "IP:10.0.0.8", False),
        ("10.0.0.0/24", "IP:10.0.0.8", True),
        ("10.0.0.0/24", "IP:10.0.1.8", False),
        ("FD00:0::7", "IP:fd00::7", True),
        ("fd00::/8", "IP:fd12::7", True),
        ("fd00::/8", "IP:fe00::7", False),
        ("0.0.0.0/0", "IP:::1", False),
        ("10.0.0.7", "10.0.0.7", False),
        ("**", "IP:10.0.0.7", False),
    ],
)
def test_what_an_entry_lets_in(glob: str, name: str, fits: bool) -> None:
    found = match(glob, name)
    if fits:
        assert found == (name if name.partition(":")[0] in ("email", "URI", "IP") else f"DNS:{name}")
    else:
        assert found is None


def test_the_name_that_fits_is_told_whatever_stands_before_it() -> None:
    allowed = NameList(["nobody.test", "*.example.org", "ann@example.org"])
    assert allowed.match(certificate("other.test", "email:ann@example.org", "web.example.org")) == "email:ann@example.org"
    assert allowed.match(certificate("other.test", "web.example.org")) == "DNS:web.example.org"
    assert allowed.match(certificate("other.test")) is None


@pytest.mark.parametrize(
    ("glob", "name", "fits"),
    [
        ("client", "client", True),
        ("Client", "cLIENT", True),
        ("Ann Example", "Ann Example", True),
        ("Ann *", "Ann Example", True),
        ("*.example.org", "web.example.org", True),
        ("*.example.org", "a.b.example.org", False),
        ("ann@example.org", "ann@example.org", True),
        ("spiffe://example.org/*", "spiffe://example.org/web", True),
        ("10.0.0.0/24", "10.0.0.7", True),
        ("kevin", "\u212aevin", False),  # the Kelvin sign, whose lower case is k
        ("client", "clients", False),
        ("client", "client\n", False),
    ],
)
def test_a_certificate_without_alternative_names_has_its_common_name(glob: str, name: str, fits: bool) -> None:
    assert match(glob, cn=name) == (f"CN:{name}" if fits else None)


@pytest.mark.parametrize("name", ["other.test", "email:a@b.test", "IP:10.0.0.1", "URI:urn:x"])
def test_with_any_alternative_name_the_common_name_does_not_count(name: str) -> None:
    assert match("client", name, cn="client") is None


def test_a_certificate_without_names_or_no_certificate_is_not_let_in() -> None:
    assert match("**") is None
    assert NameList(["**"]).match(SslCertificate()) is None


@pytest.mark.parametrize("spoilt", [b"\x04\x01x", b"\x30\x03\x82\x05a", b"\x30\x03\xa9\x01a"])
def test_a_client_whose_alternative_names_do_not_parse_is_not_verified(spoilt: bytes) -> None:
    """It would have its common name otherwise."""
    authority = SslCertificate(make([], ["authority"], RSA_KEY, extension=x509.BasicConstraints(True, None)))
    names = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, spoilt)
    client = SslCertificate(make([], ["client"], issuer=("authority", RSA_KEY), extension=names))
    good = SslCertificate(make(["client"], ["client"], issuer=("authority", RSA_KEY)))
    assert shake(authority, good) is None
    assert "verify failed" in str(shake(authority, client))


def shake(authority: SslCertificate, client: SslCertificate) -> Optional[TlsError]:
    """Shake hands with a server that demands a certificate of the authority; what the server has against it."""
    a = Engine(
        Context(server_side=False, certificate=client, private_key=SslKey(key_pem(EC_KEY)), verify_mode=VERIFY_NONE),
        server_name=None,
        verify_name=None,
    )
    b = Engine(
        Context(
            server_side=True,
            certificate=authority,
            private_key=SslKey(key_pem(RSA_KEY)),
            verify_mode=VERIFY_PEER,
            ca_certificates=[authority],
            use_system_ca=False,
        )
    )
    try:
        b.decrypt(a.start())
        while not (a.handshake_done and b.handshake_done):
            a.decrypt(b.take())
            b.decrypt(a.take())
    except TlsError as exc:
        return exc
    return None


def test_an_empty_list_lets_in_nobody() -> None:
    assert NameList([]).match(certificate("web.example.org", cn="web")) is None


@pytest.mark.parametrize(
    ("glob", "reason"),
    [
        ("", "empty"),
        ("10.0.0.*", "10.0.0.0/24"),
        ("10.0.0.256", "looks like an address"),
        ("10.0.0.7/24", "host bits"),
        ("10.0.0.0/33", "looks like an address"),
        ("fd00::*", "looks like an address"),
        ("fd00::/129", "looks like an address"),
    ],
)
def test_an_entry_that_can_fit_nothing_is_refused(glob: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        NameList(["good.test", glob])


def test_a_glob_of_many_stars_takes_no_long_time() -> None:
    allowed = NameList(["*a*a*a*b.test", "urn:**a**a**b"])
    long = certificate("a" * 100000, "URI:urn:" + "a" * 100000)
    assert allowed.match(long) is None  # going back at each star would not end within the limit of a test
