cdef class Owned:
    cdef object __weakref__
    cdef unsigned long owner  # the thread; others look at it
    cdef int fork_count  # of the process that made it
    cdef bint is_closed  # other threads look at it too
    cdef bint left  # this is a forked child, and it is the parent's
    cdef list inherited  # then: what was the parent's, never touched again
    cdef list copies  # and the child's own descriptors of the parent's connections, to be closed

    cdef int enlist(self) except -1
    cdef void leave_to_parent(self)
    cdef bint thread_is_here(self)
    cdef void close_copies(self) noexcept
    cdef bint in_own_thread(self) noexcept
    cdef int require_here(self) except -1
    cdef int require_owner(self) except -1
