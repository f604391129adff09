"""`getpeercert()` of `sslsock._ssl` shows what the interpreter's does, for certificates of all sorts: of CPython's own suite,
of trustme, of the system, and such as nobody would sign.
"""

import _ssl
import contextlib
import copy
import operator
import pickle
import ssl
import sysconfig
from pathlib import Path

import pytest
import trustme
import x509_der as made
from x509_der import (
    IA5,
    alternative_names,
    attribute,
    certificate,
    common_name,
    constructed,
    der,
    extension,
    general,
    name,
    oid,
)

from sslsock import _ssl as ours

DNS, EMAIL, DIRECTORY, URI, ADDRESS, REGISTERED = 2, 1, 4, 6, 7, 8


def outcome(module, path):
    """The dictionary, in its order, or the exception without the place in the source."""
    try:
        return list(module._test_decode_cert(path).items())
    except UnicodeDecodeError as error:
        return type(error), str(error)
    except _ssl.SSLError as error:
        # The interpreter tells what is last in the error queue, which may be of an earlier call.
        return type(error), None if hasattr(error, "library") else error.args


def assert_the_same(path):
    wanted, got = outcome(_ssl, path), outcome(ours, path)
    assert got == wanted, f"{path.name}: ours {got}, the interpreter's {wanted}"
    return got


def suite_certificates():
    """The PEM files of CPython's own tests, where the interpreter has them."""
    return sorted((Path(sysconfig.get_path("stdlib")) / "test").glob("**/*.pem"))


def test_certificates_of_cpythons_own_suite():
    for path in suite_certificates():
        assert_the_same(path)


def test_authorities_that_the_system_trusts(tmp_path):
    path = tmp_path / "one.pem"
    context = ssl.create_default_context()
    for encoded in context.get_ca_certs(binary_form=True):
        path.write_text(ssl.DER_cert_to_PEM_cert(encoded))
        assert isinstance(assert_the_same(path), list)


def test_certificates_of_trustme(tmp_path):
    authority = trustme.CA(organization_name="Zwölf Boxkämpfer", organization_unit_name="日本")
    issued = authority.issue_cert("example.com", "*.example.org", "127.0.0.1", "2001:db8::1", "me@example.com", common_name="é")
    for number, blob in enumerate([authority.cert_pem, *issued.cert_chain_pems]):
        path = tmp_path / f"{number}.pem"
        blob.write_to_path(path)
        parts = dict(assert_the_same(path))
    assert parts["subjectAltName"] == (
        ("DNS", "example.com"),
        ("DNS", "*.example.org"),
        ("IP Address", "127.0.0.1"),
        ("IP Address", "2001:DB8:0:0:0:0:0:1"),
        ("email", "me@example.com"),
    )
    assert list(parts)[:6] == ["subject", "issuer", "version", "serialNumber", "notBefore", "notAfter"]


def crl_points(*points):
    return extension(made.CRL_POINTS, made.sequence(*(made.sequence(*point) for point in points)))


def full_name(*names):
    return constructed(0, constructed(0, *names))


SEVERAL_SETS = name(
    [attribute("2.5.4.6", b"DE", made.PRINTABLE)],
    [attribute("2.5.4.10", "Bürger".encode()), attribute("2.5.4.11", b"one")],
    [attribute("2.5.4.11", b"two")],
    [attribute("1.2.3.4.5.6", b"no name for this")],
    [
        attribute("2.5.4.3", "ünï".encode("utf-16-be"), made.BMP),
        attribute("2.5.4.3", "x\U0001f600".encode("utf-32-be"), made.UNIVERSAL),
    ],
    [attribute("2.5.4.3", "é".encode("latin-1"), made.T61)],
)

CERTIFICATES = {
    "plain": certificate(),
    "version 1": certificate(version=0),
    "version 2": certificate(version=1),
    "names with several sets": certificate(subject=SEVERAL_SETS, issuer=SEVERAL_SETS),
    "no subject": certificate(subject=name()),
    "an empty attribute": certificate(subject=common_name(b"")),
    "NUL in the name": certificate(subject=common_name(b"good.com\0.evil.com")),
    "line ends in the name": certificate(subject=common_name(b"good.com\r\nX: y")),
    "a name that is no UTF-8": certificate(subject=common_name(b"\xff\xfe")),
    "a name of odd BMP": certificate(subject=common_name(b"abc", made.BMP)),
    "a name of another type": certificate(subject=common_name(b"\1\2", 4)),
    "half a surrogate pair": certificate(subject=common_name(b"\xd8\x00", made.BMP)),
    "a long number for an attribute": certificate(subject=name([attribute("1.3." + ".".join(["4294967295"] * 60), b"x")])),
    "serial 0": certificate(serial=b"\0"),
    "a serial with leading 0": certificate(serial=b"\0\x80"),
    "a negative serial": certificate(serial=b"\xfe\xdc"),
    "a serial of 20 bytes": certificate(serial=b"\x7f" + bytes(19)),
    "a serial of 35 bytes": certificate(serial=b"\x7f" * 35),
    "a huge serial": certificate(serial=b"\x7f" * 3000),
    "GeneralizedTime": certificate(
        begin=der(made.GENERAL_TIME, b"20500102030405Z"), end=der(made.GENERAL_TIME, b"99991231235959Z")
    ),
    "a year before the epoch": certificate(begin=der(made.UTC_TIME, b"500102030405Z")),
    "a month that is none": certificate(end=der(made.UTC_TIME, b"261302030405Z")),
    "words for a time": certificate(end=der(made.UTC_TIME, b"tomorrow, noon")),
    "a time with an offset": certificate(end=der(made.UTC_TIME, b"260102030405+0100")),
    "fractions of a second": certificate(end=der(made.GENERAL_TIME, b"20260102030405.25Z")),
    "no alternative name": certificate(extensions=[alternative_names()]),
    "NUL in a DNS name": certificate(extensions=[alternative_names(general(DNS, b"good.com\0.evil.com"))]),
    "empty alternative names": certificate(
        extensions=[alternative_names(general(DNS, b""), general(EMAIL, b""), general(URI, b""))]
    ),
    "a DNS name in UTF-8": certificate(extensions=[alternative_names(general(DNS, "münchen.de".encode()))]),
    "a DNS name that is no UTF-8": certificate(extensions=[alternative_names(general(DNS, b"\xff.com"))]),
    "a mail address that is no UTF-8": certificate(extensions=[alternative_names(general(EMAIL, b"\xc3"))]),
    "a directory name": certificate(extensions=[alternative_names(constructed(DIRECTORY, SEVERAL_SETS))]),
    "an empty directory name": certificate(extensions=[alternative_names(constructed(DIRECTORY, name()))]),
    "addresses": certificate(
        extensions=[alternative_names(*(general(ADDRESS, bytes(range(size))) for size in (0, 3, 4, 5, 8, 15, 16, 17, 32)))]
    ),
    "registered numbers": certificate(
        extensions=[alternative_names(*(general(REGISTERED, oid(one)[2:]) for one in ("1.2.3.4.5", "2.5.4.3", "2.999.1")))]
    ),
    "a long registered number": certificate(
        extensions=[alternative_names(general(REGISTERED, b"\x2b" + b"\x8f\xff\xff\xff\x7f" * 20))]
    ),
    "a very long registered number": certificate(
        extensions=[alternative_names(general(REGISTERED, b"\x2b" + b"\x8f\xff\xff\xff\x7f" * 400))]
    ),
    "a registered number of 2,300 digits": certificate(extensions=[alternative_names(general(REGISTERED, b"\x7f" * 580))]),
    "other names": certificate(
        extensions=[
            alternative_names(
                constructed(0, oid("1.3.6.1.4.1.311.20.2.3"), constructed(0, der(made.UTF8, b"user@example.com"))),
                constructed(0, oid("1.3.6.1.5.5.7.8.9"), constructed(0, der(made.UTF8, "ü@example.com".encode()))),
                constructed(0, oid("1.3.6.1.5.5.7.8.7"), constructed(0, der(IA5, b"_xmpp.example.com"))),
                constructed(0, oid("1.3.6.1.5.5.7.8.5"), constructed(0, der(made.UTF8, b"a:b\nc"))),
                constructed(0, oid("1.2.3.4"), constructed(0, der(4, b"\0\1"))),
            )
        ]
    ),
    "an X.400 address and an EDI party": certificate(
        extensions=[alternative_names(constructed(5, constructed(1, der(made.UTF8, b"party"))))]
    ),
    "an unknown kind of name": certificate(extensions=[alternative_names(general(9, b"x"), general(DNS, b"example.com"))]),
    "alternative names that are no sequence": certificate(extensions=[extension(made.SUBJECT_ALT_NAME, b"\4\1x")]),
    "alternative names that are cut off": certificate(extensions=[extension(made.SUBJECT_ALT_NAME, b"\x30\x05\x82")]),
    "alternative names twice": certificate(
        extensions=[alternative_names(general(DNS, b"a")), alternative_names(general(DNS, b"b"))]
    ),
    "where to ask": certificate(
        extensions=[
            made.access(
                (made.OCSP, general(URI, b"http://ocsp.example.com/")),
                (made.CA_ISSUERS, general(URI, b"http://example.com/ca.crt")),
                (made.OCSP, general(URI, b"http://two.example.com/")),
                (made.OCSP, general(DNS, b"not.a.uri")),
                ("1.2.3.4", general(URI, b"http://another.method/")),
            )
        ]
    ),
    "nowhere to ask": certificate(extensions=[made.access()]),
    "nothing to ask for": certificate(extensions=[made.access((made.OCSP, general(DNS, b"not.a.uri")))]),
    "a place that is no UTF-8": certificate(extensions=[made.access((made.OCSP, general(URI, b"http://\xff/")))]),
    "NUL in a place": certificate(extensions=[made.access((made.CA_ISSUERS, general(URI, b"http://a\0b/")))]),
    "revocation lists": certificate(
        extensions=[
            crl_points(
                [full_name(general(URI, b"http://example.com/1.crl"), general(DNS, b"example.com"))],
                [full_name(general(URI, b"ldap://example.com/2"), general(URI, b"http://example.com/3.crl"))],
            )
        ]
    ),
    "revocation points without a place": certificate(extensions=[crl_points([], [constructed(2, constructed(4, name()))])]),
    "no revocation point": certificate(extensions=[crl_points()]),
    "a revocation point that is no UTF-8": certificate(extensions=[crl_points([full_name(general(URI, b"\xff"))])]),
    "all of it": certificate(
        subject=SEVERAL_SETS,
        extensions=[
            crl_points([full_name(general(URI, b"http://example.com/1.crl"))]),
            made.access((made.CA_ISSUERS, general(URI, b"http://c/")), (made.OCSP, general(URI, b"http://o/"))),
            alternative_names(general(DNS, b"example.com"), general(ADDRESS, bytes(4))),
        ],
    ),
}


@pytest.mark.parametrize("encoded", CERTIFICATES.values(), ids=CERTIFICATES.keys())
def test_certificates_that_nobody_would_sign(encoded, tmp_path):
    path = tmp_path / "one.pem"
    path.write_text(made.pem(encoded))
    assert_the_same(path)


def test_some_of_them_are_shown_as_they_are_meant(tmp_path):
    """That both modules were asked for the same, and not for the same error."""

    def shown(title):
        path = tmp_path / "one.pem"
        path.write_text(made.pem(CERTIFICATES[title]))
        return ours._test_decode_cert(path)

    assert shown("NUL in a DNS name")["subjectAltName"] == (("DNS", "good.com\0.evil.com"),)
    assert shown("a negative serial")["serialNumber"] == "-0124"
    assert shown("no alternative name")["subjectAltName"] == ()
    assert "subjectAltName" not in shown("plain")
    assert shown("addresses")["subjectAltName"][2] == ("IP Address", "0.1.2.3")
    assert shown("where to ask")["OCSP"] == ("http://ocsp.example.com/", "http://two.example.com/")
    assert shown("where to ask")["caIssuers"] == ("http://example.com/ca.crt",)
    assert len(shown("revocation lists")["crlDistributionPoints"]) == 3
    assert list(shown("all of it"))[6:] == ["subjectAltName", "OCSP", "caIssuers", "crlDistributionPoints"]
    assert len(shown("names with several sets")["subject"]) == 6
    with pytest.raises(UnicodeDecodeError):
        shown("a DNS name that is no UTF-8")


def test_a_revocation_point_relative_to_the_issuer_is_no_place(tmp_path):
    """CPython up to 3.13 takes its parts for a list of names, whose memory it is not."""
    path = tmp_path / "one.pem"
    relative = constructed(0, constructed(1, attribute("2.5.4.3", b"part")))
    path.write_text(made.pem(certificate(extensions=[crl_points([relative], [full_name(general(URI, b"http://u/"))])])))
    assert ours._test_decode_cert(path)["crlDistributionPoints"] == ("http://u/",)


def test_a_certificate_cannot_be_made_from_outside():
    for arguments in ((), (b"",), (None,)):
        with pytest.raises(TypeError, match=r"cannot create '_ssl\.Certificate' instances"):
            ours.Certificate(*arguments)
    with pytest.raises(TypeError):
        object.__new__(ours.Certificate)
    with pytest.raises(TypeError), contextlib.suppress(AttributeError):
        type("Derived", (ours.Certificate,), {})
    assert (ours.Certificate.__module__, ours.Certificate.__qualname__) == ("_ssl", "Certificate")


# ---- the class -----------------------------------------------------------------------------------------------


def chain_of(module, *pems):
    """What a client of the module was shown by a server with the certificates, the last of which has the key with it."""
    server = module._SSLContext(module.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*pems)
    client = module._SSLContext(module.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, module.CERT_NONE
    there, back = module.MemoryBIO(), module.MemoryBIO()
    near, far = client._wrap_bio(back, there, False), server._wrap_bio(there, back, True)
    for _ in range(4):
        for end in (near, far):
            with contextlib.suppress(module.SSLWantReadError):
                end.do_handshake()
    return near.get_unverified_chain()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A certificate with its authority behind it, and the key."""
    folder = tmp_path_factory.mktemp("chain")
    issued = trustme.CA(organization_name="Zwölf Boxkämpfer").issue_cert(
        "example.com", common_name="a,b+c é", organization_name="x"
    )
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(folder / "chain.pem", append=number > 0)
    issued.private_key_pem.write_to_path(folder / "key.pem")
    return folder / "chain.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def chain(files):
    return chain_of(ours, *files)


def test_a_certificate_in_every_encoding(files, chain):
    (certificate,) = chain
    (der,) = [ssl.PEM_cert_to_DER_cert(part + "-----END CERTIFICATE-----\n") for part in first_certificate(files)]
    assert certificate.public_bytes(ours.ENCODING_DER) == der
    assert certificate.public_bytes(format=ours.ENCODING_DER) == der
    text = certificate.public_bytes()
    assert (type(text), ssl.PEM_cert_to_DER_cert(text)) == (str, der)
    assert certificate.public_bytes(ours.ENCODING_PEM) == text
    with_trust = certificate.public_bytes(0x101)
    assert with_trust.startswith("-----BEGIN TRUSTED CERTIFICATE-----\n")
    assert certificate.get_info() == ours._test_decode_cert(files[0])


def first_certificate(files):
    return files[0].read_text().split("-----END CERTIFICATE-----")[:1]


@pytest.mark.parametrize("format", [0, 3, -1, 2**40])
def test_an_encoding_that_is_none(chain, format):
    with pytest.raises(ValueError, match="Unsupported format"):
        chain[0].public_bytes(format)


@pytest.mark.parametrize("format", [1.0, "PEM", None, b"\1"])
def test_an_encoding_of_a_wrong_type(chain, format):
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        chain[0].public_bytes(format)


def test_certificates_are_equal_by_what_they_are(files, chain, tmp_path):
    (certificate,), (again,) = chain, chain_of(ours, *files)
    assert certificate is not again
    assert (operator.eq(certificate, again), operator.ne(certificate, again)) == (True, False)
    assert hash(certificate) == hash(again)
    assert {certificate: 1}[again] == 1
    other_pem = tmp_path / "other.pem"
    trustme.CA().issue_cert("example.com").private_key_and_cert_chain_pem.write_to_path(other_pem)
    (other,) = chain_of(ours, other_pem)
    assert (operator.eq(certificate, other), operator.ne(certificate, other)) == (False, True)
    assert certificate != certificate.public_bytes(ours.ENCODING_DER)
    with pytest.raises(TypeError):
        _ = certificate < again


def test_a_certificate_is_no_value_to_pickle_or_to_change(chain):
    with pytest.raises(TypeError):
        pickle.dumps(chain[0])
    with pytest.raises(TypeError):
        copy.copy(chain[0])
    with pytest.raises(AttributeError):
        chain[0].extra = 1


if hasattr(_ssl, "Certificate"):  # since 3.10

    def test_certificates_are_shown_as_the_interpreters(files, chain):
        (theirs,) = chain_of(_ssl, *files)
        assert repr(chain[0]) == repr(theirs)
        assert hash(chain[0]) == hash(theirs)
        assert chain[0].get_info() == theirs.get_info()
        for encoding in (ours.ENCODING_PEM, ours.ENCODING_DER, 0x101):
            assert chain[0].public_bytes(encoding) == theirs.public_bytes(encoding)
        assert theirs != chain[0] and chain[0] != theirs, "they are of two libraries"
