cimport cython

from openssl_x509 cimport EVP_PKEY, X509


@cython.final
cdef class SslCertificate:
    cdef X509 *x509  # owned; NULL: `null`
    cdef str _error

    @staticmethod
    cdef SslCertificate wrap(X509 *x509)  # takes over the caller's reference


@cython.final
cdef class SslKey:
    cdef EVP_PKEY *pkey  # owned; NULL: `null`
    cdef str _error
    cdef object _type  # KeyType
    cdef object _algorithm  # KeyAlgorithm, or None
