from sslsock.core.bare_engine cimport BareEngine
from sslsock.core.consumer cimport channel_failure
from sslsock.core.handshake_pool cimport HandshakePool


cdef class TlsStart:
    cdef BareEngine engine
    cdef object tls_object, context
    cdef double handshake_timeout, shutdown_timeout
    cdef bint half_close
    cdef HandshakePool pool  # or None

    cdef object failure_of(self, const channel_failure *failure)
    cdef object worded(self, error)
    cdef object found_out(self, name, bint begun)
