"""One thread of the proxy: a loop, a listening descriptor for each listener, and the sessions of their connections.

Workers share nothing but what cannot change (policies, contexts), the ticket keys, and the count of all connections, of which
each worker keeps its own part. Everything else is told to them by `loop.call_soon_threadsafe`.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Container, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Callable, Optional
from weakref import WeakValueDictionary

from ..core.channel import Channel
from ..core.listener import Listener
from ..core.loop import Loop
from ..sockets.event_loop import EventLoop
from ..sockets.resolver import Lookup
from ..sockets.tcp_socket import plain_address
from . import record
from .access_log import AccessLog, LineWriter
from .backends import Backend, BackendPool, News
from .metrics import Counters
from .policy import ListenerPolicy, RoutePolicy
from .session import Session
from .settings import Address, Limits
from .syn_filter import drop_new_connections

__all__ = ["ACCEPTED_AHEAD", "Entrance", "Gate", "Worker", "borrowed"]

log = logging.getLogger("sslsock")

ACCEPTED_AHEAD = 16  # connections that a listener may accept before the worker has looked at them
LEAVING_SECONDS = 0.05  # between looks whether those who were refused have gone, when nothing else is left
LAST_CALL = 0.2  # seconds that a listener stays open for handshakes which are under way when it is to close
MOST_LEAVING = 64  # clients that were refused and have not gone yet
PROGRESS_SECONDS = 2.0  # how often the bytes of live connections are added to the counters
QUIET_SECONDS = 60.0  # for what would be said again and again


class Gate:
    """How many connections the whole process may have at once. limit: 0 for no bound.

    A place that becomes free is handed to the worker that has waited longest. If it were merely free, a busy worker would take
    each place that it frees, and the clients of the others would wait for ever.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()  # for all of these, and `Worker.waiting`
        self._count = 0
        self._waiting: deque[Worker] = deque()

    def enter(self, worker: Worker) -> bool:
        """Take a place. False: there is none; `worker.take_place` is called when there is."""
        with self._lock:
            if worker.waiting:
                return False
            if 0 < self.limit <= self._count:
                worker.waiting = True
                self._waiting.append(worker)
                return False
            self._count += 1
            return True

    def leave(self) -> None:
        """Give a place back. From any thread."""
        with self._lock:
            self._count -= 1
            chosen = self._choose()
        self._call(chosen)

    def change(self, limit: int) -> None:
        """A new limit; connections that are there stay."""
        with self._lock:
            self.limit = limit
            chosen = self._choose()
        self._call(chosen)

    def _choose(self) -> list[Worker]:
        """Those who get a place now."""
        chosen = []
        while self._waiting and not 0 < self.limit <= self._count:
            self._count += 1
            worker = self._waiting.popleft()
            worker.waiting = False
            chosen.append(worker)
        return chosen

    def _call(self, chosen: list[Worker]) -> None:
        for worker in chosen:
            try:
                worker.loop.call_soon_threadsafe(worker.take_place)
            except RuntimeError:  # it has ended meanwhile
                self.leave()


class Entrance:
    """A listener of a worker: its descriptor, and the policy for whom it lets in.

    shared: the descriptor is not this process's alone.
    """

    def __init__(self, worker: Worker, policy: ListenerPolicy, fd: int, shared: bool) -> None:
        self.policy = policy
        self._worker = worker
        self._shared = shared
        self._listener = Listener(worker.loop, fd, self, ACCEPTED_AHEAD)

    def on_pending(self) -> None:
        worker, listener = self._worker, self._listener
        while listener.pending:
            if not worker.gate.enter(worker):
                # The others wait in the kernel's queue, where they cost nothing.
                listener.pause()
                worker.wait_for_place(self)
                return
            self._admit_one()

    def _admit_one(self) -> None:
        taken = self._listener.take()
        assert taken is not None
        fd, address, port = taken
        self._worker.admit(self.policy, fd, (address, port))

    def on_accept_error(self, errno: int) -> None:
        self._worker.on_accept_error(self.policy, errno)

    def go_on(self) -> bool:
        """After a wait. Returns whether a connection has taken the place that was handed to the worker."""
        waits = self._listener.pending > 0
        if waits:
            self._admit_one()
        self.look_again()
        return waits

    def look_again(self) -> None:
        """There may be places again."""
        self._listener.resume()
        self.on_pending()

    def close(self) -> None:
        """Let nobody new in; who is connected already is let in still. `Worker.closed` is called when that is done."""
        if self._shared:
            # The queue belongs to whoever gave us the socket, and who takes from it next: systemd's next start, for one.
            self._listener.limit = 0
            self._close_when_empty()
            return
        try:
            with borrowed(self._listener.fileno()) as listening:
                drop_new_connections(listening)
        except OSError:  # not allowed here; who comes at this very moment is cut
            self._close_when_empty()
        else:
            self._worker.loop.call_later(LAST_CALL, self._close_when_empty)

    def _close_when_empty(self) -> None:
        if self._listener.pending or not (self._shared or self._queue_is_empty()):
            self._worker.loop.call_later(LAST_CALL, self._close_when_empty)
            return
        self._listener.close()
        self._worker.closed(self)

    def _queue_is_empty(self) -> bool:
        """Whether the kernel has nobody for us."""
        poll = select.poll()
        poll.register(self._listener.fileno(), select.POLLIN)
        return not poll.poll(0)


class Worker:
    """Made and used in its own thread, except where it says otherwise.

    policies, descriptors: the listening descriptors of each policy, one for each of its addresses. shared: those of the
    descriptors that others have too. log: where lines about connections go; writer: other lines. wants_details: whether
    somebody reads what costs to find out (cipher, names). drained_handler: called with the worker when it is done after
    `drain`.
    """

    def __init__(
        self,
        policies: Sequence[ListenerPolicy],
        descriptors: Sequence[Sequence[int]],
        shared: Container[int],
        limits: Limits,
        gate: Gate,
        log: AccessLog,
        writer: LineWriter,
        wants_details: bool,
        drained_handler: Callable[[Worker], object],
    ) -> None:
        self.loop = EventLoop.current()
        self.limits = limits
        self.gate = gate
        self.counters = Counters()
        self.sessions: set[Session] = set()
        self.waiting = False  # for a place; the gate's
        self.wants_details = wants_details
        self._log = log
        self._writer = writer
        # Weak: a pool of older settings goes with the last connection that uses it.
        self._pools: WeakValueDictionary[Hashable, BackendPool] = WeakValueDictionary()
        self._current: list[tuple[Hashable, BackendPool]] = []
        self._draining = False
        self._drained_handler = drained_handler
        self._said: set[str] = set()
        self._leaving: deque[Channel] = deque()
        self.loop.exception_handler = self._on_exception
        self._use_routes(policies)
        self.entrances = [
            [Entrance(self, policy, fd, fd in shared) for fd in column] for policy, column in zip(policies, descriptors)
        ]  # of each policy
        self._open = sum(map(len, self.entrances))
        self._paused: deque[Entrance] = deque()  # longest first

    def run(self) -> None:
        """Until the loop is stopped; then end every connection and close the loop."""
        try:
            self.loop.run()
        finally:
            self._abort_all(record.ABORTED)
            for pool in list(self._pools.values()):
                pool.close()
            self.loop.close()

    # Connections

    def admit(self, policy: ListenerPolicy, fd: int, peer: tuple[str, int]) -> None:
        """A connection that has a place. Whatever is wrong with it harms no other."""
        session = Session(self, policy, fd, peer)
        self.sessions.add(session)
        self.counters.connection_opened(policy.name)
        try:
            session.start()
        except Exception as exc:
            self.loop.report("exception in a session", exc, session)

    def _on_exception(self, loop: Loop, context: dict[str, Any]) -> None:
        """What came out of a handler: a mistake of this program. It ends the session that it happened in, and no other."""
        log.error("%s", context["message"], exc_info=context["exception"])
        source = context["source"]
        owner = getattr(source, "__self__", source)  # of a method, which was planned
        session = getattr(owner, "session", owner)  # of what hears a back end for it
        if isinstance(session, Session):
            session.abort(record.INTERNAL_ERROR)

    def see_out(self, channel: Channel) -> None:
        """A client that was refused may still be reading the alert; its place is given to the next one meanwhile. But there are
        not more of them than MOST_LEAVING: whoever stays for long is cut."""
        if channel.fileno() < 0:
            return
        self._leaving.append(channel)
        if len(self._leaving) > MOST_LEAVING:
            self._leaving.popleft().abort()

    def ended(self, session: Session) -> None:
        """A session has come to its end."""
        self.sessions.discard(session)
        self.gate.leave()
        told = session.record
        self.counters.note(told)
        self._log.note(told)
        if told.reason == record.INTERNAL_ERROR:
            self.say_once(f"{told.listener}: {told.error or 'internal error'}")
        if self._draining:
            self._look_whether_drained()

    def wait_for_place(self, entrance: Entrance) -> None:
        self._paused.append(entrance)
        self.say_once(f"the limit of {self.gate.limit} connections is reached; others wait until one ends")

    def take_place(self) -> None:
        """The gate has given this worker a place."""
        used = False
        while self._paused and not self.waiting:
            entrance = self._paused.popleft()
            if used:
                entrance.look_again()
            else:
                used = entrance.go_on()
        if not used:
            self.gate.leave()

    def on_accept_error(self, policy: ListenerPolicy, errno: int) -> None:
        self.counters.accept_failed()
        self.say_once(f"{policy.name}: a connection was not accepted: {os.strerror(errno)}")

    def say_once(self, line: str) -> None:
        """Tell the operator, but not again and again."""
        if line in self._said:
            return
        if not self._said:
            self.loop.call_later(QUIET_SECONDS, self._said.clear)
        self._said.add(line)
        self._writer.write(line)

    @staticmethod
    def local_name(fd: int) -> tuple[str, int]:
        """The address at which a connection arrived."""
        with borrowed(fd) as connection:
            address, port = connection.getsockname()[:2]
        return plain_address(address), port

    # Back ends

    def pool(self, route: RoutePolicy) -> BackendPool:
        """The one that a connection keeps while it looks for a back end, whatever is read again meanwhile."""
        pool = self._pools.get(route.connecting)
        if pool is None:
            pool = self._pools[route.connecting] = BackendPool(
                route.route.to, partial(Lookup, self.loop), self.loop.time, self._on_lookup
            )
        return pool

    def backend_failed(self, pool: BackendPool, backend: Backend, reason: str) -> None:
        if backend.up:
            self._writer.write(f"{backend.address} ({backend.peer}) is left out: {reason}")
        pool.failed(backend, reason)

    def backend_succeeded(self, pool: BackendPool, backend: Backend) -> None:
        if not backend.up:
            self._writer.write(f"{backend.address} ({backend.peer}) is used again")
        pool.succeeded(backend)

    def backend_news(self) -> list[News]:
        """From any thread."""
        return [item for key, pool in self._current for item in pool.news(key)]

    def _use_routes(self, policies: Sequence[ListenerPolicy]) -> None:
        """A pool for each set of back ends; those that were there before keep what they know."""
        routes = {route.connecting: route for policy in policies for route in policy.routes}
        self._current = [(key, self.pool(route)) for key, route in routes.items()]

    def _on_lookup(self, address: Address, error: Optional[Exception]) -> None:
        self._writer.write(f"{address}: {'its name was found again' if error is None else f'its name was not found: {error}'}")

    # What the server asks for; in the worker's thread, by call_soon_threadsafe

    def follow(self, policies: Sequence[ListenerPolicy], limits: Limits) -> None:
        """New connections go by these from now on."""
        self._use_routes(policies)
        self.limits = limits
        for entrances, policy in zip(self.entrances, policies):
            for entrance in entrances:
                entrance.policy = policy

    def drain(self) -> None:
        """Accept no more; `drained_handler` is called when the last connection has ended, and the last client that was refused
        has gone or had its time to hear why."""
        self._draining = True
        for entrances in self.entrances:
            for entrance in entrances:
                entrance.close()

    def closed(self, entrance: Entrance) -> None:
        """An entrance has closed, as `drain` has asked."""
        self._open -= 1
        self._look_whether_drained()

    def _look_whether_drained(self) -> None:
        if self._open or self.sessions:
            return
        if any(channel.fileno() >= 0 for channel in self._leaving):  # some seconds at the most: each has its own deadline
            self.loop.call_later(LEAVING_SECONDS, self._look_whether_drained)
        else:
            self._drained_handler(self)

    def stop(self, reason: str) -> None:
        """End every connection at once, and stop."""
        self._abort_all(reason)
        self.loop.stop()

    def _abort_all(self, reason: str) -> None:
        for session in list(self.sessions):
            session.abort(reason)

    def count_progress(self) -> None:
        """Every few seconds: add what live connections have moved to the counters."""
        for session in self.sessions:
            if session.relaying:
                self.counters.progress(session.progress())
        self.loop.call_later(PROGRESS_SECONDS, self.count_progress)


@contextmanager
def borrowed(fd: int) -> Iterator[socket.socket]:
    """A descriptor as a socket that does not own it."""
    connection = socket.socket(fileno=fd)
    try:
        yield connection
    finally:
        connection.detach()
