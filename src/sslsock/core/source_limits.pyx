"""How many connections each source has and makes, in all threads or processes, and how many it may
(source_table.h).

From any thread: the table has a lock of its own, under which no Python runs.
"""

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy

cimport source_table as c
from sslsock.core.schedule cimport monotonic_ns
from system cimport ENOMEM, errno

# What `enter` and `shake` say, and what a door counts (`door`).
ADMITTED = c.SOURCE_ADMITTED
DENIED = c.SOURCE_DENIED
CONNECTIONS = c.SOURCE_CONNECTIONS
HANDSHAKES = c.SOURCE_HANDSHAKES
CONNECTION_RATE = c.SOURCE_CONNECTION_RATE
HANDSHAKE_RATE = c.SOURCE_HANDSHAKE_RATE
NO_MEMORY = c.SOURCE_NO_MEMORY


cdef int source_in(bytes packed, c.source_address *address) except -1:
    if PyBytes_GET_SIZE(packed) != sizeof(address.bytes):
        raise ValueError("an address of 16 bytes is needed")
    memcpy(address.bytes, PyBytes_AS_STRING(packed), sizeof(address.bytes))
    return 0


cdef c.source_rate rate_of(rate) except *:
    """(interval, burst): nanoseconds a connection, and how many may come at once; interval 0: no limit."""
    cdef c.source_rate made
    cdef object interval, burst
    interval, burst = rate
    if interval < 0 or (interval and burst < 1) or interval * burst > 2 ** 62:
        raise ValueError(f"no rate: {interval} ns, {burst} at once")
    made.interval = interval
    made.tolerance = interval * (burst - 1) if interval else 0
    return made


cdef int raise_from_errno() except -1:
    if errno == ENOMEM:
        raise MemoryError
    raise OSError(errno, os.strerror(errno))


@cython.final
cdef class SourceLimits:
    """size: how many sources are known whose rates are limited; memory for them, 24 bytes each, is taken when there is a rate.

    workers: the processes that are to share it, forked after this one has made it; 0: none, and it is this process's own.
    capacity: of how many sources each process can have connections, summed up over the processes. OSError, MemoryError.
    """

    def __cinit__(self, Py_ssize_t size=65536, Py_ssize_t workers=0, Py_ssize_t capacity=1 << 21):
        cdef bytes secret = os.urandom(16)
        if not 0 < size <= 1 << 28:
            raise ValueError(f"no size of a table: {size}")
        if not 0 <= workers <= 1 << 16:
            raise ValueError(f"no number of workers: {workers}")
        if not 0 < capacity <= 1 << 30:
            raise ValueError(f"no capacity of a table: {capacity}")
        self.workers = <uint32_t> workers
        self.table = c.source_table_new(
            size, <uint32_t> capacity, workers > 0, <const unsigned char *> PyBytes_AS_STRING(secret))
        if self.table is NULL:
            raise_from_errno()

    def __dealloc__(self):
        c.source_table_free(self.table)

    def follow(self, *, connections=0, handshakes=0, connection_rate=(0, 1), handshake_rate=(0, 1), int ipv4_bits=32,
               int ipv6_bits=64):
        """Go by these from now on. connections, handshakes: at once, 0 for no limit. Rates: (nanoseconds for one, how many at once),
        (0, 1) for no limit. ipv4_bits, ipv6_bits: of an address, which make the source. ValueError.

        What is counted stays counted; what is known of a rate is forgotten when it changes.
        """
        cdef c.source_rules rules
        if not (0 < ipv4_bits <= 32 and 0 < ipv6_bits <= 128):
            raise ValueError("no length of a prefix")
        rules.connections = connections
        rules.handshakes = handshakes
        rules.connection_rate = rate_of(connection_rate)
        rules.handshake_rate = rate_of(handshake_rate)
        rules.ipv4_bits = ipv4_bits
        rules.ipv6_bits = ipv6_bits
        with nogil:
            c.source_table_follow(self.table, &rules)

    def join(self, Py_ssize_t number):
        """This process is that worker from now on: what enters is counted as its own. ValueError."""
        self.worker = self.number_of(number)

    def clear(self, Py_ssize_t number):
        """That worker has ended: give back what it had. ValueError."""
        cdef uint32_t worker = self.number_of(number)
        with nogil:
            c.source_table_clear(self.table, worker)

    cdef uint32_t number_of(self, Py_ssize_t number) except? 0xFFFFFFFF:
        if not 0 <= number < self.workers:
            raise ValueError(f"no worker has this number: {number}")
        return <uint32_t> number

    cdef bint is_active(self) noexcept nogil:
        return c.source_table_limited(self.table)

    @property
    def active(self):
        """Whether anything is limited: bool."""
        return self.is_active()

    cdef c.source_verdict enter_address(self, c.source_address *address, bint shakes) noexcept nogil:
        return c.source_table_enter(self.table, self.worker, address, False, shakes, monotonic_ns())

    cdef void leave_address(self, const c.source_address *source, bint shakes) noexcept nogil:
        c.source_table_leave(self.table, self.worker, source, shakes)

    def enter(self, bytes address, bint shakes, now=None, bint exact=False):
        """A connection from an address (16 bytes; IPv4 as in RFC 4291, 2.5.5.2) that begins with a handshake or not. Returns
        (ADMITTED, its source: bytes, for the other methods), or (why not, None): then it is not counted. now: nanoseconds on the
        monotonic clock; None: now. exact: the address is a source as it is."""
        cdef c.source_address source
        cdef int64_t moment = monotonic_ns() if now is None else now
        source_in(address, &source)
        cdef c.source_verdict verdict = c.source_table_enter(self.table, self.worker, &source, exact, shakes, moment)
        if verdict != c.SOURCE_ADMITTED:
            return verdict, None
        return verdict, PyBytes_FromStringAndSize(<char *> source.bytes, sizeof(source.bytes))

    def shake(self, bytes source, now=None):
        """A handshake is about to be made by a source that has entered. Returns ADMITTED or HANDSHAKE_RATE."""
        cdef c.source_address found
        cdef int64_t moment = monotonic_ns() if now is None else now
        source_in(source, &found)
        return c.source_table_shake(self.table, &found, moment)

    def settle(self, bytes source):
        """A connection's handshake is done."""
        cdef c.source_address found
        source_in(source, &found)
        c.source_table_settle(self.table, self.worker, &found)

    def leave(self, bytes source, bint shakes):
        """A connection has ended. shakes: before its handshake was done."""
        cdef c.source_address found
        source_in(source, &found)
        c.source_table_leave(self.table, self.worker, &found, shakes)

    @property
    def present(self):
        """Sources that have a connection: int."""
        return c.source_table_present(self.table)
