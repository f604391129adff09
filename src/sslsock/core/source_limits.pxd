from source_table cimport source_address, source_table, source_verdict


cdef class SourceLimits:
    cdef source_table *table
    cdef int limited  # a truth that other threads ask for

    cdef bint is_active(self) noexcept nogil
    cdef source_verdict enter_address(self, source_address *address, bint shakes) noexcept nogil
    cdef void leave_address(self, const source_address *source, bint shakes) noexcept nogil
