cdef class OutputQueue:
    cdef list pieces  # of bytes; None while there are none
    cdef Py_ssize_t first  # of them that is not used up
    cdef size_t offset  # in that one
    cdef size_t size  # bytes in all

    cdef int append(self, bytes piece) except -1
    cdef size_t front(self, const char **data) noexcept
    cdef size_t join(self, char *memory, size_t room) noexcept
    cdef void advance(self, size_t size) noexcept
    cdef void clear(self) noexcept
