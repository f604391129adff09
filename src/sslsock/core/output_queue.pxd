cdef class OutputQueue:
    cdef bytes piece  # the first; None while there is none
    cdef size_t offset  # in it: what is before is used up
    cdef list behind  # of bytes, the pieces behind it; None while there are none
    cdef Py_ssize_t used  # places of `behind` that are empty
    cdef size_t size  # bytes in all

    cdef int append(self, bytes piece) except -1
    cdef size_t front(self, const char **data) noexcept
    cdef size_t join(self, char *memory, size_t room) noexcept
    cdef void advance(self, size_t size) noexcept
    cdef bytes next(self)
    cdef void clear(self) noexcept
