from libc.stdint cimport uint32_t

from flag cimport flag
from sslsock.core.bare_engine cimport BareEngine
from sslsock.core.reactor cimport Watcher
from window_bio cimport byte_queue


cdef enum failure_kind:
    NO_FAILURE
    PEER_RESET  # the peer reset the connection, or is gone
    NETWORK_FAILED  # any other error of the network
    TIMED_OUT  # the system gave up waiting for the peer
    NO_MEMORY  # nor buffers
    TLS_FAILED  # `engine.failure()` says why


cdef struct link_failure:
    failure_kind kind
    int number  # errno, 0 with TLS_FAILED
    bint sending  # what failed was a send


cdef enum:
    # bytes of answers that a peer does not take: it is not read then
    ANSWERS_SIZE = 32 * 1024
    # bytes of input that are thrown away while the peer's end is awaited, before the connection is reset
    INPUT_AFTER_END = 16 * 1024 * 1024
    INPUT_AFTER_FAILURE = 64 * 1024


cdef failure_kind kind_of(int number) noexcept nogil


cdef class Link(Watcher):
    cdef readonly BareEngine engine  # None: no TLS
    cdef link_failure failure  # the first
    cdef flag resets  # closing resets the connection
    cdef flag dead  # the failure is not only TLS's: nothing can be sent any more

    # incoming
    cdef flag drained  # the kernel has nothing until the next edge
    cdef flag hang_up  # the peer's FIN or an error has been announced: reading goes on until it is met
    cdef flag suspect  # an error has been announced, and nobody has looked for it
    cdef flag urgent  # there has been urgent data, at which a read stops short of what lies behind it
    cdef flag fin  # nothing more comes
    cdef flag engine_ready  # the engine has work without new ciphertext

    # outgoing
    cdef flag blocked  # the kernel takes no more until the next edge
    cdef byte_queue out  # made for the wire and not taken by the kernel yet
    cdef size_t answered  # of `out`, in bytes, at the most: what libssl has answered to what the peer has sent

    # the end
    cdef size_t discarded  # bytes of input thrown away since output last left

    # events
    cdef void note_events(self, uint32_t events) noexcept nogil
    # incoming
    cdef size_t take_in(self, char *memory, size_t room) noexcept nogil
    cdef bint look_for_error(self) noexcept nogil
    cdef void look_for_end(self) noexcept nogil
    cdef int decrypt(self, size_t size, char *plain, size_t room, size_t *got) noexcept nogil
    # outgoing
    cdef bint keep_output(self) noexcept nogil
    cdef size_t give(self, const char *data, size_t size, int flags) noexcept nogil
    cdef void put(self, const char *data, size_t size, int flags) noexcept nogil
    cdef void put_output(self, char *memory, size_t before, int flags) noexcept nogil
    cdef size_t flush_out(self) noexcept nogil
    # the end
    cdef void fail_with(self, failure_kind kind, int number, bint sending) noexcept nogil
    cdef bint throw_away(self, size_t most) noexcept nogil
    cdef void half_close(self) noexcept
    cdef void close_descriptor(self) noexcept
    # another takes over
    cdef void move_to(self, Link heir) noexcept
