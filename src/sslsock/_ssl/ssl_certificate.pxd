cimport cython

from openssl_x509 cimport ASN1_OBJECT, X509


cdef dict decode_certificate(X509 *x)
cdef bytes certificate_der(X509 *x)
cdef str object_text(const ASN1_OBJECT *identifier, bint number)


@cython.final
cdef class Certificate:
    cdef X509 *x509  # owned

    @staticmethod
    cdef Certificate wrap(X509 *x509)  # takes over the caller's reference
