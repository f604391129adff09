"""Session ticket keys of the proxy: from a file that a fleet shares (`--ticket-key-file`), or random ones in memory.

Owns no timer and no log: the server calls `check` or `turn` now and then, from one thread, and says what went wrong. All
contexts of all threads share the one `TicketKeys`. docs/proxy-tickets.md describes the file and how a fleet changes its keys.
"""

from __future__ import annotations

import binascii
import os
import stat
import time
from collections.abc import Sequence
from typing import Optional, Protocol

from ...core.context import TICKET_LIFETIME
from ...core.ticket_keys import KEY_SIZE, MOST_KEYS
from ..files import reading as files
from ..files.reading import Mark, mark_at, mark_of

__all__ = ["SealingKeys", "TicketKeyError", "TicketKeyFile", "TicketRotation"]

NAME_SIZE = 16  # bytes of a key that name it
MOST_BYTES = 65536  # of a file; sixteen keys take 1,744
EXPOSED = stat.S_IRWXO | stat.S_IWGRP


class SealingKeys(Protocol):
    """Of `TicketKeys`: what changes them."""

    @property
    def older(self) -> int: ...
    def rotate(self) -> None: ...
    def replace(self, keys: Sequence[bytes], /) -> None: ...


class TicketKeyError(Exception):
    """A ticket key file that cannot be used. Its text begins with the path, and the line where there is one."""


def parse_ticket_keys(text: bytes, path: str) -> list[bytes]:
    """The keys in a file's text, first key first. `path` is for the messages of TicketKeyError, which never quote a line."""
    keys: list[bytes] = []
    lines: dict[bytes, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith(b"#"):
            continue
        try:
            key = binascii.a2b_base64(line)
        except binascii.Error:
            key = b""
        # Most decoders skip what is no base64, and stop at padding: what was read must be all there is.
        if binascii.b2a_base64(key, newline=False) != line:
            raise TicketKeyError(f"{path}:{number}: not base64")
        if len(key) != KEY_SIZE:  # `openssl rand -base64 80` breaks the line after 48
            raise TicketKeyError(f"{path}:{number}: {len(key)} bytes; a ticket key has {KEY_SIZE}, on one line (base64 -w0)")
        if len(keys) == MOST_KEYS:
            raise TicketKeyError(f"{path}:{number}: more than {MOST_KEYS} keys")
        name = key[:NAME_SIZE]
        if name in lines:
            raise TicketKeyError(
                f"{path}:{number}: the key's name (its first {NAME_SIZE} bytes) is that of the key in line {lines[name]}"
            )
        lines[name] = number
        keys.append(key)
    if not keys:
        raise TicketKeyError(f"{path}: no key")
    return keys


class TicketKeyFile:
    """A file of ticket keys, read again when it changes.

    One key a line, the one that seals first, each the base64 of 80 bytes (`openssl rand 80 | base64 -w0`); blank lines and
    lines that begin with "#" are skipped; 1 to 16 keys. Symbolic links are followed, for mounted secrets are swapped by one.
    The group may read the file, for that is how secrets are mounted for a user; it may not write it, and others may do
    neither.

    path: str. keys: what `load` and `check` fill.
    """

    def __init__(self, path: str, keys: SealingKeys) -> None:
        self.path = path
        self.keys = keys
        self._seen: Optional[Mark] = None  # what was looked at last, good or bad
        self._written = 0.0  # when the keys in force were, in seconds since the epoch

    def load(self) -> None:
        """Read the file now. TicketKeyError says what is wrong with it; the keys are then as they were."""
        try:
            text, written = self._read()
            self.keys.replace(parse_ticket_keys(text, self.path))
            self._written = written
        except OSError as error:
            raise TicketKeyError(f"{self.path}: {error.strerror}") from error

    def check(self) -> bool:
        """Read the file if it is not as it was when it was looked at last; returns whether it was read. TicketKeyError as with
        `load`, once for each bad state of the file."""
        mark = mark_at(self.path)
        if mark == self._seen:
            return False
        self._seen = mark
        self.load()
        return True

    def age(self) -> float:
        """Seconds since the keys in force were written."""
        return max(0.0, time.time() - self._written)

    def _read(self) -> tuple[bytes, float]:
        descriptor = files.open_file(self.path)
        try:
            status = os.fstat(descriptor)
            self._seen = mark_of(status)
            if not stat.S_ISREG(status.st_mode):
                raise TicketKeyError(f"{self.path}: not a regular file")
            if status.st_mode & EXPOSED:
                raise TicketKeyError(
                    f"{self.path}: permissions {stat.S_IMODE(status.st_mode):04o} expose the keys: nobody but its owner may "
                    "write the file, nobody but its group read it (0640 or less)"
                )
            with open(descriptor, "rb", closefd=False) as file:
                text = file.read(MOST_BYTES + 1)
        finally:
            os.close(descriptor)
        if len(text) > MOST_BYTES:
            raise TicketKeyError(f"{self.path}: longer than {MOST_BYTES} bytes")
        return text, status.st_mtime


class TicketRotation:
    """Random keys in memory: a new one every so often, and none that lives for longer than `key_lifetime`.

    With the default of twelve hours and two older keys a new key comes every four hours. A ticket sealed at the last moment of
    its key is opened for eight hours more, which is longer than tickets live (two hours, `TICKET_LIFETIME`).

    key_lifetime: seconds from a key's making to its end. now: seconds of the clock that `turn` is given. ValueError for a
    lifetime in which tickets would outlive their keys.
    """

    def __init__(self, keys: SealingKeys, now: float, key_lifetime: float = 12 * 3600.0) -> None:
        self.keys = keys
        self.period = key_lifetime / (keys.older + 1)
        if self.period * keys.older < TICKET_LIFETIME:
            raise ValueError(
                f"with {keys.older} older keys and a lifetime of {key_lifetime:.0f} s, keys would not outlive their tickets "
                f"({TICKET_LIFETIME} s)"
            )
        self.due = now + self.period

    def age(self) -> float:
        """Seconds since the last change of keys, by the clock time.monotonic()."""
        return max(0.0, time.monotonic() - (self.due - self.period))

    def turn(self, now: float) -> bool:
        """Change the key if it is time to; returns whether it was. `due` is when to call next."""
        if now < self.due:
            return False
        # One change for each period that has passed: after a long sleep the old keys are past their end.
        missed = int((now - self.due) // self.period)
        for _ in range(min(missed, self.keys.older) + 1):
            self.keys.rotate()
        self.due += (missed + 1) * self.period
        return True
