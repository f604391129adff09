"""A channel: one connected descriptor, perhaps TLS on it, and its queues.

A link (link.pyx) with what is on its way for a program: plaintext that nobody has read (`input`), plaintext that was written
and not encrypted (`queue`). Knows nothing of names, connecting or Python handlers; it reports to one consumer (channel.pyi:
_ChannelConsumer).

In: recv into the loop's scratch; the engine decrypts from there into the plaintext scratch, as many records as there are;
the consumer is told once and reads straight from the scratch; what it leaves is kept.

Out: `write` queues a reference to the caller's bytes. Small writes wait for the end of the event or the turn and leave
together; from LEAVE_AT on they leave at once. A batch is encrypted into the send scratch and given to the kernel in one
send; only what the kernel refuses is copied (`out`), and the rest of the queue stays as references to be encrypted later.

After every call of the consumer the channel may be finished, aborted, or inside another turn: each such call is followed by
a look at `phase`, and nothing is kept in the scratch across it except what `input` borrows, which belongs to this level of
turns.

The phases of the end: finish() -> FINISHING -> (all sent, close_notify too) on_drained -> LINGERING -> CLOSED;
abort() or a failure -> CLOSED, a failure that has an alert to send by way of LINGERING; a relay takes over: CLOSED.
"""

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint32_t

cimport linux
from sslsock.core.bare_engine cimport ENGINE_CLOSED, ENGINE_FAILED, ENGINE_OK, RECORD_SIZE, BareEngine
from sslsock.core.descriptor cimport Descriptor
from sslsock.core.input_buffer cimport input_clear, input_consume, input_copy, input_keep, input_line, input_size
from sslsock.core.link cimport (
    ANSWERS_SIZE, INPUT_AFTER_END, INPUT_AFTER_FAILURE, NETWORK_FAILED, NO_MEMORY, PEER_RESET, TIMED_OUT, TLS_FAILED, Link)
from sslsock.core.loop cimport Loop
from sslsock.core.output_link cimport (
    PHASE_CLOSED, PHASE_FINISHING, PHASE_LINGERING, PHASE_NEW, PHASE_OPEN, TLS_NONE, TLS_OPEN, TLS_SHAKING, OutputLink)
from sslsock.core.schedule cimport Timer
from sslsock.core.scratch cimport PLAIN_SIZE, Scratch
from window_bio cimport byte_queue, byte_queue_append, byte_queue_front, byte_queue_move

cdef enum:
    # bytes
    READ_SIZE = 128 * 1024  # one receive: with its plaintext and what the program makes of it, it stays in a core's cache
    LEAVE_AT = 256 * 1024  # queued plaintext that does not wait for the end of the event
    RECORD_ROOM = RECORD_SIZE + 512  # one record with all that any cipher suite adds
    REFUSED_SIZE = 64 * 1024  # unread input of a peer that is refused, thrown away so that it hears why
    RELEASE_GIL_AT = 64 * 1024  # below, giving the GIL away costs more than the work (docs/design.md, "The GIL")


cdef double LINGER_SECONDS = 5.0

FAILURE_RESET, FAILURE_NETWORK, FAILURE_TIMEOUT, FAILURE_HANDSHAKE, FAILURE_HANDSHAKE_TIMEOUT, FAILURE_HANDSHAKE_CLOSED, \
    FAILURE_TLS, FAILURE_RESOURCE = range(8)

# What a link's failure is to the consumer; one of TLS depends on the phase.
cdef dict FAILURES = {
    PEER_RESET: FAILURE_RESET, NETWORK_FAILED: FAILURE_NETWORK, TIMED_OUT: FAILURE_TIMEOUT, NO_MEMORY: FAILURE_RESOURCE}


@cython.final
cdef class Channel(OutputLink):
    """A connected descriptor, perhaps TLS, and its queues.

    loop: Loop. consumer: _ChannelConsumer, told what happens; held until the end.

    read_bound: most plaintext bytes kept unread, 0 for no bound. notify_written, notify_sessions: whether on_written and on_session
    are called.
    hold_writes: keep what has not left yet until the TLS handshake is done. Every method raises RuntimeError in a foreign thread.
    """

    def __cinit__(self, Loop loop not None, consumer):
        self.loop = loop
        self.consumer = consumer
        self.phase = PHASE_NEW
        self.tls = TLS_NONE
        self.drained = True

    def __dealloc__(self):
        input_clear(&self.input)

    cdef int require(self) except -1:
        return self.loop.require()

    cdef int require_thread(self) except -1:
        return self.loop.require_thread()

    # beginning

    def attach(self, descriptor):
        """Take over a connected and non-blocking descriptor (int, or the Descriptor that owns it), and start to watch it.
        OSError if it cannot be watched; it is then still the caller's."""
        cdef Descriptor owner = <Descriptor> descriptor if isinstance(descriptor, Descriptor) else None
        cdef int fd = descriptor if owner is None else owner.number
        self.require()
        if self.phase != PHASE_NEW:
            raise RuntimeError("the channel has a descriptor already")
        self.start_watching(fd, linux.EPOLLIN | linux.EPOLLRDHUP | linux.EPOLLPRI)
        if owner is not None:
            owner.number = -1
        self.phase = PHASE_OPEN
        if self.queue.size and not self.hold_writes:
            self.plan_flush()

    def start_tls(self, BareEngine engine not None, double timeout):
        """Begin the handshake. What was received and not read belongs to it; what was queued goes out in the clear before
        it, unless `hold_writes`. timeout: seconds until it has to be done, 0 for none."""
        cdef const char *data
        cdef size_t size
        self.require()
        if self.phase != PHASE_OPEN or self.tls != TLS_NONE:
            raise RuntimeError("TLS starts once, on an open channel")
        if not self.hold_writes and self.queue.size:
            self.send_queue()
            if self.phase != PHASE_OPEN:
                return
            while self.queue.size:
                size = self.queue.front(&data)
                if not byte_queue_append(&self.out, data, size):
                    raise MemoryError
                self.out_plain += size
                self.queue.advance(size)
        self.keep_lent()
        if self.input.kept.size:
            if not byte_queue_append(&engine.backlog, byte_queue_front(&self.input.kept), self.input.kept.size):
                raise MemoryError
            input_clear(&self.input)
        engine.release_buffers(True)  # an idle connection keeps no record buffer
        self.engine = engine
        self.tls = TLS_SHAKING
        self.hold_writes = False
        if self.written:
            self.plan_flush()
        self.verify_handler, self.key_handler = engine.verify_handler, engine.pre_shared_key_handler
        if self.verify_handler is not None:
            engine.verify_handler = self._ask_verify_handler
        if self.key_handler is not None:
            engine.pre_shared_key_handler = self._ask_key_handler
        if timeout > 0:
            self.set_deadline(timeout, self._handshake_overdue)
        self.engine_ready = not engine.is_server() or engine.backlog.size > 0
        if self.engine_ready:
            self.plan_again()

    @property
    def can_join(self):
        """Open, and no handshake is under way or due, so that a relay can take it: bool."""
        return self.phase == PHASE_OPEN and self.tls != TLS_SHAKING and not self.hold_writes \
            and (self.engine is None or not self.engine.in_use())

    # incoming

    cdef void on_event(self, uint32_t events) noexcept:
        self.note_events(events)
        self.serve()

    cdef void on_again(self) noexcept:
        self.serve()

    cdef void on_flush(self) noexcept:
        self.end_event()

    cdef void on_loop_closed(self) noexcept:
        self.close_now()

    cdef size_t waiting_output(self) noexcept:
        return self.unsent()

    cdef void on_fork(self) noexcept:
        self.phase = PHASE_CLOSED
        self.engine_ready = False
        self.written = 0

    cdef void serve(self) noexcept:
        """Do what can be done now, and come back if that was not all."""
        if self.engine is not None and self.engine.in_use():
            return  # below a verification handler: libssl is not to be entered twice; who called it comes back here
        if self.phase == PHASE_LINGERING or (self.phase == PHASE_FINISHING and self.tls != TLS_SHAKING):
            self.discard_input()
        elif self.phase == PHASE_OPEN or self.phase == PHASE_FINISHING:
            self.receive()
            if self.phase == PHASE_OPEN and (self.hang_up or self.suspect) and not self.fin and self.paused():
                self.look_for_end()
                if self.fin:
                    self.meet_end()
        self.end_event()
        self.read_on()

    cdef bint paused(self) noexcept:
        """Not to be read now: the consumer has as much unread as it wants, or the peer does not read what libssl answers to it
        (to key updates, to a renegotiation)."""
        if self.bound and self.phase == PHASE_OPEN and input_size(&self.input) >= self.bound:
            return True
        return self.answered >= ANSWERS_SIZE

    cdef void read_on(self) noexcept:
        """Read again in the next turn if there is something that no edge will announce, and room for it."""
        if self.fd >= 0 and (self.engine_ready or not self.drained) and not self.fin and not self.paused():
            self.plan_again()

    cdef void receive(self) noexcept:
        """One receive at the most, so that no peer keeps the others waiting."""
        cdef size_t wanted = READ_SIZE, size
        cdef char *memory = self.loop.scratch.receive
        if self.paused():
            return
        if self.engine_ready:
            self.feed_tls(0)
            return
        if self.drained:
            return
        if self.bound:
            wanted = min(wanted, self.bound - input_size(&self.input))
            if self.tls != TLS_NONE:
                wanted = max(wanted, <size_t> RECORD_ROOM)
        if self.bulk:
            with nogil:
                size = self.take_in(memory, wanted)
        else:
            size = self.take_in(memory, wanted)
        if size:
            self.bulk = size >= RELEASE_GIL_AT
            if self.tls == TLS_NONE:
                self.deliver(memory, size)
            else:
                self.feed_tls(size)
        elif self.fin:
            self.meet_end()

    cdef void meet_end(self) noexcept:
        """Nothing more comes from the system."""
        if self.dead:
            self.fail_link()
        elif self.tls == TLS_SHAKING:
            self.fail(FAILURE_HANDSHAKE_CLOSED, "the peer closed the connection during the TLS handshake", 0)
        else:
            self.end_of_input(self.tls == TLS_NONE)

    cdef void feed_tls(self, size_t size) noexcept:
        """Give the engine `size` bytes from the scratch, after what it has, and pass on what comes out."""
        cdef BareEngine engine = self.engine
        cdef size_t got = 0, room = PLAIN_SIZE
        cdef int status
        if self.tls == TLS_SHAKING:
            self.shake(engine, size)
            return
        if self.bound:
            room = min(room, self.bound - input_size(&self.input))
        if size >= RELEASE_GIL_AT:
            with nogil:
                status = self.decrypt(size, self.loop.scratch.plain, room, &got)
        else:
            status = self.decrypt(size, self.loop.scratch.plain, room, &got)
        if not self.keep_output():
            status = ENGINE_FAILED
        sessions = self.settle(engine) if engine.unsettled else None
        if sessions is not None and self.notify_sessions:
            self.deliver_sessions(sessions, got)
        elif got:
            self.deliver(self.loop.scratch.plain, got)
        if status == ENGINE_CLOSED:
            self.end_of_input(True)
        elif status == ENGINE_FAILED:
            self.fail_link()

    cdef void shake(self, BareEngine engine, size_t size) noexcept:
        """Go on with the handshake."""
        cdef int status
        cdef bint kept
        self.engine_ready = False
        if not engine.open_in(self.loop.scratch.receive, size):
            self.fail_with(NO_MEMORY, linux.ENOMEM, False)
            self.fail_link()
            return
        with nogil:
            status = engine.shake()
        kept = engine.close_in()
        if self.phase != PHASE_OPEN and self.phase != PHASE_FINISHING:  # a verification handler has ended it
            return
        if not kept:
            self.fail_with(NO_MEMORY, linux.ENOMEM, False)
        elif status == ENGINE_FAILED:
            self.fail_with(TLS_FAILED, 0, False)
        if not self.keep_output() or not kept or status == ENGINE_FAILED:
            self.fail_link()
        elif status == ENGINE_OK:
            self.cancel_deadline()
            self.tls = TLS_OPEN
            self.forget_handlers(engine)
            sessions = self.settle(engine) if engine.unsettled else None
            self.engine_ready = engine.backlog.size > 0
            if self.phase == PHASE_OPEN:
                consumer = self.consumer
                try:
                    consumer.on_encrypted()
                except BaseException as exc:
                    self.loop.report_call(consumer, "on_encrypted", exc)
                if sessions is not None and self.notify_sessions:
                    self.tell_sessions(sessions)
                if self.phase == PHASE_OPEN and self.engine_ready:
                    self.receive()  # data that came with the last handshake message
        elif self.fin:  # the peer's end was read before TLS started
            self.meet_end()

    cdef list settle(self, BareEngine engine) noexcept:
        cdef list sessions = None
        try:
            sessions = engine.settle()
        except BaseException as exc:
            self.loop.report("a TLS session could not be kept", exc, self.consumer)
        return sessions

    cdef void deliver_sessions(self, list sessions, size_t size) noexcept:
        """Tell of sessions, and then of the `size` bytes of plaintext that came with them: those are kept meanwhile, for whoever is
        told may have more delivered, by a turn of its own."""
        self.keep_lent()
        self.input.lent = self.loop.scratch.plain
        self.input.lent_left = size
        self.keep_lent()
        self.tell_sessions(sessions)
        if size and input_size(&self.input):
            self.deliver(NULL, 0)

    cdef void tell_sessions(self, list sessions) noexcept:
        for session in sessions:
            consumer = self.consumer
            if self.phase != PHASE_OPEN:
                return
            try:
                consumer.on_session(session)
            except BaseException as exc:
                self.loop.report_call(consumer, "on_session", exc)

    def _ask_verify_handler(self, errors):
        """The engine's verify_handler."""
        handler, self.verify_handler = self.verify_handler, None
        return bool(self.ask(handler, "verify_handler", errors))

    def _ask_key_handler(self, said):
        """The engine's pre_shared_key_handler."""
        return self.ask(self.key_handler, "pre_shared_key_handler", said)

    cdef object ask(self, object handler, str name, object said):
        """A handler of the consumer's, in a scratch of its own, for libssl is at work in the current one. False without one, or where it
        has raised."""
        cdef Scratch outer
        consumer = self.consumer
        answer = False
        if handler is not None:
            outer = self.loop.enter_scratch()
            try:
                answer = handler(said)
            except BaseException as exc:
                self.loop.report_call(consumer, name, exc)
            self.loop.leave_scratch(outer)
        return answer

    cdef void forget_handlers(self, BareEngine engine) noexcept:
        """They refer to this channel: a cycle."""
        engine.verify_handler = engine.pre_shared_key_handler = self.verify_handler = self.key_handler = None

    def _handshake_overdue(self):
        """The handshake's deadline."""
        if self.tls == TLS_SHAKING and self.phase != PHASE_CLOSED:
            self.fail(FAILURE_HANDSHAKE_TIMEOUT, "the TLS handshake was not done in time", INPUT_AFTER_FAILURE)

    cdef void deliver(self, const char *data, size_t size) noexcept:
        """Tell the consumer of new plaintext, which it may read straight from the scratch; keep what it leaves."""
        consumer = self.consumer
        if self.phase != PHASE_OPEN:
            return
        self.keep_lent()  # of an outer turn, when a handler has called dispatch
        self.input.lent = data
        self.input.lent_left = size
        self.read_on()  # a consumer that waits for more in a nested turn must find it there
        try:
            consumer.on_readable()
        except BaseException as exc:
            self.loop.report_call(consumer, "on_readable", exc)
        self.keep_lent()

    cdef void keep_lent(self) noexcept:
        if not input_keep(&self.input):
            self.fail_with(NO_MEMORY, linux.ENOMEM, False)
            self.fail_link()

    # reading

    @property
    def bytes_available(self):
        """Plaintext that can be read now, in bytes: int."""
        return self.unread()

    @property
    def can_read_line(self):
        """Whether a whole line can be read: bool."""
        return self.line_end() > 0

    @property
    def read_bound(self):
        """Most plaintext bytes kept unread, 0 for no bound: int. At the bound nothing is received, but an error of the connection
        is told."""
        return self.bound

    @read_bound.setter
    def read_bound(self, size_t bound):
        self.require_thread()
        self.bound = bound
        if self.hang_up:
            self.plan_again()
        self.read_on()

    cdef size_t unread(self) noexcept:
        return input_size(&self.input)

    cdef size_t line_end(self) noexcept:
        return input_line(&self.input)

    cdef size_t limited(self, Py_ssize_t count) noexcept:
        """Of what can be read, `count` bytes at the most; negative: all."""
        cdef size_t size = input_size(&self.input)
        return size if count < 0 or <size_t> count > size else <size_t> count

    cdef void consume(self, size_t size) noexcept:
        input_consume(&self.input, size)
        if self.bound:
            self.read_on()

    cdef bytes take(self, size_t size):
        cdef bytes data
        if size == 0:
            return b""
        data = PyBytes_FromStringAndSize(NULL, size)
        input_copy(&self.input, PyBytes_AS_STRING(data), size)
        self.consume(size)
        return data

    cpdef bytes read(self, Py_ssize_t count=-1):
        """Up to `count` bytes of what is there, all of it by default: bytes, empty when there is nothing."""
        self.require_thread()
        return self.take(self.limited(count))

    cpdef bytes peek(self, Py_ssize_t count=-1):
        """Like `read`, but nothing is taken away."""
        cdef size_t size
        cdef bytes data
        self.require_thread()
        size = self.limited(count)
        data = PyBytes_FromStringAndSize(NULL, size)
        if size:
            input_copy(&self.input, PyBytes_AS_STRING(data), size)
        return data

    cpdef bytes read_line(self, Py_ssize_t count=-1):
        """Up to and with the first newline, or what there is; `count` bytes at the most."""
        cdef size_t size, line
        self.require_thread()
        size, line = self.limited(count), self.line_end()
        return self.take(min(size, line) if line else size)

    cpdef Py_ssize_t read_into(self, buffer) except -1:
        """Fill `buffer` (writable) with what is there. Returns the number of bytes: int."""
        cdef Py_buffer view
        cdef size_t size
        self.require_thread()
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        try:
            # Getting a buffer and giving it back may run code of the caller's (PEP 688), which may read here itself.
            size = self.limited(view.len)
            input_copy(&self.input, <char *> view.buf, size)
            self.consume(size)
        finally:
            PyBuffer_Release(&view)
        return size

    def discard(self):
        """Throw away what was received and not read."""
        self.require_thread()
        input_clear(&self.input)
        if self.bound:
            self.read_on()

    # writing

    @property
    def bytes_to_write(self):
        """Plaintext written and not yet handed to the system, in bytes: int."""
        return self.unsent()

    cdef size_t unsent(self) noexcept:
        return self.queue.size + self.out_plain

    cpdef Py_ssize_t write(self, data) except -1:
        """Queue `data` (bytes-like) to be sent. Returns its length in bytes: all of it is taken. RuntimeError after
        `finish`, TypeError if it is no buffer."""
        cdef Channel alive
        cdef bytes piece
        cdef size_t size
        self.require()
        # A bytes object cannot change, so a reference does; anything else is copied before the caller may change it.
        piece = <bytes> data if PyBytes_CheckExact(data) else memoryview(data).tobytes()
        if self.phase != PHASE_OPEN and self.phase != PHASE_NEW:
            raise RuntimeError("nothing can be written to a channel that is finished or closed")
        size = PyBytes_GET_SIZE(piece)
        if size == 0 or self.dead:
            return size
        self.queue.append(piece)
        if self.phase == PHASE_NEW or self.blocked:
            return size
        if self.queue.size >= LEAVE_AT and self.tls != TLS_SHAKING and not self.hold_writes:
            alive = self  # a failure is told at once, and may end with the caller's last reference
            self.send_queue()
            if not self.notify_written:
                return size
        self.plan_flush()
        return size

    def flush(self):
        """Send now what is queued, as far as the system takes it."""
        self.require()
        if self.engine is None or not self.engine.in_use():
            self.send_queue()
        if self.written:
            self.plan_flush()

    cdef void send_failed(self) noexcept:
        """Nothing can be sent any more. What the peer sent before it went is read first; the end of it then tells."""
        self.drop_output()
        if self.phase == PHASE_FINISHING or self.fin:
            self.fail_link()
        else:
            self.plan_again()

    cdef void end_event(self) noexcept:
        """After whatever has happened: send, and tell how much has been sent."""
        if (self.out.size or self.queue.size or self.phase == PHASE_FINISHING) and not self.blocked:
            if self.engine is None or not self.engine.in_use():
                self.send_queue()
        if self.written:
            self.report_written()

    cdef void report_written(self) noexcept:
        cdef size_t count = self.written
        consumer = self.consumer
        self.written = 0
        if self.notify_written and consumer is not None:
            try:
                consumer.on_written(count)
            except BaseException as exc:
                self.loop.report_call(consumer, "on_written", exc)

    # the end

    @property
    def is_open(self):
        """Attached, and neither finished nor aborted nor failed: bool."""
        return self.phase == PHASE_OPEN

    @property
    def encrypted(self):
        """Whether the TLS handshake is done: bool."""
        return self.tls == TLS_OPEN

    def fileno(self):
        """The descriptor, -1 when there is none."""
        return self.fd

    def finish(self, bint failed=False):
        """End gracefully: what is queued is sent, then close_notify; then the consumer is told (`on_drained`) and the peer's
        end is awaited in the background, LINGER_SECONDS at the most. What comes in meanwhile is thrown away; failed: it is no end
        in order, so as little of it as after any failure."""
        self.require()
        if self.phase != PHASE_OPEN:
            return
        self.most_input = INPUT_AFTER_FAILURE if failed else INPUT_AFTER_END
        if self.hold_writes or (self.tls == TLS_SHAKING and self.queue.size == 0):
            self.drained_out()  # there is nothing that may go out: what is held is never sent in the clear
            return
        self.phase = PHASE_FINISHING
        if self.dead:
            self.fail_link()
        elif self.queue.size:
            self.plan_flush()
        else:
            self.send_queue()

    def abort(self):
        """Close at once; what was not sent is dropped, and nobody is told."""
        self.require()
        self.close_now()

    def refuse(self, int alert=0):
        """End it at once, and so that nobody takes it for an end in order: what was written before TLS leaves (an alert in the
        clear, perhaps), then, where TLS stands, the fatal alert with this number (RFC 8446, 6; 0: none) if libssl can send it.
        Where nothing has left, the end is a reset. Nothing more is read, and nobody is told."""
        cdef BareEngine engine = self.engine
        cdef size_t before
        cdef bint told
        self.require()
        if self.phase != PHASE_OPEN:
            return
        told = self.tls == TLS_NONE and self.queue.size > 0 and not self.hold_writes
        if told:
            self.send_queue()
            if self.phase != PHASE_OPEN:
                return
            told = not self.dead and self.queue.size == 0
        elif self.tls == TLS_OPEN and alert and not engine.in_use():
            before = self.out.size
            engine.refuse(alert)
            told = self.keep_output() and self.out.size > before
        if told and self.out.size and not self.blocked:
            self.flush_out()
        if told and self.out.size == 0 and not self.dead:
            # A close over bytes that were not read is a reset, which can overtake the alert (RFC 2525, 2.17): what is here
            # already is thrown away (tcp(7): MSG_TRUNC). What comes later meets a closed socket, and the kernel resets.
            linux.recv(self.fd, NULL, REFUSED_SIZE, linux.MSG_TRUNC | linux.MSG_DONTWAIT)
        else:
            self.resets = True
        self.close_now()

    cdef object release(self, Link heir, byte_queue *unread, bint *ended):
        """Hand the connection over to `heir`, which watches the descriptor already (`take_over_watch`): the engine, what the
        kernel has said, what was written and has not left. What was received and not read comes to `unread`; `ended`: its end
        was met. The channel is closed then, and nobody has been told. Returns the consumer, for the caller to let go of when
        all is settled: it may be its end. MemoryError: the connection is lost."""
        cdef const char *data
        cdef size_t size
        if self.engine is not None:
            self.engine.lend()
        consumer, self.consumer = self.consumer, None
        self.phase = PHASE_CLOSED
        self.cancel_deadline()
        self.move_to(heir)
        ended[0] = self.input_ended
        if not input_keep(&self.input):
            raise MemoryError
        byte_queue_move(unread, &self.input.kept)
        while self.queue.size and not heir.dead:
            size = self.queue.front(&data)
            if heir.engine is None:
                if not byte_queue_append(&heir.out, data, size):
                    raise MemoryError
            elif heir.engine.push(data, size) != ENGINE_OK:
                break  # reading tells why
            self.queue.advance(size)
        if heir.engine is not None and not heir.keep_output():
            raise MemoryError
        self.drop_output()
        return consumer

    cdef void end_of_input(self, bint clean) noexcept:
        """The peer has sent its last byte; with TLS, `clean` says that it said so itself."""
        consumer = self.consumer
        if self.phase != PHASE_OPEN or self.input_ended:
            return
        self.input_ended = True
        try:
            consumer.on_peer_closed(clean)
        except BaseException as exc:
            self.loop.report_call(consumer, "on_peer_closed", exc)

    cdef void drained_out(self) noexcept:
        """Everything has been handed to the system."""
        consumer, self.consumer = self.consumer, None
        self.linger(self.most_input)
        if consumer is not None:
            self.notify(consumer)

    cdef void notify(self, object consumer) noexcept:
        try:
            if self.written and self.notify_written:
                count, self.written = self.written, 0
                consumer.on_written(count)
        except BaseException as exc:
            self.loop.report_call(consumer, "on_written", exc)
        if not self.loop.in_own_thread():
            return  # that handler has forked, and this is the child
        try:
            consumer.on_drained()
        except BaseException as exc:
            self.loop.report_call(consumer, "on_drained", exc)

    cdef void linger(self, size_t most_input) noexcept:
        """Half-close, and await the peer's end (link.pyx), LINGER_SECONDS and `most_input` bytes at the most."""
        self.cancel_deadline()
        linux.shutdown(self.fd, linux.SHUT_WR)
        self.drop_output()
        if self.fin:
            self.close_now()
            return
        self.phase = PHASE_LINGERING
        self.most_input = most_input
        try:
            self.set_deadline(LINGER_SECONDS, self.abort)
        except BaseException:
            self.close_now()  # no memory
        self.read_on()

    cdef void discard_input(self) noexcept:
        self.engine_ready = False  # what it has decrypted is thrown away too
        if self.phase == PHASE_LINGERING:
            if self.throw_away(self.most_input):
                self.close_now()
        elif self.throw_away(self.most_input):
            if self.resets:
                self.fail(FAILURE_NETWORK, "the peer sends on and on, and does not read what is left for it", 0)
            elif self.dead:
                self.fail_link()

    cdef void fail_link(self) noexcept:
        """Tell the link's failure. After one of TLS its alert, if it made one, is in `out`."""
        cdef int failure = FAILURE_RESOURCE
        cdef str message = "there is no memory left to say why"
        try:
            failure, message = self.failure_told()
        except BaseException:
            pass
        self.fail(failure, message, INPUT_AFTER_FAILURE if self.failure.kind == TLS_FAILED else 0)

    cdef tuple failure_told(self):
        """What the link's failure is to the consumer, and in words."""
        if self.failure.kind != TLS_FAILED:
            doing = "sending" if self.failure.sending else "receiving"
            return FAILURES[self.failure.kind], f"{os.strerror(self.failure.number)}, while {doing}"
        if self.tls == TLS_SHAKING:
            return FAILURE_HANDSHAKE, f"the TLS handshake failed: {self.engine.failure()}"
        return FAILURE_TLS, f"TLS failed: {self.engine.failure()}"

    cdef void fail(self, int failure, str message, size_t most_input) noexcept:
        """Close and tell why. most_input: bytes for which the peer's end is awaited, after an attempt to send the alert that
        waits; 0: closed at once."""
        consumer, self.consumer = self.consumer, None
        if self.phase == PHASE_CLOSED:
            return
        if most_input and self.fd >= 0 and not self.fin and not self.dead:
            if self.out.size:
                self.flush_out()
            self.linger(most_input)
        else:
            self.close_now()
        if consumer is not None:
            try:
                consumer.on_failed(failure, message)
            except BaseException as exc:
                self.loop.report_call(consumer, "on_failed", exc)

    cdef void close_now(self) noexcept:
        self.phase = PHASE_CLOSED
        self.engine_ready = False
        self.close_descriptor()
        self.cancel_deadline()
        self.drop_output()
        if self.engine is not None:
            self.forget_handlers(self.engine)
        self.consumer = None  # last: it may be the end of the consumer, and what that calls finds a closed channel

    cdef void set_deadline(self, double seconds, object callback):
        cdef Timer deadline
        self.cancel_deadline()
        deadline = self.loop.plan(seconds, callback, (), False)
        if self.phase == PHASE_CLOSED:  # what ran meanwhile (the garbage collector) has ended it
            deadline.cancel()
        else:
            self.deadline = deadline

    cdef void cancel_deadline(self) noexcept:
        cdef Timer deadline = self.deadline
        self.deadline = None
        if deadline is not None:
            deadline.cancel()
