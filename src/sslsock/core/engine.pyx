"""The TLS engine: bytes in, bytes out. No descriptor, no clock, no waiting.

A bare engine (bare_engine.pyx: `shake`, `pull`, `push`, `goodbye`, without the GIL on windows that the caller opens; a channel uses
that) in the service of a context: names, verification and sessions, what was agreed on and what failed. For programs that do their own
input and output it gives the same as methods of Python.

libssl calls back from inside a handshake or a read: with a certificate chain to verify, with a session that may be resumed. No such
method lets an exception through; the first asks `verify_handler`, which may do anything except use this engine.

Any thread may call the methods of Python, so each first looks that it is nobody's turn (`use`). What the handshake has agreed on is
noted (agreed.pyx) and never asked of libssl.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.object cimport PyObject
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

cimport openssl_ssl as ssl
from fork_gate cimport fork_gate_pause, fork_gate_resume
from hello_digest cimport HELLO_DIGEST_SIZE, hello_digest
from openssl_err cimport (
    ERR_GET_LIB, ERR_GET_REASON, ERR_LIB_SSL, SSL_R_EXTENSION_NOT_RECEIVED, SSL_R_INVALID_CONFIG,
    SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, SSL_R_REQUEST_PENDING, SSL_R_REQUEST_SENT, SSL_R_WRONG_SSL_VERSION, ERR_clear_error,
    ERR_peek_error)
from openssl_ssl cimport SSL_SESSION, X509_STORE_CTX
from openssl_x509 cimport X509_up_ref
from shared_value cimport load_int
from sslsock.core.context cimport VERIFY_MODE_NONE, VERIFY_MODE_PEER, Context
from sslsock.core.agreed cimport forget_agreed, note_agreed, note_peer, peer_chain, verified_chain
from sslsock.core.bare_engine cimport (
    ENGINE_FAILED, ENGINE_OK, ENGINE_WANT_READ, RECORD_SIZE, USE_ASKING, USE_FREE, USE_LENT, USE_LIBSSL, USE_POOL, BareEngine, engine_use, load_use, store_use)
from sslsock.core.binding cimport binding_of, exported
from sslsock.core.certificate cimport SslCertificate
from sslsock.core.error_words cimport error_words
from sslsock.core.new_bytes cimport new_bytes, shortened
from sslsock.core.pre_shared_key cimport REFUSED, ask_for_keys, text_of, use_answer
from sslsock.core.session cimport SslSession
from sslsock.core.verification cimport (
    CHAIN_DOUBTFUL, CHAIN_GOOD, chain_verdict, conclude, errors_found, forget_verification, set_verify_name, verify)
from window_bio cimport byte_queue, byte_queue_clear, byte_queue_front, window_bio_owner

from sslsock.core.binding import check_binding
from sslsock.core.context import _PROTOCOL_NAMES
from sslsock.core.hostname import ascii_name

cdef enum:
    MOST_EXPORTED = 65535  # bytes
    ALERT_ILLEGAL_PARAMETER = 47  # RFC 8446, 6
    ALERT_INTERNAL_ERROR = 80
    ALERT_REASONS = 1000  # SSL_AD_REASON_OFFSET: reason 1048 is "the peer sent alert 48"
    MESSAGE_FINISHED = 20  # RFC 8446, 4
    RELEASE_GIL_AT = 65536  # bytes: below, giving the GIL away costs more than the work (docs/design.md, "The GIL")


# Why a client is not asked for its certificate, where OpenSSL's words are its own.
cdef dict NOT_ASKED = {
    SSL_R_EXTENSION_NOT_RECEIVED: "the client has not agreed to be asked after the handshake",
    SSL_R_INVALID_CONFIG: "the configuration asks for no certificate",
    SSL_R_REQUEST_PENDING: "the client has been asked, and has not answered",
    SSL_R_REQUEST_SENT: "the client has been asked, and has not answered",
    SSL_R_WRONG_SSL_VERSION: "the protocol is older than TLS 1.3",
}

# RFC 8446, 6, RFC 7507, 3 and RFC 7301, 3.2: to OpenSSL 3.0 these are "unknown".
cdef dict NEWER_ALERTS = {
    86: "inappropriate fallback", 109: "missing extension", 116: "certificate required", 120: "no application protocol"}


class TlsError(Exception):
    """What ended a TLS connection.

    reason: str, OpenSSL's words
    alert: str or None, the alert that the peer sent
    handshaking: bool, whether it happened before the handshake was done
    """

    def __init__(self, text, reason="", alert=None, handshaking=False):
        super().__init__(text)
        self.reason = reason
        self.alert = alert
        self.handshaking = handshaking


cdef void note_message(
        int write, int version, int content, const void *data, size_t size, ssl.SSL *connection, void *argument) noexcept nogil:
    """SSL_set_msg_callback(3): Finished is the last of the three messages that answer a request for a certificate."""
    if not write and content == ssl.SSL3_RT_HANDSHAKE and size > 0 and (<const unsigned char *> data)[0] == MESSAGE_FINISHED:
        (<Engine> window_bio_owner(connection)).answered = (<Engine> window_bio_owner(connection)).unsettled = True


cdef void forget_sessions(new_sessions *came) noexcept:
    cdef int number
    for number in range(came.count if came != NULL else 0):
        ssl.SSL_SESSION_free(came.sessions[number])
    free(came)


cdef class Engine(BareEngine):
    """Engine(context, *, server_name=None, verify_name=None, verify_handler=None, session_key=None, release_buffers=False, \
session=None, pre_shared_key_handler=None)
--

    One TLS connection without input or output of its own.

        engine = Engine(context, server_name="example.com", verify_name="example.com")
        send(engine.start())
        while not engine.handshake_done:
            engine.decrypt(receive())
            send(engine.take())
        send(engine.encrypt(b"question"))
        answer = engine.decrypt(receive())      # b"" while a record is incomplete
        send(engine.take())                     # a read can cause output too (a key update, an alert)

    context: Context; its role is the engine's
    server_name: str or None, the SNI name a client sends (RFC 6066, 3)
    verify_name: str or None, the DNS name or IP address that the peer's certificate must be for; as SslSocket takes it: an address
        perhaps in brackets or with a scope, a name perhaps with a dot at its end or not in ASCII
    verify_handler: callable(list of VerifyError) -> bool or None, asked when the peer's chain has errors: go on? Without
        one, VERIFY_PEER refuses and VERIFY_QUERY goes on. A VerifyError is (code, depth, text, SslCertificate or None).
    pre_shared_key_handler: callable(str or None) or None, asked by a client for its key, with the server's hint, if there is one, and by
        a server for that of a client, with its identity: a tuple (identity, key), str or bytes-like and bytes-like (a server's
        identity does not count), None: there is none for it, which lets certificates decide where that is possible, or False: no
        handshake. It may be asked several times; of a server too for what is no identity of anybody. The context's
        pre_shared_keys has to be True.
    release_buffers: bool, free libssl's record buffers (33 KiB) after each record: for connections that are mostly idle
    session_key: hashable or None; engines of one client context with the same key resume each other's sessions. It must
        name all that decides whom the peer is: at least verify_name.
    session: SslSession or None, for a client to offer before those; see `session`

    To be read: context; handshake_done: bool; peer_closed: bool, the peer has ended its direction in order (close_notify).

    Not for two threads at once: RuntimeError. TlsError ends the connection; `take()` then holds the alert for the peer.
    """

    def __cinit__(self, Context context not None, *, str server_name=None, str verify_name=None, verify_handler=None,
                  session_key=None, bint release_buffers=False, SslSession session=None, pre_shared_key_handler=None):
        self.context = context
        self.verify_name = verify_name
        self.verify_handler = verify_handler
        self.session_key = session_key
        self.record_overhead = 64
        self.make_ssl(context.ctx, context.server_side)
        self.release_buffers(release_buffers)
        compared = self.set_names(server_name)
        if pre_shared_key_handler is not None:
            self.pre_shared_key_handler = pre_shared_key_handler
            ask_for_keys(self.ssl, context.server_side)
        if not context.server_side and pre_shared_key_handler is None:
            self.set_sessions(server_name, compared, session)
        ERR_clear_error()

    def __dealloc__(self):
        forget_sessions(self.came)
        free(self.hello)
        forget_verification(&self.found)
        forget_agreed(&self.agreed)

    def __repr__(self):
        role = "server" if self.server_side else "client"
        if self.failed:
            state = "failed"
        elif self.closed or self.peer_closed:
            state = "closed" if self.closed and self.peer_closed else f"closed by {'this side' if self.closed else 'the peer'}"
        else:
            state = f"{_PROTOCOL_NAMES[self.protocol]} {self.cipher}" if self.handshake_done else "before the end of the handshake"
        return f"<{type(self).__name__} of a {role}, {state}>"

    cdef str set_names(self, str server_name):
        """Returns what the peer's certificate has to be for, None for anything."""
        cdef bytes name
        if server_name is not None and not self.context.server_side:
            name = ascii_name(server_name).encode("ascii")
            if name.endswith(b"."):  # RFC 6066, 3: without it
                name = name[:len(name) - 1]
            if not name or b"\0" in name or ssl.SSL_set_tlsext_host_name(self.ssl, name) != 1:
                raise ValueError(f"{server_name!r} cannot be sent as a server name")
        if self.verify_name is not None:
            return set_verify_name(self.ssl, self.verify_name)
        return None

    cdef int set_sessions(self, str server_name, str verify_name, SslSession given) except -1:
        """Mark the sessions that will come, and offer one that bears the same mark. Not where there may be a pre-shared key: a session
        would carry its owner's name to a connection that is given another. And libssl takes a key of TLS 1.3 for a session, and
        would miss the mark in it."""
        cdef bytes mark = self.context.mark_of(server_name, verify_name)
        cdef SSL_SESSION *own
        self.marked = True
        if ssl.SSL_set_session_id_context(
                self.ssl, <const unsigned char *> PyBytes_AS_STRING(mark), <unsigned int> PyBytes_GET_SIZE(mark)) != 1:
            raise MemoryError
        if given is not None and given.serves(mark):
            own = ssl.SSL_SESSION_dup(given.session)  # libssl writes into it, and others may offer it in other threads
            if own == NULL:
                raise MemoryError
            self.resumed = SslSession.wrap(own)
            self.context.drop_session(self.session_key, given)
        elif self.session_key is not None:
            self.resumed = self.context.take_session(self.session_key, mark)
        if self.resumed is not None:
            ssl.SSL_set_session(self.ssl, self.resumed.session)
            self.offered = self.resumed.session
        return 0

    # called by libssl

    cdef int check_chain(self, X509_STORE_CTX *store) noexcept nogil:
        cdef chain_verdict verdict
        cdef bint accepted = False
        cdef int entered
        if self.context.verify_mode == VERIFY_MODE_NONE:
            ssl.X509_STORE_CTX_set_error(store, ssl.X509_V_OK)
            return 1
        if load_use(self.use) == USE_POOL:  # in one record with the ClientHello; and its errors would be the loop's thread's to judge
            self.own_reason = b"the client's certificate came before it was asked for"
            ssl.X509_STORE_CTX_set_error(store, ssl.X509_V_ERR_APPLICATION_VERIFICATION)
            return 0
        verdict = verify(&self.found, store)
        if verdict == CHAIN_GOOD:
            return 1
        if verdict == CHAIN_DOUBTFUL:
            entered = fork_gate_pause()
            with gil:
                accepted = self.decide()
            fork_gate_resume(entered)
        conclude(&self.found, store, accepted)
        return accepted

    cdef int note_session(self, SSL_SESSION *session) noexcept nogil:
        if self.came == NULL:
            self.came = <new_sessions *> calloc(1, sizeof(new_sessions))
        if self.came == NULL or self.came.count == NEW_SESSIONS:
            return 0
        self.came.sessions[self.came.count] = session
        self.came.count += 1
        self.unsettled = True
        return 1

    cdef int check_hello(self) noexcept nogil:
        """The second comes after a HelloRetryRequest only, and may differ from the first in few things: RFC 8446, 4.1.2."""
        cdef unsigned char[HELLO_DIGEST_SIZE] digest
        if not hello_digest(self.ssl, digest):
            return ALERT_INTERNAL_ERROR
        if self.hello == NULL:
            self.hello = <unsigned char *> malloc(HELLO_DIGEST_SIZE)
            if self.hello == NULL:
                return ALERT_INTERNAL_ERROR
            memcpy(self.hello, digest, HELLO_DIGEST_SIZE)
        elif memcmp(self.hello, digest, HELLO_DIGEST_SIZE) != 0:
            self.own_reason = b"the second ClientHello says other things than the first"
            return ALERT_ILLEGAL_PARAMETER
        return 0

    cdef int give_key(
            self, const char *said, char *identity, unsigned int identity_room, unsigned char *key, unsigned int key_room) noexcept nogil:
        with gil:
            return self.find_key(said, identity, identity_room, key, key_room)

    # after libssl's calls

    cdef int note_step(self, int status) noexcept nogil:
        note_agreed(&self.agreed, self.ssl, status == ENGINE_OK)
        if status != ENGINE_WANT_READ and not note_peer(&self.agreed, self.ssl):
            return self.note_failure()
        if status == ENGINE_OK:
            free(self.hello)
            self.hello = NULL
            if self.keyed:
                self.note_keyed()
            if self.offered != NULL:
                self.note_renewed()
        return status

    cdef bint can_put_off(self) noexcept:
        return self.pre_shared_key_handler is None

    cdef void note_keyed(self) noexcept nogil:
        """A key was given; whether it has served. In TLS 1.3 it is to libssl a session that is resumed."""
        if self.agreed.protocol >= ssl.TLS1_3_VERSION:
            self.agreed.pre_shared_key_used = self.agreed.session_reused
            self.agreed.session_reused = False
        else:
            self.agreed.pre_shared_key_used = not self.agreed.session_reused

    cdef void note_renewed(self) noexcept nogil:
        """A server of TLS 1.2 may renew the ticket of a session that it resumes (RFC 5077, 3.3). libssl then has another session
        in place of the one that was offered, but calls no note_session: to it, this one is old."""
        cdef SSL_SESSION *session = ssl.SSL_get_session(self.ssl)
        if session != self.offered and ssl.SSL_session_reused(self.ssl) \
                and ssl.SSL_SESSION_get_protocol_version(session) < ssl.TLS1_3_VERSION:
            ssl.SSL_SESSION_up_ref(session)
            if not self.note_session(session):
                ssl.SSL_SESSION_free(session)
        self.offered = NULL

    cdef void refuse(self, int alert) noexcept nogil:
        """End both directions with a fatal alert (RFC 8446, 6.2), if libssl can be brought to send one: it has no call for that.

        A server of TLS 1.3 may send a ticket at any time; an extension that cannot be made for it ends the connection with
        whatever alert its callback names (SSL_new_session_ticket(3), SSL_CTX_add_custom_ext(3)). Elsewhere it is
        internal_error, whatever was asked for."""
        if not self.context.server_side or ssl.SSL_version(self.ssl) < ssl.TLS1_3_VERSION:
            BareEngine.refuse(self, alert)
        elif not self.closed and not self.failed and self.handshake_done:
            ERR_clear_error()
            self.refusal = alert
            if ssl.SSL_new_session_ticket(self.ssl) == 1:
                ssl.SSL_do_handshake(self.ssl)
            self.note_failure()

    cdef list settle(self):
        """After libssl calls, with the GIL: what they left to do. Returns the sessions that came, a list, or None."""
        cdef SslSession session
        cdef list came
        if self.answered:
            self.note_answer()
        if not self.unsettled:
            return None
        self.unsettled = False
        if self.came == NULL:
            return None
        came = []
        while self.came.count:
            self.came.count -= 1
            session = SslSession.wrap(self.came.sessions[self.came.count])
            # A resumption verifies nothing, so one that rests on errors that were ignored would pass them on.
            if self.errors is None and self.marked:
                came.insert(0, session)
        free(self.came)
        self.came = NULL
        for session in came:
            with cython.critical_section(self):
                self.newest, self.resumed = session, None
            if self.session_key is not None:
                self.context.keep_session(self.session_key, session)
        return came or None

    cdef int note_answer(self) except -1:
        """The client has answered a request for its certificate."""
        self.answered = False
        if self.failed:
            return 0
        ssl.SSL_set_msg_callback(self.ssl, NULL)
        with cython.critical_section(self):
            forget_agreed(&self.agreed)
            if not note_peer(&self.agreed, self.ssl):
                raise MemoryError
        self.certificate_requested = False
        return 0

    cdef bint decide(self) noexcept:
        """Whether to go on in spite of the errors that verification has found."""
        cdef list errors
        cdef bint accepted = False
        handler, self.verify_handler = self.verify_handler, None
        try:
            errors = errors_found(&self.found, self.verify_name)
            with cython.critical_section(self):
                self.errors = errors
            if handler is not None:
                if not self.handshake_done:
                    note_agreed(&self.agreed, self.ssl, False)
                    if not note_peer(&self.agreed, self.ssl):
                        raise MemoryError
                store_use(self.use, USE_ASKING)
                accepted = bool(handler(list(errors)))
            else:
                accepted = self.context.verify_mode != VERIFY_MODE_PEER
        except BaseException as exc:
            self.handler_error = exc  # nothing may leave a C callback; raised by whoever called libssl
        store_use(self.use, USE_LIBSSL)
        return accepted

    cdef int find_key(
            self, const char *said, char *identity, unsigned int identity_room, unsigned char *key, unsigned int key_room) noexcept:
        """Ask for a pre-shared key: its size, 0 for none, REFUSED."""
        cdef int size = REFUSED
        handler = self.pre_shared_key_handler
        if handler is not None:
            store_use(self.use, USE_ASKING)
            try:
                size = use_answer(handler(text_of(said)), identity, identity_room, key, key_room)
            except BaseException as exc:
                self.handler_error = exc  # raised by whoever called libssl, as in `decide`
            store_use(self.use, USE_LIBSSL)
        if size == REFUSED:
            self.own_reason = b"there is no pre-shared key that may be used"
        return size

    cdef object failure(self):
        """The TlsError for a failure that `classify` has seen."""
        cdef int reason_code = ERR_GET_REASON(self.error_code)
        cdef str reason, text
        alert = None
        if self.own_reason != NULL:
            text = reason = self.own_reason.decode("ascii")
        else:
            text = reason = error_words(self.error_code) if self.error_code else "the connection was cut"
            if ALERT_REASONS <= reason_code < ALERT_REASONS + 256:
                number = reason_code - ALERT_REASONS
                alert = NEWER_ALERTS.get(number) or ssl.SSL_alert_desc_string_long(number).decode("ascii", "replace")
                alert = f"number {number}" if alert == "unknown" else alert.replace("_", " ")  # OpenSSL's "unexpected_message"
                text = f"the peer sent the alert \"{alert}\""
            elif self.errors and self.found.refused != NULL:
                code, depth, words, certificate = self.errors[0]
                name = f" ({certificate!r}, depth {depth})" if certificate is not None else ""
                text = f"{reason}: {words}{name}"
        return TlsError(text, reason, alert, not self.handshake_done)

    # For programs.

    cdef int enter(self) except -1:
        return self.take_use()

    cdef int leave(self, int status) except -1:
        """After the libssl calls of one method: raise what they have left to raise."""
        try:
            self.settle()
            error, self.handler_error = self.handler_error, None
            if error is None and status == ENGINE_FAILED:
                error = self.failure()
        finally:
            store_use(self.use, USE_FREE)
        if error is not None:
            raise error
        return 0

    cdef int look(self) except -1:
        """Before reading what has been agreed on: not while a handshake in another thread may change it."""
        if load_int(self.handshake_done):
            return 0
        self.require_here()
        if load_use(self.use) == USE_LIBSSL:
            raise RuntimeError("this engine is at work in another thread")
        return 0

    def start(self):
        """Begin the handshake. Returns bytes to send: a client's ClientHello, nothing for a server."""
        cdef int status
        self.enter()
        with nogil:
            status = self.shake()
        self.leave(status)
        return self.take()

    def decrypt(self, data):
        """Take ciphertext as it came from the peer, in any pieces (bytes-like, may be empty). Returns the plaintext that is
        complete: bytes, empty during the handshake. TlsError when the connection has failed."""
        cdef Py_buffer view
        cdef bytes plain
        cdef PyObject *whole
        cdef size_t capacity, got = 0
        cdef int status
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.enter()
            if not self.open_in(<const char *> view.buf, view.len):
                store_use(self.use, USE_FREE)
                raise MemoryError
            status = self.shake_if_needed()
            plain = b""
            if status == ENGINE_OK:
                # Plaintext is shorter than its records, so one buffer does unless part of a record came earlier.
                capacity = self.window.in_left
                whole = new_bytes(NULL, capacity)
                status = self.pull_some(PyBytes_AS_STRING(<object> whole), capacity, &got)
                plain = shortened(whole, got)
                if status == ENGINE_OK:
                    plain += self.pull_rest(&status)
            if not self.close_in():
                store_use(self.use, USE_FREE)
                raise MemoryError
        finally:
            PyBuffer_Release(&view)
        if status == ENGINE_FAILED and plain:
            status = ENGINE_OK  # what came before the failure first; the next call reports it
        self.leave(status)
        return plain

    def decrypt_into(self, data, buffer):
        """Like `decrypt`, but into `buffer` (writable). Returns the number of bytes written: int. What finds no room is given
        by the next call, which may come with empty `data`."""
        cdef Py_buffer view, room
        cdef size_t got = 0, more = 0
        cdef int status
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(buffer, &room, PyBUF_WRITABLE)
            try:
                self.enter()
                if not self.open_in(<const char *> view.buf, view.len):
                    store_use(self.use, USE_FREE)
                    raise MemoryError
                status = self.shake_if_needed()
                while status == ENGINE_OK and got < <size_t> room.len:
                    status = self.pull_some(<char *> room.buf + got, room.len - got, &more)
                    got += more
                if not self.close_in():
                    store_use(self.use, USE_FREE)
                    raise MemoryError
            finally:
                PyBuffer_Release(&room)
        finally:
            PyBuffer_Release(&view)
        if status == ENGINE_FAILED and got:
            status = ENGINE_OK
        self.leave(status)
        return got

    cdef int shake_if_needed(self) noexcept:
        cdef int status
        if self.handshake_done:
            return ENGINE_OK
        with nogil:
            status = self.shake()
        return status

    cdef int pull_some(self, char *data, size_t capacity, size_t *got) noexcept:
        cdef int status
        if self.window.in_left < RELEASE_GIL_AT:
            return self.pull(data, capacity, got)
        with nogil:
            status = self.pull(data, capacity, got)
        return status

    cdef bytes pull_rest(self, int *status):
        cdef char[RECORD_SIZE] record
        cdef size_t got
        cdef list pieces = []
        while status[0] == ENGINE_OK:
            status[0] = self.pull(record, RECORD_SIZE, &got)
            if got:
                pieces.append(PyBytes_FromStringAndSize(record, got))
        return b"".join(pieces)

    def encrypt(self, data):
        """Encrypt `data` (bytes-like). Returns bytes to send, what was waiting before (see `take`) in front.

        RuntimeError before the handshake is done and after `close`; TlsError when the connection has failed."""
        cdef Py_buffer view
        cdef bytes cipher
        cdef PyObject *whole
        cdef byte_queue rest
        cdef size_t records, capacity, waiting
        cdef ssize_t used
        cdef int status
        self.require_open()
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if view.len == 0:
                return self.take()
            self.enter()
            try:
                self.require_unclosed()
                waiting = self.window.spill.size
                records = (<size_t> view.len + RECORD_SIZE - 1) // RECORD_SIZE
                capacity = view.len + records * self.record_overhead
                whole = new_bytes(NULL, capacity)
            except BaseException:
                store_use(self.use, USE_FREE)
                raise
            self.open_output(PyBytes_AS_STRING(<object> whole), capacity)
            if view.len < RELEASE_GIL_AT:
                status = self.push(<const char *> view.buf, view.len)
            else:
                with nogil:
                    status = self.push(<const char *> view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        memset(&rest, 0, sizeof(rest))
        used = self.take_output(&rest)
        if status == ENGINE_OK and waiting == 0:
            self.record_overhead = (used + rest.size - view.len + records - 1) // records
        try:
            cipher = shortened(whole, used)
            if rest.size:
                cipher += byte_queue_front(&rest)[:rest.size]
        finally:
            byte_queue_clear(&rest)
            self.leave(status)
        return cipher

    cdef int require_open(self) except -1:
        """For `encrypt`."""
        self.require_free()
        return self.require_unclosed()

    cdef int require_unclosed(self) except -1:
        if not self.handshake_done:
            raise RuntimeError("nothing can be encrypted before the handshake is done")
        if self.closed:
            raise RuntimeError("nothing can be encrypted after close()")
        return 0

    def take(self):
        """What waits to be sent besides the results of `encrypt`: handshake messages, tickets, alerts. bytes, often empty."""
        cdef bytes waiting
        cdef byte_queue rest
        self.enter()
        try:
            if self.window.spill.size == 0:
                return b""
            waiting = PyBytes_FromStringAndSize(NULL, self.window.spill.size)
            memset(&rest, 0, sizeof(rest))
            self.take_output(&rest)
            memcpy(PyBytes_AS_STRING(waiting), byte_queue_front(&rest), rest.size)
            byte_queue_clear(&rest)
            return waiting
        finally:
            store_use(self.use, USE_FREE)

    def close(self):
        """End the outgoing direction. Returns bytes to send, with close_notify at the end. Reading goes on until
        `peer_closed`; a connection that ends without that was cut short."""
        self.enter()
        self.goodbye()
        self.leave(ENGINE_OK)
        return self.take()

    # What was agreed on.

    @property
    def server_side(self):
        """Role: bool."""
        return self.context.server_side

    @property
    def to_send(self):
        """Bytes that `take` would give: int."""
        return self.window.spill.size

    @property
    def protocol(self):
        """Version number of the protocol (0x0304: TLS 1.3), 0 before it is agreed on: int."""
        self.look()
        return self.agreed.protocol

    @property
    def cipher(self):
        """OpenSSL's name of the cipher suite, "" before it is agreed on: str."""
        self.look()
        return ssl.SSL_CIPHER_get_name(self.agreed.cipher).decode("ascii") if self.agreed.cipher != NULL else ""

    @property
    def group(self):
        """Name of the key exchange group, "" when there is none: str."""
        self.look()
        return self.agreed.group.decode("ascii", "replace") if self.agreed.group != NULL else ""

    @property
    def next_protocol(self):
        """The ALPN protocol agreed on (RFC 7301): bytes or None."""
        self.look()
        if self.agreed.next_protocol_size == 0:
            return None
        return (<const char *> self.agreed.next_protocol)[:self.agreed.next_protocol_size]

    @property
    def session(self):
        """The newest session by which this connection can be resumed: SslSession. None for a server, before one has come, where errors
        were ignored, and with a pre_shared_key_handler. A server of TLS 1.3 sends them after the handshake, so they come with `decrypt`."""
        self.look()
        with cython.critical_section(self):
            newest, resumed = self.newest, self.resumed
        if newest is None and self.handshake_done and self.agreed.session_reused and self.agreed.protocol < ssl.TLS1_3_VERSION:
            return resumed
        return newest

    @property
    def session_reused(self):
        """Whether an earlier session was resumed: bool."""
        self.look()
        return bool(self.agreed.session_reused)

    @property
    def pre_shared_key_used(self):
        """Whether a pre-shared key has authenticated both sides, in place of certificates: bool."""
        self.look()
        return bool(self.agreed.pre_shared_key_used)

    @property
    def requested_server_name(self):
        """The SNI name, as the client sent it (see `ClientHello.server_name`): str or None."""
        cdef const char *name
        self.look()
        name = self.agreed.server_name
        return name.decode("utf-8", "surrogateescape") if name != NULL and name[0] != 0 else None

    @property
    def verify_errors(self):
        """All that was wrong with the peer's certificates: list of VerifyError."""
        with cython.critical_section(self):
            errors = self.errors
        return list(errors) if errors is not None else []

    @property
    def refused_certificate(self):
        """The peer's own certificate, if verification has refused its chain: SslCertificate or None."""
        self.look()
        if self.found.refused == NULL:
            return None
        X509_up_ref(self.found.refused)
        return SslCertificate.wrap(self.found.refused)

    def request_certificate(self):
        """Ask the client for its certificate after the handshake (TLS 1.3, RFC 8446, 4.6.2). Returns bytes to send.

        The answer comes with `decrypt`, between other data: until then `certificate_requested` is True. It is verified as in a
        handshake, `verify_handler` is asked, and TlsError says that it was refused. RuntimeError, with the reason, where that cannot
        be: on a client, with an older protocol, while an answer is awaited, and where the client has not agreed to it."""
        self.enter()
        try:
            reason = self.ask_for_certificate()
        finally:
            store_use(self.use, USE_FREE)
        if reason:
            raise RuntimeError(reason)
        return self.take()

    cdef str ask_for_certificate(self):
        cdef int reason
        cdef engine_use before
        cdef bint asked
        if not self.handshake_done or self.failed or self.closed:
            return "there is no connection whose handshake is done"
        if not self.context.server_side:
            return "the server asks the client"
        before = self.enter_libssl()
        ERR_clear_error()
        asked = ssl.SSL_verify_client_post_handshake(self.ssl) == 1 and ssl.SSL_do_handshake(self.ssl) == 1
        self.leave_libssl(before)
        reason = ERR_GET_REASON(ERR_peek_error())
        words = error_words(ERR_peek_error()) if reason else "OpenSSL does not say why"
        ERR_clear_error()
        if not asked:
            return NOT_ASKED.get(reason, words)
        ssl.SSL_set_msg_callback(self.ssl, note_message)
        forget_verification(&self.found)
        with cython.critical_section(self):
            self.errors = None
        self.certificate_requested = True
        return ""

    @property
    def certificate_missing(self):
        """Whether the handshake has failed because the peer showed no certificate, though it had to: bool."""
        return self.failed and ERR_GET_LIB(self.error_code) == ERR_LIB_SSL \
            and ERR_GET_REASON(self.error_code) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE

    def peer_certificate_chain(self):
        """The peer's certificates as it sent them, its own first: list of SslCertificate."""
        self.look()
        with cython.critical_section(self):  # a client may be about to show another
            return peer_chain(&self.agreed, self.context.server_side)

    def peer_verified_chain(self):
        """The chain by which the peer's certificate was verified: its own first, the trusted one last: list of SslCertificate. Empty
        where nothing was verified (VERIFY_NONE, a resumed session, no certificate), or errors were found."""
        self.require_here()  # this is asked of libssl
        self.look()
        if not self.handshake_done or self.errors is not None or self.context.verify_mode == VERIFY_MODE_NONE:
            return []
        return verified_chain(self.ssl)

    def channel_binding(self, kind):
        """What binds an authentication inside the connection to it, the same on both sides: bytes.

        kind: "tls-exporter" (RFC 9266), "tls-server-end-point" or "tls-unique" (RFC 5929). None before the handshake is done, and
        where the connection has none of the kind: "tls-server-end-point" with a pre-shared key; "tls-unique" in TLS 1.3; "tls-unique" and "tls-exporter" in TLS 1.2 without
        extended master secret (RFC 7627); "tls-server-end-point" of a certificate that is signed without a hash (Ed25519), and on a
        server with several certificates that has resumed a session. ValueError: there is no such kind.
        """
        check_binding(kind)
        self.enter()
        try:
            if not self.handshake_done or (kind == "tls-server-end-point" and self.agreed.pre_shared_key_used):
                return None
            return binding_of(self.ssl, &self.agreed, kind, self.context.server_side, self.context.identities == 1)
        finally:
            store_use(self.use, USE_FREE)

    def export_keying_material(self, label, length, context=None):
        """A secret that both sides can make and nobody else (RFC 5705; RFC 8446, 7.5): bytes.

        label: str (ASCII) or bytes, as registered with IANA or beginning with "EXPERIMENTAL". length: bytes wanted, int. context:
        bytes-like, what it is for; None: no context, which is another than an empty one with TLS 1.2. RuntimeError before the
        handshake is done; ValueError for a label or a length that cannot be.
        """
        cdef bytes name
        cdef Py_ssize_t wanted = length
        if not isinstance(label, (str, bytes)):
            raise TypeError(f"label is a str or bytes, not {type(label).__name__}")
        name = label.encode("ascii") if isinstance(label, str) else label
        if not name or not 0 < wanted <= MOST_EXPORTED:
            raise ValueError(f"a label is not empty, and a length 1 to {MOST_EXPORTED}, not {wanted}")
        given = None if context is None else bytes(memoryview(context))
        self.enter()
        try:
            if not self.handshake_done:
                raise RuntimeError("nothing can be exported before the handshake is done")
            return exported(self.ssl, name, given, wanted)
        finally:
            store_use(self.use, USE_FREE)
