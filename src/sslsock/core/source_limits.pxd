from libc.stdint cimport uint32_t

from source_table cimport source_address, source_table, source_verdict


cdef class SourceLimits:
    cdef source_table *table
    cdef uint32_t workers, worker  # how many processes share it, and which of them this one is

    cdef uint32_t number_of(self, Py_ssize_t number) except? 0xFFFFFFFF
    cdef bint is_active(self) noexcept nogil
    cdef source_verdict enter_address(self, source_address *address, bint shakes) noexcept nogil
    cdef void leave_address(self, const source_address *source, bint shakes) noexcept nogil
