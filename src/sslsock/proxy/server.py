"""The proxy as a process: start, signals, reload, drain, end.

The workers are threads (`worker_threads`), the first of which is this one, or processes (`processes`). All listening
descriptors are opened (`openings`) before privileges are dropped. What it goes by, and how that changes, is told in `in_force`.
"""

from __future__ import annotations

import codecs
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Callable, Optional, Union

from ..core.event_loop import EventLoop
from ..core.hostname import parse_host
from .allowance import Allowance
from .announcement import address_here, announce, listener_lines
from .back_ends.backends import summed_up
from .back_ends.checks import Checker
from .back_ends.health import Board
from .files.reading import Reading
from .fleet.member import access_to
from .in_force import UNUSABLE, InForce, Reload
from .limits.descriptors import open_now
from .limits.refusals import RefusalLog
from .limits.shares import Shares
from .observability import record
from .observability.access_log import ERROR, WARNING, AccessLog, LineWriter
from .observability.metrics import MetricsError, ProcessState, make_collector
from .observability.pulse import SILENCE_SECONDS, Pulse
from .observability.summary import INTERVAL, Summary, end_line
from .policy import ListenerPolicy
from .processes.crew import Crew
from .processes.member import Inherited
from .processes.plan import Catalogue
from .processes.sent_keys import SentKeys
from .service.bounds import reason_of
from .service.openings import Openings, Unstartable
from .service.privileges import PrivilegeError, drop_to, listen_fds, match_sockets
from .settings.model import Address, ProxySettings
from .tls.tickets import TicketKeyError, TicketKeyFile, TicketRotation
from .worker import Worker
from .worker_threads import WorkerThreads

if TYPE_CHECKING:
    from ..core.schedule import Timer
    from .acme.http import ChallengeServer
    from .observability.metrics_server import MetricsServer

__all__ = ["run"]

NAME_SECONDS = 5.0  # how often names are looked at whose back ends are checked
REFUSAL_SECONDS = 1.0  # how often it is looked whether connections were refused
TICKET_SECONDS = 1.0  # how often the ticket keys are looked at
UNUSED_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)  # other servers do something; the system would end the process
PULSE_SECONDS = 1.0  # how often the workers are asked for a sign of life


def run(settings: ProxySettings, reading: Reading, reload: Optional[Reload], writer: LineWriter) -> int:
    """Run until a signal ends it. Returns the exit status: 0 drained, 1 it could not start, 2 its settings are wrong, 130
    interrupted.

    reading: what the files of the settings were checked by; the contents are forgotten once they are loaded. reload: makes the
    settings anew when SIGHUP asks for it, with what it has read, and gives its warnings to the function it is called with; the
    second argument is the reading in force. SettingsError leaves the old ones in force. writer: gets every line of the log.
    """
    try:
        return Server(settings, reading, reload, writer).run()
    except Unstartable as exc:
        writer.write(f"sslsock: {exc}", ERROR)
        return exc.status
    except SystemExit as exc:  # a signal during the start
        return int(exc.code or 0)


class Server(InForce):
    """One run of the proxy. Belongs to the main thread."""

    def __init__(self, settings: ProxySettings, reading: Reading, reload: Optional[Reload], writer: LineWriter) -> None:
        super().__init__(settings, reading, reload, writer, EventLoop.current())
        self._log = AccessLog(writer, settings.log_format, settings.log_probes)
        self._allowance = Allowance(settings, writer)
        self._board = Board(settings.threads + settings.processes)
        self._openings = Openings()
        self._held = 0  # descriptors that are open before there are workers
        self._crew: Optional[Union[WorkerThreads, Crew]] = None  # once they are made
        self._running = settings.threads  # workers that have not ended
        self._metrics: Optional[MetricsServer] = None
        self._acme_http: Optional[ChallengeServer] = None
        self._pulse = Pulse((self._loop,))
        self._delay: Optional[Timer] = None  # until the drain begins
        self._status = 0
        self._started = False
        self._ended_early: Optional[int] = None  # by a signal during the start: the exit status
        self._holds_signals = False

    def run(self) -> int:
        previous = self._take_signals()
        try:
            self._start().run()
            if self._workers.failure is not None:
                raise self._workers.failure
        finally:
            self._openings.remove_files()
            if self._crew is not None:
                self._crew.stop(record.ABORTED)  # no effect when all have drained
                self._crew.close()
            self._close_reading()
            self._loop.close()
            for number, handler in previous:
                signal.signal(number, handler)
            if self._metrics is not None:
                self._metrics.close()
            if self._acme_http is not None:
                self._acme_http.close()
            self._manager.close()
        self._writer.write(end_line(self._workers.counters))
        return self._status

    @property
    def _workers(self) -> Union[WorkerThreads, Crew]:
        assert self._crew is not None
        return self._crew

    # The start

    def _start(self) -> Worker:
        """Everything up to the first turn of the main worker's loop, which is returned."""
        settings = self._settings
        try:
            self._prepare_acme()
            self._read_files()
        except (*UNUSABLE, PrivilegeError) as exc:
            raise Unstartable(exc, 2) from exc
        try:
            sockets = self._open()
            if not settings.processes:
                self._crew = WorkerThreads(sockets, self._make_worker, self._one_less)
            if settings.user is not None:
                # What names need is loaded late, from files that the user may not see.
                codecs.lookup("idna")  # getaddrinfo's
                with suppress(ValueError):  # the package idna is missing, as it is allowed to be
                    parse_host("\u00e4")
                drop_to(settings.user, any(listener.transparent for listener in settings.listeners))
            if settings.processes:
                with self._signals_held():
                    self._crew = self._fork_crew(sockets)
            self._join_fleet()
            self._check_back_ends()
            self._started = True  # from here on only the loop can end everything
            self._end_if_told()  # a finalizer may have swallowed it
            self._put_in_force()
            self._workers.start()
            announce(self._lines(sockets[0]), self._writer if settings.log_format == "json" else None)
            if settings.processes:  # whose own they are from here on
                self._close_listening(sockets)
            self._files.start(self._reading)
            self._start_acme()
            if self._metrics is not None:
                self._metrics.start(
                    make_collector(
                        self._workers.counters,
                        lambda: self._backends_up()[0],
                        self._certificates_view,
                        lambda: self._writer.dropped + self._workers.dropped(),
                        lambda: self._backends_up()[1],
                        self._process_state,
                        healths_view=self._board.all,
                        crls_view=self._crls_view,
                        names_view=self._names_view,
                        acme_view=self._acme.states if self._acme is not None else None,
                        refresh=self._workers.refresh,
                    ),
                    {"/healthz": self._unhealthy, "/readyz": self._unready},
                )
        except PrivilegeError as exc:
            raise Unstartable(exc, 1) from exc
        except (OSError, RuntimeError) as exc:  # no descriptors, no threads
            raise Unstartable(f"the proxy cannot start: {reason_of(exc)}", 1) from exc
        if self._manager.problem:
            self._writer.write(self._manager.problem, WARNING)
        self._plan_timers()
        self._manager.ready(self._serving())
        return self._workers.main

    def _open(self) -> list[list[list[int]]]:
        """Listening descriptors: for each worker, those of each listener."""
        settings = self._settings
        addresses = [listener.listen for listener in settings.listeners]
        try:
            inherited = match_sockets(addresses, listen_fds())
        except PrivilegeError as exc:
            raise Unstartable(exc, 1) from exc
        if settings.metrics is not None:
            self._open_metrics(settings.metrics)
        self._open_acme_http()
        rows = self._openings.open(settings.listeners, inherited, settings.threads, self._writer)
        self._held = open_now() + (settings.fleet is not None)
        self._allowance.begin(self._held, rows[0])
        self._follow_limits(self._policies)
        return rows

    def _open_metrics(self, address: Address) -> None:
        from .observability.metrics_server import MetricsServer  # slow to load

        try:
            self._metrics = MetricsServer(address.host, address.port)
        except MetricsError as exc:
            raise Unstartable(exc, 1) from exc
        except OSError as exc:
            raise Unstartable(f"--metrics {address.place}: {reason_of(exc)}", 1) from exc

    # Certificates that are obtained

    def _prepare_acme(self) -> None:
        settings = self._settings
        if settings.acme is None:
            return
        from .acme.setup import make_manager  # needs a package

        def tell() -> None:
            with suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._on_files_changed)

        access = access_to(settings.fleet, self._reading) if settings.fleet is not None else None
        self._acme = make_manager(settings.acme, settings.acme_names(), settings.user, self._writer.write, tell, access)
        try:
            self._acme.load()
        except OSError as exc:
            if not settings.acme.in_fleet:  # Redis may be away
                raise
            self._writer.write(f"certificates are not there yet: {exc.strerror}", WARNING)

    def _open_acme_http(self) -> None:
        if self._settings.acme is None or self._settings.acme.http is None:
            return
        from .acme.http import ChallengeServer

        address = self._settings.acme.http
        try:
            self._acme_http = ChallengeServer(address.host, address.port)
        except OSError as exc:
            raise Unstartable(f"--acme-http {address.place}: {reason_of(exc)}", 1) from exc

    def _start_acme(self) -> None:
        if self._acme is None:
            return
        if self._acme_http is not None:
            self._acme_http.start(self._acme.challenges)
        missing = self._acme.missing()
        if missing:
            self._writer.write(f"no certificate yet for {', '.join(missing)}: until there is, clients get an alert", WARNING)
        self._acme.start()

    def _make_worker(
        self, descriptors: Sequence[Sequence[int]], number: int, drained_handler: Callable[[Worker], object]
    ) -> Worker:
        """In its thread."""
        settings, allowance = self._settings, self._allowance
        return Worker(
            self._policies,
            descriptors,
            self._openings.shared,
            settings.limits,
            allowance.gate,
            self._log,
            self._writer,
            settings.log_format is not None,
            drained_handler,
            allowance.sources,
            allowance.rooms,
            self._board,
            number,
            self._directory,
            allowance.rates,
        )

    def _fork_crew(self, rows: Sequence[Sequence[Sequence[int]]]) -> Crew:
        assert isinstance(self._sealing, SentKeys)
        settings = self._settings
        shares = Shares(settings.threads, [policy.name for policy in self._policies], settings.limits.source_table_size)
        return Crew(
            self._loop,
            self._writer,
            self._board,
            self._sealing,
            self._make_worker,
            Inherited(
                rows,
                self._openings.shared,
                shares,
                self._writer.message,
                self._held,
                Catalogue(self._policies, self._reading),
            ),
            self._one_less,
        )

    @staticmethod
    def _close_listening(rows: Sequence[Sequence[Sequence[int]]]) -> None:
        for fd in (one for row in rows for column in row for one in column):
            os.close(fd)

    def _check_back_ends(self) -> None:
        """The main thread makes the checks for all workers."""
        workers = self._workers
        main = workers.main

        def look_at_names() -> None:
            checker.refresh()
            self._loop.call_later(NAME_SECONDS, look_at_names)

        checker = Checker(main.loop, self._writer, workers.checked, workers.note)
        main.backends_handler = lambda: checker.follow(main.routes)
        main.backends_handler()
        self._loop.call_later(NAME_SECONDS, look_at_names)

    def _lines(self, descriptors: Sequence[Sequence[int]]) -> list[str]:
        """What is told once it accepts."""
        settings, lines = self._settings, []
        for policy, (fd, *_) in zip(self._policies, descriptors):
            lines += listener_lines(policy, fd, fd in self._openings.shared)
        if settings.processes:
            lines.append(f"in {settings.processes_text}")
        if self._metrics is not None and settings.metrics is not None:
            lines.append(f"metrics at {address_here(settings.metrics.host, self._metrics.port)}/metrics")
        if self._acme_http is not None and settings.acme is not None and settings.acme.http is not None:
            lines.append(f"http-01 is answered at {address_here(settings.acme.http.host, self._acme_http.port)}")
        return lines

    # While it runs

    def _take_signals(self) -> list[tuple[int, signal._HANDLER]]:
        numbers = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, *UNUSED_SIGNALS)
        return [(number, signal.signal(number, self._on_signal)) for number in numbers]

    @contextmanager
    def _signals_held(self) -> Iterator[None]:
        """During the start: one that ends the proxy does so after the block."""
        self._holds_signals = True
        try:
            yield
        finally:
            self._holds_signals = False
        self._end_if_told()

    def _end_if_told(self) -> None:
        if self._ended_early is not None:
            raise SystemExit(self._ended_early)

    def _on_signal(self, number: int, frame: object) -> None:
        """In the main thread, between two bytecodes of whatever runs there: the loop does the rest."""
        if number in UNUSED_SIGNALS:
            self._writer.write(f"{signal.Signals(number).name}: it has no meaning here")
            return
        if not self._started and number != signal.SIGHUP:
            self._ended_early = 0 if number == signal.SIGTERM else 130
            if not self._holds_signals:
                raise SystemExit(self._ended_early)
            return
        handlers = {signal.SIGHUP: self._on_hangup, signal.SIGTERM: self._on_terminate, signal.SIGINT: self._on_interrupt}
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(handlers[signal.Signals(number)])

    def _put_in_force(self, then: Callable[[], object] = bool) -> None:
        self._workers.follow(self._settings, self._policies, self._reading, self._access, self._directory, then)

    def _on_terminate(self) -> None:
        """A second one ends the delay."""
        if self._delay is not None:
            self._delay.cancel()
            self._drain()
        elif not self._ending:
            self._ending = True
            limits = self._settings.limits
            # With no bound for the drain nobody knows when it ends.
            self._manager.stopping(limits.drain_timeout and limits.shutdown_delay + limits.drain_timeout, "ending")
            if limits.shutdown_delay:
                text = f"SIGTERM: no longer ready; new connections are taken for {limits.shutdown_delay:g} s more"
                self._writer.write(text)
                self._delay = self._loop.call_later(limits.shutdown_delay, self._drain)
            else:
                self._drain()

    def _drain(self) -> None:
        self._delay = None
        self._workers.ask(self._drain_workers)

    def _drain_workers(self) -> None:
        seconds = self._settings.limits.drain_timeout
        count = self._workers.sessions()
        time_text = f"{seconds:g} s" if seconds else "all the time they need"
        open_text = f"{count} are given {time_text} to end" if count else "none is open"
        self._writer.write(f"SIGTERM: no new connections; {open_text}")
        if seconds:
            self._loop.call_later(seconds, self._end_all, record.DRAINED)
        self._openings.remove_files()
        self._workers.drain()

    def _on_interrupt(self) -> None:
        self._status = 130
        self._ending = True
        self._end_all(record.ABORTED)

    def _end_all(self, reason: str) -> None:
        self._workers.stop(reason)

    def _one_less(self) -> None:
        self._running -= 1
        if not self._running or self._workers.failure is not None:
            self._loop.stop()

    def _follow_limits(self, policies: Sequence[ListenerPolicy]) -> None:
        if self._settings.processes:  # which follow them themselves
            return
        servers = [server.most_descriptors for server in (self._metrics, self._acme_http) if server is not None]
        self._allowance.follow(self._settings, policies, sum(servers))

    def _plan_timers(self) -> None:
        workers = self._workers
        counters = workers.counters
        summary, refusals = Summary(counters, self._writer), RefusalLog(counters, self._writer)

        def tell_refusals() -> None:
            refusals.update()
            self._loop.call_later(REFUSAL_SECONDS, tell_refusals)

        def tell() -> None:
            summary.update()
            self._loop.call_later(INTERVAL, tell)

        def look_at_tickets() -> None:
            try:
                if isinstance(self._ticket_source, TicketKeyFile):
                    self._ticket_source.check()
                elif isinstance(self._ticket_source, TicketRotation):
                    self._ticket_source.turn(time.monotonic())
            except TicketKeyError as exc:
                self._writer.write(f"the old ticket keys stay in force: {exc}", ERROR)
            self._loop.call_later(TICKET_SECONDS, look_at_tickets)

        def look_for_life() -> None:
            self._pulse.ask()
            workers.ask()
            if self._manager.watchdog and self._silence() < self._manager.watchdog / 2:
                self._manager.alive()
            self._loop.call_later(min(PULSE_SECONDS, self._manager.watchdog / 4 or PULSE_SECONDS), look_for_life)

        if self._manager.watchdog or self._metrics is not None or self._settings.processes:
            look_for_life()
        self._loop.call_later(TICKET_SECONDS, look_at_tickets)
        self._loop.call_later(REFUSAL_SECONDS, tell_refusals)
        if summary.wanted:
            tell()
        if summary.wanted or self._metrics is not None:
            workers.count_progress()

    # What the metrics ask, in a scraper's thread

    def _backends_up(self) -> tuple[dict[str, bool], dict[tuple[str, str], bool]]:
        return summed_up([*self._workers.main.backend_news(), *self._workers.backend_news()])

    def _process_state(self) -> ProcessState:
        files, changes = self._files.state()
        fleet = self._member.state() if self._member is not None else None
        age, lives = self._ticket_source.age(), self._workers.lives()
        return ProcessState(self._reload_success, self._reloaded, age, files, changes, fleet, lives)

    def _unhealthy(self) -> str:
        """Why the process had better be started anew; "": it is well."""
        silence = self._pulse.silence()
        if silence > SILENCE_SECONDS:
            return f"the main thread has given no sign of life for {silence:.0f} s"
        return self._workers.unwell()

    def _silence(self) -> float:
        return max(self._pulse.silence(), self._workers.silence())

    def _unready(self) -> str:
        """Why nobody should be sent here; "": send them. Back ends that are down do not count: others may have the same."""
        return "ending" if self._ending else self._unhealthy() or self._bare()

    def _bare(self) -> str:
        """Whether a listener has no certificate at all yet, and so nobody to serve."""
        bare = [policy.name for policy in self._policies if policy.settings.acme and policy.store is None]
        return f"no certificate yet: {', '.join(bare)}" if bare else ""

    def _crls_view(self) -> dict[str, float]:
        return {file: moment.timestamp() for policy in self._policies for file, moment in policy.crl_ends().items()}

    def _names_view(self) -> dict[str, bool]:
        found: dict[str, bool] = {}
        for names in (self._workers.main.names_found(), *self._workers.names_found()):
            for name, good in names.items():
                found[name] = found.get(name, True) and good
        return found

    def _certificates_view(self) -> dict[str, float]:
        return {
            expiry.path or ",".join(expiry.names): expiry.not_after.timestamp()
            for policy in self._policies
            if policy.store is not None
            for expiry in policy.store.expiries()
            if expiry.not_after is not None
        }

