from sslsock.core.schedule cimport Timed


cdef class Handle(Timed):
    cdef readonly object _callback, _args, _context, _loop
    cdef readonly bint _cancelled
    cdef object text  # its repr, kept when it was cancelled in debug mode
    cdef object __weakref__

    cdef int run(self) except -1


cdef class TimerHandle(Handle):
    cdef readonly object _when  # seconds, as asyncio has it


cdef class HandleQueue:
    cdef list places  # a ring; its length is a power of two
    cdef Py_ssize_t first  # place of the one whose turn it is
    cdef Py_ssize_t count

    cdef int append(self, object handle) except -1
    cdef object take(self)
    cdef int grow(self) except -1
    cdef void clear(self)
