"""A server on asyncio's streams, on each peer: CPU per request, and the memory of an idle connection.

The application is a coroutine for each connection: `readuntil` the end of a head, `write` 1 KiB, `drain`. Its streams are what
`asyncio.start_server` makes; peers of `sslsock.aio` turn them into their own.

 - request: over 64 connections that stay, the CPU time of the server process, user and system
 - idle connection: the growth of the server's memory, as in idle_memory.py

Not measured: the load, which runs on another CPU (h2load, or a simple one in Python), and the server's start. The handshakes
of the 64 connections are inside.
"""

from __future__ import annotations

import asyncio
import sys

import harness
from application import SMALL, Load
from harness import Report, Server
from idle_memory import FIRST, kib_per_connection

PEERS = ("sslsock-aio", "sslsock-aio-uvloop", "asyncio", "uvloop", "aiofastnet-uvloop")
BASELINE = "aiofastnet-uvloop"
TARGET = 0.80
LIMIT_KIB = 22.0


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(SMALL)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def streams() -> asyncio.StreamReaderProtocol:
    """As asyncio.start_server makes them."""
    loop = asyncio.get_running_loop()
    return asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), answer, loop=loop)


def main() -> int:
    parser = harness.arguments(__doc__ or "", rounds=5)
    harness.server_arguments(parser, PEERS)
    parser.add_argument("--connections", type=int, default=2000, help="that are idle; 0: leave that out")
    options = harness.begin(parser)
    if options.serve:
        harness.serve(options.serve, streams)
        return 0
    report = Report("server on streams", options)
    peers = harness.available_servers(options.peers, report)
    load = Load("request", 256 if options.quick else 40_000)
    if not load.tool:
        report.leave_out("h2load", "not installed; a load in Python takes its place")
    count = min(20 if options.quick else options.connections, harness.raise_descriptor_limit() - FIRST - 100)
    report.head()
    baseline = BASELINE if BASELINE in peers else peers[0]
    targets = {"sslsock-aio": TARGET} if baseline == BASELINE else {}
    request = report.measure("request of 1 KiB", "us of CPU", less=True, baseline=baseline, targets=targets)
    limits = {peer: LIMIT_KIB for peer in peers if peer.startswith("sslsock")}
    memory = report.measure("idle connection", "KiB", less=True, baseline=baseline, limits=limits) if count > 0 else None
    for number in range(options.rounds):
        servers = []
        try:
            for peer in peers:
                with report.forgiving(peer):
                    servers.append(Server(peer))
            for server in harness.rotated(servers, number):
                load.cpu_seconds(server, max(1, load.count // 20))  # warms up
                cost = load.cpu_seconds(server)
                request.add(server.peer, None if cost is None else cost * 1e6)
        finally:
            for server in servers:
                server.stop()
        if memory is not None:
            for peer in harness.rotated(peers, number):
                value = None
                with report.forgiving(peer):
                    value = kib_per_connection(peer, count)
                memory.add(peer, value)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
