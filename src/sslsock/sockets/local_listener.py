"""A listening UNIX socket and its file: made with its mode and owner, in the place of an abandoned one, and removed at the end.

Rules:

- Nobody can connect before mode and owner are set: until `listen` the system refuses.
- A file is abandoned when the system refuses a connection to it: the program that listened has ended without removing it. Any
  other answer means that somebody listens, or that it cannot be known, and the file stays.
- Who replaces a file locks its folder (flock(2)), so that of two programs which start at once only one finds it abandoned.
- A file is removed only while it is the one that was made here, and by the process that has made it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Optional

from .local_path import is_abstract, system_path

__all__ = ["SocketFile", "open_local_socket"]

LOCK_SECONDS = 1.0  # that another program may have the folder locked, which is no reason not to start
LOCK_PAUSE = 0.01


class SocketFile:
    """The file of a listening socket, as long as it is ours. To be removed before the socket is closed: until then no other
    file can have its inode."""

    __slots__ = ("_identity", "_path", "_pid")

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._identity = identity(path)
        self._pid = os.getpid()

    def remove(self) -> None:
        """No effect when it is gone, or somebody else's."""
        if os.getpid() == self._pid:  # else it is a child's copy: the parent still listens
            with locked(os.path.dirname(self._path)):
                self.unlink()

    def unlink(self) -> None:
        """`remove`, while the folder is locked."""
        with suppress(OSError):
            if identity(self._path) == self._identity:
                os.unlink(self._path)


def open_local_socket(
    path: str, backlog: int, mode: Optional[int] = None, owner: int = -1, group: int = -1
) -> tuple[socket.socket, Optional[SocketFile]]:
    """A socket that listens at `path` (`checked_path`), non-blocking, and its file; None for an abstract name. OSError.

    mode: of the file, None as the umask has it. owner, group: ids, -1 as they are."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if not is_abstract(path):
            with locked(os.path.dirname(os.path.abspath(path))):
                return sock, listen_at(sock, path, backlog, mode, owner, group)
        sock.bind(system_path(path))
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock, None


def listen_at(
    sock: socket.socket, path: str, backlog: int, mode: Optional[int], owner: int, group: int
) -> SocketFile:
    bind(sock, path)
    file = SocketFile(path)
    try:
        if owner >= 0 or group >= 0:
            os.chown(path, owner, group, follow_symlinks=False)
        if mode is not None:
            os.chmod(path, mode)
        sock.listen(backlog)
    except BaseException:
        file.unlink()
        raise
    return file


def bind(sock: socket.socket, path: str) -> None:
    """OSError; one that says so when the path is taken."""
    try:
        sock.bind(path)
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            raise
    else:
        return
    with suppress(FileNotFoundError):  # gone at this very moment
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EADDRINUSE, "there is a file which is no socket")
        if not is_abandoned(path):
            raise OSError(errno.EADDRINUSE, "another program listens there")
        os.unlink(path)
    sock.bind(path)


def is_abandoned(path: str) -> bool:
    """Whether nobody listens there. Nobody waits for the answer: connect(2)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except OSError:  # its queue is full (EAGAIN), it is of another type, or the rights to ask are missing
            return False
    return False


def identity(path: str) -> tuple[int, int]:
    """OSError."""
    status = os.lstat(path)
    return status.st_dev, status.st_ino


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """The folder is ours for a moment. Where it cannot be had it goes without."""
    try:
        fd = os.open(folder or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # it may be entered and written, and not be read
        yield
        return
    try:
        end = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    break
                time.sleep(LOCK_PAUSE)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(fd)
