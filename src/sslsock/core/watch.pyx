"""Descriptors of the program's, watched for a Python callback."""

cimport cython
from libc.stdint cimport uint32_t

cimport poller
from sslsock.core.reactor cimport LevelWatcher, Reactor, Watcher


PEER_ENDED = poller.POLLRDHUP  # which the `select` module has on Linux alone


cdef void call(Reactor loop, object callback, uint32_t events) noexcept:
    try:
        if callback is not None:
            callback(events)
    except BaseException as exc:
        loop.report("exception in a watch callback", exc, callback)


cdef int require(Reactor loop) except -1:
    """What is closed after its loop has gone has nothing to fear."""
    if not loop.is_closed and not loop.left:
        loop.require()
    return 0


@cython.final
cdef class Watch(Watcher):
    """A descriptor whose edges are told."""

    def __cinit__(self):
        self.borrowed = True

    cdef void on_event(self, uint32_t events) noexcept:
        call(self.loop, self.callback, events)

    def close(self):
        """Stop watching; the descriptor stays the caller's."""
        if self.loop is not None:
            require(self.loop)
            self.callback = None
            self.stop_watching()


@cython.final
cdef class LevelWatch(LevelWatcher):
    """A descriptor that is told of on each turn in which it is ready."""

    cdef void on_event(self, uint32_t events) noexcept:
        call(self.loop, self.callback, events)

    def change(self, uint32_t events):
        """Be told of these events (`select.POLLIN` and its like) from now on; of none: not at all, until it is called again.
        OSError if the system refuses."""
        if self.loop is not None:
            self.loop.require()
            if self.callback is not None:
                self.want(self.number, events)

    def close(self):
        """Stop watching; the descriptor stays the caller's."""
        if self.loop is not None:
            require(self.loop)
            self.callback = None
            self.stop_watching()
