"""How many connections the whole process may have at once, and each listener, and which of them may still be shaking hands.

A connection has a place from its accept to its end. Handshakes (with a PROXY header, where one is expected) get three quarters
of the places at the most: the rest is for connections that have none to make or are done with it. When a client waits and no
place is left for it, the oldest handshake gives way, if it has had its time: less for a client that has said nothing at all,
for who has something to say has said it by the time that it is accepted. So clients that connect and are silent keep nobody
out, however many they are. A handshake that waits for its turn by a rate stays, and has its time once the turn has come: it is
we who keep it waiting, and the turn would be lost; with all who wait sent away before theirs, nobody would ever have one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING, Callable, Optional, Protocol

if TYPE_CHECKING:
    from ...core.event_loop import EventLoop

__all__ = ["Gate", "Place", "Room"]

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
    def room(self) -> Room:
        """That of its listener."""

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


class Room:
    """What is counted together: all connections, or those of a listener. Its gate's lock is for all of it.

    limit: of connections; handshakes: of those that are shaking hands; 0 for none. most_handshakes: as it is in force, for they
    do not get all places. limited: whether there is a limit at all.
    """

    def __init__(self, limit: int = 0, handshakes: int = 0) -> None:
        self.follow(limit, handshakes)
        self.count = 0
        self.shaking: dict[Place, None] = {}  # oldest first
        self.heard: dict[Place, None] = {}  # the same, of those in that state
        self.asked = 0  # handshakes that are about to give way
        self.held = 0  # handshakes that wait for their turn

    def follow(self, limit: int, handshakes: int) -> None:
        """New limits. Who is there stays."""
        self.limit, self.handshakes = limit, handshakes
        self.limited = bool(limit or handshakes)
        share = limit - limit // 4
        self.most_handshakes = min(share, handshakes) if share and handshakes else share or handshakes

    @property
    def full(self) -> bool:
        """No place at all is left."""
        return 0 < self.limit <= self.count

    def has_place(self, shakes: bool) -> bool:
        if 0 < self.limit <= self.count:
            return False
        most = self.most_handshakes
        return not shakes or not most or len(self.shaking) + len(self.heard) + self.asked + self.held < most

    def shaken(self, place: Place) -> None:
        """It leaves the state that it is in."""
        if place.state == SHAKING:
            del self.shaking[place]
        elif place.state == HEARD:
            del self.heard[place]
        elif place.state == ASKED:
            self.asked -= 1
        elif place.state == HELD:
            self.held -= 1


class Place:
    """The place of one connection. rooms: where it is counted. moment: since when, or since its turn by a rate, by the clock
    that loops have too. occupant: who can give way; None: nobody yet, or no more."""

    __slots__ = ("loop", "moment", "occupant", "rooms", "state")

    def __init__(self, loop: EventLoop, shakes: bool, rooms: tuple[Room, ...]) -> None:
        self.loop = loop
        self.rooms = rooms
        self.moment = time.monotonic()
        self.occupant: Optional[Occupant] = None
        self.state = SHAKING if shakes else SETTLED

    @property
    def age(self) -> float:
        return time.monotonic() - self.moment


# States. HEARD: shaking, and it has said something; ASKED: to give way; HELD: it waits for its turn.
SHAKING, HEARD, ASKED, HELD, SETTLED, LEFT = range(6)


class Gate:
    """limit: of connections, handshakes: of those that are shaking hands, 0 for none.

    A place that becomes free is handed to whoever has waited longest. If it were merely free, a busy worker would take each
    place that it frees, and the clients of the others would wait for ever.
    """

    own: Optional[Room] = None
    """What this process may have itself, where several share the limits."""

    def __init__(self, limit: int, handshakes: int = 0) -> None:
        self.whole = Room(limit, handshakes)
        self._alone = (self.whole,)
        self._rooms: dict[str, Room] = {}
        self._lock = threading.Lock()  # for all of these, `Waiting.waiting`, `Place.state` and what is in a room
        self._waiting: deque[Waiting] = deque()

    def room(self, name: str) -> Room:
        """That of a listener, in addition to the whole."""
        with self._lock:
            return self._rooms.setdefault(name, Room())

    def enter(self, who: Waiting) -> Optional[Place]:
        """Take a place. None: there is none for it; `who.take_place` is called when there is."""
        shakes = who.shakes
        with self._lock:
            if who.waiting:
                return None
            if self._blocking(who, shakes) is None:
                return self._take(who, shakes)
            who.waiting = True
            self._waiting.append(who)
        self.press(who)
        return None

    def press(self, who: Waiting) -> None:
        """While `who` waits: have the oldest handshake give way, now or when it has had its time."""
        with self._lock:
            who.pressing = False
            room = self._blocking(who, who.shakes) if who.waiting else None
            if room is None or room.asked >= sum(room is self.whole or other.room is room for other in self._waiting):
                return
            oldest = [
                (next(iter(places)), seconds)
                for places, seconds in ((room.heard, FAIR_SECONDS), (room.shaking, SILENT_SECONDS))
                if places
            ]
            if not oldest:
                return
            place, wait = min(((place, seconds - place.age) for place, seconds in oldest), key=itemgetter(1))
            if wait > RESOLUTION:
                who.pressing = True
            else:
                self._become(place, ASKED)
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
            self._become(place, HEARD)
            chosen, left = self._choose(True)
        self._hand_out(chosen, left)

    def await_turn(self, place: Place) -> None:
        """A handshake that has to wait, by a rate; `begin_turn` follows, or its end."""
        with self._lock:
            asked = place.state == ASKED
            self._become(place, HELD)
            if not asked:
                return
            chosen, left = self._choose(True)
        self._hand_out(chosen, left)

    def begin_turn(self, place: Place) -> None:
        """It waits no more."""
        place.moment = time.monotonic()
        with self._lock:
            self._become(place, HEARD)
            chosen, left = self._choose(True)
        self._hand_out(chosen, left)

    def settle(self, place: Place) -> None:
        """The handshake is done, or there was none to make."""
        with self._lock:
            if place.state == SETTLED:
                return
            asked = place.state == ASKED
            self._become(place, SETTLED)
            if not self._waiting:
                return
            chosen, left = self._choose(asked)
        self._hand_out(chosen, left)

    def leave(self, place: Place) -> None:
        """Give a place back. From any thread."""
        with self._lock:
            for room in place.rooms:
                room.shaken(place)
                room.count -= 1
            place.state = LEFT
            if not self._waiting:
                return
            chosen, left = self._choose(False)
        self._hand_out(chosen, left)

    def change(self, limit: int, handshakes: int = 0, room: Optional[Room] = None) -> None:
        """New limits, of the whole or of a room; connections that are there stay. A room that had none counts from now on."""
        with self._lock:
            room = room or self.whole
            room.follow(limit, handshakes)
            chosen, left = self._choose(False)
        self._hand_out(chosen, left)

    def blocking(self, who: Waiting) -> Optional[Room]:
        """Where there is no place for it."""
        with self._lock:
            return self._blocking(who, who.shakes)

    # Under the lock

    def _blocking(self, who: Waiting, shakes: bool) -> Optional[Room]:
        room = who.room
        if room.limited and not room.has_place(shakes):
            return room
        return None if self.whole.has_place(shakes) else self.whole

    def _take(self, who: Waiting, shakes: bool) -> Place:
        place = Place(who.loop, shakes, (self.whole, who.room) if who.room.limited else self._alone)
        for room in place.rooms:
            room.count += 1
            if shakes:
                room.shaking[place] = None
        return place

    @staticmethod
    def _become(place: Place, state: int) -> None:
        for room in place.rooms:
            room.shaken(place)
            if state == HEARD:
                room.heard[place] = None
            elif state == ASKED:
                room.asked += 1
            elif state == HELD:
                room.held += 1
        place.state = state

    def _choose(self, press: bool) -> tuple[list[tuple[Waiting, Place]], list[Waiting]]:
        """Those who get a place now; and those who go on to wait and have to `press` anew, for there are handshakes that they
        have not seen, or (press) one that was to give way does not."""
        chosen: list[tuple[Waiting, Place]] = []
        for _ in range(len(self._waiting)):
            who = self._waiting.popleft()
            shakes = who.shakes
            if self._blocking(who, shakes) is None:
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
