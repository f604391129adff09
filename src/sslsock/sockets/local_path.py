"""Paths of UNIX sockets (unix(7)): as people write them, and as the system has them.

A name that begins with "@" is in the abstract namespace of Linux, where no file belongs to it; a file whose name begins so is
written "./@name".
"""

from __future__ import annotations

import os
import sys
from typing import Any, Union

__all__ = ["PathLike", "checked_path", "end_of", "is_abstract", "plain_address", "system_path"]

PathLike = Union[str, "os.PathLike[str]"]

MOST_BYTES = 103 if sys.platform == "darwin" else 107  # of sun_path, without the NUL character at its end


def checked_path(path: PathLike) -> str:
    """A path from the program or its user: as it is shown. TypeError, ValueError."""
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"a path is a str, not {type(text).__name__}")
    if text.startswith("\0"):
        text = f"@{text[1:]}"
    if not text or text == "@":
        raise ValueError(f"{text!r} is no path of a socket: it has no name")
    if "\0" in text:
        raise ValueError(f"{text!r} holds a NUL character")
    if is_abstract(text) and not sys.platform.startswith("linux"):
        raise ValueError(f"{text!r}: only Linux has sockets without a file (a file of this name: './{text}')")
    size = len(os.fsencode(text))
    if size > MOST_BYTES:
        raise ValueError(f"{text!r}: the path of a socket has {MOST_BYTES} bytes at the most, and this one has {size}")
    return text


def is_abstract(text: str) -> bool:
    return text.startswith("@")


def system_path(text: str) -> bytes:
    """What `checked_path` has given, as the system takes it."""
    return os.fsencode(f"\0{text[1:]}" if is_abstract(text) else text)


def plain_address(address: str) -> str:
    """IPv4 addresses as such, also those that an IPv6 socket shows."""
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def end_of(name: Any) -> tuple[str, int]:
    """One end of a connection, as `socket.getsockname` has it: an address and a port, or a path and 0; ("", 0) for a UNIX
    socket that has no name."""
    if isinstance(name, tuple):
        return plain_address(name[0]), name[1]
    if isinstance(name, bytes):
        return f"@{os.fsdecode(name[1:])}" if name[:1] == b"\0" else os.fsdecode(name), 0
    return str(name or ""), 0
