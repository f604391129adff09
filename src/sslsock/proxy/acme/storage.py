"""Where the account, the certificates and the questions of the authority are kept: a folder, which several proxies may share.

Nothing is lost by a crash at any moment: what is written stands complete under another name, on the disk, before it takes the
place of what was there (rename(2)), and then the folder is written, too. Whoever orders holds the lock, and no one else writes.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Optional, Protocol

if TYPE_CHECKING:
    from ..fleet.member import Access

__all__ = ["FileStorage", "Storage"]

FRESH = ".new-"  # begins the name of what is being written
LOCK = "lock"


class Storage(Protocol):
    """Values by names, which have the form of relative paths: "certificates/example.com.pem". OSError from each method."""

    def start(self) -> None:
        """The proxy runs, as whom it is to: threads may be started."""

    def log_in(self, access: Access) -> None:
        """Where it is the fleet's: how, from now on. From any thread."""

    def read(self, name: str) -> Optional[bytes]:
        """None: there is none. From any thread; of a challenge, it does not wait."""

    def write(self, name: str, data: bytes) -> None:
        """When it returns, the value is there for good. For whoever holds the lock."""

    def remove(self, name: str) -> None:
        """No effect where there is none. For whoever holds the lock."""

    def lock(self) -> AbstractContextManager[bool]:
        """What the block gets says whether it holds the lock; False: somebody else does. It never waits."""


class FileStorage:
    """In a folder, which is its owner's alone."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def prepare(self, uid: int = -1, gid: int = -1) -> None:
        """Make the folder where there is none. uid, gid: whose it becomes then; -1: who makes it. OSError; PermissionError for
        one that others may look into."""
        made = False
        try:
            os.makedirs(os.path.dirname(self._folder) or ".", mode=0o755, exist_ok=True)
            os.mkdir(self._folder, 0o700)
            made = True
        except FileExistsError:
            pass
        if made and (uid, gid) != (-1, -1):
            os.chown(self._folder, uid, gid)
        if not made and os.stat(self._folder).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise PermissionError(0, "others than its owner may look into it: chmod 0700", self._folder)

    def start(self) -> None:
        """There is nothing to do."""

    def log_in(self, access: Access) -> None:
        """It is not the fleet's."""

    def read(self, name: str) -> Optional[bytes]:
        try:
            with open(self._path(name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            sync_folder(os.path.dirname(folder))
        descriptor, fresh = tempfile.mkstemp(prefix=FRESH, dir=folder)  # mode 0600
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(fresh)
            raise
        sync_folder(folder)

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._path(name))

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Of the whole folder (flock(2)): it ends with its holder, however that ends."""
        descriptor = os.open(os.path.join(self._folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                self._sweep()
                yield True
        finally:
            os.close(descriptor)

    def _sweep(self) -> None:
        """Remove what a crash has left half written: nobody else writes now."""
        for folder, _, names in os.walk(self._folder):
            for name in names:
                if name.startswith(FRESH):
                    with suppress(OSError):
                        os.unlink(os.path.join(folder, name))

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, *name.split("/"))


def sync_folder(folder: str) -> None:
    descriptor = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
