cdef class Loaded:
    cdef str _error

    cdef bint is_null(self) noexcept
    cdef bytes whole(self)
