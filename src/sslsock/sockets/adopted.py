"""Descriptors that a program hands over (`set_socket_descriptor`): which of them can be a connection."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from .local_path import end_of

if TYPE_CHECKING:
    from ..core.event_loop import EventLoop

__all__ = ["adoptable"]


def adoptable(loop: EventLoop, descriptor: int) -> tuple[str, int]:
    """Look at a descriptor that is to be a connection of `loop`, and set what all of ours have. Returns the peer's address and
    port. OSError: it cannot be one, and why."""
    if descriptor < 0:
        raise OSError(errno.EBADF, "it is not open")
    if loop._has_watcher(descriptor):
        raise OSError(errno.EBUSY, "another socket of this loop has it")
    try:
        blocking = os.get_blocking(descriptor)
        borrowed = socket.socket(fileno=descriptor)
    except OSError as exc:
        words = {errno.EBADF: "it is not open", errno.ENOTSOCK: "it is no socket"}
        raise OSError(exc.errno, words.get(exc.errno or 0, exc.strerror)) from None
    try:
        if borrowed.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) or borrowed.type != socket.SOCK_STREAM:
            raise OSError(errno.EPROTOTYPE, "it is no stream of TCP or UNIX sockets")
        if borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError(errno.EISCONN, "it listens: a server is made by listen()")
        try:
            remote = end_of(borrowed.getpeername())
        except OSError as exc:
            raise OSError(exc.errno, "it is not connected" if exc.errno == errno.ENOTCONN else exc.strerror) from None
        if borrowed.family != socket.AF_UNIX:
            with suppress(OSError):  # the connection is reset already, which is told as ever
                borrowed.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return remote
    finally:
        borrowed.detach()
        os.set_blocking(descriptor, blocking)  # which a default timeout of `socket` has changed
