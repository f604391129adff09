cimport cython

from openssl_x509 cimport ASN1_TIME, X509, X509_NAME
from sslsock.core.loaded cimport Loaded


cdef dict name_fields(const X509_NAME *name)
cdef object utc_time(const ASN1_TIME *time)


@cython.final
cdef class SslCertificate(Loaded):
    cdef object __weakref__
    cdef X509 *x509  # owned; NULL: `null`

    @staticmethod
    cdef SslCertificate wrap(X509 *x509)  # takes over the caller's reference
    cdef bytes encode(self, bint with_trust)
