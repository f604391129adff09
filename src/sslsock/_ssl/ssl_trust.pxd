from openssl_ssl cimport X509_STORE
from sslsock._ssl.ssl_hooks cimport HookedContext


cdef class TrustingContext(HookedContext):
    cdef bint has_authorities  # some, or a place where there may be some
    cdef bint shares_store  # with other contexts: nothing is added to it
    cdef bint shares_system  # and it is the system's, which has a folder besides

    cdef int forget_sessions(self) except -1
    cdef int share(self, X509_STORE *store, bint system) except -1
    cdef X509_STORE *own_store(self) except NULL
    cdef int add_certificates(self, given) except -1
    cdef int add_from_memory(self, const char *data, int size, bint pem) except -1
    cdef int add_file(self, bytes name) except -1
    cdef int add_folder(self, bytes name) except -1
