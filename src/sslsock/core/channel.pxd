from sslsock.core.bare_engine cimport BareEngine
from sslsock.core.consumer cimport channel_failure_kind
from sslsock.core.input_link cimport InputLink
from sslsock.core.link cimport Link
from sslsock.core.schedule cimport Timer
from window_bio cimport byte_queue


cdef class Channel(InputLink):
    cdef Timer deadline  # of the handshake, or of lingering
    cdef object verify_handler
    cdef object key_handler
    cdef object __weakref__

    # incoming
    cdef bint input_ended  # the consumer has been told so
    cdef bint certificate_awaited  # of a client that was asked after the handshake
    cdef bint bulk  # the last receive was large: worth giving the GIL away

    # the end
    cdef size_t most_input  # bytes thrown away after `finish`, and while lingering

    # incoming
    cdef void serve(self) noexcept
    cdef bint paused(self) noexcept
    cdef void read_on(self) noexcept
    cdef void receive(self) noexcept
    cdef size_t receive_some(self, char *memory, size_t wanted) noexcept
    cdef void fill(self) noexcept
    cdef bint fill_once(self) noexcept
    cdef int decrypt_some(self, char *memory, size_t room, size_t *got) noexcept
    cdef void meet_end(self) noexcept
    cdef void feed_tls(self, size_t size) noexcept
    cdef void shake(self, BareEngine engine, size_t size) noexcept
    cdef list settle(self, BareEngine engine) noexcept
    cdef void deliver_news(self, BareEngine engine, size_t size) noexcept
    cdef void tell_news(self, list sessions) noexcept
    cdef void tell_sessions(self, list sessions) noexcept
    cdef object ask(self, object handler, str name, object said)
    cdef void forget_handlers(self, BareEngine engine) noexcept
    cdef void deliver(self, const char *data, size_t size) noexcept
    cdef void keep_lent(self) noexcept
    # the end
    cpdef int end_output(self) except -1
    cdef object release(self, Link heir, byte_queue *unread, bint *ended)
    cdef void end_of_input(self, bint clean) noexcept
    cdef void come_to_end(self) noexcept
    cdef void notify(self, object consumer) noexcept
    cdef void linger(self, size_t most_input) noexcept
    cdef void discard_input(self) noexcept
    cdef void fail_link(self) noexcept
    cdef channel_failure_kind what_failed(self) noexcept
    cdef str failure_in_words(self)
    cdef void fail(self, channel_failure_kind kind, str message, size_t most_input) noexcept
    cdef void close_now(self) noexcept
    cdef void set_deadline(self, double seconds, object callback)
    cdef void cancel_deadline(self) noexcept
