"""What stands before a listener: it refuses connections as soon as they are accepted, by where they come from.

A refusal is an accept, a look into the tables, and a reset. No object is made for it.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

cimport source_table as c
cimport system
from sslsock.core.network_list cimport NetworkList
from sslsock.core.source_limits cimport SourceLimits
from system cimport sockaddr


@cython.final
cdef class Door:
    """Of one listener, in the thread of its loop.

    networks: NetworkList of those who are let in, None for all. limits: SourceLimits, or None. shakes: whether connections begin
    with a handshake.
    """

    def __cinit__(self, NetworkList networks=None, SourceLimits limits=None, bint shakes=False):
        if system.pthread_mutex_init(&self.lock, NULL):
            raise MemoryError
        self.follow(networks, limits, shakes)

    def __dealloc__(self):
        system.pthread_mutex_destroy(&self.lock)

    def follow(self, NetworkList networks, SourceLimits limits, bint shakes):
        """Go by these from now on. What was counted stays."""
        self.networks = networks
        self.limits = limits
        self.shakes = shakes

    cdef c.source_verdict admit(self, const sockaddr *peer, c.source_address *source, bint *counted) noexcept:
        """Whether a connection may stay. source: becomes what it is counted as, if it is `counted`."""
        cdef c.source_verdict verdict = c.SOURCE_ADMITTED
        cdef c.source_address address
        cdef bint limited = self.limits is not None and self.limits.is_active()
        counted[0] = False
        if (self.networks is None and not limited) or not c.source_address_of(source, peer):
            return verdict
        address = source[0]
        if self.networks is not None and not self.networks.holds_address(source):
            verdict = c.SOURCE_DENIED
        elif limited:
            verdict = self.limits.enter_address(source, self.shakes)
            counted[0] = verdict == c.SOURCE_ADMITTED
        if verdict != c.SOURCE_ADMITTED:
            self.note(verdict, &address)
        return verdict

    cdef void note(self, int verdict, const c.source_address *address) noexcept nogil:
        system.pthread_mutex_lock(&self.lock)
        self.latest[verdict] = address[0]
        self.refusals[verdict] += 1
        system.pthread_mutex_unlock(&self.lock)

    def refused(self):
        """How many connections were refused, and the address of the last one: a tuple of (verdict, count, 16 bytes) for each
        verdict that there was. From any thread: numbers that only grow."""
        cdef uint64_t[VERDICTS] counts
        cdef c.source_address[VERDICTS] addresses
        system.pthread_mutex_lock(&self.lock)
        memcpy(counts, self.refusals, sizeof(counts))
        memcpy(addresses, self.latest, sizeof(addresses))
        system.pthread_mutex_unlock(&self.lock)
        return tuple([
            (verdict, counts[verdict], PyBytes_FromStringAndSize(<char *> addresses[verdict].bytes, 16))
            for verdict in range(VERDICTS) if counts[verdict]
        ])
