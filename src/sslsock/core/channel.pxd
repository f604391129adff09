from libc.stdint cimport uint32_t

from sslsock.core.engine cimport Engine
from sslsock.core.loop cimport Watcher
from sslsock.core.schedule cimport Timer
from window_bio cimport byte_queue


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


cdef class Channel(Watcher):
    cdef object consumer  # None once it has been told the end
    cdef readonly Engine engine
    cdef channel_phase phase
    cdef tls_phase tls
    cdef Timer deadline  # of the handshake, or of lingering
    cdef object verify_handler
    cdef object __weakref__

    # incoming
    cdef const char *lent  # this event's plaintext, still in the loop's scratch
    cdef size_t lent_left
    cdef byte_queue kept  # plaintext that nobody has read yet; comes before `lent`
    cdef size_t bound
    cdef bint drained  # the kernel has nothing until the next edge
    cdef bint hang_up  # the peer's FIN or an error has been announced: reading goes on until it is met
    cdef bint urgent  # there has been urgent data, at which a read stops short of what lies behind it
    cdef bint input_ended  # the consumer has been told so
    cdef bint fin  # the kernel has said so
    cdef bint engine_ready  # the engine has work without new ciphertext
    cdef bint bulk  # the last receive was large: worth giving the GIL away

    # outgoing
    cdef list queue  # of bytes
    cdef Py_ssize_t queue_index
    cdef size_t queue_offset  # in the first of them
    cdef size_t queued
    cdef byte_queue raw  # made for the wire and not taken by the kernel yet; goes before the queue
    cdef size_t raw_plain  # plaintext that `raw` stands for
    cdef size_t answered  # of `raw`, in bytes, at the most: answers of libssl to what the peer has sent
    cdef size_t written  # plaintext taken by the kernel and not reported
    cdef bint blocked  # the kernel takes no more until the next edge
    cdef int send_error  # errno of a failed send, to be reported when what the peer sent has been read
    cdef public bint hold_writes
    cdef public bint notify_written

    cdef int require(self) except -1
    cdef int require_thread(self) except -1
    # incoming
    cdef void serve(self) noexcept
    cdef void read_on(self) noexcept
    cdef void receive(self) noexcept
    cdef void feed_tls(self, size_t size) noexcept
    cdef void shake(self, Engine engine) noexcept
    cdef void settle(self, Engine engine) noexcept
    cdef void deliver(self, const char *data, size_t size) noexcept
    cdef void keep_lent(self) noexcept
    # reading
    cdef size_t unread(self) noexcept
    cdef size_t line_end(self) noexcept
    cdef size_t limited(self, Py_ssize_t count) noexcept
    cdef void copy_out(self, char *data, size_t size) noexcept
    cdef void consume(self, size_t size) noexcept
    cdef bytes take(self, size_t size)
    cpdef bytes read(self, Py_ssize_t count=*)
    cpdef bytes peek(self, Py_ssize_t count=*)
    cpdef bytes read_line(self, Py_ssize_t count=*)
    cpdef Py_ssize_t read_into(self, buffer) except -1
    # writing
    cpdef Py_ssize_t write(self, data) except -1
    cdef size_t unsent(self) noexcept
    cdef void send_queue(self) noexcept
    cdef bint send_raw(self) noexcept
    cdef bint send_records(self) noexcept
    cdef bint keep_unsent(self, const char *data, size_t size) noexcept
    cdef size_t push_piece(self, Engine engine, size_t room) noexcept
    cdef bint send_pieces(self) noexcept
    cdef size_t front(self, const char **data) noexcept
    cdef size_t join(self, char *memory, size_t room) noexcept
    cdef void advance_queue(self, size_t size) noexcept
    cdef ssize_t send_some(self, const char *data, size_t size, int flags) noexcept
    cdef void block(self) noexcept
    cdef void drop_output(self) noexcept
    cdef void end_event(self) noexcept
    cdef void report_written(self) noexcept
    # the end
    cdef void end_of_input(self, bint clean) noexcept
    cdef void drained_out(self) noexcept
    cdef void notify(self, object consumer) noexcept
    cdef void linger(self) noexcept
    cdef void discard_input(self) noexcept
    cdef void fail_tls(self, Engine engine) noexcept
    cdef void fail_system(self, int number, str doing) noexcept
    cdef void fail(self, int failure, str message) noexcept
    cdef void close_now(self) noexcept
    cdef void set_deadline(self, double seconds, object callback)
    cdef void cancel_deadline(self) noexcept
