"""How the system gets from a path to a file: by which folders, and by which links."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Callable, NamedTuple, Optional

__all__ = ["Step", "way_to"]

MOST_LINKS = 40  # that the system follows: path_resolution(7)


class Step(NamedTuple):
    """An entry that the system looks for in a folder.

    folder: str, without links. name: str. status: of the entry, a link's own; None: it is not there, or not to be seen. errno:
    why, 0 where it is.
    """

    folder: str
    name: str
    status: Optional[os.stat_result]
    errno: int


def way_to(path: str, look_at: Callable[[str], os.stat_result] = os.lstat) -> Iterator[Step]:
    """The steps to a file by every link, as far as there is a way. A path with too many links has no last step; a relative one
    has none at all where the working folder is gone. look_at: as os.lstat."""
    if not path.startswith("/"):
        try:
            path = f"{os.getcwd()}/{path}"
        except OSError:
            return
    folder, parts, links = "/", path.split("/")[::-1], 0
    while parts:
        part = parts.pop()
        if part in ("", "."):
            continue
        if part == "..":  # behind a link it is the folder above the link's target
            folder = os.path.dirname(folder)
            continue
        entry = f"{folder}/{part}" if folder != "/" else f"/{part}"
        try:
            status = look_at(entry)
        except OSError as exc:
            yield Step(folder, part, None, exc.errno or 0)
            return
        yield Step(folder, part, status, 0)
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > MOST_LINKS:
                return
            try:
                target = os.readlink(entry)
            except OSError:  # it has just gone
                return
            folder = "/" if target.startswith("/") else folder
            parts += target.split("/")[::-1]
        else:
            folder = entry
