"""What a StreamWriter of asyncio and its protocol do for each piece of data, in C.

These are functions for `sslsock.aio.StreamWriter` and `sslsock.aio.StreamReaderProtocol`, as those of stream_reading are for the reader.
"""

import asyncio

cimport cython

from instance_state cimport attributes
from sslsock.core.awaited_call cimport AwaitedCall, give_slots
from sslsock.core.protocol_transport cimport ProtocolTransport
from sslsock.core.stream_classes cimport protocol_class, reader_class, writer_class
from sslsock.core.stream_state cimport state_of

# asyncio's own, as they are when this is imported.
cdef object original_drain = asyncio.StreamWriter.drain
cdef object original_drain_helper = asyncio.StreamReaderProtocol._drain_helper


def write(self, data):
    """Send `data`. As asyncio.StreamWriter.write."""
    transport = attributes(self)["_transport"]
    if isinstance(transport, ProtocolTransport):
        (<ProtocolTransport> transport).write(data)
    else:
        transport.write(data)


cdef bint may_write(object protocol) except -1:
    """Whether a call of `_drain_helper` has nothing to wait for and nothing to raise."""
    cdef dict state
    if type(protocol) is not protocol_class:
        return False
    state = attributes(protocol)
    return not state["_connection_lost"] and not state["_paused"]


@cython.final
@cython.no_gc_clear
cdef class DrainCall(AwaitedCall):
    """subject: the writer."""

    cdef object attempt(self):
        cdef dict state = attributes(self.subject)
        transport = state["_transport"]
        if isinstance(transport, ProtocolTransport) and \
                (<ProtocolTransport> transport).takes_more(state["_protocol"], state["_reader"]):
            return None
        if self.has_failed(state["_reader"]) or transport.is_closing() or not may_write(state["_protocol"]):
            self.delegate(original_drain(self.subject))
        return None

    cdef bint has_failed(self, object reader) except -1:
        """Whether the reader has an exception to be raised, or is to be asked for one."""
        if reader is None:
            return False
        return type(reader) is not reader_class or state_of(reader).exception is not None

    cdef str name(self):
        return "StreamWriter.drain"


@cython.final
@cython.no_gc_clear
cdef class DrainHelperCall(AwaitedCall):
    """subject: the protocol."""

    cdef object attempt(self):
        if not may_write(self.subject):
            self.delegate(original_drain_helper(self.subject))
        return None

    cdef str name(self):
        return "FlowControlMixin._drain_helper"


def drain(self):
    """Wait until more may be written. As asyncio.StreamWriter.drain."""
    cdef DrainCall call
    if type(self) is not writer_class:
        return original_drain(self)
    call = DrainCall.__new__(DrainCall)
    call.subject = self
    return call


def drain_helper(self):
    """What `drain` of asyncio's own writers awaits."""
    cdef DrainHelperCall call = DrainHelperCall.__new__(DrainHelperCall)
    call.subject = self
    return call


for kind in (DrainCall, DrainHelperCall):
    give_slots(kind)
del kind
