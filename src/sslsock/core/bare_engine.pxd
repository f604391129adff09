from flag cimport flag
from openssl_ssl cimport SSL, SSL_CTX, SSL_SESSION, X509_STORE_CTX
from window_bio cimport byte_queue, window_bio
from worker_pool cimport worker_job


cdef enum engine_status:
    ENGINE_OK
    ENGINE_WANT_READ  # more ciphertext is needed
    ENGINE_CLOSED  # the peer said close_notify
    ENGINE_COSTLY  # what the handshake goes on with is dear, and was to be left to another thread (`put_off`)
    ENGINE_FAILED  # for good; `error_code` or `own_reason` says why


cdef enum engine_use:
    USE_FREE  # nobody is inside libssl
    USE_LIBSSL  # a thread is, perhaps without the GIL
    USE_ASKING  # a thread is, and waits for verify_handler
    USE_POOL  # a thread of a pool is, or is to be (handshake_pool.pyx)
    USE_LENT  # to a relay, for good: nobody else enters


cdef extern from "shared_value.h" nogil:
    # See shared_value.pxd.
    engine_use load_use "SHARED_LOAD"(engine_use place)
    void store_use "SHARED_STORE"(engine_use place, engine_use value)


cdef enum:
    RECORD_SIZE = 16384  # most plaintext of one record: RFC 8446, 5.1


cdef struct handshake_step:
    worker_job job
    int status  # what has come of it


cdef class BareEngine:
    cdef SSL *ssl
    cdef window_bio window
    cdef byte_queue backlog  # ciphertext that was fed and not yet read

    # progress
    cdef readonly bint handshake_done
    cdef readonly flag peer_closed
    cdef flag failed, closed
    cdef flag in_backlog  # the open input is the backlog
    cdef engine_use use  # other threads look at it: `load_use`, `store_use`
    cdef unsigned long home  # the thread of the event loop whose it is, as `load_thread` knows it; 0: whoever calls
    cdef unsigned long error_code
    cdef const char *own_reason  # in place of what libssl says; NULL: none
    cdef int messages  # that came after the last data and brought none
    cdef object pool  # HandshakePool that the job was given to, or None
    cdef flag puts_off  # see `put_off`
    cdef handshake_step *given_away  # owned: what another thread does of the handshake; NULL: nothing
    cdef object verify_handler  # whom a derived engine asks, in the handshake, whether to go on in spite of errors; or None
    cdef object pre_shared_key_handler  # whom it asks for a key, or None
    cdef readonly flag certificate_requested  # and the answer has not come
    cdef flag unsettled  # there is something for `settle`
    cdef flag keyed  # what libssl goes on with is a pre-shared key that was given
    cdef int refusal  # the alert that the next ticket is to fail with, 0: none

    cdef int make_ssl(self, SSL_CTX *ctx, bint server_side) except -1
    cdef int share_ssl(self, SSL *connection) except -1
    cdef int set_window(self) except -1
    cdef bint is_server(self) noexcept nogil
    # whose turn it is
    cdef int require_here(self) except -1
    cdef int require_free(self) except -1
    cdef int take_use(self) except -1
    cdef int lend(self) except -1
    cdef bint in_use(self) noexcept nogil
    cdef engine_use enter_libssl(self) noexcept nogil
    cdef void leave_libssl(self, engine_use before) noexcept nogil
    # handshake and outcome
    cdef void release_buffers(self, bint wanted) noexcept nogil
    cdef int classify(self, int result) noexcept nogil
    cdef int note_failure(self) noexcept nogil
    cdef int shake(self) noexcept nogil
    cdef int shake_step(self) noexcept nogil
    cdef int end_step(self) noexcept
    cdef int conclude(self, int status) noexcept nogil
    cdef int note_step(self, int status) noexcept nogil
    cdef bint put_off(self) noexcept
    cdef bint can_put_off(self) noexcept
    cdef list settle(self)
    cdef str ask_for_certificate(self)
    cdef object failure(self)
    cdef long verify_result(self) noexcept nogil
    # called by libssl, for connections of a Context
    cdef int check_chain(self, X509_STORE_CTX *store) noexcept nogil
    cdef int note_session(self, SSL_SESSION *session) noexcept nogil
    cdef int check_hello(self) noexcept nogil
    cdef int give_key(
        self, const char *said, char *identity, unsigned int identity_room, unsigned char *key, unsigned int key_room) noexcept nogil
    # incoming
    cdef bint open_in(self, const char *data, size_t size) noexcept nogil
    cdef bint close_in(self) noexcept nogil
    cdef bint holds_more(self) noexcept nogil
    cdef size_t lacks(self) noexcept nogil
    cdef int pull(self, char *data, size_t capacity, size_t *got) noexcept nogil
    cdef int pull_records(self, char *data, size_t capacity, size_t *got) noexcept nogil
    cdef int classify_read(self, int result) noexcept nogil
    cdef int refuse_flood(self) noexcept nogil
    # outgoing
    cdef void open_output(self, char *data, size_t capacity) noexcept nogil
    cdef ssize_t take_output(self, byte_queue *rest) noexcept nogil
    cdef int push(self, const char *data, size_t size) noexcept nogil
    cdef int goodbye(self) noexcept nogil
    cdef void refuse(self, int alert) noexcept nogil
