from libc.stdint cimport int64_t

from sslsock.core.nesting cimport Nested
from sslsock.core.schedule cimport Timer, TimerHeap, WorkQueue


cdef class Planner(Nested):
    cdef public object exception_handler
    cdef TimerHeap timers
    cdef WorkQueue soon
    cdef object foreign  # deque: calls from other threads
    cdef Py_ssize_t holds

    # planning
    cdef bint plan_from_elsewhere(self, object work) except -1
    cdef Timer plan(self, double seconds, object callback, tuple args, bint background)
    # what a turn does of it
    cdef int64_t due(self) noexcept
    cdef void run_timers(self, int64_t now) noexcept
    cdef void run_calls(self) noexcept
    cdef void call(self, object callback, tuple args) noexcept
    # what goes wrong in it
    cdef void report_call(self, object consumer, str method, object exception) noexcept
