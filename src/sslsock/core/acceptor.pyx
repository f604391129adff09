"""Accepting: what every listening descriptor has in common.

When the process has no descriptors left it rests for a while instead of asking again at once: the connection that waits keeps the
descriptor readable, and a loop that asked would do nothing else (accept(2), EMFILE).
"""

from libc.stdint cimport uint32_t

cimport system
from sslsock.core.schedule cimport Timer
from system cimport errno

cdef enum:
    ACCEPTS_PER_TURN = 64


cdef class Acceptor(Watcher):
    """A listening descriptor, non-blocking. What becomes of a connection says the derived class (`take_in`)."""

    def __cinit__(self):
        self.rest_seconds = 0.1

    def fileno(self):
        """The listening descriptor, -1 after `close`."""
        return self.fd

    cdef void on_event(self, uint32_t events) noexcept:
        self.drained = False
        self.accept_some()

    cdef void on_again(self) noexcept:
        self.accept_some()

    cdef void on_loop_closed(self) noexcept:
        self.close_all()

    # For the derived class

    cdef bint has_room(self) noexcept:
        """Whether one more connection may be accepted."""
        return True

    cdef int take_in(self, int connection, const system.sockaddr *peer, system.socklen_t size) except -1:
        """A connection, whose descriptor is the derived class's from now on, and the peer's name. MemoryError: as if there were no
        descriptors."""
        raise NotImplementedError

    cdef void on_accepted(self) noexcept:
        """The end of a turn in which connections were accepted."""

    cdef void on_out(self, int number) noexcept:
        """Accepting has failed (errno) and rests."""

    # Steps

    cdef void accept_some(self) noexcept:
        cdef int connection, count = 0
        cdef system.sockaddr_storage peer
        cdef system.socklen_t size
        cdef bint accepted = False
        while count < ACCEPTS_PER_TURN and self.may_accept():
            size = sizeof(peer)
            connection = system.accept_connection(self.fd, <system.sockaddr *> &peer, &size)
            if connection >= 0:
                try:
                    self.take_in(connection, <system.sockaddr *> &peer, size)
                except BaseException:
                    self.rest(system.ENOMEM)
                    break
                accepted = True
                count += 1
            elif errno == system.EAGAIN:
                self.drained = True
                break
            elif system.accept_goes_on(errno):
                count += 1
            else:
                self.rest(errno)
                break
        if accepted:
            self.on_accepted()
        self.resume_soon()

    cdef bint may_accept(self) noexcept:
        return self.fd >= 0 and not self.paused and self.retry is None and not self.drained and self.has_room()

    cdef void resume_soon(self) noexcept:
        """More may be waiting, and there is room: go on in the next turn."""
        if self.may_accept():
            self.plan_again()

    cdef void rest(self, int number) noexcept:
        try:
            self.retry = self.loop.plan(self.rest_seconds, self._rested, (), False)
        except BaseException as exc:
            self.loop.report_call(self, "rest", exc)
        self.on_out(number)

    def _rested(self):
        """The end of a rest."""
        self.retry = None
        self.resume_soon()

    def pause(self):
        """Stop accepting; the kernel queues."""
        self.loop.require()
        self.paused = True

    def resume(self):
        """Accept again."""
        self.loop.require()
        self.paused = False
        self.resume_soon()

    def close(self):
        """Stop listening."""
        if not self.loop.is_closed:
            self.loop.require()
        self.close_all()

    cdef void close_all(self) noexcept:
        cdef int fd = self.fd
        cdef Timer retry = self.retry
        self.retry = None
        if fd >= 0:
            self.stop_watching()
            if not self.borrowed:
                system.close(fd)
        if retry is not None:
            retry.drop()
