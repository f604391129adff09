"""Connection attempts: from a host and a port to one connected descriptor, as RFC 8305 ("Happy Eyeballs")
says.

Owns the name lookup, the sockets of attempts under way and the timers, until one attempt has succeeded, all
have failed, the deadline has passed or `cancel` is called; then nothing of it is left. What raises in between (a MemoryError)
ends it too, and breaks the consumer off: nobody waits for what will not come. Addresses are tried in
turns of their families, each a quarter of a second after the one before, or at once when that has failed; the
first to answer wins.

Each attempt is a `Dial` (core/dial.pyx). A port that is bound already is kept by a socket of its own until the end, and each
attempt binds the same port, so that none of them can lose it to another program.
"""

from __future__ import annotations

import errno
import os
import socket
from functools import wraps
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

from ..core.dial import Dial, pack_address
from ..core.event_loop import EventLoop
from ..core.hostname import Host, parse_host
from ..core.schedule import Timer
from .constants import SocketError
from .local_path import system_path
from .resolver import Address, Answer, Lookup, numeric_addresses

if TYPE_CHECKING:
    from ..core.descriptor import Descriptor

__all__ = ["Connector", "ConnectorConsumer", "LocalConnector", "OwnSocket", "bound_socket", "error_of"]

STAGGER = 0.25  # seconds, "Connection Attempt Delay" of RFC 8305, 5

ERRORS = {
    errno.ECONNREFUSED: SocketError.CONNECTION_REFUSED_ERROR,
    errno.ETIMEDOUT: SocketError.CONNECTION_REFUSED_ERROR,
    errno.ECONNRESET: SocketError.CONNECTION_REFUSED_ERROR,
    errno.EMFILE: SocketError.SOCKET_RESOURCE_ERROR,
    errno.ENFILE: SocketError.SOCKET_RESOURCE_ERROR,
    errno.ENOBUFS: SocketError.SOCKET_RESOURCE_ERROR,
    errno.ENOMEM: SocketError.SOCKET_RESOURCE_ERROR,
    errno.EACCES: SocketError.SOCKET_ACCESS_ERROR,
    errno.EPERM: SocketError.SOCKET_ACCESS_ERROR,
    errno.EADDRINUSE: SocketError.ADDRESS_IN_USE_ERROR,
}

LOOKUP_ERRORS = {
    socket.EAI_AGAIN: SocketError.TEMPORARY_ERROR,
    socket.EAI_MEMORY: SocketError.SOCKET_RESOURCE_ERROR,
}

# These say that one family or route does not work here, which is the usual case, and less than any answer of
# a host.
LOCAL_TROUBLE = frozenset((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))


def error_of(number: int) -> SocketError:
    """The SocketError for an errno of the system."""
    return ERRORS.get(number, SocketError.NETWORK_ERROR)


def lookup_error_of(exc: object) -> SocketError:
    """The SocketError for what a lookup came to."""
    if isinstance(exc, MemoryError):
        return SocketError.SOCKET_RESOURCE_ERROR
    number = exc.errno if isinstance(exc, OSError) else None
    if isinstance(exc, socket.gaierror):
        return LOOKUP_ERRORS.get(number or 0, SocketError.HOST_NOT_FOUND_ERROR)
    if number == errno.EAGAIN or error_of(number or 0) is SocketError.SOCKET_RESOURCE_ERROR:  # pthread_create(3): EAGAIN
        return SocketError.SOCKET_RESOURCE_ERROR
    return SocketError.HOST_NOT_FOUND_ERROR


class OwnSocket(socket.socket):
    """Closes without a warning when it is dropped: with a closed loop, that is how a bound port ends."""

    __slots__ = ()

    def __init__(self, family: int) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self.setblocking(False)

    def __del__(self) -> None:
        if self.fileno() >= 0:  # else there is nothing to close, and perhaps nothing that `close` needs: no descriptor was left
            self.close()


def bound_socket(port: int) -> OwnSocket:
    """A socket with a port of its own, for both families where the system has both. OSError."""
    try:
        sock = OwnSocket(socket.AF_INET6)
    except OSError:
        sock = OwnSocket(socket.AF_INET)
    try:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # The port of a connection that has just ended may be bound again.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", port))
    except BaseException:
        sock.close()
        raise
    return sock


class ConnectorConsumer(Protocol):
    """Who a connector reports to, from the loop; never once `cancel` has been called."""

    def _on_host_found(self) -> None: ...
    def _on_established(self, descriptor: Descriptor, address: str, port: int) -> None: ...
    def _on_unreachable(self, error: SocketError, message: str) -> None: ...

    def _break_off(self, exc: BaseException) -> None:
        """There will be no connection, for something has raised."""


def whole(step: Callable[..., None]) -> Callable[..., None]:
    """A step that the loop calls, of a Connector or an Attempt. Where it raises, the consumer is broken off."""

    @wraps(step)
    def guarded(self: Any, *args: Any) -> None:
        connector: Connector = getattr(self, "_connector", self)
        consumer = connector._consumer
        try:
            step(self, *args)
        except BaseException as exc:
            connector.cancel()
            if consumer is not None:
                consumer._break_off(exc)
            raise

    return guarded


def in_turns(addresses: list[Address]) -> list[Address]:
    """Families by turns, the one of the first address first: RFC 8305, 4."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    other = [address for address in addresses if address[0] != addresses[0][0]]
    mixed: list[Address] = []
    for number in range(max(len(first), len(other))):
        mixed += first[number : number + 1] + other[number : number + 1]
    return mixed


class Attempt:
    """One dial, and the address that it is for."""

    __slots__ = ("_connector", "address", "dial")

    def __init__(self, connector: Connector, loop: EventLoop, address: Address, local_port: int) -> None:
        family, name = address
        local = b"" if not local_port else pack_address(family, ("0.0.0.0" if family == socket.AF_INET else "::", local_port))
        packed = pack_address(family, name if family != socket.AF_UNIX else (system_path(name[0]),))
        self._connector = connector
        self.address = address
        self.dial = Dial(loop, packed, self, local=local)

    @whole
    def on_dialed(self, descriptor: Descriptor) -> None:
        self._connector.on_dialed(self, descriptor)

    @whole
    def on_dial_failed(self, number: int) -> None:
        self._connector.on_dial_failed(self, number)


class Connector:
    """One run of connection attempts. `start` it once; it reports to its consumer."""

    __slots__ = (
        "_addresses",
        "_attempts",
        "_bound",
        "_consumer",
        "_deadline",
        "_failure",
        "_hostname",
        "_lookup",
        "_loop",
        "_port",
        "_stagger",
        "_timeout",
    )

    def __init__(
        self,
        loop: EventLoop,
        consumer: ConnectorConsumer,
        hostname: str,
        port: int,
        timeout: float,
        bound: Optional[OwnSocket] = None,
    ) -> None:
        self._loop = loop
        self._consumer: Optional[ConnectorConsumer] = consumer
        self._hostname = hostname
        self._port = port
        self._timeout = timeout
        self._bound = bound
        self._addresses: list[Address] = []
        self._attempts: list[Attempt] = []
        self._failure: Optional[tuple[int, str]] = None
        self._lookup: Optional[Lookup] = None
        self._stagger: Optional[Timer] = None
        self._deadline: Optional[Timer] = None

    def start(self) -> None:
        """Begin. Nothing is reported before the next turn of the loop."""
        host: Optional[Host] = None
        try:
            host = parse_host(self._hostname)
        except ValueError as exc:
            self._loop.call_soon(self._fail, SocketError.HOST_NOT_FOUND_ERROR, str(exc))
            return
        if self._timeout > 0:
            self._deadline = self._loop.call_later(self._timeout, self._on_deadline)
        if not host.numeric:
            self._lookup = Lookup(self._loop, host.name, self._port, self._on_answer)
            return
        answer: Answer
        try:
            answer = numeric_addresses(host.name, self._port)
        except OSError as exc:
            answer = exc
        self._loop.call_soon(self._on_answer, answer)

    def cancel(self) -> None:
        """Give everything back; nothing is reported any more."""
        self._consumer = None
        self._release()

    def _release(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._stagger is not None:
            self._stagger.cancel()
        if self._lookup is not None:
            self._lookup.cancel()
        attempts, self._attempts, self._addresses = self._attempts, [], []
        for attempt in attempts:
            attempt.dial.cancel()
        if self._bound is not None:
            self._bound.close()

    @whole
    def _on_answer(self, answer: Answer) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        self._lookup = None
        if isinstance(answer, Exception) or not answer:
            error = lookup_error_of(answer) if answer else SocketError.HOST_NOT_FOUND_ERROR
            words = getattr(answer, "strerror", None) or str(answer or "it has no address")
            found = "was not found" if error is SocketError.HOST_NOT_FOUND_ERROR else "could not be looked up"
            self._fail(error, f"the host {self._hostname!r} {found}: {words}")
            return
        self._addresses = in_turns(answer)
        consumer._on_host_found()
        if self._consumer is not None:
            self._next()

    @whole
    def _next(self) -> None:
        """Start the next attempt; those that fail at once are passed over."""
        if self._stagger is not None:
            self._stagger.cancel()
            self._stagger = None
        local_port = self._bound.getsockname()[1] if self._bound is not None else 0
        while self._addresses:
            attempt = Attempt(self, self._loop, self._addresses.pop(0), local_port)
            result = attempt.dial.start(0)
            if not isinstance(result, int):
                self._succeed(attempt, result)
                return
            if result == -errno.EINPROGRESS:
                self._attempts.append(attempt)
                if self._addresses:
                    self._stagger = self._loop.call_later(STAGGER, self._next)
                return
            self._note_failure(-result, attempt)
        if not self._attempts:
            self._fail_all()

    def on_dialed(self, attempt: Attempt, descriptor: Descriptor) -> None:
        """An attempt has succeeded."""
        if self._consumer is None:  # what ended it did not know of this attempt yet
            return
        self._attempts.remove(attempt)
        self._succeed(attempt, descriptor)

    def on_dial_failed(self, attempt: Attempt, number: int) -> None:
        """An attempt has failed: errno."""
        if self._consumer is None:
            return
        self._attempts.remove(attempt)
        self._note_failure(number, attempt)
        if self._addresses:
            self._next()
        elif not self._attempts:
            self._fail_all()

    def _note_failure(self, code: int, attempt: Attempt) -> None:
        """Keep the failure that says most: the first, unless that was trouble of our own network."""
        if self._failure is None or (self._failure[0] in LOCAL_TROUBLE and code not in LOCAL_TROUBLE):
            self._failure = (code, str(attempt.address[1][0]))

    def _succeed(self, attempt: Attempt, descriptor: Descriptor) -> None:
        consumer, self._consumer = self._consumer, None
        self._release()
        if consumer is not None:
            consumer._on_established(descriptor, attempt.address[1][0], self._port)

    def _fail_all(self) -> None:
        assert self._failure is not None
        code, address = self._failure
        self._fail(error_of(code), f"no connection to {self._where()}: {os.strerror(code)} ({address})")

    @whole
    def _on_deadline(self) -> None:
        words = "its name was not found out" if self._lookup is not None else "it did not answer"
        self._fail(
            SocketError.CONNECTION_REFUSED_ERROR,
            f"no connection to {self._where()}: {words} within {self._timeout:g} s",
        )

    def _where(self) -> str:
        return f"{self._hostname} port {self._port}"

    @whole
    def _fail(self, error: SocketError, message: str) -> None:
        consumer, self._consumer = self._consumer, None
        self._release()
        if consumer is not None:
            consumer._on_unreachable(error, message)


class LocalConnector(Connector):
    """A run whose only address is a path."""

    __slots__ = ()

    def __init__(self, loop: EventLoop, consumer: ConnectorConsumer, path: str, timeout: float) -> None:
        super().__init__(loop, consumer, path, 0, timeout)

    def start(self) -> None:
        if self._timeout > 0:
            self._deadline = self._loop.call_later(self._timeout, self._on_deadline)
        self._loop.call_soon(self._on_answer, [(socket.AF_UNIX, (self._hostname,))])

    def _fail_all(self) -> None:
        assert self._failure is not None
        code = self._failure[0]
        # As Qt's QLocalSocket has it: ServerNotFoundError.
        error = SocketError.HOST_NOT_FOUND_ERROR if code in (errno.ENOENT, errno.ENOTDIR) else error_of(code)
        self._fail(error, f"no connection to {self._where()}: {os.strerror(code)}")

    def _where(self) -> str:
        return self._hostname
