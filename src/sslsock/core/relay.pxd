from libc.stdint cimport int64_t, uint32_t, uint64_t

from sslsock.core.channel cimport Channel
from sslsock.core.engine cimport Engine
from sslsock.core.loop cimport Loop, Watcher
from sslsock.core.schedule cimport Timer
from window_bio cimport byte_queue


cdef class RelaySide(Watcher):
    cdef ChannelRelay relay  # this and `peer` are cycles, cut when the relay is over
    cdef RelaySide peer
    cdef Engine engine
    cdef bint tls

    # incoming
    cdef uint64_t received  # plaintext, in bytes
    cdef bint drained  # the kernel has nothing until the next edge
    cdef bint hang_up  # the peer's FIN, an error or urgent data has been announced: a short read is not the last
    cdef bint engine_ready  # the engine has work without new ciphertext
    cdef bint fin  # the kernel has said that nothing more comes
    cdef bint input_ended  # the last byte has been passed on
    cdef bint truncated  # without close_notify

    # outgoing
    cdef byte_queue out  # made for the wire and not taken by the kernel yet
    cdef bint blocked  # the kernel takes no more until the next edge
    cdef bint ending  # nothing will be added to `out`
    cdef bint ended  # all of it is out, and the end of the stream too
    cdef size_t answered  # of `out`, in bytes: answers of libssl to what the peer has sent
    cdef bint failed  # a system call has failed: nothing can be sent any more
    cdef int error  # errno of that

    cdef int watch(self, object end) except -1
    cdef int unwatch(self, object end) except -1
    cdef int take_channel(self, Channel channel) except -1
    cdef int take_queue(self, Channel channel) except -1
    cdef void work(self) noexcept nogil
    cdef bint readable(self) noexcept nogil
    cdef void pump(self) noexcept nogil
    cdef void receive(self) noexcept nogil
    cdef size_t take_in(self, char *memory, size_t room) noexcept nogil
    cdef void pass_on(self, size_t size) noexcept nogil
    cdef void answer(self) noexcept nogil
    cdef void end_input(self, bint clean) noexcept nogil
    cdef void send_on(self, const char *data, size_t size, bint last) noexcept nogil
    cdef void put(self, const char *data, size_t size, bint last) noexcept nogil
    cdef size_t give(self, const char *data, size_t size, int flags) noexcept nogil
    cdef void flush_out(self) noexcept nogil
    cdef void end_output(self) noexcept nogil
    cdef void fail_output(self, int number) noexcept nogil
    cdef bint wind_up(self) noexcept nogil
    cdef void close_now(self) noexcept


cdef class ChannelRelay:
    cdef readonly Loop loop
    cdef object observer
    cdef RelaySide front, back
    cdef Timer timer
    cdef double idle_limit
    cdef int64_t started, finished, active  # nanoseconds of CLOCK_MONOTONIC
    cdef int reason  # -1 while nothing is wrong
    cdef bint culprit_back  # which side the error came from
    cdef int error
    cdef bint broken  # an error: what is on its way is delivered, nothing is read any more
    cdef bint lingering  # the deadline for that runs
    cdef bint over
    cdef object __weakref__

    cdef void break_off(self, int reason, RelaySide culprit, int error) noexcept nogil
    cdef void finish(self, int reason) noexcept nogil
    cdef void report(self) noexcept
    cdef void bury(self) noexcept
    cdef void cut(self) noexcept
    cdef void pass_unread(self, object end, RelaySide to, RelaySide source) noexcept
    cdef void watch_idle(self, double seconds) noexcept
