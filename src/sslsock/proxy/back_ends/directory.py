"""DNS as the directory of back ends: what a name stands for, for how long, and which of it is preferred.

A and AAAA records are kept for as long as they say (TTL). SRV records (RFC 2782) name hosts, each with a port, a priority and a
weight. One `Directory` serves all workers, so they all see the same, and each record is asked for once.

The package dnspython does the asking: getaddrinfo tells no TTL and knows no SRV.
"""

from __future__ import annotations

import importlib.util
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Optional, Union

from ...core.event_loop import EventLoop
from ...sockets.resolver import Address, Answer, Lookup, addresses_of

__all__ = ["KEPT", "Directory", "DirectoryError", "Entry", "Listing", "listed", "require_package"]

KEPT = 30.0  # seconds that addresses are kept which come without a TTL
SHORTEST, LONGEST = 1.0, 3600.0  # bounds of a TTL, in seconds
ANSWER_SECONDS = 5.0  # for all servers together
PACKET = 1232  # bytes of an answer by UDP that pass everywhere; larger ones come by TCP (DNS flag day 2020)
MOST_RECORDS = 256  # of a service
CACHED = 10_000  # names


class DirectoryError(OSError):
    """Why a name stands for nothing, in words."""

    def __str__(self) -> str:
        return str(self.args[0])


class Entry(NamedTuple):
    """One address. rank: lower ones are preferred, from 0 on; the others are spares. weight: its share beside those of its
    rank."""

    family: int
    sockaddr: Any
    rank: int = 0
    weight: int = 1


class Listing(NamedTuple):
    """What a name stands for. ttl: seconds until it is to be asked for again."""

    entries: tuple[Entry, ...]
    ttl: float = KEPT


def listed(addresses: Iterable[Address]) -> Listing:
    """What getaddrinfo tells."""
    return Listing(tuple(Entry(*address) for address in addresses))


def require_package() -> None:
    """DirectoryError: dnspython is missing."""
    if importlib.util.find_spec("dns") is None:
        raise DirectoryError("it needs the package dnspython: pip install 'sslsock[dns]'")


class Directory:
    """For any number of threads.

    servers: (address, port) of each name server that is asked; (): those of /etc/resolv.conf, with its search list; None: the
    same for services only, and all other names are the system's to find. DirectoryError: the package is missing, or no server
    is known.
    """

    def __init__(self, servers: Optional[tuple[tuple[str, int], ...]] = None) -> None:
        require_package()
        import dns.exception
        import dns.nameserver
        import dns.rdtypes.ANY.CNAME  # these would be loaded late, from files that the user may not see
        import dns.rdtypes.IN.A
        import dns.rdtypes.IN.AAAA
        import dns.rdtypes.IN.SRV
        import dns.resolver

        class Cache(dns.resolver.LRUCache):
            """A name that is not there may be there at any time: that is not kept."""

            def put(self, key: Any, value: Any) -> None:
                if value.rrset is not None:
                    super().put(key, value)

        self._dns: Any = dns.resolver
        self._absent: Any = (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer)  # a name, or its address, is not there
        self._dns_error: Any = dns.exception.DNSException
        self._by_system = servers is None
        self._searches = not servers
        try:
            self._resolver: Any = dns.resolver.Resolver(configure=not servers)
        except dns.resolver.NoResolverConfiguration as exc:
            raise DirectoryError(f"/etc/resolv.conf names no server: {exc}") from None
        if servers:
            self._resolver.nameservers = [dns.nameserver.Do53Nameserver(*server) for server in servers]
        self._resolver.lifetime = ANSWER_SECONDS
        self._resolver.cache = Cache(CACHED)
        self._resolver.use_edns(0, 0, PACKET)

    def look_up(
        self, loop: EventLoop, name: str, port: int, callback: Callable[[Union[Answer, Listing]], object]
    ) -> Lookup:
        """Find what a name stands for; the answer comes on the loop. port: 0 for a service, whose records have the ports."""
        return Lookup(loop, name, port, callback, self.find)

    def find(self, name: str, port: int) -> Listing:
        """The same at once: it blocks. OSError."""
        try:
            if not port:
                return self._service(name)
            if self._by_system or f".{name}".lower().rstrip(".").endswith(".localhost"):  # RFC 6761, 6.3
                return listed(addresses_of(name, port))
            found, ttl = self._hosts(name, self._searches)
        except self._dns_error as exc:
            raise DirectoryError(self._in_words(exc)) from None
        entries = [Entry(family, sockaddr_of(address, port, family)) for family, address in sorted(found)]
        return Listing(tuple(entries), ttl)

    def _ask(self, name: str, kind: str, search: bool) -> tuple[Any, float]:
        answer = self._resolver.resolve(name, kind, search=search)
        return answer, min(max(answer.expiration - time.time(), SHORTEST), LONGEST)

    def _hosts(self, name: str, search: bool) -> tuple[list[tuple[int, str]], float]:
        """The addresses of a name, and their TTL. Without records of one family, those of the other are all there are."""
        found: list[tuple[int, str]] = []
        least = LONGEST
        problem: Optional[Exception] = None
        for kind, family in (("A", socket.AF_INET), ("AAAA", socket.AF_INET6)):
            try:
                records, ttl = self._ask(name, kind, search)
            except (self._dns.NoAnswer, self._dns.NoNameservers) as exc:
                problem = exc
            except (self._dns.NXDOMAIN, self._dns.LifetimeTimeout):
                if not found:
                    raise
                # Asked for AAAA, some servers deny a name that they know, or say nothing (RFC 4074, 4).
            else:
                found += [(family, record.address) for record in records]
                least = min(least, ttl)
        if not found and problem is not None:
            raise problem
        return found, least

    def _service(self, name: str) -> Listing:
        records, least = self._ask(name, "SRV", self._searches)
        if len(records) > MOST_RECORDS:
            raise DirectoryError(f"more than {MOST_RECORDS} SRV records")
        targets = [
            (record.priority, record.weight, record.target.to_text(omit_final_dot=True), record.port)
            for record in records
            if record.port and record.target.labels != (b"",)
        ]
        if not targets:
            raise DirectoryError("its SRV record says that the service is not offered")  # RFC 2782, "Target"
        ranks = {priority: rank for rank, priority in enumerate(sorted({target[0] for target in targets}))}
        entries: dict[tuple[int, Any], Entry] = {}
        problem: Optional[Exception] = None
        for priority, weight, host, port in sorted(targets):
            alike = [target[1] for target in targets if target[0] == priority]
            try:
                found, ttl = self._hosts(host, False)
            except self._absent as exc:
                problem = exc
                continue
            least = min(least, ttl)
            for family, address in sorted(found):
                sockaddr = sockaddr_of(address, port, family)
                share = weight or 1  # RFC 2782: of 0, a very small chance
                entries.setdefault((family, sockaddr), Entry(family, sockaddr, ranks[priority], share if any(alike) else 1))
        if not entries and problem is not None:
            raise problem
        return Listing(tuple(entries.values()), least)

    def _in_words(self, exc: Exception) -> str:
        if isinstance(exc, self._dns.NXDOMAIN):
            return "there is no such name"
        if isinstance(exc, self._dns.NoAnswer):
            return "no address is known for the name"
        if isinstance(exc, self._dns.LifetimeTimeout):
            return f"no name server has answered within {ANSWER_SECONDS:g} s"
        if isinstance(exc, self._dns.NoNameservers):
            return "the name servers refuse to answer, or fail"
        return str(exc) or type(exc).__name__


def sockaddr_of(address: str, port: int, family: int) -> Any:
    """As `socket.connect` takes it."""
    return (address, port) if family == socket.AF_INET else (address, port, 0, 0)
