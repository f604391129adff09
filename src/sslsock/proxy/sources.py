"""Where clients come from: what is taken for one source, and how many connections each has.

An IPv4 address is a source. Of an IPv6 address it is the first 64 bits: who gets one address gets a whole such network (RFC
6177; RFC 4291, 2.5.1), and could otherwise come from a new source each time.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Hashable

__all__ = ["SourceLimit", "Sources", "source_of"]

NETWORK_SIZE = 8  # bytes of an IPv6 address
MAPPED = bytes(10) + b"\xff\xff"  # IPv4 addresses as IPv6 sockets show them: RFC 4291, 2.5.5.2


def source_of(host: str) -> Hashable:
    """The source that an address, as text, belongs to. What is no IP address is a source of its own."""
    if ":" not in host:
        return host
    try:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):  # ValueError: a path that is no UTF-8 (proxy_protocol)
        return host
    if packed.startswith(MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[len(MAPPED) :])
    return packed[:NETWORK_SIZE]


class SourceLimit(Exception):
    """A source has too many connections. The text is for the log."""


class Sources:
    """How many connections each source has in the whole process, and how many it may have.

    limit: 0 for no bound; then nothing is counted. From any thread.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._counts: dict[Hashable, int] = {}

    def enter(self, host: str) -> Hashable:
        """Count a connection from `host`; "" is nobody's, as the socket without a path that a PROXY header may tell of. Returns
        what `leave` is to be told: None if nothing was counted.

        SourceLimit: the source has as many as it may have."""
        limit = self.limit
        if not limit or not host:
            return None
        source = source_of(host)
        with self._lock:
            count = self._counts.get(source, 0)
            if count >= limit:
                raise SourceLimit(f"its source has {count} connections already, and the limit is {limit}")
            self._counts[source] = count + 1
        return source

    def leave(self, source: Hashable) -> None:
        """A connection that was counted has ended."""
        if source is None:
            return
        with self._lock:
            count = self._counts[source] - 1
            if count:
                self._counts[source] = count
            else:
                del self._counts[source]
