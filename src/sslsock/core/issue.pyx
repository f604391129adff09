"""Certificates for trials: an authority and what it signs, made in memory, for `serve` without a certificate and for `demo`.

Nothing here is for production: the authority's key exists only in this process and is gone with it. An `SslKey` cannot be
written out; `issue_pem` alone gives a key as bytes, one that it has made itself, for a TLS library that takes no other form.

EC keys on P-256, signed with SHA-256, valid for thirty days from five minutes ago (clocks differ).
"""

import ipaddress
import re

from libc.string cimport memset

from openssl_err cimport ERR_clear_error, ERR_peek_error, ERR_reason_error_string
from openssl_x509 cimport *
from sslsock.core.certificate cimport SslCertificate
from sslsock.core.key cimport SslKey

from sslsock.core.hostname import ascii_name
from sslsock.core.key import KeyAlgorithm

cdef enum:
    SERIAL_SIZE = 16  # bytes; RFC 5280, 4.1.2.2 allows 20
    NAME_LIMIT = 64  # characters of a common name: ub-common-name in RFC 5280, appendix A.1

cdef long BACKDATED = 5 * 60  # seconds
cdef long VALID = 30 * 24 * 3600

LOCALHOST = ("localhost", "127.0.0.1", "::1")

# What may stand in the text that OpenSSL takes for a subjectAltName: in it a comma begins another name.
cdef object DNS_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*")


cdef object failed():
    """The exception for an OpenSSL call that has failed: only memory or a provider can be missing."""
    cdef const char *reason = ERR_reason_error_string(ERR_peek_error())
    text = reason.decode("ascii", "replace") if reason != NULL else "no reason given"
    ERR_clear_error()
    return RuntimeError(f"OpenSSL could not make a certificate: {text}")


cdef str alternative_names(names):
    """The names as X509V3_EXT_conf_nid(3) takes them. ValueError."""
    parts = []
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"a name is a str, not {type(name).__name__}")
        try:
            parts.append(f"IP:{ipaddress.ip_address(name)}")
            continue
        except ValueError:
            pass
        try:
            name = ascii_name(name)
        except ValueError as exc:
            raise ValueError(f"{name!r} is neither a DNS name nor an IP address: {exc}") from None
        if len(name) > 253 or DNS_NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} is neither a DNS name nor an IP address")
        parts.append(f"DNS:{name}")
    if not parts:
        raise ValueError("a certificate needs at least one name")
    return ",".join(parts)


cdef int set_serial(X509 *x509) except -1:
    cdef unsigned char data[SERIAL_SIZE]
    cdef BIGNUM *number
    cdef bint ok
    if RAND_bytes(data, SERIAL_SIZE) != 1:
        raise failed()
    data[0] = data[0] & 0x7F | 0x40  # positive, and of full length
    number = BN_bin2bn(data, SERIAL_SIZE, NULL)
    ok = number != NULL and BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x509)) != NULL
    BN_free(number)
    if not ok:
        raise failed()
    return 0


cdef int set_subject(X509 *x509, str common_name) except -1:
    cdef bytes text = common_name.encode("utf-8")
    cdef X509_NAME *name = X509_NAME_new()
    cdef bint ok = (
        name != NULL
        and X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, <const unsigned char *> "sslsock trial", -1, -1, 0) == 1
        and X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, text, <int> len(text), -1, 0) == 1
        and X509_set_subject_name(x509, name) == 1
    )
    X509_NAME_free(name)
    if not ok:
        raise failed()
    return 0


cdef int add_extension(X509 *x509, X509 *issuer, int kind, bytes value) except -1:
    cdef X509V3_CTX context
    cdef X509_EXTENSION *extension
    cdef bint ok
    memset(&context, 0, sizeof(context))
    X509V3_set_ctx(&context, issuer, x509, NULL, NULL, 0)
    extension = X509V3_EXT_conf_nid(NULL, &context, kind, value)
    ok = extension != NULL and X509_add_ext(x509, extension, -1) == 1
    X509_EXTENSION_free(extension)
    if not ok:
        raise failed()
    return 0


cdef EVP_PKEY *new_key() except NULL:
    cdef EVP_PKEY *key
    with nogil:
        ERR_clear_error()
        key = EVP_EC_gen("P-256")
    if key == NULL:
        raise failed()
    return key


cdef X509 *new_certificate(str common_name, EVP_PKEY *key) except NULL:
    """What all certificates have, unsigned and without an issuer."""
    cdef X509 *x509 = X509_new()
    try:
        if x509 == NULL or X509_set_version(x509, 2) != 1 or X509_set_pubkey(x509, key) != 1:
            raise failed()
        if X509_gmtime_adj(X509_getm_notBefore(x509), -BACKDATED) == NULL \
                or X509_gmtime_adj(X509_getm_notAfter(x509), VALID) == NULL:
            raise failed()
        set_serial(x509)
        set_subject(x509, common_name)
    except BaseException:
        X509_free(x509)
        raise
    return x509


cdef int sign(X509 *x509, const X509_NAME *issuer, EVP_PKEY *key) except -1:
    if X509_set_issuer_name(x509, issuer) != 1 or X509_sign(x509, key, EVP_sha256()) == 0:
        raise failed()
    return 0


cdef SslKey wrap_key(EVP_PKEY *pkey):
    """Takes over the reference."""
    cdef SslKey key
    try:
        key = SslKey.__new__(SslKey)
    except BaseException:
        EVP_PKEY_free(pkey)
        raise
    key.pkey = pkey
    key._error = ""
    key._algorithm = KeyAlgorithm.EC
    return key


def make_authority(str name not None="sslsock trial authority"):
    """A new certificate authority: (SslCertificate, SslKey).

    name: str, its common name, 1 to 64 characters. ValueError, RuntimeError (OpenSSL cannot do it).
    """
    cdef EVP_PKEY *pkey
    cdef X509 *x509
    cdef SslCertificate certificate
    cdef SslKey key
    if not 0 < len(name) <= NAME_LIMIT:
        raise ValueError(f"the name of an authority has 1 to {NAME_LIMIT} characters")
    pkey = new_key()
    key = wrap_key(pkey)
    x509 = new_certificate(name, pkey)
    certificate = SslCertificate.wrap(x509)
    add_extension(x509, x509, NID_basic_constraints, b"critical,CA:TRUE,pathlen:0")
    add_extension(x509, x509, NID_key_usage, b"critical,keyCertSign,cRLSign")
    add_extension(x509, x509, NID_subject_key_identifier, b"hash")
    sign(x509, X509_get_subject_name(x509), pkey)
    return certificate, key


def issue_certificate(SslCertificate authority not None, SslKey authority_key not None, names=LOCALHOST):
    """A certificate signed by an authority, for servers and for clients, and its new key: (SslCertificate, SslKey).

    authority, authority_key: as `make_authority` gives them. names: DNS names and IP addresses (str), at least one.
    ValueError: a name is neither, or the authority's halves do not fit. RuntimeError: OpenSSL cannot do it.
    """
    cdef EVP_PKEY *pkey
    cdef X509 *x509
    cdef SslCertificate certificate
    cdef SslKey key
    cdef bytes alternatives
    if authority.x509 == NULL or authority_key.pkey == NULL:
        raise ValueError("the authority's certificate or key is null")
    if isinstance(names, str):
        raise TypeError("names is a list of names, not one name")
    if X509_check_private_key(authority.x509, authority_key.pkey) != 1:
        ERR_clear_error()
        raise ValueError("this key is not the authority's")
    names = tuple(names)
    alternatives = alternative_names(names).encode("ascii")
    pkey = new_key()
    key = wrap_key(pkey)
    # The names that count are the alternative ones (RFC 9525, 2); the common name is there to be read.
    x509 = new_certificate(names[0] if len(names[0]) <= NAME_LIMIT else "sslsock trial certificate", pkey)
    certificate = SslCertificate.wrap(x509)
    add_extension(x509, authority.x509, NID_basic_constraints, b"critical,CA:FALSE")
    add_extension(x509, authority.x509, NID_key_usage, b"critical,digitalSignature")
    add_extension(x509, authority.x509, NID_ext_key_usage, b"serverAuth,clientAuth")
    add_extension(x509, authority.x509, NID_subject_key_identifier, b"hash")
    add_extension(x509, authority.x509, NID_authority_key_identifier, b"keyid:always")
    add_extension(x509, authority.x509, NID_subject_alt_name, alternatives)
    sign(x509, X509_get_subject_name(authority.x509), authority_key.pkey)
    return certificate, key


def issue_pem(names=LOCALHOST):
    """An authority and a certificate signed by it, as PEM: (certificate, key, authority), three bytes objects.

    For the peers of a benchmark, which load a key from PEM only. The key is as open as any bytes are: it is for one trial.
    names: as in `issue_certificate`, which says what is raised.
    """
    cdef SslKey key
    cdef BIO *bio
    cdef char *data = NULL
    cdef long size
    authority, authority_key = make_authority()
    certificate, key = issue_certificate(authority, authority_key, names)
    bio = BIO_new(BIO_s_secmem())
    try:
        if bio == NULL or PEM_write_bio_PrivateKey(bio, key.pkey, NULL, NULL, 0, NULL, NULL) != 1:
            raise failed()
        size = BIO_get_mem_data(bio, &data)
        return certificate.to_pem(), data[:size], authority.to_pem()
    finally:
        BIO_free(bio)
