from sslsock.core.bare_engine cimport BareEngine
from window_bio cimport byte_queue


cdef class ForeignEngine(BareEngine):
    cdef readonly object tls_object
    cdef object incoming, outgoing  # the MemoryBIOs it reads from and writes to
    cdef object connection  # whose methods are called: `tls_object`, or what that hands them on to
    cdef bint exact  # it tells truly what it has left to read
    cdef bint server_side
    cdef bint more  # there may be something to read without new ciphertext
    cdef object error  # what it has raised, for good
    cdef list unsent  # plaintext that it takes only when more has come (bytes, as it was offered)
    cdef byte_queue plain  # plaintext that was taken out of it before close_notify

    cdef int feed(self) except -1
    cdef object offered(self, const char *data, size_t size)
    cdef int collect(self) except -1
    cdef int fail_by(self, object exc) noexcept
    cdef int step(self) noexcept
    cdef int read_records(self, char *data, size_t capacity, size_t *got) except -1
    cdef Py_ssize_t read_some(self, char *data, size_t capacity) except -2
    cdef bint holds_input(self) except -1
    cdef int write_all(self, const char *data, size_t size) except -1
    cdef bint write_piece(self, const char *data, size_t size) except -1
    cdef int send_again(self) except -1
    cdef int say_end(self) except -1
