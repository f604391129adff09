"""`SSLSession`: what a client keeps of a connection to resume it."""

cimport cython
from libc.string cimport memcmp

cimport openssl_ssl as ssl
from openssl_ssl cimport SSL_SESSION

cdef enum:
    SESSIONS_PER_NAME = 8
    SESSION_NAMES = 256


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


@cython.final
cdef class KeptSessions:
    """Those of a client's context, for all threads.

    They are held in the critical section of this object, not in the dict's: each operation of a dict takes the dict's own, and who takes
    one for the second time lets go of it while it waits for itself.
    """

    def __cinit__(self):
        self.by_name = {}

    @cython.critical_section
    cdef int keep(self, str name, SSLSession session) except -1:
        cdef list sessions = self.by_name.pop(name, None) or []
        self.by_name[name] = sessions
        sessions.append(session)
        if len(sessions) > SESSIONS_PER_NAME:
            del sessions[0]
        if len(self.by_name) > SESSION_NAMES:
            del self.by_name[next(iter(self.by_name))]
        return 0

    @cython.critical_section
    cdef SSLSession take(self, str name):
        """The newest for the name that can be resumed, or None. One of TLS 1.3 is taken once: RFC 8446, C.4."""
        cdef SSLSession newest
        cdef list sessions = self.by_name.get(name)
        while sessions:
            newest = <SSLSession> sessions.pop()
            if ssl.SSL_SESSION_is_resumable(newest.session):
                if ssl.SSL_SESSION_get_protocol_version(newest.session) < ssl.TLS1_3_VERSION:
                    sessions.append(newest)
                return newest
        return None
