"""What a loop has planned: timers in the order of their time, and work for the next turn.

The heap knows each timer's place, so that cancelling frees it at once: a server cancels a deadline per connection, and
entries that wait for their time would be thousands.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t

from shared_value cimport load_size, load_thread, store_size

cdef extern from "pythread.h" nogil:
    unsigned long PyThread_get_thread_ident()

cdef enum:
    SMALLEST_QUEUE = 64  # places


cdef class Timed:
    """What stands in a heap. Base of `Timer`."""

    def __cinit__(self):
        self.index = -1


cdef class TimedHeap:
    """A binary heap by time."""

    def __cinit__(self):
        self.entries = []

    cdef int add(self, Timed entry) except -1:
        self.entries.append(entry)
        self.rise(entry, len(self.entries) - 1)
        return 0

    cdef int64_t earliest(self) noexcept:
        """When the first is due, INT64_MAX without one."""
        return (<Timed> self.entries[0]).when if self.entries else INT64_MAX

    cdef Timed take(self):
        """The first one, which is no longer planned."""
        cdef Timed entry = <Timed> self.entries[0]
        self.remove(entry)
        return entry

    cdef void remove(self, Timed entry) noexcept:
        cdef list entries = self.entries
        cdef Py_ssize_t index = entry.index
        cdef Timed last
        entry.index = -1
        if index >= len(entries):
            return  # the garbage collector takes the loop apart, and was here first
        last = <Timed> entries[len(entries) - 1]
        del entries[len(entries) - 1]
        if last is not entry:
            self.sink(last, index)
            if last.index == index:
                self.rise(last, index)

    cdef void clear(self) noexcept:
        """None is planned any more. Needs no memory."""
        while self.entries:
            (<Timed> self.entries.pop()).index = -1

    cdef void place(self, Timed entry, Py_ssize_t index) noexcept:
        self.entries[index] = entry
        entry.index = index

    cdef void rise(self, Timed entry, Py_ssize_t index) noexcept:
        cdef Py_ssize_t parent
        cdef Timed other
        while index > 0:
            parent = (index - 1) >> 1
            other = <Timed> self.entries[parent]
            if other.when <= entry.when:
                break
            self.place(other, index)
            index = parent
        self.place(entry, index)

    cdef void sink(self, Timed entry, Py_ssize_t index) noexcept:
        cdef Py_ssize_t size = len(self.entries), child
        cdef Timed best, right
        while True:
            child = 2 * index + 1
            if child >= size:
                break
            best = <Timed> self.entries[child]
            if child + 1 < size:
                right = <Timed> self.entries[child + 1]
                if right.when < best.when:
                    best = right
                    child += 1
            if entry.when <= best.when:
                break
            self.place(best, index)
            index = child
        self.place(entry, index)


@cython.final
cdef class Timer(Timed):
    """A planned call. `cancel()` may be called at any time, also after it has run, in the loop's thread."""

    @property
    def cancelled(self):
        """True when it will not run (any more)."""
        return self.callback is None

    def cancel(self):
        """Take the call back; no effect once it has run. RuntimeError in another thread than the loop's."""
        if self.heap is not None and load_thread(self.heap.thread) != PyThread_get_thread_ident():
            raise RuntimeError("a timer is cancelled in the thread of its event loop: use call_soon_threadsafe")
        self.drop()

    cdef void drop(self) noexcept:
        self.callback = None
        self.args = None
        if self.index >= 0:
            self.heap.remove(self)
            self.heap.background -= self.background


@cython.final
cdef class TimerHeap(TimedHeap):
    """The timers of a loop."""

    def __cinit__(self):
        self.thread = PyThread_get_thread_ident()

    cdef Timer plan(self, int64_t when, object callback, tuple args, bint background):
        cdef Timer timer = Timer.__new__(Timer)
        timer.heap = self
        timer.callback = callback
        timer.args = args
        timer.when = when
        timer.background = background
        self.add(timer)
        self.background += background
        return timer

    cdef bint waits(self) noexcept:
        """There is one that keeps `run` going."""
        return len(self.entries) > self.background

    cdef Timer first(self):
        """The first one, which is no longer planned."""
        cdef Timer timer = <Timer> self.take()
        self.background -= timer.background
        return timer


@cython.final
cdef class WorkQueue:
    """What is planned for a turn, in the order in which it was: a ring, so that no turn allocates one.

    A turn does as much as was there when it came to it (`count`). What is planned meanwhile waits for the next turn, so that a chain
    of calls starves nobody. A nested turn finds what the outer one has still to do before what has been planned since.

    Other threads may append, so it is used in its critical section.
    """

    def __cinit__(self):
        self.places = [None] * SMALLEST_QUEUE

    @cython.critical_section
    cdef int append(self, object work) except -1:
        while self.count >= len(self.places):
            self.grow()
        self.places[(self.first + self.count) & (len(self.places) - 1)] = work
        store_size(self.count, self.count + 1)
        return 0

    @cython.critical_section
    cdef object take(self):
        """The first one, of those that there are."""
        cdef Py_ssize_t place = self.first
        work = self.places[place]
        self.first = (place + 1) & (len(self.places) - 1)
        store_size(self.count, self.count - 1)
        self.places[place] = None
        return work

    cdef int grow(self) except -1:
        cdef list places = self.places
        if not places:  # the garbage collector takes the loop apart, and was here first
            self.first = self.count = 0
            self.places = [None] * SMALLEST_QUEUE
            return 0
        cdef list larger = places[self.first:] + places[:self.first] + [None] * len(places)
        if self.places is places and self.count == len(places):  # what ran meanwhile (the garbage collector) may have used it
            self.places, self.first = larger, 0
        return 0

    cdef void clear(self) noexcept:
        """Nothing of what was there is planned any more. Needs no memory."""
        cdef Py_ssize_t left = load_size(self.count)
        while left > 0 and load_size(self.count) > 0:
            self.take()  # its destructor may plan, and may clear
            left -= 1
