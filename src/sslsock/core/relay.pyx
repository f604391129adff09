"""A relay: two connected descriptors, each perhaps with TLS, joined in C.

What comes in on one side goes out on the other, without the GIL and without a call of Python. Each side owns its
descriptor, its engine and what the kernel has not taken (`out`); there is nothing between the two sides.

Back-pressure: a side is read only while its peer has nothing unsent. So the high mark is what one receive makes (half a
MiB), and the low mark is zero: when the kernel announces room it still has two thirds of its own send buffer to send, and
the line does not run dry while the next piece is fetched.

The end of one direction is passed on as what it was: a FIN as a FIN, close_notify as close_notify and FIN (RFC 8446, 6.1:
each direction is closed by itself), TLS that was cut without close_notify as a FIN without one. When both have ended, both
descriptors are closed. After an error nothing more is read; what is on its way is delivered to the side that still takes
it, which is then half-closed and awaited (RFC 2525, 2.17). Neither an error nor an idle limit makes a close_notify: nobody has
said that the data is complete.

Only post-handshake messages remain for libssl to handle (tickets, key updates), so none of its callbacks needs Python here.
"""

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.string cimport memset

cimport linux
from linux cimport errno
from sslsock.core.channel cimport PHASE_CLOSED, Channel
from sslsock.core.engine cimport ENGINE_CLOSED, ENGINE_FAILED, ENGINE_OK, Engine
from sslsock.core.loop cimport PLAIN_SIZE, RECEIVE_SIZE, SEND_SIZE, Loop, Watcher, monotonic_ns
from window_bio cimport byte_queue_append, byte_queue_clear, byte_queue_consume, byte_queue_front, byte_queue_move

cdef double LINGER_SECONDS = 5.0
cdef uint32_t WATCHED = linux.EPOLLIN | linux.EPOLLRDHUP | linux.EPOLLPRI

RELAY_ENDED, RELAY_TRUNCATED, RELAY_RESET, RELAY_NETWORK, RELAY_TLS, RELAY_RESOURCE, RELAY_IDLE, RELAY_ABORTED = range(8)

cdef enum:
    ANSWERS_SIZE = 64 * 1024  # bytes of answers that the peer has not taken

cdef enum:
    # The same, for C.
    ENDED, TRUNCATED, RESET, NETWORK, TLS, RESOURCE, IDLE, ABORTED


cdef int reason_of(int number) noexcept nogil:
    """What an errno ends a relay with."""
    if number == linux.ECONNRESET or number == linux.EPIPE or number == linux.ECONNABORTED:
        return RESET
    if number == linux.ENOBUFS or number == linux.ENOMEM:
        return RESOURCE
    return NETWORK


@cython.final
cdef class RelaySide(Watcher):
    """One of the two. Everything but taking over and closing happens without the GIL."""

    def __dealloc__(self):
        if self.fd >= 0:
            linux.close(self.fd)
        byte_queue_clear(&self.out)

    # taking over

    cdef int watch(self, object end) except -1:
        """Watch the descriptor of `end`; nothing else of it is touched. `unwatch` undoes it."""
        self.is_nogil = True
        self.drained = True  # what is there already is announced: epoll_ctl(2), EPOLL_CTL_ADD and EPOLL_CTL_MOD
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

    cdef int take_channel(self, Channel channel) except -1:
        """Take everything from `channel` but what it has received, and leave it closed without telling it so."""
        cdef Engine engine = channel.engine
        if engine is not None:
            engine.lend()
        self.engine = engine
        self.tls = engine is not None
        self.fin = channel.fin
        self.hang_up = channel.hang_up
        if channel.send_error:
            self.failed = True
            self.error = channel.send_error
        self.take_queue(channel)
        if engine is not None:
            # What it has read already shows only when it is asked: close_notify and failures, too.
            self.engine_ready = channel.engine_ready or engine.backlog.size > 0 or engine.peer_closed or engine.failed
        channel.phase = PHASE_CLOSED
        channel.cancel_deadline()
        return 0

    cdef int take_queue(self, Channel channel) except -1:
        """What was written to the channel and has not left: first what is made for the wire, then the pieces."""
        cdef Engine engine = channel.engine
        cdef const char *data
        cdef size_t size
        byte_queue_move(&self.out, &channel.raw)
        while channel.queued:
            size = channel.front(&data)
            if engine is None:
                if not byte_queue_append(&self.out, data, size):
                    raise MemoryError
            elif engine.push(data, size) != ENGINE_OK:
                break  # reading tells why
            channel.advance_queue(size)
        if engine is not None and engine.take_output(&self.out) < 0:
            raise MemoryError
        channel.drop_output()
        return 0

    # events

    cdef void on_event_nogil(self, uint32_t events) noexcept nogil:
        if events & (linux.EPOLLIN | linux.EPOLLRDHUP | linux.EPOLLHUP | linux.EPOLLERR):
            self.drained = False
            if events & (linux.EPOLLRDHUP | linux.EPOLLHUP | linux.EPOLLERR | linux.EPOLLPRI):
                self.hang_up = True
        if events & (linux.EPOLLOUT | linux.EPOLLHUP | linux.EPOLLERR):
            self.blocked = False
        self.relay.active = self.loop.now
        self.work()

    cdef void on_again_nogil(self) noexcept nogil:
        self.work()

    cdef void on_report(self) noexcept:
        cdef ChannelRelay relay = self.relay  # the sides' references may be its last
        relay.report()

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
            self.flush_out()
        self.pump()
        self.peer.pump()
        if self.relay.broken and not self.relay.over:
            done = self.wind_up()
            if self.peer.wind_up() and done:
                self.relay.finish(-1)

    # incoming

    cdef bint readable(self) noexcept nogil:
        return not self.input_ended and (self.engine_ready or not self.drained) and self.peer.out.size == 0 \
            and not self.peer.failed and self.answered < ANSWERS_SIZE

    cdef void pump(self) noexcept nogil:
        """One receive at the most, so that no connection keeps the others waiting."""
        if self.relay.broken:
            return
        if self.readable():
            self.receive()
            if self.relay.broken:
                return
            if self.readable():
                self.plan_again_nogil()

    cdef void receive(self) noexcept nogil:
        cdef char *memory = self.loop.scratch.receive
        cdef size_t size = 0
        if not self.engine_ready:
            size = self.take_in(memory, RECEIVE_SIZE)
            if 0 < size < RECEIVE_SIZE and self.hang_up:
                # The end is met now, so that what it causes leaves with these bytes.
                size += self.take_in(memory + size, RECEIVE_SIZE - size)
            if size == 0 and not self.fin:
                return
        self.pass_on(size)
        if self.fin and self.error:
            self.relay.break_off(reason_of(self.error), self, self.error)

    cdef size_t take_in(self, char *memory, size_t room) noexcept nogil:
        """One recv. Returns how many bytes came; what else it says is in `drained`, `fin` and `error`."""
        cdef ssize_t size = linux.recv(self.fd, memory, room, linux.MSG_DONTWAIT)
        if size > 0:
            # epoll(7): a short read has emptied a stream, but for its end and for what lies behind urgent data.
            self.drained = <size_t> size < room and not self.hang_up
            return size
        if size == 0:
            self.drained = self.fin = True
        elif errno == linux.EAGAIN:
            self.drained = True
        elif errno != linux.EINTR:
            self.drained = self.fin = self.failed = True
            self.error = errno
        return 0

    cdef void pass_on(self, size_t size) noexcept nogil:
        """Give the peer what lies in the scratch (`size` bytes) and in the engine, and its end."""
        cdef char *plain = self.loop.scratch.plain
        cdef size_t got = 0
        cdef int status
        cdef bint kept, end = self.fin and self.error == 0
        if not self.tls:
            self.received += size
            if size:
                self.peer.send_on(self.loop.scratch.receive, size, end)
            if end:
                self.end_input(True)
            return
        self.engine_ready = False
        if not self.engine.open_in(self.loop.scratch.receive, size):
            self.relay.break_off(RESOURCE, self, linux.ENOMEM)
            return
        status = self.engine.pull(plain, PLAIN_SIZE, &got)
        kept = self.engine.close_in()
        self.received += got
        if got:
            self.peer.send_on(plain, got, status == ENGINE_CLOSED)
        self.answer()
        if self.engine.state.session_count:
            self.plan_report()
        if status == ENGINE_FAILED:
            self.relay.break_off(TLS, self, 0)
        elif not kept:
            self.relay.break_off(RESOURCE, self, linux.ENOMEM)
        elif status == ENGINE_CLOSED:
            self.end_input(True)
        elif status == ENGINE_OK:
            self.engine_ready = True  # it stopped for want of room
        elif end:
            self.end_input(False)

    cdef void answer(self) noexcept nogil:
        """Send what libssl has written while it read: an alert, the answer to a key update. Who asks for many and reads none is
        not read either."""
        cdef byte_queue made
        memset(&made, 0, sizeof(made))
        self.engine.take_output(&made)
        if made.size and not self.ending:  # RFC 8446, 6.1: nothing follows close_notify
            self.put(byte_queue_front(&made), made.size, False)
            self.answered = self.answered + made.size if self.out.size else 0
        byte_queue_clear(&made)

    cdef void end_input(self, bint clean) noexcept nogil:
        """The last byte has been passed on; with TLS, `clean` says that its sender said so."""
        if self.input_ended:
            return
        self.input_ended = True
        self.truncated = not clean
        self.peer.ending = True
        if self.peer.failed:
            self.relay.break_off(reason_of(self.peer.error), self.peer, self.peer.error)
            return
        if self.peer.tls and clean:
            self.peer.send_on(NULL, 0, True)
        if self.peer.out.size == 0:
            self.peer.end_output()
        if self.error:
            self.relay.break_off(reason_of(self.error), self, self.error)

    # outgoing

    cdef void send_on(self, const char *data, size_t size, bint last) noexcept nogil:
        """Send plaintext; `last`: and then close_notify, with TLS."""
        cdef byte_queue rest
        cdef size_t used
        cdef int status = ENGINE_OK
        if self.failed:
            return
        if not self.tls:
            self.put(data, size, last)
            return
        if self.out.size == 0 and not self.blocked:
            self.engine.open_output(self.loop.scratch.send_, SEND_SIZE)
        if size:
            status = self.engine.push(data, size)
        if last and status == ENGINE_OK:
            self.engine.goodbye()
        memset(&rest, 0, sizeof(rest))
        used = self.engine.take_output(&rest)
        if used:
            self.put(self.loop.scratch.send_, used, last)
        if rest.size:
            self.put(byte_queue_front(&rest), rest.size, last)
            byte_queue_clear(&rest)
        if status != ENGINE_OK:
            self.relay.break_off(TLS, self, 0)

    cdef void put(self, const char *data, size_t size, bint last) noexcept nogil:
        """Give the kernel `data`, keep what it does not take."""
        cdef size_t sent = 0
        if self.failed:
            return
        if self.out.size == 0 and not self.blocked:
            # MSG_MORE: the FIN that follows shares the last data's packet.
            sent = self.give(data, size, linux.MSG_MORE if last else 0)
        if sent < size and not self.failed:
            if not byte_queue_append(&self.out, data + sent, size - sent):
                self.relay.break_off(RESOURCE, self, linux.ENOMEM)

    cdef size_t give(self, const char *data, size_t size, int flags) noexcept nogil:
        """One send. Returns how many bytes the kernel has taken; when that is not all of them, it is `blocked` or `failed`."""
        cdef ssize_t sent
        while True:
            sent = linux.send(self.fd, data, size, linux.MSG_NOSIGNAL | linux.MSG_DONTWAIT | flags)
            if sent < 0 and errno == linux.EAGAIN:
                sent = 0
            if sent >= 0:
                if <size_t> sent < size:
                    self.blocked = True
                    self.await_room()
                return sent
            if errno != linux.EINTR:
                self.fail_output(errno)
                return 0

    cdef void flush_out(self) noexcept nogil:
        cdef size_t sent = self.give(byte_queue_front(&self.out), self.out.size, 0)
        if self.failed:
            return
        byte_queue_consume(&self.out, sent)
        if self.out.size == 0:
            self.answered = 0
            if self.ending and not self.relay.broken:
                self.end_output()

    cdef void end_output(self) noexcept nogil:
        """All is out."""
        if self.ended or self.failed:
            return
        self.ended = True
        if self.peer.ended:
            self.relay.finish(TRUNCATED if self.truncated or self.peer.truncated else ENDED)
        else:
            linux.shutdown(self.fd, linux.SHUT_WR)

    cdef void fail_output(self, int number) noexcept nogil:
        """Nothing can be sent any more. What was received before that is still passed on; its end then ends the relay."""
        self.failed = True
        self.error = number
        byte_queue_clear(&self.out)
        self.hang_up = True
        self.drained = False
        if self.input_ended or self.peer.failed:
            self.relay.break_off(reason_of(number), self, number)
        else:
            self.plan_again_nogil()

    cdef bint wind_up(self) noexcept nogil:
        """After an error: see the last bytes out, half-close, and await the peer's end. True when that is done."""
        if self.out.size and not self.blocked and not self.failed:
            self.flush_out()
        if self.failed:
            return True
        if self.out.size:
            return False
        if not self.ended:
            self.ended = True
            linux.shutdown(self.fd, linux.SHUT_WR)
        if not self.drained:
            self.take_in(self.loop.scratch.receive, RECEIVE_SIZE)  # thrown away
            if not self.drained:
                self.plan_again_nogil()
        return self.fin

    cdef void close_now(self) noexcept:
        cdef int fd = self.fd
        if fd >= 0:
            self.stop_watching()
            linux.close(fd)
        byte_queue_clear(&self.out)


@cython.final
cdef class ChannelRelay:
    """Joins two sides.

    loop: Loop. front, back: each a Channel of that loop that is open, with TLS done or without, or the number (int) of a
    connected stream socket's descriptor; both are taken over. observer: _RelayObserver, told the end. idle_seconds: how long
    nothing may come before it is ended, 0 for no limit. `head`: bytes to send to the back side before everything else.

    ValueError or TypeError when the two cannot be joined, OSError when a descriptor cannot be watched: nothing has been taken
    then. MemoryError: both are closed.
    """

    def __cinit__(self, Loop loop not None, front, back, observer, double idle_seconds=0.0, bytes head=b""):
        cdef RelaySide side
        loop.require()
        for end in (front, back):
            if isinstance(end, Channel):
                if (<Channel> end).loop is not loop or not end.can_join:
                    raise ValueError("a channel can be joined when it is open, of this loop, and no handshake is under way")
                (<Channel> end).keep_lent()
            elif not isinstance(end, int):
                raise TypeError(f"a Channel or a descriptor is needed, not {type(end).__name__}")
        if front == back:
            raise ValueError("a relay has two different ends")
        self.loop = loop
        self.observer = observer
        self.reason = -1
        self.idle_limit = idle_seconds
        self.started = self.active = monotonic_ns()
        self.front, self.back = RelaySide.__new__(RelaySide), RelaySide.__new__(RelaySide)
        self.front.peer, self.back.peer = self.back, self.front
        self.front.relay = self.back.relay = self
        self.front.loop = self.back.loop = loop
        try:
            self.front.watch(front)
            self.back.watch(back)
        except BaseException:
            self.front.unwatch(front)
            self.cut()
            raise
        try:
            for side, end in ((self.front, front), (self.back, back)):
                if isinstance(end, Channel):
                    side.take_channel(<Channel> end)
        except BaseException:
            self.observer = None
            self.bury()
            raise
        if idle_seconds > 0:
            self.watch_idle(idle_seconds)
        if head:
            self.back.send_on(PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head), False)
        self.pass_unread(front, self.back, self.front)
        self.pass_unread(back, self.front, self.back)
        # One edge is announced for a descriptor that is ready already, but not for what an engine holds.
        self.front.plan_again_nogil()
        self.back.plan_again_nogil()
        loop.plan_turn()
        for end in (front, back):
            if isinstance(end, Channel):
                (<Channel> end).consumer = None  # last: it may be the end of the consumer, and what that calls finds a relay

    cdef void pass_unread(self, object end, RelaySide to, RelaySide source) noexcept:
        """What a channel's consumer has not read goes first."""
        cdef Channel channel
        if isinstance(end, Channel):
            channel = <Channel> end
            if channel.kept.size:
                source.received += channel.kept.size
                to.send_on(byte_queue_front(&channel.kept), channel.kept.size, False)
                byte_queue_clear(&channel.kept)
            if channel.input_ended:
                source.end_input(not source.tls or source.engine.peer_closed)

    cdef void break_off(self, int reason, RelaySide culprit, int error) noexcept nogil:
        """An error: nothing more is read. `work` winds up, and a report starts the deadline for that."""
        if self.broken or self.over:
            return
        if reason == TLS and culprit.peer.truncated:
            reason = TRUNCATED  # it was told no close_notify, for there was none, and answers that with an alert (RFC 8446, 6.1)
        self.broken = True
        self.culprit_back = culprit is self.back
        self.reason = reason
        self.error = error
        self.front.plan_again_nogil()
        self.back.plan_again_nogil()
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
            if side.tls:
                try:
                    side.engine.settle()
                except BaseException as exc:
                    self.loop.report("a TLS session could not be kept", exc, self.observer)
        if self.over:
            self.bury()
        elif self.broken and not self.lingering:
            self.lingering = True
            self.watch_idle(LINGER_SECONDS)

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
        elif self.timer is not None:
            self.timer.cancel()

    cdef void watch_idle(self, double seconds) noexcept:
        if self.timer is not None:
            self.timer.cancel()
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
        if self.lingering:
            self.finish(-1)
        elif idle >= self.idle_limit:
            self.finish(IDLE)
        else:
            self.watch_idle(self.idle_limit - idle)
            return
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
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.cut()
        if observer is not None and not self.loop.is_closed:
            try:
                observer.on_relay_closed(self.reason)
            except BaseException as exc:
                self.loop.report("exception in closed_handler", exc, observer)

    cdef void cut(self) noexcept:
        self.front.peer = self.back.peer = None
        self.front.relay = self.back.relay = None

    def close(self):
        """End it at once: what is on its way is dropped. The observer is told (RELAY_ABORTED). No effect on one that has
        ended."""
        if self.finished:
            return
        self.loop.require()
        if self.reason < 0:
            self.reason = ABORTED
        self.bury()

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
        return os.strerror(self.error)
