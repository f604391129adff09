from sslsock.core.bare_engine cimport BareEngine
from sslsock.core.reactor cimport Watcher
from worker_pool cimport worker_job, worker_pool


cdef class HandshakePool:
    cdef worker_pool *pool
    cdef readonly int most

    cdef bint take_over(self, BareEngine engine, Watcher watcher, void (*done)(worker_job *job) noexcept) except -1


cdef void take_back(worker_job *job) noexcept
