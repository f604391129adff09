from record_buffers cimport record_buffers
from sslsock._ssl.ssl_hooks cimport HookedConnection
from system cimport pthread_mutex_t
from window_bio cimport byte_queue, window_bio


cdef enum:
    HEADER = 5  # bytes of a record's header: RFC 8446, 5.1
    RECORD = 16384  # most plaintext of a record
    OVERHEAD = 320  # more than any cipher suite adds to a record


cdef enum outcome:
    DONE
    WANT_READ  # ciphertext, and the call may not wait for it
    WANT_WRITE  # room, and the call may not wait for it
    TIMED_OUT
    INTERRUPTED  # by a signal: to be looked at with the GIL, then the call goes on
    SYSTEM_FAILED  # `call.error` says why
    PEER_CLOSED  # by close_notify
    TLS_FAILED  # `Connection.failure` says why
    BAD_RETRY  # less data than an earlier call had begun to send
    ENTERED  # by this thread already, which is in a callback
    OUT_OF_MEMORY


cdef struct tls_failure:
    int ssl_error  # SSL_ERROR_*
    unsigned long code  # of OpenSSL's error queue, the newest
    long verify_result


cdef class SteppedConnection(HookedConnection):
    cdef bint is_server
    cdef window_bio window
    cdef record_buffers buffers  # libssl's own
    cdef byte_queue input  # ciphertext that libssl has not read
    cdef size_t framed  # bytes at its start that are known to be complete records
    cdef bint begun  # libssl has read a record
    cdef bint eof  # no more input comes
    cdef bint handshake_done
    cdef bint driven  # by an engine (ssl_engine.pyx): its own methods neither read nor write
    cdef bint settled  # libssl reads nothing of the SSL_CTX any more
    cdef bint verifies_later  # post-handshake authentication may come
    cdef tls_failure failure, kept_failure
    cdef bint failure_kept  # for the next call: this one has something to give
    cdef bint end_kept  # close_notify has come, and no read has told of it

    cdef pthread_mutex_t libssl_lock  # libssl is entered under it only, and nobody holds it while waiting
    cdef unsigned long inside  # the thread that holds `libssl_lock`; 0: none
    cdef unsigned long forks  # when the locks were made

    cdef void make_locks(self) noexcept nogil
    cdef void see_fork(self) noexcept

    # the window
    cdef size_t frame(self, const unsigned char *data, size_t size) noexcept nogil
    cdef size_t missing(self) noexcept nogil
    cdef size_t open_window(self, const char *data, size_t size, const char **front, size_t *whole) noexcept nogil
    cdef bint close_window(self, const char *front, size_t whole, size_t given) noexcept nogil
    cdef void hold_settings(self) noexcept nogil
    cdef void drop_settings(self) noexcept nogil
    # one call of libssl each
    cdef outcome enter(self) noexcept nogil
    cdef void leave(self) noexcept nogil
    cdef outcome classify(self, int result) noexcept nogil
    cdef outcome classify_late(self, int result, bint own) noexcept nogil
    cdef outcome note_failure(self, int error) noexcept nogil
    cdef outcome handshake_step(self, const char *data, size_t size) noexcept nogil
    cdef bint has_nothing(self) noexcept nogil
    cdef outcome read_step(self, const char *data, size_t size, char *memory, size_t room, size_t *got) noexcept nogil
    cdef outcome write_step(self, const char *data, size_t size, size_t *taken) noexcept nogil
    cdef outcome shutdown_step(self, const char *data, size_t size, int *result) noexcept nogil
    cdef size_t decrypted(self) noexcept nogil
