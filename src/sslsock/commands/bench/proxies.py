"""Proxies that end TLS before a plain back end: ours, HAProxy and nginx, as far as they are installed, each with one thread.

Measured is the processor time of the proxy alone. The client and the back end, which run on sslsock for all of them, take a
core each where there are so many; where there are fewer, rates say little, and processor time still does.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter, sleep
from types import TracebackType
from typing import Callable, Optional

from ... import Context, Engine, SslCertificate
from ..common import CommandError
from .apps import ECHO_SIZE, REQUEST, Job
from .kinds import HOST, KINDS, PLAIN, client_configuration, run_sslsock
from .measures import Measure, Sample, Settings, process_seconds
from .network import MANY, RATE, Servers, package_environment

PEERS = ("sslsock-proxy", "haproxy", "nginx")
STREAM_MODULES = ("/usr/lib/nginx/modules/ngx_stream_module.so", "/usr/lib64/nginx/modules/ngx_stream_module.so")
VISITORS = 8
PATIENCE = 20.0  # seconds for a proxy to start


def program(peer: str) -> Optional[str]:
    """Where a peer is installed; None: nowhere. Those of an administrator are not on everybody's path."""
    if peer == PEERS[0]:
        return sys.executable
    return shutil.which(peer, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"]))


def lacking(peer: str) -> str:
    """What is not installed of a peer; "" for nothing. nginx may be there without the module that passes bytes."""
    found = program(peer)
    if found is None:
        return f"program {peer}"
    if peer == "nginx" and not any(map(os.path.exists, STREAM_MODULES)):
        built = subprocess.run([found, "-V"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False).stdout.split()
        if b"--with-stream" not in built:
            return "stream module of nginx"
    return ""


def version(peer: str) -> str:
    """What it says of itself, with its OpenSSL."""
    words = [str(program(peer)), {"haproxy": "-vv", "nginx": "-V"}[peer]]
    try:
        found = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    lines = found.stdout.decode(errors="replace").splitlines()
    first = next((line for line in lines if "version" in line.lower()), "unknown")
    running = next((line for line in lines if "running on openssl" in line.lower() or "built with OpenSSL" in line), "")
    named = first.replace("HAProxy version ", "").replace("nginx version: nginx/", "").split(" ")[0]
    return f"{named}, {running[running.index('OpenSSL') :].split('version : ')[-1]}" if running else named


def command_of(peer: str, folder: Path, port: int, target: int) -> list[str]:
    """What starts a proxy on a port, before the back end on another."""
    certificate, key, both = folder / "certificate.pem", folder / "key.pem", folder / "both.pem"
    configuration = folder / f"{peer}.conf"
    found = str(program(peer))
    if peer == "haproxy":
        configuration.write_text(
            "global\n nbthread 1\n maxconn 2000\n"
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
            f"frontend f\n bind {HOST}:{port} ssl crt {both}\n default_backend b\n"
            f"backend b\n server s {HOST}:{target}\n"
        )
        return [found, "-db", "-q", "-f", str(configuration)]
    if peer == "nginx":
        module = next((f"load_module {path};" for path in STREAM_MODULES if os.path.exists(path)), "")
        configuration.write_text(
            f"{module} daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;"
            f" events {{ worker_connections 4096; }} stream {{ server {{ listen {HOST}:{port} ssl;"
            f" ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;"
            f" proxy_pass {HOST}:{target}; }} }}"
        )
        return [found, "-e", f"{folder}/nginx.log", "-c", str(configuration)]
    ends = ["--listen", f"tls://{HOST}:{port}", "--to", f"tcp://{HOST}:{target}"]
    return [found, "-m", "sslsock", "proxy", *ends, "--cert", str(certificate), "--key", str(key), "--threads", "1"]


def free_port() -> int:
    with socket.create_server((HOST, 0)) as found:
        return int(found.getsockname()[1])


class Proxies:
    """The processes of the proxies, each started when it is first asked for, before the back end of `servers`. A context
    manager: none outlives it.
    """

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self._folder = tempfile.TemporaryDirectory(prefix="sslsock-bench-")  # only its owner may look into it
        self._running: dict[str, tuple[subprocess.Popen[bytes], int]] = {}

    def __enter__(self) -> Proxies:
        folder = Path(self._folder.name)
        for name, data in (
            ("certificate.pem", self.servers.certificate),
            ("key.pem", self.servers.key),
            ("both.pem", self.servers.key + self.servers.certificate),
        ):
            (folder / name).write_bytes(data)
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], exc: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        for process, _ in self._running.values():
            process.kill()
            process.wait()
        self._folder.cleanup()

    def of(self, peer: str) -> tuple[int, int]:
        """Process number and port. CommandError where it does not start."""
        if peer not in self._running:
            self._running[peer] = self._start(peer)
        process, port = self._running[peer]
        return process.pid, port

    def _start(self, peer: str) -> tuple[subprocess.Popen[bytes], int]:
        folder, port = Path(self._folder.name), free_port()
        log = folder / f"{peer}.out"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command_of(peer, folder, port, self.servers.port(PLAIN)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=package_environment(),
            )
        limit = monotonic() + PATIENCE
        while process.poll() is None and monotonic() < limit:
            with suppress(OSError), socket.create_connection((HOST, port), PATIENCE):
                return process, port
            sleep(0.01)
        process.kill()
        process.wait()
        said = log.read_text(errors="replace").strip().splitlines()
        raise CommandError(f"bench: {peer} does not start{': ' + said[-1] if said else ''}; leave it out with --peers")


def run_through(proxies: Proxies, peer: str, make_job: Callable[[], Job]) -> Sample:
    """A job of the clients, through the proxy."""
    (pid, port), job = proxies.of(peer), make_job()
    begin = cpu = wall = used = 0.0

    def start() -> None:
        nonlocal begin, cpu
        cpu, begin = process_seconds(pid), perf_counter()
        job.begin()

    def note_end() -> None:
        nonlocal wall, used
        wall, used = perf_counter() - begin, process_seconds(pid) - cpu

    job.start = start
    job.note_end = note_end
    servers = proxies.servers
    run_sslsock(KINDS["sslsock"], client_configuration(servers.authority, servers.suite), port, job)
    if job.error is not None:
        raise CommandError(f"bench: {peer}: {job.error}")
    return Sample(job.units / (1 if job.kind == b"E" else 2**20), wall, used, *job.agreed)


def visit(context: Context, port: int) -> Engine:
    """Connect, a full handshake, one byte there and back, and close."""
    engine = Engine(context, server_name="localhost", verify_name="localhost")
    with socket.create_connection((HOST, port), PATIENCE) as connection:
        connection.sendall(engine.start())
        while not engine.handshake_done:
            engine.decrypt(received(connection))
            connection.sendall(engine.take())
        connection.sendall(engine.encrypt(REQUEST.pack(b"E", 0) + b"x"))
        while not engine.decrypt(received(connection)):
            pass
    return engine


def received(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the connection was closed too early")
    return data


def run_visits(proxies: Proxies, peer: str, seconds: float) -> Sample:
    pid, port = proxies.of(peer)
    context = Context(
        server_side=False,
        ciphersuites=proxies.servers.suite,
        ca_certificates=[SslCertificate(proxies.servers.authority)],
        use_system_ca=False,
    )
    def keep_visiting(_: int) -> int:
        count = 0
        while count == 0 or perf_counter() < end:
            visit(context, port)
            count += 1
        return count

    try:
        engine = visit(context, port)  # the first, which no clock sees
        with ThreadPoolExecutor(VISITORS) as visitors:
            cpu, begin = process_seconds(pid), perf_counter()
            end = begin + seconds
            count = sum(visitors.map(keep_visiting, range(VISITORS)))
            wall, used = perf_counter() - begin, process_seconds(pid) - cpu
    except OSError as exc:
        raise CommandError(f"bench: {peer}: {exc}") from None
    return Sample(count, wall, used, f"TLSv1.{engine.protocol - 0x0301}", engine.cipher)


def make_measures(peers: list[str], settings: Settings, proxies: Proxies) -> list[Measure]:
    own = [peer for peer in PEERS if peer in peers]
    if not own:
        return []
    group = "TLS proxies of one thread, the proxy alone"
    baseline = own[1] if len(own) > 1 else ""
    size = max(1 << 20, int(settings.seconds * RATE))
    echo = partial(Job, b"E", MANY, settings.seconds, 0)
    bulk = partial(Job, b"D", 1, 0, size)
    through = partial(run_through, proxies)
    visits = partial(run_visits, proxies, seconds=settings.seconds)
    return [
        Measure(
            group, f"echo of {ECHO_SIZE} bytes, {MANY} connections", "round trips/s", "µs each", 1e6, own,
            partial(through, make_job=echo), baseline,
        ),
        Measure(group, "bulk, server to client", "MiB/s", "s per GiB", 1024, own, partial(through, make_job=bulk), baseline),
        Measure(group, f"connections, {VISITORS} at once", "/s", "ms each", 1000, own, visits, baseline),
    ]
