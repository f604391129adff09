"""When a certificate is renewed, and when it is tried again. All times are seconds since the epoch, and nothing here waits."""

from __future__ import annotations

import random
from typing import NamedTuple, Optional

__all__ = ["Pace", "Window", "next_question", "renewal_moment"]

DAY = 86400.0
SPREAD = 1 / 20  # of a lifetime, so that not all who have begun together come together

# However young it may be renewed: an authority that always suggests the past would be asked for certificates without end.
YOUNG = 6 * 3600.0  # seconds
YOUNG_PART = 1 / 10  # of a lifetime, if that is less

LEAST_QUESTION, MOST_QUESTION = 60.0, DAY  # RFC 9773, 4.3.2: reasonable bounds for Retry-After
QUESTION = 6 * 3600.0  # where the authority does not say


class Window(NamedTuple):
    """When the authority wants a certificate to be renewed: RFC 9773, 4.2."""

    start: float
    end: float


def renewal_moment(
    not_before: float, not_after: float, window: Optional[Window] = None, chance: Optional[float] = None
) -> float:
    """A moment in the window, if it is not too young then, else from two thirds of the lifetime on.

    chance: 0 to 1, of where in it; None: it falls anywhere, each time anew (RFC 9773, 4.2: uniform).
    """
    chance = random.random() if chance is None else chance
    lifetime = not_after - not_before
    if window is not None:
        grown_up = not_before + min(YOUNG, lifetime * YOUNG_PART)
        return max(window.start + (window.end - window.start) * chance, grown_up)
    return not_before + lifetime * (2 / 3 + SPREAD * chance)


def next_question(now: float, retry_after: Optional[float]) -> float:
    """When to ask for the window again. retry_after: seconds."""
    wait = QUESTION if retry_after is None else min(max(retry_after, LEAST_QUESTION), MOST_QUESTION)
    return now + wait


class Pace(NamedTuple):
    """How long it takes from a failure to the next attempt: doubled each time, with a jitter.

    With the first after a minute, five attempts take half an hour, and Let's Encrypt allows five validations of a name that
    fail in an hour.
    """

    first: float = 60.0
    most: float = 6 * 3600.0

    def wait(self, failures: int, retry_after: Optional[float] = None, chance: Optional[float] = None) -> float:
        """Seconds after that many failures in a row. retry_after: what the authority asked for, at the least."""
        chance = random.random() if chance is None else chance
        wait = min(self.first * 2.0 ** min(failures - 1, 32), self.most) * (0.75 + chance / 2)
        return max(wait, (retry_after or 0.0) * (1 + chance / 10))
