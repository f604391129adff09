"""A channel: one connected descriptor, perhaps TLS on it, and its queues.

A link (link.pyx) with what is on its way for a program: plaintext that nobody has read (input_link.pyx), plaintext that was written
and not encrypted (output_link.pyx), whom it tells (consumer.pyx), and its end (ending_link.pyx). Here is what moves the bytes: when to receive, and
the handshake. Knows nothing of names, connecting or Python handlers.

In: recv into the loop's scratch; the engine decrypts from there into the plaintext scratch, as many records as there are;
the consumer is told once and reads straight from the scratch; what it leaves is kept. Much at once is decrypted or received into a
`bytes` of its own, which the consumer gets as it is if it takes all.

Out: `write` queues a reference to the caller's bytes. Small writes wait for the end of the event or the turn and leave
together; from LEAVE_AT on they leave at once. A batch is encrypted into the send scratch and given to the kernel in one
send; only what the kernel refuses is copied (`out`), and the rest of the queue stays as references to be encrypted later.

After every call of the consumer the channel may be finished, aborted, or inside another turn: each such call is followed by
a look at `phase`, and nothing is kept in the scratch across it except what `input` borrows, which belongs to this level of
turns.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_XDECREF
from libc.stdint cimport uint32_t

cimport system
from poller cimport POLLIN, POLLPRI, POLLRDHUP
from shared_value cimport store_thread
from sslsock.core.bare_engine cimport (
    ENGINE_CLOSED, ENGINE_COSTLY, ENGINE_FAILED, ENGINE_OK, ENGINE_WANT_READ, RECORD_SIZE, USE_FREE, USE_POOL, BareEngine, store_use)
from sslsock.core.consumer cimport FAILED_HANDSHAKE_TIMEOUT, FAILED_RESET, FAILED_RESOURCE, ChannelConsumer
from sslsock.core.descriptor cimport Descriptor
from sslsock.core.handshake_pool cimport HandshakePool, take_back
from sslsock.core.input_buffer cimport input_clear, input_keep, input_size
from sslsock.core.ending_link cimport EndingLink
from sslsock.core.link cimport ANSWERS_SIZE, INPUT_AFTER_FAILURE, NO_MEMORY, TLS_FAILED, Link
from sslsock.core.loop cimport Loop
from sslsock.core.new_bytes cimport new_bytes, shortened
from sslsock.core.output_link cimport (
    PHASE_CLOSED, PHASE_FINISHING, PHASE_LINGERING, PHASE_NEW, PHASE_OPEN, TLS_NONE, TLS_OPEN, TLS_SHAKING)
from sslsock.core.scratch cimport PLAIN_SIZE, Scratch
from window_bio cimport byte_queue, byte_queue_append, byte_queue_front, byte_queue_move
from worker_pool cimport worker_job

cdef enum:
    # bytes
    READ_SIZE = 128 * 1024  # one receive: with its plaintext and what the program makes of it, it stays in a core's cache
    RECORD_ROOM = RECORD_SIZE + 512  # one record with all that any cipher suite adds
    WHOLE_AT = RECORD_SIZE  # bytes that come at once from which on they are put into a `bytes`: less is copied to one at its end
    FILLS = 64  # times in a turn that a consumer is asked for memory
    RELEASE_GIL_AT = 64 * 1024  # below, giving the GIL away costs more than the work (docs/design.md, "The GIL")


FAILURE_RESET, FAILURE_NETWORK, FAILURE_TIMEOUT, FAILURE_HANDSHAKE, FAILURE_HANDSHAKE_TIMEOUT, FAILURE_HANDSHAKE_CLOSED, \
    FAILURE_TLS, FAILURE_RESOURCE = range(FAILED_RESET, FAILED_RESOURCE + 1)


cdef void step_done(worker_job *job) noexcept:
    """What a thread of the pool had to do is done."""
    cdef BareEngine engine = <BareEngine> job.kept
    cdef Channel channel = <Channel> job.watcher if job.watcher != NULL else None
    Py_DECREF(engine)
    store_use(engine.use, USE_FREE)
    if channel is not None:
        channel.on_step_done(engine)


cdef class Channel(EndingLink):
    """A connected descriptor, perhaps TLS, and its queues.

    loop: Loop. consumer: _ChannelConsumer, told what happens; held until the end.

    read_bound: most plaintext bytes kept unread, 0 for no bound. notify_written, notify_sessions: whether _on_written and _on_session
    are called.
    hold_writes: keep what has not left yet until the TLS handshake is done. Every method raises RuntimeError in a foreign thread.
    """

    def __cinit__(self, Loop loop not None, consumer):
        self.loop = loop
        self.report_to(consumer)
        self.phase = PHASE_NEW
        self.tls = TLS_NONE
        self.drained = True

    def __dealloc__(self):
        if self.job != NULL:
            take_back(self.job)

    # beginning

    def attach(self, descriptor):
        """Take over a connected and non-blocking descriptor (int, or the Descriptor that owns it), and start to watch it.
        OSError if it cannot be watched; it is then still the caller's."""
        cdef Descriptor owner = <Descriptor> descriptor if isinstance(descriptor, Descriptor) else None
        cdef int fd = descriptor if owner is None else owner.number
        self.loop.require()
        if self.phase != PHASE_NEW:
            raise RuntimeError("the channel has a descriptor already")
        self.start_watching(fd, POLLIN | POLLRDHUP | POLLPRI)
        system.forbid_sigpipe(fd)
        if owner is not None:
            owner.number = -1
        self.phase = PHASE_OPEN
        if self.queued() and not self.hold_writes:
            self.plan_flush()

    def start_tls(self, BareEngine engine not None, double timeout, HandshakePool pool=None):
        """Begin the handshake. What was received and not read belongs to it; what was queued goes out in the clear before
        it, unless `hold_writes`. timeout: seconds until it has to be done, 0 for none. pool: HandshakePool whose threads do what is dear
        in it, if this is a server's and its engine can do without the loop's thread there; or None."""
        cdef const char *data
        cdef size_t size
        self.loop.require()
        if self.phase != PHASE_OPEN or self.tls != TLS_NONE:
            raise RuntimeError("TLS starts once, on an open channel")
        if not self.hold_writes and self.queued():
            self.send_queue()
            if self.phase != PHASE_OPEN:
                return
            while self.queued():
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
        store_thread(engine.home, self.loop.owner)
        self.tls = TLS_SHAKING
        self.hold_writes = False
        if self.written:
            self.plan_flush()
        self.verify_handler, self.key_handler = engine.verify_handler, engine.pre_shared_key_handler
        if self.verify_handler is not None:
            engine.verify_handler = self._ask_verify_handler
        if self.key_handler is not None:
            engine.pre_shared_key_handler = self._ask_key_handler
        if pool is not None and engine.put_off():
            self.pool = pool
        if timeout > 0:
            self.set_deadline(timeout, self._handshake_overdue)
        # A server waits for its client, unless that has ended already: then no event comes that would tell so.
        self.engine_ready = not engine.is_server() or engine.backlog.size > 0 or self.fin
        if self.engine_ready:
            self.plan_again()

    def request_certificate(self, verify_handler):
        """Ask a client for its certificate after the handshake (Engine.request_certificate); `verify_handler` is asked where it has
        errors. The consumer's _on_certificate tells of the answer. Returns why it cannot be, "" when the client has been asked."""
        cdef BareEngine engine = self.engine
        self.loop.require()
        if self.phase != PHASE_OPEN or self.tls != TLS_OPEN or engine.in_use():
            return "there is no encrypted connection that is at rest"
        reason = engine.ask_for_certificate()
        if reason:
            return reason
        self.certificate_awaited = True
        self.verify_handler = verify_handler
        engine.verify_handler = self._ask_verify_handler
        if not self.keep_output():
            self.fail_link()
        else:
            self.plan_flush()
        return ""

    @property
    def can_join(self):
        """Open, and no handshake is under way or due, nor an answer of a client awaited, so that a relay can take it: bool."""
        return self.phase == PHASE_OPEN and self.tls != TLS_SHAKING and not self.hold_writes \
            and not self.output_over and (self.engine is None or not (self.engine.in_use() or self.certificate_awaited))

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

    cdef void on_moved(self) noexcept:
        if self.engine is not None:
            store_thread(self.engine.home, self.loop.owner)

    cdef size_t waiting_output(self) noexcept:
        return self.unsent()

    cdef void on_fork(self) noexcept:
        self.phase = PHASE_CLOSED
        self.engine_ready = False
        self.written = 0

    cdef void serve(self) noexcept:
        """Do what can be done now, and come back if that was not all."""
        if self.job != NULL:  # a thread of the pool has the engine; `on_step_done` comes back here
            self.meet_end_meanwhile()
            return
        if self.engine is not None and self.engine.in_use() and self.phase != PHASE_LINGERING:
            return  # below a verification handler: libssl is not to be entered twice; who called it comes back here
        if self.phase == PHASE_LINGERING or (self.phase == PHASE_FINISHING and self.tls != TLS_SHAKING):
            self.discard_input()
        elif self.phase == PHASE_OPEN or self.phase == PHASE_FINISHING:
            self.receive()
            if self.job != NULL:
                self.meet_end_meanwhile()
            elif self.phase == PHASE_OPEN and (self.hang_up or self.suspect) and not self.fin and self.paused():
                self.look_for_end()
                if self.fin:
                    self.meet_end()
        self.end_event()
        self.read_on()

    cdef bint paused(self) noexcept:
        """Not to be read now: the consumer has as much unread as it wants or wants nothing, or the peer does not read what libssl answers to it
        (to key updates, to a renegotiation)."""
        if self.phase == PHASE_OPEN:
            if (self.bound and input_size(&self.input) >= self.bound) or (self.is_halted and self.tls != TLS_SHAKING):
                return True
        return self.answered >= ANSWERS_SIZE

    cdef void read_on(self) noexcept:
        """Read again in the next turn if there is something that no edge will announce, and room for it."""
        if self.job != NULL or not PHASE_NEW < self.phase < PHASE_CLOSED:
            return
        if (self.engine_ready or not self.drained) and not self.fin and not self.paused():
            self.plan_again()

    cdef void receive(self) noexcept:
        """One receive at the most, so that no peer keeps the others waiting."""
        cdef size_t wanted = READ_SIZE, size
        cdef char *memory = self.loop.scratch.receive
        cdef PyObject *whole = NULL
        if self.paused():
            return
        if self.lends and self.tls != TLS_SHAKING:
            self.fill()
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
        if self.tls == TLS_NONE and self.bulk and wanted >= WHOLE_AT:
            whole = self.memory_for(wanted)
        size = self.receive_some(memory if whole == NULL else PyBytes_AS_STRING(<object> whole), wanted)
        if whole != NULL:
            self.deliver_whole(whole, size)
        elif size:
            if self.tls == TLS_NONE:
                self.deliver(memory, size)
            else:
                self.feed_tls(size)
        if size == 0 and self.fin:
            self.meet_end()

    cdef void fill(self) noexcept:
        """`receive` for a consumer that lends memory, which may be small."""
        cdef int times = FILLS
        while (self.engine_ready or not self.drained) and times > 0 and self.fill_once():
            times = times - 1 if self.engine_ready else 0

    cdef bint fill_once(self) noexcept:
        """One receive, or what the engine has left, into memory that the consumer lends. False when that has brought nothing, or may bring
        no more."""
        cdef ChannelConsumer consumer = <ChannelConsumer> self.consumer
        cdef size_t room = 0, got = 0
        cdef int status = ENGINE_OK
        cdef bint news = False
        cdef list sessions = None
        cdef char *memory = consumer.on_room(&room)
        if memory == NULL:
            return False
        if self.phase != PHASE_OPEN or self.paused():
            consumer.on_filled(0)
            return False
        if self.tls == TLS_NONE:
            got = self.receive_some(memory, min(room, <size_t> READ_SIZE))
        else:
            status = self.decrypt_some(memory, room, &got)
            news = self.engine.unsettled
            sessions = self.settle(self.engine) if news else None
        consumer.on_filled(got)
        if news:
            self.tell_news(sessions)
        if status == ENGINE_CLOSED:
            self.end_of_input(True)
        elif status == ENGINE_FAILED:
            self.fail_link()
        elif self.fin and not self.engine_ready and self.phase == PHASE_OPEN:
            self.meet_end()
        return got > 0 and self.phase == PHASE_OPEN and self.lends and not self.paused()

    cdef size_t receive_some(self, char *memory, size_t wanted) noexcept:
        cdef size_t size
        if self.bulk:
            with nogil:
                size = self.take_in(memory, wanted)
        else:
            size = self.take_in(memory, wanted)
        if size:
            self.bulk = size >= RELEASE_GIL_AT
        return size

    cdef int decrypt_some(self, char *memory, size_t room, size_t *got) noexcept:
        """One receive, unless the engine has work left, and its plaintext to `memory`. Returns the engine's status."""
        cdef size_t size = 0
        cdef int status
        if not self.engine_ready:
            size = self.receive_some(self.loop.scratch.receive, READ_SIZE)
            if size == 0:
                return ENGINE_WANT_READ
        if size >= RELEASE_GIL_AT:
            with nogil:
                status = self.decrypt(size, memory, room, got)
        else:
            status = self.decrypt(size, memory, room, got)
        return status if self.keep_output() else ENGINE_FAILED

    cdef void feed_tls(self, size_t size) noexcept:
        """Give the engine `size` bytes from the scratch, after what it has, and pass on what comes out."""
        cdef BareEngine engine = self.engine
        cdef size_t got = 0, room = PLAIN_SIZE
        cdef char *plain = self.loop.scratch.plain
        cdef PyObject *whole = NULL
        cdef int status
        if self.tls == TLS_SHAKING:
            self.shake(engine, size)
            return
        if self.bound:
            room = min(room, self.bound - input_size(&self.input))
        if size >= WHOLE_AT:
            # Plaintext is shorter than its records, the first of which may have begun in libssl's buffer.
            room = min(room, size + engine.backlog.size + RECORD_SIZE)
            whole = self.memory_for(room)
            if whole != NULL:
                plain = PyBytes_AS_STRING(<object> whole)
        if size >= RELEASE_GIL_AT:
            with nogil:
                status = self.decrypt(size, plain, room, &got)
        else:
            status = self.decrypt(size, plain, room, &got)
        if self.phase == PHASE_CLOSED:  # a verification handler has ended it
            Py_XDECREF(whole)
            return
        if not self.keep_output():
            status = ENGINE_FAILED
        if engine.unsettled:
            self.deliver_news(engine, plain, got)
            Py_XDECREF(whole)
        elif whole != NULL:
            self.deliver_whole(whole, got)
        elif got:
            self.deliver(plain, got)
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
            self.fail_with(NO_MEMORY, system.ENOMEM, False)
            self.fail_link()
            return
        with nogil:
            status = engine.shake()
        kept = engine.close_in()
        if self.phase != PHASE_OPEN and self.phase != PHASE_FINISHING:  # a handler that libssl has called has ended it
            return
        if status == ENGINE_COSTLY:
            if kept and self.leave_to_pool(engine):
                return
            store_use(engine.use, USE_POOL)  # there is no thread: it is this one
            with nogil:
                status = engine.shake_step()
            store_use(engine.use, USE_FREE)
            status = engine.conclude(status)
        self.go_on_shaking(engine, status, kept)

    cdef bint leave_to_pool(self, BareEngine engine) noexcept:
        """What the handshake goes on with is dear. Until it is done nothing is received: what comes waits in the system. False: it must be
        done here."""
        cdef bint taken = False
        try:
            taken = engine.can_put_off() and self.pool.take_over(engine, self, step_done)
        except BaseException:
            pass  # no memory
        if taken:
            self.job = &engine.given_away.job
            # It leads to the loop: one that nobody has any more does not wait for a thread.
            self.put_by, engine.verify_handler = engine.verify_handler, None
        return taken

    cdef void on_step_done(self, BareEngine engine) noexcept:
        self.job = NULL
        engine.verify_handler, self.put_by = self.put_by, None
        self.go_on_shaking(engine, engine.conclude(engine.end_step()), True)
        self.serve()

    cdef void leave_pool(self) noexcept:
        cdef worker_job *job = self.job
        self.job = NULL
        if job != NULL:
            take_back(job)

    cdef void meet_end_meanwhile(self) noexcept:
        """While a thread of the pool has the engine: nobody waits for the handshake any more where the peer has gone."""
        if (self.hang_up or self.suspect) and not self.fin and self.engine.backlog.size == 0:
            self.look_for_end()
            if self.fin:
                self.meet_end()

    cdef void go_on_shaking(self, BareEngine engine, int status, bint kept) noexcept:
        """After a step of the handshake."""
        if not kept:
            self.fail_with(NO_MEMORY, system.ENOMEM, False)
        elif status == ENGINE_FAILED:
            self.fail_with(TLS_FAILED, 0, False)
        if not self.keep_output() or not kept or status == ENGINE_FAILED:
            self.fail_link()
        elif status == ENGINE_OK:
            self.cancel_deadline()
            self.tls = TLS_OPEN
            self.forget_handlers()
            sessions = self.settle(engine) if engine.unsettled else None
            self.engine_ready = engine.holds_more()
            if self.phase == PHASE_OPEN:
                self.tell_encrypted(self.consumer)
                if sessions is not None and self.notify_sessions:
                    self.tell_sessions(sessions)
                if self.phase == PHASE_OPEN and self.engine_ready:
                    self.receive()  # data that came with the last handshake message
        else:
            self.engine_ready = engine.backlog.size > 0  # what came before the step was done
            if self.fin and not self.engine_ready:  # the peer's end was read before TLS started
                self.meet_end()

    cdef list settle(self, BareEngine engine) noexcept:
        cdef list sessions = None
        try:
            sessions = engine.settle()
        except BaseException as exc:
            self.loop.report("a TLS session could not be kept", exc, self.consumer)
        return sessions

    cdef void deliver_news(self, BareEngine engine, const char *plain, size_t size) noexcept:
        """Tell of sessions, and of the answer to a request for a certificate, and then of the `size` bytes of plaintext that came with
        them: those are kept meanwhile, for whoever is told may have more delivered, by a turn of its own."""
        sessions = self.settle(engine)
        self.keep_lent()
        self.input.lent = plain
        self.input.lent_left = size
        self.keep_lent()
        self.tell_news(sessions)
        if size and input_size(&self.input):
            self.deliver(NULL, 0)

    cdef void tell_news(self, list sessions) noexcept:
        """sessions: what `settle` has returned."""
        if self.certificate_awaited and not self.engine.certificate_requested:
            self.certificate_awaited = False
            self.forget_handlers()
            if self.phase == PHASE_OPEN:
                self.tell_certificate(self.consumer)
        if sessions is not None and self.notify_sessions:
            self.tell_sessions(sessions)

    cdef void tell_sessions(self, list sessions) noexcept:
        for session in sessions:
            consumer = self.consumer
            if self.phase != PHASE_OPEN:
                return
            self.tell_session(consumer, session)

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

    cdef void forget_handlers(self) noexcept:
        """They refer to this channel: a cycle."""
        self.engine.verify_handler = self.engine.pre_shared_key_handler = None
        self.verify_handler = self.key_handler = self.put_by = None

    def _handshake_overdue(self):
        """The handshake's deadline."""
        if self.tls == TLS_SHAKING and self.phase != PHASE_CLOSED:
            self.fail(FAILED_HANDSHAKE_TIMEOUT, "the TLS handshake was not done in time", INPUT_AFTER_FAILURE)

    cdef PyObject *memory_for(self, size_t size) noexcept:
        """A new `bytes` to be filled, for `deliver_whole`; NULL without memory."""
        cdef PyObject *whole = NULL
        try:
            whole = new_bytes(NULL, size)
        except MemoryError:
            pass  # the scratch does as well
        return whole

    cdef void deliver_whole(self, PyObject *filled, size_t size) noexcept:
        """`deliver` the first `size` bytes, which may be none, of a `bytes` that nobody else has. Takes over the reference."""
        cdef bytes whole = None
        try:
            whole = shortened(filled, size)
        except MemoryError:
            self.fail_with(NO_MEMORY, system.ENOMEM, False)
            self.fail_link()
        if size and whole is not None:
            self.arriving = whole
            self.deliver(PyBytes_AS_STRING(whole), size)
            self.arriving = None

    cdef void deliver(self, const char *data, size_t size) noexcept:
        """Tell the consumer of new plaintext, which it may read straight from the scratch; keep what it leaves."""
        consumer = self.consumer
        if self.phase != PHASE_OPEN:
            return
        self.keep_lent()  # of an outer turn, when a handler has called dispatch
        self.input.lent = data
        self.input.lent_left = size
        self.read_on()  # a consumer that waits for more in a nested turn must find it there
        self.tell_readable(consumer)
        self.keep_lent()

    cdef void keep_lent(self) noexcept:
        if not input_keep(&self.input):
            self.fail_with(NO_MEMORY, system.ENOMEM, False)
            self.fail_link()

    # another takes over

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
        while self.queued() and not heir.dead:
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
