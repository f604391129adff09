"""What a relay and its sockets know of each other, and no more: a socket tells its relay what becomes of it
(RelayOwner), a relay asks and moves its sockets (RelayEnd). Names with an underscore are not a program's."""

from __future__ import annotations

from typing import Any, Optional, Protocol

from ..core.channel import Channel
from .constants import SocketError

__all__ = ["RelayEnd", "RelayOwner"]


class RelayOwner(Protocol):
    """A relay, to a socket in it."""

    @property
    def closed_handler(self) -> Any: ...

    def _on_end_ready(self) -> None:
        """The socket's handshake is done."""

    def _on_end_failed(self, error: SocketError, message: str) -> None:
        """The socket has failed before both were ready, and will leave when it has told its `error_handler`."""

    def _on_end_left(self) -> None:
        """The socket's connection is over."""

    def close(self) -> None:
        """End the relay at once."""


class RelayEnd(Protocol):
    """A socket, to its relay."""

    def _check_relay(self) -> None:
        """ValueError unless a relay can take this connection."""

    def _enter_relay(self, relay: RelayOwner) -> None:
        """From now on the connection is the relay's."""

    @property
    def _relay_channel(self) -> Optional[Channel]:
        """What is joined; None while something is to be awaited before bytes may go through."""

    @property
    def _input_cut(self) -> bool:
        """What came has an end that its sender did not declare."""

    def _leave_relay(self, cut: bool) -> None:
        """The relay has ended, and the connection with it; nobody is told but by the relay."""

    def _break_off(self, exc: BaseException) -> None:
        """Close the connection at once: what raised was in the middle of something."""

    def _with_peer(self, message: str) -> str:
        """`message` with the peer's name in front."""
