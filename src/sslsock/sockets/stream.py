"""Stream: what can be read from and written to. Abstract; the sockets fill it in.

Owns the open mode, the text encoding and the words of the last error. It has no buffer of its own: the
methods that say `abstract` are the channel's, and `*_string`, `*_bytes` and the `_async` twins are made from
them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Callable, Optional, Union

from ..core.endpoint import Endpoint
from ..core.event_loop import EventLoop
from .checked import MOST, checked_count
from .constants import OpenMode
from .loop_object import Handler, LoopObject
from .text import TextCodec, check_encoding, ends_lines_in_ascii
from .twins import twin

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Stream"]

Buffer = Union[bytes, bytearray, memoryview]

READ = int(OpenMode.READ_ONLY_MODE)
WRITE = int(OpenMode.WRITE_ONLY_MODE)
ALL_MODES = 15

WINDOW = 4  # bytes: the longest character of every common encoding


def checked_mode(mode: int) -> int:
    """An open mode from the program. TypeError, ValueError."""
    if not isinstance(mode, int):
        raise TypeError(f"an OpenMode is needed, not {type(mode).__name__}")
    if not 0 <= mode <= ALL_MODES:
        raise ValueError(f"{mode} is no OpenMode")
    return int(mode)


class Stream(LoopObject, Endpoint, ABC):
    """A stream of bytes.

    A handler is an attribute: None or a callable (TypeError for anything else). Or it is a method of a derived class, which is
    called as long as nothing was assigned; `del` goes back to it. What a handler raises goes to the loop's `exception_handler`.

    A handler that is an `async def` is run in a task of the asyncio loop that runs. On one object each handler runs once at a
    time: what happens meanwhile is told afterwards, `ready_read_handler` only if there is something to read then. The task goes
    on when the connection has ended.
    """

    NOT_OPEN_MODE = OpenMode.NOT_OPEN_MODE
    READ_ONLY_MODE = OpenMode.READ_ONLY_MODE
    WRITE_ONLY_MODE = OpenMode.WRITE_ONLY_MODE
    READ_WRITE_MODE = OpenMode.READ_WRITE_MODE
    APPEND_MODE = OpenMode.APPEND_MODE
    TRUNCATE_MODE = OpenMode.TRUNCATE_MODE

    __slots__ = (
        "__weakref__",
        "_about_to_close_handler",
        "_codec",
        "_encoding",
        "_error_string",
        "_open_mode",
        "_read_buffer_size",
    )

    _loop: EventLoop
    ready_read_handler: Handler[Callable[[Self], object]] = Handler(
        """`ready_read_handler(stream)`: called when new data can be read.""",
        told_while="bytes_available",
    )
    bytes_written_handler: Handler[Callable[[Self, int], object]] = Handler(
        """`bytes_written_handler(stream, count)`: called when `count` bytes more were handed to the system."""
    )
    about_to_close_handler: Handler[Callable[[Self], object]] = Handler(
        """`about_to_close_handler(stream)`: called by `close` before it does anything: unread data can still be read."""
    )

    def __init__(self) -> None:
        self._set_up(EventLoop.current())

    @classmethod
    def _on(cls, loop: EventLoop) -> Self:
        """One that lives on `loop`, whichever is this thread's now: a server's sockets are on its own."""
        stream = cls.__new__(cls)
        stream._set_up(loop)
        return stream

    def _set_up(self, loop: EventLoop) -> None:
        self._loop = loop
        self._open_mode = 0
        self._error_string = ""
        self._encoding = "utf-8"
        self._codec: Optional[TextCodec] = None
        self._read_buffer_size = 0
        self._announcing_close = False
        self._about_to_close_handler = None
        if self._methods:
            self._use_methods()

    # State

    @property
    def loop(self) -> EventLoop:
        """The loop this object lives on: that of the thread it was made in."""
        self._loop._meet()
        return self._loop

    @property
    def is_open(self) -> bool:
        """Whether the stream is open: bool, False while `open_mode` is NOT_OPEN_MODE."""
        return self._open_mode != 0

    @property
    def open_mode(self) -> OpenMode:
        """How the stream is open: OpenMode."""
        return OpenMode(self._open_mode)

    @property
    def readable(self) -> bool:
        """Whether the stream is open for reading: bool."""
        return self._open_mode & READ != 0

    @property
    def writeable(self) -> bool:
        """Whether the stream is open for writing: bool."""
        return self._open_mode & WRITE != 0

    @property
    def sequential(self) -> bool:
        """Whether there are no positions to go to: bool, True for every stream here."""
        return True

    @property
    def pos(self) -> int:
        """The position: int, always 0."""
        return 0

    @property
    def at_end(self) -> bool:
        """Whether there is nothing to read at the moment: bool."""
        return self.bytes_available == 0

    @property
    def error_string(self) -> str:
        """The last error in words, empty when there was none: str."""
        return self._error_string

    @property
    def encoding(self) -> str:
        """Name of the encoding of the `*_string` methods: str, "utf-8" at first. LookupError for one that Python lacks,
        ValueError for one that cannot be read in pieces (idna, punycode)."""
        return self._encoding

    @encoding.setter
    def encoding(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of an encoding is needed, not {type(name).__name__}")
        check_encoding(name)
        self._encoding = name
        self._codec = None

    @property
    def read_buffer_size(self) -> int:
        """Most bytes kept unread: int, 0 for no bound. At the bound nothing is taken from the network, but an error
        of the connection is told. ValueError below 0."""
        return self._read_buffer_size

    @read_buffer_size.setter
    def read_buffer_size(self, size: int) -> None:
        size = checked_count(size, "read_buffer_size")
        self._check_thread()
        self._read_buffer_size = size
        self._read_buffer_size_changed()
        if self._waits is not None:
            self._ask_waits()

    # Reading

    def read_bytes(self, max: Optional[int] = None) -> bytes:
        """The same as `read`."""
        return self.read(max)

    def read_all_bytes(self) -> bytes:
        """The same as `read_all`."""
        return self.read_all()

    def peek_bytes(self, max: Optional[int] = None) -> bytes:
        """The same as `peek`."""
        return self.peek(max)

    def read_line_bytes(self, max: Optional[int] = None) -> bytes:
        """The same as `read_line`."""
        return self.read_line(max)

    def read_string(self, max: Optional[int] = None) -> str:
        """Take at most `max` characters (None: all there are). Bytes that are no text become U+FFFD; a
        character whose last bytes have not come stays in the buffer."""
        limit = -1 if max is None else max
        texts: list[str] = []
        window = self._window(limit)
        while True:
            data = self.peek(None if limit < 0 else min(window, MOST))
            complete = len(data) == self.bytes_available
            text, taken = self._text().decode(data, limit, complete and self._input_ended())
            if taken:
                self.read(taken)
            if limit < 0:
                return text
            texts.append(text)
            limit -= len(text)
            if complete or limit == 0:
                return "".join(texts)
            if not taken:  # a character that takes more bytes than any usual one
                window *= 2

    def read_all_string(self) -> str:
        """Take all characters that are there: str."""
        return self.read_string()

    def peek_string(self, max: Optional[int] = None) -> str:
        """Like `read_string`, but everything stays to be read."""
        return self._look(-1 if max is None else max)

    def read_line_string(self, max: Optional[int] = None) -> str:
        """Take a line, up to and with its line feed, at most `max` characters. With no complete line: what
        there is."""
        if max is None and self.can_read_line and ends_lines_in_ascii(self._encoding):
            return self._text().decode(self.read_line(), -1, True)[0]
        text = self._look(-1 if max is None else max)
        end = text.find("\n") + 1
        return self.read_string(end or len(text))

    # Writing

    def write_bytes(self, data: Buffer) -> int:
        """The same as `write`."""
        return self.write(data)

    def write_string(self, string: str) -> int:
        """Write text. Returns the number of bytes it took, or -1 as `write` does. UnicodeEncodeError for
        characters that the encoding does not have."""
        if not isinstance(string, str):
            raise TypeError(f"a str is needed, not {type(string).__name__}")
        return self.write(self._text().encode(string))

    # Opening, closing, moving

    @abstractmethod
    def open(self, mode: int) -> bool:
        """Open in a mode. False when the stream is open already."""

    @abstractmethod
    def close(self) -> None:
        """Call `about_to_close_handler`, then close: what is unread is dropped."""

    def seek(self, pos: int) -> bool:
        """Does nothing and returns False: there are no positions."""
        self._check_thread()
        return False

    def reset(self) -> bool:
        """Does nothing and returns False: there is no beginning to go back to."""
        self._check_thread()
        return False

    # Twins

    read_async = twin(Endpoint.read)
    read_all_async = twin(Endpoint.read_all)
    peek_async = twin(Endpoint.peek)
    read_line_async = twin(Endpoint.read_line)
    read_into_async = twin(Endpoint.read_into)
    read_bytes_async = twin(read_bytes)
    read_all_bytes_async = twin(read_all_bytes)
    peek_bytes_async = twin(peek_bytes)
    read_line_bytes_async = twin(read_line_bytes)
    read_string_async = twin(read_string)
    read_all_string_async = twin(read_all_string)
    peek_string_async = twin(peek_string)
    read_line_string_async = twin(read_line_string)
    write_async = twin(Endpoint.write, copies=True)
    write_bytes_async = twin(write_bytes, copies=True)
    write_string_async = twin(write_string)
    open_async = twin(open)
    close_async = twin(close)
    seek_async = twin(seek)
    reset_async = twin(reset)

    # For the classes that derive from this one

    @abstractmethod
    def _input_ended(self) -> bool:
        """No byte will be added to those that can be read now."""

    @abstractmethod
    def _read_buffer_size_changed(self) -> None: ...

    def _emit(self, name: str, *args: object) -> bool:
        """Call the handler in a slot, if there is one. For places where more is to be done afterwards: nothing it raises
        gets out, not even what ends programs, which the loop raises when it can. False when it has raised."""
        handler = getattr(self, name)
        if handler is not None:
            if not self._loop.in_thread():
                return False  # the handler before this one has forked, and this is the child
            try:
                handler(self, *args)
            except BaseException as exc:
                self._loop.report(f"exception in {name[1:]}", exc, self)
                return False
        return True

    def _announce_close(self) -> None:
        """Call `about_to_close_handler`, unless it is what we were called from."""
        if not self._announcing_close:
            self._announcing_close = True
            try:
                self._emit("_about_to_close_handler")
            finally:
                self._announcing_close = False

    def _text(self) -> TextCodec:
        codec = self._codec
        if codec is None:
            codec = self._codec = TextCodec(self._encoding)
        return codec

    def _window(self, limit: int) -> int:
        """Bytes to look at first, for so many characters."""
        return max(WINDOW * limit + WINDOW, self._text().least)

    def _look(self, limit: int) -> str:
        """The text at the front, which stays there."""
        window = self._window(limit)
        while True:
            data = self.peek(None if limit < 0 else min(window, MOST))
            complete = len(data) == self.bytes_available
            text = self._text().decode(data, limit, complete and self._input_ended(), consume=False)[0]
            if complete or len(text) == limit:
                return text
            window *= 2
