"""Who stands still among the members, stopped or hung: it is told, and then ended, so that another can take its place.

A member that is only busy answers between two turns of its loop, which are short. What stops all of them, and the front with
them (a machine that sleeps, a frozen container), is nobody's silence: the clock here counts the time that the front was awake.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Callable

from ...core.event_loop import EventLoop
from ..observability.access_log import ERROR, LineWriter
from ..observability.pulse import SILENCE_SECONDS
from .seat import Seat, is_examined

__all__ = ["BEGIN_SECONDS", "HUNG_SECONDS", "AwakeClock", "Vigil", "kill"]

LOOK_SECONDS = 1.0  # from one look to the next
STEP = 2 * LOOK_SECONDS  # what is longer than this between two looks was slept through
HUNG_SECONDS = 25.0  # without a sign of life, until one is ended: before Kubernetes' liveness probe has failed three times
BEGIN_SECONDS = 60.0  # until one is that does not come to accept connections


class AwakeClock:
    """Seconds that this process was awake. now: at the last look. clock: seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked = clock()
        self.now = 0.0

    def look(self) -> float:
        looked = self._clock()
        self.now += min(looked - self._looked, STEP)
        self._looked = looked
        return self.now


class Vigil:
    """clock: by which the seats tell times. who: the name and the process of who is silent in a seat, 0: none that is known.
    give_up: called with a seat where that is so."""

    def __init__(
        self,
        loop: EventLoop,
        clock: AwakeClock,
        seats: Sequence[Seat],
        writer: LineWriter,
        who: Callable[[Seat], tuple[str, int]],
        give_up: Callable[[Seat], object],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._seats = seats
        self._writer = writer
        self._who = who
        self._give_up = give_up
        self._begin_seconds = BEGIN_SECONDS

    def start(self, seconds: float) -> None:
        """Look from now on. seconds: that the first members have taken to begin, all at once."""
        self._begin_seconds = BEGIN_SECONDS + 2 * seconds
        self._look_again()

    def _look_again(self) -> None:
        self.look()
        self._loop.call_later(LOOK_SECONDS, self._look_again)

    def look(self) -> None:
        now = self._clock.look()
        for seat in self._seats:
            self._judge(seat, seat.silence(now))

    def _judge(self, seat: Seat, silence: float) -> None:
        if silence <= SILENCE_SECONDS or seat.killed:
            return
        name, pid = self._who(seat)
        beginning = pid == seat.pid and not seat.ready
        text = f"{name} has not answered for {silence:.0f} s"
        if beginning:
            text = f"{name} was begun {silence:.0f} s ago and does not accept connections"
        if silence > (self._begin_seconds if beginning else HUNG_SECONDS) and not is_examined(pid):
            seat.killed = True
            self._writer.write(f"{text}: it is killed", ERROR)
            kill(pid)
            if not pid:
                self._give_up(seat)
        elif not seat.silent:
            seat.silent = True
            self._writer.write(text, ERROR)


def kill(pid: int) -> None:
    """A process, if there is one."""
    if pid:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
