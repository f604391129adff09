"""A channel: one connected descriptor, perhaps TLS on it, and its queues.

Owns the descriptor and the engine, and the bytes that are on their way: plaintext that nobody has read (`kept`), plaintext
that was written and not encrypted (`queue`), bytes made for the wire that the kernel did not take (`raw`). Knows nothing of
names, connecting or Python handlers; it reports to one consumer (channel.pyi: _ChannelConsumer).

In: recv into the loop's scratch; the engine decrypts from there into the plaintext scratch, as many records as there are;
the consumer is told once and reads straight from the scratch (`lent`); what it leaves is copied to `kept`.

Out: `write` queues a reference to the caller's bytes. Small writes wait for the end of the event or the turn and leave
together; from LEAVE_AT on they leave at once. A batch is encrypted into the send scratch and given to the kernel in one
send; only what the kernel refuses is copied to `raw`, and the rest of the queue stays as references to be encrypted later.

After every call of the consumer the channel may be finished, aborted, or inside another turn: each such call is followed by
a look at `phase`, and nothing is kept in the scratch across it except `lent`, which belongs to this level of turns.

The phases of the end: finish() -> FINISHING -> (all sent, close_notify too) on_drained -> LINGERING -> CLOSED;
abort() or a failure -> CLOSED, a failure that has an alert to send by way of LINGERING.
"""

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint32_t
from libc.string cimport memchr, memcpy

cimport linux
from linux cimport errno
from sslsock.core.engine cimport (
    ENGINE_CLOSED, ENGINE_FAILED, ENGINE_OK, RECORD_SIZE, Engine)
from sslsock.core.loop cimport GATHER_SIZE, PLAIN_SIZE, RECEIVE_SIZE, SEND_SIZE, Loop, Scratch, Watcher
from sslsock.core.schedule cimport Timer
from window_bio cimport (
    byte_queue, byte_queue_append, byte_queue_clear, byte_queue_consume, byte_queue_front, byte_queue_join, byte_queue_move)

cdef enum:
    # bytes
    READ_SIZE = 128 * 1024  # one receive: with its plaintext and what the program makes of it, it stays in a core's cache
    LEAVE_AT = 256 * 1024  # queued plaintext that does not wait for the end of the event
    BATCH_SIZE = 512 * 1024  # plaintext encrypted for one send
    RECORD_ROOM = RECORD_SIZE + 512  # one record with all that any cipher suite adds
    ANSWERS_SIZE = 64 * 1024  # what libssl has answered by itself to a peer that does not read
    RAW_JOINED = 16 * 1024  # what is copied in front of a batch, so that one send does for both
    TURN_SIZE = 4 * BATCH_SIZE  # plaintext sent in one go before others have their turn
    RELEASE_GIL_AT = 64 * 1024  # below, giving the GIL away costs more than the work (docs/design.md, "The GIL")
    REFUSED_SIZE = 64 * 1024  # unread input of a peer that is refused, thrown away so that it hears why
    QUEUE_SLACK = 64  # used pieces at the front of the queue before its list is cut


cdef double LINGER_SECONDS = 5.0

FAILURE_RESET, FAILURE_NETWORK, FAILURE_TIMEOUT, FAILURE_HANDSHAKE, FAILURE_HANDSHAKE_TIMEOUT, FAILURE_HANDSHAKE_CLOSED, \
    FAILURE_TLS, FAILURE_RESOURCE = range(8)


@cython.final
cdef class Channel(Watcher):
    """A connected descriptor, perhaps TLS, and its queues.

    loop: Loop. consumer: _ChannelConsumer, told what happens; held until the end.

    read_bound: most plaintext bytes kept unread, 0 for no bound. notify_written: whether on_written is called.
    hold_writes: keep what has not left yet until the TLS handshake is done. Every method raises RuntimeError in a foreign thread.
    """

    def __cinit__(self, Loop loop not None, consumer):
        self.loop = loop
        self.consumer = consumer
        self.queue = []
        self.phase = PHASE_NEW
        self.tls = TLS_NONE
        self.drained = True

    def __dealloc__(self):
        if self.fd >= 0:
            linux.close(self.fd)
        byte_queue_clear(&self.kept)
        byte_queue_clear(&self.raw)

    cdef int require(self) except -1:
        if self.loop.is_closed or not self.loop.in_own_thread():
            self.loop.require()
        return 0

    cdef int require_thread(self) except -1:
        """Reading what has been received is possible after the loop was closed."""
        if not self.loop.in_own_thread():
            self.loop.require()
        return 0

    # beginning

    def attach(self, int fd):
        """Take over `fd`, connected and non-blocking, and start to watch it. OSError if it cannot be watched; the
        descriptor is then still the caller's."""
        self.require()
        if self.phase != PHASE_NEW:
            raise RuntimeError("the channel has a descriptor already")
        self.start_watching(fd, linux.EPOLLIN | linux.EPOLLRDHUP | linux.EPOLLPRI)
        self.phase = PHASE_OPEN
        if self.queued and not self.hold_writes:
            self.plan_flush()

    def start_tls(self, Engine engine not None, double timeout):
        """Begin the handshake. What was received and not read belongs to it; what was queued goes out in the clear before
        it, unless `hold_writes`. timeout: seconds until it has to be done, 0 for none."""
        self.require()
        if self.phase != PHASE_OPEN or self.tls != TLS_NONE:
            raise RuntimeError("TLS starts once, on an open channel")
        if not self.hold_writes and self.queued:
            self.send_queue()
            if self.phase != PHASE_OPEN:
                return
            while self.queued:
                piece = <bytes> self.queue[self.queue_index]
                size = PyBytes_GET_SIZE(piece) - self.queue_offset
                if not byte_queue_append(&self.raw, PyBytes_AS_STRING(piece) + self.queue_offset, size):
                    raise MemoryError
                self.raw_plain += size
                self.advance_queue(size)
        self.keep_lent()
        if self.kept.size:
            if not byte_queue_append(&engine.backlog, byte_queue_front(&self.kept), self.kept.size):
                raise MemoryError
            byte_queue_clear(&self.kept)
        engine.release_buffers(True)  # an idle connection keeps no record buffer
        self.engine = engine
        self.tls = TLS_SHAKING
        self.hold_writes = False
        if self.written:
            self.plan_flush()
        self.verify_handler = engine.verify_handler
        if self.verify_handler is not None:
            engine.verify_handler = self._ask_verify_handler
        if timeout > 0:
            self.set_deadline(timeout, self._handshake_overdue)
        self.engine_ready = not engine.context.server_side or engine.backlog.size > 0
        if self.engine_ready:
            self.plan_again()

    @property
    def can_join(self):
        """Open, and no handshake is under way or due, so that a relay can take it: bool."""
        return self.phase == PHASE_OPEN and self.tls != TLS_SHAKING and not self.hold_writes \
            and (self.engine is None or not self.engine.in_use())

    # incoming

    cdef void on_event(self, uint32_t events) noexcept:
        if events & (linux.EPOLLIN | linux.EPOLLRDHUP | linux.EPOLLHUP | linux.EPOLLERR):
            self.drained = False
            if events & (linux.EPOLLRDHUP | linux.EPOLLHUP | linux.EPOLLERR):
                self.hang_up = True
            if events & linux.EPOLLPRI:
                self.urgent = True
        if events & (linux.EPOLLOUT | linux.EPOLLHUP | linux.EPOLLERR):
            self.blocked = False
        self.serve()

    cdef void on_again(self) noexcept:
        self.serve()

    cdef void on_flush(self) noexcept:
        self.end_event()

    cdef void on_loop_closed(self) noexcept:
        self.close_now()

    cdef void serve(self) noexcept:
        """Do what can be done now, and come back if that was not all."""
        if self.engine is not None and self.engine.in_use():
            return  # below a verification handler: libssl is not to be entered twice; who called it comes back here
        if self.phase == PHASE_LINGERING or (self.phase == PHASE_FINISHING and self.tls != TLS_SHAKING):
            self.discard_input()
        elif self.phase == PHASE_OPEN or self.phase == PHASE_FINISHING:
            self.receive()
        self.end_event()
        self.read_on()

    cdef void read_on(self) noexcept:
        """Read again in the next turn if there is something that no edge will announce, and room for it."""
        if self.fd >= 0 and (self.engine_ready or not self.drained) and not self.fin:
            if self.phase != PHASE_OPEN or self.bound == 0 or self.kept.size + self.lent_left < self.bound:
                if self.answered < ANSWERS_SIZE:
                    self.plan_again()

    cdef void receive(self) noexcept:
        """One receive at the most, so that no peer keeps the others waiting."""
        cdef size_t wanted = READ_SIZE, unread = self.kept.size + self.lent_left
        cdef ssize_t size
        cdef int fd = self.fd
        cdef char *memory = self.loop.scratch.receive
        if self.bound and unread >= self.bound:
            return
        if self.answered >= ANSWERS_SIZE:
            return  # a peer that asks for answers (key updates, renegotiation) and reads none is not read either
        if self.engine_ready:
            self.feed_tls(0)
            return
        if self.drained:
            return
        if self.bound:
            wanted = min(wanted, self.bound - unread)
            if self.tls != TLS_NONE:
                wanted = max(wanted, <size_t> RECORD_ROOM)
        if self.bulk:
            with nogil:
                size = linux.recv(fd, memory, wanted, 0)
        else:
            size = linux.recv(fd, memory, wanted, 0)
        if size > 0:
            self.bulk = size >= RELEASE_GIL_AT
            if <size_t> size < wanted and not self.hang_up and not self.urgent:
                self.drained = True  # epoll(7): a short read has emptied a stream
            if self.tls == TLS_NONE:
                self.deliver(memory, size)
            else:
                self.feed_tls(size)
        elif size == 0:
            self.drained = self.fin = True
            if self.send_error:
                self.fail_system(self.send_error, "sending")
            elif self.tls == TLS_SHAKING:
                self.fail(FAILURE_HANDSHAKE_CLOSED, "the peer closed the connection during the TLS handshake")
            else:
                self.end_of_input(self.tls == TLS_NONE)
        elif errno == linux.EAGAIN:
            self.drained = True
            if self.send_error:
                self.fail_system(self.send_error, "sending")
        elif errno != linux.EINTR:
            self.fail_system(errno, "receiving")

    cdef void feed_tls(self, size_t size) noexcept:
        """Give the engine `size` bytes from the scratch, after what it has, and pass on what comes out."""
        cdef Engine engine = self.engine  # the consumer may drop the channel's
        cdef char *plain = self.loop.scratch.plain
        cdef size_t got = 0, room = PLAIN_SIZE, waiting = self.raw.size
        cdef int status
        cdef bint kept
        self.engine_ready = False
        if not engine.open_in(self.loop.scratch.receive, size):
            self.fail(FAILURE_RESOURCE, "no memory for what was received")
            return
        if self.tls == TLS_SHAKING:
            self.shake(engine)
            return
        if self.bound:
            room = min(room, self.bound - self.kept.size - self.lent_left)
        if size >= RELEASE_GIL_AT:
            with nogil:
                status = engine.pull(plain, room, &got)
        else:
            status = engine.pull(plain, room, &got)
        kept = engine.close_in()
        if engine.take_output(&self.raw) < 0 or not kept:
            self.fail(FAILURE_RESOURCE, "no memory for what was received")
            return
        self.answered += self.raw.size - waiting
        self.settle(engine)
        self.engine_ready = status == ENGINE_OK  # it stopped for want of room
        if got:
            self.deliver(plain, got)
        if status == ENGINE_CLOSED:
            self.end_of_input(True)
        elif status == ENGINE_FAILED:
            self.fail_tls(engine)

    cdef void shake(self, Engine engine) noexcept:
        """Go on with the handshake; the engine's input is open."""
        cdef int status
        cdef bint kept
        with nogil:
            status = engine.shake()
        kept = engine.close_in()
        if self.phase != PHASE_OPEN and self.phase != PHASE_FINISHING:  # a verification handler has ended it
            return
        if engine.take_output(&self.raw) < 0 or not kept:
            self.fail(FAILURE_RESOURCE, "no memory for the TLS handshake")
        elif status == ENGINE_FAILED:
            self.fail_tls(engine)
        elif status == ENGINE_OK:
            self.cancel_deadline()
            self.tls = TLS_OPEN
            engine.verify_handler = self.verify_handler = None  # it refers to this channel: a cycle
            self.settle(engine)
            self.engine_ready = engine.backlog.size > 0
            if self.phase == PHASE_OPEN:
                try:
                    self.consumer.on_encrypted()
                except BaseException as exc:
                    self.loop.report("exception in encrypted_handler", exc, self.consumer)
                if self.phase == PHASE_OPEN and self.engine_ready:
                    self.receive()  # data that came with the last handshake message
        elif self.fin:  # the peer's end was read before TLS started
            self.fail(FAILURE_HANDSHAKE_CLOSED, "the peer closed the connection during the TLS handshake")

    cdef void settle(self, Engine engine) noexcept:
        try:
            engine.settle()
        except BaseException as exc:
            self.loop.report("a TLS session could not be kept", exc, self.consumer)

    def _ask_verify_handler(self, errors):
        """The engine's verify_handler: the consumer's, in a scratch of its own, for libssl is at work in the current one."""
        cdef Scratch outer
        handler, self.verify_handler = self.verify_handler, None
        if handler is None:
            return False
        outer = self.loop.enter_scratch()
        try:
            return bool(handler(errors))
        except BaseException as exc:
            self.loop.report("exception in ssl_errors_handler", exc, self.consumer)
            return False
        finally:
            self.loop.leave_scratch(outer)

    def _handshake_overdue(self):
        """The handshake's deadline."""
        if self.tls == TLS_SHAKING and self.phase != PHASE_CLOSED:
            self.fail(FAILURE_HANDSHAKE_TIMEOUT, "the TLS handshake was not done in time")

    cdef void deliver(self, const char *data, size_t size) noexcept:
        """Tell the consumer of new plaintext, which it may read straight from the scratch; keep what it leaves."""
        if self.phase != PHASE_OPEN:
            return
        self.keep_lent()  # of an outer turn, when a handler has called dispatch
        self.lent = data
        self.lent_left = size
        self.read_on()  # a consumer that waits for more in a nested turn must find it there
        try:
            self.consumer.on_readable()
        except BaseException as exc:
            self.loop.report("exception in ready_read_handler", exc, self.consumer)
        self.keep_lent()

    cdef void keep_lent(self) noexcept:
        cdef size_t size = self.lent_left
        if size:
            self.lent_left = 0
            if not byte_queue_append(&self.kept, self.lent, size):
                self.fail(FAILURE_RESOURCE, "no memory for unread data")

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
        """Most plaintext bytes kept unread, 0 for no bound: int. At the bound nothing is received."""
        return self.bound

    @read_bound.setter
    def read_bound(self, size_t bound):
        self.require_thread()
        self.bound = bound
        self.read_on()

    cdef size_t unread(self) noexcept:
        return self.kept.size + self.lent_left

    cdef size_t line_end(self) noexcept:
        """Bytes up to and with the first newline, 0 without one."""
        cdef const char *start
        cdef const char *found
        if self.kept.size:
            start = byte_queue_front(&self.kept)
            found = <const char *> memchr(start, 10, self.kept.size)
            if found != NULL:
                return found - start + 1
        if self.lent_left:
            found = <const char *> memchr(self.lent, 10, self.lent_left)
            if found != NULL:
                return self.kept.size + (found - self.lent) + 1
        return 0

    cdef size_t limited(self, Py_ssize_t count) noexcept:
        """Of what can be read, `count` bytes at the most; negative: all."""
        cdef size_t size = self.kept.size + self.lent_left
        return size if count < 0 or <size_t> count > size else <size_t> count

    cdef void copy_out(self, char *data, size_t size) noexcept:
        cdef size_t first = min(size, self.kept.size)
        if first:
            memcpy(data, byte_queue_front(&self.kept), first)
        if size > first:
            memcpy(data + first, self.lent, size - first)

    cdef void consume(self, size_t size) noexcept:
        cdef size_t first = min(size, self.kept.size)
        if first:
            byte_queue_consume(&self.kept, first)
        self.lent += size - first
        self.lent_left -= size - first
        if self.bound:
            self.read_on()

    cdef bytes take(self, size_t size):
        cdef bytes data
        if size == 0:
            return b""
        data = PyBytes_FromStringAndSize(NULL, size)
        self.copy_out(PyBytes_AS_STRING(data), size)
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
            self.copy_out(PyBytes_AS_STRING(data), size)
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
            self.copy_out(<char *> view.buf, size)
            self.consume(size)
        finally:
            PyBuffer_Release(&view)
        return size

    def discard(self):
        """Throw away what was received and not read."""
        self.require_thread()
        self.lent_left = 0
        byte_queue_clear(&self.kept)
        if self.bound:
            self.read_on()

    # writing

    @property
    def bytes_to_write(self):
        """Plaintext written and not yet handed to the system, in bytes: int."""
        return self.unsent()

    cdef size_t unsent(self) noexcept:
        return self.queued + self.raw_plain

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
        if size == 0 or self.send_error:
            return size
        self.queue.append(piece)
        self.queued += size
        if self.phase == PHASE_NEW or self.blocked:
            return size
        if self.queued >= LEAVE_AT and self.tls != TLS_SHAKING and not self.hold_writes:
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

    cdef void send_queue(self) noexcept:
        """Send `raw`, then the queue, until all is out, the kernel takes no more, or it is the others' turn."""
        cdef size_t sent = 0, before
        while not self.blocked and (self.phase == PHASE_OPEN or self.phase == PHASE_FINISHING):
            if sent >= TURN_SIZE:
                self.plan_flush()
                return
            before = self.queued
            if self.tls == TLS_SHAKING or self.hold_writes or not (self.queued or self.phase == PHASE_FINISHING):
                if self.raw.size == 0 or not self.send_raw():
                    return
            elif self.tls == TLS_OPEN:
                if not self.send_records():
                    return
            elif self.raw.size:
                if not self.send_raw():
                    return
            elif self.queued:
                if not self.send_pieces():
                    return
            else:
                self.drained_out()
                return
            sent += before - self.queued

    cdef bint send_raw(self) noexcept:
        """Send from `raw`; True when all of it is out."""
        cdef ssize_t size = self.send_some(byte_queue_front(&self.raw), self.raw.size, 0)
        if size < 0:
            return False
        byte_queue_consume(&self.raw, size)
        if self.raw.size:
            self.block()
            return False
        self.written += self.raw_plain
        self.raw_plain = self.answered = 0
        return True

    cdef bint send_records(self) noexcept:
        """Encrypt a batch behind what little is in `raw`, and send it; True when all of it is out."""
        cdef Engine engine = self.engine
        cdef char *memory = self.loop.scratch.send_
        cdef size_t taken = 0, waiting = self.raw.size, size
        cdef ssize_t sent
        cdef bint last, failed = False
        if waiting > RAW_JOINED:
            return self.send_raw()
        if waiting:  # a session ticket, a handshake's last message: they leave with the first data
            memcpy(memory, byte_queue_front(&self.raw), waiting)
            byte_queue_clear(&self.raw)
        engine.open_output(memory + waiting, SEND_SIZE - waiting)
        while self.queued and taken < BATCH_SIZE and not failed:
            size = self.push_piece(engine, BATCH_SIZE - taken)
            failed = size == 0
            taken += size
        last = self.phase == PHASE_FINISHING and self.queued == 0 and not failed
        if last:
            engine.goodbye()
        size = waiting + engine.take_output(&self.raw)  # `raw` is empty, so that this cannot fail
        self.raw_plain += taken
        if failed:
            self.keep_unsent(memory, size)
            self.fail_tls(engine)
            return False
        if size == 0:
            self.drained_out()
            return False
        # MSG_MORE: what `linger` does next is to send the FIN, which then shares the last data's packet.
        sent = self.send_some(memory, size, linux.MSG_MORE if last else 0)
        if sent < 0:
            if not self.blocked:
                return False
            sent = 0
        if <size_t> sent >= waiting:
            self.answered = 0
        if <size_t> sent < size:
            self.block()
            if not self.keep_unsent(memory + sent, size - sent):
                self.fail(FAILURE_RESOURCE, "no memory for what the system does not take")
            return False
        if self.raw.size:
            return True  # small records, whose headers take more than the scratch has room for
        self.written += self.raw_plain
        self.raw_plain = 0
        if last:
            self.drained_out()
        return not last

    cdef bint keep_unsent(self, const char *data, size_t size) noexcept:
        """Put `data` in front of `raw`; False without memory."""
        cdef byte_queue behind
        byte_queue_move(&behind, &self.raw)
        if byte_queue_append(&self.raw, data, size) and byte_queue_join(&self.raw, &behind):
            return True
        byte_queue_clear(&behind)
        return False

    cdef size_t push_piece(self, Engine engine, size_t room) noexcept:
        """Encrypt from the front of the queue, `room` bytes at the most: a large piece from where it lies, small ones
        joined to one record. Returns how many, 0 when the engine has failed."""
        cdef const char *data
        cdef size_t size = self.front(&data)
        cdef int status
        if size < GATHER_SIZE and size < self.queued:
            size = self.join(self.loop.scratch.gather, GATHER_SIZE)
            return size if engine.push(self.loop.scratch.gather, size) == ENGINE_OK else 0
        size = min(size, room)
        if size >= RELEASE_GIL_AT:
            with nogil:
                status = engine.push(data, size)
        else:
            status = engine.push(data, size)
        self.advance_queue(size)
        return size if status == ENGINE_OK else 0

    cdef bint send_pieces(self) noexcept:
        """Send from the queue as it is; True when the kernel takes more."""
        cdef const char *data
        cdef char *memory = self.loop.scratch.send_
        cdef size_t size = self.front(&data), joined
        cdef ssize_t sent
        if size < GATHER_SIZE and size < self.queued:
            joined = self.join(memory, SEND_SIZE)
            sent = self.send_some(memory, joined, 0)
            if sent < 0:
                if not self.blocked:
                    return False
                sent = 0
            self.written += sent
            if <size_t> sent < joined:
                self.block()
                self.raw_plain = joined - sent
                if not byte_queue_append(&self.raw, memory + sent, joined - sent):
                    self.fail(FAILURE_RESOURCE, "no memory for what the system does not take")
                return False
            return True
        sent = self.send_some(data, size, 0)
        if sent < 0:
            return False
        self.written += sent
        self.advance_queue(sent)
        if <size_t> sent < size:
            self.block()
            return False
        return True

    cdef size_t front(self, const char **data) noexcept:
        """What is left of the queue's first piece: its size."""
        cdef bytes piece = <bytes> self.queue[self.queue_index]
        data[0] = PyBytes_AS_STRING(piece) + self.queue_offset
        return PyBytes_GET_SIZE(piece) - self.queue_offset

    cdef size_t join(self, char *memory, size_t room) noexcept:
        """Move from the front of the queue to `memory`, `room` bytes at the most. Returns how many."""
        cdef const char *data
        cdef size_t joined = 0, size
        while self.queued and joined < room:
            size = min(self.front(&data), room - joined)
            memcpy(memory + joined, data, size)
            joined += size
            self.advance_queue(size)
        return joined

    cdef void advance_queue(self, size_t size) noexcept:
        """The first piece has been used up to `size` bytes further; it may be freed here."""
        self.queue_offset += size
        self.queued -= size
        if self.queue_offset == <size_t> PyBytes_GET_SIZE(<bytes> self.queue[self.queue_index]):
            self.queue_offset = 0
            self.queue[self.queue_index] = None
            self.queue_index += 1
            if self.queue_index == len(self.queue):
                self.queue_index = 0
                self.queue.clear()
            elif self.queue_index >= QUEUE_SLACK and self.queue_index * 2 >= len(self.queue):  # moves each piece once
                del self.queue[:self.queue_index]
                self.queue_index = 0

    cdef ssize_t send_some(self, const char *data, size_t size, int flags) noexcept:
        """One send. Returns the bytes taken, or -1 when there is no more to be done now: `blocked`, or the peer is gone."""
        cdef ssize_t sent
        cdef int fd = self.fd
        flags |= linux.MSG_NOSIGNAL
        while True:
            if size >= RELEASE_GIL_AT:
                with nogil:
                    sent = linux.send(fd, data, size, flags)
            else:
                sent = linux.send(fd, data, size, flags)
            if sent >= 0:
                return sent
            if errno != linux.EINTR:
                break
        if errno == linux.EAGAIN:
            self.block()
            return -1
        if self.phase == PHASE_FINISHING or self.fin:
            self.fail_system(errno, "sending")
        else:
            # What the peer sent before it went is read first; the end of it then reports this error.
            self.send_error = errno
            self.drop_output()
            self.hang_up = True
            self.drained = False
            self.plan_again()
        return -1

    cdef void block(self) noexcept:
        """The kernel has not taken all: nothing more is sent before it announces room."""
        self.blocked = True
        self.await_room()

    cdef void drop_output(self) noexcept:
        self.queue = []
        self.queue_index = 0
        self.queue_offset = self.queued = self.raw_plain = self.answered = 0
        byte_queue_clear(&self.raw)

    cdef void end_event(self) noexcept:
        """After whatever has happened: send, and tell how much has been sent."""
        if (self.raw.size or self.queued or self.phase == PHASE_FINISHING) and not self.blocked:
            if self.engine is None or not self.engine.in_use():
                self.send_queue()
        if self.written:
            self.report_written()

    cdef void report_written(self) noexcept:
        cdef size_t count = self.written
        self.written = 0
        if self.notify_written and self.consumer is not None:
            try:
                self.consumer.on_written(count)
            except BaseException as exc:
                self.loop.report("exception in bytes_written_handler", exc, self.consumer)

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

    def finish(self):
        """End gracefully: what is queued is sent, then close_notify; then the consumer is told (`on_drained`) and the peer's
        end is awaited in the background, LINGER_SECONDS at the most. What comes in meanwhile is thrown away."""
        self.require()
        if self.phase != PHASE_OPEN:
            return
        if self.hold_writes or (self.tls == TLS_SHAKING and self.queued == 0):
            self.drained_out()  # there is nothing that may go out: what is held is never sent in the clear
            return
        self.phase = PHASE_FINISHING
        if self.send_error:
            self.fail_system(self.send_error, "sending")
        elif self.queued:
            self.plan_flush()
        else:
            self.send_queue()

    def abort(self):
        """Close at once; what was not sent is dropped, and nobody is told."""
        self.require()
        self.close_now()

    def refuse(self, int alert=0):
        """End it at once, and so that nobody takes it for an end in order. Where TLS stands, by the fatal alert with this number
        (RFC 8446, 6; 0: none), or by internal_error where libssl can send no other (TLS 1.2, and clients); before TLS, by what
        has been written (an alert in the clear, perhaps). Where there is nothing of these, by a reset. Nothing more is read, and
        nobody is told."""
        cdef Engine engine = self.engine
        cdef linux.linger reset
        cdef size_t waiting
        cdef bint told
        self.require()
        if self.phase != PHASE_OPEN:
            return
        told = self.tls == TLS_NONE and self.queued > 0 and not self.hold_writes
        if told:
            self.send_queue()
            told = self.phase == PHASE_OPEN and self.queued == 0
        elif self.tls == TLS_OPEN and alert and not engine.in_use():
            waiting = self.raw.size
            engine.refuse(alert)
            told = engine.take_output(&self.raw) == 0 and self.raw.size > waiting
        if self.phase != PHASE_OPEN:
            return
        if told and self.raw.size:
            told = not self.blocked and linux.send(
                self.fd, byte_queue_front(&self.raw), self.raw.size, linux.MSG_NOSIGNAL) == <ssize_t> self.raw.size
        if told:
            # A close over bytes that were not read is a reset, which can overtake the alert (RFC 2525, 2.17): what is here
            # already is thrown away (tcp(7): MSG_TRUNC). What comes later meets a closed socket, and the kernel resets.
            linux.recv(self.fd, NULL, REFUSED_SIZE, linux.MSG_TRUNC | linux.MSG_DONTWAIT)
        else:
            reset.l_onoff, reset.l_linger = 1, 0  # socket(7)
            linux.setsockopt(self.fd, linux.SOL_SOCKET, linux.SO_LINGER, &reset, sizeof(reset))
        self.close_now()

    cdef void end_of_input(self, bint clean) noexcept:
        """The peer has sent its last byte; with TLS, `clean` says that it said so itself."""
        if self.phase != PHASE_OPEN or self.input_ended:
            return
        self.input_ended = True
        try:
            self.consumer.on_peer_closed(clean)
        except BaseException as exc:
            self.loop.report("exception in error_handler or disconnected_handler", exc, self.consumer)

    cdef void drained_out(self) noexcept:
        """Everything has been handed to the system."""
        consumer, self.consumer = self.consumer, None
        self.linger()
        if consumer is not None:
            self.notify(consumer)

    cdef void notify(self, object consumer) noexcept:
        try:
            if self.written and self.notify_written:
                count, self.written = self.written, 0
                consumer.on_written(count)
        except BaseException as exc:
            self.loop.report("exception in bytes_written_handler", exc, consumer)
        try:
            consumer.on_drained()
        except BaseException as exc:
            self.loop.report("exception in disconnected_handler", exc, consumer)

    cdef void linger(self) noexcept:
        """Half-close, and wait for the peer's end: closing over bytes that were not read makes the kernel send a reset,
        which can destroy our last bytes on their way (RFC 2525, 2.17)."""
        self.cancel_deadline()
        linux.shutdown(self.fd, linux.SHUT_WR)
        self.drop_output()
        if self.fin:
            self.close_now()
            return
        self.phase = PHASE_LINGERING
        try:
            self.set_deadline(LINGER_SECONDS, self.abort)
        except BaseException:
            self.close_now()
            return
        self.read_on()

    cdef void discard_input(self) noexcept:
        cdef ssize_t size
        self.engine_ready = False  # what it has decrypted is thrown away too
        if self.drained:
            return
        size = linux.recv(self.fd, self.loop.scratch.receive, RECEIVE_SIZE, 0)
        if size > 0:
            if size < RECEIVE_SIZE and not self.urgent:
                self.drained = True
                if self.hang_up and self.phase == PHASE_LINGERING:
                    self.close_now()  # that was all before the end that has been announced
                elif self.hang_up:
                    self.drained = False
        elif size == 0:
            self.drained = self.fin = True
            if self.phase == PHASE_LINGERING:
                self.close_now()
        elif errno == linux.EAGAIN:
            self.drained = True
        elif errno != linux.EINTR:
            if self.phase == PHASE_LINGERING:
                self.close_now()
            else:
                self.fail_system(errno, "receiving")

    cdef void fail_tls(self, Engine engine) noexcept:
        """TLS has failed; its alert, if it made one, is in `raw`."""
        cdef bint shaking = self.tls == TLS_SHAKING
        text = str(engine.failure())
        if shaking:
            self.fail(FAILURE_HANDSHAKE, f"the TLS handshake failed: {text}")
        else:
            self.fail(FAILURE_TLS, f"TLS failed: {text}")

    cdef void fail_system(self, int number, str doing) noexcept:
        cdef int failure = FAILURE_NETWORK
        if number in (linux.ECONNRESET, linux.EPIPE, linux.ECONNABORTED):
            failure = FAILURE_RESET
        elif number == linux.ETIMEDOUT:
            failure = FAILURE_TIMEOUT
        elif number in (linux.ENOBUFS, linux.ENOMEM):
            failure = FAILURE_RESOURCE
        self.fail(failure, f"{os.strerror(number)}, while {doing}")

    cdef void fail(self, int failure, str message) noexcept:
        """Close, after an attempt to send an alert that waits, and tell why."""
        consumer, self.consumer = self.consumer, None
        if self.phase == PHASE_CLOSED:
            return
        if failure in (FAILURE_HANDSHAKE, FAILURE_TLS, FAILURE_HANDSHAKE_TIMEOUT) and self.fd >= 0 and not self.fin:
            if self.raw.size:
                linux.send(self.fd, byte_queue_front(&self.raw), self.raw.size, linux.MSG_NOSIGNAL)
            self.linger()
        else:
            self.close_now()
        if consumer is not None:
            try:
                consumer.on_failed(failure, message)
            except BaseException as exc:
                self.loop.report("exception in error_handler or disconnected_handler", exc, consumer)

    cdef void close_now(self) noexcept:
        cdef int fd = self.fd
        self.phase = PHASE_CLOSED
        self.engine_ready = False
        if fd >= 0:
            self.stop_watching()
            linux.close(fd)
        self.cancel_deadline()
        self.drop_output()
        if self.engine is not None:
            self.engine.verify_handler = None
        self.verify_handler = None
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
