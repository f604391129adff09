"""What all workers know of a back end: what its checks have said, and how many connections it has.

A `Health` is shared. One thread writes the results of checks (`checks`), each worker its own count of connections; all read.
Each value is read whole, and none depends on another, so there is no lock.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Optional
from weakref import WeakValueDictionary

from ..observability.access_log import INFO, WARNING, LineWriter

__all__ = ["HESITATION", "Board", "Health", "Verdict"]

HESITATION = 0.5  # seconds without an answer, after which a back end is suspected to be a black hole


Verdict = tuple[bool, Optional[bool], str, float, float, float]
"""All that checks say of a back end: `watched`, `up`, `reason`, `moment`, `asked_at`, `good_at`."""


class Health:
    """Of one address of a back end, for connections of one manner.

    key: of its board. name: as in `--to`, without its scheme; peer: the address behind it. counts: connections that each worker
    has with it or is making. watched: whether it is checked; up: what the checks say, None: nothing yet; reason: of the failure
    that has taken it down. moment: when that has changed last; asked_at: when the check under way began, 0: none is; good_at:
    when the last one began that went well. All by the loops' clock. passed, failed: checks, since it is known.
    """

    __slots__ = (
        *("__weakref__", "asked_at", "counts", "failed", "good_at", "key", "moment", "name", "passed", "peer", "reason", "up"),
        "watched",
    )

    def __init__(self, name: str = "", peer: str = "", workers: int = 1, key: Hashable = None) -> None:
        self.key = key
        self.name = name
        self.peer = peer
        self.counts = [0] * workers
        self.watched = False
        self.up: Optional[bool] = None
        self.reason = ""
        self.moment = self.asked_at = self.good_at = 0.0
        self.passed = self.failed = 0

    @property
    def undecided(self) -> bool:
        """Its first check is under way."""
        return self.watched and self.up is None

    @property
    def down(self) -> bool:
        return self.watched and self.up is False

    def trusted(self, now: float) -> bool:
        """Whether its checks speak for it."""
        return bool(self.up) and not (self.asked_at and now - self.asked_at > HESITATION)

    @property
    def verdict(self) -> Verdict:
        return self.watched, self.up, self.reason, self.moment, self.asked_at, self.good_at

    def take(self, verdict: Verdict) -> None:
        """What another process has found out."""
        self.watched, self.up, self.reason, self.moment, self.asked_at, self.good_at = verdict

    def unwatch(self) -> None:
        """It is checked no more, and what the checks have said is forgotten."""
        self.watched = False
        self.up = None
        self.asked_at = 0.0


class Board:
    """The healths of a process. workers: how many there are. From any thread."""

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        # Weak: what no worker uses any more is forgotten.
        self._healths: WeakValueDictionary[Hashable, Health] = WeakValueDictionary()
        self._said: dict[str, str] = {}

    def find(self, key: Hashable, name: str, peer: str) -> Health:
        """The one that is meant by `key`; made where it is not known."""
        with self._lock:
            health = self._healths.get(key)
            if health is None:
                health = self._healths[key] = Health(name, peer, self._workers, key)
            return health

    def note_lookup(self, address: str, error: str, writer: LineWriter) -> None:
        """A worker has looked up the name of a back end; error: "" where it was found. What another has said last is not said
        again."""
        text = f"its name was not found: {error}" if error else "its name was found again"
        with self._lock:
            before, self._said[address] = self._said.get(address), text
        if before != text:
            writer.write(f"{address}: {text}", WARNING if error else INFO)

    def all(self) -> list[Health]:
        with self._lock:
            return list(self._healths.values())
