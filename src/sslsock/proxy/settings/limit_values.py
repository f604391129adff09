"""Of `builder`: how many connections, how fast, and for how long."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .model import Limits, ListenerSettings, Place, ProxySettings, Rate
from .table import Table, kind

__all__ = ["BOUNDS", "OF_LISTENERS", "limits_of", "own_limits", "require_alike", "without_effect"]

OF_LISTENERS = ("max-connections", "max-handshakes", "connection-rate", "handshake-rate")  # in all, and of one listener
OF_SOURCES = (
    *("max-connections-per-source", "max-handshakes-per-source", "connection-rate-per-source", "handshake-rate-per-source"),
    *("source-ipv4-prefix", "source-ipv6-prefix", "source-table-size"),
)
BOUNDS = (  # of all connections
    *(*OF_LISTENERS, *OF_SOURCES, "half-closed-timeout", "connection-lifetime"),
    *("keepalive", "handshake-timeout", "connect-timeout", "idle-timeout", "drain-timeout", "shutdown-delay"),
)

MOST_CONNECTIONS = 2**31 - 1
MOST_KEEPALIVE = 32767  # seconds: MAX_TCP_KEEPIDLE of Linux
MOST_SOURCES = 1 << 24  # in the table: 384 MiB a rate
MOST_BURST = 1_000_000

RATE = re.compile(r"([0-9]{1,9})(?:/([smh]))?(?: +burst=([0-9]{1,9}))?", re.ASCII)
UNITS = {None: 1, "s": 1, "m": 60, "h": 3600}  # seconds


def limits_of(top: Table) -> Limits:
    defaults = Limits()
    return Limits(
        max_connections=top.count("max-connections", 0, MOST_CONNECTIONS, defaults.max_connections),
        max_connections_per_source=top.count(
            "max-connections-per-source", 0, MOST_CONNECTIONS, defaults.max_connections_per_source
        ),
        handshake_timeout=top.seconds("handshake-timeout", defaults.handshake_timeout),
        connect_timeout=top.seconds("connect-timeout", defaults.connect_timeout),
        idle_timeout=top.seconds("idle-timeout", defaults.idle_timeout),
        drain_timeout=top.seconds("drain-timeout", defaults.drain_timeout),
        keepalive=top.count("keepalive", 0, MOST_KEEPALIVE, defaults.keepalive),
        shutdown_delay=top.seconds("shutdown-delay", defaults.shutdown_delay),
        max_handshakes=top.count("max-handshakes", 0, MOST_CONNECTIONS, defaults.max_handshakes),
        max_handshakes_per_source=top.count(
            "max-handshakes-per-source", 0, MOST_CONNECTIONS, defaults.max_handshakes_per_source
        ),
        connection_rate=rate(top, "connection-rate"),
        handshake_rate=rate(top, "handshake-rate"),
        connection_rate_per_source=rate(top, "connection-rate-per-source"),
        handshake_rate_per_source=rate(top, "handshake-rate-per-source"),
        source_ipv4_prefix=top.count("source-ipv4-prefix", 1, 32, defaults.source_ipv4_prefix),
        source_ipv6_prefix=top.count("source-ipv6-prefix", 1, 128, defaults.source_ipv6_prefix),
        source_table_size=top.count("source-table-size", 1, MOST_SOURCES, defaults.source_table_size),
        half_closed_timeout=top.seconds("half-closed-timeout", defaults.half_closed_timeout),
        connection_lifetime=top.seconds("connection-lifetime", defaults.connection_lifetime),
    )


def own_limits(table: Table) -> dict[str, Any]:
    """Those of one listener. On the command line there is one, and what is said there is said of all."""
    return {
        "max_connections": table.count("max-connections", 0, MOST_CONNECTIONS, 0),
        "max_handshakes": table.count("max-handshakes", 0, MOST_CONNECTIONS, 0),
        "connection_rate": rate(table, "connection-rate"),
        "handshake_rate": rate(table, "handshake-rate"),
    }


def require_alike(table: Table, settings: ListenerSettings, other: ListenerSettings) -> None:
    """Those of two listeners at port 0 that have the same name. What limits count goes by that name."""
    for key in OF_LISTENERS:
        field = key.replace("-", "_")
        if getattr(settings, field) != getattr(other, field):
            name = settings.listen
            table.fail(f"another listener is {name} too, and has another {key}: they are counted together", "listen")


def without_effect(settings: ProxySettings) -> Iterator[tuple[Place, str]]:
    """Limits that are good by themselves and, beside the others, never met: the place of each, and why."""
    places, limits = settings.places, settings.limits
    if limits.half_closed_timeout > limits.idle_timeout > 0:
        text = f"has no effect: idle-timeout ends such a connection after {limits.idle_timeout:g} seconds"
        yield places.of("half-closed-timeout"), text
    if not any(listener.listen.tls for listener in settings.listeners):
        for key in ("handshake-rate", "handshake-rate-per-source"):
            if getattr(limits, key.replace("-", "_"))[0]:
                yield places.of(key), "has no effect: no listener is tls"
    for number, listener in enumerate(settings.listeners):
        if listener.handshake_rate[0] and not listener.listen.tls:
            yield places.of("listener", number, "handshake-rate"), f"has no effect: {listener.listen} has no handshakes"
        for key in ("max-connections", "max-handshakes"):
            own, whole = (getattr(of, key.replace("-", "_")) for of in (listener, limits))
            if own > whole > 0:
                yield places.of("listener", number, key), f"has no effect: there are {whole} for all listeners"


def rate(table: Table, key: str) -> Rate:
    """How many may come in a time: 20, "20/s", "30/m burst=10"; without a burst, as many at once as in that time."""
    value = table.values.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        table.fail(f"a number or a string is needed, as in \"30/m\", not {kind(value)}", key)
    found = RATE.fullmatch(str(value).strip())
    if found is None:
        table.fail(f"{value!r} is no rate: a number, perhaps with /s, /m or /h, and a burst, as in 30/m burst=10", key)
    number, burst = int(found[1]), int(found[3] or found[1])
    if not number:
        if found[3]:
            table.fail(f"{value!r}: 0 is no limit, and has no burst", key)
        return 0, 1
    if not 1 <= burst <= MOST_BURST:
        if found[3]:
            table.fail(f"{value!r}: the burst is not between 1 and {MOST_BURST}", key)
        burst = MOST_BURST
    return UNITS[found[2]] * 10**9 // number, burst
