"""What is known of one connection when it has ended: the material of a log line and of the metrics.

A plain object that the session fills in as it learns; nothing here formats, counts or decides.
"""

from __future__ import annotations

import time
from typing import Optional

from ...core import source_limits

__all__ = ["FAILURES", "REASONS", "REFUSALS", "VERDICTS", "ConnectionRecord"]

# Why a connection has ended. These words stand in logs and in metrics, so they do not change.
ENDED = "ended"  # both sides, in order
PROBE = "probe"  # connected and closed without a word, as load balancers look whether somebody listens
CLIENT_RESET = "client_reset"
BACKEND_RESET = "backend_reset"
TRUNCATED = "truncated"  # TLS without close_notify: data may be missing
IDLE_TIMEOUT = "idle_timeout"
HALF_CLOSED_TIMEOUT = "half_closed_timeout"  # silence after one side had ended
LIFETIME = "lifetime"  # --connection-lifetime
HANDSHAKE_FAILED = "handshake_failed"
HANDSHAKE_TIMEOUT = "handshake_timeout"
HANDSHAKE_EVICTED = "handshake_evicted"  # it gave way to others, for all places were taken
NO_CERTIFICATE = "no_certificate"  # the one for the name that was asked for has yet to be obtained
ACME_CHALLENGE = "acme_challenge"  # an authority has looked whether a name leads here, and got its answer
CLIENT_CERTIFICATE_REFUSED = "client_certificate_refused"
BACKEND_HANDSHAKE_FAILED = "backend_handshake_failed"
TLS_FAILED = "tls_failed"  # after the handshake: a record that does not decrypt, an alert
DENIED = "denied"  # --allow-source, --deny-source
SOURCE_LIMIT = "source_limit"  # --max-connections-per-source
SOURCE_HANDSHAKES = "source_handshakes"  # --max-handshakes-per-source
SOURCE_RATE = "source_rate"  # --connection-rate-per-source
SOURCE_HANDSHAKE_RATE = "source_handshake_rate"  # --handshake-rate-per-source
HANDSHAKE_RATE = "handshake_rate"  # --handshake-rate: its turn would come too late
NO_ROUTE = "no_route"  # the names and protocols that it asks for lead nowhere
NO_BACKEND = "no_backend"  # none could be connected to
CONNECT_TIMEOUT = "connect_timeout"
UNTRUSTED_PROXY = "untrusted_proxy"
BAD_PROXY_HEADER = "bad_proxy_header"
PROXY_HEADER_TIMEOUT = "proxy_header_timeout"
DRAINED = "drained"  # it was still there when --drain-timeout was over
ABORTED = "aborted"  # the proxy was told to end at once
INTERNAL_ERROR = "internal_error"
WORKER_DIED = "worker_died"  # a worker process of --processes; in metrics alone, for nobody is left to log it

REASONS = (
    ENDED,
    PROBE,
    CLIENT_RESET,
    BACKEND_RESET,
    TRUNCATED,
    IDLE_TIMEOUT,
    HALF_CLOSED_TIMEOUT,
    LIFETIME,
    HANDSHAKE_FAILED,
    HANDSHAKE_TIMEOUT,
    HANDSHAKE_EVICTED,
    NO_CERTIFICATE,
    ACME_CHALLENGE,
    CLIENT_CERTIFICATE_REFUSED,
    BACKEND_HANDSHAKE_FAILED,
    TLS_FAILED,
    DENIED,
    SOURCE_LIMIT,
    SOURCE_HANDSHAKES,
    SOURCE_RATE,
    SOURCE_HANDSHAKE_RATE,
    HANDSHAKE_RATE,
    NO_ROUTE,
    NO_BACKEND,
    CONNECT_TIMEOUT,
    UNTRUSTED_PROXY,
    BAD_PROXY_HEADER,
    PROXY_HEADER_TIMEOUT,
    DRAINED,
    ABORTED,
    INTERNAL_ERROR,
    WORKER_DIED,
)

# Somebody did not get what they came for. Clients that go as they please (many of them without close_notify, when they have
# what they wanted), and ends that were asked for, are none.
FAILURES = frozenset(REASONS) - {
    *(ENDED, PROBE, TRUNCATED, CLIENT_RESET, IDLE_TIMEOUT, HALF_CLOSED_TIMEOUT, LIFETIME, ACME_CHALLENGE, DRAINED, ABORTED),
}

# Not let in, by a list or a limit. Most of them are refused before there is a record.
REFUSALS = frozenset((DENIED, SOURCE_LIMIT, SOURCE_HANDSHAKES, SOURCE_RATE, SOURCE_HANDSHAKE_RATE, HANDSHAKE_RATE))

# What the log and the metrics call a refusal, and the limit that it goes by.
VERDICTS = {
    source_limits.DENIED: (DENIED, "the lists of sources"),
    source_limits.CONNECTIONS: (SOURCE_LIMIT, "max-connections-per-source"),
    source_limits.HANDSHAKES: (SOURCE_HANDSHAKES, "max-handshakes-per-source"),
    source_limits.CONNECTION_RATE: (SOURCE_RATE, "connection-rate-per-source"),
    source_limits.HANDSHAKE_RATE: (SOURCE_HANDSHAKE_RATE, "handshake-rate-per-source"),
    source_limits.NO_MEMORY: (INTERNAL_ERROR, "memory"),
}

# How the handshake with the client went (`handshake_result`); None: there was none to make.
HANDSHAKE_OK = "ok"
HANDSHAKE_BROKEN = "failed"
HANDSHAKE_LATE = "timeout"
HANDSHAKE_REFUSED = "refused"  # its certificate


class ConnectionRecord:
    """One connection.

    listener: the listening address as the settings have it. peer, local: (address, port); the client's own where a PROXY header
    told it. time: seconds since the epoch, when it was accepted. server_name: SNI. next_protocol: ALPN. protocol: as "TLSv1.3".
    cipher, group: OpenSSL's names. client_name: of the client's certificate. unique_id: that PROXY headers name.
    backend: the address that was connected to.
    bytes_forward: from client to back end. seconds: from accept to end; handshake_seconds, connect_seconds: None where there
    was none. reason: one of `REASONS`. error: more about it, in words. handshake_result: "ok", "failed", "timeout", "refused"
    or None.

    counted_forward, counted_back, handshake_counted belong to `metrics.Counters`: what it has taken note of.
    """

    __slots__ = (
        "backend",
        "bytes_back",
        "bytes_forward",
        "cipher",
        "client_name",
        "connect_seconds",
        "counted_back",
        "counted_forward",
        "error",
        "group",
        "handshake_counted",
        "handshake_result",
        "handshake_seconds",
        "ja4",
        "listener",
        "local",
        "next_protocol",
        "peer",
        "protocol",
        "reason",
        "resumed",
        "seconds",
        "server_name",
        "time",
        "unique_id",
    )

    def __init__(self, listener: str, peer: tuple[str, int], local: tuple[str, int]) -> None:
        self.listener = listener
        self.peer = peer
        self.local = local
        self.time = time.time()
        self.server_name: Optional[str] = None
        self.next_protocol: Optional[str] = None
        self.protocol: Optional[str] = None
        self.cipher: Optional[str] = None
        self.group: Optional[str] = None
        self.resumed = False
        self.client_name: Optional[str] = None
        self.ja4: Optional[str] = None
        self.unique_id: Optional[str] = None
        self.backend: Optional[str] = None
        self.bytes_forward = 0
        self.bytes_back = 0
        self.seconds = 0.0
        self.handshake_seconds: Optional[float] = None
        self.connect_seconds: Optional[float] = None
        self.reason = ENDED
        self.error: Optional[str] = None
        self.handshake_result: Optional[str] = None
        self.counted_forward = 0
        self.counted_back = 0
        self.handshake_counted = False
