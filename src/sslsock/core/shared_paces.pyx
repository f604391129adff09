"""Rates that worker processes share: when there may be a whole burst at once again (proxy/limits/pace.py says how that is counted).

Made before the workers are forked.
"""

import os

cimport cython
from libc.stdint cimport int64_t

from shared_lock cimport (
    shared_lock, shared_lock_init, shared_lock_release, shared_lock_take, shared_memory_free, shared_memory_new,
)
from sslsock.core.schedule cimport monotonic_ns
from system cimport ENOMEM, errno

cdef struct Pace:
    int64_t interval, burst, full_at

cdef struct Paces:
    shared_lock lock
    Pace[1] pace  # as many as there are


@cython.final
cdef class SharedPaces:
    """count: how many there are, numbered from 0 on. OSError (ENOTSUP where processes cannot share a lock), MemoryError."""

    cdef Paces *memory
    cdef size_t size
    cdef Py_ssize_t count

    def __cinit__(self, Py_ssize_t count):
        cdef int failed
        if not 0 < count <= 1 << 20:
            raise ValueError(f"no number of paces: {count}")
        self.count = count
        self.size = sizeof(Paces) + count * sizeof(Pace)
        self.memory = <Paces *> shared_memory_new(self.size, True)
        failed = errno if self.memory is NULL else shared_lock_init(&self.memory.lock, True)
        if failed == ENOMEM:
            raise MemoryError
        if failed:
            raise OSError(failed, os.strerror(failed))

    def __dealloc__(self):
        if self.memory is not NULL:
            shared_memory_free(self.memory, self.size)

    cdef Pace *pace(self, Py_ssize_t number) except NULL:
        if not 0 <= number < self.count:
            raise ValueError(f"no pace has this number: {number}")
        return &self.memory.pace[0] + number

    def follow(self, Py_ssize_t number, int64_t interval, int64_t burst):
        """Go by this rate from now on: nanoseconds for one, and how many at once. ValueError.

        What is known is kept if it is the rate already: each worker says the same.
        """
        cdef Pace *pace = self.pace(number)
        if interval < 0 or burst < 1 or interval > 2 ** 62 // burst:
            raise ValueError(f"no rate: {interval} ns, {burst} at once")
        shared_lock_take(&self.memory.lock)
        if pace.interval != interval or pace.burst != burst:
            pace.full_at = 0
            pace.interval = interval
            pace.burst = burst
        shared_lock_release(&self.memory.lock)

    def take(self, Py_ssize_t number, patience=None, now=None):
        """Take the next turn. Returns how many seconds there are until then: float; None: more than `patience`, so it was not taken.
        now: nanoseconds on the monotonic clock. ValueError."""
        cdef Pace *pace = self.pace(number)
        cdef double most = 0.0 if patience is None else patience
        cdef int64_t moment = monotonic_ns() if now is None else now
        cdef bint patient = patience is None
        cdef bint taken
        cdef int64_t full_at, wait
        shared_lock_take(&self.memory.lock)
        full_at = max(pace.full_at, moment)
        wait = max(full_at - moment - pace.interval * (pace.burst - 1), 0)
        taken = patient or wait / 1e9 <= most
        if taken:
            pace.full_at = full_at + pace.interval
        shared_lock_release(&self.memory.lock)
        return wait / 1e9 if taken else None
