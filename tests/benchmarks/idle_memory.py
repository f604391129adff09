"""Memory that one idle TLS connection keeps in a server process.

The growth of the server's PSS (its memory, with what it shares divided among those who share it; no files) while
2,000 connections come, divided by their number. Each has done its handshake and sent the first byte of a request,
so that the way in has been used; the server's protocol keeps that byte and an object of its own, the same for
every peer. Not counted: the kernel's buffers, and what the first 50 connections have made the process keep
for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import Any

import harness
from harness import Report, Server

PEERS = tuple(harness.SERVERS)
FIRST = 50  # connections before the memory is looked at for the first time
LIMIT_KIB = 16.0


class Waiting(asyncio.Protocol):
    """Waits for the end of a request that never comes."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.head = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.head += data


def settled(server: Any) -> float:
    """PSS in KiB once it stays: the server has then come to its last connection."""
    before = server.pss()
    for _ in range(100):
        time.sleep(0.1)
        after = server.pss()
        if abs(after - before) < 4:
            return after
        before = after
    return before


def growth(server: Any, count: int) -> float:
    """KiB for each of `count` connections to `server`, which has a `port` and tells its `pss()`."""
    context = harness.client_context()
    with contextlib.ExitStack() as stack:
        before = 0.0
        for number in range(FIRST + count):
            if number == FIRST:
                before = settled(server)
            sock = stack.enter_context(harness.connect(server.port, context))
            sock.sendall(b"G")
        return (settled(server) - before) / count


def kib_per_connection(peer: str, count: int) -> float:
    with Server(peer) as server:
        return growth(server, count)


def main() -> int:
    parser = harness.arguments(__doc__ or "", rounds=3)
    harness.server_arguments(parser, PEERS)
    parser.add_argument("--connections", type=int, default=2000)
    options = harness.begin(parser)
    if options.serve:
        harness.serve(options.serve, Waiting)
        return 0
    report = Report("memory of idle connections", options)
    peers = harness.available_servers(options.peers, report)
    count = 20 if options.quick else options.connections
    count = min(count, harness.raise_descriptor_limit() - FIRST - 100)
    report.head()
    print(f"  {count} connections")
    measure = report.measure(
        "idle connection",
        "KiB",
        less=True,
        baseline="asyncio",
        limits={peer: LIMIT_KIB for peer in peers if peer.startswith("sslsock")},
    )
    for number in range(options.rounds):
        for peer in harness.rotated(peers, number):
            value = None
            with report.forgiving(peer):
                value = kib_per_connection(peer, count)
            measure.add(peer, value)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
