from system cimport sockaddr, socklen_t


cdef bytes raw_name(const sockaddr *name, socklen_t size)
cdef bytes raw_sockname(int fd)
cdef bytes raw_peername(int fd)
cdef int family_of(bytes raw)
cdef object socket_name(bytes raw)
