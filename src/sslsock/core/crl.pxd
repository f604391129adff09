cimport cython

from openssl_x509 cimport X509_CRL
from sslsock.core.loaded cimport Loaded


@cython.final
cdef class SslCrl(Loaded):
    cdef X509_CRL *crl  # owned; NULL: `null`

    @staticmethod
    cdef SslCrl wrap(X509_CRL *crl)  # takes over the caller's reference
    cdef bytes encode(self)
