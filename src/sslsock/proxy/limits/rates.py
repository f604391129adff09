"""How many connections, or handshakes, may begin in a time (core/rate_limits.pyx), of all listeners and of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

from ...core.rate_limits import RateLimits

if TYPE_CHECKING:
    from ..policy import ListenerPolicy
    from ..settings.model import Limits, Rate
    from .shares import Shares

__all__ = ["RATES", "Rates", "rate_numbers"]

RATES = ("connection_rate", "handshake_rate")  # of `Limits` and of `ListenerSettings`
ALL = ""  # in place of a listener's name


def rate_numbers(listeners: Sequence[str]) -> dict[tuple[str, str], int]:
    """Of each listener, and of all: (name or `ALL`, one of `RATES`) → the number in `RateLimits`.

    Listeners at port 0 may have the same name, and are one here."""
    names = dict.fromkeys((ALL, *listeners))
    return {key: number for number, key in enumerate((name, what) for name in names for what in RATES)}


class Rates:
    """Those of a process.

    listeners: their names. shares: of the worker processes that go by them together. connections, handshakes: what those of a
    listener go by, by its name: its own rate, and that of all.
    """

    def __init__(self, listeners: Sequence[str], shares: Optional[Shares] = None) -> None:
        self._numbers = rate_numbers(listeners)
        self._limits = RateLimits(len(self._numbers)) if shares is None else shares.rates
        self.connections, self.handshakes = (
            {name: self._limits.limiter((self._numbers[name, what], self._numbers[ALL, what])) for name in listeners}
            for what in RATES
        )

    @property
    def handshakes_in_force(self) -> dict[str, tuple[Rate, ...]]:
        """By what rates handshakes of each listener go now."""
        return {name: limiter.in_force for name, limiter in self.handshakes.items()}

    def follow(self, limits: Limits, policies: Sequence[ListenerPolicy]) -> None:
        """Go by these settings from now on."""
        for what in RATES:
            self._limits.follow(self._numbers[ALL, what], *getattr(limits, what))
            for policy in policies:
                self._limits.follow(self._numbers[policy.name, what], *getattr(policy.settings, what))
