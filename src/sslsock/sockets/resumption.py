"""Resumption: the session of an SslSocket, kept by the program to begin the next connection with.

Sessions of sockets whose configurations are equal are resumed without it, as long as the process lives (core/context.pyx).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Optional

from ..core.session import SslSession
from .agreed import Agreed
from .connection import whole
from .loop_object import Handler

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Resumption"]


class Resumption(Agreed):
    """Base of SslSocket. `_session`: what was assigned, for the next handshake."""

    __slots__ = ("_new_session_handler", "_session")

    _session: Optional[SslSession]

    new_session_handler: Handler[Callable[[Self, SslSession], object]] = Handler(
        """`new_session_handler(socket, session)`: called when a client has got a session by which its next connection can be
        resumed. With TLS 1.3 a server may send several, each for one connection, just before other data; with TLS 1.2 it
        comes after `encrypted_handler`."""
    )

    @property
    def session(self) -> Optional[SslSession]:
        """The newest session by which a client's connection can be resumed: SslSession. None on a server, before one has
        come (with TLS 1.3 that is after the handshake, with the first data: `new_session_handler`), where errors of the
        server's certificates were ignored, and with a `pre_shared_key_handler`. Assign one, and the next handshake of a
        client offers it, once; it is a full handshake where the session is bound to other settings, or the server does
        not take it. TypeError."""
        if self._session is not None or self._engine is None:
            return self._session
        return self._engine.session

    @session.setter
    def session(self, session: Optional[SslSession]) -> None:
        if session is not None and not isinstance(session, SslSession):
            raise TypeError(f"an SslSession is needed, not {type(session).__name__}")
        self._session = session

    @property
    def session_reused(self) -> bool:
        """Whether an earlier session was resumed: bool."""
        return self._engine.session_reused if self._engine is not None else False

    @whole
    def _on_session(self, session: SslSession) -> None:
        """Called by the channel."""
        self._emit("_new_session_handler", session)
