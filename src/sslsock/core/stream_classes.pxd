cdef object reader_class, writer_class, protocol_class

cdef int adopt(object protocol) except -1
