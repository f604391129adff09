"""The gate of a worker process, which shares its limits with others (room_table.h): as exact, and as fair, as that of threads.

What is counted lies in the memory that all have. Which of its own handshakes is the oldest, and who of its own listeners
waits, a process knows itself. While somebody waits, in any of them, each looks when it is called, when it has something to give
away, and when its oldest handshake has had its time.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Optional

from .gate import ASKED, FAIR_SECONDS, HEARD, HELD, LEFT, RESOLUTION, SETTLED, SILENT_SECONDS, Gate, Place, Room, Waiting, call

if TYPE_CHECKING:
    from ...core.event_loop import EventLoop
    from ...core.schedule import Timer
    from ...core.shared_rooms import SharedRooms
    from .shares import Shares

__all__ = ["SharedGate"]

LOOK_SECONDS = 1.0  # between looks of who waits: a worker that was to call it may be stopped
NANO = 10**9


class SharedRoom(Room):
    """Of all processes; what it counts and lists itself is this one's. number: in `table`."""

    def __init__(self, table: SharedRooms, number: int) -> None:
        super().__init__()
        self.number = number
        self._table = table

    @property
    def full(self) -> bool:
        return 0 < self.limit <= self._table.sums(self.number)[0]


def number_of(room: Room) -> int:
    assert isinstance(room, SharedRoom)
    return room.number


class SharedGate(Gate):
    """limit, handshakes: of all processes; 0 says nothing, for others may have been told. Made in the process that has joined
    `shares`, and used in the thread of one loop."""

    def __init__(self, limit: int, handshakes: int, shares: Shares) -> None:
        super().__init__(0)
        self._table = shares.rooms
        self._numbers = shares.room_numbers
        self.whole = SharedRoom(self._table, 0)
        self.own: Room = Room()
        self._tickets: dict[Waiting, int] = {}  # of those who wait; 0: there is no place for it in this very process
        self._loop: Optional[EventLoop] = None
        self._planned = False
        self._timer: Optional[Timer] = None
        if limit or handshakes:
            self.change(limit, handshakes)

    def room(self, name: str) -> Room:
        found = self._rooms.get(name)
        if found is None:
            found = self._rooms[name] = SharedRoom(self._table, self._numbers[name])
        return found

    def enter(self, who: Waiting) -> Optional[Place]:
        if who.waiting:
            return None
        shakes = who.shakes
        self._loop = who.loop
        ticket = 0
        if self.own.has_place(shakes):
            ticket = self._table.enter(number_of(who.room), shakes)
            if ticket <= 0:
                if ticket and shakes:  # others wait: they have to know of this handshake
                    self._plan()
                return self._occupy(who, shakes)
        who.waiting = True
        self._tickets[who] = ticket
        self._plan()
        return None

    def await_turn(self, place: Place) -> None:
        if place.state == ASKED:
            self._table.ask(number_of(place.rooms[-1]), -1)
        self._become(place, HELD)
        self._plan()

    def begin_turn(self, place: Place) -> None:
        place.moment = time.monotonic()
        self._become(place, HEARD)
        self._plan()

    def settle(self, place: Place) -> None:
        if place.state == SETTLED:
            return
        asked = place.state == ASKED
        self._become(place, SETTLED)
        self._go_on(self._table.settle(number_of(place.rooms[-1]), asked))

    def leave(self, place: Place) -> None:
        shakes, asked = place.state != SETTLED, place.state == ASKED
        self._become(place, LEFT)
        for room in place.rooms:
            room.count -= 1
        self._go_on(self._table.leave(number_of(place.rooms[-1]), shakes, asked))

    def change(self, limit: int, handshakes: int = 0, room: Optional[Room] = None) -> None:
        """New limits of all processes, each of which is told of them."""
        room = room or self.whole
        room.follow(limit, handshakes)
        self._table.limit(number_of(room), limit, room.most_handshakes)
        self._plan()

    def change_own(self, limit: int) -> None:
        """How many connections this process may have itself; 0 for no limit."""
        self.own.follow(limit, 0)
        self._plan()

    def blocking(self, who: Waiting) -> Optional[Room]:
        if not self.own.has_place(who.shakes):
            return self.own
        number = self._table.blocking(number_of(who.room), who.shakes)
        if number is None:
            return None
        return who.room if number else self.whole

    def on_poke(self) -> None:
        """Another process has called this one: its descriptor (`Shares.fileno`) is readable. In the loop's thread."""
        self._look()

    # What is to be done while somebody waits

    def _occupy(self, who: Waiting, shakes: bool) -> Place:
        place = Place(who.loop, shakes, (self.own, self.whole, who.room))
        for room in place.rooms:
            room.count += 1
            if shakes:
                room.shaking[place] = None
        return place

    def _go_on(self, crowded: bool) -> None:
        if crowded or self._tickets:
            self._plan()

    def _plan(self) -> None:
        if self._loop is not None and not self._planned:
            self._planned = call(self._loop, self._look)

    def _look(self) -> None:
        self._planned = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._table.answer()
        chosen = self._choose_own()
        waits = [wait for wait in map(self._press_room, (self.own, self.whole, *self._rooms.values())) if wait is not None]
        self._table.call()
        if self._tickets:
            waits.append(LOOK_SECONDS)
        if waits and self._loop is not None:
            self._timer = self._loop.call_later(min(waits), self._look)
        self._hand_out(chosen, [])

    def _choose_own(self) -> list[tuple[Waiting, Place]]:
        """Those who get a place now."""
        chosen = []
        for who, ticket in list(self._tickets.items()):
            shakes, number = who.shakes, number_of(who.room)
            if not self.own.has_place(shakes):
                if ticket:
                    self._table.withdraw(number, self._following(who))
                    self._tickets[who] = 0
                continue
            if ticket:
                taken = self._table.retry(number, ticket, self._following(who))
            else:
                ticket = self._table.enter(number, shakes)
                taken = ticket <= 0
            if taken:
                del self._tickets[who]
                who.waiting = False
                chosen.append((who, self._occupy(who, shakes)))
            else:
                self._tickets[who] = ticket
        return chosen

    def _following(self, who: Waiting) -> int:
        """The ticket of the eldest who waits for the same room beside this one, 0: nobody does."""
        others = (ticket for other, ticket in self._tickets.items() if other is not who and other.room is who.room and ticket)
        return min(others, default=0)

    def _press_room(self, room: Room) -> Optional[float]:
        """Have this process's oldest handshakes in a room give way as far as they are to now. Returns when to look again, in
        seconds; None: no more, as far as is known."""
        while room.limited:
            oldest = self._oldest(room)
            wait = self._wait_for(room, 0 if oldest is None else oldest[1])
            if oldest is None or wait is None or wait > RESOLUTION:
                return wait
            place = oldest[0]
            self._become(place, ASKED)
            self._table.ask(number_of(place.rooms[-1]), 1)
            call(place.loop, self._ask, place)
        return None

    def _wait_for(self, room: Room, due: int) -> Optional[float]:
        """due: when the oldest handshake may be asked, nanoseconds on the monotonic clock; 0: there is none."""
        if room is not self.own:
            return self._table.press(number_of(room), due)
        wanted = sum(not ticket for ticket in self._tickets.values())
        return None if not due or room.asked >= wanted else max(due / NANO - time.monotonic(), 0.0)

    @staticmethod
    def _oldest(room: Room) -> Optional[tuple[Place, int]]:
        """The handshake that is to give way first, and from when on."""
        oldest = [
            (int((place.moment + seconds) * NANO), place)
            for places, seconds in ((room.heard, FAIR_SECONDS), (room.shaking, SILENT_SECONDS))
            for place in islice(places, 1)
        ]
        if not oldest:
            return None
        due, place = min(oldest, key=lambda found: found[0])
        return place, due

    def _ask(self, place: Place) -> None:
        occupant = place.occupant
        if place.state != ASKED or occupant is None:
            return
        if place.age >= FAIR_SECONDS or occupant.silent:
            occupant.give_way()
            return
        self._become(place, HEARD)
        self._table.ask(number_of(place.rooms[-1]), -1)
        self._plan()
