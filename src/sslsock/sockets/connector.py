"""Connection attempts: from a host and a port to one connected descriptor, as RFC 8305 ("Happy Eyeballs")
says.

Owns the name lookup, the sockets of attempts under way and the timers, until one attempt has succeeded, all
have failed, the deadline has passed or `cancel` is called; then nothing of it is left. Addresses are tried in
turns of their families, each a quarter of a second after the one before, or at once when that has failed; the
first to answer wins.

A port that is bound already can have only one attempt under way, so its addresses are tried one after
another.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import Optional, Protocol

from ..core.loop import Timer, Watch
from .constants import SocketError
from .event_loop import EventLoop
from .hostname import Host, parse_host
from .resolver import Address, Answer, Lookup, numeric_addresses

__all__ = ["Connector", "ConnectorConsumer", "OwnSocket", "bound_socket", "error_of"]

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

# These say that one family or route does not work here, which is the usual case, and less than any answer of
# a host.
LOCAL_TROUBLE = frozenset((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))


def error_of(number: int) -> SocketError:
    """The SocketError for an errno of the system."""
    return ERRORS.get(number, SocketError.NETWORK_ERROR)


class OwnSocket(socket.socket):
    """Closes without a warning when it is dropped: with a closed loop, that is how an attempt ends."""

    __slots__ = ()

    def __init__(self, family: int) -> None:
        super().__init__(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

    def __del__(self) -> None:
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

    def on_host_found(self) -> None: ...
    def on_established(self, fd: int, address: str, port: int) -> None: ...
    def on_unreachable(self, error: SocketError, message: str) -> None: ...


def in_turns(addresses: list[Address]) -> list[Address]:
    """Families by turns, the one of the first address first: RFC 8305, 4."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    other = [address for address in addresses if address[0] != addresses[0][0]]
    mixed: list[Address] = []
    for number in range(max(len(first), len(other))):
        mixed += first[number : number + 1] + other[number : number + 1]
    return mixed


def for_bound(bound: OwnSocket, addresses: list[Address]) -> list[Address]:
    """Those of `addresses` that a socket with a family already can connect to, in its own notation."""
    if bound.family == socket.AF_INET:
        return [address for address in addresses if address[0] == socket.AF_INET]
    return [
        (socket.AF_INET6, (f"::ffff:{name[0]}", name[1])) if family == socket.AF_INET else (family, name)
        for family, name in addresses
    ]


class Attempt:
    """One socket on its way to one address."""

    __slots__ = ("_connector", "_watch", "address", "socket")

    def __init__(self, connector: Connector, sock: OwnSocket, address: Address) -> None:
        self._connector = connector
        self._watch: Optional[Watch] = None
        self.socket = sock
        self.address = address

    def start(self, loop: EventLoop) -> int:
        """Returns 0 when it is connected at once, EINPROGRESS, or the errno of the failure."""
        code = self.socket.connect_ex(self.address[1])
        if code == errno.EINTR:  # connect(2): it goes on by itself
            code = errno.EINPROGRESS
        if code == errno.EINPROGRESS:
            try:
                self._watch = loop.watch(self.socket.fileno(), select.EPOLLOUT, self._on_event)
            except OSError as exc:  # no room in the system's tables
                return exc.errno or errno.ENOMEM
        return code

    def unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def is_to_itself(self) -> bool:
        """A port of the ephemeral range that nobody listens on may be given to the very socket that connects
        to it."""
        try:
            return bool(self.socket.getsockname() == self.socket.getpeername())
        except OSError:
            return False

    def _on_event(self, events: int) -> None:
        self._connector.on_attempt_done(self, self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


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
            attempt.unwatch()
            attempt.socket.close()
        if self._bound is not None:
            self._bound.close()

    def _on_answer(self, answer: Answer) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        self._lookup = None
        if isinstance(answer, Exception) or not answer:
            temporary = isinstance(answer, socket.gaierror) and answer.errno == socket.EAI_AGAIN
            words = getattr(answer, "strerror", None) or str(answer or "it has no address")
            self._fail(
                SocketError.TEMPORARY_ERROR if temporary else SocketError.HOST_NOT_FOUND_ERROR,
                f"the host {self._hostname!r} was not found: {words}",
            )
            return
        self._addresses = in_turns(answer)
        if self._bound is not None:
            self._addresses = for_bound(self._bound, self._addresses)
        consumer.on_host_found()
        if self._consumer is not None:
            self._next()

    def _next(self) -> None:
        """Start the next attempt; those that fail at once are passed over."""
        if self._stagger is not None:
            self._stagger.cancel()
            self._stagger = None
        while self._addresses:
            attempt = self._make_attempt(self._addresses.pop(0))
            if attempt is None:
                continue
            code = attempt.start(self._loop)
            if code == 0 and not attempt.is_to_itself():
                self._succeed(attempt)
                return
            if code == errno.EINPROGRESS:
                if self._addresses and self._bound is None:
                    self._stagger = self._loop.call_later(STAGGER, self._next)
                return
            self._note(attempt, code or errno.ECONNREFUSED)
        if not self._attempts:
            self._fail_all()

    def _make_attempt(self, address: Address) -> Optional[Attempt]:
        sock = self._bound
        if sock is None:
            try:
                sock = OwnSocket(address[0])
            except OSError as exc:
                self._note_failure(exc.errno or 0, str(address[1][0]))
                return None
        # Small answers must not wait for the acknowledgement of others; the core gathers what belongs
        # together.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        attempt = Attempt(self, sock, address)
        self._attempts.append(attempt)
        return attempt

    def on_attempt_done(self, attempt: Attempt, code: int) -> None:
        """The system has the result of an attempt: errno, 0 when it is connected."""
        if attempt not in self._attempts:
            return
        if code == 0 and not attempt.is_to_itself():
            self._succeed(attempt)
            return
        self._note(attempt, code or errno.ECONNREFUSED)
        if self._addresses:
            self._next()
        elif not self._attempts:
            self._fail_all()

    def _note(self, attempt: Attempt, code: int) -> None:
        self._attempts.remove(attempt)
        attempt.unwatch()
        self._note_failure(code, str(attempt.address[1][0]))
        if self._bound is not None and self._addresses:
            # A socket that has failed to connect may have lost its port: take a new one before letting it go.
            try:
                self._bound = bound_socket(attempt.socket.getsockname()[1])
            except OSError:
                self._addresses = []
        attempt.socket.close()

    def _note_failure(self, code: int, address: str) -> None:
        """Keep the failure that says most: the first, unless that was trouble of our own network."""
        if self._failure is None or (self._failure[0] in LOCAL_TROUBLE and code not in LOCAL_TROUBLE):
            self._failure = (code, address)

    def _succeed(self, attempt: Attempt) -> None:
        consumer, self._consumer = self._consumer, None
        self._attempts.remove(attempt)
        attempt.unwatch()
        fd = attempt.socket.detach()
        self._release()
        if consumer is not None:
            consumer.on_established(fd, attempt.address[1][0], self._port)

    def _fail_all(self) -> None:
        code, address = self._failure or (errno.EAFNOSUPPORT, "no address of the bound socket's family")
        self._fail(error_of(code), f"no connection to {self._where()}: {os.strerror(code)} ({address})")

    def _on_deadline(self) -> None:
        words = "its name was not found out" if self._lookup is not None else "it did not answer"
        self._fail(
            SocketError.CONNECTION_REFUSED_ERROR,
            f"no connection to {self._where()}: {words} within {self._timeout:g} s",
        )

    def _where(self) -> str:
        return f"{self._hostname} port {self._port}"

    def _fail(self, error: SocketError, message: str) -> None:
        consumer, self._consumer = self._consumer, None
        self._release()
        if consumer is not None:
            consumer.on_unreachable(error, message)
