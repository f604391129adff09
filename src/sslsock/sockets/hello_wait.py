"""HelloWait: the time between `start_server_encryption` and the handshake of a socket with a `client_hello_handler`.

    AWAITED --the ClientHello is complete--> DECIDING (inside the handler) --hold_handshake--> HELD

It ends when the handshake begins (after the handler, or by `continue_handshake`), when somebody else takes the channel over,
or with the connection. Until then TLS has not started: what the client has sent lies unread in the channel, and what the
program writes is held there. The deadline of the handshake runs all the time.
"""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING, Callable, Optional

from ..core.client_hello import MAX_CLIENT_HELLO

if TYPE_CHECKING:
    from ..core.channel import Channel
    from ..core.loop import Loop
    from ..core.schedule import Timer

__all__ = ["HelloPhase", "HelloWait"]

LEAST_SECONDS = 0.001  # 0 would be no limit


class HelloPhase(Enum):
    """How far it is."""

    AWAITED = "awaited"
    DECIDING = "deciding"
    HELD = "held"


class HelloWait:
    """What belongs to the wait: the channel that is waited on, the phase and the deadline.

    timeout: seconds, 0 for no limit. overdue: called with the wait when they have passed.
    """

    __slots__ = ("_end", "_timer", "channel", "phase")

    def __init__(self, loop: Loop, channel: Channel, timeout: float, overdue: Callable[[HelloWait], object]) -> None:
        self.channel = channel
        self.phase = HelloPhase.AWAITED
        self._end = time.monotonic() + timeout
        # Whatever bound the program has set: a ClientHello must find room, and no client more than that.
        channel.read_bound = MAX_CLIENT_HELLO
        self._timer: Optional[Timer] = loop.call_later(timeout, overdue, self) if timeout > 0 else None

    def leave(self) -> float:
        """The wait is over. Returns the seconds that are left for the handshake, 0.0 for no limit."""
        timer, self._timer = self._timer, None
        if timer is None:
            return 0.0
        timer.cancel()
        return max(self._end - time.monotonic(), LEAST_SECONDS)
