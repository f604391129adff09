"""What the proxy counts, and how Prometheus gets it.

`Counters` belongs to one worker: plain numbers that its thread alone changes, without locks. Readers in other threads see each
number whole (the GIL), and only numbers that never fall, so that a sum over workers never falls either; dictionaries are copied
before they are walked through. The gauge of active connections is the difference of two such numbers, read in the order that
cannot make it negative.

Aggregation happens when somebody asks: `total` for the summary, `make_collector` for Prometheus, whom `metrics_server` answers.
The package prometheus_client is needed for these two alone and is imported when they are asked for.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Protocol

from ...core.build import build_info
from .causes import cause_of
from .record import FAILURES, HANDSHAKE_OK, REFUSALS, VERDICTS, WORKER_DIED, ConnectionRecord

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector

    from ..acme.manager import AcmeState
    from ..back_ends.health import Health
    from ..fleet.member import FleetState

__all__ = [
    *("Counters", "MetricsError", "ProcessState", "Totals", "WorkerProcesses"),
    *("bury", "by_listener", "import_prometheus", "make_collector", "total"),
]

HANDSHAKE_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
CONNECTION_BOUNDS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)


class MetricsError(Exception):
    """The metrics cannot be served. The text says why, for the user."""


class Histogram:
    """Counts per bucket: `counts[i]` values up to `bounds[i]` and above the bound before, the last one all others."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def merge(self, other: Histogram) -> None:
        for index, count in enumerate(other.counts.copy()):
            self.counts[index] += count
        self.sum += other.sum

    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus has them: cumulative, named by their upper bound."""
        names = [str(bound) for bound in self.bounds] + ["+Inf"]
        result, sum_so_far = [], 0
        for name, count in zip(names, self.counts):
            sum_so_far += count
            result.append((name, float(sum_so_far)))
        return result


class Refuses(Protocol):
    """A `Door`, as far as it is of interest here."""

    def refused(self) -> tuple[tuple[int, int, bytes], ...]: ...


class Refused:
    """What a door of another process has said."""

    def __init__(self, refused: tuple[tuple[int, int, bytes], ...]) -> None:
        self._refused = refused

    def refused(self) -> tuple[tuple[int, int, bytes], ...]:
        return self._refused


class ListenerCounters:
    """One listening address in one worker, or the sum over workers."""

    __slots__ = (
        *("back", "back_handshakes", "backends", "causes", "durations", "ended", "forward"),
        *("doors", "handshake_seconds", "handshakes", "opened", "reasons", "refused"),
    )

    def __init__(self) -> None:
        self.opened = 0
        self.ended = 0
        self.forward = 0
        self.back = 0
        self.reasons: dict[str, int] = defaultdict(int)
        self.refused: dict[str, int] = defaultdict(int)  # of these, by a list or a limit; in a sum also at the doors
        self.doors: list[Refuses] = []
        self.handshakes: dict[tuple[str, str, bool], int] = defaultdict(int)  # result, version, resumed
        self.back_handshakes: dict[bool, int] = defaultdict(int)  # resumed
        self.causes: dict[str, int] = defaultdict(int)  # of handshakes that failed
        self.backends: dict[str, int] = defaultdict(int)
        self.handshake_seconds = Histogram(HANDSHAKE_BOUNDS)
        self.durations = Histogram(CONNECTION_BOUNDS)

    def frozen(self) -> ListenerCounters:
        """The same numbers, to be told another process."""
        copy = ListenerCounters()
        copy.merge(self, doors=False)
        copy.doors = [Refused(door.refused()) for door in self.doors]
        return copy

    def merge(self, other: ListenerCounters, doors: bool = True) -> None:
        self.ended += other.ended  # before `opened`: what ends in between must not be missing there
        self.opened += other.opened
        self.forward += other.forward
        self.back += other.back
        for mine, theirs in (
            (self.reasons, other.reasons),
            (self.refused, other.refused),
            (self.causes, other.causes),
            (self.backends, other.backends),
        ):
            for key, count in theirs.copy().items():
                mine[key] += count
        for door in other.doors.copy() if doors else ():
            for verdict, count, _ in door.refused():
                reason = VERDICTS[verdict][0]
                self.refused[reason] += count
        for resumed, count in other.back_handshakes.copy().items():
            self.back_handshakes[resumed] += count
        for handshake, count in other.handshakes.copy().items():
            self.handshakes[handshake] += count
        self.handshake_seconds.merge(other.handshake_seconds)
        self.durations.merge(other.durations)


class Counters:
    """What one worker counts. Its thread alone calls the methods.

    For a connection: `connection_opened`, `note` when it has ended, and in between `handshake` and `progress`, so that one that
    lives for long is seen before its end.
    """

    __slots__ = ("accept_failures", "listeners")

    def __init__(self) -> None:
        self.listeners: dict[str, ListenerCounters] = defaultdict(ListenerCounters)
        self.accept_failures = 0

    def connection_opened(self, listener: str) -> None:
        """Accepted. `note` follows at its end."""
        self.listeners[listener].opened += 1

    def watch_door(self, listener: str, door: Refuses) -> None:
        """One that refuses connections, which are counted there."""
        self.listeners[listener].doors.append(door)

    def accept_failed(self) -> None:
        """The system gave no connection: no descriptors, no memory."""
        self.accept_failures += 1

    def handshake(self, record: ConnectionRecord) -> None:
        """Count a handshake that has just gone well; `note` counts those after which nothing came."""
        record.handshake_counted = True
        of = self.listeners[record.listener]
        key = record.handshake_result or "", record.protocol or "", record.resumed
        of.handshakes[key] += 1
        if record.handshake_result != HANDSHAKE_OK:
            cause = cause_of(record.handshake_result or "", record.error or "")
            if cause is not None:
                of.causes[cause] += 1
        if record.handshake_seconds is not None:
            of.handshake_seconds.add(record.handshake_seconds)

    def back_handshake(self, listener: str, resumed: bool) -> None:
        """TLS with a back end has begun."""
        self.listeners[listener].back_handshakes[resumed] += 1

    def progress(self, record: ConnectionRecord) -> None:
        """Count what has moved since the last time: for connections that live on, as often as numbers shall be fresh."""
        of = self.listeners[record.listener]
        of.forward += record.bytes_forward - record.counted_forward
        of.back += record.bytes_back - record.counted_back
        record.counted_forward = record.bytes_forward
        record.counted_back = record.bytes_back

    def note(self, record: ConnectionRecord) -> None:
        """A connection that was opened has ended."""
        of = self.listeners[record.listener]
        of.ended += 1
        of.forward += record.bytes_forward - record.counted_forward
        of.back += record.bytes_back - record.counted_back
        of.reasons[record.reason] += 1
        if record.reason in REFUSALS:
            of.refused[record.reason] += 1
        of.durations.add(record.seconds)
        if record.handshake_result is not None and not record.handshake_counted:
            self.handshake(record)
        if record.backend is not None:
            of.backends[record.backend] += 1

    def frozen(self) -> Counters:
        """The same numbers, to be told another process."""
        copy = Counters()
        copy.accept_failures = self.accept_failures
        copy.listeners.update({listener: counters.frozen() for listener, counters in self.listeners.items()})
        return copy

    def beside(self, last: Counters) -> Counters:
        """The sum of these and what a worker has told last that has died: its connections have ended with it."""
        copy = self.frozen()
        copy.accept_failures += last.accept_failures
        for listener, counters in last.listeners.items():
            of = copy.listeners[listener]
            of.merge(counters)
            lost = counters.opened - counters.ended
            if lost:
                of.ended += lost
                of.reasons[WORKER_DIED] += lost
        return copy


def bury(workers: list[Counters], number: int) -> None:
    """A worker has died: what it has told last counts on in the last of these, and its own place begins anew. Readers see
    what was before, or what is then."""
    after = workers.copy()
    after[number] = Counters()
    after[-1] = workers[-1].beside(workers[number])
    workers[:] = after


class Totals:
    """The sum over workers and listeners, at one moment. All but `active` only grow."""

    __slots__ = ("active", "back", "failures", "forward", "handshakes", "opened")

    def __init__(self, opened: int, active: int, handshakes: int, forward: int, back: int, failures: int) -> None:
        self.opened = opened
        self.active = active
        self.handshakes = handshakes
        self.forward = forward
        self.back = back
        self.failures = failures


def by_listener(workers: Iterable[Counters]) -> dict[str, ListenerCounters]:
    """The sums over workers, from any thread."""
    sums: dict[str, ListenerCounters] = {}
    for worker in tuple(workers):  # of one moment (`bury`)
        for listener, counters in worker.listeners.copy().items():
            sums.setdefault(listener, ListenerCounters()).merge(counters)
    return sums


def total(workers: Iterable[Counters]) -> Totals:
    """Everything in a few numbers, from any thread. handshakes: those that went well."""
    sums = by_listener(workers).values()
    opened = sum(one.opened for one in sums)
    return Totals(
        opened=opened,
        active=opened - sum(one.ended for one in sums),
        handshakes=sum(count for one in sums for key, count in one.handshakes.items() if key[0] == HANDSHAKE_OK),
        forward=sum(one.forward for one in sums),
        back=sum(one.back for one in sums),
        failures=sum(count for one in sums for reason, count in one.reasons.items() if reason in FAILURES),
    )


# For Prometheus.


class WorkerProcesses(NamedTuple):
    """wanted: how many there are to be. accepting: how many accept connections. deaths: how many have ended though nobody had
    told them to."""

    wanted: int
    accepting: int
    deaths: int


class ProcessState(NamedTuple):
    """reload_success: whether the last reload was one; a start is one too. reloaded: when the last good one was, in seconds
    since the epoch. ticket_age: seconds since the keys that seal session tickets were changed. files: each file that is
    watched → whether what it holds is in force, False once it was told that it cannot be used. changes: of files, "taken" or
    "refused" → how many there were. fleet: of the member of one, None where there is no fleet. workers: None where they are
    threads."""

    reload_success: bool
    reloaded: float
    ticket_age: float
    files: Mapping[str, bool] = {}
    changes: Mapping[str, int] = {}
    fleet: Optional[FleetState] = None
    workers: Optional[WorkerProcesses] = None


def import_prometheus() -> Any:
    try:
        import prometheus_client.core
        import prometheus_client.exposition
    except ImportError as exc:
        raise MetricsError("--metrics needs the package prometheus_client: pip install 'sslsock[proxy]'") from exc
    return prometheus_client


def with_readable_labels(family: Any) -> Any:
    """Paths need not be UTF-8, which the formats are: what is none stands as an escape."""
    for place, sample in enumerate(family.samples):
        if not "".join(sample.labels.values()).isascii():
            labels = {name: value.encode("utf-8", "backslashreplace").decode() for name, value in sample.labels.items()}
            family.samples[place] = sample._replace(labels=labels)
    return family


def make_collector(
    workers: Sequence[Counters],
    backends_view: Callable[[], Mapping[str, bool]],
    certificates_view: Callable[[], Mapping[str, float]],
    lines_dropped: Callable[[], int] = lambda: 0,
    addresses_view: Callable[[], Mapping[tuple[str, str], bool]] = dict,
    process_view: Optional[Callable[[], ProcessState]] = None,
    healths_view: Callable[[], Iterable[Health]] = tuple,
    crls_view: Callable[[], Mapping[str, float]] = dict,
    names_view: Callable[[], Mapping[str, bool]] = dict,
    acme_view: Optional[Callable[[], Iterable[AcmeState]]] = None,
    refresh: Callable[[], object] = bool,
) -> Collector:
    """What a registry of prometheus_client asks at each scrape; the functions are called in the scraping thread.

    workers: may grow later. backends_view: back end → True when it is used, False when all its addresses are left out for a
    while; addresses_view: the same for (back end, address).
    certificates_view: file → when its certificate expires, in seconds since the epoch. lines_dropped: `LineWriter.dropped`.
    process_view: of the process as a whole. healths_view: what is known of the back ends; `Board.all`.
    names_view: name of a back end → whether its last lookup went well.
    crls_view: file of revocation lists → when the first of them goes out of date. acme_view: of the names whose certificates
    are obtained; None: there are none. refresh: called first, to have the others up to date.

    MetricsError: the package prometheus_client is missing.
    """
    core = import_prometheus().core

    class ProxyCollector:
        def describe(self) -> Iterable[Metric]:
            """Nothing is asked at registration: the workers may not be there yet."""
            return ()

        def collect(self) -> Iterator[Metric]:
            return map(with_readable_labels, self._families())

        def _families(self) -> Iterator[Any]:
            refresh()
            sums = by_listener(workers)
            yield from self._connections(sums)
            yield from self._handshakes(sums)
            yield from self._surroundings()
            yield from self._backends(sums)
            if process_view is not None:
                yield from self._process(process_view())
            if acme_view is not None:
                yield from self._acme(acme_view())

        @staticmethod
        def _acme(states: Iterable[AcmeState]) -> Iterator[Metric]:
            success = core.GaugeMetricFamily(
                "sslsock_proxy_acme_success_timestamp_seconds",
                "When a certificate was last obtained by this process, in seconds since the epoch; 0: not yet.",
                labels=["name"],
            )
            renewal = core.GaugeMetricFamily(
                "sslsock_proxy_acme_renewal_timestamp_seconds",
                "When it is next ordered, or tried again, in seconds since the epoch; 0: now.",
                labels=["name"],
            )
            failures = core.CounterMetricFamily(
                "sslsock_proxy_acme_failures", "Failed attempts to obtain a certificate, by why.", labels=["name", "reason"]
            )
            for state in states:
                success.add_metric([state.name], state.success)
                renewal.add_metric([state.name], state.renewal)
                for reason, count in state.failures.items():
                    failures.add_metric([state.name, reason], count)
            yield from (success, renewal, failures)

        @staticmethod
        def _connections(sums: dict[str, ListenerCounters]) -> Iterator[Metric]:
            opened = core.CounterMetricFamily(
                "sslsock_proxy_connections", "Connections accepted.", labels=["listener"]
            )
            active = core.GaugeMetricFamily("sslsock_proxy_connections_active", "Connections open now.", labels=["listener"])
            closed = core.CounterMetricFamily(
                "sslsock_proxy_connections_closed", "Connections that have ended, by reason.", labels=["listener", "reason"]
            )
            refused = core.CounterMetricFamily(
                "sslsock_proxy_connections_refused",
                "Connections that a list or a limit kept out; most of them before they were counted as accepted.",
                labels=["listener", "reason"],
            )
            served = core.CounterMetricFamily(
                "sslsock_proxy_backend_connections", "Connections that have ended, by back end.", labels=["listener", "backend"]
            )
            moved = core.CounterMetricFamily(
                "sslsock_proxy_bytes",
                "Bytes of payload. forward: to the back end, back: to the client.",
                labels=["listener", "direction"],
            )
            durations = core.HistogramMetricFamily(
                "sslsock_proxy_connection_duration_seconds", "From accept to end.", labels=["listener"]
            )
            for listener, one in sums.items():
                opened.add_metric([listener], one.opened)
                active.add_metric([listener], one.opened - one.ended)
                moved.add_metric([listener, "forward"], one.forward)
                moved.add_metric([listener, "back"], one.back)
                durations.add_metric([listener], one.durations.buckets(), one.durations.sum)
                for reason, count in one.reasons.items():
                    closed.add_metric([listener, reason], count)
                for reason, count in one.refused.items():
                    refused.add_metric([listener, reason], count)
                for backend, count in one.backends.items():
                    served.add_metric([listener, backend], count)
            yield from (opened, active, closed, refused, served, moved, durations)

        @staticmethod
        def _handshakes(sums: dict[str, ListenerCounters]) -> Iterator[Metric]:
            results = core.CounterMetricFamily(
                "sslsock_proxy_handshakes",
                "TLS handshakes with clients. version: empty when none was agreed on.",
                labels=["listener", "result", "version", "resumed"],
            )
            seconds = core.HistogramMetricFamily(
                "sslsock_proxy_handshake_duration_seconds", "Of TLS handshakes with clients.", labels=["listener"]
            )
            causes = core.CounterMetricFamily(
                "sslsock_proxy_handshake_failures",
                "TLS handshakes with clients that failed or were refused, by what of.",
                labels=["listener", "cause"],
            )
            for listener, one in sums.items():
                for cause, count in one.causes.items():
                    causes.add_metric([listener, cause], count)
                for (result, version, resumed), count in one.handshakes.items():
                    results.add_metric([listener, result, version, "true" if resumed else "false"], count)
                seconds.add_metric([listener], one.handshake_seconds.buckets(), one.handshake_seconds.sum)
            yield from (results, causes, seconds)

        @staticmethod
        def _backends(sums: dict[str, ListenerCounters]) -> Iterator[Metric]:
            handshakes = core.CounterMetricFamily(
                "sslsock_proxy_backend_handshakes",
                "TLS handshakes with back ends that went well.",
                labels=["listener", "resumed"],
            )
            for listener, one in sums.items():
                for resumed, count in one.back_handshakes.items():
                    handshakes.add_metric([listener, "true" if resumed else "false"], count)
            checks = core.CounterMetricFamily(
                "sslsock_proxy_backend_checks", "Checks of back ends.", labels=["backend", "address", "result"]
            )
            active = core.GaugeMetricFamily(
                "sslsock_proxy_backend_connections_active",
                "Connections with a back end that are open or being made now.",
                labels=["backend", "address"],
            )
            # One back end may be spoken to in several manners.
            loads: dict[tuple[str, str], int] = {}
            results: dict[tuple[str, str, str], int] = {}
            for health in healths_view():
                place = health.name, health.peer
                loads[place] = loads.get(place, 0) + sum(health.counts)
                if health.watched:
                    for result, count in (("ok", health.passed), ("failed", health.failed)):
                        results[(*place, result)] = results.get((*place, result), 0) + count
            for labels, count in loads.items():
                active.add_metric(labels, count)
            for checked, count in results.items():
                checks.add_metric(checked, count)
            yield from (handshakes, checks, active)

        @staticmethod
        def _process(state: ProcessState) -> Iterator[Metric]:
            gauge = core.GaugeMetricFamily
            yield gauge(
                "sslsock_proxy_reload_success", "1: the last reload (SIGHUP) was good. 0: it failed.", state.reload_success
            )
            yield gauge(
                "sslsock_proxy_reload_success_timestamp_seconds",
                "When the settings in force were read, in seconds since the epoch.",
                state.reloaded,
            )
            yield gauge(
                "sslsock_proxy_ticket_key_age_seconds", "Since the session ticket keys were changed.", state.ticket_age
            )
            in_force = gauge(
                "sslsock_proxy_file_in_force",
                "1: what a watched file holds is in force. 0: it cannot be used, and what it held before is.",
                labels=["file"],
            )
            for file, good in state.files.items():
                in_force.add_metric([file], float(good))
            changes = core.CounterMetricFamily(
                "sslsock_proxy_file_changes", "Changes of watched files, by what has become of them.", labels=["result"]
            )
            for result, count in state.changes.items():
                changes.add_metric([result], count)
            yield from (in_force, changes)
            if state.fleet is not None:
                yield gauge(
                    "sslsock_proxy_fleet_connected",
                    "1: the fleet's Redis has answered at the last look. 0: this proxy goes on with what it has.",
                    state.fleet.connected,
                )
                yield gauge(
                    "sslsock_proxy_fleet_contact_timestamp_seconds",
                    "When the fleet's Redis has last answered, in seconds since the epoch.",
                    state.fleet.contact,
                )
                yield gauge(
                    "sslsock_proxy_fleet_version",
                    "Of the fleet's session ticket keys that this proxy has; the same for all members.",
                    state.fleet.version,
                )
                yield core.CounterMetricFamily(
                    "sslsock_proxy_fleet_key_changes", "How often another key has begun to seal.", state.fleet.changes
                )
            if state.workers is not None:
                yield gauge("sslsock_proxy_worker_processes", "How many there are to be.", state.workers.wanted)
                yield gauge(
                    "sslsock_proxy_worker_processes_accepting", "Those that accept connections.", state.workers.accepting
                )
                yield core.CounterMetricFamily(
                    "sslsock_proxy_worker_process_deaths",
                    "Those that have ended by themselves, or were killed.",
                    state.workers.deaths,
                )
            build = build_info()
            yield core.InfoMetricFamily(
                "sslsock_proxy_build",
                "What is running.",
                {"version": build["version"], "openssl": build["openssl"], "python": platform.python_version()},
            )

        @staticmethod
        def _surroundings() -> Iterator[Metric]:
            up = core.GaugeMetricFamily(
                "sslsock_proxy_backend_up", "1: used. 0: left out, for it could not be reached.", labels=["backend"]
            )
            for backend, state in backends_view().items():
                up.add_metric([backend], float(state))
            address_up = core.GaugeMetricFamily(
                "sslsock_proxy_backend_address_up",
                "The same for each address behind the name of a back end.",
                labels=["backend", "address"],
            )
            for labels, state in addresses_view().items():
                address_up.add_metric(labels, float(state))
            expiry = core.GaugeMetricFamily(
                "sslsock_proxy_certificate_expiry_timestamp_seconds",
                "When a certificate in use expires, in seconds since the epoch.",
                labels=["certificate"],
            )
            for certificate, moment in certificates_view().items():
                expiry.add_metric([certificate], moment)
            renewal = core.GaugeMetricFamily(
                "sslsock_proxy_crl_next_update_timestamp_seconds",
                "When a file of revocation lists goes out of date, in seconds since the epoch.",
                labels=["crl"],
            )
            for file, moment in crls_view().items():
                renewal.add_metric([file], moment)
            found = core.GaugeMetricFamily(
                "sslsock_proxy_backend_name_found",
                "1: the last lookup of a back end's name went well. 0: it failed, and what it has stood for before is used.",
                labels=["backend"],
            )
            for name, good in names_view().items():
                found.add_metric([name], float(good))
            yield found
            failures = sum(worker.accept_failures for worker in tuple(workers))
            yield from (up, address_up, expiry, renewal)
            yield core.CounterMetricFamily(
                "sslsock_proxy_accept_failures", "Connections that the system could not give: no descriptors.", failures
            )
            yield core.CounterMetricFamily(
                "sslsock_proxy_log_lines_dropped", "Log lines that nobody took.", lines_dropped()
            )

    return ProxyCollector()
