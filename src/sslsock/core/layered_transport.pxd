from sslsock.core.protocol_transport cimport ProtocolTransport


cdef class LayeredTransport(ProtocolTransport):
    cdef object lower
