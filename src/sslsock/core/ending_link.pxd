from flag cimport flag
from sslsock.core.consumer cimport channel_failure_kind
from sslsock.core.input_link cimport InputLink
from sslsock.core.schedule cimport Timer


cdef class EndingLink(InputLink):
    cdef Timer deadline  # of the handshake, or of lingering
    cdef flag certificate_awaited  # of a client that was asked after the handshake
    cdef flag input_ended  # the consumer has been told so
    cdef size_t most_input  # bytes thrown away after `finish`, and while lingering

    # what the channel makes of it
    cdef void forget_handlers(self) noexcept
    cdef void leave_pool(self) noexcept
    # at the program's wish
    cpdef int end_output(self) except -1
    # all is out
    cdef void come_to_end(self) noexcept
    cdef void notify(self, object consumer) noexcept
    cdef void linger(self, size_t most_input) noexcept
    cdef void discard_input(self) noexcept
    # the peer's end
    cdef void meet_end(self) noexcept
    cdef void end_of_input(self, bint clean) noexcept
    # failures
    cdef channel_failure_kind what_failed(self) noexcept
    cdef str failure_in_words(self)
    cdef void fail(self, channel_failure_kind kind, str message, size_t most_input) noexcept
    # closed
    cdef void close_now(self) noexcept
    cdef void set_deadline(self, double seconds, object callback)
    cdef void cancel_deadline(self) noexcept
