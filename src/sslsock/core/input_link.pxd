from flag cimport flag
from sslsock.core.input_buffer cimport input_buffer
from sslsock.core.output_link cimport OutputLink


cdef class InputLink(OutputLink):
    cdef input_buffer input
    cdef bytes arriving  # in which what is lent lies; None: it lies in the scratch
    cdef size_t bound
    cdef flag is_halted  # the consumer wants nothing more
    cdef flag lends  # the consumer lends memory

    # what the channel makes of it
    cdef void read_on(self) noexcept
    # what is there
    cdef size_t unread(self) noexcept
    cdef size_t line_end(self) noexcept
    cdef size_t limited(self, Py_ssize_t count) noexcept
    cdef void consume(self, size_t size) noexcept
    # reading
    cdef bytes take(self, size_t size)
    cpdef bytes read(self, Py_ssize_t count=*)
    cpdef bytes peek(self, Py_ssize_t count=*)
    cpdef bytes read_line(self, Py_ssize_t count=*)
    cpdef Py_ssize_t read_into(self, buffer) except -1
    # how much is received
    cdef void halt(self, bint halted) noexcept
    cdef void lend_room(self, bint lends) noexcept
