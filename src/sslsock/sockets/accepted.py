"""Accepted: a connection between the listener that has accepted it and the socket that takes it over."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.channel import Channel

__all__ = ["Accepted"]


class Accepted:
    """Owns a connected descriptor until a channel has it; dropped before that, it is closed. address, port: the peer's."""

    __slots__ = ("_fd", "address", "port")

    def __init__(self, fd: int, address: str, port: int) -> None:
        self._fd = fd
        self.address = address
        self.port = port

    def give(self, channel: Channel) -> None:
        """To a channel that has no descriptor yet. OSError, MemoryError."""
        try:
            channel.attach(self._fd)
        finally:
            if channel.fileno() >= 0:
                self._fd = -1

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
