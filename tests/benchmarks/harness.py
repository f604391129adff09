"""What the benchmarks share: a folder with certificates, server processes of every peer, their CPU seconds and
memory, the table of results.

Owns no measurement: what is timed stands in each benchmark's own file. Every benchmark runs in a child of
itself whose environment names an OpenSSL configuration, so that all peers, also those without a setting for
it, use one cipher suite and one group; the certificate's key is P-256. A server pins itself to the first CPU
there is, the load runs on the last.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import json
import os
import platform
import re
import resource
import shlex
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, Optional

CIPHER = "TLS_AES_128_GCM_SHA256"
GROUP = "X25519"
CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")
LIMIT = "libssl in C"  # the peer that is a C program of this folder
BACKLOG = 4096
HIGH_WATER = 1 << 20  # unsent bytes at which a protocol on one of our sockets is told to pause
CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, LOAD_CPU = CPUS[0], CPUS[-1]
SHARED_CPU = "" if len(CPUS) > 1 else " (there is one CPU only: load and server disturb each other)"

FOLDER = Path(os.environ.get("SSLSOCK_BENCHMARK_FOLDER", ""))

OPENSSL_CONFIGURATION = f"""openssl_conf = library
[library]
ssl_conf = ssl
[ssl]
system_default = settings
[settings]
Ciphersuites = {CIPHER}
Groups = {GROUP}
"""

# Peer: the modules it needs beside the standard library.
SERVERS = {
    "sslsock": ("sslsock",),
    "sslsock-asyncio": ("sslsock",),
    "sslsock-uvloop": ("sslsock", "uvloop"),
    "sslsock-aio": ("sslsock",),
    "sslsock-aio-foreign": ("sslsock",),
    "sslsock-aio-asyncio": ("sslsock",),
    "sslsock-aio-uvloop": ("sslsock", "uvloop"),
    "asyncio": (),
    "uvloop": ("uvloop",),
    "aiofastnet-asyncio": ("aiofastnet",),
    "aiofastnet-uvloop": ("aiofastnet", "uvloop"),
}


# Beginning


def arguments(description: str, rounds: int) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny: shows that it runs, not how fast")
    parser.add_argument("--rounds", type=int, help=f"default {rounds}, with --quick 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single value there")
    parser.set_defaults(usual_rounds=rounds)
    return parser


def server_arguments(parser: argparse.ArgumentParser, default: Sequence[str]) -> None:
    parser.add_argument(
        "--peers",
        default=",".join(default),
        help=f"of {', '.join(SERVERS)}; default {','.join(default)}",
        type=lambda text: checked_peers(text),
    )
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)


def checked_peers(text: str) -> list[str]:
    peers = text.split(",")
    for peer in peers:
        if peer not in SERVERS:
            raise argparse.ArgumentTypeError(f"{peer!r} is none of {', '.join(SERVERS)}")
    return peers


def begin(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The parsed options, in a process that has the folder and the OpenSSL configuration; any other process starts that
    one, waits for it and ends here."""
    options = parser.parse_args()
    if options.rounds is None:
        options.rounds = 1 if options.quick else options.usual_rounds
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    if FOLDER.name:
        return options
    folder = Path(tempfile.mkdtemp(prefix="sslsock-benchmark-"))
    try:
        make_certificates(folder)
        (folder / "openssl.cnf").write_text(OPENSSL_CONFIGURATION)
        environment = dict(
            os.environ,
            SSLSOCK_BENCHMARK_FOLDER=str(folder),
            OPENSSL_CONF=str(folder / "openssl.cnf"),
            PYTHONHASHSEED="0",
        )
        raise SystemExit(subprocess.call([*own_network(), sys.executable, *sys.argv], env=environment))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        shutil.rmtree(folder)


def own_network() -> list[str]:
    """What to put before a command, for a network namespace of its own in which the loopback is not paced: under BBR it is,
    by timers, and a byte costs up to 1.7 times as much. Nothing where that cannot be had; the head says so.
    """
    if congestion_control() in ("cubic", "reno"):
        return []
    # A namespace may have only what net.ipv4.tcp_allowed_congestion_control names, which reno is anywhere.
    choose = f"{{ echo cubic >{CONGESTION} || echo reno >{CONGESTION}; }} 2>/dev/null"
    words = ["unshare", "-n", "sh", "-ec", f'ip link set lo up; {choose}; exec "$@"', "sh"]
    usable = subprocess.run([*words, "true"], stderr=subprocess.DEVNULL, check=False) if shutil.which("unshare") else None
    return words if usable is not None and usable.returncode == 0 else []


def congestion_control() -> str:
    with contextlib.suppress(OSError):
        return CONGESTION.read_text().strip()
    return "unknown"


def make_certificates(folder: Path) -> None:
    import trustme

    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    issued = authority.issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType.ECDSA)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued.private_key_pem.write_to_path(str(folder / "server.key"))
    for number, pem in enumerate(issued.cert_chain_pems):
        pem.write_to_path(str(folder / "server.pem"), append=number > 0)


def version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(package), "__version__", "of unknown version"))


def installed(modules: Sequence[str]) -> Optional[str]:
    """None, or the first of `modules` that cannot be imported and why."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as exc:
            return f"{module} ({exc})"
    return None


def available_servers(peers: Sequence[str], report: Report) -> list[str]:
    found = []
    for peer in peers:
        missing = installed(SERVERS[peer])
        if missing is None:
            found.append(peer)
            for module in SERVERS[peer]:
                report.add_version(module, version_of(module))
        else:
            report.leave_out(peer, f"no {missing}")
    return found


def compile_limit(name: str, report: Report) -> Optional[Path]:
    """The program of the C file of that name, against the OpenSSL that sslsock has. What stands in the way is reported."""
    import sslsock

    compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or shutil.which("gcc") or ""]
    if not compiler[0]:
        report.leave_out(LIMIT, "no C compiler")
        return None
    prefix = os.environ.get("SSLSOCK_OPENSSL_PREFIX")
    flags = ["-lssl", "-lcrypto"]
    if prefix:
        folders = [f for part in ("lib64", "lib") for f in (Path(prefix).resolve() / part,) if f.is_dir()]
        flags = [f"-I{prefix}/include", *(f"-L{f}" for f in folders), *(f"-Wl,-rpath,{f}" for f in folders)]
        flags += ["-lssl", "-lcrypto", "-ldl", "-lpthread"]
    elif shutil.which("pkg-config"):
        found = subprocess.run(
            ["pkg-config", "--cflags", "--libs", "libssl", "libcrypto"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        flags = shlex.split(found.stdout) if found.returncode == 0 else flags
    program = FOLDER / name
    source = str(Path(__file__).with_name(f"{name}.c"))
    built = subprocess.run([*compiler, "-O2", "-Wall", "-o", str(program), source, *flags], stderr=subprocess.PIPE, text=True)
    if built.returncode:
        words = next((line for line in built.stderr.splitlines() if "error" in line), "the compiler fails")
        report.leave_out(LIMIT, f"{name}.c does not compile: {words.strip()}")
        return None
    version = subprocess.check_output([str(program), "version"], text=True).strip()
    if version != sslsock.openssl_version():
        report.leave_out(LIMIT, f"it runs with {version}, sslsock with {sslsock.openssl_version()}")
        return None
    return program


# The two ends


def server_context(module: Any = ssl) -> ssl.SSLContext:
    """For peers that use contexts of `module`, which is the standard library's or has its interface."""
    context: ssl.SSLContext = module.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(FOLDER / "server.pem", FOLDER / "server.key")
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(FOLDER / "ca.pem"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def connect(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    sock = socket.create_connection(("127.0.0.1", port), 20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(sock, server_hostname="localhost")


class SocketTransport:
    """An asyncio.Protocol on an SslSocket: the methods of a transport that the benchmarks' protocols use."""

    __slots__ = ("paused", "protocol", "socket")

    def __init__(self, sock: Any, protocol: Any) -> None:
        self.socket, self.protocol, self.paused = sock, protocol, False
        sock.ready_read_handler = self.on_ready_read
        sock.disconnected_handler = self.on_disconnected
        protocol.connection_made(self)

    def write(self, data: bytes) -> None:
        sock = self.socket
        sock.write(data)
        if not self.paused and sock.bytes_to_write > HIGH_WATER:
            self.paused = True
            sock.bytes_written_handler = self.on_bytes_written
            self.protocol.pause_writing()

    def close(self) -> None:
        self.socket.disconnect()

    def on_ready_read(self, sock: Any) -> None:
        self.protocol.data_received(sock.read_all())

    def on_bytes_written(self, sock: Any, count: int) -> None:
        if self.paused and sock.bytes_to_write < HIGH_WATER // 4:
            self.paused = False
            sock.bytes_written_handler = None
            self.protocol.resume_writing()

    def on_disconnected(self, sock: Any) -> None:
        # As other transports do: who knows whom is a cycle, which would wait for the garbage collector.
        sock.ready_read_handler = sock.disconnected_handler = sock.bytes_written_handler = None
        protocol, self.protocol = self.protocol, None
        protocol.connection_lost(None)


def listen_with_sslsock(make_protocol: Callable[[], Any]) -> Any:
    import sslsock

    configuration = sslsock.SslConfiguration()
    configuration.local_certificate_chain = sslsock.SslCertificate.from_path(str(FOLDER / "server.pem"))
    configuration.private_key = sslsock.SslKey((FOLDER / "server.key").read_bytes())
    configuration.peer_verify_mode = sslsock.SslSocket.VERIFY_NONE
    configuration.minimum_protocol = sslsock.SslProtocol.TLS_1_3
    configuration.ciphersuites = CIPHER
    configuration.groups = GROUP
    server = sslsock.SslServer()
    server.configuration = configuration
    server.max_pending_connections = BACKLOG

    def on_new_connection(server: Any) -> None:
        sock = server.next_pending_secure_connection()
        while sock is not None:
            SocketTransport(sock, make_protocol())
            sock = server.next_pending_secure_connection()

    server.new_connection_handler = on_new_connection
    if not server.listen(0, "127.0.0.1"):
        raise SystemExit(server.error_string)
    announce(server.port)
    return server


async def serve_with_asyncio(make_protocol: Callable[[], Any]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(make_protocol, "127.0.0.1", 0, ssl=server_context(), backlog=BACKLOG)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def serve_with_aio(make_protocol: Callable[[], Any], module: Any = None) -> None:
    """module: whose contexts it has; None: `sslsock.ssl`."""
    import sslsock.aio
    import sslsock.ssl

    loop = sslsock.aio.attach()  # no effect on our own
    context = server_context(module or sslsock.ssl)
    server = await loop.create_server(make_protocol, "127.0.0.1", 0, ssl=context, backlog=BACKLOG)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def serve_nested(make_protocol: Callable[[], Any]) -> None:
    server = listen_with_sslsock(make_protocol)
    await asyncio.Event().wait()
    server.close()


def announce(port: int) -> None:
    print(port, flush=True)


def serve(peer: str, make_protocol: Callable[[], Any]) -> None:
    """Be the server of a peer, until killed. Prints its port.

    make_protocol: gives an asyncio.Protocol; of its transport it may use `write` and `close`.
    """
    os.sched_setaffinity(0, {SERVER_CPU})
    raise_descriptor_limit()
    if peer == "sslsock":
        import sslsock

        sslsock.run(lambda: listen_with_sslsock(make_protocol))
        return
    main = serve_nested if peer.startswith("sslsock") else serve_with_asyncio
    if peer.startswith("sslsock-aio"):
        main = partial(serve_with_aio, module=ssl if peer.endswith("foreign") else None)
    make_loop(peer).run_until_complete(main(make_protocol))


def make_loop(peer: str) -> Any:
    """The asyncio loop of a peer."""
    make: Callable[[], Any] = asyncio.new_event_loop
    if peer.endswith("uvloop"):
        import uvloop

        make = uvloop.new_event_loop
    if peer.startswith("aiofastnet"):
        import aiofastnet

        make = aiofastnet.loop_factory(make)
    if peer in ("sslsock-aio", "sslsock-aio-foreign"):
        import sslsock

        make = sslsock.new_event_loop
    return make()


class Server:
    """The server process of a peer: this same file, run with `--serve` and `more`. A context manager."""

    def __init__(self, peer: str, *more: str) -> None:
        self.peer = peer
        self.log = FOLDER / f"{peer}.log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, sys.argv[0], "--serve", peer, *more],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self.pid = self._process.pid
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise RuntimeError(f"the server of {peer} does not start:\n{self.log.read_text()[-3000:]}")
        self.port = int(line)

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def pss(self) -> float:
        return pss(self.pid)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def ask(self, line: str) -> str:
        """Write a line to it, and return the one that it answers with."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *details: object) -> None:
        self.stop()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads, ended ones too."""
    with contextlib.suppress(OSError):
        return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3): nanoseconds, where /proc has ticks
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss(pid: int) -> float:
    """A process's memory in KiB, what it shares with its children divided among them. Without mapped files: their share changes
    when a program of the same libraries comes or goes.
    """
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return float(sum(map(int, re.findall(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB", text, re.M))))


def raise_descriptor_limit() -> int:
    """As far as it goes; returns it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if limit == resource.RLIM_INFINITY else limit


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """The garbage collector off, for measurements inside this process."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# Results


def rotated(peers: Sequence[Any], number: int) -> list[Any]:
    """Another one begins in each round, so that no peer always follows the same."""
    start = number % len(peers) if peers else 0
    return [*peers[start:], *peers[:start]]


class Measure:
    """What is compared: one value per peer and round.

    less: whether less is better. baseline: the peer that ratios are to. targets: peer -> most (least, unless
    `less`) that the project wants of that ratio; limits: the same for the value itself.
    """

    def __init__(
        self,
        name: str,
        unit: str,
        *,
        less: bool,
        baseline: Optional[str] = None,
        targets: Optional[dict[str, float]] = None,
        limits: Optional[dict[str, float]] = None,
    ) -> None:
        self.name, self.unit, self.less, self.baseline = name, unit, less, baseline
        self.targets, self.limits = targets or {}, limits or {}
        self.values: dict[str, list[Optional[float]]] = {}

    def add(self, peer: str, value: Optional[float]) -> None:
        """None: it has failed in this round."""
        self.values.setdefault(peer, []).append(value)

    def ratios(self, peer: str) -> list[float]:
        """Within each round: what disturbs a round disturbs both."""
        base = self.values.get(self.baseline or "", [])
        return [a / b for a, b in zip(self.values[peer], base) if a is not None and b]

    def lines(self) -> Iterator[str]:
        order = "less" if self.less else "more"
        yield f"\n{self.name}: {self.unit}, {order} is better"
        ratio_title = f"ratio to {self.baseline}" if self.baseline in self.values else ""
        yield f"  {'peer':20s} {'median':>10s} {'min - max':>21s}   {ratio_title:30s} target".rstrip()
        sign = "<=" if self.less else ">="
        for peer, all_values in self.values.items():
            values = [value for value in all_values if value is not None]
            if not values:
                yield f"  {peer:20s} {'failed':>10s}"
                continue
            middle = figure(statistics.median(values))
            spread = f"{figure(min(values))} - {figure(max(values))}"
            line = f"  {peer:20s} {middle:>10s} {spread:>21s}   "
            target = ""
            ratios = self.ratios(peer) if peer != self.baseline else []
            if ratios:
                line += f"{statistics.median(ratios):.3f} ({min(ratios):.3f} - {max(ratios):.3f})".ljust(31)
                if peer in self.targets:
                    target = f"{sign} {self.targets[peer]:.2f}"
            else:
                line += " " * 31
            if peer in self.limits:
                target = f"{sign} {figure(self.limits[peer])} {self.unit}"
            yield (line + target).rstrip()


def figure(value: float) -> str:
    """About three digits, and no exponents."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{0 if value >= 200 else 1 if value >= 20 else 2}f}"


class Report:
    """Prints the head, then the measures; keeps all for --json. A failed measurement of sslsock fails the benchmark."""

    def __init__(self, title: str, options: argparse.Namespace) -> None:
        self.title, self.options = title, options
        self.measures: list[Measure] = []
        self.left_out: dict[str, str] = {}
        self.notes: list[str] = []
        self._versions = {"Python": platform.python_version(), "OpenSSL of ssl": ssl.OPENSSL_VERSION}
        with contextlib.suppress(ImportError):
            import sslsock

            self._versions["OpenSSL of sslsock"] = sslsock.openssl_version()
            self.add_version("sslsock", version_of("sslsock"))

    def add_version(self, name: str, version: str) -> None:
        self._versions[name] = version

    def leave_out(self, peer: str, why: str) -> None:
        self.left_out[peer] = why

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(f"note: {text}", flush=True)

    def measure(self, *args: Any, **kwargs: Any) -> Measure:
        made = Measure(*args, **kwargs)
        self.measures.append(made)
        return made

    @contextlib.contextmanager
    def forgiving(self, peer: str) -> Iterator[None]:
        """Trouble with a foreign peer is noted, and the others go on."""
        try:
            yield
        except (OSError, RuntimeError) as exc:
            if peer.startswith("sslsock"):
                raise
            self.note(f"{peer} has failed: {exc}")

    def head(self) -> None:
        print(f"{self.title}: {self.options.rounds} round(s){', quick' if self.options.quick else ''}{SHARED_CPU}")
        for name, version in self._versions.items():
            print(f"  {name}: {version}")
        print(f"  TLS 1.3, {CIPHER}, {GROUP}, certificate P-256; congestion control {congestion_control()}")
        for peer, why in self.left_out.items():
            print(f"  left out: {peer}, {why}")
        sys.stdout.flush()

    def end(self) -> int:
        """Print the tables and write the file. The process's exit status."""
        for measure in self.measures:
            if measure.values:
                print("\n".join(measure.lines()))
        if self.options.json is not None:
            self.options.json.write_text(json.dumps(self.as_json(), indent=1) + "\n")
        failed = [
            f"{measure.name}: {peer}"
            for measure in self.measures
            for peer, values in measure.values.items()
            if None in values and peer.startswith("sslsock")
        ]
        for text in failed:
            print(f"failed: {text}", file=sys.stderr)
        return 1 if failed else 0

    def as_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.title,
            "quick": self.options.quick,
            "rounds": self.options.rounds,
            "versions": self._versions,
            "cipher": CIPHER,
            "group": GROUP,
            "congestion_control": congestion_control(),
            "left_out": self.left_out,
            "notes": self.notes,
            "measures": [
                {
                    "name": measure.name,
                    "unit": measure.unit,
                    "better": "less" if measure.less else "more",
                    "baseline": measure.baseline,
                    "targets": measure.targets,
                    "limits": measure.limits,
                    "values": measure.values,
                }
                for measure in self.measures
            ],
        }
