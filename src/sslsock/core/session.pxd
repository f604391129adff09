cimport cython

from openssl_ssl cimport SSL_SESSION
from sslsock.core.loaded cimport Loaded


@cython.final
cdef class SslSession(Loaded):
    cdef SSL_SESSION *session  # owned; NULL: `null`

    @staticmethod
    cdef SslSession wrap(SSL_SESSION *session)  # takes over the caller's reference
    cdef bint serves(self, bytes mark) noexcept
