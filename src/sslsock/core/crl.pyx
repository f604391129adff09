"""Certificate revocation lists: values, made from bytes once and never changed, as certificates are."""

cimport cython

from openssl_err cimport ERR_clear_error
from openssl_x509 cimport *
from sslsock.core.certificate cimport name_fields, utc_time
from sslsock.core.loaded cimport Loaded
from sslsock.core.loading cimport Loader

from sslsock.core.encoded import SslEncoding


@cython.final
cdef class CrlLoader(Loader):
    def __cinit__(self):
        self.wanted = self.damaged = "a certificate revocation list"
        self.word = "list"
        self.labels, self.containers = frozenset((b"X509 CRL",)), frozenset()

    cdef object decode(self, bytes label, const unsigned char **data, long size):
        cdef X509_CRL *crl = d2i_X509_CRL(NULL, data, size)
        return SslCrl.wrap(crl) if crl != NULL else None


cdef CrlLoader loader = CrlLoader()


@cython.final
cdef class SslCrl(Loaded):
    """SslCrl(encoded=b"", format=SslEncoding.PEM)
--

    A certificate revocation list (RFC 5280, 5). Immutable; equal, hashed and pickled by its DER.

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
        cdef SslCrl loaded
        loaded, self._error = loader.load(encoded, format)
        if loaded is not None:
            self.crl, loaded.crl = loaded.crl, NULL

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
        return loader.all_of(data)

    @staticmethod
    def from_path(path):
        """All lists in a file, as `from_bytes` finds them. OSError: the file cannot be read. ValueError names the file too."""
        return loader.all_in(path)

    cdef bint is_null(self) noexcept:
        return self.crl == NULL

    cdef bytes whole(self):
        return self.encode()

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

    def __repr__(self):
        if self.crl == NULL:
            return f"<SslCrl null: {self._error}>"
        names = ", ".join(self.issuer.get("CN", ())) or "without a CN"
        end = self.next_update
        return f"<SslCrl of {names}, next update {end.isoformat() if end else 'unknown'}>"

    def __reduce__(self):
        return SslCrl, (self.encode(), SslEncoding.DER)
