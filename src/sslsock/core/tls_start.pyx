"""TlsStart: how TLS begins on an asyncio transport, and what it then has to tell."""

import errno

cimport cython

from sslsock.core.bare_engine cimport BareEngine
from sslsock.core.handshake_pool cimport HandshakePool
from sslsock.core.consumer cimport (
    FAILED_HANDSHAKE, FAILED_HANDSHAKE_CLOSED, FAILED_HANDSHAKE_TIMEOUT, FAILED_TLS, channel_failure)
from window_bio cimport byte_queue_append

from sslsock.core.engine import TlsError


@cython.final
cdef class TlsStart:
    """How TLS begins on a connection.

    engine: BareEngine; it has the names and settings. tls_object: ssl.SSLObject by which programs look at it, or None. context: what
    was given as `ssl`. handshake_timeout, shutdown_timeout: seconds. half_close: whether each direction ends by itself. pool: HandshakePool
    for what is dear in it, or None.
    """

    def __cinit__(
            self, BareEngine engine not None, tls_object, context, double handshake_timeout, double shutdown_timeout,
            bint half_close=False, HandshakePool pool=None):
        self.engine = engine
        self.tls_object = tls_object
        self.context = context
        self.handshake_timeout = handshake_timeout
        self.shutdown_timeout = shutdown_timeout
        self.half_close = half_close
        self.pool = pool

    def feed(self, bytes data not None):
        """Ciphertext that was received before: it is read first."""
        if not byte_queue_append(&self.engine.backlog, data, len(data)):
            raise MemoryError

    cdef object failure_of(self, const channel_failure *failure):
        """The exception for what has gone wrong in TLS. None: the failure is another's."""
        if failure.kind == FAILED_HANDSHAKE_TIMEOUT:
            return ConnectionAbortedError(
                f"SSL handshake is taking longer than {self.handshake_timeout} seconds: aborting the connection")
        if failure.kind == FAILED_HANDSHAKE_CLOSED:
            return ConnectionResetError(errno.ECONNRESET, "the peer closed the connection in the TLS handshake")
        if failure.kind != FAILED_TLS and failure.kind != FAILED_HANDSHAKE:
            return None
        error = self.engine.failure()
        if isinstance(error, TlsError):
            return self.worded(error)
        if isinstance(error, BaseException):
            return error
        import ssl

        code = failure.verify_result
        if code == 0:
            return ssl.SSLError(ssl.SSL_ERROR_SSL, error)
        refused = ssl.SSLCertVerificationError(ssl.SSL_ERROR_SSL, error)
        refused.verify_code, refused.verify_message = code, error
        return refused

    cdef object worded(self, error):
        """A TlsError as `ssl` would have raised it."""
        import ssl

        errors = (<object> self.engine).verify_errors
        if errors and error.reason == "certificate verify failed":
            made = ssl.SSLCertVerificationError(ssl.SSL_ERROR_SSL, str(error))
            made.verify_code, made.verify_message = errors[0][0], errors[0][2]
        else:
            made = ssl.SSLError(ssl.SSL_ERROR_SSL, str(error))
        made.library, made.reason = "SSL", error.reason.upper().replace(" ", "_")
        return made

    cdef object found_out(self, name, bint begun):
        """What `get_extra_info` is to say; None: nothing. begun: whether the handshake is done."""
        tls_object = self.tls_object
        if tls_object is None or name == "ssl_object":
            return tls_object
        if not begun:
            return None
        if name == "peercert":
            return tls_object.getpeercert()
        if name == "session_reused":
            return getattr(tls_object, "session_reused", None)
        # What is not in every `ssl`: `group` comes with CPython 3.15, and others' objects have what they have.
        if name not in ("cipher", "compression", "tls_version", "group", "requested_server_name"):
            return None
        member = "version" if name == "tls_version" else name
        method = getattr(tls_object, member, None) or getattr(getattr(tls_object, "_sslobj", None), member, None)
        found = None
        if method is not None:
            try:
                found = method()
            except NotImplementedError:
                pass  # `group`, where the OpenSSL of `ssl` is older than 3.2
        return found
