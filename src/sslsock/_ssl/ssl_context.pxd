from sslsock._ssl.ssl_trust cimport TrustingContext


cdef struct protocol_list:  # what a server chooses from (RFC 7301), as on the wire
    unsigned int size
    unsigned char data[1]


cdef class _SSLContext(TrustingContext):
    cdef protocol_list *protocols  # owned
    cdef bint checks_hostname
    cdef unsigned int host_flags
    cdef readonly int protocol
    cdef bint wants_post_handshake_auth
    cdef bytes own_mark  # of sessions that no other context is to resume; None: nobody has its ticket keys

    cdef int set_defaults(self) except -1
    cdef int set_version(self, long version, bint minimum) except -1
    cdef int set_mode(self, mode) except -1
