from source_table cimport source_address, source_table, source_verdict


cdef class SourceLimits:
    cdef source_table *table
    cdef readonly bint active

    cdef source_verdict enter_address(self, source_address *address, bint shakes) noexcept nogil
    cdef void leave_address(self, const source_address *source, bint shakes) noexcept nogil
