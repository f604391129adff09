from flag cimport flag
from sslsock.core.bare_engine cimport BareEngine
from sslsock.core.consumer cimport ReportingLink
from sslsock.core.output_queue cimport OutputQueue


cdef enum channel_phase:
    PHASE_NEW  # no descriptor yet; writes are queued
    PHASE_OPEN
    PHASE_FINISHING  # finish(): what is queued goes out, then close_notify; what comes in is thrown away
    PHASE_LINGERING  # all is out; waits for the peer's end, because closing over unread bytes would reset the connection
    PHASE_CLOSED


cdef enum tls_phase:
    TLS_NONE
    TLS_SHAKING
    TLS_OPEN


cdef class OutputLink(ReportingLink):
    cdef channel_phase phase
    cdef tls_phase tls

    cdef OutputQueue queue  # goes behind `out`; None: it is empty
    cdef size_t out_plain  # plaintext that `out` stands for
    cdef size_t written  # plaintext taken by the kernel and not reported
    cdef public flag hold_writes
    cdef flag ends_output  # after the queue close_notify goes out, if there is TLS
    cdef flag output_over  # nothing can be written any more, though the channel is open

    # writing
    cpdef Py_ssize_t write(self, data) except -1
    cdef size_t queued(self) noexcept
    cdef size_t unsent(self) noexcept
    cdef void end_event(self) noexcept
    cdef void report_written(self) noexcept
    # sending
    cdef void send_queue(self) noexcept
    cdef void send_some(self) noexcept
    cdef bint all_sent(self) noexcept
    cdef bint send_out(self) noexcept
    cdef bint send_records(self) noexcept
    cdef size_t push_piece(self, BareEngine engine, size_t room) noexcept
    cdef bint send_pieces(self) noexcept
    cdef void drop_output(self) noexcept
    # what the channel makes of it
    cdef void drained_out(self) noexcept
    cdef void send_failed(self) noexcept
    cdef void fail_link(self) noexcept
