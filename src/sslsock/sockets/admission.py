"""Admission: what stands between a listener and the server that takes its connections: PROXY headers, a bound of handshakes.

To the server it is its listener: `pending`, `take`, `limit`, `pause`, `resume`, `close`.
"""

from __future__ import annotations

from collections import deque
from typing import Callable, Optional, Protocol

from ..core.descriptor import Descriptor, owner_of
from ..core.listener import Listener
from ..core.loop import Loop
from .constants import SocketError
from .entrance import Entrance, EntranceError, TrustedProxies
from .error_log import INFO, log_error

__all__ = ["Admission", "HandshakePlace"]


class Consumer(Protocol):
    """Who takes the connections."""

    def _on_pending(self) -> None: ...
    def _on_accept_error(self, errno: int) -> None: ...


class HandshakePlace:
    """One of the handshakes that a server has at once."""

    __slots__ = ("_admission",)

    def __init__(self, admission: Admission) -> None:
        self._admission: Optional[Admission] = admission

    def leave(self) -> None:
        """It is over. No effect the second time."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.left()


class Admission:
    """Over a listener. trusted: whose PROXY headers are believed, None: there are none. timeout: seconds for a header.
    most_shaking: handshakes at once, 0 for no bound."""

    def __init__(
        self,
        loop: Loop,
        fd: int,
        consumer: Consumer,
        limit: int,
        trusted: Optional[TrustedProxies],
        timeout: float,
        most_shaking: int,
    ) -> None:
        self._loop, self._consumer, self._trusted, self._timeout = loop, consumer, trusted, timeout
        self._most_shaking = most_shaking
        self._shaking = 0
        self._limit = limit
        self._entrances: set[Entrance] = set()
        self._ready: deque[tuple[Descriptor, str, int]] = deque()
        self._paused = False
        self._listener = Listener(loop, fd, self, limit)

    @property
    def _full(self) -> bool:
        return 0 < self._most_shaking <= self._shaking

    @property
    def pending(self) -> int:
        """Connections that can be taken now: int."""
        if self._full:
            return 0
        return self._listener.pending if self._trusted is None else len(self._ready)

    @property
    def limit(self) -> int:
        """Most connections that are accepted before one is taken: int."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = self._listener.limit = limit
        self._fill()

    def take(self) -> Optional[tuple[int, str, int]]:
        """As `Listener.take`, with the address of the client that a header has named."""
        if self._full:
            return None
        if self._trusted is None:
            return self._listener.take()
        if not self._ready:
            return None
        descriptor, address, port = self._ready.popleft()
        self._fill()
        return descriptor.take(), address, port

    def place(self) -> Optional[HandshakePlace]:
        """For a handshake that begins; None where they are not counted."""
        if not self._most_shaking:
            return None
        self._shaking += 1
        self._heed()
        return HandshakePlace(self)

    def left(self) -> None:
        """A handshake is over."""
        was_full = self._full
        self._shaking -= 1
        if was_full and self._listener.fileno() >= 0 and not self._loop.closed:
            self._heed()
            self._loop.call_soon(self._tell)

    def pause(self) -> None:
        """Accept no more."""
        self._paused = True
        self._heed()

    def resume(self) -> None:
        """Accept again."""
        self._paused = False
        self._heed()

    def close(self) -> None:
        """Stop listening; connections that nobody has taken are closed."""
        self._listener.close()
        entrances, self._entrances = self._entrances, set()
        for entrance in entrances:
            entrance.close()
        self._ready.clear()

    def fileno(self) -> int:
        """The listening descriptor, -1 after `close`."""
        return self._listener.fileno()

    # What the listener tells

    def _on_pending(self) -> None:
        if self._trusted is None:
            self._tell()
        else:
            self._fill()

    def _on_accept_error(self, errno: int) -> None:
        self._consumer._on_accept_error(errno)

    # Steps

    def _tell(self) -> None:
        if self.pending:
            self._consumer._on_pending()

    def _heed(self) -> None:
        """Whether it is accepted now."""
        if self._paused or self._full:
            self._listener.pause()
        else:
            self._listener.resume()

    def _fill(self) -> None:
        """What the listener has comes in, as far as there is room."""
        trusted = self._trusted
        if trusted is None:
            return
        while len(self._entrances) + len(self._ready) < self._limit:
            taken = self._listener.take()
            if taken is None:
                return
            fd, address, port = taken
            descriptor = owner_of(fd)
            if address in trusted:
                self._entrances.add(Entrance(self._loop, descriptor, True, False, self._timeout, self._came(address, port)))
            else:
                self._refused("it is not among the trusted proxies", address, port)

    def _came(self, address: str, port: int) -> Callable[[Entrance, Optional[EntranceError]], None]:
        def come(entrance: Entrance, error: Optional[EntranceError]) -> None:
            self._entrances.discard(entrance)
            if error is not None:
                self._refused(str(error), address, port)
                self._fill()
                return
            source = None if entrance.header is None else entrance.header.source
            self._ready.append((entrance.take(), *(source or (address, port))))
            self._tell()

        return come

    def _refused(self, why: str, address: str, port: int) -> None:
        message = f"a connection from {address} port {port} does not come in: {why}"
        log_error(INFO, SocketError.REMOTE_HOST_CLOSED_ERROR, message)
