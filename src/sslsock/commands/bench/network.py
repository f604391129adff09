"""Client and server over the loopback, both by the same library, in two processes.

Inside the timer: the work of connections that stand already. Rates are limited by the slower end, so the
processor seconds, of both processes together, say more about a library. Outside: starting, connecting,
handshakes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from types import TracebackType
from typing import Callable, Optional

from ...core.issue import issue_pem
from ..common import CommandError
from .apps import ECHO_SIZE, Job
from .kinds import KINDS, run_client
from .measures import Measure, Sample, Settings, process_seconds

MANY = 32  # connections at once
RATE = 256 << 20  # bytes a second that decide how much a bulk measure moves


def package_environment() -> dict[str, str]:
    """For a process in which the package is to be the same as here, wherever it was imported from."""
    root = str(Path(__file__).resolve().parents[3])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}


class Servers:
    """The server processes, each started when it is first asked for. A context manager: none outlives it."""

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self.certificate, self.key, self.authority = issue_pem()
        identity = {"certificate": self.certificate.decode("ascii"), "key": self.key.decode("ascii"), "suite": suite}
        self._identity = json.dumps(identity).encode("ascii") + b"\n"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        exc: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        for process in self._processes.values():
            process.kill()
            process.communicate()

    def port(self, kind: str) -> int:
        if kind not in self._ports:
            self._start(kind)
        return self._ports[kind]

    def cpu(self, kind: str) -> float:
        """Processor seconds that the server of a kind has used so far."""
        return process_seconds(self._processes[kind].pid)

    def _start(self, kind: str) -> None:
        process = self._processes[kind] = subprocess.Popen(
            [sys.executable, "-m", "sslsock.commands.bench.server", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=package_environment(),
        )
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(self._identity)
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise CommandError(f"bench: the server of {kind} did not start")
        self._ports[kind] = int(line)


def run_job(servers: Servers, kind: str, make_job: Callable[[], Job]) -> Sample:
    port, job = servers.port(kind), make_job()
    begin = cpu = wall = used = 0.0

    def start() -> None:
        nonlocal begin, cpu
        cpu, begin = process_time() + servers.cpu(kind), perf_counter()
        job.begin()

    def note_end() -> None:
        nonlocal wall, used
        wall, used = perf_counter() - begin, process_time() + servers.cpu(kind) - cpu

    job.start = start
    job.note_end = note_end
    try:
        run_client(kind, servers.authority, servers.suite, port, job)
    except OSError as exc:
        raise CommandError(f"bench: {kind}: {exc}") from None
    units = job.units / (1 if job.kind == b"E" else 2**20)
    return Sample(units, wall, used, *job.agreed)


def make_measures(peers: list[str], settings: Settings, servers: Servers) -> list[Measure]:
    own = [kind for kind in KINDS if kind in peers]
    if not own:
        return []
    baseline = "asyncio"
    size = max(1 << 20, int(settings.seconds * RATE))
    measures = []
    for count in (1, MANY):
        measures.append(
            Measure(
                f"Echo of {ECHO_SIZE} bytes over the loopback, both ends",
                f"{count} connection{'s' if count > 1 else ''}",
                "round trips/s",
                "µs each",
                1e6,
                own,
                partial(run_job, servers, make_job=partial(Job, b"E", count, settings.seconds, 0)),
                baseline,
            )
        )
    for letter, title in ((b"U", "client to server"), (b"D", "server to client")):
        measures.append(
            Measure(
                "Bulk over the loopback, both ends",
                title,
                "MiB/s",
                "s per GiB",
                1024,
                own,
                partial(run_job, servers, make_job=partial(Job, letter, 1, 0, size)),
                baseline,
            )
        )
    return measures
