"""`SSLSession`: what a client keeps of a connection to resume it."""

cimport cython
from libc.string cimport memcmp

cimport openssl_ssl as ssl
from openssl_ssl cimport SSL_SESSION


@cython.final
cdef class SSLSession:
    """A TLS session, from `SSLSocket.session` or `SSLObject.session`: to be given to a later connection of the same context.

    Equal to another with the same `id`.
    """

    def __init__(self):
        raise TypeError("cannot create 'SSLSession' instances")

    @staticmethod
    cdef SSLSession wrap(SSL_SESSION *session, object context):
        """Takes over the reference."""
        cdef SSLSession made = SSLSession.__new__(SSLSession)
        made.session = session
        made.context = context
        return made

    def __dealloc__(self):
        if self.session != NULL:
            ssl.SSL_SESSION_free(self.session)

    def __repr__(self):
        return f"<{type(self).__name__} time={self.time} timeout={self.timeout} has_ticket={self.has_ticket}>"

    @property
    def id(self):
        """Session id: bytes."""
        cdef unsigned int size = 0
        cdef const unsigned char *start = ssl.SSL_SESSION_get_id(self.session, &size)
        return (<const char *> start)[:size]

    @property
    def time(self):
        """Session creation time (seconds since epoch)."""
        return ssl.compat_session_time(self.session)

    @property
    def timeout(self):
        """Session timeout (delta in seconds)."""
        return ssl.SSL_SESSION_get_timeout(self.session)

    @property
    def ticket_lifetime_hint(self):
        """Ticket life time hint."""
        return ssl.SSL_SESSION_get_ticket_lifetime_hint(self.session)

    @property
    def has_ticket(self):
        """Does the session contain a ticket?"""
        return bool(ssl.SSL_SESSION_has_ticket(self.session))

    def __eq__(self, other):
        cdef unsigned int own_size = 0, other_size = 0
        cdef const unsigned char *own
        cdef const unsigned char *others
        if not isinstance(other, SSLSession):
            return NotImplemented
        if self is other:
            return True
        own = ssl.SSL_SESSION_get_id(self.session, &own_size)
        others = ssl.SSL_SESSION_get_id((<SSLSession> other).session, &other_size)
        return own_size == other_size and memcmp(own, others, own_size) == 0

    __hash__ = None
