"""Reading the files that the settings name: opened here, or, with `--keep-reading`, by a process that has kept root's rights.

What stands at a path may be anything: a pipe without a writer, a device without an end. At the start somebody may mean it
(`--cert <(…)`) and sees that it waits. A reload must come to its end: it waits for nothing for long (`Reading`).

The process of `--keep-reading`, the *reader*, is forked before there are threads and before a key has been read. It knows the
paths that were named at the start, as a list. A request is a place in that list, in four bytes; the answer an errno, or a
descriptor for reading (SCM_RIGHTS, unix(7)). So whoever takes the proxy over can have these files opened, as the proxy itself
can, and nothing else; not even by a link, for what the user could replace is not on the list (`privileges.replaceable_for`). It
ends when the proxy does, for then its socket ends.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Callable, NamedTuple, NoReturn, Optional, TypeVar, cast

__all__ = ["MOST_BYTES", "Digests", "Mark", "Reader", "Reading", "Unit", "mark_at", "mark_of", "open_file", "status_of"]

REQUEST = 4  # bytes of a place, and of an errno
ANSWER_SECONDS = 30.0  # that a file system may take

# Of one file. The authorities of all the web take a quarter of a MiB; what is longer than this was not meant (a device, a
# sparse file), and would take the memory of the connections.
MOST_BYTES = 16 * 1024 * 1024
PIECE = 64 * 1024  # bytes of one read: what a pipe holds (pipe(7))
PIPE_SECONDS = 5.0  # that a reload waits for the writer of a pipe

Mark = tuple[int, ...]
Digests = tuple[tuple[int, int], ...]
Made = TypeVar("Made")

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
        raise explained(exc, path) from None


def status_of(path: str) -> os.stat_result:
    """As os.stat. OSError."""
    if _reader is None or path not in _reader.places:
        try:
            return os.stat(path)
        except PermissionError as exc:
            raise explained(exc, path) from None
    descriptor = _reader.open(path)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def explained(exc: PermissionError, path: str) -> PermissionError:
    if _reader is None:
        return exc
    hint = "--keep-reading opens what was named at the start, in folders not the user's; a new file needs a restart"
    return PermissionError(exc.errno, f"{exc.strerror}; {hint}", path)


def mark_of(status: os.stat_result) -> Mark:
    """What tells one state of a file from the next. The time of the last change tells of new permissions too."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def mark_at(path: str) -> Mark:
    """That of what stands at a path, or of why nothing can be seen there."""
    try:
        return mark_of(status_of(path))
    except OSError as exc:
        return (exc.errno or 0,)


class Contents(NamedTuple):
    data: bytes
    status: os.stat_result
    """Of what they were read from."""


class Unit(NamedTuple):
    """Files that are of use together only. kind: str, what they are made into."""

    kind: str
    paths: tuple[str, ...]


class Reading:
    """One reading of all files, at a start or a reload. Each is read once: what was checked is what is used, and a pipe will
    do, which tells what it holds only once.

    starting: for the writer of a pipe a start waits as long as it takes, a reload a few seconds; and a reload reads no devices.
    before: the reading before it: what that has made of files that hold the same now is kept.
    """

    def __init__(self, starting: bool = True, before: Optional[Reading] = None) -> None:
        self.starting = starting
        self._loaded_before = before.loaded() if before is not None else {}
        self._known: dict[str, Contents] = {}
        self._told: dict[str, Contents] = {}  # of another reading, what cannot be read twice
        self._made: dict[Unit, object] = {}
        self._digests: dict[Unit, Digests] = {}
        self._marks: dict[str, Mark] = {}

    def read(self, path: str) -> bytes:
        """All of a file, `MOST_BYTES` at the most. OSError; ValueError for a NUL in the path."""
        return self._contents(path).data

    def mode(self, path: str) -> int:
        """What kind of file it is, and who may do what with it: st_mode. OSError, ValueError."""
        return self._contents(path).status.st_mode

    def renewed(self) -> Reading:
        """Another one at the start, to read again what can be."""
        again = Reading(self.starting)
        again._told = {path: known for path, known in self._known.items() if not stat.S_ISREG(known.status.st_mode)}
        return again

    # What is made of files, and what it was made of

    def load(self, kind: str, paths: tuple[str, ...], make: Callable[[], Made]) -> Made:
        """What `make` makes of files that belong together: once, and what it raises. kind: tells it from what else is made of
        the same files."""
        unit = Unit(kind, paths)
        if unit not in self._made:
            made = self._loaded_before[unit][0] if self._is_unchanged(unit) else make()
            self._keep(unit, made, self._digests_of(unit))
        return cast(Made, self._made[unit])

    def _is_unchanged(self, unit: Unit) -> bool:
        """False where its files cannot be read, too: who makes something of them tells why."""
        with suppress(OSError, ValueError):
            return unit in self._loaded_before and self._loaded_before[unit][1] == self._digests_of(unit)
        return False

    def is_new(self, kind: str, paths: tuple[str, ...]) -> bool:
        """Whether what `load` has made of these files is not what was there before."""
        return True

    def loaded(self) -> dict[Unit, tuple[object, Digests]]:
        """What was made, and what tells the contents of its files from others."""
        return {unit: (made, self._digests[unit]) for unit, made in self._made.items()}

    def marks(self) -> dict[str, Mark]:
        """Of the files that were loaded, and can be read again: how they were found."""
        return {path: self._marks[path] for unit in self._made for path in unit.paths if path in self._marks}

    def forget(self) -> None:
        """The contents are not needed any more; there are keys among them."""
        self._known.clear()
        self._told.clear()
        self._loaded_before = {}

    def _keep(self, unit: Unit, made: object, digests: Digests) -> None:
        self._made[unit] = made
        self._digests[unit] = digests

    def _digests_of(self, unit: Unit) -> Digests:
        """What tells their contents from others, without the contents. OSError, ValueError."""
        return tuple((len(data), hash(data)) for data in map(self.read, unit.paths))  # 64 bits: SipHash

    def _contents(self, path: str) -> Contents:
        known = self._known.get(path)
        if known is None:
            known = self._known[path] = self._read(path)
        return known

    def _read(self, path: str) -> Contents:
        mode = status_of(path).st_mode
        if path in self._told and not stat.S_ISREG(mode):
            return self._told[path]
        refuse_kind(path, mode, self.starting)  # before it is opened, which may do something to a device
        descriptor = open_file(path, 0 if self.starting else os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            data = read_all(descriptor, path, None if self.starting else time.monotonic() + PIPE_SECONDS)
        finally:
            os.close(descriptor)
        if not data and not self.starting and stat.S_ISFIFO(status.st_mode):
            raise OSError(errno.EPIPE, "it is a pipe that nobody writes to", path)
        if stat.S_ISREG(status.st_mode):
            self._marks[path] = mark_of(status)
        return Contents(data, status)


def refuse_kind(path: str, mode: int, starting: bool) -> None:
    """OSError for what is nothing to be read."""
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if stat.S_ISSOCK(mode):
        raise OSError(errno.EINVAL, "it is a socket", path)
    if not starting and (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
        raise OSError(errno.EINVAL, "it is a device, which is not read again", path)


def read_all(descriptor: int, path: str, until: Optional[float]) -> bytes:
    """Up to the end. until: the time.monotonic() at which the writer of a pipe is late, None for never. OSError."""
    data = bytearray()
    while len(data) <= MOST_BYTES:
        try:
            piece = os.read(descriptor, PIECE)
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            left = None if until is None else max(0.0, until - time.monotonic()) * 1000
            if left == 0 or not poll.poll(left):  # who drips would always be in time
                raise OSError(errno.ETIMEDOUT, "it is a pipe whose writer does not come to an end", path) from None
            continue
        if not piece:
            return bytes(data)
        data += piece
    raise OSError(errno.EFBIG, f"it is longer than {MOST_BYTES >> 20} MiB, the most that is read of a file", path)


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
        if number in (errno.EINVAL, errno.ENXIO):  # the latter for a socket: open(2)
            raise OSError(number, "it is no regular file, and --keep-reading opens no other", path)
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
        for name in os.listdir("/dev/fd"):
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
