from openssl_ssl cimport X509_STORE

cdef X509_STORE *system_store() except NULL
cdef int add_system_authorities(X509_STORE *store) except -1
cdef bint add_system_folder(X509_STORE *store) noexcept
