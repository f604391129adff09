"""SocketFailure: what an `await` raises when what is awaited will not come."""

from __future__ import annotations

from .constants import SocketError

__all__ = ["SocketFailure"]


class SocketFailure(ConnectionError):
    """What is awaited of a socket or a server will not come: the connection has failed or was aborted, or there is none.

    error: SocketError, OPERATION_ERROR where the program itself is the cause.
    error_string: str, why, in words.
    """

    def __init__(self, error: SocketError, error_string: str) -> None:
        super().__init__(error_string)
        self.error = error
        self.error_string = error_string

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.error, self.error_string)
