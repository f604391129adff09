"""TLS sessions that a client may resume: values, from a connection or from bytes.

A resumption verifies nothing. So each session bears, as its session id context (which libssl copies from the connection, and writes
with the session), the mark of what decided about its peer (`Context.mark_of`), and is offered where that is the same only.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcmp
from libc.time cimport time, time_t

cimport openssl_ssl as ssl
from openssl_err cimport ERR_clear_error
from openssl_ssl cimport SSL_SESSION
from openssl_x509 cimport ASN1_TIME_cmp_time_t, X509, X509_get0_notAfter, X509_up_ref
from sslsock.core.certificate cimport SslCertificate
from sslsock.core.loaded cimport Loaded
from sslsock.core.encoded cimport Source, refuse_der

from datetime import datetime, timezone

cdef enum:
    MOST_AGE = 604800  # seconds: RFC 8446, 4.6.1


cdef SSL_SESSION *session_from_der(Source source) except? NULL:
    cdef const unsigned char *p = source.data
    cdef SSL_SESSION *session = ssl.d2i_SSL_SESSION(NULL, &p, source.size)
    if session != NULL and p == source.data + source.size:
        return session
    if session != NULL:
        source.error = f"bytes too many after the TLS session: {source.data + source.size - p}"
    else:
        source.error = refuse_der(source, "a TLS session")
    ssl.SSL_SESSION_free(session)
    return NULL


@cython.final
cdef class SslSession(Loaded):
    """SslSession(encoded=b"")
--

    A TLS session that a client may resume: what spares the next connection to the same server a full handshake. From
    `SslSocket.session` or `SslSocket.new_session_handler`, and given to the next socket as its `session`. Immutable; equal and
    hashed by its bytes. It holds a secret, like a private key, which is shown nowhere and pickled never.

    encoded: bytes-like, what `to_bytes` has given.

    It is bound to what decided about the server: verification (mode, name, authorities, flags, revocation lists), the own
    certificate, protocol, ciphers and groups. Where one of these differs, or the server's certificate has ended, it is not offered,
    and the handshake is a full one. Data that cannot be loaded makes a session that is `null`, with `error_string` saying why, and
    is never offered either. TypeError: `encoded` is no buffer.
    """

    def __cinit__(self, encoded=b""):
        cdef Source source = Source(encoded, True)
        if not source.error:
            ERR_clear_error()
            try:
                self.session = session_from_der(source)
            finally:
                ERR_clear_error()
        self._error = source.error

    def __dealloc__(self):
        ssl.SSL_SESSION_free(self.session)

    @staticmethod
    cdef SslSession wrap(SSL_SESSION *session):
        cdef SslSession made
        try:
            made = SslSession.__new__(SslSession)
        except BaseException:
            ssl.SSL_SESSION_free(session)
            raise
        made.session = session
        made._error = ""
        return made

    cdef bint serves(self, bytes mark) noexcept:
        """Whether it may be offered by a client with this mark, now."""
        cdef unsigned int size = 0
        cdef const unsigned char *own
        cdef const X509 *peer
        cdef time_t now = time(NULL)
        cdef long age, lifetime
        if self.session == NULL or ssl.SSL_SESSION_is_resumable(self.session) != 1:
            return False
        own = ssl.SSL_SESSION_get0_id_context(self.session, &size)
        if size != <size_t> PyBytes_GET_SIZE(mark) or memcmp(own, PyBytes_AS_STRING(mark), size) != 0:
            return False
        age = now - ssl.compat_session_time(self.session)
        lifetime = <long> ssl.SSL_SESSION_get_ticket_lifetime_hint(self.session)
        if age > MOST_AGE or (lifetime > 0 and age > lifetime):
            return False
        peer = ssl.SSL_SESSION_get0_peer(self.session)
        return peer == NULL or ASN1_TIME_cmp_time_t(X509_get0_notAfter(peer), now) == 1

    cdef bint is_null(self) noexcept:
        return self.session == NULL

    cdef bytes whole(self):
        return self.to_bytes()

    @property
    def protocol(self):
        """Version number of the protocol, as those of SslProtocol are: int, 0 when null. A session of TLS 1.3 should serve once
        only (RFC 8446, C.4)."""
        return ssl.SSL_SESSION_get_protocol_version(self.session) if self.session != NULL else 0

    @property
    def created(self):
        """When the server gave it: a datetime in UTC; None when null, or when its bytes hold no such time."""
        found = None
        if self.session != NULL:
            try:
                found = datetime.fromtimestamp(ssl.compat_session_time(self.session), timezone.utc)
            except (OverflowError, ValueError, OSError):  # bytes of somebody else's making
                pass
        return found

    @property
    def ticket_lifetime_hint(self):
        """Seconds from `created` for which the server means to accept it: int, 0 when it did not say, or null."""
        return ssl.SSL_SESSION_get_ticket_lifetime_hint(self.session) if self.session != NULL else 0

    @property
    def peer_certificate(self):
        """The server's certificate: SslCertificate; None when null."""
        cdef X509 *peer = NULL
        if self.session != NULL:
            peer = <X509 *> ssl.SSL_SESSION_get0_peer(self.session)
        if peer == NULL:
            return None
        X509_up_ref(peer)
        return SslCertificate.wrap(peer)

    def to_bytes(self):
        """The session as bytes (the DER of OpenSSL's SSL_SESSION), to be kept as safe as a private key; empty when null. Who can
        read them can read what connections that resume it say; who can change them can be taken for the server."""
        cdef int size = 0
        cdef unsigned char *p
        cdef bytes der
        if self.session == NULL:
            return b""
        size = ssl.i2d_SSL_SESSION(self.session, NULL)
        if size > 0:
            der = PyBytes_FromStringAndSize(NULL, size)
            p = <unsigned char *> PyBytes_AS_STRING(der)
            size = ssl.i2d_SSL_SESSION(self.session, &p)
        ERR_clear_error()
        if size <= 0:
            raise MemoryError
        return der

    def __repr__(self):
        if self.session == NULL:
            return f"<SslSession null: {self._error}>"
        made = self.created
        return f"<SslSession of {made.isoformat() if made else 'an unknown time'}, with {self.peer_certificate!r}>"

    def __reduce__(self):
        raise TypeError("an SslSession is not pickled: it holds a secret; `to_bytes` gives it")
