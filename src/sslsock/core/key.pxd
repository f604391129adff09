cimport cython

from openssl_x509 cimport EVP_PKEY
from sslsock.core.loaded cimport Loaded


@cython.final
cdef class SslKey(Loaded):
    cdef EVP_PKEY *pkey  # owned; NULL: `null`
    cdef object _type  # KeyType
    cdef object _algorithm  # KeyAlgorithm, or None
