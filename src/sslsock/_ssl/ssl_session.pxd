from openssl_ssl cimport SSL_SESSION


cdef class SSLSession:
    cdef SSL_SESSION *session  # owned
    cdef object context  # the _SSLContext that it came from

    @staticmethod
    cdef SSLSession wrap(SSL_SESSION *session, object context)
