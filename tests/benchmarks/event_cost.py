"""CPU per event of an active connection, beside few and many idle ones: it should not depend on them.

An echo server of each peer, four times: with 10, 100, 1,000 and 5,000 TLS connections that have done their
handshake and say nothing, and 8 that are active. On these, in turns: 64 bytes go out on all eight, then the
echoes are read. Measured is the CPU time, user and system, of the server process, divided by the number of
echoes. The four servers live side by side and are measured one after the other in each round; who is not
measured waits, which costs nothing. Not measured: connecting, the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
from typing import Any

import harness
from harness import LOAD_CPU, Report, Server

PEERS = ("sslsock", "sslsock-asyncio", "sslsock-uvloop", "aiofastnet-uvloop")
IDLE = (10, 100, 1000, 5000)
ACTIVE = 8
FLAT = 1.05  # as "flat" is understood: that much more than beside 10
MESSAGE = b"m" * 64


class Echo(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def echo(active: list[ssl.SSLSocket], turns: int) -> None:
    for _ in range(turns):
        for sock in active:
            sock.sendall(MESSAGE)
        for sock in active:
            left = len(MESSAGE)
            while left:
                data = sock.recv(left)
                if not data:
                    raise ConnectionError("the server has closed an active connection")
                left -= len(data)


def beside(count: int) -> str:
    return f"beside {count:,} idle"


def measure_peer(report: Report, peer: str, numbers: list[int], turns: int) -> None:
    measure = report.measure(
        f"echo, {peer}",
        "us of CPU",
        less=True,
        baseline=beside(numbers[0]),
        targets={beside(number): FLAT for number in numbers[1:]} if peer.startswith("sslsock") else {},
    )
    context = harness.client_context()
    with contextlib.ExitStack() as stack:
        cases = []
        for number in numbers:
            server = stack.enter_context(Server(peer))
            idle = [stack.enter_context(harness.connect(server.port, context)) for _ in range(number)]
            active = [stack.enter_context(harness.connect(server.port, context)) for _ in range(ACTIVE)]
            echo([*idle, *active], 1)  # so that all have been served once
            echo(active, turns // 4)
            cases.append((number, server, active))
        for count in range(report.options.rounds):
            for number, server, active in harness.rotated(cases, count):
                begin = server.cpu_seconds()
                echo(active, turns)
                measure.add(beside(number), (server.cpu_seconds() - begin) / (turns * ACTIVE) * 1e6)


def main() -> int:
    parser = harness.arguments(__doc__ or "", rounds=15)
    harness.server_arguments(parser, PEERS)
    options = harness.begin(parser)
    if options.serve:
        harness.serve(options.serve, Echo)
        return 0
    os.sched_setaffinity(0, {LOAD_CPU})
    report = Report("cost of an event", options)
    peers = harness.available_servers(options.peers, report)
    numbers = [10, 50] if options.quick else list(IDLE)
    room = harness.raise_descriptor_limit() - 200
    while sum(numbers) > room:
        report.leave_out(f"{numbers.pop():,} idle connections", "the limit of open descriptors is too low")
    report.head()
    for peer in peers:
        with report.forgiving(peer):
            measure_peer(report, peer, numbers, 10 if options.quick else 1000)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
