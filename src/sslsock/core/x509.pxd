from openssl_x509 cimport EVP_PKEY, X509


cdef class SslCertificate:
    cdef X509 *x509  # owned; NULL: `null`
    cdef str _error

    @staticmethod
    cdef SslCertificate wrap(X509 *x509)  # takes over the caller's reference


cdef class SslKey:
    cdef EVP_PKEY *pkey  # owned; NULL: `null`
    cdef str _error
    cdef object _type
    cdef object _algorithm
