from libc.stdint cimport int64_t

cimport system


cdef inline int64_t monotonic_ns() noexcept nogil:
    """The clock of timers: nanoseconds of the monotonic clock."""
    cdef system.timespec now
    system.clock_gettime(system.MONOTONIC_CLOCK, &now)
    return now.tv_sec * 1000000000 + now.tv_nsec


cdef class Timed:
    cdef int64_t when  # as `monotonic_ns`
    cdef Py_ssize_t index  # place in the heap, -1 outside it


cdef class TimedHeap:
    cdef list entries  # earliest first

    cdef int add(self, Timed entry) except -1
    cdef int64_t earliest(self) noexcept
    cdef Timed take(self)
    cdef void remove(self, Timed entry) noexcept
    cdef void clear(self) noexcept
    cdef void place(self, Timed entry, Py_ssize_t index) noexcept
    cdef void rise(self, Timed entry, Py_ssize_t index) noexcept
    cdef void sink(self, Timed entry, Py_ssize_t index) noexcept


cdef class Timer(Timed):
    cdef TimerHeap heap
    cdef object callback  # None once it has run or was cancelled
    cdef tuple args
    cdef bint background  # does not keep `run` going

    cdef void drop(self) noexcept


cdef class TimerHeap(TimedHeap):
    cdef Py_ssize_t background  # how many of them are
    cdef unsigned long thread  # the loop's: `load_thread`

    cdef Timer plan(self, int64_t when, object callback, tuple args, bint background)
    cdef bint waits(self) noexcept
    cdef Timer first(self)


cdef class WorkQueue:
    cdef list places  # a ring; its length is a power of two
    cdef Py_ssize_t first  # place of the one whose turn it is
    cdef Py_ssize_t count

    cdef int append(self, object work) except -1
    cdef object take(self)
    cdef int grow(self) except -1
    cdef void clear(self) noexcept
