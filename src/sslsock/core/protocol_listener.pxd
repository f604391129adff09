from sslsock.core.acceptor cimport Acceptor
from sslsock.core.loop cimport Loop


cdef class ProtocolListener(Acceptor):
    cdef object host  # the asyncio loop
    cdef object sock
    cdef object protocol_factory
    cdef object start_tls  # gives a TlsStart, None: no TLS
    cdef object server
    cdef object transports  # by descriptor, of the asyncio loop
    cdef object context  # in which the server was made
    cdef bint refused  # accepting has failed since the last connection

    cdef int serve(self, object descriptor, bytes peer, int fd) except -1
    cdef int tell(self, str message, object exc, object protocol) except -1
