"""A link: a connected descriptor, perhaps TLS on it, and what was made for the wire and not taken by the kernel.

What a channel and a side of a relay have in common. Owns the descriptor, the engine and `out`; knows what the kernel has
said (nothing more to read now, FIN, no room, an error) and what that means. It decides nothing: when to read, what to do
with plaintext and whom to tell is for those who derive from it. All of it but closing works without the GIL.

A failure is a value, made here once: its kind, errno, and whether a send met it. A channel makes its consumer's call of it,
a relay its reason. After a failed send nothing more is sent, but what the peer sent before it went can still be read; its end
is then the failure's (`fin` with `failure`).

The end: after the last byte the link is half-closed and reads on, throwing away what comes, until the peer's end. Closing over
bytes that were not read would make the kernel send a reset, which can destroy our last bytes on their way (RFC 2525, 2.17).
A peer that sends too much meanwhile gets that reset all the same.
"""

from libc.stdint cimport uint32_t
from libc.string cimport memset

cimport system
from poller cimport POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDHUP
from sslsock.core.bare_engine cimport ENGINE_FAILED, ENGINE_OK
from sslsock.core.scratch cimport RECEIVE_SIZE
from system cimport errno
from window_bio cimport (
    byte_queue, byte_queue_append, byte_queue_clear, byte_queue_consume, byte_queue_front, byte_queue_move)


cdef failure_kind kind_of(int number) noexcept nogil:
    """What an errno means."""
    if number == system.ECONNRESET or number == system.EPIPE or number == system.ECONNABORTED:
        return PEER_RESET
    if number == system.ETIMEDOUT:
        return TIMED_OUT
    if number == system.ENOBUFS or number == system.ENOMEM:
        return NO_MEMORY
    return NETWORK_FAILED


cdef class Link(Watcher):
    """Base of Channel and RelaySide."""

    def __dealloc__(self):
        if self.fd >= 0:
            system.close(self.fd)
        byte_queue_clear(&self.out)

    # events

    cdef void note_events(self, uint32_t events) noexcept nogil:
        if events & (POLLIN | POLLRDHUP | POLLHUP | POLLERR):
            self.drained = False
            if events & (POLLRDHUP | POLLHUP | POLLERR):
                self.hang_up = True
            if events & (POLLHUP | POLLERR):
                self.suspect = True
            if events & POLLPRI:
                self.urgent = True
        if events & (POLLOUT | POLLHUP | POLLERR):
            self.blocked = False

    # incoming

    cdef size_t take_in(self, char *memory, size_t room) noexcept nogil:
        """One recv. Returns how many bytes came; what else it says is in `drained`, `fin` and `failure`."""
        cdef ssize_t size = system.recv(self.fd, memory, room, system.MSG_DONTWAIT)
        if size > 0:
            # epoll(7): a short read has emptied a stream, but for its end and for what lies behind urgent data.
            self.drained = <size_t> size < room and not self.hang_up and not self.urgent
            return size
        if size == 0:
            self.drained = self.fin = True
        elif errno == system.EAGAIN:
            self.drained = True
            self.fin = self.fin or self.dead
        elif errno != system.EINTR:
            self.drained = self.fin = True
            self.fail_with(kind_of(errno), errno, False)
        return 0

    cdef bint look_for_error(self) noexcept nogil:
        """For one that is not read now: whether it is `dead`, which would only be met behind what lies unread."""
        cdef int number = 0
        cdef system.socklen_t size = sizeof(number)
        if self.suspect:
            self.suspect = False
            system.getsockopt(self.fd, system.SOL_SOCKET, system.SO_ERROR, &number, &size)
            if number:
                self.fail_with(kind_of(number), number, False)
        return self.dead

    cdef void look_for_end(self) noexcept nogil:
        """For one that is not read now, after news of its end: an error is met at once, for there is no connection any more,
        whatever lies unread in the system; a FIN if nothing does. `fin` says so."""
        cdef char byte
        if self.look_for_error():
            self.drained = self.fin = True
        elif not self.engine_ready and system.recv(self.fd, &byte, 1, system.MSG_PEEK | system.MSG_DONTWAIT) == 0:
            self.drained = self.fin = True

    cdef int decrypt(self, size_t size, char *plain, size_t room, size_t *got) noexcept nogil:
        """Give the engine `size` bytes from the loop's scratch, after what it has. The plaintext comes to `plain`, `room` bytes at the
        most. Returns the engine's status, ENGINE_FAILED with `failure`. What libssl answers stays in the engine."""
        cdef int status
        got[0] = 0
        self.engine_ready = False
        if not self.engine.open_in(self.loop.scratch.receive, size):
            self.fail_with(NO_MEMORY, system.ENOMEM, False)
            return ENGINE_FAILED
        status = self.engine.pull(plain, room, got)
        if not self.engine.close_in():
            self.fail_with(NO_MEMORY, system.ENOMEM, False)
            return ENGINE_FAILED
        if status == ENGINE_FAILED:
            self.fail_with(TLS_FAILED, 0, False)
        self.engine_ready = status == ENGINE_OK and self.engine.holds_more()  # it stopped for want of room
        return status

    # outgoing

    cdef bint keep_output(self) noexcept nogil:
        """What libssl has made by itself joins `out`. False without memory."""
        cdef size_t before = self.out.size
        if self.engine.take_output(&self.out) < 0:
            self.fail_with(NO_MEMORY, system.ENOMEM, True)
            return False
        self.answered += self.out.size - before
        return True

    cdef size_t give(self, const char *data, size_t size, int flags) noexcept nogil:
        """One send. Returns how many bytes the kernel has taken; when that is not all of them, it is `blocked` or has failed."""
        cdef ssize_t sent
        while True:
            sent = system.send(self.fd, data, size, system.MSG_NOSIGNAL | system.MSG_DONTWAIT | flags)
            if sent < 0 and errno == system.EAGAIN:
                sent = 0
            if sent >= 0:
                if sent > 0:
                    self.discarded = 0
                if <size_t> sent < size:
                    self.blocked = True
                    self.await_room()
                return sent
            if errno != system.EINTR:
                self.fail_with(kind_of(errno), errno, True)
                return 0

    cdef void put(self, const char *data, size_t size, int flags) noexcept nogil:
        """Give the kernel `data` behind what waits already, and keep what it does not take."""
        cdef size_t sent = 0
        if self.dead:
            return
        if self.out.size == 0 and not self.blocked:
            sent = self.give(data, size, flags)
        if sent < size and not self.dead:
            if not byte_queue_append(&self.out, data + sent, size - sent):
                self.fail_with(NO_MEMORY, system.ENOMEM, True)

    cdef void put_output(self, char *memory, size_t before, int flags) noexcept nogil:
        """Send what the engine has made: what lies in `memory`, where it was told to put it (`open_output`) behind `before` bytes
        that go first, and the rest."""
        cdef byte_queue rest
        memset(&rest, 0, sizeof(rest))
        before += self.engine.take_output(&rest)  # `rest` is empty, so that this needs no memory
        if before:
            self.put(memory, before, flags)
        if rest.size:  # small records, whose headers take more than there was room for
            self.put(byte_queue_front(&rest), rest.size, flags)
            byte_queue_clear(&rest)

    cdef size_t flush_out(self) noexcept nogil:
        """Send from `out`. Returns how many bytes the kernel has taken."""
        cdef size_t sent = self.give(byte_queue_front(&self.out), self.out.size, 0)
        if not self.dead:
            byte_queue_consume(&self.out, sent)
            if self.out.size == 0:
                self.answered = 0
        return sent

    # the end

    cdef void fail_with(self, failure_kind kind, int number, bint sending) noexcept nogil:
        """The first failure is the one to tell; one of TLS lay in what was received before the reset or the refused send that
        has been met already, and says why. After it its alert can still be sent."""
        if self.failure.kind == NO_FAILURE or kind == TLS_FAILED:
            self.failure.kind = kind
            self.failure.number = number
            self.failure.sending = sending
        if kind != TLS_FAILED:
            self.dead = True
            self.answered = 0
            byte_queue_clear(&self.out)
        if sending and not self.fin:  # what the peer sent before it went is read first
            self.hang_up = True
            self.drained = False

    cdef bint throw_away(self, size_t most) noexcept nogil:
        """One receive, thrown away. True when the peer's end has come, or when more than `most` bytes have come before it."""
        cdef size_t size, room
        if self.drained or self.resets:
            return self.fin or self.resets
        room = min(<size_t> RECEIVE_SIZE, most - self.discarded + 1)
        size = self.take_in(self.loop.scratch.receive, room)
        self.discarded += size
        if self.discarded > most:
            self.resets = True
        elif 0 < size < room and self.hang_up and not self.urgent:
            return True  # that was all before the end that has been announced
        return self.fin or self.resets

    cdef void half_close(self) noexcept:
        """The FIN, behind all that was sent."""
        system.shutdown(self.fd, system.SHUT_WR)

    cdef void close_descriptor(self) noexcept:
        cdef int fd = self.fd
        cdef system.linger at_once
        if fd < 0:
            return
        self.stop_watching()
        if self.resets:
            at_once.l_onoff = 1  # socket(7), SO_LINGER: with no time to linger, close sends a reset
            at_once.l_linger = 0
            system.setsockopt(fd, system.SOL_SOCKET, system.SO_LINGER, &at_once, sizeof(at_once))
        system.close(fd)

    # another takes over

    cdef void move_to(self, Link heir) noexcept:
        """Everything but the descriptor, which `heir` watches already (`take_over_watch`), becomes its own."""
        heir.engine = self.engine
        heir.failure = self.failure
        heir.dead = self.dead
        heir.hang_up = self.hang_up
        heir.suspect = self.suspect
        heir.urgent = self.urgent
        heir.fin = self.fin
        heir.engine_ready = self.engine_ready
        heir.answered = self.answered
        byte_queue_move(&heir.out, &self.out)
