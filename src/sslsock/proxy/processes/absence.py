"""Whom new clients are kept from: places where nobody is, and members that stand still or can take no more.

Each member has to be told, for any of them may be stuck. Of many that come and go at once every change would wake all: so what
changes soon after another change is told together with what follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

from ...core.event_loop import EventLoop
from .seat import Seat

__all__ = ["Absence"]

TOGETHER_SECONDS = 0.1


class Absence:
    """numbers: of the seats concerned, as told last, ascending. tell: called with them when there are others."""

    def __init__(self, loop: EventLoop, seats: Sequence[Seat], tell: Callable[[list[int]], object]) -> None:
        self._loop = loop
        self._seats = seats
        self._tell = tell
        self._ended = self._told_lately = False
        self.numbers: list[int] = []

    def look(self) -> None:
        """Something may have changed."""
        if self._told_lately:
            return
        absent = [] if self._ended else [seat.number for seat in self._seats if not seat.takes_more]
        if len(absent) == len(self._seats):  # all wait
            absent = []
        if absent != self.numbers:
            self.numbers = absent
            self._told_lately = True
            self._loop.call_later(TOGETHER_SECONDS, self._look_again)
            self._tell(absent)

    def _look_again(self) -> None:
        self._told_lately = False
        self.look()

    def end(self) -> None:
        """Nobody is concerned from now on: sockets that nobody has are about to be closed."""
        self._ended = True
