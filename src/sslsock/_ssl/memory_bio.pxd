from window_bio cimport byte_queue


cdef class MemoryBIO:
    cdef byte_queue queue
    cdef size_t framed  # bytes at its start that a connection has found to be complete records
    cdef bint eof_written
