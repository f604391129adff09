"""What the system does not give, in words, with the bound that an operator may raise."""

from __future__ import annotations

import errno
import os
from socket import gaierror

__all__ = ["lacking", "reason_of"]

BOUNDS = {errno.EAGAIN: " (ulimit -u, TasksMax)", errno.EMFILE: " (ulimit -n, LimitNOFILE)"}


def reason_of(exc: Exception) -> str:
    """Without what `socket.create_server` adds to it."""
    if isinstance(exc, OSError) and exc.errno and not isinstance(exc, gaierror):
        return f"{os.strerror(exc.errno)}{BOUNDS.get(exc.errno, '')}"
    return getattr(exc, "strerror", None) or str(exc)


def lacking(what: str, number: int) -> str:
    """That the system gives none. number: errno."""
    return f"the system gives no {what}: {os.strerror(number)}{BOUNDS.get(number, '')}"
