from openssl_ssl cimport SSL, SSL_CTX, SSL_SESSION
from sslsock._ssl.ssl_session cimport KeptSessions
from system cimport pthread_rwlock_t


cdef class KeyLog:
    """A key log that is open: whoever writes to it keeps it open."""
    cdef int descriptor
    cdef readonly object name


cdef class HookedContext:
    """What of a context libssl's callbacks need. The first field is the SSL_CTX, as in CPython's own (there are no cdef methods,
    which would put a table before it): programs that look for it there find it."""
    cdef SSL_CTX *ctx  # owned
    cdef object sni_handler, msg_handler, psk_client_handler, psk_server_handler  # callables or None
    cdef KeyLog key_log  # or None
    # What a handshake reads of the SSL_CTX itself, its suites, authorities and ALPN list: read-held by whoever is in libssl and may
    # need them, but not in a callback; write-held, with the GIL, by who changes them (`begin_change`).
    cdef pthread_rwlock_t settings
    cdef unsigned long forks  # when the lock was made
    cdef KeptSessions sessions  # None: the program does not want them kept
    cdef object __weakref__


cdef class HookedConnection:
    """What of a connection they need. SSL_get_app_data gives it, borrowed."""
    cdef SSL *ssl  # owned
    cdef HookedContext hooks  # the context it has now; a callback may give it another
    cdef bint moved  # to another context than it was made with
    cdef object owner_reference, socket_reference  # weak, or None
    cdef str session_name  # under which its sessions are kept, None: they are not
    cdef KeptSessions session_store  # where: `sessions` of its context as it was made, which a change of what is verified replaces
    cdef bint keeps_sessions  # the same, for when the object's parts may be gone
    cdef bint holds_settings  # of `hooks`, but for a callback
    cdef object raised  # what a callback has raised; the call it happened in raises it
    cdef bint puts_off  # its engine does (bare_engine.pyx)
    cdef bint in_pool  # and is where it has put it off to


cdef class Password:
    cdef object given  # str, bytes, bytearray or a callable
    cdef bint failed
    cdef object raised


cdef unsigned long fork_count() noexcept nogil
cdef bint has_forked(unsigned long thread) noexcept nogil
cdef void see_fork(HookedContext context) noexcept
cdef void begin_change(HookedContext context) noexcept
cdef void end_change(HookedContext context) noexcept
cdef object take_raised(HookedConnection connection)
cdef HookedContext context_of(HookedConnection connection)

cdef int on_certificate(SSL *connection, void *argument) noexcept nogil
cdef int on_server_name(SSL *connection, int *alert, void *argument) noexcept nogil
cdef void on_message(
    int write, int version, int content, const void *data, size_t size, SSL *connection, void *argument) noexcept nogil
cdef void on_key_log(const SSL *connection, const char *line) noexcept nogil
cdef unsigned int on_psk_client(
    SSL *connection, const char *hint, char *identity, unsigned int identity_room, unsigned char *key,
    unsigned int key_room) noexcept nogil
cdef unsigned int on_psk_server(
    SSL *connection, const char *identity, unsigned char *key, unsigned int key_room) noexcept nogil
cdef int on_new_session(SSL *connection, SSL_SESSION *session) noexcept nogil
cdef int on_password(char *buffer, int size, int writing, void *argument) noexcept nogil
