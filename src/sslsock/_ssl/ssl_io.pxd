from sslsock._ssl.ssl_steps cimport SteppedConnection, outcome
from system cimport pthread_mutex_t, timespec
from window_bio cimport byte_queue


cdef enum operation:
    HANDSHAKE
    READ
    WRITE
    END


cdef struct io_call:  # what one call works under, and on
    int descriptor
    double timeout  # seconds; below 0: no end, 0: do not wait
    timespec until  # with timeout > 0
    int error  # an errno
    char *memory  # that is read into, or written
    size_t size
    size_t got  # bytes read
    bint begun  # a write: it has taken over what an earlier one had begun
    size_t written  # bytes of a write that are on their way


cdef class Connection(SteppedConnection):
    cdef byte_queue unsent  # ciphertext that the system has not taken; follows what `window.spill` held before
    cdef bint exact  # nothing is received beyond the record at hand
    cdef size_t unreported  # bytes of a write that wants to be repeated, which are on their way already

    # Who takes more than one takes them in this order, and `libssl_lock` last.
    cdef pthread_mutex_t reading, writing

    # the socket
    cdef outcome lock(self, pthread_mutex_t *mutex, io_call *call) noexcept nogil
    cdef outcome wait(self, io_call *call, short events) noexcept nogil
    cdef outcome receive(self, io_call *call, char *memory, size_t room, size_t *got) noexcept nogil
    cdef outcome receive_or_send(self, io_call *call) noexcept nogil
    cdef bint readable(self, io_call *call) noexcept nogil
    cdef size_t receive_room(self, io_call *call, size_t asked) noexcept nogil
    cdef bint take_output(self) noexcept nogil
    cdef outcome flush(self, io_call *call) noexcept nogil
    cdef outcome flush_all(self, io_call *call) noexcept nogil
    cdef outcome flush_some(self, io_call *call) noexcept nogil
    cdef void flush_some_held(self, io_call *call) noexcept nogil
    # whole operations
    cdef outcome operate(self, operation what, io_call *call) noexcept nogil
    cdef outcome handshake(self, io_call *call) noexcept nogil
    cdef outcome read_some(self, io_call *call, char *memory, size_t room, size_t *got) noexcept nogil
    cdef void leave_write(self, io_call *call) noexcept nogil
    cdef outcome write_more(self, io_call *call, const char *data, size_t size) noexcept nogil
    cdef outcome write_all(self, io_call *call, const char *data, size_t size) noexcept nogil
    cdef outcome end(self, io_call *call) noexcept nogil
