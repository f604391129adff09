from libc.stdint cimport uint64_t

from source_table cimport source_address, source_verdict
from sslsock.core.network_list cimport NetworkList
from sslsock.core.source_limits cimport SourceLimits
from system cimport pthread_mutex_t, sockaddr

cdef enum:
    VERDICTS = 7  # SOURCE_VERDICTS


cdef class Door:
    cdef SourceLimits limits
    cdef NetworkList networks
    cdef bint shakes
    cdef pthread_mutex_t lock  # for the two below, which other threads look at
    cdef uint64_t[VERDICTS] refusals
    cdef source_address[VERDICTS] latest

    cdef source_verdict admit(self, const sockaddr *peer, source_address *source, bint *counted) noexcept
    cdef void note(self, int verdict, const source_address *address) noexcept nogil
