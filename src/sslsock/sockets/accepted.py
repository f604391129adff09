"""Accepted: a connection between the listener that has accepted it and the socket that takes it over."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Optional, Union

if TYPE_CHECKING:
    from ..core.channel import Channel
    from ..core.listener import Listener
    from .admission import Admission
    from .connection import Connection

__all__ = ["Accepted"]


class Accepted:
    """The oldest connection that waits in a listener. Owns its descriptor until a socket has it; dropped before that, it is
    closed. address, port: the peer's."""

    __slots__ = ("_fd", "_socket", "address", "port")

    def __init__(self, listener: Union[Listener, Admission]) -> None:
        self._fd = -1
        self._socket: Optional[Connection] = None
        self._fd, self.address, self.port = listener.take() or (-1, "", 0)

    def give(self, sock: Connection, channel: Channel) -> None:
        """To a socket and its channel, which has no descriptor yet. OSError, MemoryError."""
        self._socket = sock
        try:
            self._fd = channel.attach(self._fd) or -1  # type: ignore[func-returns-value]  # one step: never two owners
        except BaseException:
            if channel.fileno() >= 0:  # it has come as far as to own it
                self._fd = -1
            raise

    def break_off(self, exc: BaseException) -> None:
        """Who would have had the socket does not get it."""
        if self._socket is not None:
            self._socket._break_off(exc)

    def __del__(self) -> None:
        fd = getattr(self, "_fd", -1)  # there is none where `__init__` has not come to it
        if fd >= 0:
            os.close(fd)
