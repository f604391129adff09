"""Awaiting: what tasks of an asyncio loop can await of a connection.

    async with SslSocket() as s:
        s.connect_encrypted("www.example.com", 443)
        await s.encrypted()
        s.write(b"...")
        async for line in s:
            ...

How a wait ends, whatever it is for:

- What has happened is answered at the event, before the handlers of it: a connection that stood for a moment was `connected()`.
- Reading takes nothing before all that was asked for is there, and that is looked at when the task runs. So one that is
  cancelled has lost nothing, and a handler or another task may read in between.
- What came stays readable after the end. Then, an end in order (the peer's, or `disconnect` and `close`) ends the reading; what
  failed, was cut or aborted raises SocketFailure: nobody takes a part for the whole.
- Each wait belongs to the connection that it began with; `_generation` says which that was.
- A task that is cancelled leaves the connection as it is: the socket is the program's. `async with` ends it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Optional, TypeVar

from .checked import checked_count
from .constants import SocketError, SocketState
from .fact import TRUE, Fact, not_yet
from .socket_failure import SocketFailure
from .stream import READ, Stream
from .waits import PENDING, Waits

if TYPE_CHECKING:
    from typing_extensions import Self

    from .relay_end import RelayOwner

__all__ = ["Awaiting", "Lines"]

T = TypeVar("T")

UNCONNECTED = SocketState.UNCONNECTED_STATE
CONNECTED = SocketState.CONNECTED_STATE
BOUND = SocketState.BOUND_STATE
CLOSING = SocketState.CLOSING_STATE

LINE = 64 * 1024  # bytes of the longest line, as asyncio's StreamReader has it


def refused(message: str) -> SocketFailure:
    return SocketFailure(SocketError.OPERATION_ERROR, message)


class Event:
    """The question whether anything has happened since it was made, or what `question` raises."""

    __slots__ = ("_asked", "_question")

    def __init__(self, question: Callable[[], object]) -> None:
        self._question = question
        self._asked = False

    def __call__(self) -> object:
        asked, self._asked = self._asked, True
        self._question()
        return asked or PENDING


class Awaiting(Waits, Stream):
    """Base of Connection."""

    __slots__ = ("_failure", "_generation", "_relay", "_state")

    _failure: Optional[tuple[SocketError, str]]  # what has ended the connection, None when it stands, or ended in order
    _generation: int
    _relay: Optional[RelayOwner]
    _state: SocketState

    # The connection

    @property
    def connected(self) -> Fact:
        """True in CONNECTED_STATE. `await socket.connected()` waits for it; SocketFailure when the attempt has failed or was
        given up, and when there is none."""
        self._loop._meet()
        return TRUE if self._state is CONNECTED else not_yet(self._until_connected)

    async def _until_connected(self) -> None:
        await self._answer(self._while_it_lasts(lambda: self._state is CONNECTED or PENDING))

    async def disconnected(self) -> None:
        """Wait until there is no connection and no attempt at one: however it has ended, which `error` and `clean_close` tell.
        So this raises nothing; `bytes_written` tells whether all was sent."""
        generation = self._generation

        def question() -> object:
            return self._state in (UNCONNECTED, BOUND) or self._generation != generation or PENDING

        await self._answer(question, hears=False)

    async def bytes_written(self, left: int = 0) -> None:
        """Wait until no more than `left` bytes of what was written wait to be handed to the system: int. SocketFailure when the
        connection fails before, or was aborted. TypeError, ValueError."""
        most = checked_count(left, "left")
        generation = self._generation

        def question() -> object:
            channel = self._channel
            self._check_present(generation)
            if self._failure is not None:
                raise SocketFailure(*self._failure)
            sending = channel is None or not channel.sending_failed  # else its failure is about to be told
            return (sending and self.bytes_to_write <= most) or PENDING

        await self._answer(question, writes=True)

    # Reading

    async def ready_read(self) -> int:
        """Wait until there are bytes to read: how many, int; 0 when the connection has ended in order and all was read.
        SocketFailure when it has failed, was cut (`clean_close`) or aborted, and when there is none."""
        return await self._take(lambda ended: self.bytes_available or (0 if ended else PENDING))

    async def read_exactly(self, size: int) -> bytes:
        """Wait for `size` bytes and take them: bytes. SocketFailure when the connection ends before; what has come can still be
        read then. ValueError for more than `read_buffer_size`; TypeError."""
        size = checked_count(size, "size")

        def find(ended: bool) -> bytes:
            if self.bytes_available >= size:
                return self.read(size)
            if self._read_buffer_size and size > self._read_buffer_size:
                raise ValueError(f"{size} bytes are more than read_buffer_size, {self._read_buffer_size}")
            if ended:
                raise self._ended_early(f"{self.bytes_available} of {size} bytes")
            return PENDING  # type: ignore[no-any-return]

        return await self._take(find)

    async def read_until(self, separator: bytes = b"\n", max: int = LINE) -> bytes:
        """Wait for `separator`, and take all up to and with it: bytes. SocketFailure when the connection ends before,
        ValueError when the separator is not in the first `max` bytes, or in `read_buffer_size`; what has come can still be read
        then. TypeError."""
        separator = bytes(memoryview(separator))
        if not separator:
            raise ValueError("a separator has one byte at least")
        search = Search(self, separator, checked_count(max, "max", 1))

        def find(ended: bool) -> bytes:
            size = search.step()
            if size:
                return self.read(size)
            if ended:
                raise self._ended_early(f"{separator!r}")
            return PENDING  # type: ignore[no-any-return]

        return await self._take(find)

    def lines(self, max: int = LINE) -> Lines:
        """What `async for line in socket.lines()` goes through: each line as it comes, bytes with their line feed. It ends when
        the connection has ended in order; the last line may lack the line feed. SocketFailure when the connection has failed,
        was cut or aborted; ValueError for a line longer than `max` bytes or `read_buffer_size`: what came can still be read.
        `async for line in socket` is the same. Set `read_buffer_size` where the peer may send faster than lines are taken.
        TypeError."""
        return Lines(self, checked_count(max, "max", 1))

    def __aiter__(self) -> Lines:
        return Lines(self, LINE)

    # Questions

    def _check_present(self, generation: int) -> None:
        """SocketFailure unless the socket's connection is the one that a wait began with, and the program's own."""
        if self._generation != generation:
            raise refused("the socket has another connection now")
        if self._relay is not None:
            raise refused("the connection is a relay's")

    def _while_it_lasts(self, question: Callable[[], object]) -> Callable[[], object]:
        """`question`, until the connection or the attempt at one is over: SocketFailure then, and when there is none."""
        generation = self._generation

        def asked() -> object:
            if self._generation == generation:
                answer = question()
                if answer is not PENDING or self._state not in (UNCONNECTED, BOUND, CLOSING):
                    return answer
                if self._failure is not None:
                    raise SocketFailure(*self._failure)
            raise refused("the connection has ended" if generation else "the socket is not connected: connect it first")

        return asked

    def _input_over(self, generation: int) -> bool:
        """Whether nothing more will come, the connection having ended in order. SocketFailure: it has ended otherwise, or there
        is none."""
        self._check_present(generation)
        if self._peer_closed and self._clean:
            return True
        if self._failure is not None:
            raise SocketFailure(*self._failure)
        if self._state is UNCONNECTED or self._state is BOUND or self._state is CLOSING:
            if not generation or self._state is BOUND:
                raise refused("the socket is not connected: connect it first")
            return True
        if not self._open_mode & READ:
            raise refused("the socket is not open for reading")
        return False

    async def _take(self, find: Callable[[bool], T]) -> T:
        """What `find(ended)` gives; it may give PENDING as long as more may come. It is asked when this task runs, for what is
        there then; before that, at the event, it would take away what a cancelled task never returns."""
        generation = self._generation
        self._loop.check()
        while True:
            if self._generation == generation:
                found = find(False)  # what is there is taken before anybody hears of an end
                if found is not PENDING:
                    return found
            if self._input_over(generation):
                return find(True)
            await self._answer(Event(lambda: self._input_over(generation)))

    def _ended_early(self, wanted: str) -> SocketFailure:
        return SocketFailure(SocketError.REMOTE_HOST_CLOSED_ERROR, f"the connection has ended before {wanted} had come")

    def _waits_changed(self) -> None:
        if self._relay is None:
            self._count_written()

    def _failure_is_heard(self) -> bool:
        """A task waits in which a failure of the connection is raised."""
        return any(wait.hears and not wait.future.cancelled() for wait in self._waits or ())

    def _awaits_written(self) -> bool:
        return self._waits is not None and any(wait.writes for wait in self._waits)


class Search:
    """The search for a separator in what comes: each byte is looked at once, also where others read in between."""

    __slots__ = ("_at", "_max", "_separator", "_socket")

    def __init__(self, socket: Awaiting, separator: bytes, max: int) -> None:
        self._socket = socket
        self._separator = separator
        self._max = max
        self._at = 0  # of the stream: there is none that begins before

    def step(self) -> int:
        """Bytes up to and with the separator, 0 when it has not come. ValueError where it will not be in the first `max`, or in
        `read_buffer_size`."""
        source, separator = self._socket._source, self._separator
        if source is None:
            return 0
        position = source.taken
        found = source.find(separator, max(0, self._at - position))
        size, available = found + len(separator), source.bytes_available
        if found >= 0 and size <= self._max:
            return size
        bound = self._socket._read_buffer_size
        most = min(self._max, bound) if bound else self._max
        if found >= 0 or available >= most:
            name = "a line" if separator == b"\n" else repr(separator)
            raise ValueError(f"{name} does not end in the first {most} bytes")
        self._at = position + max(0, available - len(separator) + 1)
        return 0


class Lines:
    """The lines of a socket, as they come: an asynchronous iterator."""

    __slots__ = ("_max", "_socket")

    def __init__(self, socket: Awaiting, max: int) -> None:
        self._socket = socket
        self._max = max

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        socket = self._socket
        search = Search(socket, b"\n", self._max)

        def find(ended: bool) -> bytes:
            size = search.step()
            return socket.read(size) if size else socket.read_all() if ended else PENDING

        line = await socket._take(find)
        if not line:
            raise StopAsyncIteration
        return line
