cimport cython

from openssl_x509 cimport X509_CRL


@cython.final
cdef class SslCrl:
    cdef X509_CRL *crl  # owned; NULL: `null`
    cdef str _error

    @staticmethod
    cdef SslCrl wrap(X509_CRL *crl)  # takes over the caller's reference
    cdef bytes encode(self)
