"""How many connections the whole process may have at once, and which of them may still be shaking hands.

A connection has a place from its accept to its end. Handshakes (with a PROXY header, where one is expected) get three quarters
of the places at the most: the rest is for connections that have none to make or are done with it. When a client waits and no
place is left for it, the oldest handshake gives way, if it has had its time: less for a client that has said nothing at all,
for who has something to say has said it by the time that it is accepted. So clients that connect and are silent keep nobody
out, however many they are.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING, Callable, Optional, Protocol

if TYPE_CHECKING:
    from ..core.event_loop import EventLoop

__all__ = ["Gate", "Place"]

# What a handshake is given while others wait.
FAIR_SECONDS = 0.5  # it takes some round trips
SILENT_SECONDS = 0.05  # without a byte
RESOLUTION = 0.001  # seconds that no timer is set for


class Waiting(Protocol):
    """Who asks for places, in the thread of its loop: a listener of a worker. waiting: whether it has been told to wait;
    pressing: whether it will look again by itself. Both are the gate's."""

    waiting: bool
    pressing: bool

    @property
    def loop(self) -> EventLoop: ...

    @property
    def shakes(self) -> bool:
        """Whether its connections begin with a handshake."""

    def take_place(self, place: Place) -> object:
        """There is a place now."""


class Occupant(Protocol):
    @property
    def silent(self) -> bool:
        """Whether it has sent nothing yet."""

    def give_way(self) -> object:
        """Others wait for the place, and the handshake is not done."""


class Place:
    """The place of one connection. occupant: who can give way; None: nobody yet, or no more."""

    __slots__ = ("loop", "moment", "occupant", "state")

    def __init__(self, loop: EventLoop, shakes: bool) -> None:
        self.loop = loop
        self.moment = time.monotonic()
        self.occupant: Optional[Occupant] = None
        self.state = SHAKING if shakes else SETTLED

    @property
    def age(self) -> float:
        return time.monotonic() - self.moment


SHAKING, HEARD, ASKED, SETTLED, LEFT = range(5)  # states; HEARD: shaking, and it has said something; ASKED: to give way


class Gate:
    """limit: of connections, 0 for none.

    A place that becomes free is handed to whoever has waited longest. If it were merely free, a busy worker would take each
    place that it frees, and the clients of the others would wait for ever.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()  # for all of these, `Waiting.waiting` and `Place.state`
        self._count = 0
        self._shaking: dict[Place, None] = {}  # oldest first
        self._heard: dict[Place, None] = {}  # the same, of those in that state
        self._asked = 0  # handshakes that are about to give way
        self._waiting: deque[Waiting] = deque()

    @property
    def most_handshakes(self) -> int:
        return self.limit - self.limit // 4

    @property
    def full(self) -> bool:
        """No place at all is left."""
        return 0 < self.limit <= self._count

    def enter(self, who: Waiting) -> Optional[Place]:
        """Take a place. None: there is none for it; `who.take_place` is called when there is."""
        shakes = who.shakes
        with self._lock:
            if who.waiting:
                return None
            if self._has_place(shakes):
                return self._take(who, shakes)
            who.waiting = True
            self._waiting.append(who)
        self.press(who)
        return None

    def press(self, who: Waiting) -> None:
        """While `who` waits: have the oldest handshake give way, now or when it has had its time."""
        with self._lock:
            who.pressing = False
            if not who.waiting or self._asked >= len(self._waiting):
                return
            oldest = [
                (next(iter(places)), seconds)
                for places, seconds in ((self._heard, FAIR_SECONDS), (self._shaking, SILENT_SECONDS))
                if places
            ]
            if not oldest:
                return
            place, wait = min(((place, seconds - place.age) for place, seconds in oldest), key=itemgetter(1))
            if wait > RESOLUTION:
                who.pressing = True
            else:
                self._shaken(place)
                place.state = ASKED
                self._asked += 1
        if wait > RESOLUTION:
            who.loop.call_later(wait, self.press, who)
        else:
            call(place.loop, self._ask, place)

    def _ask(self, place: Place) -> None:
        """Have it give way, unless it is not silent and has not had its time. In the thread of its loop."""
        occupant = place.occupant
        if place.state != ASKED or occupant is None:
            return
        if place.age >= FAIR_SECONDS or occupant.silent:
            occupant.give_way()
            return
        with self._lock:
            self._shaken(place)
            place.state = HEARD
            self._heard[place] = None
            chosen, left = self._choose(True)
        self._hand_out(chosen, left)

    def settle(self, place: Place) -> None:
        """The handshake is done, or there was none to make."""
        with self._lock:
            if place.state == SETTLED:
                return
            asked = place.state == ASKED
            self._shaken(place)
            place.state = SETTLED
            chosen, left = self._choose(asked)
        self._hand_out(chosen, left)

    def leave(self, place: Place) -> None:
        """Give a place back. From any thread."""
        with self._lock:
            self._shaken(place)
            place.state = LEFT
            self._count -= 1
            chosen, left = self._choose(False)
        self._hand_out(chosen, left)

    def change(self, limit: int) -> None:
        """A new limit; connections that are there stay."""
        with self._lock:
            self.limit = limit
            chosen, left = self._choose(False)
        self._hand_out(chosen, left)

    # Under the lock

    def _has_place(self, shakes: bool) -> bool:
        if not self.limit:
            return True
        if self._count >= self.limit:
            return False
        return not shakes or len(self._shaking) + len(self._heard) + self._asked < self.most_handshakes

    def _take(self, who: Waiting, shakes: bool) -> Place:
        place = Place(who.loop, shakes)
        self._count += 1
        if shakes:
            self._shaking[place] = None
        return place

    def _shaken(self, place: Place) -> None:
        if place.state == SHAKING:
            del self._shaking[place]
        elif place.state == HEARD:
            del self._heard[place]
        elif place.state == ASKED:
            self._asked -= 1

    def _choose(self, press: bool) -> tuple[list[tuple[Waiting, Place]], list[Waiting]]:
        """Those who get a place now; and those who go on to wait and have to `press` anew, for there are handshakes that they
        have not seen, or (press) one that was to give way does not."""
        chosen: list[tuple[Waiting, Place]] = []
        for _ in range(len(self._waiting)):
            who = self._waiting.popleft()
            shakes = who.shakes
            if self._has_place(shakes):
                who.waiting = False
                chosen.append((who, self._take(who, shakes)))
                press = press or shakes
            else:
                self._waiting.append(who)
        return chosen, [who for who in self._waiting if not who.pressing] if press else []

    # Without it

    def _hand_out(self, chosen: list[tuple[Waiting, Place]], left: list[Waiting]) -> None:
        for who, place in chosen:
            if not call(who.loop, who.take_place, place):
                self.leave(place)
        for who in left:
            call(who.loop, self.press, who)


def call(loop: EventLoop, method: Callable[..., object], *args: object) -> bool:
    """In the loop's thread. False: its worker has ended."""
    try:
        loop.call_soon_threadsafe(method, *args)
    except RuntimeError:
        return False
    return True
