from sslsock.core.acceptor cimport Acceptor


cdef class HandshakePlace:
    cdef ProtocolListener listener  # None once the handshake is over

    cdef int leave(self) except -1


cdef class ProtocolListener(Acceptor):
    cdef object host  # the asyncio loop
    cdef object sock
    cdef readonly object protocol_factory
    cdef public object start_tls
    cdef public object enter
    cdef object server
    cdef object transports  # by descriptor, of the asyncio loop
    cdef object context  # in which the server was made
    cdef Py_ssize_t most_shaking
    cdef readonly Py_ssize_t shaking  # handshakes that are under way, where they are bounded
    cdef bint refused  # accepting has failed since the last connection

    cdef int serve(self, object connection, bytes peer, object extra, object start_tls, HandshakePlace place) except -1
    cdef int give(self, object descriptor, bytes peer, HandshakePlace place) except -1
    cdef int tell(self, str message, object exc, object protocol) except -1
