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
    from .policy import ListenerPolicy
    from .settings import Limits

__all__ = ["Pace", "Paces", "wait_for_all"]

NANO = 1e9


class Pace:
    """rate: (nanoseconds for one, how many at once); (0, 1) for no limit. From any thread."""

    def __init__(self, rate: tuple[int, int] = (0, 1)) -> None:
        self._lock = threading.Lock()
        self._interval, self._burst = rate
        self._full_at = 0  # when there may be `burst` at once again

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


class Paces:
    """Those of a process: of all its connections and handshakes, and of each listener's."""

    def __init__(self) -> None:
        self._connections, self._handshakes = Pace(), Pace()
        self._of_listeners: dict[str, tuple[Pace, Pace]] = {}

    def follow(self, limits: Limits, listeners: Sequence[ListenerPolicy]) -> None:
        """Go by these settings from now on."""
        self._connections.follow(limits.connection_rate)
        self._handshakes.follow(limits.handshake_rate)
        for policy in listeners:
            connections, handshakes = self._of_listeners.setdefault(policy.name, (Pace(), Pace()))
            connections.follow(policy.settings.connection_rate)
            handshakes.follow(policy.settings.handshake_rate)

    def of_connections(self, policy: ListenerPolicy) -> tuple[Pace, ...]:
        """Those that a connection of this listener goes by."""
        own = self._of_listeners.get(policy.name)
        return (self._connections,) if own is None else (own[0], self._connections)

    def of_handshakes(self, policy: ListenerPolicy) -> tuple[Pace, ...]:
        own = self._of_listeners.get(policy.name)
        return (self._handshakes,) if own is None else (own[1], self._handshakes)


def wait_for_all(paces: tuple[Pace, ...], patience: Optional[float] = None) -> Optional[float]:
    """The turn that is one by all of them."""
    longest = 0.0
    for pace in paces:
        wait = pace.take(patience)
        if wait is None:
            return None
        longest = max(longest, wait)
    return longest
