"""Which back end the next connection goes to: by a rule of choice (`balance`), failed ones left out for a while, names looked
up again.

A pool belongs to one route in one thread; nothing in it blocks, and time and name lookup come from outside.

A back end that failed is left out for 1 s, then for twice as long after each further trial that fails, 60 s at the most. A
trial is one connection, given out in turn once the pause is over; while it is under way the others go elsewhere. Connections
that were already on their way when the back end failed do not lengthen the pause: a hundred failures at once are one event.
Where every back end is left out, the one that failed longest ago is tried anyway: there is nothing to lose.

With checks (`checks`), what they say goes before: who has not passed one yet gets no connection, nor does one that is down, nor
one that has failed since the last check that it has passed. Where nobody has passed one yet, connections wait for the first
results.

A back end that has not answered anybody for half a second gets no further connection until it has: of a black hole one client
learns, not all who come within `--connect-timeout`. Spares are used when none of the others is left.

A back end is blamed for what is its own: it refuses, is unreachable or does not answer. A TLS handshake may fail of what comes
from the client (the protocols it offers, the address that a PROXY header names), and a connection from the client's address
(`--transparent`) of the way back to it, so it takes several in a row, from different clients, for the back end to be the one
that is at fault.

Each address of a name is a back end of its own. The addresses of a name are kept for 30 s, or as long as DNS says where that is
asked (`directory`); the first use after that starts a new lookup and goes on with the old ones. Those that a lookup has not
found again get no further connections. Where a lookup fails the old ones stay.
"""

from __future__ import annotations

import socket
from collections.abc import Container, Hashable, Iterable, Mapping
from typing import Any, Callable, NamedTuple, Optional, Protocol, Union

from ...core.dial import pack_address
from ...core.hostname import parse_host
from ...sockets.local_path import system_path
from ...sockets.resolver import Address as SocketAddress
from ...sockets.resolver import numeric_addresses
from ..settings.hosts import is_end
from ..settings.model import Address, Balance
from .balance import Tier, tier_of
from .directory import Entry, Listing, listed
from .health import HESITATION, Health

__all__ = ["Backend", "BackendPool", "BackendState", "News", "Resolve", "peer_text", "summed_up"]

FIRST_PAUSE = 1.0  # seconds that a back end is left out after it has failed
LONGEST_PAUSE = 60.0
TRIAL_LIMIT = 60.0  # seconds after which a trial that nobody reports on counts as over
LOOKUP_PAUSE = 1.0  # seconds from a failed lookup to the next
MOST_REASONS = 8  # of failed lookups that are told, until one goes well
DOUBTERS = 3  # sources of clients for whom it fails in a row, until the back end is left out

NEVER = float("inf")
ROUND_ROBIN = Balance()
NOTHING: Mapping[tuple[str, int], tuple[Entry, ...]] = {}


class Cancellable(Protocol):
    def cancel(self) -> None: ...


Found = Union[list[SocketAddress], Listing, Exception]
Resolve = Callable[[str, int, Callable[[Found], object]], Cancellable]
"""Starts a lookup of (name, port), port 0 for a service; the answer comes later, on the pool's thread. `partial(Lookup, loop)`
is one, `partial(directory.look_up, loop)` another."""


class BackendState(NamedTuple):
    """What metrics tell of a back end."""

    name: str
    """As in `--to`: "tcp://app.internal:8080"."""
    peer: str
    """The address behind it: "10.0.0.7:8080", "[fd00::7]:8080", "unix:/run/app.sock"."""
    up: bool
    failures: int
    """Connections that failed, since the start."""
    connections: int
    """Connections that were established, since the start."""


class News(NamedTuple):
    """The last that one worker's pool has heard of a back end."""

    pool: Hashable
    """The same for the pools of a route in all workers."""
    name: str
    """As in `--to`, without its scheme: "app.internal:8080"."""
    peer: str
    """The address behind it."""
    up: bool
    moment: float
    """When that was heard, by the pool's clock; 0: never, so `up` is only assumed."""


def summed_up(news: Iterable[News]) -> tuple[dict[str, bool], dict[tuple[str, str], bool]]:
    """Which names are up, and which (name, address).

    Of the workers, the one that has heard last is right. A name is up when one of its addresses is. It is down when it is down
    for one of the routes that lead to it: each speaks to it in its own way, and one may fail where the other does not.
    """
    last: dict[tuple[Hashable, str, str], News] = {}
    for item in news:
        key = item.pool, item.name, item.peer
        if key not in last or item.moment > last[key].moment:
            last[key] = item
    routes: dict[tuple[Hashable, str], bool] = {}
    addresses: dict[tuple[str, str], bool] = {}
    for item in last.values():
        routes[item.pool, item.name] = routes.get((item.pool, item.name), False) or item.up
        addresses[item.name, item.peer] = addresses.get((item.name, item.peer), True) and item.up
    names: dict[str, bool] = {}
    for (_, name), up in routes.items():
        names[name] = names.get(name, True) and up
    return names, addresses


class Backend:
    """One address to connect to.

    address: the `--to` that it comes of; name: what its certificate is for; tls: whether it speaks TLS. family, sockaddr: as a
    socket takes them; packed: as `Dial` does; peer: as metrics and log have it. up: False from a failure to the next success.
    health: what all workers know of it; worker: the number of this one. reason: the text of the last failure, "" while up. The
    counters are those of `BackendState`.
    """

    __slots__ = (
        "__weakref__",
        "_asked",
        "_asked_since",
        "address",
        "connections",
        "doubters",
        "failed_at",
        "failures",
        "family",
        "health",
        "heard",
        "moment",
        "mute",
        "name",
        "packed",
        "pause",
        "peer",
        "reason",
        "retry_at",
        "sockaddr",
        "tls",
        "trial_until",
        "up",
        "worker",
    )

    def __init__(
        self, address: Address, family: int, sockaddr: Any, health: Optional[Health] = None, worker: int = 0
    ) -> None:
        self.health = health or Health()
        self.worker = worker
        self._asked = 0  # attempts under way
        self._asked_since = 0.0  # when the first of them began, or the last answer came
        self.address = address
        self.name = address.name
        self.tls = address.tls
        self.family = family
        self.sockaddr = sockaddr
        self.peer = peer_text(sockaddr)
        self.packed = pack_address(family, sockaddr if family != socket.AF_UNIX else (system_path(sockaddr[0]),))
        self.up = True
        self.reason = ""
        self.failures = 0
        self.connections = 0
        self.doubters: Optional[set[Hashable]] = None  # for whom it has failed since the last success
        self.moment = 0.0  # of the last result; 0: there was none
        self.heard = False  # a client has had a byte of it
        self.mute = False  # it has fallen silent, and was not heard since
        self.failed_at = 0.0
        self.pause = 0.0
        self.retry_at = 0.0
        self.trial_until = 0.0  # 0: no trial is under way

    def usable(self, now: float) -> bool:
        """Whether it may get a connection; the first one after a failure is its trial."""
        health = self.health
        if (self._asked and now - self._asked_since > HESITATION) or (health.watched and not health.trusted(now)):
            return False
        return self.up or (
            self.retry_at <= now
            and self.trial_until <= now
            and (not health.watched or health.good_at > self.failed_at)
        )

    # Its connections. Each that has begun is answered once, and left once.

    @property
    def load(self) -> int:
        """How many there are in all workers, those that are being made too."""
        return sum(self.health.counts)

    def begin(self, now: float) -> None:
        """An attempt to connect to it."""
        self.health.counts[self.worker] += 1
        if not self._asked:
            self._asked_since = now
        self._asked += 1

    def answered(self, now: float) -> None:
        """The attempt has ended, with whatever result."""
        self._asked -= 1
        self._asked_since = now

    def leave(self) -> None:
        """The connection has ended, or the attempt has failed."""
        self.health.counts[self.worker] -= 1

    def __repr__(self) -> str:
        return f"<Backend {self.address} {self.peer} {'up' if self.up else 'left out: ' + self.reason}>"


Make = Callable[[Address, int, Any], Backend]


def hopelessness(backend: Backend) -> tuple[bool, float, int]:
    """The order in which those are tried that are all left out: there is nothing to lose."""
    health = backend.health
    return health.watched and not health.up, 0.0 if backend.up else backend.failed_at, backend.load


def peer_text(sockaddr: Any) -> str:
    """An address as metrics and log have it: "10.0.0.7:8080", "[fd00::7]:8080", "unix:/run/app.sock"."""
    if len(sockaddr) == 1:  # a path
        return f"unix:{sockaddr[0]}"
    host, port = sockaddr[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Target:
    """One `--to`: its back ends, and for a name when it is to be looked up again. make: the back end at an address. entries: of
    each of the back ends what the directory tells of it."""

    __slots__ = ("address", "asked", "backends", "due", "entries", "error", "host", "make", "told")

    def __init__(self, address: Address, make: Make, known: tuple[Entry, ...]) -> None:
        self.address = address
        self.make = make
        self.host = ""
        self.backends: tuple[Backend, ...] = ()
        self.entries: tuple[Entry, ...] = ()
        self.due = NEVER
        self.asked: Optional[Cancellable] = None
        self.error = ""  # of the last lookup
        self.told: set[str] = set()  # errors since the last one that went well
        if address.path is not None:
            self.use((Entry(socket.AF_UNIX, (address.path,)),))
            return
        host = parse_host(address.host)
        self.host = host.name
        if not host.numeric:
            self.due = 0.0
        self.use(listed(numeric_addresses(host.name, address.port)).entries if host.numeric else known)

    def is_news(self, error: str) -> bool:
        """Whether an error is to be told; "": that it is over."""
        if not error:
            news = bool(self.told)
            self.told.clear()
            return news
        news = error not in self.told and len(self.told) < MOST_REASONS
        if news:
            self.told.add(error)
        return news

    def use(self, found: tuple[Entry, ...]) -> bool:
        """Take the addresses of an answer; those known already stay the same back ends. Returns whether anything is new."""
        entries = tuple({entry[:2]: entry for entry in found}.values())
        if entries == self.entries:
            return False
        known = {(backend.family, backend.sockaddr): backend for backend in self.backends}
        self.backends = tuple(known.get(entry[:2]) or self.make(self.address, *entry[:2]) for entry in entries)
        self.entries = entries
        return True


class BackendPool:
    """The back ends of a route.

    addresses: at least one. resolve: see `Resolve`; asked at once for every name. clock: seconds, never going back.
    lookup_handler: called with an address and None when its name was found after it had not been, or with the error when a
    lookup failed, once for each reason until it is found again; for the log. make: gives the back end at an address, which
    others may know already. balance: how one is chosen. known: what names are known to stand for, by (host, port); it is used
    until they are looked up. found_handler: called when a lookup has changed the back ends.

    ValueError: a host that is none. OSError: a numeric host that this system cannot use (an unknown scope).
    """

    def __init__(
        self,
        addresses: tuple[Address, ...],
        resolve: Resolve,
        clock: Callable[[], float],
        lookup_handler: Optional[Callable[[Address, Optional[Exception]], object]] = None,
        *,
        make: Make = Backend,
        balance: Balance = ROUND_ROBIN,
        known: Mapping[tuple[str, int], tuple[Entry, ...]] = NOTHING,
        found_handler: Optional[Callable[[], object]] = None,
    ) -> None:
        if not addresses:
            raise ValueError("a route needs a back end")
        self._resolve = resolve
        self._clock = clock
        self._lookup_handler = lookup_handler
        self._found_handler = found_handler
        self._balance = balance
        self.by_name = balance.method == "hash-sni"
        self.hashes = self.by_name or balance.method == "hash-source"  # so `next` needs a key
        self._targets = tuple(Target(one, make, known.get((one.host, one.port), ())) for one in addresses)
        self._waiting: list[Callable[[], object]] = []
        self._due = 0.0  # when the first of the names is to be looked up
        self._backends: tuple[Backend, ...] = ()
        self._tiers: tuple[Tier, ...] = ()
        self._sole: Optional[Backend] = None  # the only one there can be, which is next whatever its state
        self._collect()
        self._look_up(clock())

    def next(self, exclude: Container[Backend] = (), key: str = "") -> Optional[Backend]:
        """The back end to connect to; None: there is none, or none that is not in `exclude`, or none yet: it is `waiting`.

        exclude: those that this connection has tried. key: of the client, where a hash chooses. Every back end that is given
        out should be reported on by `failed`, `succeeded` or `abandoned`.
        """
        if self._sole is not None and not exclude:
            return self._sole
        now = self._clock()
        if now >= self._due:
            self._look_up(now)
        for tier in self._tiers:
            backend = tier.choose(now, exclude, key)
            if backend is not None:
                if not backend.up:
                    backend.trial_until = now + TRIAL_LIMIT
                return backend
            left = [one.health for one in tier.backends if one not in exclude]
            if any(health.undecided for health in left) and not any(health.up for health in left):
                return None
        return min((one for one in self._backends if one not in exclude), key=hopelessness, default=None)

    def failed(self, backend: Backend, reason: str) -> None:
        """No connection could be made, and that is the back end's fault. reason: in words, for metrics and the log."""
        now = self._clock()
        backend.doubters = None
        backend.moment = now
        backend.failures += 1
        backend.reason = reason
        backend.failed_at = now
        if backend.up:
            backend.up = False
            backend.pause = FIRST_PAUSE
        elif backend.trial_until:
            backend.trial_until = 0.0
            backend.pause = min(2 * backend.pause, LONGEST_PAUSE)
        else:
            return
        backend.retry_at = now + backend.pause

    @property
    def talks(self) -> bool:
        """Whether one of the back ends has ever said something to a client. Some protocols know no answers."""
        return any(one.heard for one in self._backends)

    def fell_silent(self, backend: Backend, reason: str) -> None:
        """It took what a client said and never said a word, as long as the client stayed. A connection that is only made does
        not refute that, so the pauses grow from one such failure to the next until it has been heard again."""
        first = backend.up
        pause = min(2 * backend.pause, LONGEST_PAUSE) if backend.mute else FIRST_PAUSE
        self.failed(backend, reason)
        if first:
            backend.pause = pause
            backend.retry_at = backend.failed_at + pause
            backend.mute = True

    def doubted(self, backend: Backend, source: Hashable) -> bool:
        """It has failed in what may be the fault of the client, who comes from `source`: TLS, or a connection from the client's
        address. Returns whether the back end is taken to be at fault, so that `failed` is to be told; if not, the attempt ends
        without a result."""
        if backend.doubters is None:
            backend.doubters = set()
        backend.doubters.add(source)
        if len(backend.doubters) >= DOUBTERS:
            return True
        backend.trial_until = 0.0
        return False

    def succeeded(self, backend: Backend) -> None:
        """A connection was made."""
        backend.connections += 1
        backend.doubters = None
        backend.moment = self._clock()
        backend.up = True
        backend.reason = ""
        backend.trial_until = 0.0

    def abandoned(self, backend: Backend) -> None:
        """The attempt ended without a result: the client went away, for instance."""
        backend.trial_until = 0.0

    def states(self) -> list[BackendState]:
        """The back ends as they are now, in the order of `--to`. From any thread."""
        return [BackendState(str(b.address), b.peer, self._is_up(b), b.failures, b.connections) for b in self._backends]

    def news(self, key: Hashable) -> list[News]:
        """The same for `summed_up`; key: names this pool among those of its worker. From any thread."""
        return [
            News(key, target.address.place, b.peer, self._is_up(b), max(b.moment, b.health.moment))
            for target in self._targets
            for b in target.backends
        ]

    @staticmethod
    def _is_up(backend: Backend) -> bool:
        """Of a failure that a check has refuted since nobody may have heard yet."""
        health = backend.health
        return not health.down and (backend.up or (health.watched and health.good_at > backend.failed_at))

    @property
    def backends(self) -> tuple[Backend, ...]:
        return self._backends

    def refresh(self) -> None:
        """Look up the names whose time has come, though nobody uses them."""
        now = self._clock()
        if now >= self._due:
            self._look_up(now)

    @property
    def waiting(self) -> bool:
        """It may be known soon which back end is next: a name has no address yet, or a first check is under way."""
        return self.looking_up or any(one.health.undecided for one in self._backends)

    def on_checked(self) -> None:
        """The checks have something new to say: who waits may ask again."""
        self._call_waiting()

    # Names

    @property
    def looking_up(self) -> bool:
        """A name that has no address yet is being looked up."""
        return any(target.asked is not None and not target.backends for target in self._targets)

    def addresses(self) -> dict[tuple[str, int], tuple[Entry, ...]]:
        """What the names stand for, for a pool that is made in the place of this one."""
        return {(target.address.host, target.address.port): target.entries for target in self._targets}

    def names(self) -> dict[str, bool]:
        """Which names there are, as in `--to` without its scheme, and whether the last lookup of each went well. From any
        thread."""
        return {target.address.place: not target.error for target in self._targets if target.due != NEVER or target.asked}

    def call_when_known(self, callback: Callable[[], object]) -> None:
        """Call back when there is news of what is `waiting`, at once if nothing is. For a connection that was told None, to ask
        again."""
        if self.waiting:
            self._waiting.append(callback)
        else:
            callback()

    def close(self) -> None:
        """No further lookups; those under way are forgotten, and who waits for one is called. The back ends stay usable."""
        self._due = NEVER
        for target in self._targets:
            target.due = NEVER
            if target.asked is not None:
                target.asked.cancel()
                target.asked = None
        self._call_waiting()

    def _look_up(self, now: float) -> None:
        for target in self._targets:
            if target.due <= now:
                target.due = NEVER  # until the answer is there

                def answered(answer: Found, target: Target = target) -> None:
                    self._on_answer(target, answer)

                target.asked = self._resolve(target.host, target.address.port, answered)
        self._due = min(target.due for target in self._targets)

    def _on_answer(self, target: Target, answer: Found) -> None:
        target.asked = None
        found = listed(answer) if isinstance(answer, list) else answer
        if isinstance(found, Listing):
            entries = tuple(entry for entry in found.entries if is_end(entry.sockaddr[0]))
            if entries:
                found = found._replace(entries=entries)
            elif found.entries:
                found = OSError(f"it stands for no host: {found.entries[0].sockaddr[0]}")
            else:  # every record was of a family that is not asked for
                found = socket.gaierror(socket.EAI_NONAME, "no address is known for the name")
        error = found if isinstance(found, Exception) else None
        target.due = self._clock() + (found.ttl if isinstance(found, Listing) else LOOKUP_PAUSE)
        target.error = "" if error is None else str(error)
        if isinstance(found, Listing) and target.use(found.entries):
            self._collect()
            if self._found_handler is not None:
                self._found_handler()
        self._due = min(target.due for target in self._targets)
        if target.is_news(target.error) and self._lookup_handler is not None:
            self._lookup_handler(target.address, error)
        if not self.looking_up:
            self._call_waiting()

    def _call_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    def _collect(self) -> None:
        self._backends = tuple(backend for target in self._targets for backend in target.backends)
        places: dict[tuple[bool, int], tuple[list[Backend], list[int]]] = {}  # spares come last, and so do higher ranks
        for index, target in enumerate(self._targets):
            for backend, entry in zip(target.backends, target.entries):
                backends, weights = places.setdefault((self._balance.is_backup(index), entry.rank), ([], []))
                backends.append(backend)
                weights.append(self._balance.weight(index) * entry.weight)
        self._tiers = tuple(tier_of(self._balance.method, *places[place]) for place in sorted(places))
        if len(self._backends) == 1 and all(target.due == NEVER and target.asked is None for target in self._targets):
            self._sole = self._backends[0]
