"""The line at the bottom of a terminal: how many connections there are, and what has happened since it was last written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Callable

from .access_log import LineWriter
from .metrics import Counters, Totals, by_listener, total
from .record import ABORTED, DRAINED

__all__ = ["INTERVAL", "Summary", "end_line", "summary_line"]

INTERVAL = 2.0  # seconds between two `Summary.update`
MIB = 1 << 20


def summary_line(before: Totals, now: Totals, seconds: float) -> str:
    """What has changed from `before` to `now`, `seconds` later (above 0), as rates; failures since the start."""
    return (
        f"{now.active:,} connections, {(now.opened - before.opened) / seconds:,.0f} new/s, "
        f"{(now.handshakes - before.handshakes) / seconds:,.0f} handshakes/s, "
        f"forward {(now.forward - before.forward) / MIB / seconds:,.1f} MiB/s, "
        f"back {(now.back - before.back) / MIB / seconds:,.1f} MiB/s, {now.failures:,} failures"
    )


def end_line(workers: Sequence[Counters]) -> str:
    """What there was from the start to the end of the proxy."""
    sums = by_listener(workers).values()
    opened = sum(one.opened for one in sums)
    cut = sum(one.reasons.get(reason, 0) for one in sums for reason in (ABORTED, DRAINED))
    many, were = "" if opened == 1 else "s", "was" if cut == 1 else "were"
    return f"ended: {opened} connection{many} since the start; {cut} {were} cut at the end"


class Summary:
    """Writes the line when it is told to, every `INTERVAL` or so. On what is no terminal it does nothing.

    workers: their counters; may grow later. clock: seconds, monotonic.
    """

    def __init__(self, workers: Sequence[Counters], writer: LineWriter, clock: Callable[[], float] = time.monotonic) -> None:
        self._workers = workers
        self._writer = writer
        self._clock = clock
        self._before = total(workers)
        self._moment = clock()

    @property
    def wanted(self) -> bool:
        """False where `update` has no effect."""
        return self._writer.is_terminal

    def update(self) -> None:
        if not self.wanted:
            return
        moment = self._clock()
        seconds = moment - self._moment
        if seconds <= 0:
            return
        now = total(self._workers)
        line = summary_line(self._before, now, seconds)
        self._before, self._moment = now, moment
        # A line that wraps could not be erased: one column stays free, as terminals wrap when the last one is written.
        self._writer.status(line[: self._writer.columns - 1])
