"""Lines about connections that a list or a limit has kept out: one a minute for each listener and reason."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Callable

from ..observability.access_log import WARNING, LineWriter
from ..observability.metrics import Counters, by_listener
from ..observability.record import HANDSHAKE_RATE, VERDICTS
from .networks import address_text

__all__ = ["PERIOD", "RefusalLog"]

PERIOD = 60.0  # seconds between two lines about the same

WHAT = {**dict(VERDICTS.values()), HANDSHAKE_RATE: "handshake-rate"}  # the limit of a reason


class RefusalLog:
    """Writes them when it is told to look. workers: their counters; may grow later. clock: seconds, monotonic."""

    def __init__(self, workers: Sequence[Counters], writer: LineWriter, clock: Callable[[], float] = time.monotonic) -> None:
        self._workers = workers
        self._writer = writer
        self._clock = clock
        self._told: dict[tuple[str, str], tuple[int, float]] = {}  # of each listener and reason: how many, when

    def update(self) -> None:
        now = self._clock()
        for listener, sums in by_listener(self._workers).items():
            for reason, count in sums.refused.items():
                before, moment = self._told.get((listener, reason), (0, now - PERIOD))
                if count == before or now - moment < PERIOD:
                    continue
                self._told[listener, reason] = count, now
                text = f"{listener}: connections refused: {count - before} ({reason}: {WHAT[reason]})"
                last = self._latest(listener, reason)
                self._writer.write(f"{text}{f', one of the last from {last}' if last else ''}", WARNING)

    def _latest(self, listener: str, reason: str) -> str:
        """The address of one that a door has refused."""
        for worker in self._workers:
            counters = worker.listeners.get(listener)
            for door in counters.doors.copy() if counters is not None else ():
                for verdict, _, address in door.refused():
                    if VERDICTS[verdict][0] == reason:
                        return address_text(address)
        return ""
