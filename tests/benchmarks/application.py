"""A small HTTPS application on each peer: CPU per request, per connection, and per GiB sent and received.

The application is one asyncio.Protocol: GET /small gives 1 KiB, GET /BYTES that many bytes in writes of
256 KiB, paused as the transport asks for, POST the length of the body. Every peer runs the same, sslsock by
an adapter (SocketTransport).

Measured is the CPU time, user and system, of the server process while a load of known size runs, divided by
that size. Not measured: the load, which runs on another CPU, and the server's start. The handshakes of the
connections that a load uses are inside: 64 with 40,000 requests, 1,000 with 200,000, 4 with what is sent and received.

 - request: GET /small over 64 connections that stay; over 1,000; over one, each when the answer to the last has come
 - connection: TCP, full handshake, one GET /small, close; 16 at a time
 - sent: GET of 64 MiB over 4 connections; received: POST of 8 MiB over 4 connections

The load is h2load (HTTP/1.1) and ab where they are installed; where not, a simple one in Python does it, and
the head says so.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import ssl
import subprocess
import sys
from typing import Any, Optional

import harness
from harness import FOLDER, LOAD_CPU, Report, Server

PEERS = tuple(harness.SERVERS)
BASELINE = "aiofastnet-uvloop"
KEPT = 64  # connections of the usual request load
MANY = 1_000  # and of the one with many
AT_ONCE = 16
LOAD_SECONDS = 120.0
GIB = 1 << 30


def response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


SMALL = response(b"x" * 1024)
PIECE = b"y" * (256 * 1024)
CONTENT_LENGTH = re.compile(rb"content-length: *(\d+)", re.I)


class Application(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: Any = None
        self.head = b""  # of a request, as far as it has come
        self.body_size = self.body_left = 0
        self.to_send = 0
        self.may_write = True

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.body_left:
            data = self.take_body(data)
        self.head = self.head + data if self.head else data
        while True:
            head, end, rest = self.head.partition(b"\r\n\r\n")
            if not end:
                return
            self.head = rest
            if head.startswith(b"GET /small "):
                self.transport.write(SMALL)
                if head.startswith(b"GET /small HTTP/1.0"):
                    self.transport.close()
            elif head.startswith(b"POST "):
                found = CONTENT_LENGTH.search(head)
                self.body_size = self.body_left = int(found[1]) if found else 0
                self.head = self.take_body(rest)
            else:
                self.to_send = int(head[5 : head.index(b" ", 5)])
                self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.to_send)
                self.send_pieces()

    def take_body(self, data: bytes) -> bytes:
        """Returns what comes after the body."""
        size = min(len(data), self.body_left)
        self.body_left -= size
        if not self.body_left:
            self.transport.write(response(b"%d" % self.body_size))
        return data[size:]

    def send_pieces(self) -> None:
        while self.to_send and self.may_write:
            piece = PIECE if self.to_send >= len(PIECE) else PIECE[: self.to_send]
            self.to_send -= len(piece)
            self.transport.write(piece)

    def pause_writing(self) -> None:
        self.may_write = False

    def resume_writing(self) -> None:
        self.may_write = True
        self.send_pieces()


# Loads. Each gives the number of requests that were answered as they should be.


class Load:
    """count: how many requests. size: bytes per request, for those that send and receive much. at_once: connections of the
    kind that makes new ones; kept: of the others. cpus: where it runs; None: on the last."""

    def __init__(
        self,
        kind: str,
        count: int,
        size: int = 0,
        at_once: int = AT_ONCE,
        kept: Optional[int] = None,
        cpus: Optional[set[int]] = None,
    ) -> None:
        self.cpus = cpus or {LOAD_CPU}
        self.kind, self.count, self.size, self.at_once = kind, count, size, at_once
        self.kept = kept or (KEPT if kind == "request" else 4)
        self.tool = "ab" if kind == "connection" else "h2load"
        if shutil.which(self.tool) is None:
            self.tool = ""

    def command(self, port: int, count: int) -> list[str]:
        url = f"https://127.0.0.1:{port}"
        if not self.tool:
            return [sys.executable, __file__, "--load", self.kind, str(port), str(count), str(self.size), str(self.kept)]
        if self.kind == "connection":
            return ["ab", "-q", "-n", str(count), "-c", str(min(self.at_once, count)), f"{url}/small"]
        command = ["h2load", "--h1", "-c", str(min(self.kept, count)), "-n", str(count)]
        if self.kind == "request":
            return [*command, f"{url}/small"]
        if self.kind == "sent":
            return [*command, f"{url}/{self.size}"]
        body = FOLDER / f"body-{self.size}"
        if not body.exists():
            body.write_bytes(b"z" * self.size)
        return [*command, "-d", str(body), f"{url}/post"]

    def run(self, port: int, count: int) -> int:
        try:
            done = subprocess.run(
                self.command(port, count),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                timeout=LOAD_SECONDS,
                preexec_fn=lambda: os.sched_setaffinity(0, self.cpus),
            )
        except subprocess.TimeoutExpired:
            return 0
        found = re.search(r"(\d+) 2xx" if self.tool == "h2load" else r"Complete requests: +(\d+)", done.stdout)
        failed = re.search(r"(?:Failed|Non-2xx).*: +(\d+)", done.stdout)
        return int(found[1]) - (int(failed[1]) if failed else 0) if found else 0

    def cpu_seconds(self, server: Any, count: Optional[int] = None) -> Optional[float]:
        """The server's CPU time for one request; None when some were not answered."""
        count = self.count if count is None else count
        spent = self._spent(server, count)
        return None if spent is None else spent / count

    def cpu_seconds_of_requests(self, server: Any) -> Optional[float]:
        """The same without what the connections cost: a run with one request on each is taken off."""
        spent, begun = self._spent(server, self.count), self._spent(server, self.kept)
        return None if spent is None or begun is None else (spent - begun) / (self.count - self.kept)

    def _spent(self, server: Any, count: int) -> Optional[float]:
        before = server.cpu_seconds()
        answered = self.run(server.port, count)
        spent: float = server.cpu_seconds() - before
        if answered == count:
            return spent
        log = server.log.read_text()[-2000:]
        print(f"{server.peer}, {self.kind}: {answered} of {count} requests were answered\n{log}", file=sys.stderr)
        return None


def load_in_python(kind: str, port: int, count: int, size: int, kept: int) -> None:
    """For machines without the tools; prints as ab does."""
    context = harness.client_context()
    answered = 0
    if kind == "connection":
        for _ in range(count):
            with harness.connect(port, context) as sock:
                sock.sendall(b"GET /small HTTP/1.0\r\n\r\n")
                answered += read_response(sock)
                while sock.recv(4096):
                    pass
    else:
        socks = [harness.connect(port, context) for _ in range(min(kept, count))]
        head, body = b"GET /small HTTP/1.1\r\n\r\n", b""
        if kind == "sent":
            head = b"GET /%d HTTP/1.1\r\n\r\n" % size
        elif kind == "received":
            head, body = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size, b"z" * size
        for start in range(0, count, len(socks)):
            busy = socks[: count - start]
            for sock in busy:
                sock.sendall(head)
                sock.sendall(body)
            for sock in busy:
                answered += read_response(sock)
        for sock in socks:
            sock.close()
    print(f"Complete requests: {answered}")


def read_response(sock: ssl.SSLSocket) -> bool:
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(4096)
        if not more:
            return False
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    found = CONTENT_LENGTH.search(head)
    left = int(found[1]) - len(body) if found else -1
    room = bytearray(1 << 18)
    while left > 0:
        got = sock.recv_into(room)
        if not got:
            return False
        left -= got
    return head.startswith(b"HTTP/1.1 200 ") and left == 0


def main() -> int:
    parser = harness.arguments(__doc__ or "", rounds=5)
    harness.server_arguments(parser, PEERS)
    parser.add_argument("--only", default="", metavar="A,B", help="the rows whose names begin so")
    parser.add_argument("--load", nargs=5, help=argparse.SUPPRESS)
    options = harness.begin(parser)
    if options.serve:
        harness.serve(options.serve, Application)
        return 0
    if options.load:
        kind, *numbers = options.load
        load_in_python(kind, *map(int, numbers))
        return 0
    report = Report("HTTPS application", options)
    peers = harness.available_servers(options.peers, report)
    quick = options.quick
    # load, name, unit, scale, most of the baseline's: for the sockets of the family, and for `sslsock-aio`
    rows = [
        (Load("request", 256 if quick else 40_000), "request of 1 KiB", "us of CPU", 1e6, 0.85, 0.95),
        (Load("request", 256 if quick else 200_000, kept=MANY), "request, 1,000 connections", "us of CPU", 1e6, 0.85, 0.90),
        (Load("request", 64 if quick else 10_000, kept=1), "request, one connection", "us of CPU", 1e6, 0.95, 0.95),
        (Load("connection", 16 if quick else 2_000), "connection with one request", "us of CPU", 1e6, 0.75, 0.80),
        (Load("sent", 2 if quick else 16, (1 if quick else 64) << 20), "GiB sent", "s of CPU", 0.0, 0.95, 1.00),
        (Load("received", 2 if quick else 128, (1 if quick else 8) << 20), "GiB received", "s of CPU", 0.0, 0.95, 0.90),
    ]
    rows = [row for row in rows if any(row[1].startswith(name) for name in options.only.split(","))]
    for tool, what in (("ab", "connection"), ("h2load", "request")):
        if shutil.which(tool) is None:
            report.leave_out(tool, f"not installed; a load in Python takes its place ({what})")
    report.head()
    measures = {}
    baseline = BASELINE if BASELINE in peers else peers[0]
    for load, name, unit, scale, of_sockets, of_transports in rows:
        targets = {"sslsock": of_sockets, "sslsock-asyncio": of_sockets, "sslsock-aio": of_transports}
        targets = targets if baseline == BASELINE else {}
        measures[load] = report.measure(name, unit, less=True, baseline=baseline, targets=targets), scale or GIB / load.size
    for number in range(options.rounds):
        servers = []
        try:
            for peer in peers:
                with report.forgiving(peer):
                    servers.append(Server(peer))
            for load, (measure, scale) in measures.items():
                for server in harness.rotated(servers, number):
                    load.cpu_seconds(server, max(1, load.count // 20))  # warms up
                    cost = load.cpu_seconds(server)
                    measure.add(server.peer, None if cost is None else cost * scale)
        finally:
            for server in servers:
                server.stop()
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
