from flag cimport flag
from sslsock.core.link cimport Link


cdef enum channel_failure_kind:
    # Why a channel failed: FAILURE_* of channel.pyi, by the same numbers.
    FAILED_RESET
    FAILED_NETWORK
    FAILED_TIMEOUT
    FAILED_HANDSHAKE
    FAILED_HANDSHAKE_TIMEOUT
    FAILED_HANDSHAKE_CLOSED
    FAILED_TLS
    FAILED_RESOURCE


cdef struct channel_failure:
    channel_failure_kind kind
    int number  # errno, 0 where it was not the system
    bint sending  # what failed was a send
    unsigned long code  # OpenSSL's, 0 where it has none
    long verify_result  # what verification has found, X509_V_OK


cdef class ChannelConsumer:
    cdef void _on_readable(self) noexcept
    cdef char *on_room(self, size_t *room) noexcept
    cdef void on_filled(self, size_t size) noexcept
    cdef void _on_written(self, size_t count) noexcept
    cdef void _on_encrypted(self) noexcept
    cdef void _on_session(self, object session) noexcept
    cdef void _on_certificate(self) noexcept
    cdef void _on_peer_closed(self, bint clean) noexcept
    cdef void on_output_ended(self) noexcept
    cdef void _on_drained(self) noexcept
    cdef void _on_failed(self, const channel_failure *failure) noexcept


cdef class ReportingLink(Link):
    cdef object consumer  # None once it has been told the end
    cdef flag in_c  # it is a ChannelConsumer
    cdef public flag notify_written, notify_sessions

    cdef void report_to(self, object consumer) noexcept
    cdef void tell_readable(self, object consumer) noexcept
    cdef void tell_written(self, object consumer, size_t count) noexcept
    cdef void tell_encrypted(self, object consumer) noexcept
    cdef void tell_session(self, object consumer, object session) noexcept
    cdef void tell_certificate(self, object consumer) noexcept
    cdef void tell_peer_closed(self, object consumer, bint clean) noexcept
    cdef void tell_output_ended(self, object consumer) noexcept
    cdef void tell_drained(self, object consumer) noexcept
    cdef void tell_failed(self, object consumer, channel_failure_kind kind, str message) noexcept
    cdef void tell(self, object consumer, str method, tuple args) noexcept
