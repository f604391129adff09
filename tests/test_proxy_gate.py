"""Places: how many, for whom, and who gives way. The loops are the tests' own, and so is the clock."""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Optional

import pytest

from sslsock.proxy.limits import gate as module
from sslsock.proxy.limits.gate import FAIR_SECONDS, SILENT_SECONDS, Gate, Place, Room


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Loop:
    """Runs what it is given when the test says so."""

    def __init__(self) -> None:
        self.calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.timers: list[tuple[float, Callable[..., object], tuple[Any, ...]]] = []
        self.closed = False

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        if self.closed:
            raise RuntimeError("closed")
        self.calls.append((callback, args))

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> None:
        self.timers.append((seconds, callback, args))

    def run(self) -> None:
        while self.calls:
            callback, args = self.calls.popleft()
            callback(*args)


class Session:
    """Who has a place, and gives it back when it is asked to."""

    def __init__(self, gate: Gate, place: Place, silent: bool) -> None:
        self.gate, self.place, self.silent = gate, place, silent
        self.gone = False
        place.occupant = self

    def give_way(self) -> None:
        self.leave()

    def leave(self) -> None:
        assert not self.gone
        self.gone = True
        self.place.occupant = None
        self.gate.leave(self.place)

    def settle(self) -> None:
        self.gate.settle(self.place)


class Door:
    """A listener. Somebody always waits in its queue."""

    def __init__(self, gate: Gate, shakes: bool, room: str = "one") -> None:
        self.gate, self.shakes = gate, shakes
        self.room: Room = gate.room(room)
        self.silent = True  # its next clients
        self.loop: Any = Loop()
        self.waiting = self.pressing = False
        self.sessions: list[Session] = []

    def take_place(self, place: Place) -> None:
        self.sessions.append(Session(self.gate, place, self.silent))

    def enter(self) -> Optional[Session]:
        place = self.gate.enter(self)
        if place is None:
            return None
        self.take_place(place)
        return self.sessions[-1]

    def fill(self) -> int:
        count = 0
        while self.enter() is not None:
            count += 1
        return count


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def doors(limit: int, *shakes: bool) -> list[Door]:
    gate = Gate(limit)
    return [Door(gate, one) for one in shakes]


def run(clock: Clock, *all_doors: Door) -> None:
    """Everything that is to be done by now."""
    while True:
        for door in all_doors:
            door.loop.run()
        due = [door for door in all_doors if door.loop.timers]
        if not due:
            if not any(door.loop.calls for door in all_doors):
                return
            continue
        for door in due:
            seconds, callback, args = door.loop.timers.pop(0)
            clock.now += seconds
            callback(*args)


@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (2, 2), (3, 3), (4, 3), (8, 6), (400, 300)])
def test_handshakes_have_three_quarters_of_the_places(clock: Clock, limit: int, expected: int) -> None:
    tls, plain = doors(limit, True, False)
    assert tls.fill() == expected
    assert plain.fill() == limit - expected


def test_those_without_a_handshake_may_have_all_places(clock: Clock) -> None:
    (plain,) = doors(8, False)
    assert plain.fill() == 8
    plain.sessions[3].leave()
    run(clock, plain)
    assert len(plain.sessions) == 9 and not plain.waiting


def test_a_handshake_that_is_done_makes_room_for_another(clock: Clock) -> None:
    (tls,) = doors(8, True)
    assert tls.fill() == 6
    assert tls.waiting
    tls.sessions[0].settle()
    tls.loop.run()
    assert len(tls.sessions) == 7 and not tls.waiting


def test_without_a_limit_everybody_gets_in(clock: Clock) -> None:
    (tls,) = doors(0, True)
    assert all(tls.enter() is not None for _ in range(1000))


def gone(door: Door) -> list[bool]:
    return [session.gone for session in door.sessions]


@pytest.mark.parametrize("silent", [True, False])
def test_the_oldest_handshake_gives_way_when_it_has_had_its_time(clock: Clock, silent: bool) -> None:
    (tls,) = doors(4, True)
    tls.silent = silent
    for _ in range(3):
        assert tls.enter() is not None
        clock.now += 0.01
    assert tls.enter() is None
    due = tls.sessions[0].place.moment + (SILENT_SECONDS if silent else FAIR_SECONDS)
    while clock.now < due - 0.001:
        tls.loop.run()
        assert gone(tls) == [False] * 3
        assert tls.loop.timers, "it has to look again by itself"
        run_timer(clock, tls)
    tls.loop.run()
    assert clock.now == pytest.approx(due)
    assert gone(tls) == [True, False, False, False]
    assert not tls.waiting


def run_timer(clock: Clock, door: Door) -> None:
    seconds, callback, args = door.loop.timers.pop(0)
    clock.now += seconds
    callback(*args)


def test_who_is_silent_gives_way_to_who_waits_behind_those_who_speak(clock: Clock) -> None:
    (tls,) = doors(4, True)
    for silent in (False, False, True):
        tls.silent = silent
        assert tls.enter() is not None
    assert tls.enter() is None
    start = clock.now
    while tls.waiting:
        tls.loop.run()
        if tls.waiting:
            run_timer(clock, tls)
    assert gone(tls) == [False, False, True, False]
    assert clock.now < start + FAIR_SECONDS


@pytest.mark.parametrize("limit", [1, 2, 4, 40])
def test_however_many_say_nothing_the_next_one_gets_in(clock: Clock, limit: int) -> None:
    one, other = doors(limit, True, True)
    for number in range(5 * limit):
        door = (one, other)[number % 2]
        door.enter()
        run(clock, one, other)
        assert not door.waiting
    live = [session for door in (one, other) for session in door.sessions if not session.gone]
    assert len(live) <= limit
    assert len(one.sessions) + len(other.sessions) == 5 * limit


def test_who_waits_for_its_turn_by_a_rate_does_not_give_way(clock: Clock) -> None:
    """It has its time when the turn has come."""
    tls, plain = doors(4, True, False)
    assert tls.fill() == 3 and plain.fill() == 1
    for session in tls.sessions:
        session.silent = False
        session.gate.await_turn(session.place)
    assert tls.gate.whole.held == 3
    run(clock, tls, plain)
    clock.now += 100
    run(clock, tls, plain)
    assert not any(gone(tls)), "its turn is lost"
    assert tls.waiting and plain.waiting, "they have taken no place less"
    begun = clock.now
    tls.gate.begin_turn(tls.sessions[1].place)
    run(clock, tls, plain)
    assert gone(tls)[:3] == [False, True, False]
    assert clock.now >= begun + FAIR_SECONDS
    tls.sessions[0].leave()
    assert tls.gate.whole.held == 1


def test_who_is_to_give_way_and_begins_to_wait_for_its_turn_stays_and_the_next_one_goes(clock: Clock) -> None:
    tls, plain = doors(4, True, False)
    assert tls.fill() == 3 and plain.fill() == 1
    tls.loop.timers.clear()
    clock.now += 1
    tls.gate.press(tls)  # asks the first
    tls.gate.await_turn(tls.sessions[0].place)
    run(clock, tls, plain)
    assert gone(tls)[:2] == [False, True]


def test_who_is_served_does_not_give_way(clock: Clock) -> None:
    (tls,) = doors(4, True)
    for _ in range(4):
        session = tls.enter()
        assert session is not None
        session.settle()
    assert tls.enter() is None
    clock.now += 100
    run(clock, tls)
    assert not any(session.gone for session in tls.sessions) and tls.waiting
    tls.sessions[2].leave()
    run(clock, tls)
    assert len(tls.sessions) == 5


def test_one_that_is_done_just_when_it_was_to_give_way_stays_and_the_next_one_goes(clock: Clock) -> None:
    tls, plain = doors(4, True, False)
    assert tls.fill() == 3
    assert plain.fill() == 1
    tls.loop.timers.clear()
    clock.now += 1
    tls.gate.press(tls)  # asks the first
    tls.sessions[0].settle()
    run(clock, tls, plain)
    assert [session.gone for session in tls.sessions[:2]] == [False, True]
    assert not tls.waiting or not plain.waiting


def test_a_door_without_handshakes_has_handshakes_of_others_give_way(clock: Clock) -> None:
    tls, plain = doors(4, True, False)
    tls.fill()
    assert plain.fill() == 1
    before = len(plain.sessions)
    run(clock, tls, plain)
    assert len(plain.sessions) > before or not plain.waiting


def test_who_waits_behind_another_sees_the_handshakes_that_come_later(clock: Clock) -> None:
    """All places are served; one becomes free and goes to a client that says nothing: it must not keep the next one out."""
    tls, plain = doors(4, True, False)
    for _ in range(4):
        session = tls.enter()
        assert session is not None
        session.settle()
    assert tls.enter() is None
    assert plain.enter() is None
    tls.sessions[0].leave()
    run(clock, tls, plain)
    assert tls.sessions[4].gone
    assert len(plain.sessions) == 1


def test_whoever_has_waited_longest_is_next(clock: Clock) -> None:
    first, second, third = doors(1, False, False, False)
    session = first.enter()
    assert session is not None
    assert second.enter() is None and third.enter() is None and first.enter() is None
    session.leave()
    for door in (second, third, first):
        run(clock, first, second, third)
        assert not door.waiting
        door.sessions[-1].leave()


def test_a_place_for_a_worker_that_has_ended_goes_to_another(clock: Clock) -> None:
    first, ended, third = doors(1, False, False, False)
    session = first.enter()
    assert session is not None
    assert ended.enter() is None and third.enter() is None
    ended.loop.closed = True
    session.leave()
    run(clock, first, third)
    assert not ended.sessions and len(third.sessions) == 1


def test_a_handshake_of_a_worker_that_has_ended_is_not_waited_for(clock: Clock) -> None:
    """It gives its place back by itself."""
    ended, other = doors(1, True, True)
    session = ended.enter()
    assert session is not None
    ended.loop.closed = True
    clock.now += 1
    assert other.enter() is None
    session.leave()
    run(clock, other)
    assert len(other.sessions) == 1


def test_a_limit_that_is_raised_lets_the_waiting_in(clock: Clock) -> None:
    one, other = doors(1, False, False)
    one.enter()
    assert one.enter() is None and other.enter() is None
    one.gate.change(3)
    run(clock, one, other)
    assert len(one.sessions) == 2 and len(other.sessions) == 1
    one.gate.change(1)
    assert one.enter() is None
    for session in (*one.sessions, *other.sessions):
        session.leave()
    run(clock, one, other)
    assert len(one.sessions) == 3


# Of one listener


def test_a_listener_that_is_full_waits_and_others_do_not(clock: Clock) -> None:
    gate = Gate(10)
    gate.change(3, 0, gate.room("small"))
    small, other = Door(gate, False, "small"), Door(gate, False)
    assert small.fill() == 3
    assert gate.blocking(small) is small.room and small.room.full
    assert other.fill() == 7
    assert gate.blocking(other) is gate.whole
    other.sessions[0].leave()  # a place, but not for the one that is full: it goes to the one who waits behind it
    run(clock, small, other)
    assert (len(small.sessions), len(other.sessions)) == (3, 8)
    small.sessions[0].leave()
    run(clock, small, other)
    assert (len(small.sessions), len(other.sessions)) == (4, 8)


def test_handshakes_of_a_listener_give_way_to_its_own(clock: Clock) -> None:
    gate = Gate(100)
    gate.change(0, 2, gate.room("small"))
    small, other = Door(gate, True, "small"), Door(gate, True)
    assert other.enter() is not None
    clock.now += 10  # the oldest of all, and nobody asks it
    assert small.fill() == 2
    run(clock, small, other)
    assert not other.sessions[0].gone
    assert small.sessions[0].gone and len(small.sessions) == 3
    small.sessions[1].settle()
    run(clock, small, other)
    assert small.enter() is not None or small.waiting


def test_handshakes_in_all_have_a_limit_of_their_own(clock: Clock) -> None:
    gate = Gate(100, 5)
    tls, plain = Door(gate, True), Door(gate, False)
    assert tls.fill() == 5
    assert plain.fill() == 95
    gate = Gate(0, 3)
    assert Door(gate, True).fill() == 3
    gate = Gate(4, 100)  # three quarters are less
    assert Door(gate, True).fill() == 3


def test_a_room_gets_its_limit_while_there_are_connections(clock: Clock) -> None:
    gate = Gate(0)
    door = Door(gate, True)
    uncounted = door.enter()
    gate.change(2, 1, door.room)
    counted = door.enter()
    assert uncounted is not None and counted is not None
    assert door.enter() is None  # one that shakes hands is counted
    uncounted.settle()
    uncounted.leave()
    assert door.room.count == 1
    gate.change(0, 0, door.room)
    run(clock, door)
    counted.leave()
    for session in door.sessions[2:]:
        session.leave()
    assert (door.room.count, gate.whole.count) == (0, 0)
    assert not door.room.shaking and not gate.whole.shaking
