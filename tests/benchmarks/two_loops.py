"""Loops in threads: how much more two do than one, with `sslsock.aio` and with others.

In each thread a loop, with a client and a server of its own that are joined by a socket pair with TLS: the client sends
1 KiB and waits until the server has sent it back, again and again. Inside the timer is that alone. With a GIL two
threads do less than one, for they take it from each other.

Needs as many free cores as threads; on a machine with other work `chrt -r 1`, as root, gives it them. Where an interpreter
cannot have trustme (no wheel of cryptography for it), another one makes the certificates: SSLSOCK_BENCHMARK_FOLDER names a
folder with server.pem, server.key and ca.pem.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import sys
import threading
import time
from typing import Any

import harness
from harness import Report

SIZE = 1024
THREADS = {"one loop": 1, "two loops": 2}
# Peer: the modules it needs, and whose contexts it has.
PEERS = {
    "sslsock": (("sslsock.aio", "sslsock.ssl"), "sslsock.ssl"),
    "asyncio": ((), "ssl"),
    "uvloop": (("uvloop",), "ssl"),
    "aiofastnet-asyncio": (("aiofastnet",), "ssl"),
    "aiofastnet-uvloop": (("aiofastnet", "uvloop"), "ssl"),
}


def loop_of(peer: str) -> asyncio.AbstractEventLoop:
    name, _, host = peer.partition("-")
    if name == "aiofastnet":
        import aiofastnet

        return aiofastnet.loop_factory(importlib.import_module(host).new_event_loop)()
    module = importlib.import_module("sslsock.aio" if name == "sslsock" else name)
    loop: asyncio.AbstractEventLoop = module.new_event_loop()
    return loop


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


async def exchange(peer: str, count: int, ready: threading.Barrier) -> None:
    module = importlib.import_module(PEERS[peer][1])
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()
    serving = loop.create_task(loop.connect_accepted_socket(Server, one, ssl=harness.server_context(module)))
    trusting = module.create_default_context(cafile=str(harness.FOLDER / "ca.pem"))
    transport, client = await loop.create_connection(
        lambda: Client(count), sock=other, ssl=trusting, server_hostname="localhost"
    )
    await serving
    ready.wait()
    client.ask()
    await client.done
    transport.close()


def seconds(peer: str, threads: int, count: int) -> float:
    """For `count` requests in each of so many loops."""
    begun: list[float] = []
    ready = threading.Barrier(threads, lambda: begun.append(time.perf_counter()))
    failed: list[BaseException] = []

    def work() -> None:
        loop = loop_of(peer)
        try:
            loop.run_until_complete(exchange(peer, count, ready))
        except BaseException as exc:
            failed.append(exc)
            ready.abort()
        finally:
            loop.close()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        raise failed[0]
    return time.perf_counter() - begun[0]


def main() -> int:
    parser = harness.arguments(__doc__ or "", rounds=7)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["sslsock"], help="default sslsock")
    options = harness.begin(parser)
    report = Report("loops in threads", options)
    free = not getattr(sys, "_is_gil_enabled", lambda: True)()
    report.note(f"this interpreter has {'no ' if free else 'a '}GIL")
    measures = {}
    for peer in options.peers:
        missing = harness.installed(PEERS[peer][0])
        if missing:
            report.leave_out(peer, f"no {missing}")
            continue
        targets = {"two loops": 1.8} if free and peer == "sslsock" else {}
        measures[peer] = report.measure(f"{peer}: 1 KiB requests", "a second", less=False, baseline="one loop", targets=targets)
    report.head()
    count = 200 if options.quick else 40_000
    for number in range(options.rounds):
        for peer, measure in measures.items():
            for name in harness.rotated(list(THREADS), number):
                with harness.no_collection():
                    measure.add(name, THREADS[name] * count / seconds(peer, THREADS[name], count))
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
