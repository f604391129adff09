cimport cython

from openssl_x509 cimport X509


@cython.final
cdef class SslCertificate:
    cdef X509 *x509  # owned; NULL: `null`
    cdef str _error

    @staticmethod
    cdef SslCertificate wrap(X509 *x509)  # takes over the caller's reference
    cdef bytes encode(self, bint with_trust)
