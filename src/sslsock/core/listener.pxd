from sslsock.core.reactor cimport Watcher
from sslsock.core.schedule cimport Timer


cdef class Listener(Watcher):
    cdef object consumer
    cdef list accepted  # connections that nobody has taken yet
    cdef Py_ssize_t taken  # of them, at the front
    cdef Py_ssize_t bound  # of those that wait
    cdef readonly bint paused
    cdef bint drained  # the kernel has nobody waiting until the next edge
    cdef Timer retry  # set while accepting rests after an error
    cdef object __weakref__

    cdef void accept_some(self) noexcept
    cdef void on_refused(self, int number) noexcept
    cdef void resume_soon(self) noexcept
    cdef void close_all(self) noexcept
