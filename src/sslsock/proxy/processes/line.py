"""Messages between the front and a member, over a pair of sockets: a name and values, pickled.

Both ends are this program and run as the same user, who could as well read the other's memory; so what comes is believed.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Hashable
from typing import Any, Callable, Optional

from ...core.channel import Channel
from ...core.encoded import SslEncoding
from ...core.event_loop import EventLoop
from ...core.key import SslKey, _secret_of

__all__ = ["Line", "packed", "pickled"]

HEAD = 4  # bytes that tell how long a message is


class Pickler(pickle.Pickler):
    """Of private keys too, which elsewhere are not pickled so that nobody does it by mistake."""

    def reducer_override(self, value: object) -> Any:
        return (key_of, (_secret_of(value),)) if isinstance(value, SslKey) else NotImplemented


def key_of(secret: bytes) -> SslKey:
    return SslKey(secret, format=SslEncoding.DER)


def pickled(value: object) -> bytes:
    file = io.BytesIO()
    Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


def packed(name: str, values: tuple[object, ...]) -> bytes:
    """A message with its head."""
    message = pickled((name, values))
    return len(message).to_bytes(HEAD, "big") + message


class Line:
    """One end. In the thread of `loop`.

    fd: of a socket pair, taken over. told: called with the name and the values of each message that comes. ended: called when
    the other process has closed its end, which it does when it ends. OSError: it cannot be watched.
    """

    def __init__(
        self, loop: EventLoop, fd: int, told: Callable[[str, tuple[Any, ...]], object], ended: Callable[[], object]
    ) -> None:
        self._told = told
        self._ended = ended
        self._waiting: dict[Hashable, bytes] = {}  # messages of `send_latest`, by subject
        self._all_sent: Optional[Callable[[], object]] = None
        self._channel = Channel(loop, self)
        self._channel.attach(fd)

    def send(self, name: str, *values: object) -> None:
        """No effect when the other end is closed."""
        if self._channel.is_open:
            self._channel.write(packed(name, values))
            self._channel.flush()

    def send_latest(self, subject: Hashable, name: str, *values: object) -> None:
        """The same, but of messages about a subject that wait for the other end to read only the last is sent."""
        if self._channel.is_open:
            self._waiting.pop(subject, None)  # it is the last of all, too
            self._waiting[subject] = packed(name, values)
            self._send_waiting()

    def _send_waiting(self) -> None:
        channel = self._channel
        if channel.is_open and not channel.bytes_to_write:
            for message in self._waiting.values():
                channel.write(message)
            self._waiting.clear()
            channel.flush()
        if self._all_sent is not None and not channel.bytes_to_write:
            then, self._all_sent = self._all_sent, None
            then()
        channel.notify_written = bool(self._waiting or self._all_sent)

    def when_all_is_sent(self, then: Callable[[], object]) -> None:
        """Call it once the other end, which may be slow, can read all of it whatever becomes of this one."""
        self._all_sent = then
        self._send_waiting()

    def close(self) -> None:
        self._channel.abort()

    # What the channel tells

    def _on_readable(self) -> None:
        channel = self._channel
        while channel.bytes_available >= HEAD:
            size = int.from_bytes(channel.peek(HEAD), "big")
            if channel.bytes_available < HEAD + size:
                return
            name, values = pickle.loads(channel.read(HEAD + size)[HEAD:])
            self._told(name, values)

    def _on_peer_closed(self, clean: bool) -> None:
        self._channel.abort()
        self._ended()

    def _on_failed(self, failure: int, message: str) -> None:
        self._ended()

    def _on_written(self, count: int) -> None:
        self._send_waiting()

    def _on_drained(self) -> None:
        pass

    def _on_encrypted(self) -> None:
        pass
