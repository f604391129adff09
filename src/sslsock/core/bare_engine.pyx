"""The engine's C half: one libssl connection over a window BIO, driven without the GIL. No Python, no policy.

What libssl promises: a call either makes progress or says what it lacks. Because the window BIO never refuses a write
(window_bio.h), the only thing it can lack is ciphertext to read; so there is no WANT_WRITE here, no repeating of a write
with the same arguments, and reading and writing do not get in each other's way.

Works on windows that the caller opens: `open_in` and `close_in` around what reads, `open_output` before what writes; what has been
made leaves by `take_output`. How a call went is an `engine_status`; after ENGINE_FAILED `error_code` (or `own_reason`) says why, and
the thread's error queue is empty. What the SSL_CTX calls back, and what is kept of a handshake (`note_step`), is for those who derive
from it (engine.pyx).

Whose turn it is stands in `use`: the event loop that the engine belongs to (`home`) enters libssl without asking, others look first.
"""

cimport cython
from libc.stdlib cimport free

cimport openssl_ssl as ssl
from fork_gate cimport fork_gate_enter, fork_gate_leave
from key_shares cimport forget_key_shares
from openssl_err cimport (
    ERR_GET_LIB, ERR_GET_REASON, ERR_LIB_SSL, SSL_R_RECORD_LAYER_FAILURE, ERR_clear_error, ERR_get_error, ERR_peek_last_error)
from openssl_ssl cimport SSL, SSL_CTX, SSL_SESSION, X509_STORE_CTX
from shared_value cimport load_thread, shared_exchange_int, store_int
from sslsock.core.error_words cimport error_words
from window_bio cimport (
    byte_queue, byte_queue_append, byte_queue_clear, byte_queue_consume, byte_queue_front, byte_queue_join, window_bio_clear,
    window_bio_new)

cdef extern from "pythread.h" nogil:
    unsigned long PyThread_get_thread_ident()

cdef str AT_WORK = "this engine is at work already, in another thread or below its verify_handler"

cdef enum:
    MESSAGES = 32  # without data that a peer may send between two records with data; libssl bounds empty records by as many


# A record that cannot be: handshake messages come encrypted, and no record is that long. TLS 1.3 answers with unexpected_message,
# TLS 1.2 with record_overflow.
cdef const char *IMPOSSIBLE_RECORD = b"\x16\x03\x03\xff\xff"


cdef int stop_or_go(SSL *connection, void *argument) noexcept nogil:
    """SSL_CTX_set_cert_cb(3): 1 to go on, -1 to stop."""
    return 1 if load_use((<BareEngine> argument).use) == USE_POOL else -1


cdef class BareEngine:
    """Base of Engine. Invariant: `ssl` is valid from `make_ssl` to `__dealloc__`."""

    def __dealloc__(self):
        if self.ssl != NULL:
            # Freed "in peace": otherwise libssl marks the session as not to be resumed, whatever the peer's manners were.
            ssl.SSL_set_shutdown(self.ssl, ssl.SSL_SENT_SHUTDOWN | ssl.SSL_RECEIVED_SHUTDOWN)
            ssl.SSL_free(self.ssl)
        window_bio_clear(&self.window)
        byte_queue_clear(&self.backlog)
        free(self.given_away)

    cdef int make_ssl(self, SSL_CTX *ctx, bint server_side) except -1:
        """Make the connection, once, in the role of a server or a client. MemoryError."""
        ERR_clear_error()
        self.ssl = ssl.SSL_new(ctx)
        if self.ssl == NULL:
            raise MemoryError
        self.set_window()
        if server_side:
            ssl.SSL_set_accept_state(self.ssl)
        else:
            ssl.SSL_set_connect_state(self.ssl)
        return 0

    cdef int share_ssl(self, SSL *connection) except -1:
        """Drive a connection that another has made and given its role, its names and its session, and whose callbacks are his. He may go
        on to ask it what was agreed on, but enters libssl no more. MemoryError."""
        ssl.SSL_up_ref(connection)
        self.ssl = connection
        return self.set_window()

    cdef int set_window(self) except -1:
        cdef ssl.BIO *bio = window_bio_new(&self.window)
        if bio == NULL:
            raise MemoryError
        self.window.owner = <void *> self
        ssl.SSL_set_bio(self.ssl, bio, bio)
        return 0

    cdef bint is_server(self) noexcept nogil:
        return ssl.SSL_is_server(self.ssl)

    # whose turn it is

    cdef bint in_use(self) noexcept nogil:
        return load_use(self.use) != USE_FREE

    cdef int require_here(self) except -1:
        """For the methods of Python, of which an event loop takes no notice."""
        cdef unsigned long home = load_thread(self.home)
        if home != 0 and home != PyThread_get_thread_ident():
            raise RuntimeError("this engine belongs to the event loop of another thread")
        return 0

    cdef int require_free(self) except -1:
        cdef engine_use use = load_use(self.use)
        self.require_here()
        if use == USE_LENT:
            raise RuntimeError("this engine is at work in a relay, for good")
        if use != USE_FREE:
            raise RuntimeError(AT_WORK)
        return 0

    cdef int take_use(self) except -1:
        """`require_free`, and it is ours, until `use` is USE_FREE again. Of two threads one gets it."""
        self.require_free()
        if not shared_exchange_int(<int *> &self.use, USE_FREE, USE_LIBSSL):
            raise RuntimeError(AT_WORK)
        return 0

    cdef int lend(self) except -1:
        """Give it to a relay, for good: from now on nobody else enters libssl, for no lock keeps other threads out while the
        relay's has no GIL."""
        self.require_free()
        store_use(self.use, USE_LENT)
        return 0

    @cython.final
    cdef engine_use enter_libssl(self) noexcept nogil:
        """Before a call that may leave the GIL or ask verify_handler. Returns what `leave_libssl` goes back to."""
        cdef engine_use before = load_use(self.use)
        store_use(self.use, USE_LIBSSL)
        return before

    @cython.final
    cdef void leave_libssl(self, engine_use before) noexcept nogil:
        store_use(self.use, before)

    # handshake and outcome

    cdef void release_buffers(self, bint wanted) noexcept nogil:
        if wanted:
            ssl.SSL_set_mode(self.ssl, ssl.SSL_MODE_RELEASE_BUFFERS)

    cdef int classify(self, int result) noexcept nogil:
        """What a libssl call that gave `result` means. The error queue must hold nothing older than the call."""
        cdef int error = ssl.SSL_get_error(self.ssl, result)
        if error == ssl.SSL_ERROR_WANT_READ:
            return ENGINE_WANT_READ
        # SSL_ERROR_SYSCALL, without an error, is what libssl 3.6 makes of a close_notify behind user_canceled in a handshake.
        if error == ssl.SSL_ERROR_ZERO_RETURN or (
            error == ssl.SSL_ERROR_SYSCALL and ssl.SSL_get_shutdown(self.ssl) & ssl.SSL_RECEIVED_SHUTDOWN
        ):
            self.peer_closed = True
            return ENGINE_CLOSED
        if error == ssl.SSL_ERROR_WANT_X509_LOOKUP and self.puts_off:
            return ENGINE_COSTLY
        return self.note_failure()

    cdef int note_failure(self) noexcept nogil:
        """Keep the reason, and leave the error queue empty."""
        self.failed = True
        # libssl's own comes last, above what caused it; since 3.2 with one more on top, which only says: the record layer knows.
        cdef unsigned long code = ERR_get_error()
        self.error_code = code
        while code:
            if ERR_GET_LIB(code) != ERR_LIB_SSL or ERR_GET_REASON(code) != SSL_R_RECORD_LAYER_FAILURE:
                self.error_code = code
            code = ERR_get_error()
        return ENGINE_FAILED

    cdef int shake(self) noexcept nogil:
        """Go on with the handshake; ENGINE_OK when it is done."""
        cdef engine_use before
        cdef int status
        if self.failed:
            return ENGINE_FAILED
        before = self.enter_libssl()
        status = self.conclude(self.shake_step())
        self.leave_libssl(before)
        return status

    # The two parts of `shake`, for who has another thread do the first.

    cdef int shake_step(self) noexcept nogil:
        """Have libssl go on. Nothing that others may look at meanwhile is changed."""
        cdef int result
        ERR_clear_error()
        fork_gate_enter()
        result = ssl.SSL_do_handshake(self.ssl)
        fork_gate_leave()
        if result == 1:
            forget_key_shares(self.ssl)
            return ENGINE_OK
        return self.classify(result)

    cdef int end_step(self) noexcept:
        """What has come of a step that another thread has done: the status for `conclude`."""
        cdef int status = self.given_away.status
        free(self.given_away)
        self.given_away = NULL
        return status

    cdef int conclude(self, int status) noexcept nogil:
        """What has come of it."""
        if status == ENGINE_CLOSED:  # no handshake will come of it: RFC 8446, 6.1
            self.own_reason = b"the peer closed the connection during the handshake"
            status = self.note_failure()
        status = self.note_step(status)
        if status == ENGINE_OK:
            store_int(self.handshake_done, True)  # what has been agreed on can be read in any thread
            if self.puts_off:  # another handshake, of TLS 1.2, does not stop
                ssl.SSL_set_cert_cb(self.ssl, NULL, NULL)
        return status

    # What is dear in a server's handshake comes after libssl has asked for the certificate: the signature or decryption with its key,
    # and a key share. SSL_CTX_set_cert_cb(3) lets it stop there. It does not ask where a session is resumed.

    cdef bint put_off(self) noexcept:
        """Have `shake` return ENGINE_COSTLY before what is dear, and go on with it while `use` is USE_POOL. False where that is not
        possible."""
        if not self.is_server() or not self.can_put_off():
            return False
        ssl.SSL_set_cert_cb(self.ssl, stop_or_go, <void *> self)
        self.puts_off = True
        return True

    cdef bint can_put_off(self) noexcept:
        """Whether another thread may do the rest of a step: not where it may ask a handler of the program's."""
        return False

    cdef int note_step(self, int status) noexcept nogil:
        """After each step of the handshake, before anybody learns of its `status`: keep what is wanted of it. Returns the status
        that counts."""
        return status

    cdef list settle(self):
        """After libssl's calls, with the GIL, where they have left something to do (`unsettled`). Returns the sessions that came, or
        None."""
        return None

    cdef str ask_for_certificate(self):
        """See Engine.request_certificate: the request is made, or why it cannot be, in words."""
        return "this engine asks nobody"

    cdef object failure(self):
        """What has failed, in words: a str, or an exception."""
        if self.own_reason != NULL:
            return self.own_reason.decode("ascii")
        return error_words(self.error_code) if self.error_code else "the connection was cut"

    cdef long verify_result(self) noexcept nogil:
        """What verification has found: X509_V_OK, or the number of an error (X509_verify_cert_error_string(3))."""
        return ssl.SSL_get_verify_result(self.ssl)

    # called by libssl, for connections of a Context, from inside a handshake or a read

    cdef int check_chain(self, X509_STORE_CTX *store) noexcept nogil:
        """SSL_CTX_set_cert_verify_callback(3): 1 to go on, 0 to refuse."""
        return 0

    cdef int note_session(self, SSL_SESSION *session) noexcept nogil:
        """SSL_CTX_sess_set_new_cb(3): 1 keeps the reference that comes with the call."""
        return 0

    cdef int check_hello(self) noexcept nogil:
        """SSL_CTX_set_client_hello_cb(3), for each ClientHello: 0 to go on, or the alert to fail with."""
        return 0

    cdef int give_key(
            self, const char *said, char *identity, unsigned int identity_room, unsigned char *key, unsigned int key_room) noexcept nogil:
        """See pre_shared_key.pyx: the size of the key, 0 for none, REFUSED."""
        return 0

    # incoming

    cdef bint open_in(self, const char *data, size_t size) noexcept nogil:
        """Let libssl read `data`, which stays in place until `close_in`, after what is left of earlier input. False without
        memory."""
        self.in_backlog = self.backlog.size > 0
        if self.in_backlog:
            if not byte_queue_append(&self.backlog, data, size):
                return False
            self.window.in_ = byte_queue_front(&self.backlog)
            self.window.in_left = self.backlog.size
        else:
            self.window.in_ = data
            self.window.in_left = size
        self.window.dry = 0
        return True

    cdef bint close_in(self) noexcept nogil:
        """Keep what libssl has not read of the input. False without memory."""
        cdef bint kept = True
        if self.peer_closed or self.failed:
            byte_queue_clear(&self.backlog)  # nobody will read it: RFC 8446, 6.1
        elif self.in_backlog:
            byte_queue_consume(&self.backlog, self.backlog.size - self.window.in_left)
        else:
            kept = byte_queue_append(&self.backlog, self.window.in_, self.window.in_left)
        self.window.in_ = NULL
        self.window.in_left = 0
        return kept

    cdef bint holds_more(self) noexcept nogil:
        """Whether there is something to read without new ciphertext, as far as can be told without reading."""
        return self.backlog.size > 0 or ssl.SSL_pending(self.ssl) > 0

    cdef size_t lacks(self) noexcept nogil:
        """Bytes that complete the record whose beginning `pull` has met last, 0 for none: until they come, libssl holds a buffer for a
        whole one."""
        # libssl asks for as much as the header says (SSL_CTX_set_read_ahead(3) is off), and "RB" is its word for "in the body".
        return self.window.dry if ssl.SSL_rstate_string(self.ssl)[1] == b"B" else 0

    cdef int pull(self, char *data, size_t capacity, size_t *got) noexcept nogil:
        """Decrypt records until `data` is full (ENGINE_OK) or the input ends; `got` is set in every case. ENGINE_OK too when it
        is others' turn, for there were many messages besides the data."""
        cdef engine_use before
        cdef int status
        got[0] = 0
        if self.failed:
            return ENGINE_FAILED
        before = self.enter_libssl()
        status = self.pull_records(data, capacity, got)
        self.leave_libssl(before)
        return status

    @cython.final
    cdef int pull_records(self, char *data, size_t capacity, size_t *got) noexcept nogil:
        cdef size_t count, made = self.window.spill.size
        cdef int result, status, seen = 0
        while got[0] < capacity:
            result = ssl.SSL_read_ex(self.ssl, data + got[0], capacity - got[0], &count)
            if result == 1:
                self.messages = 0
                got[0] += count
                if self.window.in_left == 0 and got[0] < capacity and ssl.SSL_pending(self.ssl) == 0:
                    return ENGINE_WANT_READ  # without asking libssl, which costs a tenth of a small record
                continue
            status = self.classify_read(result)
            if status != ENGINE_WANT_READ or self.window.dry:
                return status
            # It has come to the end of a message that brings no data (SSL_CTX_set_mode(3), SSL_MODE_AUTO_RETRY): a key update, a
            # ticket, the wish to renegotiate. Each costs as much as a large record, so a peer that sends nothing else is stopped,
            # and one that puts them between its data waits for its next turn. Where libssl has written something, TLS 1.3 has
            # only answered the key update before, and the message is still to come.
            if self.window.spill.size == made or ssl.SSL_version(self.ssl) < ssl.TLS1_3_VERSION:
                self.messages += 1
                if self.messages > MESSAGES:
                    return self.refuse_flood()
            made = self.window.spill.size
            seen += 1
            if seen == MESSAGES:
                return ENGINE_OK
        return ENGINE_OK

    @cython.final
    cdef int classify_read(self, int result) noexcept nogil:
        """`classify`, for a read that has brought nothing.

        Other users of OpenSSL in this thread (the `ssl` module) leave things in its error queue, and SSL_get_error(3) would
        blame this call for them. To empty the queue before every call would cost a tenth of a small record, so the queue is
        looked at afterwards. To call libssl again would not do: after a fatal alert the second answer is that the connection
        was closed."""
        if ERR_peek_last_error() != 0:
            if not ssl.SSL_want_read(self.ssl) and ssl.SSL_in_init(self.ssl):
                return self.note_failure()  # libssl's own: it leaves its state machine in the error state
            ERR_clear_error()
        return self.classify(result)

    @cython.final
    cdef int refuse_flood(self) noexcept nogil:
        """Fail as after unexpected_message (RFC 8446, 6.2). libssl has no call to send an alert: it is given what makes it
        send one."""
        cdef char[RECORD_SIZE] record
        cdef size_t got
        cdef int status = ENGINE_WANT_READ
        self.own_reason = b"too many messages without data"
        self.window.in_ = IMPOSSIBLE_RECORD
        self.window.in_left = 5
        while status == ENGINE_WANT_READ and not self.window.dry:  # the record before may hold more messages
            status = self.classify_read(ssl.SSL_read_ex(self.ssl, record, RECORD_SIZE, &got))
        return status if status == ENGINE_FAILED else self.note_failure()

    # outgoing

    cdef void open_output(self, char *data, size_t capacity) noexcept nogil:
        """Have what is made from now on written to `data`, until `take_output`: that what fits is not copied again."""
        self.window.out = data
        self.window.out_capacity = capacity

    cdef ssize_t take_output(self, byte_queue *rest) noexcept nogil:
        """Take all that was made since the last time: what lies in the memory of `open_output`, whose size in bytes is
        returned (0 without one), and after it what is added to `rest`. Nothing leaves an engine in another way. -1 without
        memory, which an empty `rest` does not need."""
        cdef ssize_t used = self.window.out_used
        self.window.out = NULL
        self.window.out_capacity = self.window.out_used = 0
        if self.window.spill.size and not byte_queue_join(rest, &self.window.spill):
            return -1
        return used

    cdef int push(self, const char *data, size_t size) noexcept nogil:
        """Encrypt all of `data`; ENGINE_OK, or ENGINE_FAILED."""
        cdef engine_use before
        cdef size_t written
        cdef int result
        if self.failed:
            return ENGINE_FAILED
        before = self.enter_libssl()
        result = ssl.SSL_write_ex(self.ssl, data, size, &written)
        self.leave_libssl(before)
        return ENGINE_OK if result == 1 else self.note_failure()  # a write lacks nothing: the window BIO takes all

    cdef int goodbye(self) noexcept nogil:
        """Write close_notify, once (RFC 8446, 6.1)."""
        if not self.closed and not self.failed and self.handshake_done:
            self.closed = True
            ssl.SSL_shutdown(self.ssl)
            ERR_clear_error()
        return ENGINE_OK

    cdef void refuse(self, int alert) noexcept nogil:
        """End both directions with a fatal alert (RFC 8446, 6.2). libssl has no call for one: it says internal_error, whatever was
        asked for, when it has nothing to read from."""
        cdef char[RECORD_SIZE] record
        cdef size_t got
        if self.closed or self.failed or not self.handshake_done:
            return
        ERR_clear_error()
        ssl.SSL_set0_rbio(self.ssl, NULL)
        while ssl.SSL_read_ex(self.ssl, record, RECORD_SIZE, &got) == 1:
            pass  # the rest of a record that it had decrypted
        self.note_failure()
