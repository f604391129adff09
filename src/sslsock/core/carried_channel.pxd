from sslsock.core.channel cimport Channel
from window_bio cimport byte_queue


cdef class CarriedChannel(Channel):
    cdef object carrier  # the transport beneath; None once it was let go of
    cdef byte_queue arrived  # what it has brought and nobody has read
    cdef bint held  # it was told to bring no more
    cdef bint full  # it has told to be given no more
    cdef bint gone  # its connection is lost
    cdef readonly object loss  # the exception with which it was lost, or that its `write` has raised
    cdef bint in_order  # it is to be closed, not aborted

    cdef int carry(self, object carrier, bint full) except -1
    cdef int bring(self, object data) except -1
    cdef void hold(self, bint held) noexcept
    cdef void hand_down(self, const char *data, size_t size) noexcept
    cdef void fail_by(self, object exc, bint sending) noexcept
