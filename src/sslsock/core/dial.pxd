from sslsock.core.loop cimport Timer, Watcher


cdef class Dial(Watcher):
    cdef object consumer  # None once it has been told
    cdef bytes address
    cdef Timer deadline

    cdef int give_up(self) noexcept
    cdef void fail(self, int number) noexcept
