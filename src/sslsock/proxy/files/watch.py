"""Files that are watched for changes, by a thread of its own: file systems may let it wait.

A path is watched in every folder that the system looks into on its way to the file, by every link: so a link that is swapped
counts (`..data` of Kubernetes, `live/` of certbot), and a folder that is put in the place of another. The kernel tells of it
(`core/folder_watch.pyx`). Where it cannot, the files are looked at every `INTERVAL` seconds; and now and then anyway, for what
no kernel tells (something mounted over a folder).

Files change together, one after the other. A change is told once nothing has happened for a moment.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import stat
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from typing import Callable, Optional

from ...core.folder_watch import FolderWatch, is_remote
from .paths import Step, way_to
from .reading import Mark, mark_at

__all__ = ["INTERVAL", "FileWatch", "Ways", "obstacles_to", "told"]

log = logging.getLogger("sslsock")

INTERVAL = 2.0  # seconds between two looks, where the kernel tells nothing
ROUND = 60.0  # seconds between two looks, where it does
QUIET = 0.2  # seconds without a change, after which it is told
MOST_QUIETS = 25  # that a change is waited for
BREATH = 0.05  # seconds between two readings of what is of no interest
MOST_READS = 256  # of events, before anything else
ATTEMPTS = 3  # to find a way that does not change meanwhile
END_SECONDS = 1.0  # that the end waits for a file system

REASONS = {
    errno.ENOSPC: "the system gives no more watches (fs.inotify.max_user_watches)",
    errno.EMFILE: "the system gives no more watches (fs.inotify.max_user_instances, ulimit -n)",
    errno.ENOSYS: "this system does not tell of changes",
}


class Ways:
    """The folders on the ways to some files, watched. OSError: the system has no watches to give."""

    def __init__(self) -> None:
        self._folders = FolderWatch()
        self._numbers: set[int] = set()
        self._entries: dict[int, set[str]] = {}  # those of interest in each folder, by its number
        self.fileno = self._folders.fileno
        self.close = self._folders.close

    def update(self, paths: Iterable[str]) -> dict[str, str]:
        """Watch the ways as they are now, and no other. Returns those of the paths for which the kernel would not tell of every
        change, each with the reason."""
        paths = list(paths)
        ways = ways_to(paths)
        for _ in range(ATTEMPTS):
            self._entries, obstacles = self._watch(ways)
            before, ways = ways, ways_to(paths)
            changed = {path for path in paths if places_on(ways[path]) != places_on(before[path])}
            if not changed:
                break
        else:
            obstacles.update(dict.fromkeys(changed, "the way to it keeps changing"))
        for number in self._numbers - self._entries.keys():
            self._folders.remove(number)
        self._numbers &= self._entries.keys()
        return obstacles

    def happened(self) -> bool:
        """Whether anything has become of the ways, or of the files."""
        found = False
        for _ in range(MOST_READS):
            events = self._folders.read()
            if not events:
                break
            for number, name in events:
                entries = self._entries.get(number)
                # What is told of a folder that is watched no more is old; of none at all (-1), that events were lost.
                found = found or number < 0 or (entries is not None and (name is None or name in entries))
        return found

    def _watch(self, ways: Mapping[str, list[Step]]) -> tuple[dict[int, set[str]], dict[str, str]]:
        entries: dict[int, set[str]] = {}
        obstacles: dict[str, str] = {}
        remote: dict[str, bool] = {}
        add = cache(self._folders.add)
        for path, way in ways.items():
            for step in way:
                last = step is way[-1]
                if last and step.errno == errno.ENOTDIR:  # a file where a folder should be: it was watched a step before
                    continue
                try:
                    number = add(step.folder, contents=last)
                    if step.folder not in remote:
                        remote[step.folder] = is_remote(step.folder)
                except FileNotFoundError:  # it has just gone; the next look finds another way
                    continue
                except OSError as exc:
                    obstacles[path] = reason_of(exc, step.folder)
                    continue
                self._numbers.add(number)
                entries.setdefault(number, set()).add(step.name)
                if remote[step.folder]:
                    obstacles[path] = "it is on a network file system"
            if not way:
                obstacles[path] = "the working folder is gone"
            elif path not in obstacles:
                end = way[-1]
                if end.errno not in (0, errno.ENOENT, errno.ENOTDIR):
                    obstacles[path] = reason_of(OSError(end.errno, os.strerror(end.errno)), os.path.join(end.folder, end.name))
                elif end.status is not None and stat.S_ISLNK(end.status.st_mode):
                    obstacles[path] = os.strerror(errno.ELOOP)
        return entries, obstacles


def ways_to(paths: Iterable[str]) -> dict[str, list[Step]]:
    look_at = cache(os.lstat)  # at each folder once, for many files have most of their way in common
    return {path: list(way_to(path, look_at)) for path in paths}


def places_on(way: Iterable[Step]) -> list[tuple[object, ...]]:
    """What makes two ways the same."""
    return [
        (step.folder, step.name, *((step.status.st_dev, step.status.st_ino) if step.status is not None else ())) for step in way
    ]


def reason_of(exc: OSError, folder: str = "") -> str:
    text = exc.strerror or str(exc)
    return REASONS.get(exc.errno or 0) or (f"{folder}: {text}" if folder else text)


def obstacles_to(paths: Iterable[str]) -> dict[str, str]:
    """Those of the paths that have to be looked at, and why: as `Ways.update`."""
    try:
        ways = Ways()
    except OSError as exc:
        return dict.fromkeys(paths, reason_of(exc))
    try:
        return ways.update(paths)
    finally:
        ways.close()


def told(obstacles: Mapping[str, str]) -> list[str]:
    """A line for each reason."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in obstacles.items():
        by_reason.setdefault(reason, []).append(path)
    return [
        f"{path}{f' and {len(more)} more are' if more else ' is'} looked at every {INTERVAL:g} s for changes: {reason}"
        for reason, (path, *more) in by_reason.items()
    ]


class FileWatch:
    """Calls `on_change` in its own thread when the files may have changed, at a quiet moment.

    write: gets a line about files that have to be looked at. polling: all of them, whatever the kernel can. interval, quiet: in
    seconds. The descriptors are there from the beginning; `start` makes the thread.
    """

    def __init__(
        self,
        on_change: Callable[[], object],
        write: Callable[[str], object],
        polling: bool = False,
        interval: float = INTERVAL,
        quiet: float = QUIET,
    ) -> None:
        self._on_change = on_change
        self._write = write
        self._interval = interval
        self._quiet = quiet
        self._marks: dict[str, Mark] = {}
        self._orders: list[Mapping[str, Mark]] = []  # the marks to go by from now on; the thread takes them
        self._closed = False
        self._next_round = 0.0  # when all is looked at, whatever the system tells
        self._looks = polling  # whether there are files that have to be looked at
        self._known: dict[str, str] = {}  # what was told of these
        self._ways: Optional[Ways] = None
        self._without = ""  # why there are no `_ways`
        if not polling:
            try:
                self._ways = Ways()
            except OSError as exc:
                self._without = reason_of(exc)
        self._wake_end, self._write_end = os.pipe()
        os.set_blocking(self._wake_end, False)
        os.set_blocking(self._write_end, False)
        self._nap = select.poll()
        self._nap.register(self._wake_end, select.POLLIN)
        self._poll = select.poll()
        self._poll.register(self._wake_end, select.POLLIN)
        if self._ways is not None:
            self._poll.register(self._ways.fileno(), select.POLLIN)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self, marks: Mapping[str, Mark]) -> None:
        """marks: of each file, as it was when it was read. RuntimeError: the system gives no thread."""
        self._orders.append(marks)
        self._thread.start()

    def follow(self, marks: Mapping[str, Mark]) -> None:
        """The files to watch from now on; marks as in `start`. From any thread."""
        self._orders.append(marks)
        self._wake()

    def close(self) -> None:
        """The end. A file system that does not answer keeps the thread, which ends with the process."""
        self._closed = True
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(END_SECONDS)
        if not self._thread.is_alive():
            if self._ways is not None:
                self._ways.close()
            os.close(self._wake_end)
            os.close(self._write_end)

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # it is full, so it will wake
            os.write(self._write_end, b"\0")

    # The thread

    def _run(self) -> None:
        while not self._closed:
            try:
                self._turn()
            except Exception:  # a mistake of this program, which must not end it
                log.exception("the watch of files has failed, and begins anew")
                self._next_round = 0.0
                self._nap.poll(ROUND * 1000)

    def _turn(self) -> None:
        happened = False
        if self._orders:
            self._marks = dict(self._orders.pop(0))
            self._next_round = 0.0
        else:
            happened = self._wait_for_event()
            if happened:
                self._wait_for_quiet()
            if self._closed or self._orders:  # whose marks tell of it
                return
        now = time.monotonic()
        if happened or now >= self._next_round:
            self._update()  # before anything is read: what happens from here on is a new change
            self._next_round = now + ROUND
        if self._look() and not happened:
            happened = True
            self._update()
        if happened:
            self._on_change()

    def _update(self) -> None:
        if self._ways is not None:
            obstacles = self._ways.update(self._marks)
        else:
            obstacles = dict.fromkeys(self._marks, self._without) if self._without else {}
        self._looks = self._ways is None or bool(obstacles)
        new = {path: reason for path, reason in obstacles.items() if self._known.get(path) != reason}
        self._known = obstacles
        for line in told(new):
            self._write(line)

    def _look(self) -> bool:
        """Whether any file is not as it was."""
        before = self._marks
        self._marks = {path: mark_at(path) for path in before}
        return self._marks != before

    def _wait_for_event(self) -> bool:
        """Until something has happened that counts (True), it is time for a look, or there is something to do (False)."""
        end = time.monotonic() + (self._interval if self._looks else ROUND)
        while not (self._closed or self._orders) and (left := end - time.monotonic()) > 0:
            ready = [descriptor for descriptor, _ in self._poll.poll(left * 1000)]
            if self._wake_end in ready:
                with suppress(BlockingIOError):
                    os.read(self._wake_end, 4096)
            elif ready:
                assert self._ways is not None
                if self._ways.happened():
                    return True
                self._nap.poll(BREATH * 1000)
        return False

    def _wait_for_quiet(self) -> None:
        for _ in range(MOST_QUIETS):
            self._nap.poll(self._quiet * 1000)
            if self._closed or self._orders or self._ways is None or not self._ways.happened():
                break
