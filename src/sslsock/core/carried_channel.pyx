"""A channel over a transport of asyncio's interface, in place of a descriptor: TLS in TLS, and TLS over other loops' transports.

It differs from others by what stands in the place of the kernel. What the transport brings waits in `arrived` until the channel receives
it, in a turn of its loop, never inside the transport's call; past ARRIVED_SIZE the transport is told to pause. What is sent is given to
the transport's `write`, unless that has said `pause_writing`. Its end is the end of the connection.

There is nothing to linger for: the transport beneath is closed as soon as it has been given the last bytes, and sees to it that they arrive.
"""

import threading
from asyncio.protocols import BufferedProtocol

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcpy

cimport system
from sslsock.core.channel cimport Channel
from sslsock.core.link cimport kind_of
from sslsock.core.output_link cimport PHASE_OPEN
from window_bio cimport byte_queue_append, byte_queue_clear, byte_queue_consume, byte_queue_front

cdef enum:
    ARRIVED_SIZE = 64 * 1024  # bytes that wait, from which on the transport is to bring no more
    ROOM = 64 * 1024  # bytes lent to the transport, which fills them and says so at once

rooms = threading.local()  # one a thread, not one a connection


class CarrierProtocol(BufferedProtocol):
    """What the transport beneath tells. One that knows nothing of BufferedProtocol calls `data_received`."""

    def __init__(self, channel):
        self._channel = channel

    def get_buffer(self, sizehint):
        memory = getattr(rooms, "memory", None)
        if memory is None:
            memory = rooms.memory = memoryview(bytearray(ROOM))  # asyncio's TLS loses what it puts into a bytearray (cpython#156275)
        return memory

    def buffer_updated(self, nbytes):
        self._channel._bring(rooms.memory[:nbytes])

    def data_received(self, data):
        self._channel._bring(data)

    def eof_received(self):
        return self._channel._meet_eof()

    def connection_lost(self, exc):
        self._channel._lose_carrier(exc)

    def pause_writing(self):
        self._channel._fill(True)

    def resume_writing(self):
        self._channel._fill(False)


cdef class CarriedChannel(Channel):
    """Begun by `carry`."""

    def __dealloc__(self):
        byte_queue_clear(&self.arrived)

    cdef int carry(self, object carrier, bint full) except -1:
        """The beginning. full: the transport has said `pause_writing` already."""
        self.loop.require()
        self.carrier = carrier
        self.full = self.blocked = full
        self.phase = PHASE_OPEN
        carrier.pause_reading()
        carrier.set_protocol(CarrierProtocol(self))
        carrier.resume_reading()
        return 0

    # What the transport tells. It is looked at in the next turn.

    def _bring(self, data):
        self.bring(data)

    cdef int bring(self, object data) except -1:
        cdef Py_buffer view
        cdef bint kept
        if self.carrier is None:
            return 0  # what comes behind the end
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        kept = byte_queue_append(&self.arrived, <const char *> view.buf, view.len)
        PyBuffer_Release(&view)
        if not kept:
            raise MemoryError
        if self.arrived.size >= ARRIVED_SIZE:
            self.hold(True)
        self.drained = False
        self.plan_again()
        return 0

    def _meet_eof(self):
        """Returns whether the transport is to stay open for writing, which one over TLS cannot."""
        carrier = self.carrier
        if carrier is None:
            return False
        self.hang_up = True
        self.drained = False
        self.plan_again()
        return carrier.get_extra_info("sslcontext") is None

    def _lose_carrier(self, exc):
        if self.carrier is None:
            return
        self.gone = self.hang_up = True
        self.drained = self.blocked = self.full = False
        if exc is not None:
            self.loss = exc
            self.suspect = True
        self.plan_again()

    def _fill(self, full):
        self.full = full
        if not full and self.carrier is not None:
            self.blocked = False
            if self.notify_written and self.consumer is not None:
                self.tell_written(self.consumer, 0)
            self.plan_flush()

    # In the place of the kernel

    cdef size_t take_in(self, char *memory, size_t room) noexcept nogil:
        cdef size_t size = min(room, self.arrived.size)
        if size:
            memcpy(memory, byte_queue_front(&self.arrived), size)
            byte_queue_consume(&self.arrived, size)
        if self.arrived.size == 0:
            self.drained = not self.hang_up or size == 0
            if self.hang_up and size == 0:
                self.look_for_error()
                self.fin = True
            elif self.held:
                with gil:
                    self.hold(False)
        return size

    cdef void hold(self, bint held) noexcept:
        """Have the transport bring nothing, or more again."""
        carrier = self.carrier
        if held == self.held or self.gone or carrier is None:
            return
        self.held = held
        try:
            if held:
                carrier.pause_reading()
            else:
                carrier.resume_reading()
        except BaseException as exc:
            self.loop.report("the transport beneath could not be paused", exc, carrier)

    cdef bint look_for_error(self) noexcept nogil:
        if self.suspect:
            self.suspect = False
            with gil:
                self.fail_by(self.loss, False)
        return self.dead

    cdef void look_for_end(self) noexcept nogil:
        if self.look_for_error() or (self.hang_up and self.arrived.size == 0 and not self.engine_ready):
            self.drained = self.fin = True

    cdef size_t give(self, const char *data, size_t size, int flags) noexcept nogil:
        if self.full:
            self.blocked = True
            return 0
        self.discarded = 0
        with gil:
            self.hand_down(data, size)
        return 0 if self.dead else size

    cdef void hand_down(self, const char *data, size_t size) noexcept:
        carrier = self.carrier
        if self.gone or carrier is None:
            return  # as the kernel takes what no peer will have
        try:
            carrier.write(PyBytes_FromStringAndSize(data, size))
        except BaseException as exc:
            self.fail_by(exc, True)

    cdef void fail_by(self, object exc, bint sending) noexcept:
        cdef int number = system.ECONNRESET
        self.loss = exc
        if isinstance(exc, OSError) and isinstance(exc.errno, int):
            number = exc.errno
        self.fail_with(kind_of(number), number, sending)

    # The end

    cdef void half_close(self) noexcept:
        carrier = self.carrier
        try:
            if carrier is not None and not self.gone and carrier.can_write_eof():
                carrier.write_eof()
        except BaseException as exc:
            self.loop.report("the transport beneath could not be ended", exc, carrier)

    cdef void linger(self, size_t most_input) noexcept:
        self.in_order = True
        self.close_now()

    cdef void close_descriptor(self) noexcept:
        carrier, self.carrier = self.carrier, None
        if carrier is None:
            return
        byte_queue_clear(&self.arrived)
        try:
            if not self.in_order:
                carrier.abort()
            else:
                carrier.close()
                if self.held:
                    carrier.resume_reading()  # it may wait for the peer's end
        except BaseException as exc:
            self.loop.report("the transport beneath could not be closed", exc, carrier)
