cdef int feed(object reader, object data) except -1
