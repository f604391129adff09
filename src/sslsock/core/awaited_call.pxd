cdef enum call_phase:
    CALL_NEW  # nothing is done before somebody awaits it
    CALL_WAITING
    CALL_OVER


cdef class AwaitedCall:
    cdef call_phase phase
    # What it was called with. They are here so that they are still there when a call ends with its last reference, and all calls have one
    # size, so that they take each other's memory.
    cdef object subject  # whose call it is
    cdef object state  # what that holds in C, if it does
    cdef object argument
    cdef Py_ssize_t number
    cdef bint tried  # this is not the first attempt
    cdef object inner  # the iterator that is waited for, or None
    cdef bint delegated  # what `inner` returns is the result

    cdef object attempt(self)
    cdef int wait_for(self, object awaitable) except -1
    cdef int delegate(self, object coroutine) except -1
    cdef void waited(self) noexcept
    cdef void end(self) noexcept
    cdef str name(self)


cdef int give_slots(object kind) except -1
