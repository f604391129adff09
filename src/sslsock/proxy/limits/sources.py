"""Where clients come from: what they are counted as, and why some are refused.

A source is a network: of IPv4 an address, of IPv6 the first 64 bits, for who gets one address gets a whole such network (RFC
6177; RFC 4291, 2.5.1), and could otherwise come from a new source each time. Other lengths can be set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import TYPE_CHECKING, Optional

from ...core.source_limits import ADMITTED, SourceLimits
from ..observability import record
from ..settings.model import Limits
from .networks import MAPPED, address_text, packed_address

if TYPE_CHECKING:
    from .shares import Shares

__all__ = ["Refused", "Sources", "source_of"]

NETWORK_SIZE = 8  # bytes of an IPv6 address

def source_of(host: str) -> Hashable:
    """The source that an address, as text, belongs to by default. What is no IP address is a source of its own."""
    address = packed_address(host)
    if address is None:
        return host
    return address_text(address) if address.startswith(MAPPED) else address[:NETWORK_SIZE]


class Refused(Exception):
    """A connection is not let in. reason: one of `record.REASONS`. The text is for the log."""

    def __init__(self, verdict: int) -> None:
        self.reason, what = record.VERDICTS[verdict]
        super().__init__(f"its source is not let in: {what}")


class Sources:
    """What each source has in the whole process, and what it may have. From any thread.

    shares: of the worker processes that count together. limits: the counts themselves, for a `Door`.
    """

    def __init__(self, settings: Limits, shares: Optional[Shares] = None) -> None:
        self.limits = SourceLimits(settings.source_table_size) if shares is None else shares.table
        self.follow(settings)

    def follow(self, settings: Limits) -> None:
        """Go by these from now on. `source_table_size` stays."""
        self.limits.follow(
            connections=settings.max_connections_per_source,
            handshakes=settings.max_handshakes_per_source,
            connection_rate=settings.connection_rate_per_source,
            handshake_rate=settings.handshake_rate_per_source,
            ipv4_bits=settings.source_ipv4_prefix,
            ipv6_bits=settings.source_ipv6_prefix,
        )

    def enter(self, host: str, shakes: bool) -> Optional[bytes]:
        """Count a connection from `host`, which a PROXY header has told; what is no IP address is a source of its own, "" is
        nobody's. Returns what `leave` is to be told: None where nothing was counted. Refused."""
        if not self.limits.active or not host:
            return None
        address = packed_address(host)
        other = address is None
        if address is None:
            address = hashlib.blake2b(host.encode("utf-8", "surrogateescape"), digest_size=16).digest()
        verdict, source = self.limits.enter(address, shakes, exact=other)
        if verdict != ADMITTED:
            raise Refused(verdict)
        return source

    def shake(self, source: Optional[bytes]) -> None:
        """A handshake is about to be made. Refused."""
        if source is not None:
            verdict = self.limits.shake(source)
            if verdict != ADMITTED:
                raise Refused(verdict)

    def settle(self, source: Optional[bytes]) -> None:
        if source is not None:
            self.limits.settle(source)

    def leave(self, source: Optional[bytes], shakes: bool) -> None:
        """A connection that was counted has ended; shakes: before its handshake was done."""
        if source is not None:
            self.limits.leave(source, shakes)
