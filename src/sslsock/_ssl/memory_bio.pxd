from window_bio cimport byte_queue


cdef class MemoryBIO:
    cdef byte_queue queue
    cdef bint eof_written
