"""Active checks: every back end of a route that wants them is asked, every few seconds, whether it serves.

One thread of the process does it, for all workers, and writes into each back end's `Health`. A check goes the way of a
connection: PROXY header (which says that nobody stands behind it), TLS as the route has it, verified in full each time, and a
request of HTTP where one is asked for.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Callable, Optional

from ... import proxy_protocol
from ...core.channel import Channel
from ...core.context import VERIFY_NONE, ConfigurationError, Context
from ...core.dial import Dial
from ...core.engine import Engine
from ...core.hostname import parse_host
from ..observability import stages
from ..observability.access_log import INFO, WARNING, LineWriter
from ..settings.model import HealthCheck
from .backends import Backend, BackendPool
from .health import Health

if TYPE_CHECKING:
    from ...core.descriptor import Descriptor
    from ...core.event_loop import EventLoop
    from ...core.schedule import Timer
    from ..policy import RoutePolicy

__all__ = ["Check", "Checker", "final_status"]

SPREAD = 0.1  # of the interval, by which it varies: checks of several proxies do not come all at once
MOST_HEAD = 64 * 1024  # bytes that an answer's head may have
LINE = b"\r\n"


def final_status(head: bytes) -> Optional[int]:
    """The status code of an HTTP/1.1 answer, None while it is not there yet. Interim ones (RFC 9110, 15.2) are passed over.
    ValueError: this is no such answer."""
    while True:
        line, ended, rest = head.partition(LINE)
        if not b"HTTP/1.".startswith(line[:7]) and not line.startswith(b"HTTP/1."):
            raise ValueError("the answer is not HTTP/1.1")
        if not ended:
            return None
        words = line.split(b" ", 2)  # RFC 9112, 4
        if len(words) < 2 or len(words[1]) != 3 or not words[1].isdigit():
            raise ValueError("the answer has no status code")
        status = int(words[1])
        if status >= 200 or status == 101:
            return status
        _, ended, head = (LINE + rest).partition(LINE + LINE)
        if not ended:
            return None


class Check:
    """One check of a back end. done: called once, with what is wrong, "" for nothing, None if it cannot be known."""

    def __init__(
        self, loop: EventLoop, route: RoutePolicy, backend: Backend, check: HealthCheck, done: Callable[[Optional[str]], object]
    ) -> None:
        self._loop = loop
        self._route = route
        self._backend = backend
        self._check = check
        self._done: Optional[Callable[[Optional[str]], object]] = done
        self._dial: Optional[Dial] = None
        self._channel: Optional[Channel] = None
        self._greeting: Optional[Engine] = None  # its TLS
        self._asked = False
        self._deadline: Optional[Timer] = None

    def start(self) -> None:
        self._deadline = self._loop.call_later(self._check.timeout, self._overdue)
        self._dial = Dial(self._loop, self._backend.packed, self)
        result = self._dial.start(0)
        if not isinstance(result, int):
            self.on_dialed(result)
        elif result != -errno.EINPROGRESS:
            self.on_dial_failed(-result)

    def cancel(self) -> None:
        """Nobody wants the result any more."""
        self._done = None
        self._end(False)

    def _conclude(self, reason: Optional[str]) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        self._end(reason == "")
        done(reason)

    def _end(self, clean: bool) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        channel, self._channel = self._channel, None
        if channel is not None:
            if clean:
                channel.finish()
            else:
                channel.abort()

    def _overdue(self) -> None:
        self._conclude(f"no answer within {self._check.timeout:g} s")

    # What the dial tells

    def on_dial_failed(self, number: int) -> None:
        self._dial = None
        self._conclude(None if stages.kind_of_errno(number) == stages.RESOURCE else os.strerror(number))

    def on_dialed(self, descriptor: Descriptor) -> None:
        self._dial = None
        if self._done is None:
            return
        try:
            self._speak(descriptor)
        except (OSError, ValueError, ConfigurationError) as exc:
            self._conclude(str(exc))

    def _speak(self, descriptor: Descriptor) -> None:
        self._channel = channel = Channel(self._loop, self)
        channel.read_bound = MOST_HEAD
        channel.attach(descriptor)
        if self._route.proxy_protocol is not None:
            encode = proxy_protocol.encode_v1 if self._route.proxy_protocol == "v1" else proxy_protocol.encode_v2
            channel.write(encode(None, None))
        self._greeting = engine = self._engine()
        if engine is None:
            self._ready()
        else:
            channel.start_tls(engine, 0)

    def _engine(self) -> Optional[Engine]:
        """Without a session to resume: a resumption verifies nothing."""
        route, address, kind = self._route, self._backend.address, self._check.kind
        if kind == "tcp":
            return None
        if address.tls:
            # HTTP/1.1 is what is spoken, whatever connections agree on.
            protocols = ("http/1.1",) if kind == "http" and route.route.back_tls.alpn else route.route.back_tls.alpn
            server_name, verify_name = route.names(self._backend.name)
            return Engine(route.back_context(protocols), server_name=server_name, verify_name=verify_name)
        if kind == "tls" or route.passthrough:
            # Its certificate is for clients, who know whom they ask for.
            context = Context(server_side=False, verify_mode=VERIFY_NONE, use_system_ca=False)
            name = self._check.host or address.name  # of a path: none
            return Engine(context, server_name=parse_host(name).server_name if name else None)
        return None

    def _ready(self) -> None:
        if self._check.kind != "http":
            self._conclude("")
            return
        check = self._check
        assert self._channel is not None
        address = self._backend.address
        host = check.host or ("localhost" if address.path is not None else address.name if address.service else address.place)
        text = f"{check.method} {check.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: sslsock\r\nConnection: close\r\n\r\n"
        self._asked = True
        self._channel.write(text.encode("ascii"))
        self._on_readable()

    # What the channel tells

    def _on_encrypted(self) -> None:
        if self._done is None:
            return
        refusal = self._route.refusal(self._greeting) if self._greeting is not None and self._backend.address.tls else ""
        if refusal:
            self._conclude(refusal)
        else:
            self._ready()

    def _on_readable(self) -> None:
        if self._done is None or not self._asked or self._channel is None:
            return
        head = bytes(self._channel.peek())
        try:
            status = final_status(head)
        except ValueError as exc:
            self._conclude(str(exc))
            return
        if status is None:
            if len(head) >= MOST_HEAD:
                self._conclude("the answer's head does not end")
        elif any(low <= status <= high for low, high in self._check.status):
            self._conclude("")
        else:
            self._conclude(f"the answer has status {status}")

    def _on_peer_closed(self, clean: bool) -> None:
        if self._asked:
            self._on_readable()
        self._conclude("the connection ended without an answer")

    def _on_failed(self, failure: int, message: str) -> None:
        self._conclude(message)

    def _on_written(self, count: int) -> None:
        pass

    def _on_drained(self) -> None:
        pass


class Watch:
    """One back end that is checked, again and again. changed: called when what the checks say has changed; noted: with its
    health, whenever anything of that has."""

    def __init__(
        self,
        loop: EventLoop,
        writer: LineWriter,
        changed: Callable[[], object],
        noted: Callable[[Health], object],
        route: RoutePolicy,
        check: HealthCheck,
        backend: Backend,
    ) -> None:
        self._loop = loop
        self._writer = writer
        self._changed = changed
        self._noted = noted
        self.route = route
        self.check = check
        self.backend = backend
        self._running: Optional[Check] = None
        self._timer: Optional[Timer] = None
        self._row = 0  # checks in a row that contradict what is said now
        backend.health.watched = True

    def begin(self) -> None:
        self._timer = None
        health = self.backend.health
        began = health.asked_at = self._loop.time()

        def done(reason: Optional[str]) -> None:
            self._running = None
            health.asked_at = 0.0
            self._plan()
            self._take(reason, began)
            self._noted(health)

        self._noted(health)
        self._running = Check(self._loop, self.route, self.backend, self.check, done)
        self._running.start()

    def follow(self, route: RoutePolicy, check: HealthCheck) -> None:
        """The next check goes by these."""
        changed = check.interval != self.check.interval
        self.route, self.check = route, check
        if changed and self._timer is not None:
            self._timer.cancel()
            self._plan()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._running is not None:
            self._running.cancel()
        self.backend.health.unwatch()
        self._noted(self.backend.health)

    def _plan(self) -> None:
        seconds = self.check.interval * random.uniform(1 - SPREAD, 1 + SPREAD)
        self._timer = self._loop.call_later(seconds, self.begin)

    def _take(self, reason: Optional[str], began: float) -> None:
        health = self.backend.health
        if reason is None:
            if health.up is None:  # nobody shall wait for what cannot be known
                self._say(True, "")
            return
        good = not reason
        if good:
            health.passed += 1
            health.good_at = began
        else:
            health.failed += 1
        if health.up is None:
            self._say(good, reason)
        elif good == health.up:
            self._row = 0
        else:
            self._row += 1
            if self._row >= (self.check.rise if good else self.check.fall):
                self._say(good, reason)

    def _say(self, good: bool, reason: str) -> None:
        health, backend = self.backend.health, self.backend
        first, self._row = health.up is None, 0
        health.reason = reason
        health.moment = self._loop.time()
        health.up = good
        self._noted(health)
        name = f"{backend.address} ({backend.peer})"
        if not good:
            self._writer.write(f"{name} is down by its {self.check.kind} check: {reason}", WARNING)
        elif not first:
            self._writer.write(f"{name} is up by its {self.check.kind} check", INFO)
        self._changed()


class Checker:
    """All checks of the process. Belongs to the thread of `loop`. changed: called in it when they have something new to say;
    noted: with the health of a back end, whenever anything of that has changed."""

    def __init__(
        self,
        loop: EventLoop,
        writer: LineWriter,
        changed: Callable[[], object],
        noted: Callable[[Health], object] = lambda health: None,
    ) -> None:
        self._loop = loop
        self._writer = writer
        self._changed = changed
        self._noted = noted
        self._watches: dict[Backend, Watch] = {}
        self._pools: list[BackendPool] = []

    def follow(self, routes: Iterable[tuple[RoutePolicy, BackendPool]]) -> None:
        """Check the back ends of these from now on, and no others; what is known of those that stay is kept."""
        wanted: dict[Backend, tuple[RoutePolicy, HealthCheck]] = {}
        pools: list[BackendPool] = []
        for route, pool in routes:
            if route.route.check is not None:
                pools.append(pool)
                for backend in pool.backends:
                    wanted.setdefault(backend, (route, route.route.check))
        self._pools = pools
        for backend in [one for one in self._watches if one not in wanted]:
            self._watches.pop(backend).stop()
        for backend, (route, check) in wanted.items():
            watch = self._watches.get(backend)
            if watch is None:
                watch = self._watches[backend] = Watch(
                    self._loop, self._writer, self._changed, self._noted, route, check, backend
                )
                watch.begin()
            else:
                watch.follow(route, check)

    def refresh(self) -> None:
        """Now and then: names are looked up again, although no connection may have come to this thread."""
        for pool in self._pools:
            pool.refresh()
