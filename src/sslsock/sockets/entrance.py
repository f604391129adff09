"""Entrance: what an accepted connection says before anybody else reads it: a PROXY header, its ClientHello.

    the header, which is taken ──> the ClientHello, which is looked at and stays in the system (MSG_PEEK), for the handshake

So who gets the socket afterwards finds a connection like any other. One deadline covers both.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from .. import proxy_protocol
from ..core.client_hello import MAX_CLIENT_HELLO, ClientHello, ClientHelloError, parse_client_hello
from ..core.descriptor import Descriptor
from ..core.watch import PEER_ENDED

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from ..core.loop import Loop
    from ..core.schedule import Timer
    from ..core.watch import Watch

__all__ = ["Entrance", "EntranceError", "TrustedProxies"]

LEAST_SECONDS = 0.001  # 0 would be no limit
ENDS = PEER_ENDED | select.POLLHUP | select.POLLERR


class EntranceError(Exception):
    """Why a connection does not come in. alert: of TLS, that the peer is to get; 0: none."""

    def __init__(self, text: str, alert: int = 0) -> None:
        super().__init__(text)
        self.alert = alert


class TrustedProxies:
    """Whose PROXY headers are believed: networks and addresses (str), or True for everybody. TypeError, ValueError."""

    def __init__(self, sources: Union[bool, str, Iterable[str]]) -> None:
        from ipaddress import ip_network

        self.sources: Union[bool, tuple[str, ...]] = True
        self._networks: Optional[tuple[Union[IPv4Network, IPv6Network], ...]] = None
        if sources is True:
            return
        if isinstance(sources, (bool, bytes)) or not hasattr(sources, "__iter__"):
            raise TypeError(f"trusted proxies are networks, or True, not {sources!r}")
        texts = (sources,) if isinstance(sources, str) else tuple(sources)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a network is a str, as in '10.0.0.0/8'")
        self._networks = tuple(ip_network(text) for text in texts)
        self.sources = texts

    def __contains__(self, address: object) -> bool:
        """address: str, as a socket has it."""
        from ipaddress import ip_address

        if self._networks is None:
            return True
        try:
            found = ip_address(str(address).partition("%")[0])
        except ValueError:  # the path of a UNIX socket
            return False
        mapped = getattr(found, "ipv4_mapped", None)  # as IPv6 sockets show IPv4
        return any((mapped or found) in network for network in self._networks)


@contextlib.contextmanager
def lent(descriptor: Descriptor) -> Iterator[socket.socket]:
    """A socket for a moment; the descriptor stays its owner's."""
    sock = socket.socket(fileno=descriptor.fileno())
    try:
        sock.setblocking(False)
        yield sock
    finally:
        sock.detach()


class Entrance:
    """One connection on its way in. Owns `descriptor`, until `take`.

    descriptor: connected and non-blocking. header, hello: whether one is to come. timeout: seconds for both, 0 for no limit.
    then: called with the entrance and None when all is there (`header`, `hello`), else with an EntranceError, and it is closed.
    """

    __slots__ = ("_descriptor", "_end", "_then", "_timer", "_wants_header", "_wants_hello", "_watch", "header", "hello")

    def __init__(
        self, loop: Loop, descriptor: Descriptor, header: bool, hello: bool, timeout: float, then: Callable[..., object]
    ) -> None:
        self._descriptor: Optional[Descriptor] = descriptor
        self.header: Optional[proxy_protocol.Header] = None
        self.hello: Optional[ClientHello] = None
        self._wants_header, self._wants_hello = header, hello
        self._then: Optional[Callable[..., object]] = then
        self._end = time.monotonic() + timeout if timeout > 0 else 0.0
        self._timer: Optional[Timer] = loop.call_later(timeout, self._overdue) if timeout > 0 else None
        self._watch: Optional[Watch] = loop.watch(descriptor.fileno(), select.POLLIN | PEER_ENDED, self._look)
        loop.call_soon(self._look, 0)

    def seconds_left(self) -> float:
        """Of the time limit; 0.0 where there is none."""
        return max(self._end - time.monotonic(), LEAST_SECONDS) if self._end else 0.0

    @property
    def closed(self) -> bool:
        """Whether the connection is not here any more."""
        return self._descriptor is None

    def take(self) -> Descriptor:
        """The connection, which becomes the caller's."""
        descriptor, self._descriptor = self._descriptor, None
        assert descriptor is not None
        return descriptor

    def close(self) -> None:
        """Nobody comes in. No effect after `take`."""
        self._leave()
        self._descriptor = None

    def refuse(self, alert: int) -> None:
        """Close, and say why."""
        if self._descriptor is not None and alert:
            with contextlib.suppress(OSError), lent(self._descriptor) as sock:
                sock.send(bytes((21, 3, 3, 0, 2, 2, alert)))  # RFC 8446, 5.1 and 6: a record, fatal
                # What is unread would make the close a reset, which can overtake the alert (RFC 2525, 2.17).
                sock.recv(MAX_CLIENT_HELLO)
        self.close()

    def _leave(self) -> None:
        watch, self._watch = self._watch, None
        timer, self._timer = self._timer, None
        self._then = None
        if watch is not None:
            watch.close()
        if timer is not None:
            timer.cancel()

    def _look(self, events: int) -> None:
        if self._then is None or self._descriptor is None:
            return
        try:
            with lent(self._descriptor) as sock:
                complete = self._looked(sock)
        except EntranceError as exc:
            self._fail(exc)
            return
        if complete:
            then = self._then
            self._leave()
            then(self, None)
        elif events & ENDS:
            self._fail(EntranceError("the peer closed the connection"))

    def _looked(self, sock: socket.socket) -> bool:
        """Whether all is there."""
        try:
            data = sock.recv(MAX_CLIENT_HELLO, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError as exc:
            raise EntranceError(os.strerror(exc.errno or 0)) from None
        if not data:
            raise EntranceError("the peer closed the connection")
        if self._wants_header:
            try:
                self.header = proxy_protocol.parse(data)
            except proxy_protocol.ProxyProtocolError as exc:
                raise EntranceError(str(exc)) from None
            if self.header is None:
                return False
            self._wants_header = False
            sock.recv(self.header.size)
            if self._wants_hello:
                return self._looked(sock)
        if self._wants_hello:
            try:
                self.hello = parse_client_hello(data)
            except ClientHelloError as exc:
                # Not for libssl, which might understand what we do not, and shake hands although nothing was chosen.
                raise EntranceError(str(exc), exc.alert) from None
            if self.hello is None:
                return False
        return True

    def _overdue(self) -> None:
        self._timer = None
        self._fail(EntranceError("what comes before the handshake has not come in time"))

    def _fail(self, error: EntranceError) -> None:
        then = self._then
        self._leave()
        self.refuse(error.alert)
        if then is not None:
            then(self, error)


def endpoints(header: Optional[proxy_protocol.Header]) -> tuple[Any, Any]:
    """Source and destination as `socket` has names; None where the connection's own count."""

    def name(end: Optional[proxy_protocol.Endpoint]) -> Any:
        if end is None:
            return None
        address, port = end
        if ":" in address:
            return address, port, 0, 0
        return (address, port) if address[:1].isdigit() else address

    return (None, None) if header is None else (name(header.source), name(header.destination))
