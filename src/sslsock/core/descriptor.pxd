cdef class Descriptor:
    cdef int number  # -1: taken


cdef Descriptor owned(int number)
