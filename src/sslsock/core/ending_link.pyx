"""The end of a channel, of one direction or of both, in order or by a failure.

finish() -> FINISHING -> (all sent, close_notify too) _on_drained -> LINGERING -> CLOSED; abort() or a failure -> CLOSED, a failure that
has an alert to send by way of LINGERING. An end or a failure is told once, as the last thing that the consumer hears.
"""

import os

cimport system
from sslsock.core.bare_engine cimport BareEngine
from sslsock.core.consumer cimport (
    FAILED_HANDSHAKE, FAILED_HANDSHAKE_CLOSED, FAILED_NETWORK, FAILED_RESET, FAILED_RESOURCE, FAILED_TIMEOUT, FAILED_TLS,
    channel_failure_kind)
from sslsock.core.input_link cimport InputLink
from sslsock.core.link cimport INPUT_AFTER_END, INPUT_AFTER_FAILURE, NO_MEMORY, PEER_RESET, TIMED_OUT, TLS_FAILED
from sslsock.core.output_link cimport (
    PHASE_CLOSED, PHASE_FINISHING, PHASE_LINGERING, PHASE_NEW, PHASE_OPEN, TLS_NONE, TLS_OPEN, TLS_SHAKING)
from sslsock.core.schedule cimport Timer

cdef enum:
    REFUSED_SIZE = 64 * 1024  # bytes of unread input of a peer that is refused, thrown away so that it hears why

cdef double LINGER_SECONDS = 5.0


cdef class EndingLink(InputLink):
    """Base of Channel."""

    cdef void forget_handlers(self) noexcept:
        """What the engine asks is not asked any more."""

    cdef void leave_pool(self) noexcept:
        """What a thread does of the handshake is not wanted any more."""

    # at the program's wish

    cpdef int end_output(self) except -1:
        """End this direction: what is queued is sent, then close_notify and the FIN; then the consumer is told (`on_output_ended`).
        Reading goes on. No effect the second time; RuntimeError for what is written afterwards."""
        self.loop.require()
        if self.phase == PHASE_OPEN and not self.output_over:
            self.output_over = self.ends_output = True
            self.plan_flush()
        return 0

    def finish(self, bint failed=False):
        """End gracefully: what is queued is sent, then close_notify; then the consumer is told (`_on_drained`) and the peer's
        end is awaited in the background, LINGER_SECONDS at the most. What comes in meanwhile is thrown away; failed: it is no end
        in order, so as little of it as after any failure."""
        self.loop.require()
        if self.phase != PHASE_OPEN:
            return
        self.most_input = INPUT_AFTER_FAILURE if failed else INPUT_AFTER_END
        if self.hold_writes or (self.tls == TLS_SHAKING and self.queued() == 0):
            self.come_to_end()  # there is nothing that may go out: what is held is never sent in the clear
            return
        self.phase = PHASE_FINISHING
        self.ends_output = True
        if self.dead:
            self.fail_link()
        elif self.queued():
            self.plan_flush()
        else:
            self.send_queue()

    def abort(self):
        """Close at once; what was not sent is dropped, and nobody is told."""
        self.loop.require()
        self.close_now()

    def refuse(self, int alert=0):
        """End it at once, and so that nobody takes it for an end in order: what was written before TLS leaves (an alert in the
        clear, perhaps), then, where TLS stands, the fatal alert with this number (RFC 8446, 6; 0: none) if libssl can send it.
        Where nothing has left, the end is a reset. Nothing more is read, and nobody is told."""
        cdef BareEngine engine = self.engine
        cdef size_t before
        cdef bint told
        self.loop.require()
        if self.phase != PHASE_OPEN:
            return
        told = self.tls == TLS_NONE and self.queued() > 0 and not self.hold_writes
        if told:
            self.send_queue()
            if self.phase != PHASE_OPEN:
                return
            told = not self.dead and self.queued() == 0
        elif self.tls == TLS_OPEN and alert and not engine.in_use():
            before = self.out.size
            engine.refuse(alert)
            told = self.keep_output() and self.out.size > before
        if told and self.out.size and not self.blocked:
            self.flush_out()
        if told and self.out.size == 0 and not self.dead:
            # A close over bytes that were not read is a reset, which can overtake the alert (RFC 2525, 2.17): what is here
            # already is thrown away. What comes later meets a closed socket, and the kernel resets.
            system.discard_received(self.fd, REFUSED_SIZE)
        else:
            self.resets = True
        self.close_now()

    # all is out

    cdef void drained_out(self) noexcept:
        if self.phase == PHASE_FINISHING:
            self.come_to_end()
            return
        self.ends_output = False  # the other direction goes on
        self.half_close()
        if self.written:
            self.report_written()
        if self.phase == PHASE_OPEN:
            self.tell_output_ended(self.consumer)

    cdef void come_to_end(self) noexcept:
        """Everything has been handed to the system: the last thing that the consumer is told."""
        consumer, self.consumer = self.consumer, None
        self.linger(self.most_input)
        if consumer is not None:
            self.notify(consumer)

    cdef void notify(self, object consumer) noexcept:
        cdef size_t count = self.written
        if count and self.notify_written:
            self.written = 0
            self.tell_written(consumer, count)
        if not self.loop.in_own_thread():
            return  # that handler has forked, and this is the child
        self.tell_drained(consumer)

    cdef void linger(self, size_t most_input) noexcept:
        """Half-close, and await the peer's end (link.pyx), LINGER_SECONDS and `most_input` bytes at the most."""
        self.leave_pool()
        self.cancel_deadline()
        self.half_close()
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
                self.fail(FAILED_NETWORK, "the peer sends on and on, and does not read what is left for it", 0)
            elif self.dead:
                self.fail_link()

    # the peer's end

    cdef void meet_end(self) noexcept:
        """Nothing more comes from the system."""
        if self.dead:
            self.fail_link()
        elif self.tls == TLS_SHAKING:
            self.fail(FAILED_HANDSHAKE_CLOSED, "the peer closed the connection during the TLS handshake", 0)
        else:
            self.end_of_input(self.tls == TLS_NONE)

    cdef void end_of_input(self, bint clean) noexcept:
        """The peer has sent its last byte; with TLS, `clean` says that it said so itself."""
        consumer = self.consumer
        if self.phase != PHASE_OPEN or self.input_ended:
            return
        self.input_ended = True
        self.tell_peer_closed(consumer, clean)

    # failures

    cdef void send_failed(self) noexcept:
        """Nothing can be sent any more. What the peer sent before it went is read first; the end of it then tells."""
        self.drop_output()
        if self.phase == PHASE_FINISHING or self.fin:
            self.fail_link()
        else:
            self.plan_again()

    cdef void fail_link(self) noexcept:
        """Tell the link's failure. After one of TLS its alert, if it made one, is in `out`."""
        cdef channel_failure_kind kind = self.what_failed()
        cdef str message = None
        if not self.in_c:
            try:
                message = self.failure_in_words()
            except BaseException:
                kind, message = FAILED_RESOURCE, "there is no memory left to say why"
        self.fail(kind, message, INPUT_AFTER_FAILURE if self.failure.kind == TLS_FAILED else 0)

    cdef channel_failure_kind what_failed(self) noexcept:
        """What the link's failure is to the consumer; one of TLS depends on the phase."""
        if self.failure.kind == PEER_RESET:
            return FAILED_RESET
        if self.failure.kind == TIMED_OUT:
            return FAILED_TIMEOUT
        if self.failure.kind == NO_MEMORY:
            return FAILED_RESOURCE
        if self.failure.kind == TLS_FAILED:
            return FAILED_HANDSHAKE if self.tls == TLS_SHAKING or self.certificate_awaited else FAILED_TLS
        return FAILED_NETWORK

    cdef str failure_in_words(self):
        if self.failure.kind != TLS_FAILED:
            doing = "sending" if self.failure.sending else "receiving"
            return f"{os.strerror(self.failure.number)}, while {doing}"
        return f"{'the TLS handshake' if self.tls == TLS_SHAKING else 'TLS'} failed: {self.engine.failure()}"

    cdef void fail(self, channel_failure_kind kind, str message, size_t most_input) noexcept:
        """Close and tell why. most_input: bytes for which the peer's end is awaited, after an attempt to send the alert that
        waits; 0: closed at once."""
        consumer, self.consumer = self.consumer, None
        if self.phase == PHASE_CLOSED:
            return
        if most_input and self.phase != PHASE_NEW and not self.fin and not self.dead:
            if self.out.size:
                self.flush_out()
            self.linger(most_input)
        else:
            self.close_now()
        if consumer is not None:
            self.tell_failed(consumer, kind, message)

    # closed

    cdef void close_now(self) noexcept:
        self.phase = PHASE_CLOSED
        self.engine_ready = False
        self.leave_pool()
        self.close_descriptor()
        self.cancel_deadline()
        self.drop_output()
        if self.engine is not None:
            self.forget_handlers()
        self.consumer = None  # last: it may be the end of the consumer, and what that calls finds a closed channel

    cdef void set_deadline(self, double seconds, object callback):
        cdef Timer deadline
        self.cancel_deadline()
        deadline = self.loop.plan(seconds, callback, (), False)
        if self.phase == PHASE_CLOSED:  # what ran meanwhile (the garbage collector) has ended it
            deadline.drop()
        else:
            self.deadline = deadline

    cdef void cancel_deadline(self) noexcept:
        cdef Timer deadline = self.deadline
        self.deadline = None
        if deadline is not None:
            deadline.drop()
