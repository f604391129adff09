"""`StreamReader`, `StreamWriter` and `StreamReaderProtocol`: asyncio's classes with what is done for each piece of data in C.

An instance of ours has the layout and the attributes of one of asyncio's. So a transport can turn one into the other
(core/stream_classes.pyx), and programs that call `asyncio.open_connection` and `asyncio.start_server` have ours too on our
loop, while asyncio stays what it is. Classes that programs derive from asyncio's are left alone.
"""

from __future__ import annotations

import asyncio
from asyncio import streams
from types import FunctionType
from typing import Any

from ..core import stream_classes, stream_reading, stream_writing
from ..core.stream_state import StateAttribute

__all__ = ["StreamReader", "StreamReaderProtocol", "StreamWriter"]


class StreamReader(asyncio.StreamReader):
    """asyncio.StreamReader, in C. Only this class: one that is derived from it runs asyncio's code."""

    __slots__ = ()

    _buffer = StateAttribute("buffer")
    _eof = StateAttribute("eof")
    _exception = StateAttribute("exception")
    _limit = StateAttribute("limit")
    _loop = StateAttribute("loop")
    _paused = StateAttribute("paused")
    _transport = StateAttribute("transport")
    _waiter = StateAttribute("waiter")

    feed_data = stream_reading.feed_data
    read = stream_reading.read
    readexactly = stream_reading.readexactly
    readline = stream_reading.readline
    readuntil = stream_reading.readuntil
    __anext__ = stream_reading.next_line


class StreamWriter(asyncio.StreamWriter):
    """asyncio.StreamWriter, in C."""

    __slots__ = ()

    write = stream_writing.write
    drain = stream_writing.drain


def with_our_writer(method: Any) -> Any:
    """asyncio's code, which makes a writer, to make one of ours."""
    made = FunctionType(
        method.__code__,
        {**vars(streams), "StreamWriter": StreamWriter},
        method.__name__,
        method.__defaults__,
        method.__closure__,
    )
    made.__kwdefaults__ = method.__kwdefaults__
    return made


class StreamReaderProtocol(asyncio.StreamReaderProtocol):
    """asyncio.StreamReaderProtocol, in C."""

    __slots__ = ()

    connection_made = with_our_writer(asyncio.StreamReaderProtocol.connection_made)
    data_received = stream_reading.data_received
    _drain_helper = stream_writing.drain_helper

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._stream_reader!r}>"  # type: ignore[attr-defined]


stream_classes.use_classes(StreamReader, StreamWriter, StreamReaderProtocol)
