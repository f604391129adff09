"""How many connections, or handshakes, may begin in a time, in all threads or processes: who comes too early is told how long to
wait.

By GCRA (ITU-T I.371, annex A), which is a token bucket whose content is told by one number. Turns are given away in the order
in which they are asked for, and one that is not taken is lost.

From any thread: no Python runs under the lock.
"""

import os

cimport cython
from libc.stdint cimport int64_t

from shared_lock cimport (
    shared_lock, shared_lock_init, shared_lock_release, shared_lock_take, shared_memory_free, shared_memory_new,
)
from shared_value cimport load_int64, store_int64
from sslsock.core.schedule cimport monotonic_ns
from system cimport ENOMEM, errno

cdef enum:
    MOST = 4  # rates that one limiter goes by

cdef int64_t LATEST = 2 ** 63 - 1  # turns behind it are at the same time

cdef struct Rate:
    int64_t interval, burst  # nanoseconds for one, 0 for no limit; how many at once
    int64_t full_at  # when there may be a whole burst again

cdef struct Rates:
    shared_lock lock
    Rate[1] rate  # as many as there are


@cython.final
cdef class RateLimits:
    """count: how many there are, numbered from 0 on; without a limit until `follow`. shared: among processes, forked after this
    one has made them. OSError (ENOTSUP where processes cannot share a lock), MemoryError, ValueError.
    """

    cdef Rates *memory
    cdef size_t size
    cdef Py_ssize_t count

    def __cinit__(self, Py_ssize_t count, bint shared=False):
        cdef int failed
        cdef Py_ssize_t number
        if not 0 < count <= 1 << 20:
            raise ValueError(f"no number of rates: {count}")
        self.count = count
        self.size = sizeof(Rates) + count * sizeof(Rate)
        self.memory = <Rates *> shared_memory_new(self.size, shared)
        failed = errno if self.memory is NULL else shared_lock_init(&self.memory.lock, shared)
        if failed == ENOMEM:
            raise MemoryError
        if failed:
            raise OSError(failed, os.strerror(failed))
        for number in range(count):
            self.memory.rate[number].burst = 1

    def __dealloc__(self):
        if self.memory is not NULL:
            shared_memory_free(self.memory, self.size)

    cdef Rate *rate(self, Py_ssize_t number) except NULL:
        if not 0 <= number < self.count:
            raise ValueError(f"no rate has this number: {number}")
        return &self.memory.rate[number]

    def follow(self, Py_ssize_t number, int64_t interval, int64_t burst):
        """Go by this rate from now on: nanoseconds for one, 0 for no limit, and how many at once. ValueError.

        What is known is kept if it is the rate already: each worker says the same.
        """
        cdef Rate *rate = self.rate(number)
        if interval < 0 or burst < 1 or interval > 2 ** 62 // burst:
            raise ValueError(f"no rate: {interval} ns, {burst} at once")
        shared_lock_take(&self.memory.lock)
        if rate.interval != interval or rate.burst != burst:
            rate.full_at = 0
            rate.burst = burst
            store_int64(rate.interval, interval)
        shared_lock_release(&self.memory.lock)

    def limiter(self, numbers):
        """Of what goes by all of these rates: RateLimiter. ValueError: one has no such number, or there are more than 4."""
        cdef RateLimiter limiter = RateLimiter.__new__(RateLimiter)
        for number in numbers:
            if limiter.count == MOST:
                raise ValueError(f"more than {MOST} rates")
            limiter.rates[limiter.count] = self.rate(number)
            limiter.count += 1
        limiter.limits = self
        return limiter


@cython.final
cdef class RateLimiter:
    """Made by `RateLimits.limiter`."""

    cdef RateLimits limits
    cdef Rate *rates[MOST]
    cdef int count

    @property
    def limited(self):
        """Whether any of the rates is a limit: bool."""
        return self.is_limited()

    @property
    def in_force(self):
        """The rates as they are now: a tuple of (interval, burst)."""
        cdef list found = []
        cdef Rate rate
        for place in range(self.count):
            shared_lock_take(&self.limits.memory.lock)
            rate = self.rates[place][0]
            shared_lock_release(&self.limits.memory.lock)
            found.append((rate.interval, rate.burst))
        return tuple(found)

    cdef bint is_limited(self) noexcept nogil:
        cdef int place
        for place in range(self.count):
            if load_int64(self.rates[place].interval):
                return True
        return False

    def take(self, patience=None, now=None):
        """Take the next turn by all of the rates. Returns how many seconds there are until then: float; None: there are some, and
        more than `patience`, so it was not taken. now: nanoseconds on the monotonic clock; None: now."""
        if not self.is_limited():
            return 0.0
        cdef int64_t moment = monotonic_ns() if now is None else now
        cdef bint patient = patience is None
        cdef double most = 0.0 if patient else patience
        cdef int64_t wait = 0
        cdef bint taken
        cdef int place
        cdef Rate *rate
        shared_lock_take(&self.limits.memory.lock)
        for place in range(self.count):
            rate = self.rates[place]
            wait = max(wait, max(rate.full_at, moment) - moment - rate.interval * (rate.burst - 1))
        taken = patient or wait == 0 or wait / 1e9 <= most
        if taken:
            for place in range(self.count):
                rate = self.rates[place]
                rate.full_at = min(max(rate.full_at, moment), LATEST - rate.interval) + rate.interval
        shared_lock_release(&self.limits.memory.lock)
        return wait / 1e9 if taken else None
