"""`SteppedConnection`: libssl over the window BIO, one call of it at a time.

libssl is entered under a lock that nobody holds while waiting for the network, and gets whole records only. So no half of one lies in
its buffers, what lies here can be counted, and a record that is not one (an HTTP request, say) is given to it as it is, to be refused.
"""

cimport openssl_ssl as ssl
from fork_gate cimport fork_gate_enter, fork_gate_leave
from key_shares cimport forget_key_shares
from openssl_err cimport ERR_LIB_SSL, ERR_clear_error, ERR_peek_error, ERR_peek_last_error
from record_buffers cimport record_buffers_forget, record_buffers_used
from system cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_trylock, pthread_mutex_unlock,
    pthread_rwlock_rdlock, pthread_rwlock_unlock)
from shared_value cimport load_thread, store_int, store_thread
from window_bio cimport (
    byte_queue_append, byte_queue_clear, byte_queue_consume, byte_queue_front, byte_queue_reserve, window_bio_clear)

from sslsock._ssl.ssl_hooks cimport context_of, fork_count, has_forked, see_fork

cdef extern from "Python.h" nogil:
    unsigned long PyThread_get_thread_ident()

cdef extern from "openssl/sslerr.h" nogil:
    int SSL_R_SHUTDOWN_WHILE_IN_INIT

cdef extern from "module_compat.h" nogil:
    void raise_openssl_error(int library, int reason)

cdef enum:
    HEADER_V2 = 2
    CLIENT_HELLO = 1
    LONGEST = 16384 + 320  # bytes after a header: libssl has no room for more, and refuses them at once

cdef char NOTHING = 0


cdef size_t record_size(const unsigned char *data, size_t size, bint first) noexcept nogil:
    """Bytes of the record that begins here, 0 before its header is complete. What cannot be a record ends where the data does.
    first: of what a server gets, which may be the hello of SSLv2 (RFC 5246, E.2)."""
    cdef size_t header = HEADER, length
    if size < HEADER:
        return 0
    if first and data[0] & 0x80 and data[2] == CLIENT_HELLO:
        header = HEADER_V2
        length = (data[0] & 0x7f) << 8 | data[1]
    elif data[1] == 3:
        length = data[3] << 8 | data[4]
    else:
        return size
    return header + length if length <= LONGEST and header + length >= HEADER else size


cdef class SteppedConnection(HookedConnection):
    def __cinit__(self, *_, **__):
        self.make_locks()

    cdef void make_locks(self) noexcept nogil:
        pthread_mutex_init(&self.libssl_lock, NULL)
        store_thread(self.inside, 0)
        self.forks = fork_count()

    cdef void see_fork(self) noexcept:
        """Before any lock is taken, with the GIL: in a child of a fork the threads that held one are gone (fork(2)). Who waited for
        the network has left libssl in order. In a callback that has forked they are still its own."""
        if self.forks != fork_count() and not has_forked(self.inside):
            self.make_locks()
        see_fork(context_of(self))

    def __dealloc__(self):
        if self.ssl != NULL:
            record_buffers_forget(&self.buffers)
            if self.keeps_sessions:  # otherwise libssl marks its session as not to be resumed, if there was no close_notify
                ssl.SSL_set_shutdown(self.ssl, ssl.SSL_SENT_SHUTDOWN | ssl.SSL_RECEIVED_SHUTDOWN)
            ssl.SSL_free(self.ssl)
        window_bio_clear(&self.window)
        byte_queue_clear(&self.input)
        pthread_mutex_destroy(&self.libssl_lock)

    # Who is inside libssl

    cdef outcome enter(self) noexcept nogil:
        cdef unsigned long me = PyThread_get_thread_ident()
        if pthread_mutex_trylock(&self.libssl_lock) != 0:
            if load_thread(self.inside) == me:
                return ENTERED
            pthread_mutex_lock(&self.libssl_lock)
        store_thread(self.inside, me)
        return DONE

    cdef void leave(self) noexcept nogil:
        store_thread(self.inside, 0)
        pthread_mutex_unlock(&self.libssl_lock)

    # The window

    cdef size_t frame(self, const unsigned char *data, size_t size) noexcept nogil:
        """Bytes of the complete records at the start of the input, each of which is looked at once."""
        cdef size_t one
        while True:
            one = record_size(data + self.framed, size - self.framed, self.is_server and not self.begun and self.framed == 0)
            if one == 0 or one > size - self.framed:
                return self.framed
            self.framed += one

    cdef size_t missing(self) noexcept nogil:
        """Bytes of the record at hand that are not here yet, of its header while that is not. At least 1."""
        cdef size_t one = record_size(
            <const unsigned char *> byte_queue_front(&self.input), self.input.size, self.is_server and not self.begun)
        if one == 0:
            one = HEADER
        return one - self.input.size if one > self.input.size else 1

    cdef size_t open_window(self, const char *data, size_t size, const char **front, size_t *whole) noexcept nogil:
        """Let libssl read what is left of earlier input and then `data`, which stays in place until `close_window`. Returns how
        many bytes it is given: those of whole records, or all when no more come. front: NULL without memory."""
        cdef size_t given
        if self.input.size > 0:
            if size > 0 and not byte_queue_append(&self.input, data, size):
                front[0] = NULL
                return 0
            front[0] = byte_queue_front(&self.input)
            whole[0] = self.input.size
        else:
            front[0] = data if data != NULL else &NOTHING
            whole[0] = size
        given = whole[0] if self.eof else self.frame(<const unsigned char *> front[0], whole[0])
        self.hold_settings()
        self.window.in_ = front[0]
        self.window.in_left = given
        self.window.eof = self.eof
        return given

    cdef bint close_window(self, const char *front, size_t whole, size_t given) noexcept nogil:
        """Keep what libssl has not read. False without memory."""
        cdef size_t used = given - self.window.in_left
        self.drop_settings()
        self.window.in_left = 0
        if used > 0:
            self.begun = True
            self.framed -= min(used, self.framed)
        if self.input.size > 0:
            byte_queue_consume(&self.input, used)
            return True
        return byte_queue_append(&self.input, front + used, whole - used)

    cdef void hold_settings(self) noexcept nogil:
        """Before libssl is entered: nobody changes what it reads of the SSL_CTX in a handshake."""
        if not self.settled:
            fork_gate_enter()
            pthread_rwlock_rdlock(&self.hooks.settings)
            self.holds_settings = True

    cdef void drop_settings(self) noexcept nogil:
        if self.holds_settings:
            self.holds_settings = False
            pthread_rwlock_unlock(&self.hooks.settings)
            fork_gate_leave()
        if self.handshake_done and not self.settled:
            # TLS 1.3 has one handshake (RFC 8446, 1.2). Older versions repeat it, and a certificate may be asked for later.
            store_int(self.settled, ssl.SSL_version(self.ssl) >= ssl.TLS1_3_VERSION and not self.verifies_later)

    # Steps: one call of libssl each, entered

    cdef outcome classify(self, int result) noexcept nogil:
        """What a call of libssl that gave `result` means; the error queue held nothing before it."""
        cdef int error = ssl.SSL_get_error(self.ssl, result)
        if error == ssl.SSL_ERROR_WANT_READ:
            return WANT_READ
        if error == ssl.SSL_ERROR_SSL and ERR_peek_error() == 0:
            # A call after one that failed adds nothing to the error queue. Then OpenSSL 3 says one of these.
            error = ssl.SSL_ERROR_ZERO_RETURN if ssl.SSL_get_shutdown(self.ssl) & ssl.SSL_RECEIVED_SHUTDOWN else ssl.SSL_ERROR_SYSCALL
        if error == ssl.SSL_ERROR_ZERO_RETURN:
            return PEER_CLOSED
        return self.note_failure(error)

    cdef outcome classify_late(self, int result, bint own) noexcept nogil:
        """`classify`, for a call before which nobody looked into the error queue: that would cost as much as a twentieth of a small
        record. own: whether what lies there is this call's, unless it lacks input."""
        if ERR_peek_error():
            if own and not ssl.SSL_want_read(self.ssl):
                return self.note_failure(ssl.SSL_ERROR_SSL)
            ERR_clear_error()  # of another user of OpenSSL in this thread
        return self.classify(result)

    cdef outcome note_failure(self, int error) noexcept nogil:
        self.failure.ssl_error = error
        self.failure.code = ERR_peek_last_error()
        self.failure.verify_result = ssl.SSL_get_verify_result(self.ssl)
        ERR_clear_error()
        return TLS_FAILED

    cdef outcome handshake_step(self, const char *data, size_t size) noexcept nogil:
        cdef const char *front
        cdef size_t whole
        cdef size_t given = self.open_window(data, size, &front, &whole)
        cdef outcome status = DONE
        cdef int result
        if front == NULL:
            return OUT_OF_MEMORY
        ERR_clear_error()
        result = ssl.SSL_do_handshake(self.ssl)
        if result == 1:
            forget_key_shares(self.ssl)
            store_int(self.handshake_done, True)
        else:
            status = self.classify(result)
        return status if self.close_window(front, whole, given) else OUT_OF_MEMORY

    cdef bint has_nothing(self) noexcept nogil:
        """Whether libssl could only ask for input: there is none, here or in it, and it has no end or failure to tell of (after a
        failure it is in a handshake for ever)."""
        return (
            self.input.size == 0 and not self.eof and ssl.SSL_is_init_finished(self.ssl)
            and ssl.SSL_get_shutdown(self.ssl) == 0 and not ssl.SSL_has_pending(self.ssl))

    cdef outcome read_step(self, const char *data, size_t size, char *memory, size_t room, size_t *got) noexcept nogil:
        """As many records as there are and as find room."""
        cdef const char *front
        cdef size_t whole, given, count = 0
        cdef outcome status = DONE
        cdef int result
        got[0] = 0
        self.end_kept = False
        if self.failure_kept:
            self.failure_kept = False
            self.failure = self.kept_failure
            return TLS_FAILED
        if size == 0 and self.has_nothing():
            return WANT_READ
        given = self.open_window(data, size, &front, &whole)
        if front == NULL:
            return OUT_OF_MEMORY
        if not self.settled and ERR_peek_error():  # somebody else's
            ERR_clear_error()
        while True:
            result = ssl.SSL_read_ex(self.ssl, memory + got[0], room - got[0], &count)
            if result != 1:
                # A failure leaves libssl's state machine in its error state.
                status = self.classify_late(result, ssl.SSL_in_init(self.ssl)) if self.settled else self.classify(result)
                break
            got[0] += count
            if got[0] == room or (self.window.in_left == 0 and not self.eof and ssl.SSL_pending(self.ssl) == 0):
                break
        if got[0] > 0 and status != DONE:
            # What the bytes before it are read without; close_notify and the want of input say themselves again.
            if status == TLS_FAILED:
                self.kept_failure = self.failure
                self.failure_kept = True
            self.end_kept = status == PEER_CLOSED
            status = DONE
        if not self.handshake_done and ssl.SSL_is_init_finished(self.ssl):
            store_int(self.handshake_done, True)
        record_buffers_used(&self.buffers)
        return status if self.close_window(front, whole, given) else OUT_OF_MEMORY

    cdef outcome write_step(self, const char *data, size_t size, size_t *taken) noexcept nogil:
        cdef const char *front
        cdef size_t whole, given
        cdef outcome status = DONE
        cdef int result
        cdef bint reads = not self.settled or ssl.SSL_in_init(self.ssl)
        taken[0] = 0
        if self.window.spill.size == 0:  # in one piece, if there is memory for it: libssl adds record by record
            byte_queue_reserve(&self.window.spill, size + (size + RECORD - 1) // RECORD * OVERHEAD)
        if reads:
            given = self.open_window(NULL, 0, &front, &whole)
            if ERR_peek_error():
                ERR_clear_error()
        result = ssl.SSL_write_ex(self.ssl, data, size, taken)
        if reads:
            if result != 1:
                status = self.classify(result)
            if not self.close_window(front, whole, given):
                status = OUT_OF_MEMORY
        elif result != 1:
            # A failure leaves its error state behind, or it was after close_notify.
            status = self.classify_late(
                result, ssl.SSL_in_init(self.ssl) or ssl.SSL_get_shutdown(self.ssl) & ssl.SSL_SENT_SHUTDOWN != 0)
        record_buffers_used(&self.buffers)
        return status

    cdef outcome shutdown_step(self, const char *data, size_t size, int *result) noexcept nogil:
        """result: SSL_shutdown's, 1: both ends have closed, 0: ours has."""
        cdef const char *front
        cdef size_t whole
        cdef size_t given = self.open_window(data, size, &front, &whole)
        cdef outcome status = DONE
        if front == NULL:
            return OUT_OF_MEMORY
        ERR_clear_error()
        result[0] = ssl.SSL_shutdown(self.ssl)
        if result[0] < 0:
            if ssl.SSL_in_init(self.ssl) and ERR_peek_error() == 0:  # OpenSSL 4.0 has no word for it after a failure
                raise_openssl_error(ERR_LIB_SSL, SSL_R_SHUTDOWN_WHILE_IN_INIT)
            status = self.classify(result[0])
        return status if self.close_window(front, whole, given) else OUT_OF_MEMORY

    cdef size_t decrypted(self) noexcept nogil:
        """Bytes that a read would give at once: what libssl has decrypted, of the next record too if all of it is here. 1 for an
        end or a failure that is known."""
        cdef const char *front
        cdef size_t whole, given, count = 0
        cdef char byte
        cdef int result
        cdef outcome status
        cdef size_t waiting = ssl.SSL_pending(self.ssl)
        if waiting > 0:
            return waiting
        if self.failure_kept or self.end_kept:
            return 1
        given = self.open_window(NULL, 0, &front, &whole)
        if given == 0:
            self.close_window(front, whole, given)
            return 0
        if ERR_peek_error():
            ERR_clear_error()
        result = ssl.SSL_peek_ex(self.ssl, &byte, 1, &count)
        status = DONE if result == 1 else self.classify(result)
        self.close_window(front, whole, given)
        if status == TLS_FAILED:
            self.kept_failure = self.failure
            self.failure_kept = True
            return 1
        if status == PEER_CLOSED:
            self.end_kept = True
            return 1
        return ssl.SSL_pending(self.ssl)
