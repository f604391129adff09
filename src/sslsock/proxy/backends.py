"""Which back end the next connection goes to: round robin, failed ones left out for a while, names looked up again.

A pool belongs to one route in one thread; nothing in it blocks, and time and name lookup come from outside.

A back end that failed is left out for 1 s, then for twice as long after each further trial that fails, 60 s at the most. A
trial is one connection, given out in turn once the pause is over; while it is under way the others go elsewhere. Connections
that were already on their way when the back end failed do not lengthen the pause: a hundred failures at once are one event.
Where every back end is left out, the one that failed longest ago is tried anyway: there is nothing to lose.

A back end is blamed for what is its own: it refuses, is unreachable or does not answer. A TLS handshake may fail of what comes
from the client (the protocols it offers, the address that a PROXY header names), so it takes several in a row, from different
clients, for the back end to be the one that is at fault.

Each address of a name is a back end of its own. The addresses of a name are kept for 30 s; the first use after that starts a
new lookup and goes on with the old ones.
"""

from __future__ import annotations

import socket
from collections.abc import Container, Hashable, Iterable
from typing import Any, Callable, NamedTuple, Optional, Protocol, Union

from ..core.dial import pack_address
from ..core.hostname import parse_host
from ..sockets.resolver import Address as SocketAddress
from ..sockets.resolver import numeric_addresses
from .hosts import is_end
from .settings import Address

__all__ = ["Backend", "BackendPool", "BackendState", "News", "Resolve", "summed_up"]

FIRST_PAUSE = 1.0  # seconds that a back end is left out after it has failed
LONGEST_PAUSE = 60.0
TRIAL_LIMIT = 60.0  # seconds after which a trial that nobody reports on counts as over
KEPT = 30.0  # seconds that the addresses of a name are used unasked
LOOKUP_PAUSE = 1.0  # seconds from a failed lookup to the next
DOUBTERS = 3  # sources of clients whose handshakes fail in a row, until the back end is left out

NEVER = float("inf")


class Cancellable(Protocol):
    def cancel(self) -> None: ...


Resolve = Callable[[str, int, Callable[[Union[list[SocketAddress], Exception]], object]], Cancellable]
"""Starts a lookup of (name, port); the answer comes later, on the pool's thread. `partial(Lookup, loop)` is one."""


class BackendState(NamedTuple):
    """What metrics tell of a back end."""

    name: str
    """As in `--to`: "tcp://app.internal:8080"."""
    peer: str
    """The address behind it: "10.0.0.7:8080", "[fd00::7]:8080"."""
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

    address: the `--to` that it comes of. family, sockaddr: as a socket takes them; packed: as `Dial` does. up: False from a
    failure to the next success.
    reason: the text of the last failure, "" while up. The counters are those of `BackendState`.
    """

    __slots__ = (
        "address",
        "connections",
        "doubters",
        "failed_at",
        "failures",
        "family",
        "moment",
        "packed",
        "pause",
        "reason",
        "retry_at",
        "sockaddr",
        "trial_until",
        "up",
    )

    def __init__(self, address: Address, family: int, sockaddr: Any) -> None:
        self.address = address
        self.family = family
        self.sockaddr = sockaddr
        self.packed = pack_address(family, sockaddr)
        self.up = True
        self.reason = ""
        self.failures = 0
        self.connections = 0
        self.doubters: Optional[set[Hashable]] = None  # whose handshakes have failed since the last one that did not
        self.moment = 0.0  # of the last result; 0: there was none
        self.failed_at = 0.0
        self.pause = 0.0
        self.retry_at = 0.0
        self.trial_until = 0.0  # 0: no trial is under way

    @property
    def peer(self) -> str:
        host, port = self.sockaddr[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def __repr__(self) -> str:
        return f"<Backend {self.address} {self.peer} {'up' if self.up else 'left out: ' + self.reason}>"


class Target:
    """One `--to`: its back ends, and for a name when it is to be looked up again."""

    __slots__ = ("address", "asked", "backends", "due", "error", "host")

    def __init__(self, address: Address) -> None:
        self.address = address
        host = parse_host(address.host)
        self.host = host.name
        self.backends: tuple[Backend, ...] = ()
        self.due = NEVER if host.numeric else 0.0
        self.asked: Optional[Cancellable] = None
        self.error = ""  # of the last lookup
        if host.numeric:
            self.use(numeric_addresses(host.name, address.port))

    def use(self, found: list[SocketAddress]) -> None:
        """Take the addresses of an answer; those known already stay the same back ends."""
        known = {(backend.family, backend.sockaddr): backend for backend in self.backends}
        self.backends = tuple(known.get(entry) or Backend(self.address, *entry) for entry in dict.fromkeys(found))


class BackendPool:
    """The back ends of a route.

    addresses: at least one. resolve: see `Resolve`; asked at once for every name. clock: seconds, never going back.
    lookup_handler: called with an address and None when its name was found after it had not been, or with the error when a
    lookup failed otherwise than the last one did; for the log.

    ValueError: a host that is none. OSError: a numeric host that this system cannot use (an unknown scope).
    """

    def __init__(
        self,
        addresses: tuple[Address, ...],
        resolve: Resolve,
        clock: Callable[[], float],
        lookup_handler: Optional[Callable[[Address, Optional[Exception]], object]] = None,
    ) -> None:
        if not addresses:
            raise ValueError("a route needs a back end")
        self._resolve = resolve
        self._clock = clock
        self._lookup_handler = lookup_handler
        self._targets = tuple(Target(address) for address in addresses)
        self._waiting: list[Callable[[], object]] = []
        self._position = 0
        self._due = 0.0  # when the first of the names is to be looked up
        self._backends: tuple[Backend, ...] = ()
        self._sole: Optional[Backend] = None  # the only one there can be, which is next whatever its state
        self._collect()
        self._look_up(clock())

    def next(self, exclude: Container[Backend] = ()) -> Optional[Backend]:
        """The back end to connect to; None: there is none, or none that is not in `exclude`.

        exclude: those that this connection has tried. Every back end that is given out should be reported on by `failed`,
        `succeeded` or `abandoned`.
        """
        if self._sole is not None and not exclude:
            return self._sole
        now = self._clock()
        if now >= self._due:
            self._look_up(now)
        backends = self._backends
        count = len(backends)
        last: Optional[Backend] = None
        for step in range(count):
            index = (self._position + step) % count
            backend = backends[index]
            if backend in exclude:
                continue
            if not backend.up:
                if backend.retry_at > now or backend.trial_until > now:
                    if last is None or backend.failed_at < last.failed_at:
                        last = backend
                    continue
                backend.trial_until = now + TRIAL_LIMIT
            self._position = (index + 1) % count
            return backend
        return last

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

    def handshake_failed(self, backend: Backend, source: Hashable) -> bool:
        """TLS with it has failed, for a client from `source`. Returns whether that is taken for the back end's fault, so that
        `failed` is to be told; if not, the attempt ends without a result."""
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
        return [BackendState(str(b.address), b.peer, b.up, b.failures, b.connections) for b in self._backends]

    def news(self, key: Hashable) -> list[News]:
        """The same for `summed_up`; key: names this pool among those of its worker. From any thread."""
        return [
            News(key, target.address.place, b.peer, b.up, b.moment) for target in self._targets for b in target.backends
        ]

    # Names

    @property
    def looking_up(self) -> bool:
        """A name that has no address yet is being looked up."""
        return any(target.asked is not None and not target.backends for target in self._targets)

    def call_when_looked_up(self, callback: Callable[[], object]) -> None:
        """Call back once `looking_up` is False, at once if it is. For a connection that was told None, to ask again."""
        if self.looking_up:
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

                def answered(answer: Union[list[SocketAddress], Exception], target: Target = target) -> None:
                    self._on_answer(target, answer)

                target.asked = self._resolve(target.host, target.address.port, answered)
        self._due = min(target.due for target in self._targets)

    def _on_answer(self, target: Target, answer: Union[list[SocketAddress], Exception]) -> None:
        target.asked = None
        before = target.error
        if not isinstance(answer, Exception):
            ends = [entry for entry in answer if is_end(entry[1][0])]
            if answer and not ends:
                answer = OSError(f"it stands for no host: {answer[0][1][0]}")
            elif not answer:  # every record was of a family that is not asked for
                answer = socket.gaierror(socket.EAI_NONAME, "no address is known for the name")
            else:
                answer = ends
        error = answer if isinstance(answer, Exception) else None
        target.due = self._clock() + (KEPT if error is None else LOOKUP_PAUSE)
        target.error = "" if error is None else str(error)
        if not isinstance(answer, Exception):
            target.use(answer)
            self._collect()
        self._due = min(target.due for target in self._targets)
        if self._lookup_handler is not None and target.error != before:
            self._lookup_handler(target.address, error)
        if not self.looking_up:
            self._call_waiting()

    def _call_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    def _collect(self) -> None:
        self._backends = tuple(backend for target in self._targets for backend in target.backends)
        if len(self._backends) == 1 and all(target.due == NEVER and target.asked is None for target in self._targets):
            self._sole = self._backends[0]
