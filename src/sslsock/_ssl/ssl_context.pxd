from openssl_ssl cimport EVP_PKEY, OPENSSL_STACK, X509
from sslsock._ssl.ssl_hooks cimport HookedContext, Password


cdef struct protocol_list:  # what a server chooses from (RFC 7301), as on the wire; never changed once libssl can see it
    protocol_list *earlier
    unsigned int size
    unsigned char data[1]


cdef class _SSLContext(HookedContext):
    cdef protocol_list *protocols  # owned, with all earlier ones: a handshake in another thread may be reading any
    cdef bint checks_hostname
    cdef unsigned int host_flags
    cdef readonly int protocol
    cdef bint wants_post_handshake_auth

    cdef int set_version(self, long version, bint minimum) except -1
    cdef int set_mode(self, mode) except -1
    cdef int add_certificates(self, given) except -1
    cdef int add_from_memory(self, const char *data, int size, bint pem) except -1
    cdef int add_locations(self, bytes file, bytes folder) except -1
    cdef int use_identity(self, bytes chain, bytes key, keyfile, Password asked) except -1


cdef dict cipher_dict(const void *cipher)
cdef tuple cipher_tuple(const void *cipher)
