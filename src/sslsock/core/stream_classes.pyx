"""Which classes of streams are ours, and when an instance of asyncio's is made one of them.

An instance of `sslsock.aio.StreamReader` and its like has the layout of one of asyncio's, which so becomes one of ours by its class. That is done when a transport gets its protocol (`adopt`), and never to an instance of a class that a program has derived; nor
at all once a program has put methods of its own into asyncio's classes, which then count.
"""

import asyncio
from asyncio import streams

from instance_state cimport attributes
from sslsock.core.stream_state cimport ReaderState, move_state, state_of

cdef object asyncio_reader = asyncio.StreamReader
cdef object asyncio_writer = asyncio.StreamWriter
cdef object asyncio_protocol = asyncio.StreamReaderProtocol

# (class, name, attribute) of what ours replace or leave out, as it is when this is imported
cdef tuple replaced = ()


def use_classes(reader, writer, protocol):
    """Ours, each derived from asyncio's class of that name."""
    global reader_class, writer_class, protocol_class, replaced
    reader_class, writer_class, protocol_class = reader, writer, protocol
    left_out = ("_wait_for_data", "_wakeup_waiter", "_maybe_resume_transport", "exception", "_stream_reader", "__init__")
    replaced = tuple([
        (base, name, vars(base)[name])
        for ours, theirs in ((reader, asyncio_reader), (writer, asyncio_writer), (protocol, asyncio_protocol))
        for base in theirs.__mro__
        if base is not object
        for name in (*vars(ours), *left_out)
        if callable(vars(ours).get(name)) or name in left_out
        if name in vars(base)
    ])


cdef bint is_changed() except -1:
    """Whether a program has changed asyncio's classes."""
    if streams.StreamWriter is not asyncio_writer:
        return True
    for base, name, attribute in replaced:
        if vars(base).get(name) is not attribute:
            return True
    return False


cdef int adopt(object protocol) except -1:
    """A protocol of asyncio's streams, and its reader, become ours. No effect on any other protocol."""
    if type(protocol) is not asyncio_protocol or is_changed():
        return 0
    reader = protocol._stream_reader
    if type(reader) is asyncio_reader:
        move_state(reader)
        reader.__class__ = reader_class
    protocol.__class__ = protocol_class
    return 0


cdef ReaderState fed_by(object protocol):
    """The state of the reader that a transport may feed in the place of its protocol, or None."""
    cdef ReaderState state
    if type(protocol) is not protocol_class or "data_received" in attributes(protocol):
        return None
    reader = protocol._stream_reader
    if type(reader) is not reader_class or "feed_data" in attributes(reader):
        return None
    state = state_of(reader)
    state.reference = protocol._stream_reader_wr
    return state
