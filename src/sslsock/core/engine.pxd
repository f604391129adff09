from cpython.object cimport PyObject

from hello_digest cimport HELLO_DIGEST_SIZE
from openssl_ssl cimport SSL, SSL_SESSION
from sslsock.core.agreed cimport agreed_values
from sslsock.core.context cimport Context
from sslsock.core.verification cimport verification
from window_bio cimport byte_queue, window_bio


cdef enum engine_status:
    ENGINE_OK
    ENGINE_WANT_READ  # more ciphertext is needed
    ENGINE_CLOSED  # the peer said close_notify
    ENGINE_FAILED  # for good; `failure()` says why


cdef enum engine_use:
    USE_FREE  # nobody is inside libssl
    USE_LIBSSL  # a thread is, perhaps without the GIL
    USE_ASKING  # a thread is, and waits for verify_handler
    USE_LENT  # to a relay, for good: nobody else enters


cdef enum:
    NEW_SESSIONS = 4
    RECORD_SIZE = 16384  # most plaintext of one record: RFC 8446, 5.1


cdef struct engine_state:
    verification found  # first: libssl's callbacks get its address and need the rest
    PyObject *engine  # borrowed
    unsigned char hello[HELLO_DIGEST_SIZE]  # of the first ClientHello
    bint hello_seen
    SSL_SESSION *sessions[NEW_SESSIONS]  # owned; came in this call
    int session_count


cdef class Engine:
    cdef SSL *ssl
    cdef window_bio window
    cdef engine_state state
    cdef byte_queue backlog  # ciphertext that was fed and not yet read
    cdef readonly Context context

    # what to check and remember
    cdef str verify_name
    cdef object verify_handler
    cdef object session_key
    cdef SSL_SESSION *offered  # libssl's, only to compare with; NULL once that is done
    cdef object errors  # list of verification errors, as VerifyError; None: none

    # progress
    cdef readonly bint handshake_done
    cdef readonly bint peer_closed
    cdef bint failed, closed
    cdef bint in_backlog  # the open input is the backlog
    cdef object handler_error  # what verify_handler raised
    cdef engine_use use
    cdef agreed_values agreed
    cdef unsigned long error_code
    cdef const char *own_reason  # in place of what libssl says; NULL: none
    cdef int messages  # that came after the last data and brought none
    cdef size_t record_overhead  # bytes that RECORD_SIZE of plaintext grows by

    # whose turn it is
    cdef bint in_use(self) noexcept nogil
    cdef engine_use enter_libssl(self) noexcept nogil
    cdef void leave_libssl(self, engine_use before) noexcept nogil
    cdef int lend(self) except -1
    # handshake
    cdef int set_names(self, str server_name) except -1
    cdef void release_buffers(self, bint wanted) noexcept nogil
    cdef int shake(self) noexcept nogil
    cdef void note_renewed(self) noexcept nogil
    # incoming
    cdef bint open_in(self, const char *data, size_t size) noexcept nogil
    cdef int pull(self, char *data, size_t capacity, size_t *got) noexcept nogil
    cdef int pull_records(self, char *data, size_t capacity, size_t *got) noexcept nogil
    cdef int classify_read(self, int result) noexcept nogil
    cdef int refuse_flood(self) noexcept nogil
    cdef bint close_in(self) noexcept nogil
    cdef bint holds_more(self) noexcept nogil
    # outgoing
    cdef void open_output(self, char *data, size_t capacity) noexcept nogil
    cdef ssize_t take_output(self, byte_queue *rest) noexcept nogil
    cdef int push(self, const char *data, size_t size) noexcept nogil
    cdef int goodbye(self) noexcept nogil
    cdef void refuse(self, int alert) noexcept nogil
    # outcome
    cdef int classify(self, int result) noexcept nogil
    cdef int note_failure(self) noexcept nogil
    cdef int settle(self) except -1
    cdef bint decide(self) noexcept
    cdef object failure(self)
    # the Python half
    cdef int require_free(self) except -1
    cdef int enter(self) except -1
    cdef int leave(self, int status) except -1
    cdef int look(self) except -1
    cdef int shake_if_needed(self) noexcept
    cdef int pull_some(self, char *data, size_t capacity, size_t *got) noexcept
    cdef bytes pull_rest(self, int *status)
