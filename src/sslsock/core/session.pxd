cimport cython

from openssl_ssl cimport SSL_SESSION


@cython.final
cdef class SslSession:
    cdef SSL_SESSION *session  # owned; NULL: `null`
    cdef str _error

    @staticmethod
    cdef SslSession wrap(SSL_SESSION *session)  # takes over the caller's reference
    cdef bint serves(self, bytes mark) noexcept
