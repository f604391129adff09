from sslsock.core.schedule cimport Timed


cdef class Handle(Timed):
    cdef readonly object _callback, _args, _context, _loop
    cdef readonly bint _cancelled
    cdef object text  # its repr, kept when it was cancelled in debug mode
    cdef object __weakref__

    cdef int run(self) except -1


cdef class TimerHandle(Handle):
    cdef readonly object _when  # seconds, as asyncio has it
