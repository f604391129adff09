from sslsock.core.bare_engine cimport BareEngine
from sslsock.core.consumer cimport channel_failure


cdef class TlsStart:
    cdef BareEngine engine
    cdef object tls_object, context
    cdef double handshake_timeout, shutdown_timeout
    cdef bint half_close

    cdef object failure_of(self, const channel_failure *failure)
    cdef object found_out(self, name, bint begun)
