"""What ps(1) and top(1) call this process."""

from __future__ import annotations

import ctypes  # not later: who has become another user may not read the interpreter's files
import sys

__all__ = ["name_process"]

PR_SET_NAME = 15  # prctl(2)


def name_process(name: str) -> None:
    """name: 15 bytes are shown. Where the system has no such call it keeps its name."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
