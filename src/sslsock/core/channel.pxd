from sslsock.core.bare_engine cimport BareEngine
from sslsock.core.input_buffer cimport input_buffer
from sslsock.core.link cimport Link
from sslsock.core.output_link cimport OutputLink
from sslsock.core.schedule cimport Timer
from window_bio cimport byte_queue


cdef class Channel(OutputLink):
    cdef object consumer  # None once it has been told the end
    cdef Timer deadline  # of the handshake, or of lingering
    cdef object verify_handler
    cdef object key_handler
    cdef object __weakref__

    # incoming
    cdef input_buffer input
    cdef size_t bound
    cdef bint input_ended  # the consumer has been told so
    cdef public bint notify_sessions
    cdef bint bulk  # the last receive was large: worth giving the GIL away

    # outgoing
    cdef public bint notify_written

    # the end
    cdef size_t most_input  # bytes thrown away after `finish`, and while lingering

    cdef int require(self) except -1
    cdef int require_thread(self) except -1
    # incoming
    cdef void serve(self) noexcept
    cdef bint paused(self) noexcept
    cdef void read_on(self) noexcept
    cdef void receive(self) noexcept
    cdef void meet_end(self) noexcept
    cdef void feed_tls(self, size_t size) noexcept
    cdef void shake(self, BareEngine engine, size_t size) noexcept
    cdef list settle(self, BareEngine engine) noexcept
    cdef void deliver_sessions(self, list sessions, size_t size) noexcept
    cdef void tell_sessions(self, list sessions) noexcept
    cdef object ask(self, object handler, str name, object said)
    cdef void forget_handlers(self, BareEngine engine) noexcept
    cdef void deliver(self, const char *data, size_t size) noexcept
    cdef void keep_lent(self) noexcept
    # reading
    cdef size_t unread(self) noexcept
    cdef size_t line_end(self) noexcept
    cdef size_t limited(self, Py_ssize_t count) noexcept
    cdef void consume(self, size_t size) noexcept
    cdef bytes take(self, size_t size)
    cpdef bytes read(self, Py_ssize_t count=*)
    cpdef bytes peek(self, Py_ssize_t count=*)
    cpdef bytes read_line(self, Py_ssize_t count=*)
    cpdef Py_ssize_t read_into(self, buffer) except -1
    # writing
    cpdef Py_ssize_t write(self, data) except -1
    cdef size_t unsent(self) noexcept
    cdef void end_event(self) noexcept
    cdef void report_written(self) noexcept
    # the end
    cdef object release(self, Link heir, byte_queue *unread, bint *ended)
    cdef void end_of_input(self, bint clean) noexcept
    cdef void notify(self, object consumer) noexcept
    cdef void linger(self, size_t most_input) noexcept
    cdef void discard_input(self) noexcept
    cdef void fail_link(self) noexcept
    cdef tuple failure_told(self)
    cdef void fail(self, int failure, str message, size_t most_input) noexcept
    cdef void close_now(self) noexcept
    cdef void set_deadline(self, double seconds, object callback)
    cdef void cancel_deadline(self) noexcept
