"""How many connections, or handshakes, may begin in a time: who comes too early is told how long to wait.

By GCRA (ITU-T I.371, annex A), which is a token bucket whose content is told by one number. Turns are given away in the order
in which they are asked for, and one that is not taken is lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from ...core.shared_paces import SharedPaces
    from ..policy import ListenerPolicy
    from ..settings.model import Limits, Rate
    from .shares import Shares

__all__ = ["Pace", "Paces", "wait_for_all"]

NANO = 1e9


class Pace:
    """rate: (nanoseconds for one, how many at once); (0, 1) for no limit. From any thread."""

    def __init__(self, rate: tuple[int, int] = (0, 1)) -> None:
        self._lock = threading.Lock()
        self._interval, self._burst = rate
        self._full_at = 0  # when there may be `burst` at once again

    @property
    def rate(self) -> Rate:
        return self._interval, self._burst

    @property
    def limited(self) -> bool:
        return self._interval > 0

    def follow(self, rate: tuple[int, int]) -> None:
        """Go by another one from now on."""
        with self._lock:
            if rate != (self._interval, self._burst):
                self._interval, self._burst = rate
                self._full_at = 0

    def take(self, patience: Optional[float] = None, now: Optional[int] = None) -> Optional[float]:
        """Take the next turn. Returns how many seconds there are until then, 0 for none; None: more than `patience`, so it was
        not taken. now: of the monotonic clock, in nanoseconds."""
        if not self._interval:
            return 0.0
        if now is None:
            now = time.monotonic_ns()
        with self._lock:
            full_at = max(self._full_at, now)
            wait = max(full_at - now - self._interval * (self._burst - 1), 0) / NANO
            if patience is not None and wait > patience:
                return None
            self._full_at = full_at + self._interval
            return wait


class SharedPace(Pace):
    """That of all worker processes. number: in `paces`."""

    def __init__(self, paces: SharedPaces, number: int) -> None:
        super().__init__()
        self._paces = paces
        self._number = number

    def follow(self, rate: tuple[int, int]) -> None:
        self._interval, self._burst = rate
        self._paces.follow(self._number, *rate)

    def take(self, patience: Optional[float] = None, now: Optional[int] = None) -> Optional[float]:
        return self._paces.take(self._number, patience, now)


class Paces:
    """Those of a process: of all its connections and handshakes, and of each listener's.

    shares: of the worker processes that go by them together.
    """

    def __init__(self, shares: Optional[Shares] = None) -> None:
        self._shares = shares
        self._paces: dict[tuple[str, str], Pace] = {}  # of a listener, "" of all; of what
        self._limited: dict[tuple[str, str], tuple[Pace, ...]] = {}  # what its connections or handshakes have to go by

    def follow(self, limits: Limits, policies: Sequence[ListenerPolicy]) -> None:
        """Go by these settings from now on."""
        limited = {}
        for what in ("connection_rate", "handshake_rate"):
            of_all = self._pace("", what, getattr(limits, what))
            for policy in policies:
                own = self._pace(policy.name, what, getattr(policy.settings, what))
                limited[policy.name, what] = tuple(pace for pace in (own, of_all) if pace.limited)
        self._limited = limited

    def _pace(self, name: str, what: str, rate: Rate) -> Pace:
        pace = self._paces.get((name, what))
        if pace is None:
            pace = self._paces[name, what] = self._make(name, what)
        pace.follow(rate)
        return pace

    def _make(self, name: str, what: str) -> Pace:
        return Pace() if self._shares is None else SharedPace(self._shares.paces, self._shares.pace_numbers[name, what])

    def of_connections(self, name: str) -> tuple[Pace, ...]:
        """Those that a connection of this listener goes by."""
        return self._limited.get((name, "connection_rate"), ())

    def rates(self, name: str) -> tuple[Rate, ...]:
        """What `of_connections` goes by."""
        return tuple(pace.rate for pace in self.of_connections(name))

    def of_handshakes(self, name: str) -> tuple[Pace, ...]:
        return self._limited.get((name, "handshake_rate"), ())


def wait_for_all(paces: tuple[Pace, ...], patience: Optional[float] = None) -> Optional[float]:
    """The turn that is one by all of them."""
    longest = 0.0
    for pace in paces:
        wait = pace.take(patience)
        if wait is None:
            return None
        longest = max(longest, wait)
    return longest
