cdef class Owned:
    cdef public object host  # the asyncio loop that it is part of
    cdef object __weakref__
    cdef unsigned long owner  # the thread
    cdef int fork_count  # of the process that made it
    cdef bint is_closed
    cdef bint left  # this is a forked child, and it is the parent's
    cdef int depth  # of turns, one in another

    cdef int enlist(self) except -1
    cdef void leave_to_parent(self)
    cdef bint thread_is_here(self)
    cdef bint in_own_thread(self) noexcept
    cdef int require_owner(self) except -1
    cdef int require(self) except -1
    cdef int require_thread(self) except -1
    cdef int look_for_host(self) except -1
    cdef int meet_host(self) except -1


cpdef object running_host()
