"""The place of a member, as the front sees it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from ..back_ends.health import Health
    from .line import Line
    from .member import Report

__all__ = ["Seat", "is_examined"]


class Seat:
    """line: None while there is none. ready: it accepts. plan: the number of the one that it goes by; told: of the last that it
    was sent. problem: why it cannot. gone: its line has ended; over: there will be no other. asked, answered: the last question
    that it was sent, and that it has answered. finished: it has reported for the last time, or nobody waits for that. pause:
    seconds until the next one is begun after one that has lived for a short time. loads: the healths that its report has
    counts for.

    By the clock of `Vigil`: since: when it was begun; questioned: when it was last asked; beat: when it last gave a sign of
    life; left: when its line ended; of `since` and `left`, as long as the nursery is to tell more, when that last told
    something of anybody. silent: it is told that it gives none; killed: for that.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.line: Optional[Line] = None
        self.pid = self.plan = self.told = 0
        self.ready = self.gone = self.over = self.silent = self.killed = self.finished = False
        self.problem = ""
        self.report: Optional[Report] = None
        self.asked = self.answered = 0
        self.beat = self.since = self.questioned = self.left = 0.0
        self.pause = 0.0
        self.loads: list[Health] = []

    @property
    def name(self) -> str:
        """For the log."""
        return f"worker process {self.number + 1}{f' (pid {self.pid})' if self.pid else ''}"

    @property
    def accepts(self) -> bool:
        return self.ready and not self.gone

    @property
    def takes_more(self) -> bool:
        """Whether new clients are to come to it."""
        return self.accepts and not self.silent and not (self.report is not None and self.report.full)

    @property
    def awaits_nursery(self) -> bool:
        """Whether it is the nursery that is yet to tell something: of a beginning, or of a process that has ended."""
        return not self.pid or (self.gone and not is_running(self.pid))

    def nursery_lives(self, now: float) -> None:
        """It has told something: of many that ended at once this one's turn may be yet to come."""
        if self.gone:
            self.left = now
        elif not self.pid:
            self.since = now

    def silence(self, now: float) -> float:
        """Seconds that somebody waits for a sign of life."""
        if self.line is None:
            return 0.0
        if self.gone:
            return now - self.left  # that its end is not told
        if not self.ready:
            return now - self.since
        return now - max(self.beat, self.questioned) if self.asked > self.answered else 0.0


def is_running(pid: int) -> bool:
    """Not so once it has ended, even if nobody has asked yet how (a zombie)."""
    return re.search(r"^State:\s*[^ZX\s]", status_of(pid), re.MULTILINE) is not None


def is_examined(pid: int) -> bool:
    """Whether a process stands still for a debugger, or while its memory is written down (core(5))."""
    return re.search(r"^(TracerPid|CoreDumping):\s*[1-9]", status_of(pid), re.MULTILINE) is not None


def status_of(pid: int) -> str:
    """As proc_pid_status(5) has it; empty for one that has ended, and where the system tells it in another way."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return file.read()
    except OSError:
        return ""
