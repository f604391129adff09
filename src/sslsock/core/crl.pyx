"""Certificate revocation lists: values, made from bytes once and never changed, as certificates are."""

cimport cython
from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory

from openssl_err cimport ERR_clear_error
from openssl_x509 cimport *
from sslsock.core.certificate cimport name_fields, utc_time
from sslsock.core.encoded cimport (
    PemPart, Source, contains, free_block, next_block, open_part, openssl_reason, pem_block, pem_parts, refuse_block, refuse_der,
    refuse_text)

import os

from sslsock.core.encoded import SslEncoding
from sslsock.core.foreign import foreign_der

cdef str WANTED = "a certificate revocation list"
cdef bytes LABEL = b"X509 CRL"


cdef X509_CRL *crl_from_der(Source source) except? NULL:
    cdef const unsigned char *p = source.data
    cdef X509_CRL *crl = d2i_X509_CRL(NULL, &p, source.size)
    if crl != NULL and p == source.data + source.size:
        return crl
    X509_CRL_free(crl)
    source.error = refuse_der(source, WANTED)
    return NULL


cdef X509_CRL *crl_from_part(Source source, PemPart part) except? NULL:
    """The list in a block that has the label of one; NULL: `source.error` says why."""
    cdef BIO *bio
    cdef pem_block block
    cdef const unsigned char *p
    cdef X509_CRL *crl
    if part.trouble:
        source.error = part.trouble
        return NULL
    bio = open_part(source, part)
    try:
        if not next_block(bio, &block):
            source.error = f"the PEM text is damaged or truncated (OpenSSL: {openssl_reason()})"
            return NULL
    finally:
        BIO_free(bio)
    try:
        p = block.data
        crl = d2i_X509_CRL(NULL, &p, block.size)
        if crl != NULL and p == block.data + block.size:
            return crl
        source.error = refuse_block(&block, WANTED)
        X509_CRL_free(crl)
        return NULL
    finally:
        free_block(&block)


cdef X509_CRL *crl_from_pem(Source source) except? NULL:
    """The first list of the text, whatever else is before or after it."""
    cdef PemPart part
    other = None
    for part in pem_parts(source):
        if part.trouble or part.label == LABEL:
            return crl_from_part(source, part)
        if other is None:
            other = part.label
    source.error = refuse_text(source, WANTED, other)
    return NULL


cdef list crls_from_pem(Source source):
    """All lists of the text. ValueError."""
    cdef PemPart part
    cdef X509_CRL *crl
    cdef list found = []
    for part in pem_parts(source):
        if part.trouble or part.label == LABEL:
            crl = crl_from_part(source, part)
            if crl == NULL:
                raise ValueError(f"{part.place()}: {source.error}")
            found.append(SslCrl.wrap(crl))
    return found


cdef list crls_from_der(Source source):
    """Lists that follow one another, or an empty list: it is not DER. ValueError."""
    cdef const unsigned char *p = source.data
    cdef const unsigned char *end = source.data + source.size
    cdef const unsigned char *start
    cdef X509_CRL *crl
    cdef list found = []
    while p < end:
        start = p
        crl = d2i_X509_CRL(NULL, &p, end - p)
        if crl == NULL:
            if not found and contains(source, b"-----BEGIN "):
                return found
            reason = refuse_der(Source(PyMemoryView_FromMemory(<char *> start, end - start, PyBUF_READ), True), WANTED)
            raise ValueError(f"list {len(found) + 1} (byte {start - source.data}): {reason}")
        found.append(SslCrl.wrap(crl))
    return found


@cython.final
cdef class SslCrl:
    """A certificate revocation list (RFC 5280, 5). Immutable; equal, hashed and pickled by its DER.

    encoded: any buffer, or for PEM a str. Of PEM text the first list (`X509 CRL`) is loaded, whatever stands around it; DER has to
    be one list and nothing else. Or a list of the package `cryptography`.
    format: `SslEncoding`.

    Data that cannot be loaded makes one that is `null`, with `error_string` saying why. TypeError: `encoded` is neither a buffer nor
    text. ValueError: `format` is no `SslEncoding`. Whether it is signed by the authority that it names, and is of today, is looked at
    when a certificate is verified.
    """

    PEM = SslEncoding.PEM
    DER = SslEncoding.DER

    def __cinit__(self, encoded=b"", format=SslEncoding.PEM):
        encoding = SslEncoding(format)
        cdef Source source
        foreign = foreign_der(encoded)
        if foreign is not None:
            encoded, encoding = foreign, SslEncoding.DER
        source = Source(encoded, encoding is SslEncoding.DER)
        if not source.error:
            ERR_clear_error()
            try:
                if encoding is SslEncoding.DER:
                    self.crl = crl_from_der(source)
                else:
                    self.crl = crl_from_pem(source)
            finally:
                ERR_clear_error()
        self._error = source.error

    def __dealloc__(self):
        X509_CRL_free(self.crl)

    @staticmethod
    cdef SslCrl wrap(X509_CRL *crl):
        cdef SslCrl made
        try:
            made = SslCrl.__new__(SslCrl)
        except BaseException:
            X509_CRL_free(crl)
            raise
        made.crl = crl
        made._error = ""
        return made

    @staticmethod
    def from_bytes(data):
        """All lists in PEM text, or in DER, where they follow one another; a list of SslCrl, empty where there is none.

        data: any buffer or a str. Other PEM blocks, and the text between blocks, are passed over. ValueError: one is damaged or cut off,
        or there is a block whose lines are; the number of the block and its first line are named. TypeError: `data` is neither a
        buffer nor text.
        """
        cdef Source source = Source(data, False)
        cdef list found = []
        if source.size == 0:
            return found
        if source.error:
            raise ValueError(source.error)
        ERR_clear_error()
        try:
            if source.data[0] == 0x30:
                found = crls_from_der(source)
            return found or crls_from_pem(source)
        finally:
            ERR_clear_error()

    @staticmethod
    def from_path(path):
        """All lists in a file, as `from_bytes` finds them. OSError: the file cannot be read. ValueError names the file too."""
        path = os.fspath(path)
        with open(path, "rb") as file:
            data = file.read()
        try:
            return SslCrl.from_bytes(data)
        except ValueError as exc:
            raise ValueError(f"{os.fsdecode(path)}: {exc}") from None

    @property
    def null(self):
        """True when nothing was loaded."""
        return self.crl == NULL

    @property
    def error_string(self):
        """Why nothing was loaded, in words; empty otherwise."""
        return self._error

    @property
    def issuer(self):
        """The authority that it is of, written as `SslCertificate.subject` is."""
        if self.crl == NULL:
            return {}
        return name_fields(X509_CRL_get_issuer(self.crl))

    @property
    def last_update(self):
        """When it was issued: a datetime in UTC; None when null, or when the field holds no time."""
        if self.crl == NULL:
            return None
        return utc_time(X509_CRL_get0_lastUpdate(self.crl))

    @property
    def next_update(self):
        """When the next is due, after which this one does not count: a datetime in UTC; None when null, or without that field."""
        if self.crl == NULL:
            return None
        return utc_time(X509_CRL_get0_nextUpdate(self.crl))

    def to_der(self):
        """The list as DER; empty when null."""
        return self.encode()

    cdef bytes encode(self):
        cdef unsigned char *out = NULL
        cdef int size
        if self.crl == NULL:
            return b""
        size = i2d_X509_CRL(self.crl, &out)
        if size < 0:
            ERR_clear_error()
            raise MemoryError
        try:
            return out[:size]
        finally:
            OPENSSL_free(out)

    def __eq__(self, other):
        if not isinstance(other, SslCrl):
            return NotImplemented
        return self is other or self.encode() == (<SslCrl> other).encode()

    def __hash__(self):
        return hash(self.encode())

    def __repr__(self):
        if self.crl == NULL:
            return f"<SslCrl null: {self._error}>"
        names = ", ".join(self.issuer.get("CN", ())) or "without a CN"
        end = self.next_update
        return f"<SslCrl of {names}, next update {end.isoformat() if end else 'unknown'}>"

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return SslCrl, (self.encode(), SslEncoding.DER)
