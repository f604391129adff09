"""What a loop has planned: timers in the order of their time, and work for the next turn.

The heap knows each timer's place, so that cancelling frees it at once: a server cancels a deadline per connection, and
entries that wait for their time would be thousands.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t


@cython.final
cdef class Timer:
    """A planned call. `cancel()` may be called at any time, also after it has run."""

    def __cinit__(self):
        self.index = -1

    @property
    def cancelled(self):
        """True when it will not run (any more)."""
        return self.callback is None

    cpdef void cancel(self) noexcept:
        """Take the call back; no effect once it has run."""
        self.callback = None
        self.args = None
        if self.index >= 0:
            self.heap.remove(self)


@cython.final
cdef class TimerHeap:
    """Timers, a binary heap by their time."""

    def __cinit__(self):
        self.timers = []

    cdef Timer plan(self, int64_t when, object callback, tuple args, bint background):
        cdef Timer timer = Timer.__new__(Timer)
        timer.heap = self
        timer.callback = callback
        timer.args = args
        timer.when = when
        timer.background = background
        self.timers.append(timer)
        self.rise(timer, len(self.timers) - 1)
        self.background += background
        return timer

    cdef bint waits(self) noexcept:
        """There is one that keeps `run` going."""
        return len(self.timers) > self.background

    cdef int64_t earliest(self) noexcept:
        """When the first is due, INT64_MAX without one."""
        return (<Timer> self.timers[0]).when if self.timers else INT64_MAX

    cdef Timer take(self):
        """The first one, which is no longer planned."""
        cdef Timer timer = <Timer> self.timers[0]
        self.remove(timer)
        return timer

    cdef void remove(self, Timer timer) noexcept:
        cdef list timers = self.timers
        cdef Py_ssize_t index = timer.index
        cdef Timer last = <Timer> timers[len(timers) - 1]
        del timers[len(timers) - 1]
        timer.index = -1
        self.background -= timer.background
        if last is not timer:
            self.sink(last, index)
            if last.index == index:
                self.rise(last, index)

    cdef void place(self, Timer timer, Py_ssize_t index) noexcept:
        self.timers[index] = timer
        timer.index = index

    cdef void rise(self, Timer timer, Py_ssize_t index) noexcept:
        cdef Py_ssize_t parent
        cdef Timer other
        while index > 0:
            parent = (index - 1) >> 1
            other = <Timer> self.timers[parent]
            if other.when <= timer.when:
                break
            self.place(other, index)
            index = parent
        self.place(timer, index)

    cdef void sink(self, Timer timer, Py_ssize_t index) noexcept:
        cdef Py_ssize_t size = len(self.timers), child
        cdef Timer best, right
        while True:
            child = 2 * index + 1
            if child >= size:
                break
            best = <Timer> self.timers[child]
            if child + 1 < size:
                right = <Timer> self.timers[child + 1]
                if right.when < best.when:
                    best = right
                    child += 1
            if timer.when <= best.when:
                break
            self.place(best, index)
            index = child
        self.place(timer, index)


@cython.final
cdef class WorkQueue:
    """What is planned for a turn.

    A turn does what has been planned before it: `begin`, `next` while there is `more`, `end`. What is planned meanwhile waits
    for the next turn, so that a chain of calls starves nobody. A nested turn first takes over what the outer one has still to
    do, before what has been planned since.
    """

    def __cinit__(self):
        self.planned = []
        self.taken = []

    cdef void begin(self):
        self.taken, self.cursor, self.planned = self.planned, 0, []

    cdef bint more(self) noexcept:
        return self.cursor < len(self.taken)

    cdef object next(self):
        self.cursor += 1
        return self.taken[self.cursor - 1]

    cdef void end(self):
        self.taken = []

    cdef void take_over(self):
        if self.cursor < len(self.taken):
            self.planned = self.taken[self.cursor:] + self.planned
        self.taken = []
