"""The incoming half of a channel: plaintext that has come, and how a program reads it.

What is new still lies in the loop's scratch, or in a `bytes` of its own, which is given to the consumer that takes all of it; only what
the consumer leaves is kept (input_buffer.pyx). How much is received goes by what is left unread (`read_bound`), or by what the
consumer says (`halt`).
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE, PyBytes_GET_SIZE

from sslsock.core.input_buffer cimport input_clear, input_consume, input_copy, input_find, input_line, input_size
from sslsock.core.output_link cimport OutputLink


cdef class InputLink(OutputLink):
    """Base of Channel."""

    def __dealloc__(self):
        input_clear(&self.input)

    cdef void read_on(self) noexcept:
        """Read again in the next turn if there is something that no edge will announce, and room for it."""

    # what is there

    @property
    def bytes_available(self):
        """Plaintext that can be read now, in bytes: int."""
        self.loop.require_here()
        return self.unread()

    @property
    def can_read_line(self):
        """Whether a whole line can be read: bool."""
        self.loop.require_here()
        return self.line_end() > 0

    @property
    def taken(self):
        """Bytes that have been read or thrown away so far, which is where in the stream the next one stands: int."""
        return self.input.taken

    def find(self, bytes wanted not None, size_t start):
        """Where the bytes, one at least, begin among what can be read, `start` bytes from its beginning or later: int, -1 where
        they are not."""
        self.loop.require_thread()
        return input_find(&self.input, PyBytes_AS_STRING(wanted), PyBytes_GET_SIZE(wanted), start)

    @property
    def read_bound(self):
        """Most plaintext bytes kept unread, 0 for no bound: int. At the bound nothing is received, but an error of the connection
        is told."""
        return self.bound

    @read_bound.setter
    def read_bound(self, size_t bound):
        self.loop.require_thread()
        self.bound = bound
        if self.hang_up:
            self.plan_again()
        self.read_on()

    @property
    def halted(self):
        """Deliver nothing, and receive nothing, until it is False again: then from the next turn on. A handshake goes on, and an error of
        the connection is told."""
        return self.is_halted

    @halted.setter
    def halted(self, bint halted):
        self.loop.require_thread()
        self.halt(halted)

    @cython.final
    cdef size_t unread(self) noexcept:
        return input_size(&self.input)

    @cython.final
    cdef size_t line_end(self) noexcept:
        return input_line(&self.input)

    @cython.final
    cdef size_t limited(self, Py_ssize_t count) noexcept:
        """Of what can be read, `count` bytes at the most; negative: all."""
        cdef size_t size = input_size(&self.input)
        return size if count < 0 or <size_t> count > size else <size_t> count

    @cython.final
    cdef void consume(self, size_t size) noexcept:
        input_consume(&self.input, size)
        if self.bound:
            self.read_on()

    @cython.final
    cdef bytes take(self, size_t size):
        cdef bytes data = self.arriving
        if size == 0:
            return b""
        if data is not None and self.input.kept.size == 0 and self.input.lent_left == size \
                and self.input.lent == PyBytes_AS_STRING(data) and <size_t> PyBytes_GET_SIZE(data) == size:
            self.consume(size)
            return data
        data = PyBytes_FromStringAndSize(NULL, size)
        input_copy(&self.input, PyBytes_AS_STRING(data), size)
        self.consume(size)
        return data

    cpdef bytes read(self, Py_ssize_t count=-1):
        """Up to `count` bytes of what is there, all of it by default: bytes, empty when there is nothing."""
        self.loop.require_thread()
        return self.take(self.limited(count))

    cpdef bytes peek(self, Py_ssize_t count=-1):
        """Like `read`, but nothing is taken away."""
        cdef size_t size
        cdef bytes data
        self.loop.require_thread()
        size = self.limited(count)
        data = PyBytes_FromStringAndSize(NULL, size)
        if size:
            input_copy(&self.input, PyBytes_AS_STRING(data), size)
        return data

    cpdef bytes read_line(self, Py_ssize_t count=-1):
        """Up to and with the first newline, or what there is; `count` bytes at the most."""
        cdef size_t size, line
        self.loop.require_thread()
        size, line = self.limited(count), self.line_end()
        return self.take(min(size, line) if line else size)

    cpdef Py_ssize_t read_into(self, buffer) except -1:
        """Fill `buffer` (writable) with what is there. Returns the number of bytes: int."""
        cdef Py_buffer view
        cdef size_t size
        self.loop.require_thread()
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        try:
            # Getting a buffer and giving it back may run code of the caller's (PEP 688), which may read here itself.
            size = self.limited(view.len)
            input_copy(&self.input, <char *> view.buf, size)
            self.consume(size)
        finally:
            PyBuffer_Release(&view)
        return size

    def discard(self):
        """Throw away what was received and not read."""
        self.loop.require_thread()
        input_clear(&self.input)
        if self.bound:
            self.read_on()

    # how much is received

    @cython.final
    cdef void halt(self, bint halted) noexcept:
        self.is_halted = halted
        if not halted:
            self.read_on()
            if self.hang_up:
                self.plan_again()

    @cython.final
    cdef void lend_room(self, bint lends) noexcept:
        """Have what comes put where the consumer, one in C, says (`on_room`), in place of `_on_readable`."""
        self.lends = lends and self.in_c
