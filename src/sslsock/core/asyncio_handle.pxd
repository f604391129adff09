from sslsock.core.schedule cimport Timed


cdef class Handle(Timed):
    cdef object callback
    cdef tuple arguments  # None, as `callback`: cancelled
    cdef readonly object _context, _loop
    cdef int is_cancelled  # read and set in any thread: load_int, store_int
    cdef object text  # its repr, kept when it was cancelled in debug mode
    cdef object __weakref__

    cdef int run(self) except -1


cdef class TimerHandle(Handle):
    cdef readonly object _when  # seconds, as asyncio has it
