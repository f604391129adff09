"""Opening the files that the settings name: here, or, with `--keep-reading`, by a process that has kept root's rights.

That process, the *reader*, is forked before there are threads and before a key has been read. It knows the paths that were
named at the start, as a list. A request is a place in that list, in four bytes; the answer an errno, or a descriptor for
reading (SCM_RIGHTS, unix(7)). So whoever takes the proxy over can have these files opened, as the proxy itself can, and nothing
else; not even by a link, for what the user could replace is not on the list (`privileges.replaceable_for`). It ends when the
proxy does, for then its socket ends.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NoReturn, Optional

__all__ = ["Reader", "open_file", "read_file", "status_of"]

REQUEST = 4  # bytes of a place, and of an errno
ANSWER_SECONDS = 30.0  # that a file system may take
FLAGS = os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC

_reader: Optional[Reader] = None  # the one of this process


def open_file(path: str, flags: int = os.O_NONBLOCK) -> int:
    """A descriptor for reading. flags: by default, not to wait for the other end of a pipe that somebody has put there.
    OSError; ValueError for a NUL in the path."""
    if _reader is not None and path in _reader.places:
        return _reader.open(path)
    try:
        return os.open(path, FLAGS | flags)
    except PermissionError as exc:
        if _reader is None:
            raise
        hint = "--keep-reading opens what was named at the start, in folders not the user's; a new file needs a restart"
        raise PermissionError(exc.errno, f"{exc.strerror}; {hint}", path) from None


def read_file(path: str) -> bytes:
    """All of it. OSError; ValueError for a NUL in the path."""
    with open(open_file(path, 0), "rb") as file:
        return file.read()


def status_of(path: str) -> os.stat_result:
    """As os.stat. OSError."""
    if _reader is None or path not in _reader.places:
        return os.stat(path)
    descriptor = _reader.open(path)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


class Reader:
    """The process that keeps its rights; from here on `open_file` asks it for `paths`.

    To be made in a process without threads. OSError: the system gives no process.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        global _reader
        known = list(dict.fromkeys(paths))
        self.places = {path: place for place, path in enumerate(known)}
        self._lock = threading.Lock()  # one request at a time
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            serve(theirs, known)
        theirs.close()
        self._socket.settimeout(ANSWER_SECONDS)
        _reader = self

    def open(self, path: str) -> int:
        """A descriptor for one of the paths. OSError."""
        with self._lock:
            try:
                self._socket.send(self.places[path].to_bytes(REQUEST, "big"))
                answer, descriptors, _, _ = socket.recv_fds(self._socket, REQUEST, 1)
            except OSError as exc:
                self._socket.close()  # an answer that comes late would be taken for the next one
                raise self._gone(path) from exc
        if len(answer) < REQUEST:
            raise self._gone(path)
        if descriptors:
            os.set_inheritable(descriptors[0], False)
            return descriptors[0]
        number = int.from_bytes(answer, "big")
        raise OSError(number, os.strerror(number), path)

    @staticmethod
    def _gone(path: str) -> OSError:
        return OSError(errno.EPIPE, "the process of --keep-reading has ended or does not answer", path)

    def close(self) -> None:
        """End the process."""
        global _reader
        _reader = None
        self._socket.close()
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


# In the other process


def serve(channel: socket.socket, paths: Sequence[str]) -> NoReturn:
    """Answer until the other side ends. Never returns: nothing of the proxy may run here."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # which a terminal or systemd sends to both
            signal.signal(number, signal.SIG_IGN)
        own = os.dup2(channel.fileno(), 3) if channel.fileno() != 3 else 3
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(nowhere, standard)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > own:
                with suppress(OSError):
                    os.close(int(name))
        requests = socket.socket(fileno=own)
        while (request := requests.recv(REQUEST + 1)) and len(request) == REQUEST:
            place = int.from_bytes(request, "big")
            if place >= len(paths):
                break
            answer(requests, paths[place])
    finally:
        os._exit(0)


def answer(requests: socket.socket, path: str) -> None:
    try:
        descriptor = os.open(path, FLAGS | os.O_NONBLOCK)
    except OSError as exc:
        requests.send((exc.errno or errno.EIO).to_bytes(REQUEST, "big"))
        return
    # A folder would be a way to all that lies in it (openat(2)), a device to more than reading.
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        socket.send_fds(requests, [bytes(REQUEST)], [descriptor])
    else:
        requests.send((errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL).to_bytes(REQUEST, "big"))
    os.close(descriptor)
