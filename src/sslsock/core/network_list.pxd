from source_table cimport source_address


cdef class NetworkList:
    cdef source_address *starts
    cdef unsigned char *verdicts
    cdef Py_ssize_t count

    cdef bint holds_address(self, const source_address *address) noexcept nogil
