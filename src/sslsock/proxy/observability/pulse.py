"""Whether the workers are alive: each is asked again and again, and answers when its loop turns."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Callable

from ...core.event_loop import EventLoop

__all__ = ["SILENCE_SECONDS", "Pulse"]

SILENCE_SECONDS = 10.0  # without a sign of life of a worker: something is wrong


class Pulse:
    """The beats of some loops. Made and `ask`ed in one thread, read in any."""

    def __init__(self, loops: Iterable[EventLoop], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beats = dict.fromkeys(loops, clock())

    def ask(self) -> None:
        """Have each loop answer in its next turn. One that has ended is not asked again: that is not its death."""
        for loop in list(self._beats):
            try:
                loop.call_soon_threadsafe(self._beat, loop)
            except RuntimeError:
                with suppress(KeyError):
                    del self._beats[loop]

    def _beat(self, loop: EventLoop) -> None:
        if loop in self._beats:
            self._beats[loop] = self._clock()

    def silence(self) -> float:
        """Seconds since the loop that was heard longest ago has answered; 0 where all have ended."""
        now = self._clock()
        return max((now - beat for beat in list(self._beats.values())), default=0.0)
