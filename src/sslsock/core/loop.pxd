from sslsock.core.reactor cimport Reactor
from sslsock.core.scratch cimport Scratch


cdef class Loop(Reactor):
    cdef bint stopping, has_turned

    cdef int move_to_thread(self) except -1
    # turns
    cdef bint is_idle(self) noexcept
    cdef int turn(self, double seconds) except -1
    cdef Scratch begin_turn(self)
    cdef int wait(self, double seconds) except -1
    cdef int run_due(self) except -1
    cdef void run_rest(self) noexcept
    cdef void end_turn(self, Scratch outer) noexcept
    cdef int raise_escaped(self) except -1
    cdef bint in_haste(self) noexcept
    cdef bint unfinished(self) noexcept
