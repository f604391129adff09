cimport cython

from openssl_x509 cimport EVP_PKEY


@cython.final
cdef class SslKey:
    cdef EVP_PKEY *pkey  # owned; NULL: `null`
    cdef str _error
    cdef object _type  # KeyType
    cdef object _algorithm  # KeyAlgorithm, or None
