"""A connection that is served while a flood of handshakes with RSA-4096 comes: with `handshake_threads` 0, 1 and 2.

One server of `sslsock.aio`. A flood process opens 16 connections at once, sends a ClientHello on each, waits for the
server's answer, and resets it; so the server signs all the time. Meanwhile this process sends requests of 1 KiB on a
connection of its own, one after another, and waits for each answer.

 - median, slowest of 100: how long an answer takes
 - handshakes: answers to ClientHellos a second
 - loop: CPU of the server's loop for each of those

Nothing is tied to a CPU: one thread and the loop need two.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import selectors
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import harness
from harness import FOLDER, Report, Server

from sslsock import aio
from sslsock import ssl as own_ssl

THREADS = (0, 1, 2)
AT_ONCE = 16
REQUEST = bytes(1024)


def make_certificate() -> None:
    """RSA-4096, whose signature is the dear one."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:4096", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-keyout", str(FOLDER / "rsa.key"), "-out", str(FOLDER / "rsa.pem")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def serve(threads: int) -> None:
    async def main() -> None:
        context = own_ssl.SSLContext(own_ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(FOLDER / "rsa.pem", FOLDER / "rsa.key")
        loop = asyncio.get_running_loop()
        server = await aio.create_server(loop, Echo, "127.0.0.1", 0, ssl=context, backlog=512, handshake_threads=threads)
        harness.announce(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    aio.run(main())


def flood(port: int) -> None:
    """Until it is killed. Writes how many answers there were, each time that it is asked by a line."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    hello = outgoing.read()
    waiting = selectors.DefaultSelector()
    waiting.register(sys.stdin, selectors.EVENT_READ)
    answers = 0

    def begin() -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(hello)
        waiting.register(sock, selectors.EVENT_READ)

    for _ in range(AT_ONCE):
        begin()
    while True:
        for key, _ in waiting.select():
            if key.fileobj is sys.stdin:
                if not sys.stdin.readline():
                    return
                print(answers, flush=True)
                continue
            waiting.unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr]
            answers += 1
            begin()


def loop_seconds(pid: int) -> float:
    """CPU of a process's first thread."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def client_of(port: int) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(FOLDER / "rsa.pem"))
    context.check_hostname = False
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(sock)


def ask(client: ssl.SSLSocket) -> float:
    """Milliseconds until the answer is there."""
    begun = time.perf_counter()
    client.sendall(REQUEST)
    left = len(REQUEST)
    while left:
        left -= len(client.recv(left))
    return (time.perf_counter() - begun) * 1000


def measured(threads: int, requests: int, seconds: float) -> tuple[float, float, float, float]:
    with Server(str(threads)) as server, client_of(server.port) as client:
        command = [sys.executable, sys.argv[0], "--flood", str(server.port)]
        flooding = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert flooding.stdin is not None
        assert flooding.stdout is not None

        def answers() -> int:
            flooding.stdin.write("\n")  # type: ignore[union-attr]
            flooding.stdin.flush()  # type: ignore[union-attr]
            return int(flooding.stdout.readline())  # type: ignore[union-attr]

        try:
            while answers() < AT_ONCE:
                time.sleep(0.01)
            count, spent, begun = answers(), loop_seconds(server.pid), time.perf_counter()
            times: list[float] = []
            while len(times) < requests or time.perf_counter() - begun < seconds:
                times.append(ask(client))
                time.sleep(0.002)
            took = time.perf_counter() - begun
            count, spent = answers() - count, loop_seconds(server.pid) - spent
        finally:
            flooding.kill()
            flooding.communicate()
    times.sort()
    slow = times[len(times) * 99 // 100]
    return statistics.median(times), slow, count / took, spent / max(count, 1) * 1e6


def main() -> int:
    parser = harness.arguments(__doc__ or "", rounds=3)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--flood", type=int, help=argparse.SUPPRESS)
    options = harness.begin(parser)
    if options.serve is not None:
        serve(options.serve)
        return 0
    if options.flood is not None:
        flood(options.flood)
        return 0
    make_certificate()
    report = Report("A flood of handshakes", options)
    report.head()
    report.note("the certificate here is RSA-4096")
    names = {threads: f"{threads} threads" for threads in THREADS}
    measures = [
        report.measure("answer, median", "ms", less=True, baseline=names[0]),
        report.measure("answer, slowest of 100", "ms", less=True, baseline=names[0]),
        report.measure("handshakes", "a second", less=False, baseline=names[0]),
        report.measure("loop's CPU for a handshake", "µs", less=True, baseline=names[0]),
    ]
    requests, seconds = (20, 0.0) if options.quick else (500, 5.0)
    for number in range(options.rounds):
        for threads in harness.rotated(THREADS, number):
            for measure, value in zip(measures, measured(threads, requests, seconds)):
                measure.add(names[threads], value)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
