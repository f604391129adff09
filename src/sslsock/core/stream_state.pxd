cdef class ReaderState:
    # asyncio's attributes of a StreamReader, without the underscore
    cdef public object buffer, waiter, exception, transport, limit, loop
    cdef public bint eof, paused
    cdef object reference  # weakref.ref of the reader, for a transport that feeds it

    cdef object writable(self)
    cdef int feed(self, bytes data) except -1
    cdef int pause(self) except -1
    cdef int resume(self) except -1
    cdef int resume_if_short(self) except -1


cdef bint exceeds(Py_ssize_t size, object limit, int times) except -1
cdef ReaderState state_of(object reader)
cdef int move_state(object reader) except -1
