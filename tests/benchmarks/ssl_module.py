"""`sslsock.ssl` beside the interpreter's `ssl`: what a program gains or loses when it changes to it.

 - request: GET of 1 KiB on one blocking connection, `sendall` and `recv(65536)`; CPU of the client
 - received: GET of 64 MiB, by `recv(65536)` and by `recv_into` 256 KiB; sent: POST of 64 MiB by `sendall` of 256 KiB
 - SSLObject: two of them with `MemoryBIO` between; a write of 64 B, 1 KiB or 16 KiB and its read, both ways
 - handshake: TCP, a full one, the client verifies the certificate and the name, close; CPU of the client
 - context: `create_default_context()` in a new process, the first and the mean of 20 more; CPU, and memory (PSS)
 - programs: a whole process, start and imports inside, that makes 1,000 GETs of 1 KiB over one connection, or over 100
   one after another, with http.client and, where they are installed, requests, urllib3 and httpx
 - threads: eight that each write to and read from a pair of sockets of their own, against one; bytes per second of the clock

The server is `sslsock`'s in application.py, on another CPU. Both sides are in one process where a process is not what is
measured, and take turns there. They have the same libssl where the package was built with the interpreter's; the head
says which versions. `--only NAME,NAME` chooses rows by the beginning of their names.

--instructions: user-space instructions per request and per handshake, as `valgrind --tool=callgrind` counts
them, and per 64 B through two SSLObject and back.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import harness
from application import GIB, SMALL, Application
from harness import FOLDER, LOAD_CPU, Measure, Report, Server

PEERS = {"ssl": "ssl", "sslsock": "sslsock.ssl"}  # name -> module
BASELINE = "ssl"
LIBRARIES = ("http.client", "urllib3", "requests", "httpx")
REQUEST = b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n"
SIZES = {64: 1.4, 1024: 1.25, 16384: 1.08}  # of a record -> target
PIECE = 256 * 1024

CONTEXT_PROGRAM = """
import importlib, json, sys, time
sys.path.insert(0, sys.argv[2])
from harness import pss
module = importlib.import_module(sys.argv[1])
begin, memory = time.process_time(), pss("self")
made = [module.create_default_context()]
first, first_memory = time.process_time(), pss("self")
made += [module.create_default_context() for _ in range(20)]
later, later_memory = time.process_time(), pss("self")
print(json.dumps([1e3 * (first - begin), first_memory - memory, 50 * (later - first), (later_memory - first_memory) / 20]))
"""

HTTP_PROGRAM = """
import sys
library, module, authority, port, connections, count = sys.argv[1], sys.argv[2], sys.argv[3], *map(int, sys.argv[4:])
if module != "ssl":
    import sslsock.ssl
    sslsock.ssl.install()
url = f"https://localhost:{port}/small"
each = range(count // connections)
if library == "http.client":
    import http.client, ssl
    context = ssl.create_default_context(cafile=authority)
    for _ in range(connections):
        connection = http.client.HTTPSConnection("localhost", port, context=context)
        for _ in each:
            connection.request("GET", "/small")
            assert len(connection.getresponse().read()) == 1024
        connection.close()
elif library == "urllib3":
    import urllib3
    for _ in range(connections):
        with urllib3.PoolManager(ca_certs=authority) as pool:
            for _ in each:
                assert len(pool.request("GET", url).data) == 1024
elif library == "requests":
    import requests
    for _ in range(connections):
        with requests.Session() as session:
            session.verify = authority
            session.trust_env = False
            for _ in each:
                assert len(session.get(url).content) == 1024
elif library == "httpx":
    import ssl, httpx
    context = ssl.create_default_context(cafile=authority)
    for _ in range(connections):
        with httpx.Client(verify=context, trust_env=False) as client:
            for _ in each:
                assert len(client.get(url).content) == 1024
"""


class Client:
    """One module's blocking client and objects."""

    def __init__(self, module: str, port: int) -> None:
        self.ssl: Any = importlib.import_module(module)
        self.port = port
        self.context = self.ssl.create_default_context(cafile=str(FOLDER / "ca.pem"))
        self.server_context = self.ssl.SSLContext(self.ssl.PROTOCOL_TLS_SERVER)
        self.server_context.load_cert_chain(FOLDER / "server.pem", FOLDER / "server.key")

    def connect(self) -> Any:
        return harness.connect(self.port, self.context)

    @contextlib.contextmanager
    def connection(self) -> Iterator[Any]:
        with self.connect() as sock:
            sock.settimeout(None)
            yield sock

    def requests(self, count: int) -> float:
        """CPU seconds, as all of these return."""
        with self.connection() as sock:
            self.ask(sock, 10)
            begin = time.process_time()
            self.ask(sock, count)
            return time.process_time() - begin

    def ask(self, sock: Any, count: int) -> None:
        for _ in range(count):
            sock.sendall(REQUEST)
            left = len(SMALL)
            while left:
                left -= len(sock.recv(65536)) or fail()

    def received(self, size: int, into: bool) -> float:
        room = bytearray(PIECE)
        with self.connection() as sock:
            begin = time.process_time()
            sock.sendall(b"GET /%d HTTP/1.1\r\n\r\n" % size)
            left = size + len(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            while left:
                left -= (sock.recv_into(room) if into else len(sock.recv(65536))) or fail()
            return time.process_time() - begin

    def sent(self, size: int) -> float:
        data = b"z" * PIECE
        with self.connection() as sock:
            begin = time.process_time()
            sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size // PIECE):
                sock.sendall(data)
            spent = time.process_time() - begin
            sock.recv(1024) or fail()
        return spent

    def handshakes(self, count: int) -> float:
        begin = time.process_time()
        for _ in range(count):
            self.connect().close()
        return time.process_time() - begin

    def small_objects(self, count: int) -> float:
        return self.objects(64, count)

    def objects(self, size: int, count: int) -> float:
        up, down = self.ssl.MemoryBIO(), self.ssl.MemoryBIO()
        client = self.context.wrap_bio(down, up, server_hostname="localhost")
        server = self.server_context.wrap_bio(up, down, server_side=True)
        for side in (client, server, client, server):
            with contextlib.suppress(self.ssl.SSLWantReadError):
                side.do_handshake()
        data = b"\7" * size
        client.write(data)
        assert server.read(size) == data
        begin = time.process_time()
        for _ in range(count):
            client.write(data)
            server.read(size)
            server.write(data)
            client.read(size)
        return time.process_time() - begin

    def pair(self) -> tuple[Any, Any]:
        """Two connected sockets of this process."""
        near, far = socket.socketpair()
        ends: list[Any] = []
        other = threading.Thread(target=lambda: ends.append(self.server_context.wrap_socket(far, server_side=True)))
        other.start()
        client = self.context.wrap_socket(near, server_hostname="localhost")
        other.join()
        return client, ends[0]

    def threads(self, number: int, size: int) -> float:
        """Bytes per second of the clock."""
        pairs = [self.pair() for _ in range(number)]
        begin = time.perf_counter()
        workers = [threading.Thread(target=pump, args=(*pair, size // number)) for pair in pairs]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        spent = time.perf_counter() - begin
        for pair in pairs:
            for sock in pair:
                sock.close()
        return size / spent


def pump(client: Any, server: Any, size: int) -> None:
    data, room = b"\7" * 65536, bytearray(65536)
    for _ in range(size // len(data)):
        client.sendall(data)
        left = len(data)
        while left:
            left -= server.recv_into(room) or fail()


def fail() -> int:
    raise RuntimeError("the connection has ended")


def context_figures(module: str) -> list[float]:
    """Milliseconds and KiB of the first default context, and of a later one."""
    command = [sys.executable, "-c", CONTEXT_PROGRAM, module, str(Path(__file__).parent)]
    found: list[float] = json.loads(subprocess.check_output(command))
    return found


def installed_environment() -> dict[str, str]:
    """Modules are compiled once, as those of an installed package are; into a folder of the benchmark's."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**environment, "PYTHONPYCACHEPREFIX": str(FOLDER / "compiled")}


def program_seconds(library: str, module: str, port: int, connections: int, count: int) -> float:
    """CPU seconds of a whole process."""
    words = [library, module, str(FOLDER / "ca.pem"), port, connections, count]
    process = subprocess.Popen([sys.executable, "-c", HTTP_PROGRAM, *map(str, words)], env=installed_environment())
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the program with {library} and {module} ends with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


class Row:
    """A measure, and how one peer's value for it is found."""

    def __init__(self, measure: Measure, value: Callable[[str], float]) -> None:
        self.measure, self.value = measure, value


def rows(report: Report, port: int, quick: bool, only: tuple[str, ...]) -> Iterator[Row]:
    clients = {peer: Client(module, port) for peer, module in PEERS.items()}
    few = 20 if quick else 1

    def row(name: str, unit: str, target: float | None, value: Callable[[str], float], *, less: bool = True) -> Iterator[Row]:
        if name.startswith(only):
            targets = {"sslsock": target} if target else {}
            yield Row(report.measure(name, unit, less=less, baseline=BASELINE, targets=targets), value)

    count = 2000 // few
    yield from row("request, 1 KiB", "us", 0.85, lambda peer: 1e6 * clients[peer].requests(count) / count)
    size = (64 << 20) // few // PIECE * PIECE
    per_gib = GIB / size
    yield from row("received, recv(65536)", "s per GiB", 0.85, lambda peer: clients[peer].received(size, False) * per_gib)
    yield from row("received, recv_into(256 KiB)", "s per GiB", 0.70, lambda peer: clients[peer].received(size, True) * per_gib)
    yield from row("sent, sendall", "s per GiB", 0.95, lambda peer: clients[peer].sent(size) * per_gib)
    for record, target in SIZES.items():
        times = min(10_000, (16 << 20) // record) // few
        yield from row(
            f"SSLObject, {record} B",
            "MiB per CPU second",
            target,
            lambda peer, record=record, times=times: 2 * times * record / clients[peer].objects(record, times) / (1 << 20),
            less=False,
        )
    shakes = 100 // few
    yield from row("handshake, verified", "ms", 0.90, lambda peer: 1e3 * clients[peer].handshakes(shakes) / shakes)
    for library in LIBRARIES:
        missing = harness.installed((library,))
        if missing:
            report.leave_out(library, f"no {missing}")
            continue
        for connections in (1, 100):
            yield from row(
                f"program, {library}, {connections} connection{'s' * (connections > 1)}",
                "CPU seconds",
                1.0,
                lambda peer, library=library, connections=connections: program_seconds(
                    library, PEERS[peer], port, connections, 100 if quick else 1000
                ),
            )


def compare(report: Report, options: argparse.Namespace) -> None:
    only = tuple(options.only.split(","))
    with Server("sslsock") as server:
        os.sched_setaffinity(0, {LOAD_CPU})
        found = list(rows(report, server.port, options.quick, only))
        report.head()
        with harness.no_collection():
            for number in range(-1, options.rounds):  # the first round warms up
                for row in found:
                    for peer in harness.rotated(list(PEERS), number):
                        value = row.value(peer)
                        if number >= 0:
                            row.measure.add(peer, value)
        os.sched_setaffinity(0, set(harness.CPUS))
    if "context".startswith(only) or any(name.startswith("context") for name in only):
        compare_contexts(report, options)
    if any("threads".startswith(name) for name in only):
        compare_threads(report, options)


def compare_contexts(report: Report, options: argparse.Namespace) -> None:
    names = (
        ("context, the first", "ms", 1.0),
        ("context, the first, memory", "KiB", 1.0),
        ("context, a later one", "ms", 0.05),
        ("context, a later one, memory", "KiB", 0.05),
    )
    measures = [
        report.measure(name, unit, less=True, baseline=BASELINE, targets={"sslsock": target}) for name, unit, target in names
    ]
    for number in range(options.rounds):
        for peer in harness.rotated(list(PEERS), number):
            for measure, value in zip(measures, context_figures(PEERS[peer])):
                measure.add(peer, value)


def compare_threads(report: Report, options: argparse.Namespace) -> None:
    measure = report.measure("threads, eight to one", "times", less=False, limits={"sslsock": 1.8})
    clients = {peer: Client(module, 0) for peer, module in PEERS.items()}
    size = (8 if options.quick else 256) << 20
    for number in range(options.rounds):
        for peer in harness.rotated(list(PEERS), number):
            one = clients[peer].threads(1, size)
            measure.add(peer, clients[peer].threads(8, size) / one)


# Instructions


def instructions(peer: str, what: str, port: int, count: int) -> int:
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={os.devnull}", sys.executable]
    command += [str(Path(__file__).resolve()), "--work", peer, what, str(port), str(count)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(f"valgrind has failed:\n{done.stderr[-2000:]}")
    return int(found[1])


def compare_instructions(report: Report, options: argparse.Namespace) -> None:
    if shutil.which("valgrind") is None:
        report.leave_out("--instructions", "no valgrind")
        report.head()
        return
    report.head()
    with Server("sslsock") as server:
        for what, target, count in (("requests", 0.85, 500), ("small_objects", 0.71, 1000), ("handshakes", 0.90, 30)):
            measure = report.measure(what, "instructions", less=True, baseline=BASELINE, targets={"sslsock": target})
            for _ in range(options.rounds):
                for peer in PEERS:
                    longer = instructions(peer, what, server.port, 2 * count)
                    measure.add(peer, (longer - instructions(peer, what, server.port, count)) / count)


def main() -> int:
    parser = harness.arguments(__doc__ or "", rounds=15)
    parser.add_argument("--only", default="", metavar="NAMES", help="of rows, as they begin")
    parser.add_argument("--instructions", action="store_true", help="count instructions with valgrind")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--serve", choices=harness.SERVERS, help=argparse.SUPPRESS)
    options = harness.begin(parser)
    if options.serve:
        harness.serve(options.serve, Application)
        return 0
    if options.work:
        peer, what, port, count = options.work
        with harness.no_collection():
            getattr(Client(PEERS[peer], int(port)), what)(int(count))
        return 0
    report = Report("sslsock.ssl and ssl", options)
    if options.instructions:
        if options.rounds == parser.get_default("usual_rounds"):
            options.rounds = 1  # the counts hardly differ from run to run
        compare_instructions(report, options)
    else:
        compare(report, options)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
