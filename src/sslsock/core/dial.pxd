from sslsock.core.reactor cimport Watcher
from sslsock.core.schedule cimport Timer


cdef class Dial(Watcher):
    cdef object consumer  # None once it has been told
    cdef bytes address, local
    cdef bint transparent
    cdef Timer deadline
    cdef Timer again  # when a full queue is asked once more; the descriptor is not watched meanwhile

    cdef int connect(self, int fd) noexcept
    cdef int refuse_itself(self, int fd) noexcept
    cdef bint is_unix(self) noexcept
    cdef int give_up(self) noexcept
    cdef void let_go(self) noexcept
    cdef void succeed(self) noexcept
    cdef void fail(self, int number) noexcept
