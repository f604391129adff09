from poller cimport poller
from sslsock.core.ownership cimport Owned


cdef class Nested(Owned):
    cdef public object host  # the asyncio loop that it is part of
    cdef public object _host_call_soon
    cdef object asked_host  # the _host_call_soon whose call has not come yet
    cdef bint host_planned  # the pipe tells already that there is work
    cdef poller poller
    cdef int depth  # of turns, one in another
    cdef object escaped  # KeyboardInterrupt and its like, raised when the turn is over

    cdef int require(self) except -1
    cdef int require_thread(self) except -1
    cdef int look_for_host(self) except -1
    cdef int meet_host(self) except -1
    cdef void plan_turn(self) noexcept
    cdef bint wake(self) noexcept


cpdef object running_host()
