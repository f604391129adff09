"""Memory for the length of a call (scratch.h)."""


cdef extern from "scratch.h" nogil:
    char *scratch_take(size_t size)
    void scratch_give(char *memory)
