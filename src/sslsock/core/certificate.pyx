"""Certificates: values, as loaded.pyx says."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.time cimport tm

from openssl_err cimport ERR_clear_error
from openssl_sha cimport sha256
from openssl_x509 cimport *
from sslsock.core.loaded cimport Loaded
from sslsock.core.encoded cimport openssl_reason
from sslsock.core.loading cimport Loader

import ipaddress
from datetime import datetime, timezone
from weakref import WeakValueDictionary

from sslsock.core.encoded import SslEncoding


# Certificates of PEM files and of pickles, by the label and the digest of what they were made of. Many files end with the same
# intermediate one, which takes 8 KiB each time that it is loaded, and with OpenSSL 3.0 a quarter of a millisecond.
cdef object in_use = WeakValueDictionary()


@cython.final
cdef class CertificateLoader(Loader):
    def __cinit__(self):
        self.wanted, self.damaged, self.word = "a certificate", "the certificate", "certificate"
        self.labels = frozenset((b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"))
        self.containers = frozenset((b"PKCS7", b"PKCS #7 SIGNED DATA", b"CMS"))

    cdef object decode(self, bytes label, const unsigned char **data, long size):
        cdef const unsigned char *end = data[0] + size
        cdef bytes mark
        if label is None:
            return self.certificate_at(label, data, size)
        mark = label + sha256(data[0][:size])
        found = in_use.get(mark)
        if found is not None:
            data[0] = end
            return found
        found = self.certificate_at(label, data, size)
        if found is not None and data[0] == end:
            in_use[mark] = found
        return found

    cdef object certificate_at(self, bytes label, const unsigned char **data, long size):
        cdef X509 *x509
        # OpenSSL's own kind has trust settings behind the certificate: d2i_X509_AUX(3).
        if label == b"TRUSTED CERTIFICATE":
            x509 = d2i_X509_AUX(NULL, data, size)
        else:
            x509 = d2i_X509(NULL, data, size)
        return SslCertificate.wrap(x509) if x509 != NULL else None


cdef CertificateLoader loader = CertificateLoader()


cdef str visible(bytes raw, str codec):
    """Text of a certificate. What does not print, a NUL above all, stands as an escape and hides nothing."""
    cdef str text = raw.decode(codec, "backslashreplace")
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text])


cdef bytes string_bytes(const ASN1_STRING *string):
    cdef int size = ASN1_STRING_length(string)
    return ASN1_STRING_get0_data(string)[:size] if size > 0 else b""


cdef str string_text(const ASN1_STRING *string):
    """Any kind of ASN.1 text; else `#` and the hexadecimal of the bytes, in the manner of RFC 4514, 2.4."""
    cdef unsigned char *out = NULL
    cdef int size = ASN1_STRING_to_UTF8(&out, string)
    if size < 0:
        ERR_clear_error()
        return "#" + string_bytes(string).hex()
    try:
        return visible(out[:size], "utf-8")
    finally:
        OPENSSL_free(out)


cdef str object_text(const ASN1_OBJECT *identifier):
    """OpenSSL's short name of an object identifier, or its number in dots."""
    cdef char text[256]
    cdef int nid = OBJ_obj2nid(identifier)
    cdef const char *name = OBJ_nid2sn(nid) if nid != NID_undef else NULL
    if name != NULL:
        return name.decode("ascii", "backslashreplace")
    if OBJ_obj2txt(text, sizeof(text), identifier, 1) <= 0:
        ERR_clear_error()
        return "?"
    return text.decode("ascii", "backslashreplace")


cdef dict name_fields(const X509_NAME *name):
    cdef const X509_NAME_ENTRY *entry
    cdef int index
    cdef dict fields = {}
    for index in range(X509_NAME_entry_count(name)):
        entry = X509_NAME_get_entry(name, index)
        key = object_text(X509_NAME_ENTRY_get_object(entry))
        fields.setdefault(key, []).append(string_text(X509_NAME_ENTRY_get_data(entry)))
    return fields


cdef object utc_time(const ASN1_TIME *time):
    """A datetime; None where the field holds no time or one that datetime cannot express."""
    cdef tm parts
    if time == NULL or ASN1_TIME_to_tm(time, &parts) != 1:
        ERR_clear_error()
        return None
    try:
        return datetime(
            parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
            tzinfo=timezone.utc,
        )
    except ValueError:
        pass
    return None


cdef str printed(BIO *bio):
    cdef char *data = NULL
    cdef long size = BIO_get_mem_data(bio, &data)
    return visible(<bytes> data[:size] if size > 0 else b"", "utf-8")


cdef tuple general_name(GENERAL_NAME *name):
    """One subjectAltName (RFC 5280, 4.2.1.6) as (kind, text)."""
    cdef int kind = -1
    cdef const void *value = GENERAL_NAME_get0_value(name, &kind)
    cdef BIO *bio
    cdef str text
    if kind == GEN_DNS:
        return "DNS", visible(string_bytes(<const ASN1_STRING *> value), "ascii")
    if kind == GEN_EMAIL:
        return "email", visible(string_bytes(<const ASN1_STRING *> value), "ascii")
    if kind == GEN_URI:
        return "URI", visible(string_bytes(<const ASN1_STRING *> value), "ascii")
    if kind == GEN_IPADD:
        raw = string_bytes(<const ASN1_STRING *> value)
        return "IP", str(ipaddress.ip_address(raw)) if len(raw) in (4, 16) else "#" + raw.hex()
    if kind == GEN_RID:
        return "RID", object_text(<const ASN1_OBJECT *> value)
    bio = BIO_new(BIO_s_mem())
    if bio == NULL:
        raise MemoryError
    try:
        if kind == GEN_DIRNAME:
            X509_NAME_print_ex(bio, <const X509_NAME *> value, 0, XN_FLAG_RFC2253)
            return "dirname", printed(bio)
        # OpenSSL writes "othername: ..." and its like: the text is what follows the colon.
        GENERAL_NAME_print(bio, name)
        text = printed(bio).partition(":")[2].strip()
    finally:
        BIO_free(bio)
    if kind == GEN_OTHERNAME:
        return "othername", text
    return ("X400" if kind == GEN_X400 else "EDI party" if kind == GEN_EDIPARTY else "unknown"), text


cdef dict uses = {}  # "verify": what `SslCertificate.verify` calls


def _set_verify(function):
    """For the module that can: a certificate knows neither contexts nor configurations, which are made of certificates."""
    uses["verify"] = function


def _restore_certificate(der: bytes, error: str) -> SslCertificate:
    """What a pickle calls. der: with the trust settings behind it."""
    cdef SslCertificate certificate
    cdef const unsigned char *p
    if der:
        p = <const unsigned char *> PyBytes_AS_STRING(der)
        restored = loader.decode(b"TRUSTED CERTIFICATE", &p, len(der))
        if restored is None:
            ERR_clear_error()
            return SslCertificate(der, SslEncoding.DER)  # which says why
        return restored
    certificate = SslCertificate()
    certificate._error = error
    return certificate


@cython.final
cdef class SslCertificate(Loaded):
    """SslCertificate(encoded=b"", format=SslEncoding.PEM)
--

    An X.509 certificate. Immutable; equal, hashed and pickled by its DER, and by OpenSSL's trust settings where
    it has some.

    encoded: any buffer, or for PEM a str. Of PEM text the first certificate is loaded, whatever stands around
    it; DER has to be one certificate and nothing else. A PEM block `TRUSTED CERTIFICATE` (`openssl x509 -trustout`)
    brings trust settings, which count where the certificate is an authority: what it is rejected for, or not trusted
    for, is refused. `to_pem` and `to_der` leave them out. Or a certificate of the package `cryptography`.
    format: `SslEncoding`.

    Data that cannot be loaded makes a certificate that is `null`, with `error_string` saying why. TypeError:
    `encoded` is neither a buffer nor text. ValueError: `format` is no `SslEncoding`.
    """

    PEM = SslEncoding.PEM
    DER = SslEncoding.DER

    def __cinit__(self, encoded=b"", format=SslEncoding.PEM):
        cdef SslCertificate loaded
        loaded, self._error = loader.load(encoded, format)
        if loaded is not None:
            X509_up_ref(loaded.x509)
            self.x509 = loaded.x509

    def __dealloc__(self):
        X509_free(self.x509)

    @staticmethod
    cdef SslCertificate wrap(X509 *x509):
        cdef SslCertificate certificate
        try:
            certificate = SslCertificate.__new__(SslCertificate)
        except BaseException:
            X509_free(x509)
            raise
        certificate.x509 = x509
        certificate._error = ""
        return certificate

    @staticmethod
    def from_bytes(data):
        """All certificates in PEM text, or in DER, where they follow one another; a list, empty where there
        is none.

        data: any buffer or a str. PEM blocks that are no certificate (keys, parameters, requests) and the text
        between blocks are passed over. ValueError: a certificate is damaged or cut off, or there is a block whose
        lines are, so that nobody can say what is in it; the number of the block and its first line are named.
        TypeError: `data` is neither a buffer nor text.
        """
        return loader.all_of(data)

    @staticmethod
    def from_path(path):
        """All certificates in a file, as `from_bytes` finds them. OSError: the file cannot be read. ValueError
        names the file too."""
        return loader.all_in(path)

    @staticmethod
    def verify(chain, name="", configuration=None, *, purpose=None, time=None):
        """All that is wrong with certificates, without a connection: list of SslError, empty when they are good. Judged as by a
        connection with this configuration, whose errors `SslSocket.ssl_errors_handler` would be given.

        chain: list of SslCertificate as a peer sends it: its own first, then those that lead to an authority, in any order. name: the
        host name or IP address (str) that the first must be for; "": any. configuration: SslConfiguration, which says who is trusted and
        how strictly; None: the system's authorities. purpose: SSL_SERVER_MODE (None too) or SSL_CLIENT_MODE of SslMode: whom they are
        to prove. time: a datetime with its time zone, None: now. TypeError, ValueError: a certificate is null, there is none, or the
        name or the configuration cannot be used.
        """
        return uses["verify"](chain, name, configuration, purpose, time)

    cdef bint is_null(self) noexcept:
        return self.x509 == NULL

    cdef bytes whole(self):
        return self.encode(True)

    @property
    def subject(self):
        """The subject as a dict: the short name of an attribute ("CN", "O", ...; else its OID) to the list of
        its values.

        Attributes and values are in the certificate's order. A character that does not print (NUL, say)
        stands as an escape such as \\x00. Empty when null.
        """
        if self.x509 == NULL:
            return {}
        return name_fields(X509_get_subject_name(self.x509))

    @property
    def issuer(self):
        """The issuer, written as `subject` is."""
        if self.x509 == NULL:
            return {}
        return name_fields(X509_get_issuer_name(self.x509))

    @property
    def serial_number(self):
        """The serial number: an int of any size; 0 when null.

        Negative in some certificates that break RFC 5280, 4.1.2.2.
        """
        cdef BIGNUM *number
        cdef char *text
        if self.x509 == NULL:
            return 0
        number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(self.x509), NULL)
        text = BN_bn2hex(number) if number != NULL else NULL
        BN_free(number)
        if text == NULL:
            ERR_clear_error()
            raise MemoryError
        try:
            return int(text, 16)
        finally:
            OPENSSL_free(text)

    @property
    def not_before(self):
        """Start of validity: a datetime in UTC; None when null, or when the field holds no time."""
        if self.x509 == NULL:
            return None
        return utc_time(X509_get0_notBefore(self.x509))

    @property
    def not_after(self):
        """End of validity: a datetime in UTC; None when null, or when the field holds no time."""
        if self.x509 == NULL:
            return None
        return utc_time(X509_get0_notAfter(self.x509))

    @property
    def subject_alternative_names(self):
        """The subjectAltName extension as a list of (kind, text), in order; empty where there is none, or
        none that parses.

        Kinds: "DNS", "IP" (as `ipaddress` writes it), "email", "URI", "dirname" (RFC 2253), "RID" and, as
        OpenSSL prints them, "othername", "X400", "EDI party". Characters that do not print are escaped as in
        `subject`.
        """
        cdef GENERAL_NAMES *names
        cdef int index
        cdef list found = []
        if self.x509 == NULL:
            return []
        names = <GENERAL_NAMES *> X509_get_ext_d2i(self.x509, NID_subject_alt_name, NULL, NULL)
        if names == NULL:
            ERR_clear_error()
            return []
        try:
            for index in range(sk_GENERAL_NAME_num(names)):
                found.append(general_name(sk_GENERAL_NAME_value(names, index)))
            return found
        finally:
            GENERAL_NAMES_free(names)
            ERR_clear_error()

    def digest(self, str name not None="sha256"):
        """The fingerprint: bytes, the digest of the DER; empty when null.

        name: as EVP_MD_fetch(3) knows it, "sha256" or "SHA3-256" for instance. ValueError: there is no such
        digest.
        """
        cdef unsigned char out[64]
        cdef unsigned int size = 0
        cdef EVP_MD *digest = NULL
        cdef bytes encoded = name.encode()
        cdef int ok
        if b"\0" not in encoded:
            digest = EVP_MD_fetch(NULL, PyBytes_AS_STRING(encoded), NULL)
        if digest == NULL:
            ERR_clear_error()
            raise ValueError(f"unknown digest: {name!r}")
        if self.x509 == NULL:
            EVP_MD_free(digest)
            return b""
        ok = X509_digest(self.x509, digest, out, &size)
        EVP_MD_free(digest)
        if ok != 1:
            reason = openssl_reason()
            ERR_clear_error()
            raise ValueError(f"the digest {name!r} cannot be used here (OpenSSL: {reason})")
        return out[:size]

    def to_pem(self):
        """The certificate as PEM text in bytes; empty when null."""
        cdef BIO *bio
        cdef char *data = NULL
        cdef long size
        if self.x509 == NULL:
            return b""
        bio = BIO_new(BIO_s_mem())
        try:
            if bio == NULL or PEM_write_bio_X509(bio, self.x509) != 1:
                raise MemoryError
            size = BIO_get_mem_data(bio, &data)
            return data[:size]
        finally:
            BIO_free(bio)
            ERR_clear_error()

    def to_der(self):
        """The certificate as DER; empty when null."""
        return self.encode(False)

    cdef bytes encode(self, bint with_trust):
        """DER and, where they are wanted and there are some, the trust settings; empty when null."""
        cdef unsigned char *out = NULL
        cdef int size
        if self.x509 == NULL:
            return b""
        size = i2d_X509_AUX(self.x509, &out) if with_trust else i2d_X509(self.x509, &out)
        if size < 0:
            ERR_clear_error()
            raise MemoryError
        try:
            return out[:size]
        finally:
            OPENSSL_free(out)

    def __repr__(self):
        if self.x509 == NULL:
            return f"<SslCertificate null: {self._error}>"
        names = ", ".join(self.subject.get("CN", ())) or "without a CN"
        end = self.not_after
        return f"<SslCertificate {names}, not after {end.isoformat() if end else 'unknown'}>"

    def __reduce__(self):
        return _restore_certificate, (self.encode(True), self._error)
