cdef bytes read_file(path)
cdef int check_file(path) except -1
cpdef object state_of(path)
cpdef list names_in(path)
