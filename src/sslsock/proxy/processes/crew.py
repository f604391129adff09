"""The front's picture of its members: tells them what to go by, hears what they have seen, replaces those that die."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Callable, Optional

from ...core.event_loop import EventLoop
from ...core.schedule import Timer
from ..back_ends.backends import News
from ..back_ends.directory import Directory
from ..back_ends.health import Board, Health
from ..files.reading import Reading
from ..fleet.member import Access
from ..observability.access_log import ERROR, WARNING, LineWriter
from ..observability.metrics import Counters, WorkerProcesses, bury
from ..observability.pulse import SILENCE_SECONDS
from ..policy import ListenerPolicy
from ..service.bounds import lacking
from ..service.openings import Unstartable
from ..service.process_name import name_process
from ..settings.model import ProxySettings
from ..worker_threads import Make
from .absence import Absence
from .line import Line, pickled
from .member import Inherited, Report, be_member
from .nursery import Nursery
from .seat import Seat
from .sent_keys import SentKeys
from .vigil import AwakeClock, Vigil, kill

__all__ = ["Crew"]

ANSWER_SECONDS = 1.0  # that a report is waited for
FOLLOW_SECONDS = 10.0  # the same, for a plan to be in force
LONG_LIFE = 5.0  # seconds; of those that live for less, the first is replaced at once
FIRST_PAUSE = 1.0  # seconds until the second is; then twice as long each time
LONGEST_PAUSE = 30.0
MOST_NAMED = 4  # in one line
STOP_SECONDS = 5.0  # that one is given to stop, until it is killed


class Waiting:
    """Calls that are to be made when all members have come so far."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._calls: dict[int, tuple[Callable[[], object], Timer]] = {}

    def add(self, number: int, then: Callable[[], object], seconds: float) -> None:
        """Call it when `number` is reached, or after `seconds`."""
        self._calls[number] = then, self._loop.call_later(seconds, self._call, number)

    def reach(self, least: int) -> None:
        """Where the last of the members is."""
        for number in [number for number in self._calls if number <= least]:
            self._call(number)

    def _call(self, number: int) -> None:
        if number in self._calls:  # another call may have been the end of all
            then, timer = self._calls.pop(number)
            timer.cancel()
            then()


class Crew:
    """Made before the process has threads, for the nursery is forked then. Belongs to the thread of `loop`, but where it says
    otherwise.

    board: of the front, with a place for each member and one for the front. keys: that members are to seal with. make: makes a
    worker, of its row, its number and what is called when it has drained. ended: called when a member has ended for good, as it
    was told to or because there is no other to take its place. OSError.
    """

    def __init__(
        self,
        loop: EventLoop,
        writer: LineWriter,
        board: Board,
        keys: SentKeys,
        make: Make,
        inherited: Inherited,
        ended: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._writer = writer
        self._board = board
        self._keys = keys
        self._ended = ended
        rows = inherited.rows
        self._seats = [Seat(number) for number in range(len(rows))]
        self._clock = AwakeClock()
        self._vigil = Vigil(loop, self._clock, self._seats, writer, self._who_is_silent, self._give_up)
        self.counters = [Counters() for _ in range(len(rows) + 1)]
        """What each member has counted, and at the end what those have that have died. From any thread."""
        self._buried_lines = 0  # of the log, that these could not write
        self._deaths = 0
        self._plan = b""  # pickled, once for all members
        self._counts_progress = False
        self._plans = 0  # so far
        self._followed = Waiting(loop)
        self._asked = 0  # questions so far
        self._answered = Waiting(loop)
        self._absence = Absence(loop, self._seats, lambda absent: self._tell_latest("absent", "absent", absent))
        self._started = self._ending = False
        self.failure: Optional[Exception] = None
        """That is the end of all."""
        self.problem = ""  # why not all are there, and will not be
        self._shares = inherited.shares
        self._catalogue = inherited.catalogue
        keep = [*(fd for row in rows for column in row for fd in column), *self._shares.descriptors]
        self._nursery: Optional[Nursery] = Nursery(keep, partial(be_member, inherited), writer)
        name_process("sslsock-front")
        self._watch = loop.watch_level(self._nursery.fileno(), select.POLLIN, self._on_nursery)
        self.main = make([], len(rows), lambda worker: None)
        """Accepts nobody; looks up names, and has them checked."""
        keys.handler = self._on_other_keys

    def start(self) -> None:
        """Returns when all of them accept, or are to end already. Unstartable."""
        began = time.monotonic()
        for seat in self._seats:
            self._begin(seat)
        late = self._loop.call_later(SILENCE_SECONDS, self._tell_who_is_awaited)
        while not (self._ending or all(seat.ready for seat in self._seats)):
            for seat in self._seats:
                if seat.problem or seat.line is None:
                    raise Unstartable(f"a worker process does not begin: {seat.problem or 'it has ended'}", 1)
            self._loop.dispatch(None)
        late.cancel()
        self._started = True
        self._vigil.start(time.monotonic() - began)

    def _tell_who_is_awaited(self) -> None:
        """Nobody is killed for it: many keys take long to load, and whoever starts the proxy has a bound of his own."""
        names = [seat.name for seat in self._seats if not seat.ready]
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        text = f"after {SILENCE_SECONDS:g} s the start still waits for {', '.join(names[:MOST_NAMED])}{more}"
        self._writer.write(text, WARNING)

    # What they are told

    def follow(
        self,
        settings: ProxySettings,
        policies: Sequence[ListenerPolicy],
        reading: Reading,
        access: Optional[Access],
        directory: Optional[Directory],
        then: Callable[[], object],
    ) -> None:
        """Go by these from now on. then: called when all do, or not within `FOLLOW_SECONDS`."""
        self.main.follow(policies, settings.limits, directory)
        self._plan = pickled(self._catalogue.plan(settings, policies, reading, access))
        self._plans += 1
        for seat in self._seats:
            self._send_plan(seat)
        self._followed.add(self._plans, partial(self._on_followed, self._plans, then), FOLLOW_SECONDS)
        self._look_who_is_behind()

    def _on_followed(self, number: int, then: Callable[[], object]) -> None:
        for seat in self._begun():
            if seat.plan < number:
                text = f"{seat.name} has not answered for {FOLLOW_SECONDS:g} s"
                self._writer.write(f"{text}: it goes by the new settings when it does", WARNING)
        then()

    def _send_plan(self, seat: Seat) -> None:
        """One at a time: for a member that does not read, no more than one is kept."""
        if seat.line is not None and seat.plan == seat.told < self._plans:
            seat.told = self._plans
            seat.line.send("plan", self._plans, self._plan)

    def _on_other_keys(self) -> None:
        """In any thread."""
        with suppress(RuntimeError):  # the loop was closed
            self._loop.call_soon_threadsafe(self._send_keys)

    def _send_keys(self) -> None:
        self._tell_latest("tickets", "tickets", self._keys.keys)

    def note(self, health: Health) -> None:
        """The checks have something to say of it."""
        self._tell_latest(health.key, "verdict", health.key, health.verdict)

    def checked(self) -> None:
        """And it is news."""
        self._tell_latest("checked", "checked")

    def count_progress(self) -> None:
        self._counts_progress = True
        self._tell_all("progress")

    def _keep_away(self) -> None:
        """New clients from who is not there: the others get their share."""
        if self._started and not self._ending:
            self._absence.look()

    def drain(self) -> None:
        """End when all connections have."""
        self._let_nobody_follow()
        self._tell_all("drain")

    def stop(self, reason: str) -> None:
        """End all connections at once."""
        self._let_nobody_follow()
        self._tell_all("stop", reason)
        with suppress(RuntimeError):  # the loop was closed: all have ended, or are about to
            self._loop.call_later(STOP_SECONDS, self._end_rest)

    def _tell_all(self, name: str, *values: object) -> None:
        for seat in self._seats:
            if seat.line is not None:
                seat.line.send(name, *values)

    def _tell_latest(self, subject: Hashable, name: str, *values: object) -> None:
        for seat in self._seats:
            if seat.line is not None:
                seat.line.send_latest(subject, name, *values)

    def _let_nobody_follow(self) -> None:
        """The nursery ends, and with it its copies of the listening descriptors."""
        self._ending = True
        self._close_nursery()

    def _close_nursery(self) -> None:
        if self._nursery is None:
            return
        nursery, self._nursery = self._nursery, None
        with suppress(RuntimeError):  # the loop was closed
            self._watch.close()
        self._absence.end()
        self._keep_away()
        nursery.end()
        self._note_news(nursery.news())
        nursery.close()
        for seat in self._seats:
            if seat.gone:  # how it has ended will not be known
                self._bury(seat, "")
            elif seat.line is None:  # another was to take its place
                self._conclude(seat)

    def _conclude(self, seat: Seat) -> None:
        """There will be nobody there any more."""
        if not seat.over:
            seat.over = True
            if not self._ending and all(one.over for one in self._seats):
                self.failure = Unstartable("all worker processes have ended", 1)
            self._ended()

    def _end_rest(self) -> None:
        """Of those that were told to stop: whatever holds them up, the front does not wait for it."""
        for seat in self._seats:
            if seat.line is not None:
                kill(seat.pid)
                self._give_up(seat)

    def _give_up(self, seat: Seat) -> None:
        """Nobody waits for what a member has to say; it sees the end of its line, and ends, if it ever goes on."""
        seat.finished = True
        self._bury(seat, "")

    def _who_is_silent(self, seat: Seat) -> tuple[str, int]:
        """A member, or the nursery: the name for the log, and the process."""
        if self._nursery is not None and seat.awaits_nursery:
            return "the process that forks workers", self._nursery.pid
        return seat.name, seat.pid

    # What they have seen; from any thread

    def _reports(self) -> Iterator[Report]:
        for seat in self._seats:
            report = seat.report
            if report is not None:
                yield report

    def backend_news(self) -> list[News]:
        return [item for report in self._reports() for item in report.news]

    def names_found(self) -> Iterator[dict[str, bool]]:
        return (report.names for report in self._reports())

    def sessions(self) -> int:
        """Connections that are open."""
        return sum(report.sessions for report in self._reports())

    def dropped(self) -> int:
        """Lines of the log."""
        return self._buried_lines + sum(report.dropped for report in self._reports())

    def lives(self) -> WorkerProcesses:
        """How many there are, for the metrics."""
        return WorkerProcesses(len(self._seats), sum(seat.accepts for seat in self._seats), self._deaths)

    def silence(self) -> float:
        """Seconds since the member that was heard longest ago has answered; where there is none, since one has."""
        return self._longest_silence()[0]

    def unwell(self) -> str:
        """Why the process had better be started anew; "": it is well."""
        seconds, text = self._longest_silence()
        return f"{text} for {seconds:.0f} s" if seconds > SILENCE_SECONDS else self.problem

    def _longest_silence(self) -> tuple[float, str]:
        now = self._clock.now
        silences = [(now - seat.beat, f"{seat.name} has given no sign of life") for seat in self._seats if seat.ready]
        if silences:
            return max(silences)
        return min(now - seat.beat for seat in self._seats), "no worker process accepts connections"

    def refresh(self) -> None:
        """Wait until all reports are of now. In another thread than the loop's."""
        done = threading.Event()
        with suppress(RuntimeError):  # the loop was closed
            self._loop.call_soon_threadsafe(self.ask, done.set)
            done.wait(ANSWER_SECONDS)

    def ask(self, then: Callable[[], object] = bool) -> None:
        """Have all of them report; `then` is called when they have, or not within `ANSWER_SECONDS`."""
        self._asked += 1
        self._keep_away()
        for seat in self._seats:
            self._send_question(seat)
        self._answered.add(self._asked, then, ANSWER_SECONDS)
        self._look_who_is_behind()

    def _send_question(self, seat: Seat) -> None:
        """One at a time, as plans."""
        if seat.line is not None and seat.asked == seat.answered < self._asked:
            seat.asked, seat.questioned = self._asked, self._clock.look()
            seat.line.send("ask", seat.asked)

    def _look_who_is_behind(self) -> None:
        begun = self._begun()
        self._answered.reach(min((seat.answered for seat in begun if seat.ready), default=self._asked))
        self._followed.reach(min((seat.plan for seat in begun), default=self._plans))

    def _begun(self) -> list[Seat]:
        """Those where somebody is, though he may not be ready yet."""
        return [seat for seat in self._seats if seat.line is not None and not seat.gone]

    # Their lives

    def _begin(self, seat: Seat) -> None:
        """A new member takes the seat."""
        if seat.over:
            return
        seat.since = self._clock.look()
        try:
            ours = self._nursery.grow(seat.number) if self._nursery is not None else None
        except OSError as exc:
            self._bury(seat, lacking("descriptors", exc.errno or 0))
            ours = None
        if ours is None:
            return
        seat.ready = seat.gone = seat.silent = seat.killed = seat.finished = False
        seat.plan = seat.told = 0
        seat.asked = seat.answered = self._asked
        seat.line = Line(self._loop, ours.detach(), partial(self._on_message, seat), partial(self._on_line_ended, seat))
        seat.line.send("tickets", self._keys.keys)
        seat.line.send("absent", self._absence.numbers)
        for health in self._board.all():
            if health.watched:
                seat.line.send("verdict", health.key, health.verdict)
        self._send_plan(seat)

    def _on_message(self, seat: Seat, name: str, values: tuple[Any, ...]) -> None:
        if name == "report":
            self._take_report(seat, *values)
        elif name == "ready":
            (seat.plan,) = values
            seat.beat = self._clock.look()
            seat.silent = seat.silent and seat.ready
            if not seat.ready and self._counts_progress and seat.line is not None:  # before, it has no worker to do it
                seat.line.send("progress")
            if self._started and not seat.ready:
                self._hear_nursery()  # which process it is
                self._writer.write(f"{seat.name} accepts connections")
            seat.ready = True
            self._send_plan(seat)
            self._keep_away()
            self._look_who_is_behind()
        elif name == "unusable":
            (seat.problem,) = values
        elif name == "lookup":
            address, error = values
            self._board.note_lookup(address, error, self._writer)

    def _take_report(self, seat: Seat, asked: int, report: Optional[Report]) -> None:
        if report is not None:
            seat.report = report
            self.counters[seat.number] = report.counters
            seat.loads = self._take_loads(seat, report.loads)
        now = self._clock.look()
        if seat.silent and seat.ready:
            seat.silent = False
            seconds = now - seat.beat
            self._writer.write(f"{seat.name} answers again, after {seconds:.0f} s")
        seat.finished = seat.finished or not asked
        seat.beat = now
        seat.answered = max(seat.answered, asked)
        self._keep_away()
        self._send_question(seat)
        self._look_who_is_behind()

    def _take_loads(self, seat: Seat, loads: Sequence[tuple[Hashable, str, str, int]]) -> list[Health]:
        """The healths that have a count of this member's; they live as long as it is told of."""
        for health in seat.loads:
            health.counts[seat.number] = 0
        found = []
        for key, name, peer, count in loads:
            health = self._board.find(key, name, peer)
            health.counts[seat.number] = count
            found.append(health)
        return found

    def _on_nursery(self, events: int) -> None:
        if self._hear_nursery():
            return
        self.problem = "the process that forks workers has ended"
        how = self._nursery.end() if self._nursery is not None else ""
        text = "a worker process that ends now has no other to take its place; start the proxy anew when it suits"
        self._writer.write(f"{self.problem} {how}: {text}", ERROR)
        self._close_nursery()

    def _hear_nursery(self) -> bool:
        """Returns whether it is still there."""
        news = self._nursery.news() if self._nursery is not None else []
        self._note_news(news)
        return news is not None

    def _note_news(self, news: Optional[list[tuple[int, int, str]]]) -> None:
        if news:
            now = self._clock.look()
            for seat in self._seats:
                seat.nursery_lives(now)
        for number, pid, how in news or ():
            if how:
                self._bury(self._seats[number], how)
            else:
                self._seats[number].pid = pid

    def _on_line_ended(self, seat: Seat) -> None:
        """It has ended, or is about to; the nursery, where there is one, says how."""
        seat.gone, seat.left = True, self._clock.look()
        if self._nursery is None:
            self._bury(seat, "")
        else:
            self._keep_away()
            self._look_who_is_behind()

    def _bury(self, seat: Seat, how: str) -> None:
        line, seat.line = seat.line, None
        if line is not None:
            line.close()
        as_told = self._ending and (seat.finished or not seat.ready)
        name, was_there = seat.name, seat.pid > 0  # else the system had none to give
        seat.ready, seat.gone, seat.pid = False, False, 0
        self._shares.clear(seat.number)
        lost = self._count_out(seat)
        self._deaths += was_there and self._started and not as_told
        self._keep_away()
        self._look_who_is_behind()
        if seat.problem and self._started:
            how, seat.problem = f"{how} ({seat.problem})", ""
        ended = f"{f'{name} has ended {how}'.rstrip()}, with {lost} connections" if was_there else f"{name}: {how}"
        if self._nursery is None or self._ending:
            if not as_told:
                self._writer.write(ended, ERROR)
            if self._nursery is None:  # otherwise it is about to be closed
                self._conclude(seat)
            return
        if not self._started:  # `start` tells why
            seat.problem = seat.problem or (f"it has ended {how}" if was_there else how)
            return
        if self._clock.look() - seat.since > LONG_LIFE:
            seat.pause = 0.0
        wait, seat.pause = seat.pause, min(max(FIRST_PAUSE, 2 * seat.pause), LONGEST_PAUSE)
        what = "another takes its place" if was_there else "tried again"
        self._writer.write(f"{ended}; {what}{f' in {wait:g} s' if wait else ''}", ERROR)
        self._loop.call_later(wait, self._begin, seat)

    def _count_out(self, seat: Seat) -> int:
        """What it has told last counts on. Returns how many connections it had."""
        report, seat.report = seat.report, None
        for health in seat.loads:
            health.counts[seat.number] = 0
        seat.loads = []
        if report is None:
            return 0
        bury(self.counters, seat.number)
        self._buried_lines += report.dropped
        return report.sessions

    def close(self) -> None:
        """The front has ended, and so whoever is left ends."""
        self._let_nobody_follow()
        for seat in self._seats:
            if seat.line is not None:
                kill(seat.pid)
