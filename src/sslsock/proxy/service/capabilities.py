"""The one right of root that a process may keep when it becomes another user: to connect from any address (capabilities(7))."""

from __future__ import annotations

import ctypes  # not later: see process_name
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ...core.dial import set_transparent

__all__ = ["kept_for_transparency", "transparency_error"]

CAP_NET_RAW = 13  # "bind to any address for transparent proxying"; CAP_NET_ADMIN could change all of the network
PR_SET_KEEPCAPS = 8
VERSION_3 = 0x20080522  # capset(2): _LINUX_CAPABILITY_VERSION_3


def transparency_error() -> str:
    """Why this process may not connect from the addresses of others; "" if it may."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            set_transparent(probe.fileno(), socket.AF_INET)
    except PermissionError:
        return "it needs root's rights at the start, or CAP_NET_RAW (AmbientCapabilities= of systemd)"
    except OSError as exc:
        return f"this system does not do it: {exc.strerror}"
    return ""


@contextmanager
def kept_for_transparency() -> Iterator[None]:
    """Root becomes somebody else in the block; this thread and those that it starts later keep CAP_NET_RAW alone. OSError."""
    assert sys.platform == "linux", "transparency_error has said so"
    libc = ctypes.CDLL(None, use_errno=True)
    must(libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
    try:
        yield
        bits = 1 << CAP_NET_RAW
        # struct __user_cap_header_struct, and two of __user_cap_data_struct: effective, permitted, inheritable.
        must(libc.capset(struct.pack("Ii", VERSION_3, 0), struct.pack("6I", bits, bits, 0, 0, 0, 0)))
    finally:
        must(libc.prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0))


def must(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
