from openssl_ssl cimport SSL_SESSION


cdef class SSLSession:
    cdef SSL_SESSION *session  # owned
    cdef object context  # the _SSLContext that it came from

    @staticmethod
    cdef SSLSession wrap(SSL_SESSION *session, object context)


cdef class KeptSessions:
    cdef dict by_name  # server name -> list of SSLSession, the newest last; the name that was used last is the last

    cdef int keep(self, str name, SSLSession session) except -1
    cdef SSLSession take(self, str name)
