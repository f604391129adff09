from sslsock.core.protocol_transport cimport ProtocolTransport


cdef class SocketTransport(ProtocolTransport):
    cdef readonly object _server
    cdef readonly int _sock_fd

    cdef object sock  # socket.socket, None where there is none, and nobody has asked for one
    cdef bytes own, peer  # names as the system has them

    cdef object name_of(self, bytes raw, str method)
