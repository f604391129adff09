"""What a StreamReader of ours holds, in C, and how it is fed.

It is what asyncio's has in its attributes, and is seen through them (`StateAttribute`). Of the instance it is the attribute `_state`, for the
instance has to have the layout of asyncio's.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Check, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy

from instance_state cimport attributes

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1

cdef long long LARGEST = 1 << 60  # bytes: twice as much is a number of C

cdef tuple NAMES = ("buffer", "waiter", "exception", "transport", "limit", "loop", "eof", "paused")


cdef class ReaderState:
    """The state of one StreamReader."""

    cdef object writable(self):
        """The buffer. TypeError where a program has put something else into its place."""
        if not PyByteArray_Check(self.buffer):
            raise TypeError(f"the buffer of a StreamReader is a bytearray, not {type(self.buffer).__name__!r}")
        return self.buffer

    cdef int feed(self, bytes data) except -1:
        """As asyncio.StreamReader.feed_data."""
        cdef Py_ssize_t before, size = PyBytes_GET_SIZE(data)
        if self.eof:
            raise AssertionError("feed_data after feed_eof")
        if size == 0:
            return 0
        buffer = self.writable()
        before = PyByteArray_GET_SIZE(buffer)
        PyByteArray_Resize(buffer, before + size)
        memcpy(PyByteArray_AS_STRING(buffer) + before, PyBytes_AS_STRING(data), size)
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.cancelled():
                waiter.set_result(None)
        if not self.paused and exceeds(before + size, self.limit, 2):
            self.pause()
        return 0

    cdef int pause(self) except -1:
        if self.transport is None:
            return 0
        try:
            self.transport.pause_reading()
        except NotImplementedError:
            # All has to be buffered. It is not asked again.
            self.transport = None
        else:
            self.paused = True
        return 0

    cdef int resume(self) except -1:
        self.paused = False
        self.transport.resume_reading()
        return 0

    cdef int resume_if_short(self) except -1:
        """As asyncio's `_maybe_resume_transport`."""
        if self.paused and not exceeds(len(self.buffer), self.limit, 1):
            self.resume()
        return 0


cdef bint exceeds(Py_ssize_t size, object limit, int times) except -1:
    """Whether `size` is more than `times` the limit, which is what a program has given."""
    cdef int overflow = 0
    cdef long long bound
    if type(limit) is int:
        bound = PyLong_AsLongLongAndOverflow(limit, &overflow)
        if overflow == 0 and -LARGEST < bound < LARGEST:
            return size > times * bound
    return size > times * limit


cdef ReaderState state_of(object reader):
    """That of an instance of a class of ours."""
    cdef dict found = attributes(reader)
    cdef ReaderState state = found.get("_state")
    if state is None:
        state = found["_state"] = ReaderState.__new__(ReaderState)
    return state


cdef int move_state(object reader) except -1:
    """An instance of asyncio's class is going to be one of ours. KeyError: it lacks what it should have, and is left as it is."""
    cdef dict found = attributes(reader)
    cdef ReaderState state = ReaderState.__new__(ReaderState)
    for name in NAMES:
        setattr(state, name, found["_" + name])
    for name in NAMES:
        del found["_" + name]
    found["_state"] = state
    return 0


cdef class StateAttribute:
    """An attribute of a reader that is in its state, by the name that it has there."""

    cdef str name

    def __init__(self, str name not None):
        self.name = name

    def __get__(self, instance, owner):
        return self if instance is None else getattr(state_of(instance), self.name)

    def __set__(self, instance, value):
        setattr(state_of(instance), self.name, value)
