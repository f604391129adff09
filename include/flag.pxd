"""A truth value of one byte, for objects of which there are many: `bint` takes four."""


cdef extern from "<stdbool.h>" nogil:
    ctypedef bint flag "bool"
