from linux cimport pthread_mutex_t, timespec
from sslsock._ssl.ssl_hooks cimport HookedConnection
from window_bio cimport byte_queue, window_bio


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


cdef struct io_call:  # what one call works under
    int descriptor  # NO_SOCKET: between two MemoryBIO
    double timeout  # seconds; below 0: no end, 0: do not wait
    timespec until  # with timeout > 0
    int error  # an errno
    bint begun  # a write: it has taken over what an earlier one had begun
    size_t written  # bytes of a write that are on their way


cdef struct tls_failure:
    int ssl_error  # SSL_ERROR_*
    unsigned long code  # of OpenSSL's error queue, the newest
    long verify_result


cdef enum:
    NO_SOCKET = -2


cdef class Connection(HookedConnection):
    cdef bint is_server
    cdef window_bio window
    cdef byte_queue input  # ciphertext that libssl has not read
    cdef byte_queue unsent  # ciphertext that the system has not taken; follows what `window.spill` held before
    cdef bint eof  # no more input comes
    cdef bint exact  # nothing is received beyond the record at hand
    cdef bint handshake_done
    cdef bint settled  # libssl reads nothing of the SSL_CTX any more
    cdef bint verifies_later  # post-handshake authentication may come
    cdef size_t unreported  # bytes of a write that wants to be repeated, which are on their way already
    cdef tls_failure failure, kept_failure
    cdef bint failure_kept  # for the next call: this one has something to give
    cdef bint end_kept  # `pending` has met close_notify, and no read has told of it

    # Who takes more than one takes them in this order. libssl is entered under `libssl_lock` only, which nobody holds while waiting.
    cdef pthread_mutex_t reading, writing, libssl_lock
    cdef unsigned long inside  # the thread that holds `libssl_lock`; 0: none
    cdef unsigned long forks  # when the locks were made

    cdef void make_locks(self) noexcept nogil
    cdef void see_fork(self) noexcept

    # the window
    cdef size_t open_window(self, const char *data, size_t size, const char **front, size_t *whole) noexcept nogil
    cdef bint close_window(self, const char *front, size_t whole, size_t given) noexcept nogil
    # one call of libssl each
    cdef outcome enter(self) noexcept nogil
    cdef void leave(self) noexcept nogil
    cdef outcome classify(self, int result) noexcept nogil
    cdef outcome handshake_step(self, const char *data, size_t size) noexcept nogil
    cdef bint has_nothing(self) noexcept nogil
    cdef outcome read_step(self, const char *data, size_t size, char *memory, size_t room, size_t *got) noexcept nogil
    cdef outcome write_step(self, const char *data, size_t size, size_t *taken) noexcept nogil
    cdef outcome shutdown_step(self, const char *data, size_t size, int *result) noexcept nogil
    cdef size_t decrypted(self) noexcept nogil
    # the socket
    cdef outcome lock(self, pthread_mutex_t *mutex, io_call *call) noexcept nogil
    cdef outcome wait(self, io_call *call, short events) noexcept nogil
    cdef outcome receive(self, io_call *call, char *memory, size_t room, size_t *got) noexcept nogil
    cdef outcome receive_or_send(self, io_call *call) noexcept nogil
    cdef bint readable(self, io_call *call) noexcept nogil
    cdef size_t receive_room(self, io_call *call, size_t asked) noexcept nogil
    cdef bint take_output(self) noexcept nogil
    cdef outcome flush(self, io_call *call) noexcept nogil
    cdef outcome flush_all(self, io_call *call) noexcept nogil
    cdef outcome flush_some(self, io_call *call) noexcept nogil
    cdef void flush_some_held(self, io_call *call) noexcept nogil
    # whole operations
    cdef outcome handshake(self, io_call *call) noexcept nogil
    cdef outcome read_some(self, io_call *call, char *memory, size_t room, size_t *got) noexcept nogil
    cdef void leave_write(self, io_call *call) noexcept nogil
    cdef outcome write_more(self, io_call *call, const char *data, size_t size) noexcept nogil
    cdef outcome write_all(self, io_call *call, const char *data, size_t size) noexcept nogil
    cdef outcome end(self, io_call *call) noexcept nogil
