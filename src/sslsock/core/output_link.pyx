"""The outgoing half of a channel: what a program writes, on its way to the wire.

A link with a queue of plaintext behind `out`. A batch of the queue is encrypted into the loop's send scratch, straight from the
program's bytes, and given to the kernel in one send; only what that refuses is copied to `out`, and the rest of the queue stays
as references. What follows from the end of it (`drained_out`, `send_failed`) is for the channel to say.
"""

cimport cython
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.string cimport memcpy

cimport system
from sslsock.core.bare_engine cimport ENGINE_OK, BareEngine
from sslsock.core.consumer cimport ReportingLink
from sslsock.core.link cimport TLS_FAILED
from sslsock.core.scratch cimport GATHER_SIZE, SEND_SIZE
from sslsock.core.output_queue cimport OutputQueue
from window_bio cimport byte_queue_clear, byte_queue_front

cdef enum:
    # bytes
    LEAVE_AT = 256 * 1024  # queued plaintext that does not wait for the end of the event
    BATCH_SIZE = 256 * 1024  # plaintext encrypted for one send: it and its ciphertext stay in a core's cache
    OUT_JOINED = 16 * 1024  # what is copied in front of a batch, so that one send does for both
    TURN_SIZE = 8 * BATCH_SIZE  # plaintext sent in one go before others have their turn
    RELEASE_GIL_AT = 64 * 1024  # below, giving the GIL away costs more than the work (docs/design.md, "The GIL")


cdef class OutputLink(ReportingLink):
    """Base of InputLink."""

    cdef void drained_out(self) noexcept:
        """Everything has been handed to the system, close_notify too."""

    cdef void send_failed(self) noexcept:
        """Nothing can be sent any more."""

    cdef void fail_link(self) noexcept:
        """TLS has failed."""

    # writing

    @property
    def bytes_to_write(self):
        """Plaintext written and not yet handed to the system, in bytes: int."""
        return self.unsent()

    @property
    def sending_failed(self):
        """Nothing can be sent any more, which is told when all that the peer has sent was read: bool."""
        return self.dead

    @cython.final
    cdef size_t queued(self) noexcept:
        return 0 if self.queue is None else self.queue.size

    @cython.final
    cdef size_t unsent(self) noexcept:
        return self.queued() + self.out_plain

    cpdef Py_ssize_t write(self, data) except -1:
        """Queue `data` (bytes-like) to be sent. Returns its length in bytes: all of it is taken. RuntimeError after
        `finish`, TypeError if it is no buffer."""
        cdef OutputLink alive
        cdef bytes piece
        cdef size_t size
        self.loop.require()
        # A bytes object cannot change, so a reference does; anything else is copied before the caller may change it.
        piece = <bytes> data if PyBytes_CheckExact(data) else memoryview(data).tobytes()
        if (self.phase != PHASE_OPEN and self.phase != PHASE_NEW) or self.output_over:
            raise RuntimeError("nothing can be written to a channel that is finished or closed")
        size = PyBytes_GET_SIZE(piece)
        if size == 0 or self.dead:
            return size
        if self.queue is None:
            self.queue = OutputQueue.__new__(OutputQueue)
        self.queue.append(piece)
        if self.phase == PHASE_NEW or self.blocked:
            return size
        if self.queued() >= LEAVE_AT and self.tls != TLS_SHAKING and not self.hold_writes:
            alive = self  # a failure is told at once, and may end with the caller's last reference
            self.send_queue()
            if not self.notify_written:
                return size
        self.plan_flush()
        return size

    def flush(self):
        """Send now what is queued, as far as the system takes it."""
        self.loop.require()
        self.send_queue()
        if self.written:
            self.plan_flush()

    cdef void end_event(self) noexcept:
        """After whatever has happened: send, and tell how much has been sent."""
        if (self.out.size or self.queued() or self.ends_output) and not self.blocked:
            self.send_queue()
        if self.written:
            self.report_written()

    cdef void report_written(self) noexcept:
        cdef size_t count = self.written
        consumer = self.consumer
        self.written = 0
        if self.notify_written and consumer is not None:
            self.tell_written(consumer, count)

    # sending

    cdef void send_queue(self) noexcept:
        """Send `out`, then the queue, until all is out, the kernel takes no more, or it is the others' turn."""
        self.send_some()
        if self.queued() == 0:
            self.queue = None

    cdef void send_some(self) noexcept:
        cdef size_t sent = 0, before
        if self.engine is not None and self.engine.in_use():
            return  # below a handler that libssl waits for: it is not to be entered twice; who called it sends afterwards
        while not self.blocked and not self.dead and (self.phase == PHASE_OPEN or self.phase == PHASE_FINISHING):
            if sent >= TURN_SIZE:
                self.plan_flush()
                return
            before = self.queued()
            if self.tls == TLS_SHAKING or self.hold_writes or not (self.queued() or self.ends_output):
                if self.out.size == 0 or not self.send_out():
                    return
            elif self.tls == TLS_OPEN:
                if not self.send_records():
                    return
            elif self.out.size:
                if not self.send_out():
                    return
            elif self.queued():
                if not self.send_pieces():
                    return
            else:
                self.drained_out()
                return
            sent += before - self.queued()

    cdef bint all_sent(self) noexcept:
        """After a send: whether `out` is empty, and with it all that it stood for with the kernel."""
        if self.dead:
            self.send_failed()
            return False
        if self.out.size:
            return False
        self.written += self.out_plain
        self.out_plain = self.answered = 0
        return True

    cdef bint send_out(self) noexcept:
        """Send from `out`; True when all of it is out."""
        if self.out.size >= RELEASE_GIL_AT:
            with nogil:
                self.flush_out()
        else:
            self.flush_out()
        return self.all_sent()

    cdef bint send_records(self) noexcept:
        """Encrypt a batch behind what little is in `out`, and send it; True when all of it is out."""
        cdef BareEngine engine = self.engine
        cdef char *memory = self.loop.scratch.send_
        cdef size_t taken = 0, waiting = self.out.size, size
        cdef bint last, failed = False
        cdef int flags = 0
        if waiting > OUT_JOINED:
            return self.send_out()
        if waiting:  # a session ticket, a handshake's last message: they leave with the first data
            memcpy(memory, byte_queue_front(&self.out), waiting)
            byte_queue_clear(&self.out)
        engine.open_output(memory + waiting, SEND_SIZE - waiting)
        while self.queued() and taken < BATCH_SIZE and not failed:
            size = self.push_piece(engine, BATCH_SIZE - taken)
            failed = size == 0
            taken += size
        last = self.ends_output and self.queued() == 0 and not failed
        if last:
            engine.goodbye()
            flags = system.MSG_MORE  # what `linger` does next is to send the FIN, which then shares the last data's packet
        self.out_plain += taken
        if taken >= RELEASE_GIL_AT:
            with nogil:
                self.put_output(memory, waiting, flags)
        else:
            self.put_output(memory, waiting, flags)
        if failed and not self.dead:
            self.fail_with(TLS_FAILED, 0, False)
            self.fail_link()
            return False
        if not self.all_sent():
            return False
        if last:
            self.drained_out()
        return not last

    cdef size_t push_piece(self, BareEngine engine, size_t room) noexcept:
        """Encrypt from the front of the queue, `room` bytes at the most: a large piece from where it lies, small ones
        joined to one record. Returns how many, 0 when the engine has failed."""
        cdef const char *data
        cdef size_t size = self.queue.front(&data)
        cdef int status
        if size < GATHER_SIZE and size < self.queued():
            size = self.queue.join(self.loop.scratch.gather, GATHER_SIZE)
            return size if engine.push(self.loop.scratch.gather, size) == ENGINE_OK else 0
        size = min(size, room)
        if size >= RELEASE_GIL_AT:
            with nogil:
                status = engine.push(data, size)
        else:
            status = engine.push(data, size)
        self.queue.advance(size)
        return size if status == ENGINE_OK else 0

    cdef bint send_pieces(self) noexcept:
        """Send from the queue as it is; True when the kernel takes more."""
        cdef const char *data
        cdef char *memory = self.loop.scratch.send_
        cdef size_t size = self.queue.front(&data), sent
        if size < GATHER_SIZE and size < self.queued():
            size = self.queue.join(memory, SEND_SIZE)
            self.put(memory, size, 0)
            self.out_plain = self.out.size
            self.written += size - self.out.size
            return self.all_sent()
        if size >= RELEASE_GIL_AT:
            with nogil:
                sent = self.give(data, size, 0)
        else:
            sent = self.give(data, size, 0)
        self.written += sent
        self.queue.advance(sent)
        return self.all_sent() and not self.blocked

    cdef void drop_output(self) noexcept:
        self.queue = None
        self.out_plain = self.answered = 0
        byte_queue_clear(&self.out)
