"""Connections from an address that is another machine's (transparent.h)."""


cdef extern from "transparent.h" nogil:
    int c_set_transparent "set_transparent"(int fd, int family)
