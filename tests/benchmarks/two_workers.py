"""Two workers of the proxy against one: threads (`--threads 2`) and processes (`--processes 2`). New connections: TCP, full
handshake, one GET of 1 KiB, close.

The load needs CPU too, and two cores have no room for it and two workers: what the client sees says nothing. So the load's
part is taken out. While as many loads as there are workers, which go before the proxy wherever both want a core, keep 64
connections each in the works, each thread of the proxy is on a core (its CPU time), in the queue for one
(/proc/PID/task/TID/schedstat: the others' fault), waiting in epoll (the load's fault) or waiting for a lock, which is the GIL.
Only the first and the last remain where cores and load are plenty:

    speed-up = 2 x (CPU per connection with one worker / with two) x CPU / (CPU + time lost to the GIL)

One worker has a load on its core, as each of two has: who shares a core with a load finds less in its caches, and pays for it.

The time waiting for the GIL is a share of samples: every 2 ms a thread's /proc/PID/task/TID/wchan says whether it
sleeps in a futex. Who holds the GIL meanwhile is itself kept from its core by the load, which on free cores it
would not be; so only the part CPU / (CPU + queue) of that time is counted as lost. That is an estimate: the
note beside it gives the figure without it, which is a lower bound, and the share in which threads had nothing to
do, without which they would meet more often. With few percent idle both are to be trusted, with many neither.

All proxies run at the same time and are measured in turn, a slice each; a round's figures are medians of its slices.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import harness
from application import Load
from harness import CPUS, SERVER_CPU

from proxy import SSLSOCK, Proxy, back_end, tree

SAMPLE_SECONDS = 0.002
LEAST = {"threads": 1.8, "processes": 1.9}
SLICES = 8


class Threads:
    """What those threads of some processes do that ever work, between `with` and its end. Seconds, all threads together.

    running, queued: on a core, in the queue for one. locked: asleep for a lock. wall: all of their time.
    """

    def __init__(self, pids: list[int]) -> None:
        self._tasks = [task for pid in pids for task in tasks(pid)]
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample)
        self._samples = 0
        self._futexes = dict.fromkeys(self._tasks, 0)

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self._samples += 1
            for task in self._tasks:
                self._futexes[task] += b"futex" in (task / "wchan").read_bytes()

    def _times(self) -> dict[Path, tuple[float, float]]:
        found = {}
        for task in self._tasks:
            ran, queued, _ = (task / "schedstat").read_text().split()
            found[task] = int(ran) / 1e9, int(queued) / 1e9
        return found

    def __enter__(self) -> Threads:
        self._before, self._begin = self._times(), time.monotonic()
        self._sampler.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._over.set()
        self._sampler.join()
        wall, after = time.monotonic() - self._begin, self._times()
        self.running = self.queued = self.locked = self.wall = 0.0
        for task, (ran, queued) in after.items():
            ran, queued = ran - self._before[task][0], queued - self._before[task][1]
            if ran < wall / 100:  # no worker: it waits for its work, by a lock
                continue
            self.running += ran
            self.queued += queued
            self.locked += wall * self._futexes[task] / max(1, self._samples)
            self.wall += wall


def tasks(pid: int) -> list[Path]:
    """The threads of a process."""
    return list(Path(f"/proc/{pid}/task").iterdir())


class Slices:
    """What was seen of a proxy with some workers."""

    def __init__(self, proxy: Proxy, workers: int, count: int) -> None:
        self.proxy, self.workers = proxy, workers
        self.load = Load("connection", count, at_once=64, cpus={SERVER_CPU} if workers == 1 else set(CPUS))
        self.costs: list[float] = []  # CPU seconds of a connection
        self.seen: list[Threads] = []
        self.load.run(proxy.port, max(1, count // 4))  # warms up
        # The load goes first wherever both want a core, so that the workers always have something to do.
        for task in (task for pid in tree(proxy.pid) for task in tasks(pid)):
            with contextlib.suppress(ProcessLookupError):  # a thread of the start that has ended
                os.setpriority(os.PRIO_PROCESS, int(task.name), 10)

    def take(self) -> None:
        before = self.proxy.cpu_seconds()
        with Threads(tree(self.proxy.pid)) as seen, ThreadPoolExecutor(self.workers) as pool:
            done = sum(pool.map(lambda _: self.load.run(self.proxy.port, self.load.count), range(self.workers)))
        if done != self.workers * self.load.count:
            raise SystemExit(f"{done} of {self.workers * self.load.count} connections were answered")
        self.costs.append((self.proxy.cpu_seconds() - before) / done)
        self.seen.append(seen)

    @property
    def cost(self) -> float:
        return statistics.median(self.costs)

    def speed_up(self, one: Slices, kind: str) -> tuple[float, str]:
        """Against one worker, and where it comes from."""
        running, queued, locked, wall = (
            sum(getattr(seen, name) for seen in self.seen) for name in ("running", "queued", "locked", "wall")
        )
        gain = 2 * one.cost / self.cost
        lost = locked * running / (running + queued)
        idle = max(0.0, wall - running - queued - locked)
        text = (
            f"CPU per connection {one.cost * 1e6:.0f} us with one worker, {self.cost * 1e6:.0f} us with two {kind}; of their"
            f" time these were {running / wall:.0%} running, {queued / wall:.0%} in the queue for a core,"
            f" {locked / wall:.1%} waiting for the GIL, {idle / wall:.0%} idle;"
            f" speed-up at least {gain * running / (running + locked):.2f}"
        )
        return gain * running / (running + lost), text


def main() -> int:
    options = harness.begin(harness.arguments(__doc__ or "", rounds=5))
    report = harness.Report("two workers of the proxy against one", options)
    report.head()
    if len(CPUS) < 2:
        report.note("there is one CPU only")
        return report.end()
    count = 50 if options.quick else 800
    measures = {
        kind: report.measure(f"two {kind} against one", "times the connections", less=False, limits={SSLSOCK: least})
        for kind, least in LEAST.items()
    }
    for _ in range(options.rounds):
        with back_end(report) as target, contextlib.ExitStack() as stack:
            one = Slices(stack.enter_context(Proxy(SSLSOCK, target)), 1, count)
            two = {kind: Slices(stack.enter_context(Proxy(SSLSOCK, target, 2, workers=kind)), 2, count) for kind in LEAST}
            for _ in range(1 if options.quick else SLICES):
                for slices in (one, *two.values()):
                    slices.take()
            for kind, slices in two.items():
                value, text = slices.speed_up(one, kind)
                measures[kind].add(SSLSOCK, value)
                report.note(text)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
