"""A relay: two connected descriptors, each perhaps with TLS, joined in C.

What comes in on one side goes out on the other, without the GIL and without a call of Python. Each side is a link (link.pyx):
its descriptor, its engine and what the kernel has not taken (`out`); there is nothing between the two sides.

Back-pressure: a side is read only while its peer has nothing unsent. So the low mark is zero: when the kernel announces room
it still has two thirds of its own send buffer to send, and the line does not run dry while the next piece is fetched. The
high mark is what one receive makes and the kernel does not take: a receive is small (FIRST_SIZE) until one brought as much; then,
with bulk on its way, it is what the peer's send buffer has room for, up to half a MiB. So a peer that reads nothing costs
little, however fast the other one sends.

The end of one direction is passed on as what it was: a FIN as a FIN, close_notify as close_notify and FIN (RFC 8446, 6.1:
each direction is closed by itself), TLS that was cut without close_notify as a FIN without one. When both have ended, both
descriptors are closed. After an error nothing more is read but what the system still holds of a side that has failed; it is
delivered to the side that still takes it, which is then half-closed and awaited. An error is met also where a side is not
read. Neither an error nor an idle limit makes a close_notify: nobody has said that the data is complete. Without TLS a FIN would
say so; a side that was told no end before is reset at the idle limit, by `abort`, and when it has not taken its last bytes in time.

Only post-handshake messages remain for libssl to handle (tickets, key updates), so none of its callbacks needs Python here.
"""

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memset

cimport system
from poller cimport POLLIN, POLLPRI, POLLRDHUP
from send_room cimport send_room
from sslsock.core.bare_engine cimport ENGINE_CLOSED, ENGINE_FAILED, ENGINE_OK, ENGINE_WANT_READ
from sslsock.core.channel cimport Channel
from sslsock.core.link cimport (
    ANSWERS_SIZE, INPUT_AFTER_END, INPUT_AFTER_FAILURE, NO_MEMORY, PEER_RESET, TLS_FAILED, Link, failure_kind)
from sslsock.core.loop cimport Loop
from sslsock.core.schedule cimport Timer, monotonic_ns
from sslsock.core.scratch cimport PLAIN_SIZE, RECEIVE_SIZE, SEND_SIZE
from window_bio cimport byte_queue, byte_queue_clear, byte_queue_front

cdef double LINGER_SECONDS = 5.0
cdef uint32_t WATCHED = POLLIN | POLLRDHUP | POLLPRI

RELAY_ENDED, RELAY_TRUNCATED, RELAY_RESET, RELAY_NETWORK, RELAY_TLS, RELAY_RESOURCE, RELAY_IDLE, RELAY_ABORTED = range(8)

cdef enum:
    # bytes of one receive
    FIRST_SIZE = 32 * 1024
    LEAST_SIZE = 16 * 1024  # a full record: what is asked for where there seems to be no room, to be refused
    # bytes of it that a kernel with memory may refuse: a first receive, or what completes a record and what records add
    MOST_REFUSED = FIRST_SIZE + LEAST_SIZE

cdef int64_t MEMORY_SHORT_NS = 10 * 1_000_000_000

cdef enum:
    # The same, for C.
    ENDED, TRUNCATED, RESET, NETWORK, TLS, RESOURCE, IDLE, ABORTED


cdef int relay_reason(failure_kind kind) noexcept nogil:
    """What a failure ends a relay with."""
    if kind == PEER_RESET:
        return RESET
    if kind == NO_MEMORY:
        return RESOURCE
    return TLS if kind == TLS_FAILED else NETWORK


@cython.final
cdef class RelaySide(Link):
    """One of the two. Everything but taking over and closing happens without the GIL."""

    # taking over

    cdef int watch(self, object end) except -1:
        """Watch the descriptor of `end`; nothing else of it is touched. `unwatch` undoes it."""
        self.is_nogil = True
        self.drained = True  # what is there already is announced: poller.h, poller_add and poller_change
        if isinstance(end, Channel):
            self.take_over_watch(<Channel> end, WATCHED)
        else:
            self.start_watching(end, WATCHED)
        return 0

    cdef int unwatch(self, object end) except -1:
        if self.fd >= 0 and isinstance(end, Channel):
            (<Channel> end).take_over_watch(self, (<Channel> end).events)
        else:
            self.stop_watching()
        return 0

    cdef object take_over(self, Channel channel, byte_queue *unread, bint *ended):
        """Take what `channel` holds. Returns its consumer, as Channel.release does."""
        consumer = channel.release(self, unread, ended)
        if self.engine is not None:
            # What it has read already shows only when it is asked: close_notify and failures, too.
            self.engine_ready = self.engine_ready or self.engine.backlog.size > 0 or self.engine.peer_closed or self.engine.failed
        return consumer

    # events

    cdef nogil_nodes *nodes(self) noexcept nogil:
        return &self.work_nodes

    cdef void on_event_nogil(self, uint32_t events) noexcept nogil:
        self.note_events(events)
        if self.bulk or self.peer.bulk:
            self.plan_again_nogil()  # behind all that have less to do: reactor.pyx, `run_again_nogil`
        else:
            self.work()

    cdef void on_again_nogil(self) noexcept nogil:
        self.work()

    cdef void on_report(self) noexcept:
        cdef ChannelRelay relay = self.relay  # the sides' references may be its last
        relay.report()

    cdef size_t waiting_output(self) noexcept:
        return self.out.size

    cdef void on_loop_closed(self) noexcept:
        cdef ChannelRelay relay = self.relay
        if relay is not None:
            relay.bury()

    cdef void work(self) noexcept nogil:
        """Do what can be done on both sides, and come back if that was not all."""
        cdef bint done
        if self.relay.over:
            return
        if self.out.size and not self.blocked:
            self.send_waiting()
        self.pump()
        self.peer.pump()
        if self.relay.broken and not self.relay.over:
            done = self.wind_up()
            if self.peer.wind_up() and done:
                self.relay.finish(-1)

    # incoming

    cdef bint readable(self) noexcept nogil:
        return self.peer.out.size == 0 and self.readable_behind()

    cdef bint readable_behind(self) noexcept nogil:
        """But for what waits for the peer already."""
        return not self.input_ended and not self.fin and (self.engine_ready or not self.drained) \
            and not self.peer.dead and self.answered < ANSWERS_SIZE

    cdef bint leaves_more(self) noexcept nogil:
        """It has failed, and what it sent before is still to be passed on."""
        return self.dead and not self.fin and not self.input_ended and not self.peer.dead

    cdef void pump(self) noexcept nogil:
        """One receive at the most, so that no connection keeps the others waiting."""
        cdef bint bulk = self.bulk
        if self.relay.broken and not self.leaves_more():
            return
        if self.readable():
            self.receive()
            if self.bulk and not bulk and self.readable() and not self.relay.broken:
                self.receive()  # the first was a small one
            if self.relay.over:
                return
            if self.readable():
                self.plan_again_nogil()
        elif self.suspect and not self.drained and self.look_for_error():
            self.relay.break_off(self)
        if self.engine is not None and self.peer.out.size and self.readable_behind() and not (self.relay.broken or self.relay.over):
            self.receive_rest()

    cdef void receive(self) noexcept nogil:
        cdef char *memory = self.loop.scratch.receive
        cdef size_t size = 0, wanted = FIRST_SIZE
        cdef bint limited = False
        if not self.engine_ready:
            if self.bulk:
                wanted = send_room(self.peer.fd, FIRST_SIZE, self.loop.now < self.loop.memory_short_until)
                wanted = min(max(wanted, <size_t> LEAST_SIZE), <size_t> RECEIVE_SIZE)
                limited = wanted < RECEIVE_SIZE
            size = self.take_in(memory, wanted)
            self.bulk = size == wanted or size >= FIRST_SIZE
            if 0 < size < wanted and (self.hang_up or self.urgent):
                # The end is met now, so that what it causes leaves with these bytes.
                size += self.take_in(memory + size, wanted - size)
            if size == 0 and not self.fin:
                return
        self.pass_on(size, limited)
        if self.peer.out.size > MOST_REFUSED:
            self.loop.memory_short_until = self.loop.now + MEMORY_SHORT_NS
        if self.fin and self.dead:
            self.relay.break_off(self)

    cdef void receive_rest(self) noexcept nogil:
        """The peer takes nothing now, perhaps for a long time: receive what completes a record that is half read, for which libssl
        would hold a buffer for a whole one, and no more."""
        cdef size_t size, lacks = 0 if self.engine_ready else self.engine.lacks()
        if lacks == 0:
            return
        size = self.take_in(self.loop.scratch.receive, lacks)
        if size or self.fin:
            self.pass_on(size, False)
            if self.fin and self.dead:
                self.relay.break_off(self)

    cdef void pass_on(self, size_t size, bint limited) noexcept nogil:
        """Give the peer what lies in the scratch (`size` bytes) and in the engine, and its end. limited: its send buffer may be full
        after that, so the rest of a record that is half read (`receive_rest`) leaves with it."""
        cdef char *plain = self.loop.scratch.plain
        cdef size_t got = 0, more = 0, lacks = 0
        cdef int status
        cdef bint end = self.fin and not self.dead
        if self.engine is None:
            if size:
                self.pass_plain(self.loop.scratch.receive, size, end)
            if end:
                self.end_input(True)
            return
        status = self.decrypt(size, plain, PLAIN_SIZE, &got)
        if limited and status == ENGINE_WANT_READ and not self.drained and not self.fin:
            lacks = self.engine.lacks()
        if lacks:
            size = self.take_in(self.loop.scratch.receive, lacks)
            status = self.decrypt(size, plain + got, PLAIN_SIZE - got, &more)
            got += more
            end = self.fin and not self.dead
        if got:
            self.pass_plain(plain, got, status == ENGINE_CLOSED)
        self.answer()
        if self.engine.unsettled:
            self.plan_report()
        if status == ENGINE_FAILED:
            self.relay.break_off(self)
        elif status == ENGINE_CLOSED:
            self.end_input(True)
        elif status != ENGINE_OK and end:
            self.end_input(False)

    cdef void pass_plain(self, const char *data, size_t size, bint last) noexcept nogil:
        """Data has come; what else a peer may send (key updates, tickets) keeps no relay from being idle."""
        self.received += size
        self.relay.active = self.loop.now
        self.peer.send_on(data, size, last)

    cdef void answer(self) noexcept nogil:
        """Send what libssl has written while it read: an alert, the answer to a key update. A peer that does not read our answers
        is not read either."""
        cdef size_t before = self.out.size
        cdef byte_queue unwanted
        if self.ending:  # RFC 8446, 6.1: nothing follows close_notify
            memset(&unwanted, 0, sizeof(unwanted))
            self.engine.take_output(&unwanted)
            byte_queue_clear(&unwanted)
        elif self.keep_output() and self.out.size > before:
            if not self.blocked:
                self.send_waiting()

    cdef void end_input(self, bint clean) noexcept nogil:
        """The last byte has been passed on; with TLS, `clean` says that its sender said so."""
        if self.input_ended:
            return
        self.input_ended = True
        self.truncated = not clean
        self.peer.ending = True
        if self.peer.dead:
            self.relay.break_off(self.peer)
            return
        if self.peer.engine is not None and clean:
            self.peer.send_on(NULL, 0, True)
        if self.peer.out.size == 0:
            self.peer.end_output()
        if self.dead:
            self.relay.break_off(self)

    cdef void pass_unread(self, byte_queue *unread, bint ended) noexcept:
        """What a channel's consumer has not read goes first; `ended`: and the end behind it."""
        if unread.size:
            self.received += unread.size
            self.peer.send_on(byte_queue_front(unread), unread.size, False)
        if ended:
            self.end_input(self.engine is None or self.engine.peer_closed)

    # outgoing

    cdef void send_on(self, const char *data, size_t size, bint last) noexcept nogil:
        """Send plaintext; `last`: and then close_notify, with TLS."""
        cdef int flags = system.MSG_MORE if last else 0  # the FIN that follows shares the last data's packet
        cdef int status = ENGINE_OK
        if self.dead:
            return
        if self.engine is None:
            self.put(data, size, flags)
        else:
            if self.out.size == 0 and not self.blocked:
                self.engine.open_output(self.loop.scratch.send_, SEND_SIZE)
            if size:
                status = self.engine.push(data, size)
            if last and status == ENGINE_OK:
                self.engine.goodbye()
            self.put_output(self.loop.scratch.send_, 0, flags)
            if status != ENGINE_OK:
                self.fail_with(TLS_FAILED, 0, False)
                self.relay.break_off(self)
        if self.dead:
            self.send_failed()

    cdef void send_waiting(self) noexcept nogil:
        """Send what the kernel did not take before."""
        cdef bint data = self.out.size > self.answered
        if self.flush_out() and data:
            self.relay.active = self.loop.now
        if self.dead:
            self.send_failed()
        elif self.out.size == 0 and self.ending and not self.relay.broken:
            self.end_output()

    cdef void end_output(self) noexcept nogil:
        """All is out."""
        if self.ended or self.dead:
            return
        self.ended = True
        if self.peer.ended:
            self.relay.finish(TRUNCATED if self.truncated or self.peer.truncated else ENDED)
        else:
            system.shutdown(self.fd, system.SHUT_WR)
            self.relay.note_half_closed()

    cdef void send_failed(self) noexcept nogil:
        """Nothing can be sent any more. What was received before that is still passed on; its end then ends the relay, unless
        nobody takes it now."""
        if self.input_ended or self.peer.dead or self.peer.out.size:
            self.relay.break_off(self)
        else:
            self.plan_again_nogil()

    cdef bint wind_up(self) noexcept nogil:
        """After an error: see the last bytes out, half-close, and await the peer's end. True when that is done."""
        if self.out.size and not self.blocked:
            self.send_waiting()
        if self.dead:
            return not self.leaves_more()
        if self.out.size or self.peer.leaves_more():
            return False
        if not self.ended:
            self.ended = True
            system.shutdown(self.fd, system.SHUT_WR)
        # It is not the survivor's fault: it may be in the middle of an upload, and is to get its last bytes.
        if self.throw_away(INPUT_AFTER_FAILURE if self.failure.kind else INPUT_AFTER_END):
            if self.resets and self.fd >= 0:
                self.plan_report()
            return True
        if not self.drained:
            self.plan_again_nogil()
        return False

    cdef bint delivers(self) noexcept:
        """Whether the kernel has delivered bytes since the last look; at the first one, whether it may have. A peer that reads slowly
        takes them long after the last send."""
        cdef int left = max(system.unacknowledged(self.fd), 0)
        cdef bint fewer = left != 0 and (self.queued == 0 or left < self.queued)
        self.queued = left
        return fewer

    cdef void close_now(self) noexcept:
        self.close_descriptor()
        byte_queue_clear(&self.out)


cdef int require_joinable(object end, Loop loop) except -1:
    if isinstance(end, Channel) and ((<Channel> end).loop is not loop or not (<Channel> end).can_join):
        raise ValueError("a channel can be joined when it is open, of this loop, and no handshake is under way")
    return 0


@cython.final
cdef class ChannelRelay:
    """Joins two sides.

    loop: Loop. front, back: each a Channel of that loop that is open, with TLS done or without, or the number (int) of a
    connected stream socket's descriptor; both are taken over. observer: _RelayObserver, told the end. idle_seconds: how long
    nothing may come before it is ended, 0 for no limit. `head`: bytes to send to the back side before everything else.
    half_closed_seconds: the same once one direction has ended, if that is less; 0: as before.

    ValueError or TypeError when the two cannot be joined, OSError when a descriptor cannot be watched: nothing has been taken
    then. MemoryError: both are closed.
    """

    def __cinit__(self, Loop loop not None, front, back, observer, double idle_seconds=0.0, bytes head=b"",
                  double half_closed_seconds=0.0):
        cdef byte_queue[2] unread
        cdef bint[2] ended = [False, False]
        cdef RelaySide side
        loop.require()
        for end in (front, back):
            if not isinstance(end, (Channel, int)):
                raise TypeError(f"a Channel or a descriptor is needed, not {type(end).__name__}")
        if front == back:
            raise ValueError("a relay has two different ends")
        self.loop = loop
        self.observer = observer
        self.reason = -1
        self.idle_limit = idle_seconds
        self.half_closed_limit = half_closed_seconds
        self.started = self.active = monotonic_ns()
        self.front, self.back = RelaySide.__new__(RelaySide), RelaySide.__new__(RelaySide)
        self.front.peer, self.back.peer = self.back, self.front
        self.front.relay = self.back.relay = self
        self.front.loop = self.back.loop = loop
        consumers = [None, None]  # let go of last: it may be their end, and what that calls finds a relay
        try:
            # From here until both have been taken over no object is made: the garbage collector may end a channel.
            require_joinable(front, loop)
            require_joinable(back, loop)
            self.front.watch(front)
            self.back.watch(back)
        except BaseException:
            self.front.unwatch(front)
            self.cut()
            raise
        memset(unread, 0, sizeof(unread))
        try:
            if isinstance(front, Channel):
                consumers[0] = self.front.take_over(<Channel> front, &unread[0], &ended[0])
            if isinstance(back, Channel):
                consumers[1] = self.back.take_over(<Channel> back, &unread[1], &ended[1])
            if idle_seconds > 0:
                self.watch_idle(idle_seconds)
            if head:
                self.back.send_on(PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head), False)
            self.front.pass_unread(&unread[0], ended[0])
            self.back.pass_unread(&unread[1], ended[1])
        except BaseException:
            self.observer = None
            self.bury()
            raise
        finally:
            byte_queue_clear(&unread[0])
            byte_queue_clear(&unread[1])
        # One edge is announced for a descriptor that is ready already, but not for what an engine holds, or what is yet to be sent.
        for side in (self.front, self.back):
            if side.engine_ready or (side.out.size and not side.blocked):
                side.plan_again_nogil()
                loop.plan_turn()

    cdef void break_off(self, RelaySide culprit) noexcept nogil:
        """A side has failed: nothing more is read but what it leaves. `work` winds up, and a report starts the deadline for
        that."""
        if self.broken or self.over:
            return
        self.broken = True
        self.culprit_back = culprit is self.back
        self.reason = relay_reason(culprit.failure.kind)
        if self.reason == TLS and culprit.peer.truncated:
            # It was told no close_notify, for there was none, and answers that with an alert (RFC 8446, 6.1).
            self.reason = TRUNCATED
        self.front.plan_again_nogil()
        self.back.plan_again_nogil()
        self.front.plan_report()

    cdef void note_half_closed(self) noexcept nogil:
        """One direction has ended in order, and has been passed on. A report plans the deadline."""
        if self.half_closed_limit > 0 and not (self.half_closed or self.over):
            if self.idle_limit <= 0 or self.half_closed_limit < self.idle_limit:
                self.half_closed = self.half_close_unseen = True
                self.idle_limit = self.half_closed_limit
                self.front.plan_report()

    cdef void finish(self, int reason) noexcept nogil:
        """There is nothing left to do: a report buries it."""
        if self.over:
            return
        self.over = True
        if self.reason < 0:
            self.reason = reason
        self.front.plan_report()

    # With the GIL.

    cdef void report(self) noexcept:
        cdef RelaySide side
        for side in (self.front, self.back):
            if side.engine is not None and side.engine.unsettled:
                try:
                    side.engine.settle()
                except BaseException as exc:
                    self.loop.report("a TLS session could not be kept", exc, self.observer)
            if side.resets:
                side.close_now()
        if self.over:
            self.bury()
        elif self.broken and not self.lingering:
            self.lingering = True
            self.watch_idle(LINGER_SECONDS)
            if self.timer is None:
                self.bury()  # there was no memory for it
        elif self.half_close_unseen and not self.broken:
            self.half_close_unseen = False
            self.watch_idle(self.idle_limit)

    @property
    def idle_seconds(self):
        """How long nothing may come before it is ended, in seconds, 0 for no limit: float."""
        return self.idle_limit

    @idle_seconds.setter
    def idle_seconds(self, double seconds):
        self.loop.require()
        self.idle_limit = seconds
        if self.over or self.broken:
            return
        if seconds > 0:
            self.watch_idle(seconds)
        else:
            self.stop_timer()

    cdef void stop_timer(self) noexcept:
        cdef Timer timer = self.timer
        self.timer = None
        if timer is not None:
            timer.drop()

    cdef void watch_idle(self, double seconds) noexcept:
        self.stop_timer()
        try:
            self.timer = self.loop.plan(seconds, self._look, (), False)
        except BaseException as exc:
            self.loop.report("a relay has no deadline", exc, self.observer)

    def _look(self):
        """The timer: has anything happened since?"""
        cdef double idle = (monotonic_ns() - self.active) / 1e9
        self.timer = None
        if self.over:
            return
        if not self.lingering and idle < self.idle_limit:
            self.front.queued = self.back.queued = 0
            self.watch_idle(self.idle_limit - idle)
            return
        if not self.lingering and (self.front.delivers() | self.back.delivers()):
            self.watch_idle(self.idle_limit)
            return
        self.reset_the_untold()
        self.finish(-1 if self.lingering else IDLE)
        self.loop.plan_turn()

    cdef void bury(self) noexcept:
        """Close both descriptors and tell the observer, unless the loop itself is being closed."""
        if self.finished:
            return
        observer, self.observer = self.observer, None
        self.over = True
        self.finished = monotonic_ns()
        self.front.close_now()
        self.back.close_now()
        self.stop_timer()
        self.cut()
        if observer is not None and not self.loop.is_closed:
            try:
                observer._on_relay_closed(self.reason)
            except BaseException as exc:
                self.loop.report_call(observer, "_on_relay_closed", exc)

    cdef void reset_the_untold(self) noexcept:
        """Have the closing not look like an end in order. TLS shows it by itself: there was no close_notify."""
        cdef RelaySide side
        for side in (self.front, self.back):
            if side.engine is None and not side.ended:
                side.resets = True

    cdef void cut(self) noexcept:
        self.front.peer = self.back.peer = None
        self.front.relay = self.back.relay = None

    def close(self):
        """End it at once: what is on its way is dropped, but for what the kernel has taken. The observer is told (RELAY_ABORTED).
        No effect on one that has ended."""
        if self.finished:
            return
        self.loop.require()
        if self.reason < 0:
            self.reason = ABORTED
        self.bury()

    def abort(self):
        """As `close`, but neither side can take it for an end in order: one without TLS is reset, if it was told no end before."""
        if self.finished:
            return
        self.loop.require()
        self.reset_the_untold()
        self.close()

    @property
    def closed(self):
        """Whether it has ended: bool."""
        return self.finished != 0

    @property
    def bytes_forward(self):
        """Plaintext received from the front side and passed on, in bytes: int."""
        return self.front.received

    @property
    def bytes_back(self):
        """Plaintext received from the back side and passed on, in bytes: int."""
        return self.back.received

    @property
    def seconds(self):
        """How long it has been going on, or had: float."""
        return ((self.finished or monotonic_ns()) - self.started) / 1e9

    @property
    def failed_side(self):
        """Which side an error came from: "front", "back", or None."""
        if not self.broken or self.reason == TRUNCATED:
            return None
        return "back" if self.culprit_back else "front"

    @property
    def error_text(self):
        """What went wrong, in words: str, "" when nothing did."""
        cdef RelaySide side = self.back if self.culprit_back else self.front
        if not self.broken or self.reason == TRUNCATED:
            return ""
        if self.reason == TLS:
            return str(side.engine.failure())
        return os.strerror(side.failure.number)
