"""Errors that no handler takes: one line each in the log "sslsock"."""

from __future__ import annotations

from .constants import SocketError

__all__ = ["DEBUG", "INFO", "WARNING", "log_error"]

# As in `logging`, which is slow to load, and which a program without an error does not need.
DEBUG, INFO, WARNING = 10, 20, 30


def one_line(text: str) -> str:
    """What a peer has sent may be part of the text: it must neither break the line nor move a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def log_error(level: int, error: SocketError, message: str) -> None:
    """message: what went wrong, with the peer it went wrong with."""
    from logging import getLogger

    getLogger("sslsock").log(level, "%s: %s", error.name, one_line(message))
