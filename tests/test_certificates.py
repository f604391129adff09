"""`SslCertificate`: what loads, what is refused and in which words, and what a certificate tells."""

import base64
import copy
import datetime
import hashlib
import pickle
import subprocess
import weakref

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sslsock import SslCertificate, SslEncoding

PEM, DER = SslEncoding.PEM, SslEncoding.DER
UTC = datetime.timezone.utc


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def issued(authority):
    return authority.issue_cert("example.com", "*.example.org", "127.0.0.1", "2001:db8::1", "me@example.com")


@pytest.fixture(scope="module")
def pem(issued):
    return issued.cert_chain_pems[0].bytes()


@pytest.fixture(scope="module")
def der(pem):
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


@pytest.fixture(scope="module")
def signer():
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def make(signer):
    """Makes the DER of a self-signed certificate out of what matters to a test."""

    def made(subject=(), names=(), serial=1, start=None, end=None):
        name = x509.Name([x509.NameAttribute(oid, text, _validate=False) for oid, text in subject])
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(signer.public_key())
            .serial_number(serial)
            .not_valid_before(start or datetime.datetime(2020, 1, 1))
            .not_valid_after(end or datetime.datetime(2040, 1, 1))
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    return made


def refusal(data, format=PEM):
    certificate = SslCertificate(data, format)
    assert certificate.null
    assert certificate.to_der() == certificate.to_pem() == b""
    return certificate.error_string


# loading


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_any_buffer_loads_in_both_encodings(pem, der, wrap):
    for certificate in (SslCertificate(wrap(pem)), SslCertificate(wrap(der), DER)):
        assert not certificate.null
        assert certificate.error_string == ""
        assert certificate.to_der() == der


def test_text_loads_as_pem(pem, der):
    assert SslCertificate(pem.decode()).to_der() == der
    assert SslCertificate("Grüße \ud800\n" + pem.decode() + "ß").to_der() == der


def test_a_bytearray_can_be_resized_after_loading(pem):
    data = bytearray(pem)
    SslCertificate(data)
    SslCertificate(data, DER)
    SslCertificate.from_bytes(data)
    data.extend(b"more")


@pytest.mark.parametrize("before", [b"", b"junk\n", b"\xef\xbb\xbf", b"-----BEGIN\n", b"\r\n\r\n"])
@pytest.mark.parametrize("after", [b"", b"junk", b"\n-----BEGIN CERTIFICATE-----\n!"])
def test_the_first_certificate_of_a_text_is_loaded_whatever_is_around_it(pem, der, before, after):
    assert SslCertificate(before + pem + after).to_der() == der


def test_a_key_before_the_certificate_is_passed_over(issued, der):
    assert SslCertificate(issued.private_key_and_cert_chain_pem.bytes()).to_der() == der


def test_line_ends_and_the_old_label_do_not_matter(pem, der):
    assert SslCertificate(pem.replace(b"\n", b"\r\n")).to_der() == der
    assert SslCertificate(pem.replace(b" CERTIFICATE", b" X509 CERTIFICATE")).to_der() == der


# refusing


@pytest.mark.parametrize("format", [PEM, DER])
def test_empty_data_is_null(format):
    assert refusal(b"", format) == "the data is empty"
    assert SslCertificate().null


def test_no_argument_that_is_not_data_is_taken(der):
    for wrong in (None, 1, 1.5, ["x"], object()):
        with pytest.raises(TypeError):
            SslCertificate(wrong)
        with pytest.raises(TypeError):
            SslCertificate.from_bytes(wrong)
    with pytest.raises(TypeError, match="binary"):
        SslCertificate("text", DER)
    with pytest.raises(ValueError, match="7"):
        SslCertificate(der, 7)


def test_the_wrong_encoding_is_named(pem, der):
    assert refusal(der) == "this is DER, not PEM"
    assert refusal(pem, DER) == "this is PEM, not DER"


def test_junk_is_named():
    assert "no BEGIN line" in refusal(b"hello")
    assert refusal(b"hello", DER) == "this is not DER"
    assert "BEGIN line is not whole" in refusal(b"-----BEGIN CERTIFIC")


def test_a_path_is_told_from_a_certificate(tmp_path):
    for path in ("server.pem", b"server.pem", "/etc/ssl/certs/ca.crt"):
        assert refusal(path).endswith("if it is the path of a file, SslCertificate.from_path reads it")
    assert "path" not in refusal("no\ncertificate") and "path" not in refusal("x" * 5000)
    for load in (SslCertificate, SslCertificate.from_bytes):
        with pytest.raises(TypeError, match="this is a path"):
            load(tmp_path)


def test_every_truncation_of_pem_is_null_with_a_reason(pem):
    body = len(pem.rstrip()) - len("-----END CERTIFICATE-----")
    for size in range(1, body + 8):
        reason = refusal(pem[:size])
        assert reason
        if 28 < size < body:
            assert "truncated" in reason


def test_every_truncation_of_der_is_null_with_a_reason(der):
    assert all("truncated" in refusal(der[:size], DER) for size in range(1, len(der)))
    assert refusal(der[:100], DER) == f"the data is truncated: it has 100 of {len(der)} bytes"


def test_a_truncated_certificate_in_a_whole_block_is_told(der):
    text = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der[:90]) + b"-----END CERTIFICATE-----\n"
    assert refusal(text) == f"the certificate in the PEM text is truncated: it has 90 of {len(der)} bytes"


def test_damage_never_raises(pem, der):
    for index in range(0, len(der), 3):
        SslCertificate(der[:index] + bytes([der[index] ^ 0xFF]) + der[index + 1 :], DER)
    for index in range(0, len(pem), 5):
        SslCertificate(pem[:index] + b"!" + pem[index + 1 :])


def test_bad_base64_keeps_the_reason_of_openssl(pem):
    assert "OpenSSL: bad base64 decode" in refusal(pem.replace(b"MII", b"M!I", 1))


def test_der_with_trailing_bytes_is_refused(der):
    assert refusal(der + b"\0", DER) == "bytes too many after a certificate: 1"
    assert refusal(der + der, DER) == f"bytes too many after a certificate: {len(der)}"


def test_the_wrong_kind_is_named(signer, issued):
    binary, text = serialization.Encoding.DER, serialization.Encoding.PEM
    form, plain = serialization.PrivateFormat, serialization.NoEncryption()
    private = signer.private_bytes(binary, form.PKCS8, plain)
    old = signer.private_bytes(binary, form.TraditionalOpenSSL, plain)
    encrypted = signer.private_bytes(binary, form.PKCS8, serialization.BestAvailableEncryption(b"x"))
    public = signer.public_key().public_bytes(binary, serialization.PublicFormat.SubjectPublicKeyInfo)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(signer, hashes.SHA256())
    assert refusal(issued.private_key_pem.bytes()) == "this is a private key, not a certificate"
    assert refusal(private, DER) == "this is a private key, not a certificate"
    assert refusal(old, DER) == "this is a private key, not a certificate"
    assert refusal(encrypted, DER) == "this is an encrypted private key, not a certificate"
    assert refusal(public, DER) == "this is a public key, not a certificate"
    reason = "this is a certificate request, not a certificate"
    assert refusal(request.public_bytes(binary), DER) == refusal(request.public_bytes(text)) == reason


def test_a_container_is_named(issued, tmp_path):
    (tmp_path / "both.pem").write_bytes(issued.private_key_and_cert_chain_pem.bytes())
    made = subprocess.run(
        ["openssl", "pkcs12", "-export", "-in", str(tmp_path / "both.pem"), "-passout", "pass:x"],
        check=True,
        capture_output=True,
    )
    assert refusal(made.stdout, DER) == "this is a PKCS #12 container, not a certificate"


def test_an_unknown_label_is_not_repeated():
    text = b"-----BEGIN MY SECRET-----\nAAAA\n-----END MY SECRET-----\n"
    assert refusal(text) == "this is a PEM block of another kind, not a certificate"


# names


def test_subject_and_issuer_keep_order_and_repeated_fields(make):
    subject = [
        (NameOID.COUNTRY_NAME, "DE"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "one"),
        (NameOID.COMMON_NAME, "Grüße 世界"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "two"),
        (NameOID.EMAIL_ADDRESS, "me@example.com"),
        (x509.ObjectIdentifier("1.2.3.4.5"), "own"),
    ]
    certificate = SslCertificate(make(subject), DER)
    expected = {
        "C": ["DE"],
        "OU": ["one", "two"],
        "CN": ["Grüße 世界"],
        "emailAddress": ["me@example.com"],
        "1.2.3.4.5": ["own"],
    }
    assert certificate.subject == certificate.issuer == expected
    assert list(certificate.subject) == list(expected)


def test_an_empty_subject_is_an_empty_dict(make):
    assert SslCertificate(make(), DER).subject == {}


def test_a_nul_hides_nothing(make):
    data = make(
        [(NameOID.COMMON_NAME, "good.example\0.evil.example")],
        [x509.DNSName("good.example\0.evil.example"), x509.RFC822Name("a@b\0.c")],
    )
    certificate = SslCertificate(data, DER)
    assert certificate.subject == {"CN": [r"good.example\x00.evil.example"]}
    assert certificate.subject_alternative_names == [
        ("DNS", r"good.example\x00.evil.example"),
        ("email", r"a@b\x00.c"),
    ]


def test_what_does_not_print_is_escaped(make):
    data = make([(NameOID.COMMON_NAME, "a\n\x1b[31m\u202eb")])
    assert SslCertificate(data, DER).subject == {"CN": [r"a\n\x1b[31m\u202eb"]}


def test_alternative_names_of_every_kind(make, tmp_path):
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -config -"
    subprocess.run(
        [*command.split(), "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "out")],
        input=b"[req]\ndistinguished_name=n\nx509_extensions=e\n[n]\n[e]\nsubjectAltName=@s\n[s]\nDNS.1=a.example\n"
        b"IP.1=10.0.0.1\nIP.2=2001:db8:0:0::5\nemail.1=me@a.example\nURI.1=https://a.example/x\nRID.1=1.2.3.4\n"
        b"dirName.1=d\notherName.1=1.3.6.1.4.1.311.20.2.3;UTF8:me@corp\n[d]\nCN=within\nO=org\n",
        check=True,
        capture_output=True,
    )
    (certificate,) = SslCertificate.from_path(tmp_path / "out")
    names = certificate.subject_alternative_names
    assert names[:7] == [
        ("DNS", "a.example"),
        ("IP", "10.0.0.1"),
        ("IP", "2001:db8::5"),
        ("email", "me@a.example"),
        ("URI", "https://a.example/x"),
        ("RID", "1.2.3.4"),
        ("dirname", "O=org,CN=within"),
    ]
    kind, text = names[7]
    assert kind == "othername"
    assert text


def test_trustme_names(pem):
    assert SslCertificate(pem).subject_alternative_names == [
        ("DNS", "example.com"),
        ("DNS", "*.example.org"),
        ("IP", "127.0.0.1"),
        ("IP", "2001:db8::1"),
        ("email", "me@example.com"),
    ]


def test_no_names_is_an_empty_list(make):
    assert SslCertificate(make(), DER).subject_alternative_names == []


def test_names_that_do_not_parse_are_an_empty_list(make):
    data = make(names=[x509.DNSName("abcdefgh")])
    damaged = data.replace(b"\x30\x0a\x82\x08", b"\x31\x0a\x82\x08")
    assert damaged != data
    assert SslCertificate(damaged, DER).subject_alternative_names == []


def test_an_address_of_a_wrong_length_is_shown_in_hexadecimal(make):
    data = make(names=[x509.DNSName("abcdef")]).replace(b"\x82\x06abcdef", b"\x87\x06abcdef")
    assert SslCertificate(data, DER).subject_alternative_names == [("IP", "#616263646566")]


# numbers and times


@pytest.mark.parametrize("serial", [1, 127, 128, 2**63, 2**64 + 1, 2**158 + 12345])
def test_serial_numbers_of_any_size(make, serial):
    assert SslCertificate(make(serial=serial), DER).serial_number == serial


def test_a_negative_serial_number_is_tolerated(make):
    negative = b"\xff\1\2\3\4\5\6\7"
    data = make(serial=0x7F01020304050607).replace(b"\x7f\1\2\3\4\5\6\7", negative)
    assert SslCertificate(data, DER).serial_number == int.from_bytes(negative, "big", signed=True)


def test_times_are_utc(make):
    start, end = datetime.datetime(1999, 12, 31, 23, 59, 58), datetime.datetime(2051, 2, 3, 4, 5, 6)
    certificate = SslCertificate(make(start=start, end=end), DER)
    assert certificate.not_before == start.replace(tzinfo=UTC)
    assert certificate.not_after == end.replace(tzinfo=UTC)
    assert certificate.not_after.utcoffset() == datetime.timedelta(0)


def test_a_time_that_is_none_is_none(make):
    data = make(start=datetime.datetime(2021, 1, 1))
    certificate = SslCertificate(data.replace(b"210101000000Z", b"219901000000Z"), DER)
    assert certificate.null or certificate.not_before is None


# digests, equality, copies


@pytest.mark.parametrize("name", ["sha256", "SHA256", "sha1", "sha384", "sha512", "sha3-256"])
def test_digests_agree_with_hashlib(pem, der, name):
    expected = hashlib.new(name.lower().replace("sha3-", "sha3_"), der).digest()
    assert SslCertificate(pem).digest(name) == expected


def test_sha256_is_the_default_digest(pem, der):
    assert SslCertificate(pem).digest() == hashlib.sha256(der).digest()


@pytest.mark.parametrize("name", ["", "nope", "sha256\0", "ß"])
def test_an_unknown_digest_raises(pem, name):
    for certificate in (SslCertificate(pem), SslCertificate()):
        with pytest.raises(ValueError, match="digest"):
            certificate.digest(name)


def test_a_digest_name_is_text(pem):
    for wrong in (None, b"sha256", 1):
        with pytest.raises(TypeError):
            SslCertificate(pem).digest(wrong)


def test_pem_out_is_pem_in(pem, der):
    certificate = SslCertificate(der, DER)
    assert SslCertificate(certificate.to_pem()) == certificate
    assert certificate.to_pem().split() == pem.split()


def test_equal_by_der(pem, der, authority):
    one, same = SslCertificate(pem), SslCertificate(der, DER)
    other = SslCertificate(authority.cert_pem.bytes())
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != SslCertificate()
    assert one != der
    assert len({one, same, other}) == 2
    assert SslCertificate() == SslCertificate(b"x")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_and_copies_are_equal(pem, protocol):
    certificate = SslCertificate(pem)
    assert pickle.loads(pickle.dumps(certificate, protocol)) == certificate
    assert copy.copy(certificate) == copy.deepcopy(certificate) == certificate
    null = pickle.loads(pickle.dumps(SslCertificate(b"x"), protocol))
    assert null.null
    assert null.error_string == SslCertificate(b"x").error_string


def test_repr_is_short(make, pem):
    shown = repr(SslCertificate(make([(NameOID.COMMON_NAME, "a\nb")]), DER))
    assert shown == r"<SslCertificate a\nb, not after 2040-01-01T00:00:00+00:00>"
    assert "without a CN" in repr(SslCertificate(make(), DER))
    assert repr(SslCertificate()) == "<SslCertificate null: the data is empty>"


def test_a_null_certificate_answers_everything():
    certificate = SslCertificate(b"x")
    assert certificate.subject == certificate.issuer == {}
    assert certificate.subject_alternative_names == []
    assert certificate.serial_number == 0
    assert certificate.not_before is None
    assert certificate.not_after is None
    assert certificate.digest() == b""


def test_it_cannot_be_changed(pem, der):
    certificate = SslCertificate(pem)
    with pytest.raises(AttributeError):
        certificate.subject = {}
    with pytest.raises(AttributeError):
        certificate.extra = 1
    with pytest.raises(TypeError):
        SslCertificate.PEM = 5
    with pytest.raises(TypeError):
        type("Derived", (SslCertificate,), {})
    certificate.__init__(b"")
    assert certificate.to_der() == der


def test_constants_stand_on_the_class():
    assert SslCertificate.PEM is SslEncoding.PEM == 0
    assert SslCertificate.DER is SslEncoding.DER == 1


# bundles


def test_a_bundle_gives_all_its_certificates_in_order(pem, der, authority, issued):
    root = authority.cert_pem.bytes()
    text = b"first\n" + pem + issued.private_key_pem.bytes() + b"second\n" + root + b"end"
    found = SslCertificate.from_bytes(text)
    assert found == [SslCertificate(pem), SslCertificate(root)]
    assert SslCertificate.from_bytes(text.decode()) == found
    assert SslCertificate.from_bytes(bytearray(b"".join(c.to_der() for c in found))) == found


def in_block(der, label="CERTIFICATE"):
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(der) + f"-----END {label}-----\n".encode()


# What may become of the second of three blocks, and what is said of it.
DAMAGE = {
    "base64": (lambda pem, der: pem.replace(b"\nMII", b"\nM!I"), "bad base64"),
    "a line is lost": (lambda pem, der: b"\n".join([*pem.split(b"\n")[:2], *pem.split(b"\n")[3:]]), "truncated|damaged"),
    "the end is lost": (lambda pem, der: pem[: len(pem) // 2] + b"\n", "no END line before the next BEGIN line"),
    "the END line is lost": (lambda pem, der: pem.replace(b"-----END CERTIFICATE-----\n", b""), "no END line before the next"),
    "no line feed behind it": (lambda pem, der: pem.rstrip(b"\n"), "no whole END line"),
    "no line feed before it": (lambda pem, der: b"text" + pem, "no BEGIN line"),
    "the BEGIN line is lost": (lambda pem, der: pem.replace(b"-----BEGIN CERTIFICATE-----\n", b""), "no BEGIN line"),
    "a dash of BEGIN": (lambda pem, der: pem[1:], "BEGIN line is not whole"),
    "a last dash of BEGIN": (lambda pem, der: pem.replace(b"-----\n", b"----\n", 1), "BEGIN line is not whole"),
    "a dash of END": (lambda pem, der: pem.replace(b"\n-----END", b"\n----END"), "no whole END line"),
    "a last dash of END": (lambda pem, der: pem[:-2] + b"\n", "no whole END line"),
    "indented": (lambda pem, der: b"  " + pem.replace(b"\n", b"\n  ", pem.count(b"\n") - 1), "not at the start of a line"),
    "quoted": (lambda pem, der: b"> " + pem.replace(b"\n", b"\n> ", pem.count(b"\n") - 1), "not at the start of a line"),
    "quoted twice": (lambda pem, der: b">>" + pem.replace(b"\n", b"\n>>", pem.count(b"\n") - 1), "not at the start of a line"),
    "a byte order mark": (lambda pem, der: b"\xef\xbb\xbf" + pem, "not at the start of a line"),
    "dashes of a word processor": (
        lambda pem, der: pem.replace(b"-----", "—–".encode(), 2).replace(b"-----", b"\x97\x96"),
        "BEGIN line is not whole",
    ),
    "dashes of a word processor at the end": (lambda pem, der: pem.replace(b"-----END", b"\x97-END"), "no whole END line"),
    "another END": (lambda pem, der: pem.replace(b"END CERTIFICATE", b"END X509 CRL"), "of another kind"),
    "empty": (lambda pem, der: in_block(b""), "damaged"),
    "foreign": (lambda pem, der: in_block(b"\0\0\0"), "damaged"),
    "DER that is cut": (lambda pem, der: in_block(der[:-1]), "truncated: it has"),
    "DER of another kind": (lambda pem, der: in_block(b"\x30\x03\x02\x01\x00"), "damaged, or unknown"),
    "two in one": (lambda pem, der: in_block(der + der), "bytes too many"),
    "old label": (lambda pem, der: in_block(der[:-1], "X509 CERTIFICATE"), "truncated: it has"),
    "trust settings that are cut": (
        lambda pem, der: in_block(der + b"\x30\x0a\x0c\x08" + b"a" * 7, "TRUSTED CERTIFICATE"),
        "damaged, or unknown",
    ),
    "a container": (lambda pem, der: in_block(der, "PKCS7"), "PKCS #7 container"),
    "a key without its end": (lambda pem, der: b"-----BEGIN PRIVATE KEY-----\nAAAA\n", "no END line before the next"),
}


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_block_of_a_bundle_is_named(pem, der, authority, tmp_path, damage, line_end):
    root = authority.cert_pem.bytes()
    made, words = DAMAGE[damage]
    line = root.count(b"\n") + 2
    data = b"first\n" + root + made(pem, der) + root
    text = data.replace(b"\n", line_end)
    with pytest.raises(ValueError, match=words) as caught:
        SslCertificate.from_bytes(text)
    if "no BEGIN" in words:  # which its END line tells
        line += pem.count(b"\n") - 1 - (damage == "the BEGIN line is lost")
    assert str(caught.value).startswith(f"block 2 (line {line}): ")
    path = tmp_path / "bundle.pem"
    path.write_bytes(text)
    with pytest.raises(ValueError) as named:
        SslCertificate.from_path(path)
    assert str(named.value) == f"{path}: {caught.value}"


def test_every_truncation_of_a_bundle_is_told(pem, authority):
    root = authority.cert_pem.bytes()
    for size in range(1, len(pem) - 1):
        with pytest.raises(ValueError, match=r"block 2 \(line"):
            SslCertificate.from_bytes(root + pem[:size])
    assert len(SslCertificate.from_bytes(root + pem[:-1])) == 2  # only the last line feed


def test_every_truncation_of_a_bundle_in_der_is_told(der):
    for size in range(1, len(der)):
        with pytest.raises(ValueError, match=rf"certificate 2 \(byte {len(der)}\)"):
            SslCertificate.from_bytes(der + der[:size])
    for size in range(2, len(der)):
        with pytest.raises(ValueError, match=r"certificate 1 \(byte 0\): .*truncated"):
            SslCertificate.from_bytes(der[:size])
    for behind in (b"\0", b"\n", b"-----BEGIN CERTIFICATE-----\n"):
        with pytest.raises(ValueError, match=r"certificate 2"):
            SslCertificate.from_bytes(der + behind)


def test_what_is_no_certificate_is_passed_over_in_a_bundle(pem, issued, signer):
    old_key = signer.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.BestAvailableEncryption(b"x")
    )
    assert b"Proc-Type" in old_key
    others = (
        issued.private_key_pem.bytes(),
        old_key,
        in_block(b"\6\5", "EC PARAMETERS"),
        b"-----BEGIN PGP SIGNATURE-----\n\niQ!\n=ab\n-----END PGP SIGNATURE-----\n",
        b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n",
        b"# -----BEGIN CERTIFICATE-----\n#AAAA\n# -----END CERTIFICATE-----\n",
        b"Certificate:\n    Data:\n        Version: 3 (0x2)\n---\n-----\nCERTIFICATE\n",
        b"\0\xff\n",
        b"",
    )
    for line_end in (b"\n", b"\r\n"):
        for other in others:
            blanks = pem.replace(b"CERTIFICATE-----\n", b"CERTIFICATE----- \t\n")
            text = (other + pem + other + blanks + other).replace(b"\n", line_end)
            assert SslCertificate.from_bytes(text) == [SslCertificate(pem)] * 2
            assert SslCertificate.from_bytes(b"\xef\xbb\xbf" + text) == [SslCertificate(pem)] * 2


@pytest.mark.parametrize("data", [b"", "", b"x", b"0", b"0" * 50, b"\0" * 99, "----\n", b"\xff\xfe-\0-\0"])
def test_a_bundle_without_certificates_is_an_empty_list(data):
    assert SslCertificate.from_bytes(data) == []


def with_trust(pem, *options):
    made = subprocess.run(["openssl", "x509", "-trustout", *options], input=pem, check=True, capture_output=True)
    assert made.stdout.startswith(b"-----BEGIN TRUSTED CERTIFICATE-----")
    return made.stdout


def test_a_certificate_with_trust_settings_loads(pem, der):
    plain = SslCertificate(pem)
    trusted = with_trust(pem, "-addreject", "serverAuth", "-setalias", "mine")
    loaded = SslCertificate(trusted)
    assert SslCertificate.from_bytes(pem + trusted + pem) == [plain, loaded, plain]
    assert loaded.subject == plain.subject
    assert (loaded.to_pem(), loaded.to_der()) == (pem, der)
    # Another value: whoever takes one for the other would trust what is not to be trusted.
    assert loaded != plain and SslCertificate(with_trust(pem, "-addtrust", "serverAuth")) not in (plain, loaded)
    for twin in (pickle.loads(pickle.dumps(loaded)), copy.copy(loaded), SslCertificate(trusted)):
        assert twin == loaded and hash(twin) == hash(loaded)
    assert pickle.loads(pickle.dumps(loaded)).digest() == plain.digest()
    assert SslCertificate(with_trust(pem)) == plain  # no settings


def test_text_that_starts_like_der_is_still_pem(pem):
    assert SslCertificate.from_bytes(b"0 s:CN=example.com\n" + pem) == [SslCertificate(pem)]


@pytest.mark.parametrize("wrap", [str, lambda path: path, lambda path: str(path).encode()])
def test_a_file_is_read_in_either_encoding(pem, der, tmp_path, wrap):
    path = tmp_path / "file"
    for data, count in ((pem + pem, 2), (der, 1), (b"", 0)):
        path.write_bytes(data)
        assert SslCertificate.from_path(wrap(path)) == [SslCertificate(pem)] * count


def test_a_file_that_cannot_be_read_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        SslCertificate.from_path(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        SslCertificate.from_path(tmp_path)
    with pytest.raises(TypeError):
        SslCertificate.from_path(0)


def test_a_certificate_that_is_in_use_is_not_loaded_a_second_time(authority, pem):
    root = authority.cert_pem.bytes()
    first, shared = SslCertificate.from_bytes(pem + root)
    assert SslCertificate.from_bytes(root)[0] is shared
    alone = SslCertificate(root)
    assert alone == shared and alone is not shared
    gone = weakref.ref(shared)
    del shared
    assert gone() is None, "it is kept although nobody uses it"
    assert alone.to_der() == SslCertificate(root).to_der() and first.issuer == alone.subject


def test_a_certificate_of_several_pickles_is_loaded_once(authority, pem):
    """A worker process is sent each pair in a pickle of its own, and thousands may have the same chain."""
    one, another = (pickle.loads(pickle.dumps(SslCertificate.from_bytes(pem + authority.cert_pem.bytes()))) for _ in range(2))
    assert one[1] is another[1], "an intermediate certificate is in memory once for each pair"


def test_what_lies_behind_a_certificate_is_refused_each_time(der):
    def text(data):
        return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(data) + b"-----END CERTIFICATE-----\n"

    good = SslCertificate.from_bytes(text(der))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^block 1\b"):
            SslCertificate.from_bytes(text(der + b"\0"))
    assert SslCertificate.from_bytes(text(der))[0] is good[0]
