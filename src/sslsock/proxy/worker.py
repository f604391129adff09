"""One thread of the proxy: a loop, a listening descriptor for each listener, and the sessions of their connections.

Workers share nothing but what cannot change (policies, contexts), the ticket keys, and the counts of connections (`Gate`,
`Sources`), whose locks each takes when a connection begins, has shaken hands and ends. Everything else is told to them by
`loop.call_soon_threadsafe`.
"""

from __future__ import annotations

import logging
import os
import select
import socket
from collections import deque
from collections.abc import Container, Hashable, Iterator, Sequence
from contextlib import contextmanager
from errno import EMFILE
from functools import partial
from operator import attrgetter
from typing import Any, Callable, Optional
from weakref import WeakValueDictionary

from ..core.channel import Channel
from ..core.dial import set_keepalive
from ..core.door import Door
from ..core.event_loop import EventLoop
from ..core.listener import Listener
from ..core.loop import Loop
from ..core.schedule import Timer
from ..sockets.local_path import end_of
from ..sockets.resolver import Lookup
from .back_ends.backends import Backend, BackendPool, News, peer_text
from .back_ends.directory import Directory
from .back_ends.health import Board
from .limits.descriptors import AMPLE, Rooms
from .limits.gate import Gate, Place
from .limits.lifetime import Lifetime
from .limits.rates import Rates
from .limits.sources import Sources
from .observability import record
from .observability.access_log import WARNING, AccessLog, LineWriter
from .observability.metrics import Counters
from .policy import ListenerPolicy, RoutePolicy
from .service.syn_filter import drop_new_connections
from .sessions.header_out import unique_ids
from .sessions.session import Session
from .settings.model import Address, Limits, Rate

__all__ = ["Entrance", "Worker", "borrowed"]

log = logging.getLogger("sslsock")

LEAVING_SECONDS = 0.05  # between looks whether those who were refused have gone, when nothing else is left
LAST_CALL = 0.2  # seconds that a listener stays open for handshakes which are under way when it is to close
NAME_SECONDS = 1.0  # how often names are looked at that DNS gives a time for
PROGRESS_SECONDS = 2.0  # how often the bytes of live connections are added to the counters
SILENT = "it took what a client sent and has not answered"
QUIET_SECONDS = 60.0  # for what would be said again and again


class Entrance:
    """A listener of a worker: its descriptor, and the policy for whom it lets in.

    shared: the descriptor is not this process's alone. ahead: connections that may be accepted before they have a place.
    """

    def __init__(self, worker: Worker, policy: ListenerPolicy, fd: int, shared: bool, ahead: int) -> None:
        self.loop = worker.loop
        self.waiting = self.pressing = False  # the gate's
        self.room = worker.gate.room(policy.name)
        self._worker = worker
        self._limiter = worker.rates.connections[policy.name]
        self._shared = shared
        self._next: Optional[tuple[int, tuple[str, int], Optional[bytes]]] = None  # who waits: descriptor, peer, source
        self._turn: Optional[Timer] = None  # set while the next connection waits for its turn
        self._turn_rates: tuple[Rate, ...] = ()  # by which it has got it
        self._closing = False
        self._door = Door()
        self._bind(policy)
        worker.counters.watch_door(policy.name, self._door)
        set_keepalive(fd, worker.limits.keepalive)
        self._listener = Listener(worker.loop, fd, self, ahead, self._door)

    def follow(self, policy: ListenerPolicy, limits: Limits) -> None:
        """Connections go by these from now on."""
        self._bind(policy)
        if self._turn is not None and self._turn_rates != self._limiter.in_force:
            self._turn.cancel()
            self._await_turn(self._limiter.take() or 0.0)
        set_keepalive(self._listener.fileno(), limits.keepalive)

    def _bind(self, policy: ListenerPolicy) -> None:
        """What each connection goes by."""
        self.policy = policy
        self.shakes = policy.shakes
        if policy.proxy_protocol_in:  # the source is whoever the header names
            self._door.follow(None, None, False)
        else:
            self._door.follow(policy.networks, self._worker.sources.limits, self.shakes)

    def _on_pending(self) -> None:
        """Let in those who have come, up to one who has to wait."""
        while self._next is None:
            self._next = self._listener.take_counted()
            if self._next is None:
                return
            wait = self._limiter.take()
            if wait and not self._closing:
                self._listener.pause()
                self._await_turn(wait)
                self._worker.say_once(f"{self.policy.name}: connections wait, for they come too fast (connection-rate)")
            elif not self._enter():
                return

    def _await_turn(self, seconds: float) -> None:
        self._turn_rates = self._limiter.in_force
        self._turn = self.loop.call_later(seconds, self._on_turn)

    def _on_turn(self) -> None:
        self._turn = None
        if self._next is not None and self._enter():
            self._listener.resume()
            self._on_pending()

    def _enter(self) -> bool:
        """Let the next one in, if there is a place."""
        place = self._worker.gate.enter(self)
        if place is None:
            # The others wait in the kernel's queue, where they cost nothing.
            self._listener.pause()
            self._worker.on_wait(self)
            return False
        self._admit(place)
        return True

    def _admit(self, place: Place) -> None:
        assert self._next is not None
        (fd, peer, source), self._next = self._next, None
        if self.policy.proxy_protocol_in:  # only since it has come: the header says as what it counts
            self._worker.sources.leave(source, self.policy.tls)
            source = None
        self._worker.admit(self.policy, fd, peer, place, source)

    def take_place(self, place: Place) -> None:
        """The gate has one, after a wait."""
        if self._next is None:  # the worker has ended
            self._worker.gate.leave(place)
            return
        self._admit(place)
        self._listener.resume()
        self._on_pending()

    def _on_accept_error(self, errno: int) -> None:
        self._worker._on_accept_error(self.policy, errno)

    def forget_next(self) -> None:
        """Close whoever waits for a place, at the end of the worker."""
        if self._next is not None:
            os.close(self._next[0])
            self._worker.sources.leave(self._next[2], self.policy.tls)
            self._next = None

    def close(self) -> None:
        """Let nobody new in; who is connected already is let in still. `Worker.closed` is called when that is done."""
        self._closing = True
        if self._turn is not None:  # those who have come before the end do not wait for their turn
            self._turn.cancel()
            self._on_turn()
        if self._shared:
            # The queue belongs to whoever gave us the socket, and who takes from it next: systemd's next start, for one.
            self._listener.limit = 0
            self._close_when_empty()
            return
        if self.policy.settings.listen.path is not None:  # its file is gone already, and so nobody new comes
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
        if self._next is not None or self._listener.pending or not (self._shared or self._queue_is_empty()):
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
    `drain`. sources, rates: of all workers. rooms: what it may hold beside the connections that have a place. board: what
    all workers know of back ends; number: of this worker there. directory: finds the names of back ends; None: the system does.
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
        sources: Optional[Sources] = None,
        rooms: Rooms = AMPLE,
        board: Optional[Board] = None,
        number: int = 0,
        directory: Optional[Directory] = None,
        rates: Optional[Rates] = None,
    ) -> None:
        self.loop = EventLoop.current()
        self.limits = limits
        self.gate = gate
        self.sources = sources or Sources(limits)
        self.rates = rates or Rates([policy.name for policy in policies])
        self._handshake_rates = self.rates.handshakes_in_force  # by which those who wait have their turns
        self.counters = Counters()
        self.lifetime: Optional[Lifetime] = None  # of those who come now
        self.sessions: set[Session] = set()
        self.wants_details = wants_details
        self.unique_ids = unique_ids()
        self._log = log
        self._writer = writer
        # Weak: a pool of older settings goes with the last connection that uses it.
        self._pools: WeakValueDictionary[Hashable, BackendPool] = WeakValueDictionary()
        self._backends: WeakValueDictionary[Hashable, Backend] = WeakValueDictionary()
        self._board = board or Board()
        self._number = number
        self._directory = directory
        self.routes: list[tuple[RoutePolicy, BackendPool]] = []  # in force, each with its pool; of those alike one
        self._pool_of: dict[RoutePolicy, BackendPool] = {}  # of all in force: found without a hash of what they say
        self.backends_handler: Optional[Callable[[], object]] = None  # called when the back ends may have changed
        self._draining = False
        self._drained_handler = drained_handler
        self._said: set[str] = set()
        self._leaving: deque[Channel] = deque()
        self._most_leaving = rooms.leaving
        self.loop.exception_handler = self._on_exception
        self._use_routes(policies)
        self._use_lifetime(limits.connection_lifetime)
        self.entrances = [
            [Entrance(self, policy, fd, fd in shared, rooms.ahead) for fd in column]
            for policy, column in zip(policies, descriptors)
        ]  # of each policy
        self._open = sum(map(len, self.entrances))
        if directory is not None:
            self._refresh_names()

    def run(self) -> None:
        """Until the loop is stopped; then end every connection and close the loop."""
        try:
            self.loop.run()
        finally:
            self.abort_all(record.ABORTED)
            for entrance in (one for column in self.entrances for one in column):
                entrance.forget_next()
            for pool in list(self._pools.values()):
                pool.close()
            self.loop.close()

    # Connections

    def admit(self, policy: ListenerPolicy, fd: int, peer: tuple[str, int], place: Place, source: Optional[bytes]) -> None:
        """A connection that has a place. Whatever is wrong with it harms no other. source: what it is counted as."""
        session = Session(self, policy, fd, peer, place, source)
        place.occupant = session
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
        not more of them than there is room for: whoever stays for long is cut."""
        if channel.fileno() < 0:
            return
        if len(self._leaving) >= self._most_leaving:
            self._leaving.popleft().abort()
        self._leaving.append(channel)

    def ended(self, session: Session) -> None:
        """A session has come to its end."""
        self.sessions.discard(session)
        self.sources.leave(session.source, session.shakes)
        session.place.occupant = None
        self.gate.leave(session.place)
        told = session.record
        self.counters.note(told)
        self._log.note(told)
        if told.reason == record.INTERNAL_ERROR:
            self.say_once(f"{told.listener}: {told.error or 'internal error'}")
        if self._draining:
            self._look_whether_drained()

    def on_wait(self, entrance: Entrance) -> None:
        """Somebody waits for a place."""
        room = self.gate.blocking(entrance)
        if room is None:  # there is one now
            return
        where = f"{entrance.policy.name}: " if room is entrance.room else ""
        if room is self.gate.own and room.full:
            text = f"process {os.getpid()} has all {room.limit} connections that its descriptors allow (ulimit -n, LimitNOFILE)"
            self.say_once(f"{text}; others go to the other processes, or wait")
        elif room.full:
            self.say_once(f"{where}the limit of {room.limit} connections is reached; others wait until one ends")
        else:
            self.say_once(f"{where}{room.most_handshakes} handshakes are under way, the limit; the oldest give way to others")

    def _on_accept_error(self, policy: ListenerPolicy, errno: int) -> None:
        self.counters.accept_failed()
        hint = f" (process {os.getpid()}; ulimit -n, LimitNOFILE)" if errno == EMFILE else ""
        self.say_once(f"{policy.name}: a connection was not accepted: {os.strerror(errno)}{hint}")

    def say_once(self, line: str) -> None:
        """Tell the operator, but not again and again."""
        if line in self._said:
            return
        if not self._said:
            self.loop.call_later(QUIET_SECONDS, self._said.clear)
        self._said.add(line)
        self._writer.write(line, WARNING)

    @staticmethod
    def local_name(fd: int) -> tuple[str, int]:
        """The address at which a connection arrived."""
        with borrowed(fd) as connection:
            return end_of(connection.getsockname())

    # Back ends

    def pool(self, route: RoutePolicy) -> BackendPool:
        """The one that a connection keeps while it looks for a back end, whatever is read again meanwhile."""
        pool = self._pool_of.get(route) or self._pools.get(route.connecting)
        if pool is None:
            known = {place: found for _, older in self.routes for place, found in older.addresses().items() if found}
            pool = self._pools[route.connecting] = BackendPool(
                route.route.to,
                partial(self._directory.look_up if self._directory is not None else Lookup, self.loop),
                self.loop.time,
                self._on_lookup,
                make=partial(self._backend, route.manner),
                balance=route.route.balance,
                known=known,
                found_handler=self._on_found,
            )
        return pool

    def _backend(self, manner: Hashable, address: Address, family: int, sockaddr: Any) -> Backend:
        """The one that all pools have which speak to it in the same manner, those of older settings too."""
        key = manner, address, family, sockaddr
        backend = self._backends.get(key)
        if backend is None:
            health = self._board.find(key, address.place, peer_text(sockaddr))
            backend = self._backends[key] = Backend(address, family, sockaddr, health, self._number)
        return backend

    def on_checked(self) -> None:
        """The checks have something new to say."""
        for pool in list(self._pools.values()):
            pool.on_checked()

    def backend_failed(self, pool: BackendPool, backend: Backend, reason: str) -> None:
        if backend.up:
            self._writer.write(f"{backend.address} ({backend.peer}) is left out: {reason}", WARNING)
        pool.failed(backend, reason)

    def backend_silent(self, route: RoutePolicy, backend: Backend) -> None:
        """A client has waited for its first byte until the idle timeout."""
        pool = self.pool(route)
        if pool.talks:
            if backend.up:
                self._writer.write(f"{backend.address} ({backend.peer}) is left out: {SILENT}", WARNING)
            pool.fell_silent(backend, SILENT)

    def backend_succeeded(self, pool: BackendPool, backend: Backend) -> None:
        if not backend.up:
            self._writer.write(f"{backend.address} ({backend.peer}) is used again")
        pool.succeeded(backend)

    def _refresh_names(self) -> None:
        """DNS says for how long a name stands for the same; so it is looked up again though nobody uses it."""
        for _, pool in self.routes:
            pool.refresh()
        self.loop.call_later(NAME_SECONDS, self._refresh_names)

    def names_found(self) -> dict[str, bool]:
        """Names of back ends, and whether their last lookup went well. From any thread."""
        return {name: good for _, pool in self.routes for name, good in pool.names().items()}

    def backend_news(self) -> list[News]:
        """From any thread."""
        return [item for route, pool in self.routes for item in pool.news(route.connecting)]

    def _use_routes(self, policies: Sequence[ListenerPolicy]) -> None:
        """A pool for each set of back ends; those that were there before keep what they know."""
        every = [route for policy in policies for route in policy.routes]
        unlike = {route.connecting: route for route in every}
        self.routes = [(route, self.pool(route)) for route in unlike.values()]
        self._pool_of = {route: self.pool(route) for route in every}
        self._on_found()

    def _use_handshake_rates(self) -> None:
        """Whose turn would come by others takes another one."""
        before, self._handshake_rates = self._handshake_rates, self.rates.handshakes_in_force
        changed = {name for name, rates in self._handshake_rates.items() if rates != before[name]}
        waiting = [session for session in self.sessions if session.waits and session.policy.name in changed]
        for session in sorted(waiting, key=attrgetter("started")):
            self.loop.call_soon(session.take_another_turn)  # a mistake in one concerns no other

    def _use_lifetime(self, seconds: float) -> None:
        """Who is there already keeps its own."""
        if self.lifetime is None or self.lifetime.seconds != seconds:
            self.lifetime = Lifetime(self.loop, seconds) if seconds else None

    def _on_found(self) -> None:
        """The back ends may be others now."""
        if self.backends_handler is not None:
            self.backends_handler()

    def _on_lookup(self, address: Address, error: Optional[Exception]) -> None:
        self._board.note_lookup(str(address), "" if error is None else str(error), self._writer)

    # What the server asks for; in the worker's thread, by call_soon_threadsafe

    def follow(
        self, policies: Sequence[ListenerPolicy], limits: Limits, directory: Optional[Directory] = None
    ) -> None:
        """New connections go by these from now on."""
        if directory is not None and self._directory is None:
            self._directory = directory
            self._refresh_names()
        self._use_routes(policies)
        self._use_lifetime(limits.connection_lifetime)
        self.limits = limits
        self._use_handshake_rates()
        for entrances, policy in zip(self.entrances, policies):
            for entrance in entrances:
                entrance.follow(policy, limits)

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
        self.abort_all(reason)
        self.loop.stop()

    def abort_all(self, reason: str) -> None:
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
