"""Loops of `sslsock.aio` in threads: how much more two do than one.

In each thread a loop, with a client and a server of its own that are joined by a socket pair with TLS: the client sends
1 KiB and waits until the server has sent it back, again and again. Inside the timer is that alone. With a GIL two
threads do less than one, for they take it from each other.

Needs as many free cores as threads; on a machine with other work `chrt -r 1`, as root, gives it them. Where an interpreter
cannot have trustme (no wheel of cryptography for it), another one makes the certificates: SSLSOCK_BENCHMARK_FOLDER names a
folder with server.pem, server.key and ca.pem.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from typing import Any

import harness
from harness import Report

import sslsock.aio
import sslsock.ssl

SIZE = 1024
THREADS = {"one loop": 1, "two loops": 2}


class Server(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Client(asyncio.Protocol):
    def __init__(self, count: int) -> None:
        self.left, self.missing = count, 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self) -> None:
        self.missing = SIZE
        self.transport.write(bytes(SIZE))

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing == 0:
            self.left -= 1
            if self.left:
                self.ask()
            else:
                self.done.set_result(None)

    def connection_lost(self, exc: Any) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server has ended"))


async def exchange(count: int, ready: threading.Barrier) -> None:
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()
    serving = loop.create_task(loop.connect_accepted_socket(Server, one, ssl=harness.server_context(sslsock.ssl)))
    trusting = sslsock.ssl.create_default_context(cafile=str(harness.FOLDER / "ca.pem"))
    transport, client = await loop.create_connection(
        lambda: Client(count), sock=other, ssl=trusting, server_hostname="localhost"
    )
    await serving
    ready.wait()
    client.ask()
    await client.done
    transport.close()


def seconds(threads: int, count: int) -> float:
    """For `count` requests in each of so many loops."""
    ready = threading.Barrier(threads + 1)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            sslsock.aio.run(exchange(count, ready))
        except BaseException as exc:
            failed.append(exc)
            ready.abort()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    ready.wait()
    begun = time.perf_counter()
    for worker in workers:
        worker.join()
    if failed:
        raise failed[0]
    return time.perf_counter() - begun


def main() -> int:
    options = harness.begin(harness.arguments(__doc__ or "", rounds=7))
    report = Report("loops in threads", options)
    free = not getattr(sys, "_is_gil_enabled", lambda: True)()
    report.note(f"this interpreter has {'no ' if free else 'a '}GIL")
    report.head()
    count = 200 if options.quick else 40_000
    measure = report.measure(
        "1 KiB requests", "a second", less=False, baseline="one loop", targets={"two loops": 1.8} if free else {}
    )
    for number in range(options.rounds):
        for name in harness.rotated(list(THREADS), number):
            with harness.no_collection():
                measure.add(name, THREADS[name] * count / seconds(THREADS[name], count))
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
