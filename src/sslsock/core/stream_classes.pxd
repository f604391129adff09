from sslsock.core.stream_state cimport ReaderState


cdef object reader_class, writer_class, protocol_class

cdef int adopt(object protocol) except -1
cdef ReaderState fed_by(object protocol)
