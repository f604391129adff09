"""What it costs to refuse a connection before TLS, against accepting and closing it.

    python tests/benchmarks/refusals.py [--quick] [--rounds N] [--json FILE]

Connections wait in the queue of a listening socket; what is measured is the CPU time of the thread that takes them out (its
schedstat). The yardstick is C: accept4 with the peer's name and a reset (SO_LINGER, close), as a refusal is; beside it one
with a close alone, which leaves a connection in the kernel (FIN-WAIT). On loopback the client's side
of the end is in these figures.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Callable, Optional

import harness

from sslsock import EventLoop
from sslsock.core.door import Door
from sslsock.core.listener import Listener
from sslsock.core.source_limits import SourceLimits
from sslsock.proxy.limits.networks import make_list
from sslsock.proxy.sessions.attempt import reset

IN_C = "C: accept, reset"

YARDSTICK = r"""
#define _GNU_SOURCE
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

void drain(int fd, int count, int reset)
{
    struct linger now = {1, 0};

    while (count > 0) {
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;
        int connection = accept4(fd, (struct sockaddr *) &peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (connection < 0)
            return;
        if (reset)
            setsockopt(connection, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        close(connection);
        count--;
    }
}
"""


def yardstick() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "drain.c"), Path(folder, "drain.so")
        source.write_text(YARDSTICK)
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
        return ctypes.CDLL(str(library)).drain


def queued(count: int) -> tuple[socket.socket, list[socket.socket]]:
    """A listening socket with connections in its queue, which their clients have closed or not: they hear it later."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=count)
    listening.setblocking(False)
    return listening, [socket.create_connection(listening.getsockname()) for _ in range(count)]


class Taker:
    """Who gets what a listener lets in: it closes it, or resets it."""

    listener: Any = None
    count = 0

    def __init__(self, resets: bool) -> None:
        self.resets = resets

    def _on_pending(self) -> None:
        while (taken := self.listener.take()) is not None:
            if self.resets:
                reset(taken[0])
            else:
                os.close(taken[0])
            self.count += 1

    def _on_accept_error(self, errno: int) -> None:
        raise OSError(errno, os.strerror(errno))


def limited(loop: EventLoop, make: Callable[[], Optional[Door]], resets: bool = False) -> Callable[[socket.socket, int], int]:
    def drain(listening: socket.socket, count: int) -> int:
        taker, door = Taker(resets), make()
        taker.listener = Listener(loop, os.dup(listening.fileno()), taker, 1024, door)
        begin = time.thread_time_ns()
        while taker.count + (sum(one[1] for one in door.refused()) if door is not None else 0) < count:
            loop.dispatch(0)
        used = time.thread_time_ns() - begin
        taker.listener.close()
        return used

    return drain


def in_c(drain: Any, reset: bool) -> Callable[[socket.socket, int], int]:
    def work(listening: socket.socket, count: int) -> int:
        begin = time.thread_time_ns()
        drain(listening.fileno(), count, reset)
        return time.thread_time_ns() - begin

    return work


def by_list() -> Door:
    return Door(make_list([], [ip_network("127.0.0.0/8")], False))


def by_rate() -> Door:
    limits = SourceLimits()
    limits.follow(connection_rate=(3600 * 10**9, 1))
    return Door(None, limits)


def by_count() -> Door:
    limits = SourceLimits()
    limits.follow(connections=1)
    limits.enter(bytes(10) + b"\xff\xff" + socket.inet_aton("127.0.0.1"), False)
    return Door(None, limits)


def main() -> int:
    options = harness.begin(harness.arguments(__doc__ or "", rounds=25))
    report = harness.Report("a refused connection", options)
    loop = EventLoop.current()
    ways: dict[str, Callable[[socket.socket, int], int]] = {
        "refused by a list": limited(loop, by_list),
        "refused by a rate": limited(loop, by_rate),
        "refused by a number": limited(loop, by_count),
        "accepted, closed in Python": limited(loop, lambda: None),
        "accepted, reset in Python": limited(loop, lambda: None, resets=True),
    }
    baseline = "accepted, reset in Python"
    if shutil.which("cc") is None:
        report.leave_out(IN_C, "no C compiler")
    else:
        drain = yardstick()
        ways = {IN_C: in_c(drain, True), "C: accept, close": in_c(drain, False), **ways}
        baseline = IN_C
    report.head()
    measure = report.measure("a connection", "µs", less=True, baseline=baseline)
    count = 50 if options.quick else 800
    for number in range(options.rounds):
        for name in harness.rotated(list(ways), number):
            listening, clients = queued(count)
            with harness.no_collection():
                measure.add(name, ways[name](listening, count) / count / 1000)
            for client in clients:
                client.close()
            listening.close()
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
