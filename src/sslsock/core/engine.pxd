from flag cimport flag
from openssl_ssl cimport SSL_SESSION
from sslsock.core.agreed cimport agreed_values
from sslsock.core.bare_engine cimport BareEngine
from sslsock.core.context cimport Context
from sslsock.core.session cimport SslSession
from sslsock.core.verification cimport verification


cdef enum:
    NEW_SESSIONS = 4


cdef struct new_sessions:
    int count
    SSL_SESSION *sessions[NEW_SESSIONS]  # owned


cdef class Engine(BareEngine):
    cdef readonly Context context

    # what libssl has told
    cdef verification found
    cdef unsigned char *hello  # owned: the digest of the first ClientHello, until the handshake is done; NULL: none
    cdef flag answered  # a client, with a certificate or none, when it was asked after the handshake
    cdef new_sessions *came  # owned: in this call; NULL: none

    # what to check and remember
    cdef str verify_name
    cdef object session_key
    cdef SSL_SESSION *offered  # libssl's, only to compare with; NULL once that is done
    cdef flag marked  # sessions that come are
    cdef SslSession resumed  # what was offered, or None
    cdef SslSession newest  # or None
    cdef object errors  # list of verification errors, as VerifyError; None: none

    cdef object handler_error  # what verify_handler raised
    cdef agreed_values agreed
    cdef size_t record_overhead  # bytes that RECORD_SIZE of plaintext grows by

    cdef str set_names(self, str server_name)
    cdef int set_sessions(self, str server_name, str verify_name, SslSession given) except -1
    # after libssl's calls
    cdef void note_keyed(self) noexcept nogil
    cdef void note_renewed(self) noexcept nogil
    cdef int note_answer(self) except -1
    cdef bint decide(self) noexcept
    cdef int find_key(
        self, const char *said, char *identity, unsigned int identity_room, unsigned char *key, unsigned int key_room) noexcept
    # for programs
    cdef int enter(self) except -1
    cdef int leave(self, int status) except -1
    cdef int require_open(self) except -1
    cdef int require_unclosed(self) except -1
    cdef int look(self) except -1
    cdef int shake_if_needed(self) noexcept
    cdef int pull_some(self, char *data, size_t capacity, size_t *got) noexcept
    cdef bytes pull_rest(self, int *status)
