from libc.stdint cimport int64_t, uint64_t

from flag cimport flag
from sslsock.core.channel cimport Channel
from sslsock.core.link cimport Link
from sslsock.core.loop cimport Loop
from sslsock.core.reactor cimport nogil_nodes
from sslsock.core.schedule cimport Timer
from window_bio cimport byte_queue


cdef class RelaySide(Link):
    cdef ChannelRelay relay  # this and `peer` are cycles, cut when the relay is over
    cdef RelaySide peer
    cdef nogil_nodes work_nodes

    # incoming
    cdef uint64_t received  # plaintext, in bytes
    cdef flag bulk  # the last receive was full
    cdef flag input_ended  # the last byte has been passed on
    cdef flag truncated  # without close_notify

    # outgoing
    cdef flag ending  # nothing will be added to `out`
    cdef flag ended  # all of it is out, and the end of the stream too
    cdef int queued  # bytes that the kernel had yet to deliver, at the last look of the idle limit

    cdef int watch(self, object end) except -1
    cdef int unwatch(self, object end) except -1
    cdef object take_over(self, Channel channel, byte_queue *unread, bint *ended)
    cdef void work(self) noexcept nogil
    # incoming
    cdef bint readable(self) noexcept nogil
    cdef bint readable_behind(self) noexcept nogil
    cdef bint leaves_more(self) noexcept nogil
    cdef void pump(self) noexcept nogil
    cdef void receive(self) noexcept nogil
    cdef void receive_rest(self) noexcept nogil
    cdef void pass_on(self, size_t size, bint limited) noexcept nogil
    cdef void pass_plain(self, const char *data, size_t size, bint last) noexcept nogil
    cdef void answer(self) noexcept nogil
    cdef void end_input(self, bint clean) noexcept nogil
    cdef void pass_unread(self, byte_queue *unread, bint ended) noexcept
    # outgoing
    cdef void send_on(self, const char *data, size_t size, bint last) noexcept nogil
    cdef void send_waiting(self) noexcept nogil
    cdef void end_output(self) noexcept nogil
    cdef void send_failed(self) noexcept nogil
    cdef bint wind_up(self) noexcept nogil
    cdef bint delivers(self) noexcept
    cdef void close_now(self) noexcept


cdef class ChannelRelay:
    cdef readonly Loop loop
    cdef object observer
    cdef RelaySide front, back
    cdef Timer timer
    cdef double idle_limit, half_closed_limit
    cdef readonly flag half_closed  # one direction has ended, and the limit for that counts
    cdef flag half_close_unseen  # a report has to plan its deadline yet
    cdef int64_t started, finished, active  # nanoseconds of CLOCK_MONOTONIC
    cdef int reason  # -1 while nothing is wrong
    cdef flag culprit_back  # which side the error came from
    cdef flag broken  # an error: what is on its way is delivered
    cdef flag lingering  # the deadline for that runs
    cdef flag over
    cdef object __weakref__

    cdef void break_off(self, RelaySide culprit) noexcept nogil
    cdef void finish(self, int reason) noexcept nogil
    cdef void note_half_closed(self) noexcept nogil
    cdef void report(self) noexcept
    cdef void stop_timer(self) noexcept
    cdef void bury(self) noexcept
    cdef void reset_the_untold(self) noexcept
    cdef void cut(self) noexcept
    cdef void watch_idle(self, double seconds) noexcept
