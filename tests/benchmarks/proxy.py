"""Proxies that end TLS before a plain back end: the CPU of bytes, requests and connections, memory, start.

Every proxy has one thread (or worker process; stunnel has a thread a connection), joins to the same back end
and passes bytes: `mode tcp` of HAProxy, the stream module of nginx, hitch, stunnel, protocols on asyncio, uvloop
and aiofastnet, and proxy_limit.c, which shows what libssl and the kernel alone cost. Measured is the CPU time, user and system,
of the proxy with its child processes while a load of known size runs, divided by that size. Not measured: load
and back end, which run on the last CPU while the proxy has the first. All proxies of a round run at the same time and serve in
turn, a slice of the load each, for what else the machine does changes within a round; a figure is the median of its slices.

 - request: GET of 1 KiB over 64 connections that stay, and over 1,000; what the connections themselves cost is taken off
 - GiB: GET of 64 MiB over 4 connections
 - connection: TCP, full handshake, one GET of 1 KiB, close; 16 at a time
 - idle pair: growth of PSS without files over 2,000 connections, each with a back end's that says nothing, after the handshake
   and one byte; the kernel's buffers are not in it
 - start: from the start of the process until a client has done its first handshake, which is a little more than
   until the first accept; the modules have been compiled by a start before
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, Optional

import harness
from application import GIB, Application, Load
from harness import BACKLOG, CPUS, FOLDER, LIMIT, LOAD_CPU, SERVER_CPU, Report
from idle_memory import FIRST, growth

SSLSOCK, HAPROXY = "sslsock", "haproxy"
PROGRAMS = {HAPROXY: "haproxy", "nginx stream": "nginx", "hitch": "hitch", "stunnel": "stunnel4"}
IN_PYTHON = {
    "asyncio": (),
    "uvloop": ("uvloop",),
    "aiofastnet-asyncio": ("aiofastnet",),
    "aiofastnet-uvloop": ("aiofastnet", "uvloop"),
}
PEERS = (SSLSOCK, LIMIT, *PROGRAMS, *IN_PYTHON)
STREAM_MODULES = ("/usr/lib/nginx/modules/ngx_stream_module.so", "/usr/lib64/nginx/modules/ngx_stream_module.so")
PATIENCE = 20.0
SLICES = 8  # of a load, in a round
LIMIT_KIB = 20.0
LIMIT_START_MS = 300.0


# The back ends


@contextlib.contextmanager
def back_end(report: Report, tls: bool = False) -> Iterator[int]:
    """An HTTP server for /small and /BYTES, plain or (nginx only) with TLS; its port."""
    nginx = shutil.which("nginx")
    port = free_port()
    if nginx:
        folder = FOLDER / "www"
        folder.mkdir(exist_ok=True)
        (folder / "small").write_bytes(b"x" * 1024)
        for size in (1 << 20, 64 << 20):
            (folder / str(size)).write_bytes(b"y" * size)
        folder.chmod(0o755)
        FOLDER.chmod(0o711)  # nginx's worker is another user
        configuration = FOLDER / f"back-{port}.conf"
        pair = f"ssl_certificate {FOLDER}/server.pem; ssl_certificate_key {FOLDER}/server.key; ssl_protocols TLSv1.3;"
        flag, pair = (" ssl", pair) if tls else ("", "")
        configuration.write_text(
            f"daemon off; worker_processes 1; pid {FOLDER}/back-{port}.pid; error_log {FOLDER}/back.log;"
            " events { worker_connections 8192; } http { access_log off; sendfile on; keepalive_requests 100000000;"
            f" server {{ listen 127.0.0.1:{port} backlog={BACKLOG}{flag}; {pair} root {folder}; }} }}"
        )
        command = [nginx, "-c", str(configuration)]
    else:
        report.leave_out("nginx as back end", "not installed; one in Python takes its place")
        command = [sys.executable, __file__, "--serve", "back end", str(port)]
    process = started(command, "back end", {LOAD_CPU})
    try:
        wait_for(port, process)
        yield port
    finally:
        end(process)


@contextlib.contextmanager
def silent_back_end() -> Iterator[int]:
    """Accepts, and says nothing; its port."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=BACKLOG))

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    stack.enter_context(listener.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
            thread.join()


# The proxies


class Passing(asyncio.Protocol):
    """One side of a proxy as it is written for asyncio."""

    def __init__(self, other: Optional[Passing] = None) -> None:
        self.other = other
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self.other.transport.write(data)

    def connection_lost(self, error: Optional[Exception]) -> None:
        other, self.other = self.other, None
        if other is not None and other.transport is not None:
            other.transport.close()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.transport.resume_reading()


class Accepted(Passing):
    """The side of the client."""

    target = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.early: list[bytes] = []  # and not pause_reading(): aiofastnet forgets what it has then
        self.task = asyncio.get_running_loop().create_task(self.join())

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(bytes(data))
        else:
            self.other.transport.write(data)

    async def join(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            _, self.other = await loop.create_connection(lambda: Passing(self), "127.0.0.1", self.target)
        except OSError:
            self.transport.abort()
        else:
            if self.transport.is_closing():  # it has gone meanwhile
                self.other.transport.close()
            else:
                self.other.transport.writelines(self.early)


def serve(peer: str, port: int, target: int) -> None:
    """Be a process in Python, until killed: a proxy, or the back end."""
    Accepted.target = target
    make_loop: Callable[[], Any] = asyncio.new_event_loop
    if peer.endswith("uvloop"):
        import uvloop

        make_loop = uvloop.new_event_loop
    if peer.startswith("aiofastnet"):
        import aiofastnet

        make_loop = aiofastnet.loop_factory(make_loop)
    tls = None if peer == "back end" else harness.server_context()
    protocol = Application if tls is None else Accepted

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port, ssl=tls, backlog=BACKLOG)
        await server.serve_forever()

    make_loop().run_until_complete(main())


def command_of(peer: str, port: int, target: int, threads: int, tls: bool = False, workers: str = "threads") -> list[str]:
    """What starts a proxy on a port, before the back end on another, which speaks TLS or not. workers: of ours."""
    certificate, key, both = FOLDER / "server.pem", FOLDER / "server.key", FOLDER / "both.pem"
    if not both.exists():
        both.write_bytes(key.read_bytes() + certificate.read_bytes())
    if peer == SSLSOCK:
        addresses = ["--listen", f"tls://127.0.0.1:{port}", "--to", f"{'tls' if tls else 'tcp'}://127.0.0.1:{target}"]
        if tls:
            addresses += ["--to-ca", str(FOLDER / "ca.pem"), "--to-server-name", "localhost"]
        pair = ["--cert", str(certificate), "--key", str(key)]
        return [sys.executable, "-m", "sslsock", "proxy", *addresses, *pair, f"--{workers}", str(threads)]
    if peer == LIMIT:
        return [str(FOLDER / "proxy_limit"), str(certificate), str(key), str(port), str(target)]
    if peer in IN_PYTHON:
        return [sys.executable, __file__, "--serve", peer, str(port), str(target)]
    program = shutil.which(PROGRAMS[peer]) or PROGRAMS[peer]
    configuration = FOLDER / f"{PROGRAMS[peer]}-{port}.conf"
    if peer == HAPROXY:
        configuration.write_text(
            f"global\n nbthread {threads}\n maxconn 8000\n"
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
            f"frontend f\n bind 127.0.0.1:{port} ssl crt {both}\n default_backend b\n"
            f"backend b\n server s 127.0.0.1:{target}{' ssl verify none' if tls else ''}\n"
        )
        return [program, "-db", "-f", str(configuration)]
    if peer == "nginx stream":
        module = next(path for path in STREAM_MODULES if os.path.exists(path))
        configuration.write_text(
            f"load_module {module}; daemon off; worker_processes 1; pid {FOLDER}/stream-{port}.pid;"
            f" error_log {FOLDER}/stream.log; events {{ worker_connections 8192; }}"
            f" stream {{ server {{ listen 127.0.0.1:{port} ssl backlog={BACKLOG}; ssl_certificate {certificate};"
            f" ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3; proxy_pass 127.0.0.1:{target}; }} }}"
        )
        return [program, "-c", str(configuration)]
    if peer == "stunnel":
        configuration.write_text(
            "foreground = yes\npid =\nsyslog = no\ndebug = 3\n"
            f"[s]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{target}\ncert = {both}\n"
        )
        return [program, str(configuration)]
    ends = [f"--frontend=[127.0.0.1]:{port}", f"--backend=[127.0.0.1]:{target}"]
    return [program, *ends, "--workers=1", "--quiet", *(["--user=nobody"] if os.getuid() == 0 else []), str(both)]


def available(peers: list[str], report: Report) -> list[str]:
    found = []
    for peer in peers:
        missing = None
        if peer == LIMIT:
            if harness.compile_limit("proxy_limit", report) is None:
                continue
        elif peer in PROGRAMS:
            if shutil.which(PROGRAMS[peer]) is None:
                missing = "not installed"
            elif peer == "nginx stream" and not any(map(os.path.exists, STREAM_MODULES)):
                missing = "its stream module is not installed"
        else:
            lacking = harness.installed(IN_PYTHON.get(peer, ("sslsock",)))
            missing = lacking and f"no {lacking}"
        if missing is None:
            found.append(peer)
            if peer in PROGRAMS:
                report.add_version(peer, version_of(PROGRAMS[peer]))
        else:
            report.leave_out(peer, missing)
    return found


def version_of(program: str) -> str:
    """What it says of itself."""
    option = {"hitch": "--version", "stunnel4": "-version"}.get(program, "-v")
    said = subprocess.run([program, option], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False).stdout
    lines = said.decode(errors="replace").splitlines()
    return next((line for line in lines if re.search(r"\d\.\d", line)), "of unknown version")


class Proxy:
    """The process of a proxy, with its children. A context manager; once it is made, a client can connect.

    options: further ones of its command line.
    """

    def __init__(
        self,
        peer: str,
        target: int,
        threads: int = 1,
        tls: bool = False,
        workers: str = "threads",
        options: Sequence[str] = (),
    ) -> None:
        self.peer = peer
        self.port = free_port()
        self.log = FOLDER / f"{peer}.log"
        cpus = {SERVER_CPU} if threads == 1 else set(CPUS)
        command = [*command_of(peer, self.port, target, threads, tls, workers), *options]
        self._process = started(command, peer, cpus)
        self.pid = self._process.pid
        try:
            wait_for(self.port, self._process)
        except RuntimeError as exc:
            self.stop()
            raise RuntimeError(f"{exc}\n{self.log.read_text()[-2000:]}") from None

    def cpu_seconds(self) -> float:
        return sum(map(harness.cpu_seconds, tree(self.pid)))

    def pss(self) -> float:
        return sum(map(harness.pss, tree(self.pid)))

    def stop(self) -> None:
        end(self._process)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *details: object) -> None:
        self.stop()


def started(command: list[str], name: str, cpus: set[int]) -> subprocess.Popen[bytes]:
    # Modules are compiled once, as they are where a package is installed.
    environment = dict(os.environ, PYTHONPYCACHEPREFIX=str(FOLDER / "compiled"))
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def prepare() -> None:
        os.sched_setaffinity(0, cpus)
        harness.raise_descriptor_limit()

    with (FOLDER / f"{name}.log").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, preexec_fn=prepare, start_new_session=True)


def end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)  # its children too; it leads its session
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
            return


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until a connection is taken. RuntimeError when that does not come."""
    for _ in attempts(process):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE):
            return


def attempts(process: subprocess.Popen[bytes]) -> Iterator[None]:
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit and process.poll() is None:
        yield
        time.sleep(0.001)
    raise RuntimeError("it does not start" if process.poll() is None else f"it has ended with status {process.poll()}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    return found


# Measures


def start_cost(peer: str, target: int) -> tuple[float, float]:
    """Milliseconds until the first handshake was done, and the proxy's CPU milliseconds until then."""
    context = harness.client_context()
    begin = time.monotonic()
    port = free_port()
    process = started(command_of(peer, port, target, 1), peer, {SERVER_CPU})
    try:
        for _ in attempts(process):
            with contextlib.suppress(OSError), harness.connect(port, context):
                took = time.monotonic() - begin
                return took * 1e3, sum(map(harness.cpu_seconds, tree(process.pid))) * 1e3
        raise AssertionError  # attempts() raises
    finally:
        end(process)


def kib_per_pair(peer: str, count: int) -> float:
    with silent_back_end() as target, Proxy(peer, target) as proxy:
        return growth(proxy, count)


def checked_peers(text: str) -> list[str]:
    peers = text.split(",")
    for peer in peers:
        if peer not in PEERS:
            raise argparse.ArgumentTypeError(f"{peer!r} is none of {', '.join(PEERS)}")
    return peers


# Those that the project compares itself with, and the most that it wants of the ratio: per GiB, request, connection.
TARGETS = {
    LIMIT: (1.00, 1.05, 1.05),
    HAPROXY: (0.75, 0.95, 0.95),
    "uvloop": (0.85, 0.85, 0.85),
    "aiofastnet-uvloop": (0.85, 0.85, 0.85),
}


class Cost:
    """What a load costs each proxy: a table of all, with ratios to the C yardstick, and one of ratios to each other peer that
    there is a target for. slices: in how many the load comes."""

    def __init__(
        self, report: Report, name: str, unit: str, scale: float, peers: list[str], number: int, slices: int
    ) -> None:
        self.scale, self.slices = scale, slices
        baselines = [peer for peer in TARGETS if peer in peers]
        self._all = self._table(report, name, unit, baselines[0] if baselines else None, number)
        self._others = [self._table(report, f"{name}, against {peer}", unit, peer, number) for peer in baselines[1:]]

    @staticmethod
    def _table(report: Report, name: str, unit: str, baseline: Optional[str], number: int) -> harness.Measure:
        targets = {SSLSOCK: TARGETS[baseline][number]} if baseline else {}
        return report.measure(name, unit, less=True, baseline=baseline, targets=targets)

    def add(self, peer: str, cost: Optional[float]) -> None:
        """cost: seconds for one; None: it has failed."""
        value = None if cost is None else cost * self.scale
        self._all.add(peer, value)
        for measure in self._others:
            if peer in (SSLSOCK, measure.baseline):
                measure.add(peer, value)


def main() -> int:
    parser = harness.arguments(__doc__ or "", rounds=5)
    parser.add_argument("--peers", type=checked_peers, default=list(PEERS), help=f"of {', '.join(PEERS)}; default all")
    parser.add_argument("--connections", type=int, default=2000, help="idle ones (%(default)d)")
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    options = harness.begin(parser)
    if options.serve:
        peer, port, *target = options.serve
        serve(peer, int(port), int(target[0]) if target else 0)
        return 0
    report = Report("proxies that end TLS", options)
    peers = available(options.peers, report)
    if not peers:
        parser.error("none of the peers is here")
    slices = 1 if options.quick else SLICES
    bulk = Load("sent", 2, 1 << 20) if options.quick else Load("sent", 16, 64 << 20)
    small = Load("request", 4_096 if options.quick else 10_000)
    many = Load("request", 4_096 if options.quick else 40_000, kept=16 if options.quick else 1_000)
    new = Load("connection", 16 if options.quick else 500)
    for load in (bulk, new):
        if not load.tool:
            report.leave_out("ab" if load is new else "h2load", "not installed; a load in Python takes its place")
    with back_end(report) as target:
        report.head()
        costs = {
            bulk: Cost(report, "GiB", "s of CPU", GIB / bulk.size, peers, 0, min(slices, 2)),
            small: Cost(report, "request of 1 KiB", "us of CPU", 1e6, peers, 1, slices),
            many: Cost(report, "request of 1 KiB, 1,000 connections", "us of CPU", 1e6, peers, 1, min(slices, 2)),
            new: Cost(report, "connection with one request", "us of CPU", 1e6, peers, 2, slices),
        }
        idle = report.measure("idle connection pair", "KiB", less=True, limits={SSLSOCK: LIMIT_KIB})
        start = report.measure("start to the first handshake", "ms", less=True, limits={SSLSOCK: LIMIT_START_MS})
        start_cpu = report.measure("start to the first handshake, CPU", "ms", less=True)
        for number in range(options.rounds):
            run_loads(report, target, harness.rotated(peers, number), costs)
            count = 20 if options.quick else min(options.connections, harness.raise_descriptor_limit() // 2 - FIRST - 100)
            for peer in harness.rotated(peers, number):
                with report.forgiving(peer):
                    wall, cpu = start_cost(peer, target)
                    start.add(peer, wall)
                    start_cpu.add(peer, cpu)
                    idle.add(peer, kib_per_pair(peer, count))
    return report.end()


def run_loads(report: Report, target: int, peers: list[str], costs: dict[Load, Cost]) -> None:
    """One round: every load on every proxy."""
    with contextlib.ExitStack() as stack:
        proxies = []
        for peer in peers:
            with report.forgiving(peer):
                proxies.append(stack.enter_context(Proxy(peer, target)))
        for load, cost in costs.items():
            for proxy, seconds in zip(proxies, in_turn(load, proxies, cost.slices)):
                cost.add(proxy.peer, seconds)


def in_turn(load: Load, proxies: list[Proxy], slices: int) -> list[Optional[float]]:
    """The CPU seconds of each proxy for one request, medians of as many slices; None: it has failed."""
    found: list[list[Optional[float]]] = [[] for _ in proxies]
    for proxy in proxies:
        load.cpu_seconds(proxy, max(1, load.count // 4))  # warms up
    for number in range(slices):
        for place in harness.rotated(range(len(proxies)), number):
            of_requests = load.kind == "request"
            cost = load.cpu_seconds_of_requests(proxies[place]) if of_requests else load.cpu_seconds(proxies[place])
            found[place].append(cost)
    return [None if None in costs else statistics.median(cost for cost in costs if cost is not None) for costs in found]


if __name__ == "__main__":
    sys.exit(main())
