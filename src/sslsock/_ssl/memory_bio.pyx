"""`MemoryBIO`: ciphertext that a program carries between an `SSLObject` and whatever it speaks through.

Its memory is a byte queue, which a connection takes over for a call and gives back (ssl_connection.pyx): libssl reads and
writes it in place. All in its critical section: several threads may use one.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.limits cimport INT_MAX

from window_bio cimport byte_queue_append, byte_queue_clear, byte_queue_consume, byte_queue_front

from sslsock._ssl.ssl_error import SSLError


@cython.final
cdef class MemoryBIO:
    """MemoryBIO()
--

    A buffer in memory, for `SSLContext.wrap_bio`."""

    def __cinit__(self):
        pass

    def __dealloc__(self):
        byte_queue_clear(&self.queue)

    def __repr__(self):
        return f"<{type(self).__name__} pending={self.pending} eof={self.eof}>"

    @property
    @cython.critical_section
    def pending(self):
        """The number of bytes pending in the memory BIO."""
        return self.queue.size

    @property
    @cython.critical_section
    def eof(self):
        """Whether the memory BIO is at EOF."""
        return self.eof_written and self.queue.size == 0

    @cython.critical_section
    def read(self, int size=-1, /):
        """Read up to size bytes from the memory BIO.

        If size is not specified, read the entire buffer.
        If the return value is an empty bytes instance, this means either
        EOF or that no data is available. Use the "eof" property to
        distinguish between the two.
        """
        cdef size_t count = self.queue.size
        if size >= 0 and <size_t> size < count:
            count = size
        data = PyBytes_FromStringAndSize(byte_queue_front(&self.queue) if count else NULL, count)
        if count:
            byte_queue_consume(&self.queue, count)
            self.framed = 0
        return data

    def write(self, b, /):
        """Writes the bytes b into the memory BIO.

        Returns the number of bytes written.
        """
        cdef Py_buffer view
        cdef bint kept
        PyObject_GetBuffer(b, &view, PyBUF_SIMPLE)
        try:
            if view.len > INT_MAX:
                raise OverflowError(f"string longer than {INT_MAX} bytes")
            with cython.critical_section(self):
                if self.eof_written:
                    raise SSLError("cannot write() after write_eof()")
                kept = byte_queue_append(&self.queue, <const char *> view.buf, view.len)
            if not kept:
                raise MemoryError
            return view.len
        finally:
            PyBuffer_Release(&view)

    @cython.critical_section
    def write_eof(self):
        """Write an EOF marker to the memory BIO.

        When all data has been read, the "eof" property will be True.
        """
        self.eof_written = True
