from sslsock.core.reactor cimport Watcher
from sslsock.core.schedule cimport Timer
from system cimport sockaddr, socklen_t


cdef class Acceptor(Watcher):
    cdef readonly bint paused
    cdef bint drained  # the kernel has nobody waiting until the next edge
    cdef Timer retry  # set while accepting rests after an error
    cdef double rest_seconds

    # of the derived class
    cdef bint has_room(self) noexcept
    cdef int take_in(self, int connection, const sockaddr *peer, socklen_t size) except -1
    cdef void on_accepted(self) noexcept
    cdef void on_out(self, int number) noexcept

    cdef void accept_some(self) noexcept
    cdef bint may_accept(self) noexcept
    cdef void resume_soon(self) noexcept
    cdef void rest(self, int number) noexcept
    cdef void close_all(self) noexcept
