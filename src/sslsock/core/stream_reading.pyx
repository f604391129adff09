"""How a StreamReader of asyncio is read, in C.

These are functions for `sslsock.aio.StreamReader`, over a `ReaderState`. What is rare (a tuple of separators, a size below 0) and what a
program has derived a class for is asyncio's own code.
"""

import asyncio

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from instance_state cimport attributes, referent
from sslsock.core.awaited_call cimport AwaitedCall, give_slots
from sslsock.core.stream_classes cimport reader_class
from sslsock.core.stream_state cimport ReaderState, exceeds, state_of

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX
    int PySequence_DelSlice(object sequence, Py_ssize_t first, Py_ssize_t last) except -1

cdef extern from "<string.h>" nogil:
    # of the C library, but not of the standard
    char *memmem(const char *where, size_t size, const char *what, size_t what_size)

# asyncio's own, as they are when this is imported.
cdef object original_feed_data = asyncio.StreamReader.feed_data
cdef object original_read = asyncio.StreamReader.read
cdef object original_readexactly = asyncio.StreamReader.readexactly
cdef object original_readline = asyncio.StreamReader.readline
cdef object original_readuntil = asyncio.StreamReader.readuntil
cdef object original_next = asyncio.StreamReader.__anext__


cdef bytes take(object buffer, Py_ssize_t size):
    """The first `size` bytes, of those that there are."""
    cdef bytes taken = PyBytes_FromStringAndSize(PyByteArray_AS_STRING(buffer), size)
    if size == PyByteArray_GET_SIZE(buffer):
        PyByteArray_Resize(buffer, 0)
    else:
        PySequence_DelSlice(buffer, 0, size)
    return taken


# Feeding


def feed_data(self, data):
    """Append `data` to what can be read. As asyncio.StreamReader.feed_data."""
    if type(self) is reader_class and type(data) is bytes:
        state_of(self).feed(data)
    else:
        original_feed_data(self, data)


def data_received(self, data):
    """For the protocol, where the transport does not feed the reader itself. As asyncio.StreamReaderProtocol.data_received."""
    reference = attributes(self)["_stream_reader_wr"]
    if reference is not None:
        reader = referent(reference)
        if reader is not None:
            reader.feed_data(data)


# Reading


@cython.no_gc_clear
cdef class ReaderCall(AwaitedCall):
    """Waits for what comes to a reader, which is `subject`."""

    cdef int check_exception(self, ReaderState state) except -1:
        """Only a call that begins is told, as in asyncio."""
        if not self.tried:
            if state.exception is not None:
                raise state.exception
        return 0

    cdef int wait_for_data(self, ReaderState state, str name) except -1:
        """asyncio's `_wait_for_data`."""
        if state.waiter is not None:
            raise RuntimeError(f"{name}() called while another coroutine is already waiting for incoming data")
        if state.paused:
            state.resume()  # to wait while nothing is read would be for ever
        waiter = state.loop.create_future()
        state.waiter = waiter
        return self.wait_for(waiter)

    cdef void waited(self) noexcept:
        (<ReaderState> self.state).waiter = None


cdef int incomplete(object buffer, object expected) except -1:
    raise asyncio.IncompleteReadError(take(buffer, PyByteArray_GET_SIZE(buffer)), expected)


@cython.final
@cython.no_gc_clear
cdef class ReadCall(ReaderCall):
    """number: how many bytes at the most."""

    cdef object attempt(self):
        cdef ReaderState state = <ReaderState> self.state
        self.check_exception(state)
        if self.number == 0:
            return b""
        buffer = state.writable()
        if PyByteArray_GET_SIZE(buffer) == 0 and not state.eof and not self.tried:
            self.wait_for_data(state, "read")
            return None
        data = take(buffer, min(self.number, PyByteArray_GET_SIZE(buffer)))
        state.resume_if_short()
        return data

    cdef str name(self):
        return "StreamReader.read"


@cython.final
@cython.no_gc_clear
cdef class ReadExactlyCall(ReaderCall):
    """number: how many bytes."""

    cdef object attempt(self):
        cdef ReaderState state = <ReaderState> self.state
        self.check_exception(state)
        if self.number == 0:
            return b""
        buffer = state.writable()
        if PyByteArray_GET_SIZE(buffer) < self.number:
            if state.eof:
                incomplete(buffer, self.number)
            self.wait_for_data(state, "readexactly")
            return None
        data = take(buffer, self.number)
        state.resume_if_short()
        return data

    cdef str name(self):
        return "StreamReader.readexactly"


@cython.no_gc_clear
cdef class ReadUntilCall(ReaderCall):
    """argument: the separator, bytes that are not empty. number: up to there no separator begins."""

    cdef object attempt(self):
        cdef ReaderState state = <ReaderState> self.state
        cdef bytes separator = <bytes> self.argument
        cdef Py_ssize_t size, start, separator_size = PyBytes_GET_SIZE(separator)
        cdef char *found = NULL
        cdef char *first
        self.check_exception(state)
        buffer = state.writable()
        size = PyByteArray_GET_SIZE(buffer)
        if size - self.number >= separator_size:
            first = PyByteArray_AS_STRING(buffer)
            found = memmem(first + self.number, size - self.number, PyBytes_AS_STRING(separator), separator_size)
            if found == NULL:
                self.number = size + 1 - separator_size
                if exceeds(self.number, state.limit, 1):
                    raise asyncio.LimitOverrunError("Separator is not found, and chunk exceed the limit", self.number)
        if found == NULL:
            if state.eof:
                incomplete(buffer, None)
            self.wait_for_data(state, "readuntil")
            return None
        start = found - first
        if exceeds(start, state.limit, 1):
            raise asyncio.LimitOverrunError("Separator is found, but chunk is longer than limit", start)
        data = take(buffer, start + separator_size)
        state.resume_if_short()
        return data

    cdef str name(self):
        return "StreamReader.readuntil"


@cython.no_gc_clear
cdef class ReadLineCall(ReadUntilCall):
    cdef object attempt(self):
        cdef ReaderState state = <ReaderState> self.state
        line = None
        try:
            line = ReadUntilCall.attempt(self)
        except asyncio.IncompleteReadError as exc:
            line = exc.partial
        except asyncio.LimitOverrunError as exc:
            buffer = state.writable()
            if buffer.startswith(self.argument, exc.consumed):
                PySequence_DelSlice(buffer, 0, exc.consumed + len(self.argument))
            else:
                buffer.clear()
            state.resume_if_short()
            raise ValueError(exc.args[0])
        return line

    cdef str name(self):
        return "StreamReader.readline"


@cython.final
@cython.no_gc_clear
cdef class NextLineCall(ReadLineCall):
    cdef object attempt(self):
        line = ReadLineCall.attempt(self)
        if self.inner is None and not line:
            raise StopAsyncIteration
        return line

    cdef str name(self):
        return "StreamReader.__anext__"


cdef object read_until(ReadUntilCall call, object reader, bytes separator):
    call.subject = reader
    call.state = state_of(reader)
    call.argument = separator
    return call


def readuntil(self, separator=b"\n"):
    """Read up to and with `separator`. As asyncio.StreamReader.readuntil."""
    if type(self) is not reader_class or type(separator) is not bytes or not separator:
        return original_readuntil(self, separator)
    return read_until(ReadUntilCall.__new__(ReadUntilCall), self, separator)


def readline(self):
    """Read up to and with the end of a line. As asyncio.StreamReader.readline."""
    if type(self) is not reader_class:
        return original_readline(self)
    return read_until(ReadLineCall.__new__(ReadLineCall), self, b"\n")


def next_line(self):
    """The next line, StopAsyncIteration at the end. As asyncio.StreamReader.__anext__."""
    if type(self) is not reader_class:
        return original_next(self)
    return read_until(NextLineCall.__new__(NextLineCall), self, b"\n")


cdef bint is_size(object n):
    return type(n) is int and 0 <= n <= PY_SSIZE_T_MAX


def read(self, n=-1):
    """Read up to `n` bytes, at least one; all with -1. As asyncio.StreamReader.read."""
    cdef ReadCall call
    if type(self) is not reader_class or not is_size(n):
        return original_read(self, n)
    call = ReadCall.__new__(ReadCall)
    call.subject = self
    call.state = state_of(self)
    call.number = n
    return call


def readexactly(self, n):
    """Read `n` bytes. As asyncio.StreamReader.readexactly."""
    cdef ReadExactlyCall call
    if type(self) is not reader_class or not is_size(n):
        return original_readexactly(self, n)
    call = ReadExactlyCall.__new__(ReadExactlyCall)
    call.subject = self
    call.state = state_of(self)
    call.number = n
    return call


for kind in (ReadCall, ReadExactlyCall, ReadUntilCall, ReadLineCall, NextLineCall):
    give_slots(kind)
del kind
