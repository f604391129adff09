"""What the tests of tests/test_proxy_shares.py do, with worker processes: `python shared_limits.py SCENARIO`.

A program of its own, because it forks: the tests' process has threads.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import deque
from typing import Callable

from proxy_processes import DEADLINE, Door, Family, Numbers, Session, Worker, fail, fork, stopped
from sslsock.core.source_limits import ADMITTED, CONNECTIONS, NO_MEMORY, SourceLimits
from sslsock.core.ticket_keys import TicketKeys
from sslsock.proxy.limits.gate import FAIR_SECONDS
from sslsock.proxy.limits.rates import Rates
from sslsock.proxy.limits.shares import Shares
from sslsock.proxy.limits.sources import Refused, Sources
from sslsock.proxy.policy import ListenerPolicy
from sslsock.proxy.settings.model import Address, Limits, ListenerSettings, Route

TO = Address("tcp", "127.0.0.1", 9)
HOUR = 3600 * 10**9


def scenario(function: Callable[[], None]) -> Callable[[], None]:
    function.is_scenario = True  # type: ignore[attr-defined]
    return function


# Places


class Hammer:
    """Clients that come without a pause through two listeners, and stay for some turns of the loop. There are never more of
    them than may be, in all processes. counts: of each worker, who is there, in all and in the small room; who has been."""

    def __init__(self, number: int, counts: tuple[Numbers, Numbers, Numbers], most: tuple[int, int], enough: int) -> None:
        self.number, self.most, self.enough = number, most, enough
        self.held, self.held_small, self.takes = counts
        self.random = random.Random(number)

    def __call__(self, worker: Worker) -> None:
        self.worker = worker
        self.left: deque[Session] = deque()
        for name in ("small", "other"):
            door = worker.door(name)
            door.on_session = self.on_session  # type: ignore[method-assign]
            self.come(door)
        worker.loop.run()
        assert not self.held[self.number]

    def come(self, door: Door) -> None:
        while self.takes[self.number] < self.enough and not door.waiting and len(door.sessions) < 5:
            door.enter()

    def on_session(self, session: Session) -> None:
        small = session.door.room is self.worker.door("small").room
        self.held[self.number] += 1
        self.held_small[self.number] += small
        self.takes[self.number] += 1
        self.worker.shares.rooms.hold()  # places do not wander while they are added up
        sums = self.held.sum(), self.held_small.sum()
        self.worker.shares.rooms.release()
        if sums[0] > self.most[0] or sums[1] > self.most[1]:
            fail(f"{sums[0]} in all, {sums[1]} in the small room: more than {self.most}")
        leave = session.leave

        def noted() -> None:
            self.held[self.number] -= 1
            self.held_small[self.number] -= small
            leave()
            session.door.sessions.remove(session)
            self.worker.loop.call_soon(self.come, session.door)
            if self.takes[self.number] >= self.enough:
                self.worker.loop.call_soon(self.end)

        session.leave = noted  # type: ignore[method-assign]
        self.worker.loop.call_later(self.random.choice((0.0, 0.0, 0.001, 0.003)), self.go_on, session)

    def end(self) -> None:
        """When nobody is there any more, and nobody waits."""
        if not self.worker.gate.whole.count and not any(door.waiting for door in self.worker.doors.values()):
            self.worker.loop.stop()

    def go_on(self, session: Session) -> None:
        if session.gone:
            return
        if self.random.random() < 0.3:
            session.settle()
            self.worker.loop.call_later(0.001, lambda: session.gone or session.leave())
        else:
            session.leave()


def hammered(workers: int, kills: int) -> None:
    limits = {"": (7, 5), "small": (3, 0), "other": (0, 0)}
    held, held_small, takes = Numbers(workers), Numbers(workers), Numbers(workers)
    chance = random.Random(workers)
    with Family(workers, limits, shakes=True) as family:
        enough = 10**9 if kills else 3000
        for number in range(workers):
            family.start(number, Hammer(number, (held, held_small, takes), (7, 3), enough))
        for _ in range(kills):
            number = chance.randrange(workers)
            wanted = takes.sum() + chance.randrange(1, 60)
            await_takes(takes, wanted)
            family.kill(number)
            held[number] = held_small[number] = 0
            family.shares.clear(number)
            family.start(number, Hammer(number, (held, held_small, takes), (7, 3), enough))
        if kills:
            for number in range(workers):
                await_takes(takes, takes.sum() + 50)
                family.kill(number)
                held[number] = held_small[number] = 0
                family.shares.clear(number)
        else:
            for number in range(workers):
                family.join(number)
        for name in limits:
            assert family.sums(name) == (0, 0, 0, 0), (name, family.sums(name))


def await_takes(takes: Numbers, wanted: int) -> None:
    end = time.monotonic() + DEADLINE
    while takes.sum() < wanted:
        assert time.monotonic() < end, f"nobody gets a place any more: {[takes[i] for i in range(takes.count)]}"
        os.sched_yield()


@scenario
def limits_are_exact_over_two_processes() -> None:
    hammered(2, 0)


@scenario
def limits_are_exact_over_four_processes() -> None:
    hammered(4, 0)


@scenario
def workers_are_killed_at_any_moment() -> None:
    hammered(3, 60)


# Who is next


@scenario
def who_has_waited_longest_is_next() -> None:
    with Family(3, {"": (1, 0), "one": (0, 0)}).start_all() as family:
        assert family.ask(0, "enter", "one")
        assert not family.ask(1, "enter", "one")
        assert not family.ask(2, "enter", "one")
        assert not family.ask(0, "leave_and_enter", "one"), "a busy worker takes the place that it frees"
        for number in (1, 2, 0):
            family.until(number, 1, "there", "one")
            assert family.sums() == (1, 0, 0, 2 - (1, 2, 0).index(number))
            family.ask(number, "leave", "one")
        assert family.sums() == (0, 0, 0, 0)


@scenario
def who_waits_for_another_room_holds_up_nobody() -> None:
    with Family(2, {"": (3, 0), "small": (1, 0), "other": (0, 0)}).start_all() as family:
        assert family.ask(0, "enter", "small")
        assert not family.ask(1, "enter", "small")
        assert family.ask(0, "enter", "other") and family.ask(0, "enter", "other")
        assert not family.ask(1, "enter", "other")
        family.ask(0, "leave", "other")
        family.until(1, 1, "there", "other")
        assert family.ask(1, "waits", "small")
        family.ask(0, "leave", "small")
        family.until(1, 1, "there", "small")


@scenario
def a_stopped_worker_is_passed_over() -> None:
    with Family(3, {"": (1, 0), "one": (0, 0)}).start_all() as family:
        assert family.ask(0, "enter", "one")
        assert not family.ask(1, "enter", "one")
        assert not family.ask(2, "enter", "one")
        os.kill(family.pids[1], signal.SIGSTOP)
        stopped(family.pids[1])
        family.ask(0, "leave", "one")
        family.until(2, 1, "there", "one")
        os.kill(family.pids[1], signal.SIGCONT)
        assert family.ask(1, "waits", "one")
        family.ask(2, "leave", "one")
        family.until(1, 1, "there", "one")


@scenario
def a_raised_limit_lets_the_waiting_of_all_in() -> None:
    with Family(2, {"": (1, 0), "one": (0, 0)}).start_all() as family:
        assert family.ask(0, "enter", "one")
        assert not family.ask(0, "enter", "one") and not family.ask(1, "enter", "one")
        for number in range(2):
            family.ask(number, "change", 3, 0)
        family.until(0, 2, "there", "one")
        family.until(1, 1, "there", "one")
        assert not family.ask(1, "enter", "one")


# Handshakes


@scenario
def handshakes_have_three_quarters_of_the_places_of_all() -> None:
    with Family(2, {"": (8, 0), "one": (0, 0)}, shakes=True).start_all() as family:
        assert family.ask(0, "fill", "one") == 6
        family.ask(0, "settle", "one")
        family.until(0, 7, "there", "one")  # the one who waited
        assert family.sums()[:2] == (7, 1)
        assert family.ask(1, "enter", "one", False)
        assert not family.ask(1, "enter", "one", False)


@scenario
def the_oldest_handshake_of_another_process_gives_way() -> None:
    with Family(2, {"": (4, 0), "one": (0, 0)}, shakes=True).start_all() as family:
        for _ in range(3):
            assert family.ask(0, "enter", "one")
        assert not family.ask(1, "enter", "one")
        family.until(1, 1, "there", "one")
        assert family.ask(0, "gave_way") == 1, "one waited, and one has to go"
        assert family.sums() == (3, 3, 0, 0)
        family.ask(0, "settle", "one")
        family.ask(1, "settle", "one")
        assert family.ask(1, "enter", "one") and not family.ask(1, "enter", "one")
        family.until(1, 1, "gave_way")  # its own silent one, for the next
        family.until(1, 2, "there", "one")
        assert family.ask(0, "gave_way") == 1, "who is served does not give way"


@scenario
def a_handshake_that_speaks_is_given_its_time() -> None:
    with Family(2, {"": (4, 0), "one": (0, 0)}, shakes=True).start_all() as family:
        for _ in range(3):
            assert family.ask(0, "enter", "one", None, False)
        assert not family.ask(1, "enter", "one")
        family.until(1, 1, "there", "one")
        assert family.ask(0, "gave_way") == 1
        assert family.ask(0, "ages_of_gone", "one")[0] >= FAIR_SECONDS


@scenario
def a_handshake_that_waits_for_its_turn_by_a_rate_is_given_its_time_then() -> None:
    with Family(2, {"": (4, 0), "one": (0, 0)}, shakes=True).start_all() as family:
        for _ in range(2):
            assert family.ask(0, "enter", "one")
        family.ask(0, "await_turn", "one")
        assert family.ask(1, "enter", "one") and not family.ask(1, "enter", "one")
        family.until(1, 1, "gave_way")
        family.until(1, 1, "there", "one")
        family.ask(1, "await_turn", "one")
        assert not family.ask(1, "enter", "one")
        assert family.ask(0, "gave_way") == 0, "its turn is lost"
        assert family.sums()[:2] == (3, 3), "it has its place still"
        family.ask(0, "begin_turn", "one")
        family.until(1, 2, "there", "one")
        assert family.ask(0, "gave_way") == 1
        assert family.ask(1, "gave_way") == 1


@scenario
def handshakes_of_a_stopped_worker_are_not_waited_for() -> None:
    with Family(3, {"": (4, 0), "one": (0, 0)}, shakes=True).start_all() as family:
        assert family.ask(0, "enter", "one") and family.ask(0, "enter", "one") and family.ask(2, "enter", "one")
        os.kill(family.pids[0], signal.SIGSTOP)
        stopped(family.pids[0])
        assert not family.ask(1, "enter", "one")
        family.until(1, 1, "there", "one")
        assert family.ask(2, "gave_way") == 1
        os.kill(family.pids[0], signal.SIGCONT)
        family.until(0, 2, "there", "one")


# What a process may have itself


@scenario
def a_process_has_a_bound_of_its_own() -> None:
    with Family(2, {"": (0, 0), "one": (0, 0)}).start_all() as family:
        family.ask(0, "change_own", 4)
        for _ in range(3):
            assert family.ask(0, "enter", "one", True)
        assert family.ask(0, "enter", "one", False)
        assert not family.ask(0, "enter", "one", False)
        assert family.ask(1, "enter", "one") and family.ask(1, "enter", "one")
        family.until(0, 2, "there", "one", False)
        assert family.ask(0, "gave_way") == 1
        assert not family.ask(0, "enter", "one", False)
        family.ask(0, "change_own", 0)
        family.until(0, 3, "there", "one", False)


@scenario
def who_may_not_come_by_its_own_bound_holds_up_nobody() -> None:
    with Family(2, {"": (3, 0), "one": (0, 0)}).start_all() as family:
        family.ask(0, "change_own", 1)
        assert family.ask(0, "fill", "one") == 1
        assert family.ask(1, "fill", "one") == 2
        family.ask(1, "leave", "one")
        family.until(1, 2, "there", "one")
        family.ask(0, "leave", "one")
        family.until(0, 1, "there", "one")


# The end of a worker


@scenario
def what_a_killed_worker_had_is_given_back() -> None:
    with Family(2, {"": (2, 0), "one": (0, 0)}).start_all() as family:
        assert family.ask(0, "fill", "one") == 2
        assert not family.ask(1, "enter", "one")
        family.kill(0)
        assert family.sums() == (2, 0, 0, 2), "two wait: who has filled it, and the other"
        family.shares.clear(0)
        family.until(1, 1, "there", "one")
        assert family.ask(1, "enter", "one")
        assert family.sums() == (2, 0, 0, 0)
        family.start(0)
        assert not family.ask(0, "enter", "one")
        family.ask(1, "leave", "one")
        family.until(0, 1, "there", "one")


@scenario
def a_worker_is_killed_with_the_lock() -> None:
    with Family(2, {"": (2, 0), "one": (0, 0)}).start_all() as family:
        assert family.ask(0, "enter", "one")
        family.ask(0, "hold")
        family.tell(1, "enter", "one")
        family.kill(0)
        assert json.loads(family.commands[1].recv(1 << 16))
        family.shares.clear(0)
        assert family.sums() == (1, 0, 0, 0)


@scenario
def a_worker_that_is_stopped_with_the_lock_goes_on() -> None:
    with Family(2, {"": (2, 0), "one": (0, 0)}).start_all() as family:
        family.tell(0, "stop_with_lock")
        stopped(family.pids[0])
        assert family.ask(1, "enter", "one")
        family.commands[0].recv(1 << 16)
        assert family.ask(0, "enter", "one")


# Sources and rates


def in_workers(count: int, work: Callable[[int], object]) -> None:
    pids = [fork(lambda number=number: work(number)) for number in range(count)]  # type: ignore[misc]
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0


def address(number: int) -> bytes:
    return bytes(10) + b"\xff\xff" + number.to_bytes(4, "big")


@scenario
def counts_of_sources_are_exact() -> None:
    shares = Shares(4, ["one"], 64)
    taken = Numbers(4)
    settings = Limits(max_connections_per_source=10, max_handshakes_per_source=7)

    def enter(number: int) -> None:
        shares.join(number)
        sources = Sources(settings, shares)
        for attempt in range(1000):
            try:
                sources.enter("192.0.2.1", attempt % 2 == 0)
                taken[number] += 1
            except Refused:
                pass

    in_workers(4, enter)
    assert taken.sum() == 10, "no more and no fewer are let in, whoever they come to"
    assert shares.table.present == 1
    for number in range(4):
        shares.clear(number)
    assert shares.table.present == 0


@scenario
def rates_are_exact() -> None:
    policy = ListenerPolicy(ListenerSettings(Address("tcp", "127.0.0.1", 0), (Route((TO,)),)), TicketKeys())
    shares = Shares(4, [policy.name], 64)
    taken, of_source = Numbers(4), Numbers(4)
    settings = Limits(connection_rate=(HOUR, 100), connection_rate_per_source=(HOUR, 50))

    def take(number: int) -> None:
        shares.join(number)
        rates, sources = Rates([policy.name], shares), Sources(settings, shares)
        rates.follow(settings, [policy])
        for _ in range(200):
            taken[number] += rates.connections[policy.name].take(0.0) is not None
            try:
                sources.leave(sources.enter("192.0.2.1", False), False)
                of_source[number] += 1
            except Refused:
                pass

    in_workers(4, take)
    assert (taken.sum(), of_source.sum()) == (100, 50)


@scenario
def a_table_that_is_full_refuses_and_has_room_again() -> None:
    table = SourceLimits(8, workers=2, capacity=4)
    table.follow(connections=2)
    table.join(0)
    sources = [table.enter(address(number), False)[1] for number in range(4)]
    assert table.enter(address(4), False) == (NO_MEMORY, None)
    assert table.enter(address(0), False)[0] == ADMITTED and table.enter(address(0), False)[0] == CONNECTIONS
    assert sources[3] is not None
    table.leave(sources[3], False)
    assert table.enter(address(4), False)[0] == ADMITTED
    table.clear(0)
    assert table.present == 0
    for number in range(4):
        assert table.enter(address(number), False)[0] == ADMITTED


@scenario
def workers_are_killed_in_the_table_of_sources() -> None:
    """It is taken most of the time: so they are killed with its lock, too, and what they leave half done is mended."""
    table = SourceLimits(64, workers=3, capacity=1000)
    table.follow(connections=5, connection_rate=(1, 10**6))
    turns = Numbers(3)

    def work(number: int) -> None:
        table.join(number)
        chance = random.Random()
        there: list[bytes] = []
        while True:
            for _ in range(20):
                source = table.enter(address(chance.randrange(300)), False)[1]
                if source is not None:
                    there.append(source)
            while len(there) > 100:
                table.leave(there.pop(chance.randrange(len(there))), False)
            turns[number] += 1

    def start(number: int) -> int:
        return fork(lambda: work(number))

    chance = random.Random(1)
    pids = [start(number) for number in range(3)]
    for _ in range(150):
        number = chance.randrange(3)
        await_takes(turns, turns.sum() + chance.randrange(1, 20))
        os.kill(pids[number], signal.SIGKILL)
        os.waitpid(pids[number], 0)
        table.clear(number)
        pids[number] = start(number)
    for number, pid in enumerate(pids):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        table.clear(number)
    assert table.present == 0
    table.join(0)
    for number in range(1000):
        assert table.enter(address(number), False)[0] == ADMITTED, "nothing was lost"
    assert table.enter(address(1000), False)[0] == NO_MEMORY


if __name__ == "__main__":
    globals()[sys.argv[1]]()
