from openssl_ssl cimport X509_STORE

cdef X509_STORE *file_store(bytes path) except? NULL
cdef int add_store(X509_STORE *store, X509_STORE *other) except -1
