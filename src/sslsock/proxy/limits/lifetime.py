"""How long connections may live, from accept to end (`--connection-lifetime`)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Optional

from ..observability import record

if TYPE_CHECKING:
    from ...core.event_loop import EventLoop
    from ...core.schedule import Timer
    from ..sessions.session import Session

__all__ = ["Lifetime"]


class Lifetime:
    """Of the connections of a worker that have the same one: they end in the order in which they began, so one timer is enough.

    seconds: above 0. Used in the thread of the loop.
    """

    def __init__(self, loop: EventLoop, seconds: float) -> None:
        self.seconds = seconds
        self._loop = loop
        # Oldest first. Not a dict: to find its first entry takes as long as entries were removed before it.
        self._sessions: OrderedDict[Session, None] = OrderedDict()
        self._timer: Optional[Timer] = None

    def add(self, session: Session) -> None:
        """It has begun."""
        self._sessions[session] = None
        if self._timer is None:
            self._timer = self._loop.call_later(self.seconds, self._look)

    def discard(self, session: Session) -> None:
        """It has ended, or has been told to."""
        self._sessions.pop(session, None)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._sessions:
            session = next(iter(self._sessions))
            left = session.started + self.seconds - now
            if left > 0:
                self._timer = self._loop.call_later(left, self._look)
                break
            del self._sessions[session]
            self._loop.call_soon(session.abort, record.LIFETIME)  # a mistake in one concerns no other
