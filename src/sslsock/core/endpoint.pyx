# cython: nonecheck=True
"""An endpoint: the half of a socket's face that is used for every event.

Owns the way from the program to the channel, and nothing else: `_source` and `_sink` are the channel where reading or
writing is allowed now, else None, so that each byte's way asks one question. State, handlers that are called once a
connection and all decisions stay with the classes in `sslsock.sockets` that derive from this one. It is here and not there
because these few methods are a quarter of what a small request costs when Python runs them.

A method that goes on in the channel holds it in a variable of its own: what runs inside (the garbage collector, a
`__buffer__`, a host loop's `call_soon`) may abort the socket, which lets go of the channel. An object whose class has not called `__init__` has no loop:
that is an exception (`nonecheck`), as everything in Python is.
"""

cimport cython
from cpython.bytes cimport PyBytes_CheckExact

from sslsock.core.channel cimport Channel


cdef class Endpoint:
    """What is read from and written to. Base of `sslsock.Stream`."""

    # Reading

    @property
    def bytes_available(self):
        """Bytes that can be read now: int."""
        cdef Channel source
        self._loop.meet_host()
        with cython.critical_section(self):  # other threads may ask too
            source = self._source
        return source.unread() if source is not None else 0

    @property
    def can_read_line(self):
        """A whole line is in the buffer: bool."""
        self._loop.require_here()
        self._loop.meet_host()
        return self._source is not None and self._source.line_end() > 0

    def read(self, max=None):
        """Take at most `max` bytes (None: all there are): bytes, empty when there are none."""
        self._loop.require_here()  # the channel is the loop's, and gone when its thread says so
        cdef Channel source = self._source
        if source is None:
            self._check_thread()
            return b""
        return source.read(-1 if max is None else max)

    def read_all(self):
        """Take all bytes that are there: bytes."""
        self._loop.require_here()  # the channel is the loop's, and gone when its thread says so
        cdef Channel source = self._source
        if source is None:
            self._check_thread()
            return b""
        return source.read(-1)

    def peek(self, max=None):
        """Like `read`, but everything stays to be read: bytes."""
        self._loop.require_here()  # the channel is the loop's, and gone when its thread says so
        cdef Channel source = self._source
        if source is None:
            self._check_thread()
            return b""
        return source.peek(-1 if max is None else max)

    def read_line(self, max=None):
        """Take a line, up to and with its line feed, at most `max` bytes. With no complete line: what there is. bytes."""
        self._loop.require_here()  # the channel is the loop's, and gone when its thread says so
        cdef Channel source = self._source
        if source is None:
            self._check_thread()
            return b""
        return source.read_line(-1 if max is None else max)

    def read_into(self, buffer):
        """Fill the caller's writable buffer. Returns the number of bytes: int."""
        self._loop.require_here()  # the channel is the loop's, and gone when its thread says so
        cdef Channel source = self._source
        if source is None:
            self._check_thread()
            return 0
        return source.read_into(buffer)

    # Writing

    @property
    def bytes_to_write(self):
        """Bytes accepted by `write` and not yet handed to the system, those that wait for a handshake included: int."""
        cdef Channel channel
        self._loop.meet_host()
        with cython.critical_section(self):  # other threads may ask too
            channel = self._channel
        return channel.unsent() if channel is not None else 0

    def write(self, data):
        """Write all of a bytes-like object: returns its length in bytes. Before the connection stands it is queued. -1, with
        OPERATION_ERROR, when the socket is not open for writing, not connected or closing. TypeError for anything that is
        not bytes-like."""
        self._loop.require_here()
        cdef Channel sink = self._sink
        if sink is not None and not PyBytes_CheckExact(data):
            data = memoryview(data).tobytes()  # Python code may run here, and end the connection
            sink = self._sink
        return self._refuse_write(data) if sink is None else sink.write(data)

    @property
    def _bytes_written_handler(self):
        """The handler; without one the channel does not count for it."""
        return self._written_handler

    @_bytes_written_handler.setter
    def _bytes_written_handler(self, handler):
        self._written_handler = handler
        self._count_written()

    # What the channel tells

    def _on_readable(self):
        if self._source is None:
            self._drop_input()
        else:
            if self._ready_read_handler is not None:
                self._ready_read_handler(self)
            if self._waits is not None:
                self._ask_waits()

    def _on_written(self, count):
        if self._written_handler is not None:
            self._written_handler(self, count)
        if self._waits is not None:
            self._ask_waits()

    # For the classes that derive from this one

    def _count_written(self):
        """Have the channel tell what has been sent, if somebody wants to know."""
        if self._channel is not None:
            self._channel.notify_written = self._written_handler is not None or self._awaits_written()

    def _awaits_written(self):
        """Whether a task waits for what is written to be sent."""
        return False

    def _ask_waits(self):
        """Something has happened that tasks may wait for."""

    def _check_thread(self):
        """RuntimeError in a foreign thread. A closed loop is no reason: what has been received stays readable."""
        self._loop.require_thread()

    def _refuse_write(self, data):
        """`write` where that is not allowed: -1. Who derives says why."""
        memoryview(data)  # TypeError for what is no buffer, as ever
        self._loop.require()
        return -1

    def _drop_input(self):
        """Nobody may read, and data has come."""
        if self._channel is not None:
            self._channel.discard()
