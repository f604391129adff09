"""A proxy with thousands of certificates: what it takes to start, to fill a worker process's place, and to read files again.

Each of the certificates has a key of its own (P-256), two names and the same intermediate certificate. Measured is the CPU time
of all processes of the proxy, user and system:

 - start, one thread: from the start of the program until it listens; its modules have been compiled by a start before
 - start, two processes: until both accept
 - worker process replaced: from its end by SIGKILL until another one accepts, without what the dead one had used
 - SIGHUP, all files as they were: until new connections go by what was read; with one thread
 - SIGHUP, one pair changed: the same
 - a name's first connection: one handshake with each of 100 names that nobody has asked for yet, with TLS 1.3; the proxy's part
 - a name's second connection: the same names again
 - memory: PSS without mapped files, of all processes, once they accept

The files are not watched (`--watch off`): what a watch does, it does after the start, and at any time. HAProxy has the same
certificates in one folder and is there to be compared with at the start.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import harness
from harness import FOLDER, Report

from proxy import HAPROXY, SSLSOCK, attempts, free_port, started, tree, version_of
from proxy import end as end_of

SITES = FOLDER / "sites"
TOGETHER = FOLDER / "together"  # certificate, chain and key in one file each, for HAProxy
NAMES = 100  # that are asked for


def make_sites(count: int) -> None:
    import trustme

    SITES.mkdir()
    TOGETHER.mkdir()
    root = trustme.CA(key_type=trustme.KeyType.ECDSA)
    authority = root.create_child_ca(key_type=trustme.KeyType.ECDSA)
    for number in range(count + 1):  # the last one takes the place of another
        name = f"host{number if number < count else count // 2}.example.com"
        issued = authority.issue_cert(name, f"www.{name}", key_type=trustme.KeyType.ECDSA)
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        (SITES / f"{number}.pem").write_bytes(chain)
        (SITES / f"{number}.key").write_bytes(issued.private_key_pem.bytes())
        (SITES / f"{number}.key").chmod(0o600)
        if number < count:
            (TOGETHER / f"{number}.pem").write_bytes(chain + issued.private_key_pem.bytes())
    settings = 'watch = "off"\n[[listener]]\nlisten = "tls://127.0.0.1:0"\nto = "tcp://127.0.0.1:9"\n'
    for kind, end in (("cert", "pem"), ("key", "key")):
        files = "".join(f'    "{number}.{end}",\n' for number in range(count))
        settings += f"{kind} = [\n{files}]\n"
    (SITES / "proxy.toml").write_text(settings)


class Sslsock:
    """The proxy with all its processes, once it accepts. A context manager."""

    def __init__(self, *workers: str) -> None:
        environment = dict(os.environ, PYTHONPYCACHEPREFIX=str(FOLDER / "compiled"))
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-m", "sslsock", "proxy", "--config", str(SITES / "proxy.toml"), *workers]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
        )
        self.port = int(self.wait_for("listening on tls://127.0.0.1:").partition(",")[0].rpartition(":")[2])

    def wait_for(self, part: str) -> str:
        """The next line that it says with this in it. RuntimeError: it has ended, or refuses a reload."""
        assert self.process.stdout is not None
        line = ""
        for line in self.process.stdout:
            if part in line:
                return line
            if "stay in force" in line:
                break
        raise RuntimeError(f"it has not said {part!r}: {line}")

    def milliseconds(self, without: int = 0) -> float:
        """CPU so far, of all processes but one."""
        return sum(harness.cpu_seconds(pid) for pid in tree(self.process.pid) if pid != without) * 1e3

    def mebibytes(self) -> float:
        return sum(map(harness.pss, tree(self.process.pid))) / 1024

    def read_again(self) -> float:
        """CPU milliseconds of a SIGHUP."""
        before = self.milliseconds()
        self.process.send_signal(signal.SIGHUP)
        self.wait_for("SIGHUP: read again")
        return self.milliseconds() - before

    def __enter__(self) -> Sslsock:
        return self

    def __exit__(self, *details: object) -> None:
        end_of(self.process)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def other_pair(count: int) -> Iterator[None]:
    """In the place of one of them, of the same name."""
    places = [SITES / f"{count // 2}.{end}" for end in ("pem", "key")]
    new = [SITES / f"{count}.{end}" for end in ("pem", "key")]
    kept = [path.read_bytes() for path in places]
    for path, source in zip(places, new):
        path.write_bytes(source.read_bytes())
    try:
        yield
    finally:
        for path, data in zip(places, kept):
            path.write_bytes(data)


def connections(proxy: Sslsock, count: int) -> float:
    """CPU milliseconds of one with each of some names."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    before = proxy.milliseconds()
    for number in range(1, 1 + min(NAMES, count - 1)):
        sock = socket.create_connection(("127.0.0.1", proxy.port), 20)
        context.wrap_socket(sock, server_hostname=f"host{number}.example.com").close()
    return (proxy.milliseconds() - before) / min(NAMES, count - 1)


def haproxy_start() -> float:
    port, configuration = free_port(), FOLDER / "many.conf"
    configuration.write_text(
        "global\n nbthread 1\n maxconn 8000\n"
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
        f"frontend f\n bind 127.0.0.1:{port} ssl crt {TOGETHER}/\n default_backend b\nbackend b\n server s 127.0.0.1:9\n"
    )
    process = started([shutil.which("haproxy") or "", "-db", "-f", str(configuration)], HAPROXY, {harness.SERVER_CPU})
    try:
        for _ in attempts(process):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 20):
                return sum(map(harness.cpu_seconds, tree(process.pid))) * 1e3
        raise AssertionError  # attempts() raises
    finally:
        end_of(process)


def replaced(proxy: Sslsock) -> float:
    """CPU milliseconds until another worker process accepts in the place of one."""
    pid = next(pid for pid in tree(proxy.process.pid) if Path(f"/proc/{pid}/comm").read_text().startswith("sslsock-work"))
    before = proxy.milliseconds(without=pid)
    os.kill(pid, signal.SIGKILL)
    proxy.wait_for("accepts connections")
    return proxy.milliseconds() - before


def main() -> int:
    parser = harness.arguments(__doc__ or "", rounds=5)
    parser.add_argument("--certificates", type=int, default=2000, help="default 2000, with --quick 20")
    options = harness.begin(parser)
    count = 20 if options.quick else options.certificates
    report = Report("a proxy with many certificates", options)
    peers = [SSLSOCK]
    if shutil.which("haproxy"):
        peers.append(HAPROXY)
        report.add_version(HAPROXY, version_of("haproxy"))
    else:
        report.leave_out(HAPROXY, "not installed")
    report.head()
    print(f"  {count} certificates")
    make_sites(count)

    def measure(name: str, unit: str = "ms") -> harness.Measure:
        return report.measure(name, unit, less=True)

    start, start_in_processes, replacement = (
        measure("start, one thread"), measure("start, two processes"), measure("worker process replaced"),
    )  # fmt: skip
    same, changed = measure("SIGHUP, all files as they were"), measure("SIGHUP, one pair changed")
    first, second = measure("a name's first connection"), measure("a name's second connection")
    memory, memory_of_processes = measure("memory, one thread", "MiB"), measure("memory, two processes", "MiB")
    with Sslsock("--threads", "1"):  # has the modules compiled
        pass
    for number in range(options.rounds):
        for peer in harness.rotated(peers, number):
            if peer == HAPROXY:
                with report.forgiving(peer):
                    start.add(peer, haproxy_start())
                continue
            with Sslsock("--threads", "1") as proxy:
                start.add(peer, proxy.milliseconds())
                memory.add(peer, proxy.mebibytes())
                first.add(peer, connections(proxy, count))
                second.add(peer, connections(proxy, count))
                same.add(peer, proxy.read_again())
                with other_pair(count):
                    changed.add(peer, proxy.read_again())
            with Sslsock("--processes", "2") as proxy:
                start_in_processes.add(peer, proxy.milliseconds())
                memory_of_processes.add(peer, proxy.mebibytes())
                replacement.add(peer, replaced(proxy))
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
