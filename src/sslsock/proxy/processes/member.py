"""A member: a process with one worker. What there is to decide it is told by the front, and tells it what it has seen.

Messages of the front: `plan` (what to go by), `tickets` (keys), `absent` (members that take no new connections), `verdict` (of
the checks, about a back end), `checked` (these are news), `ask` (for a `Report`), `progress` (count bytes of live connections
from now on), `drain`, `stop`. Of a member: `ready` (the plan is in force), `unusable` (why it is not), `report`, `lookup` (of a
name).

When the front has ended, however that was, its members end too.
"""

from __future__ import annotations

import errno
import logging
import os
import pickle
import select
import threading
from collections.abc import Collection, Hashable, Sequence
from contextlib import suppress
from typing import Any, Callable, NamedTuple, Optional, cast

from ...core.event_loop import EventLoop
from ...core.ticket_keys import TicketKeys
from ..acme.challenges import Challenges
from ..acme.storage import Storage
from ..allowance import Allowance
from ..back_ends.backends import News
from ..back_ends.directory import Directory
from ..back_ends.health import Board, Health, Verdict
from ..limits.shared_gate import SharedGate
from ..limits.shares import Shares
from ..observability import record
from ..observability.access_log import AccessLog, LineWriter
from ..observability.metrics import Counters
from ..observability.process_log import process_log
from ..policy import ListenerPolicy
from ..service.bounds import lacking
from ..service.openings import Unstartable
from ..service.port_groups import avoid
from ..service.process_name import name_process
from ..tls.certificates import Pair
from ..worker import Worker, borrowed
from .line import Line, packed
from .plan import Catalogue, Known, Obtained, Plan, policies_of

__all__ = ["Inherited", "Report", "be_member"]

log = logging.getLogger("sslsock")


class Inherited(NamedTuple):
    """What a member has from its birth. rows: of each member the listening descriptors of each listener; shared: those that
    others have too. shares: of the limits. message: how lines for the operator are formed. held: descriptors that are open
    besides. catalogue: of what was made of files."""

    rows: Sequence[Sequence[Sequence[int]]]
    shared: Collection[int]
    shares: Shares
    message: Callable[[str, str], str]
    held: int
    catalogue: Catalogue


class Report(NamedTuple):
    """What a member has seen so far. loads: connections with each back end, by the key of its health. full: it has as many as
    its descriptors allow."""

    counters: Counters
    news: list[News]
    names: dict[str, bool]
    loads: list[tuple[Hashable, str, str, int]]
    sessions: int
    full: bool
    dropped: int


class MemberBoard(Board):
    """What this process knows of back ends: by the checks of the front."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line
        self._verdicts: dict[Hashable, Verdict] = {}  # of all that are checked

    def find(self, key: Hashable, name: str, peer: str) -> Health:
        health = super().find(key, name, peer)
        if key in self._verdicts:
            health.take(self._verdicts[key])
        return health

    def take(self, key: Hashable, verdict: Verdict) -> None:
        if verdict[0]:
            self._verdicts[key] = verdict
        else:
            self._verdicts.pop(key, None)
        for health in self.all():
            if health.key == key:
                health.take(verdict)

    def note_lookup(self, address: str, error: str, writer: LineWriter) -> None:
        self._line.send("lookup", address, error)


class Member:
    """One that is to be worker `number`. fd: of its line."""

    def __init__(self, number: int, fd: int, inherited: Inherited, writer: LineWriter) -> None:
        self._number = number
        self._inherited = inherited
        self._writer = writer
        self._loop = EventLoop.current()
        self._line = Line(self._loop, fd, self._on_message, self._on_front_gone)
        self._board = MemberBoard(self._line)
        self._keys = TicketKeys()
        self._known = Known(inherited.catalogue.things())
        self._policies: Optional[Sequence[ListenerPolicy]] = None  # made last
        self._storage: Optional[Storage] = None  # of ACME
        self._acme: Optional[Obtained] = None
        self._directory: Optional[Directory] = None
        self._allowance: Optional[Allowance] = None
        self._worker: Optional[Worker] = None
        self._plan: Optional[bytes] = None  # to be put in force; pickled, for keys take their time to be loaded
        self._number_of_plan = 0  # of the last one that has come
        self._making: Optional[threading.Thread] = None
        self._over = False

    def run(self) -> int:
        """Returns the exit status."""
        while self._plan is None and not self._over:
            self._loop.dispatch(None)
        pickled, self._plan = self._plan, None
        if pickled is None or self._over:
            return 0
        number = self._number_of_plan
        try:
            plan = pickle.loads(pickled)
            policies = self._make_policies(plan)
            self._worker = self._begin(plan, policies)
        except Exception as exc:
            self._line.send("unusable", str(exc))
            if not isinstance(exc, Unstartable):
                log.exception("a worker process does not begin")
            return 1
        self._line.send("ready", number)
        self._worker.run()
        return 0

    # The plan

    def _make_policies(self, plan: Plan) -> list[ListenerPolicy]:
        self._known.take(plan)
        if plan.obtained is not None:
            self._follow_acme(plan)
        if self._directory is None and plan.settings.asks_dns:
            self._directory = Directory(plan.settings.resolver)
        self._policies = policies = policies_of(plan, self._known, self._keys, self._acme, self._policies)
        return policies

    def _follow_acme(self, plan: Plan) -> None:
        from ..acme.manager import below
        from ..acme.setup import storage_of

        assert plan.settings.acme is not None and plan.obtained is not None
        if self._storage is None:
            self._storage = below(storage_of(plan.settings.acme, plan.access), plan.settings.acme.directory)
            self._storage.start()
        elif plan.access is not None:
            self._storage.log_in(plan.access)
        challenges = self._acme.challenges if self._acme is not None else Challenges(self._storage)
        pairs = {name: cast(Pair, self._known.of(one)) for name, one in plan.obtained.items()}
        self._acme = Obtained(plan.settings.acme_names(), pairs, challenges)

    def _begin(self, plan: Plan, policies: Sequence[ListenerPolicy]) -> Worker:
        settings, inherited = plan.settings, self._inherited
        row = inherited.rows[self._number]
        self._allowance = allowance = Allowance(settings, self._writer, inherited.shares, self._number == 0)
        allowance.begin(inherited.held, row)
        allowance.follow(settings, policies, 0)
        gate = allowance.gate
        assert isinstance(gate, SharedGate)
        self._pokes = self._loop.watch_level(inherited.shares.fileno(), select.POLLIN, lambda events: gate.on_poke())
        return Worker(
            policies,
            row,
            inherited.shared,
            settings.limits,
            gate,
            AccessLog(self._writer, settings.log_format, settings.log_probes),
            self._writer,
            settings.log_format is not None,
            self._on_drained,
            allowance.sources,
            allowance.rooms,
            self._board,
            0,
            self._directory,
            allowance.rates,
        )

    def _follow(self) -> None:
        """Put the newest plan in force. It is made in a thread: a worker that loads keys would let its connections wait."""
        if self._plan is not None and self._making is None:
            arguments, self._plan = (self._number_of_plan, self._plan), None
            self._making = threading.Thread(target=self._make, args=arguments, name="plan", daemon=True)
            try:
                self._making.start()
            except RuntimeError:  # the system gives no more threads
                self._make(*arguments)

    def _make(self, number: int, pickled: bytes) -> None:
        plan: Optional[Plan] = None
        policies: Optional[list[ListenerPolicy]] = None
        try:
            plan = pickle.loads(pickled)
            policies = self._make_policies(plan)
        except Exception:  # the front has made the same of it, and it was good
            log.exception("the old settings stay in force in a worker process")
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._put_in_force, number, plan, policies)

    def _put_in_force(self, number: int, plan: Optional[Plan], policies: Optional[list[ListenerPolicy]]) -> None:
        self._making = None
        worker, allowance = self._worker, self._allowance
        if plan is not None and policies is not None and worker is not None and allowance is not None:
            allowance.follow(plan.settings, policies, 0)
            worker.follow(policies, plan.settings.limits, self._directory)
        self._line.send("ready", number)
        self._follow()

    # What the front tells

    def _on_message(self, name: str, values: tuple[Any, ...]) -> None:
        worker = self._worker
        if name == "plan":
            self._number_of_plan, self._plan = values
            if worker is not None:
                self._follow()
        elif name == "tickets":
            self._keys.replace(*values)
        elif name == "absent":
            self._keep_away(*values)
        elif name == "verdict":
            self._board.take(*values)
        elif name == "ask":
            self._line.send("report", *values, self._report())
        elif name in ("drain", "stop") and worker is None:
            self._over = True
        elif worker is None:
            return
        elif name == "checked":
            worker.on_checked()
        elif name == "progress":
            worker.count_progress()
        elif name == "drain":
            worker.drain()
        elif name == "stop":
            worker.abort_all(*values)
            self._send_last(worker)

    def _keep_away(self, absent: Sequence[int]) -> None:
        """New connections from those members."""
        rows = self._inherited.rows
        for fd in (one for column in rows[self._number] for one in column if one not in self._inherited.shared):
            with suppress(OSError), borrowed(fd) as listening:  # a UNIX socket; a system without; it is closed already
                avoid(listening, len(rows), absent)

    def _report(self) -> Optional[Report]:
        worker = self._worker
        if worker is None:
            return None
        return Report(
            worker.counters.frozen(),
            worker.backend_news(),
            worker.names_found(),
            [(health.key, health.name, health.peer, health.counts[0]) for health in self._board.all()],
            len(worker.sessions),
            worker.gate.own is not None and worker.gate.own.full,
            self._writer.dropped,
        )

    def _on_drained(self, worker: Worker) -> None:
        self._send_last(worker)

    def _send_last(self, worker: Worker) -> None:
        """And end when the front can read it: it counts by it."""
        self._line.send("report", 0, self._report())
        self._line.when_all_is_sent(worker.loop.stop)

    def _on_front_gone(self) -> None:
        self._over = True
        if self._worker is not None:
            self._worker.stop(record.ABORTED)


def be_member(inherited: Inherited, number: int, fd: int) -> int:
    """In a process that was forked for it. Returns its exit status."""
    name_process(f"sslsock-work{number + 1}")
    inherited.shares.join(number)
    for row in (*inherited.rows[:number], *inherited.rows[number + 1 :]):
        for listening in (one for column in row for one in column):
            os.close(listening)
    log.handlers.clear()  # the front's, which has no thread here
    with open(2, "wb", closefd=False) as stream:
        try:
            writer = LineWriter(stream, beside_status=True)
        except RuntimeError:
            os.write(fd, packed("unusable", (lacking("thread", errno.EAGAIN),)))
            return 1
    writer.message = inherited.message
    try:
        with process_log(writer):
            try:
                return Member(number, fd, inherited, writer).run()
            except Exception:
                log.exception("a worker process has ended by a mistake of its own: please report it")
                return 1
    finally:
        writer.close()
