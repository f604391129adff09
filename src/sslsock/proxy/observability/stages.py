"""The stages of a session, and what the log and the metrics call what ends it in each: one table, whoever is told of it.

Channels, dials, relays and deadlines each have their own words for what has happened; here these are kinds, the same for all.
"""

from __future__ import annotations

import errno
from typing import Optional

from ...core import channel, relay
from . import record

__all__ = ["handshake_result", "kind_of_errno", "kind_of_failure", "reason_of", "reason_of_relay_end"]

HEADER, HELLO, HANDSHAKE, DIALING, GREETING, RELAYING, OVER = range(7)  # see `session`; GREETING: TLS of an `attempt`

# What can happen to one side of a session.
RESET, NETWORK, TIMED_OUT, CLOSED, TRUNCATED, TLS, CERTIFICATE, LATE, RESOURCE, ABORTED = range(10)
"""RESET: the peer broke it off. NETWORK: the way there did. TIMED_OUT: the system has given up (ETIMEDOUT). CLOSED: an end in
order. TRUNCATED: TLS ended without close_notify. TLS: a handshake or a record is wrong, or an alert came. CERTIFICATE: the
peer's is refused, or missing. LATE: a deadline of the proxy is over. RESOURCE: the system has no descriptors or memory.
ABORTED: by the proxy itself."""

FAILURES = {
    channel.FAILURE_RESET: RESET,
    channel.FAILURE_NETWORK: NETWORK,
    channel.FAILURE_TIMEOUT: TIMED_OUT,
    channel.FAILURE_HANDSHAKE: TLS,
    channel.FAILURE_HANDSHAKE_TIMEOUT: LATE,
    channel.FAILURE_HANDSHAKE_CLOSED: CLOSED,
    channel.FAILURE_TLS: TLS,
    channel.FAILURE_RESOURCE: RESOURCE,
}

RELAY_ENDS = {
    relay.RELAY_ENDED: CLOSED,
    relay.RELAY_TRUNCATED: TRUNCATED,
    relay.RELAY_RESET: RESET,
    relay.RELAY_NETWORK: NETWORK,
    relay.RELAY_TLS: TLS,
    relay.RELAY_RESOURCE: RESOURCE,
    relay.RELAY_IDLE: LATE,
    relay.RELAY_ABORTED: ABORTED,
}

# What a dial may fail of that is not the back end's fault: other connections would fail just so.
OUR_TROUBLE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

# By stage: what each kind is called there. What is missing cannot happen, or is no end yet: the relay passes on what a client
# that has ended its output early gets to hear.
GONE = {RESET: record.CLIENT_RESET, NETWORK: record.CLIENT_RESET, TIMED_OUT: record.CLIENT_RESET}

CLIENT = {
    HEADER: {**GONE, CLOSED: record.BAD_PROXY_HEADER, LATE: record.PROXY_HEADER_TIMEOUT},
    HELLO: {**GONE, CLOSED: record.HANDSHAKE_FAILED, TLS: record.HANDSHAKE_FAILED, LATE: record.HANDSHAKE_TIMEOUT},
    HANDSHAKE: {
        **GONE,
        CLOSED: record.HANDSHAKE_FAILED,
        TLS: record.HANDSHAKE_FAILED,
        CERTIFICATE: record.CLIENT_CERTIFICATE_REFUSED,
        LATE: record.HANDSHAKE_TIMEOUT,
    },
    DIALING: {**GONE, TLS: record.TLS_FAILED},
}

BACK_END = {
    DIALING: {
        RESET: record.NO_BACKEND,
        NETWORK: record.NO_BACKEND,
        TIMED_OUT: record.CONNECT_TIMEOUT,
        LATE: record.CONNECT_TIMEOUT,
    },
    GREETING: {
        RESET: record.BACKEND_HANDSHAKE_FAILED,
        NETWORK: record.BACKEND_HANDSHAKE_FAILED,
        CLOSED: record.BACKEND_HANDSHAKE_FAILED,
        TLS: record.BACKEND_HANDSHAKE_FAILED,
        TIMED_OUT: record.CONNECT_TIMEOUT,
        LATE: record.CONNECT_TIMEOUT,
    },
}

# Of both sides.
RELAYED = {
    CLOSED: record.ENDED,
    TRUNCATED: record.TRUNCATED,
    TLS: record.TLS_FAILED,
    LATE: record.IDLE_TIMEOUT,
    ABORTED: record.ABORTED,
}
CLIENT[RELAYING] = {**RELAYED, **GONE}
BACK_END[RELAYING] = {**RELAYED, **dict.fromkeys((RESET, NETWORK, TIMED_OUT), record.BACKEND_RESET)}
CLIENT_ENDS, BACK_END_ENDS = (
    {end: side[RELAYING].get(kind, record.INTERNAL_ERROR) for end, kind in RELAY_ENDS.items()} for side in (CLIENT, BACK_END)
)

HANDSHAKES = {
    **dict.fromkeys((RESET, NETWORK, TIMED_OUT, CLOSED, TLS), record.HANDSHAKE_BROKEN),
    CERTIFICATE: record.HANDSHAKE_REFUSED,
    LATE: record.HANDSHAKE_LATE,
}


def kind_of_failure(failure: int) -> int:
    """failure: of a channel, as `_on_failed` is told."""
    return FAILURES[failure]


def kind_of_errno(number: int) -> int:
    """number: why a connection could not be made."""
    if number in OUR_TROUBLE:
        return RESOURCE
    return TIMED_OUT if number == errno.ETIMEDOUT else NETWORK


def reason_of(stage: int, kind: int, of_client: bool = True, silent: bool = False) -> str:
    """What it is called. of_client: whose side it happened on, for what has a side. silent: nothing of what the stage waits for
    has come yet."""
    if silent and stage < HANDSHAKE and kind in (RESET, NETWORK, TIMED_OUT, CLOSED):
        return record.PROBE
    return (CLIENT if of_client else BACK_END).get(stage, {}).get(kind, record.INTERNAL_ERROR)


def reason_of_relay_end(end: int, of_client: bool) -> str:
    """The same for `RELAYING`. end: as `_on_relay_closed` is told."""
    return (CLIENT_ENDS if of_client else BACK_END_ENDS)[end]


def handshake_result(stage: int, kind: int, silent: bool = False) -> Optional[str]:
    """How the client's handshake went that has ended so; None: there was none."""
    if stage not in (HELLO, HANDSHAKE) or (silent and kind != LATE):
        return None
    return HANDSHAKES.get(kind)
