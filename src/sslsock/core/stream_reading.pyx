"""What a StreamReader of asyncio does for each piece of data, in C: it is fed, and read.

These are functions for `sslsock.aio.StreamReader`. The state is where asyncio has it, in the attributes of the instance, so that an
instance of asyncio's own class can be made one of ours, and programs that look at `_buffer` find it. What is rare (a tuple of separators,
a size below 0) and what a program has derived a class for is asyncio's own code.
"""

import asyncio

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Check, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

from instance_state cimport attributes
from sslsock.core.awaited_call cimport AwaitedCall, give_slots
from sslsock.core.stream_classes cimport reader_class

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1
    int PySequence_DelSlice(object sequence, Py_ssize_t first, Py_ssize_t last) except -1

cdef extern from "<string.h>" nogil:
    # of the C library, but not of the standard
    char *memmem(const char *where, size_t size, const char *what, size_t what_size)

cdef long long LARGEST = 1 << 60  # bytes: twice as much is a number of C

# asyncio's own, as they are when this is imported.
cdef object original_feed_data = asyncio.StreamReader.feed_data
cdef object original_read = asyncio.StreamReader.read
cdef object original_readexactly = asyncio.StreamReader.readexactly
cdef object original_readline = asyncio.StreamReader.readline
cdef object original_readuntil = asyncio.StreamReader.readuntil
cdef object original_next = asyncio.StreamReader.__anext__


cdef object buffer_of(dict state):
    buffer = state["_buffer"]
    if not PyByteArray_Check(buffer):
        raise TypeError(f"the buffer of a StreamReader is a bytearray, not {type(buffer).__name__!r}")
    return buffer


cdef bytes take(object buffer, Py_ssize_t size):
    """The first `size` bytes, of those that there are."""
    cdef bytes taken = PyBytes_FromStringAndSize(PyByteArray_AS_STRING(buffer), size)
    if size == PyByteArray_GET_SIZE(buffer):
        PyByteArray_Resize(buffer, 0)
    else:
        PySequence_DelSlice(buffer, 0, size)
    return taken


cdef bint exceeds(Py_ssize_t size, object limit, int times) except -1:
    """Whether `size` is more than `times` the limit, which is what a program has given."""
    cdef int overflow = 0
    cdef long long bound
    if type(limit) is int:
        bound = PyLong_AsLongLongAndOverflow(limit, &overflow)
        if overflow == 0 and -LARGEST < bound < LARGEST:
            return size > times * bound
    return size > times * limit


cdef int resume(dict state) except -1:
    state["_paused"] = False
    state["_transport"].resume_reading()
    return 0


cdef int resume_if_short(dict state) except -1:
    """asyncio's `_maybe_resume_transport`."""
    if state["_paused"] and not exceeds(len(state["_buffer"]), state["_limit"], 1):
        resume(state)
    return 0


# Feeding


cdef int feed(object reader, object data) except -1:
    cdef dict state = attributes(reader)
    cdef Py_ssize_t before, size
    if state["_eof"]:
        raise AssertionError("feed_data after feed_eof")
    if type(data) is not bytes:
        original_feed_data(reader, data)
        return 0
    size = PyBytes_GET_SIZE(data)
    if size == 0:
        return 0
    buffer = buffer_of(state)
    before = PyByteArray_GET_SIZE(buffer)
    PyByteArray_Resize(buffer, before + size)
    memcpy(PyByteArray_AS_STRING(buffer) + before, PyBytes_AS_STRING(data), size)
    waiter = state["_waiter"]
    if waiter is not None:
        state["_waiter"] = None
        if not waiter.cancelled():
            waiter.set_result(None)
    if exceeds(before + size, state["_limit"], 2):
        pause(state)
    return 0


cdef int pause(dict state) except -1:
    transport = state["_transport"]
    if transport is None or state["_paused"]:
        return 0
    try:
        transport.pause_reading()
    except NotImplementedError:
        # All has to be buffered. It is not asked again.
        state["_transport"] = None
    else:
        state["_paused"] = True
    return 0


def feed_data(self, data):
    """Append `data` to what can be read."""
    if type(self) is reader_class:
        feed(self, data)
    else:
        original_feed_data(self, data)


# Reading


@cython.no_gc_clear
cdef class ReaderCall(AwaitedCall):
    """Waits for what comes to a reader, which is `subject`."""

    cdef int check_exception(self, dict state) except -1:
        """Only a call that begins is told, as in asyncio."""
        if not self.tried:
            exc = state["_exception"]
            if exc is not None:
                raise exc
        return 0

    cdef int wait_for_data(self, dict state, str name) except -1:
        """asyncio's `_wait_for_data`."""
        if state["_waiter"] is not None:
            raise RuntimeError(f"{name}() called while another coroutine is already waiting for incoming data")
        if state["_paused"]:
            resume(state)  # to wait while nothing is read would be for ever
        waiter = state["_loop"].create_future()
        state["_waiter"] = waiter
        return self.wait_for(waiter)

    cdef void waited(self) noexcept:
        attributes(self.subject)["_waiter"] = None


cdef int incomplete(object buffer, object expected) except -1:
    raise asyncio.IncompleteReadError(take(buffer, PyByteArray_GET_SIZE(buffer)), expected)


@cython.final
@cython.no_gc_clear
cdef class ReadCall(ReaderCall):
    """number: how many bytes at the most."""

    cdef object attempt(self):
        cdef dict state = attributes(self.subject)
        self.check_exception(state)
        if self.number == 0:
            return b""
        buffer = buffer_of(state)
        if PyByteArray_GET_SIZE(buffer) == 0 and not state["_eof"] and not self.tried:
            self.wait_for_data(state, "read")
            return None
        data = take(buffer, min(self.number, PyByteArray_GET_SIZE(buffer)))
        resume_if_short(state)
        return data

    cdef str name(self):
        return "StreamReader.read"


@cython.final
@cython.no_gc_clear
cdef class ReadExactlyCall(ReaderCall):
    """number: how many bytes."""

    cdef object attempt(self):
        cdef dict state = attributes(self.subject)
        self.check_exception(state)
        if self.number == 0:
            return b""
        buffer = buffer_of(state)
        if PyByteArray_GET_SIZE(buffer) < self.number:
            if state["_eof"]:
                incomplete(buffer, self.number)
            self.wait_for_data(state, "readexactly")
            return None
        data = take(buffer, self.number)
        resume_if_short(state)
        return data

    cdef str name(self):
        return "StreamReader.readexactly"


@cython.no_gc_clear
cdef class ReadUntilCall(ReaderCall):
    """argument: the separator, bytes that are not empty. number: up to there no separator begins."""

    cdef object attempt(self):
        cdef dict state = attributes(self.subject)
        cdef bytes separator = <bytes> self.argument
        cdef Py_ssize_t size, start, separator_size = PyBytes_GET_SIZE(separator)
        cdef char *found = NULL
        cdef char *first
        self.check_exception(state)
        buffer = buffer_of(state)
        size = PyByteArray_GET_SIZE(buffer)
        if size - self.number >= separator_size:
            first = PyByteArray_AS_STRING(buffer)
            found = memmem(first + self.number, size - self.number, PyBytes_AS_STRING(separator), separator_size)
            if found == NULL:
                self.number = size + 1 - separator_size
                if exceeds(self.number, state["_limit"], 1):
                    raise asyncio.LimitOverrunError("Separator is not found, and chunk exceed the limit", self.number)
        if found == NULL:
            if state["_eof"]:
                incomplete(buffer, None)
            self.wait_for_data(state, "readuntil")
            return None
        start = found - first
        if exceeds(start, state["_limit"], 1):
            raise asyncio.LimitOverrunError("Separator is found, but chunk is longer than limit", start)
        data = take(buffer, start + separator_size)
        resume_if_short(state)
        return data

    cdef str name(self):
        return "StreamReader.readuntil"


@cython.no_gc_clear
cdef class ReadLineCall(ReadUntilCall):
    cdef object attempt(self):
        cdef dict state
        line = None
        try:
            line = ReadUntilCall.attempt(self)
        except asyncio.IncompleteReadError as exc:
            line = exc.partial
        except asyncio.LimitOverrunError as exc:
            state = attributes(self.subject)
            buffer = buffer_of(state)
            if buffer.startswith(self.argument, exc.consumed):
                PySequence_DelSlice(buffer, 0, exc.consumed + len(self.argument))
            else:
                buffer.clear()
            resume_if_short(state)
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
    call.number = n
    return call


def readexactly(self, n):
    """Read `n` bytes. As asyncio.StreamReader.readexactly."""
    cdef ReadExactlyCall call
    if type(self) is not reader_class or not is_size(n):
        return original_readexactly(self, n)
    call = ReadExactlyCall.__new__(ReadExactlyCall)
    call.subject = self
    call.number = n
    return call


for kind in (ReadCall, ReadExactlyCall, ReadUntilCall, ReadLineCall, NextLineCall):
    give_slots(kind)
del kind
