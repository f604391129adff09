"""For the tests of the proxy as a process: the process and what the system knows of it, back ends, clients.

A back end answers a line `get N` with N bytes that only it makes, and closes; `who` with its name; every other line it sends
back. Nothing sleeps: what is awaited is looked for until a deadline.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import resource
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Callable, Optional

import trustme

from command_helpers import ENVIRONMENT, command, heeding_cuts
from peers import open_descriptors

IN_PROCESSES = bool(os.environ.get("SSLSOCK_TEST_PROCESSES"))  # every proxy of these tests with --processes
DEADLINE = 90.0  # seconds
LIFETIME = 600.0  # seconds after which a proxy is killed, whatever it does
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


def told_of_threads(pid: int, file: str) -> dict[str, str]:
    """What /proc/PID/task/THREAD/`file` says of each thread of a process; one that ends meanwhile is left out."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[task.name] = (task / file).read_text()
    return found


def children(pid: int) -> list[int]:
    """The processes that it has started and that have not ended."""
    return sorted(int(child) for text in told_of_threads(pid, "children").values() for child in text.split())


def family(pid: int) -> list[int]:
    """It and all that come of it: with `--processes` the front, the nursery, and the workers."""
    return [pid, *(one for child in children(pid) for one in family(child))]


def told_of(pid: int, word: str) -> str:
    """What /proc/PID/status says under `word`."""
    return re.findall(rf"^{word}:\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[0]


def writers_of(pipe: Optional[IO[bytes]]) -> list[int]:
    """The other processes that have a pipe of ours open."""
    assert pipe is not None
    wanted = os.readlink(f"/proc/self/fd/{pipe.fileno()}")
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if pid != os.getpid() and wanted in open_descriptors(pid).values():
                found.append(pid)
    return found


def user_ids(pid: int) -> set[str]:
    """All that the threads of a process have: real, effective, saved and of files."""
    lines = [line for text in told_of_threads(pid, "status").values() for line in text.splitlines()]
    return {uid for line in lines if line.startswith("Uid:") for uid in line.split()[1:]}


def resident(pid: int) -> int:
    """Bytes of memory in use, without pages of files."""
    _, mapped, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    return (mapped - shared) * resource.getpagesize()


def wait_until(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not seen within {seconds:g} s: {what}"
        select.select([], [], [], 0.005)


def wait_until_taken(client: socket.socket) -> None:
    """Until the other end, in another process over IPv4, has received all that was sent: a reset would throw it away."""
    ours, theirs = (f":{name[1]:04X}" for name in (client.getsockname(), client.getpeername()))

    def waiting() -> int:
        queues = 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, _, lengths, *_ = line.split()
            if {local[-5:], remote[-5:]} == {ours, theirs}:
                sent, received = lengths.split(":")
                queues += int(sent, 16) + (int(received, 16) if local.endswith(theirs) else 0)
        return queues

    wait_until(lambda: waiting() == 0, "that the other end takes what was sent")


# The process


class Proxy:
    """A proxy that runs. ports: of its listeners, in order. metrics_port: 0 without `--metrics`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid
        self.ports: list[int] = []
        self.metrics_port = 0
        self.announced: list[str] = []
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line.decode("utf-8", "backslashreplace").rstrip("\n"))

    @property
    def lines(self) -> list[str]:
        """What it has written on standard error."""
        return self._lines.copy()

    def read_announcement(self, listeners: int) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            line = raw.decode().rstrip("\n")
            self.announced.append(line)
            if line.startswith("listening on "):
                self.ports.append(int(line.partition(", to ")[0].rpartition(":")[2]))
            elif line.startswith("metrics at "):
                self.metrics_port = int(line.rpartition(":")[2].partition("/")[0])
                break
            if len(self.ports) == listeners and "--metrics" not in self.process.args:  # type: ignore[operator]
                break
        if not self.ports:
            self.process.wait(DEADLINE)
            self._reader.join(DEADLINE)
            raise AssertionError(f"it did not start: {self.lines}")

    @property
    def port(self) -> int:
        return self.ports[0]

    def end_the_rest(self) -> list[str]:
        """Once the front has ended: kills who keeps its standard error open and does not end. Returns who that was."""
        self._reader.join(DEADLINE / 3)
        found = []
        for pid in writers_of(self.process.stderr) if self._reader.is_alive() else ():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                name, state = (told_of(pid, word) for word in ("Name", "State"))
                found.append(f"{name} {pid}, {state}")
                os.kill(pid, signal.SIGKILL)
        return found

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_for_line(self, text: str, count: int = 1) -> str:
        """The first line with `text`, once there are `count` of them."""

        def found() -> list[str]:
            return [line for line in self.lines if text in line]

        wait_until(lambda: len(found()) >= count or self.process.poll() is not None, f"{text!r}, {count} times")
        assert len(found()) >= count, f"it has ended: {self.lines}"
        return found()[0]

    def reload(self) -> None:
        """SIGHUP, followed to its end."""
        before = sum("SIGHUP: read again" in line for line in self.lines)
        self.send(signal.SIGHUP)
        self.wait_for_line("SIGHUP: read again", before + 1)

    def wait(self) -> int:
        """The exit status."""
        status = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return status

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.send(number)
        return self.wait()

    # What the system knows, of all its processes

    @property
    def pids(self) -> list[int]:
        """The last of them is a worker."""
        return family(self.pid)

    @property
    def descriptors(self) -> int:
        """Those that it has open, but for timers: libkqueue (ci/kqueue) has one while a loop's timer is set."""
        targets = [target for pid in self.pids for target in open_descriptors(pid).values()]
        return sum(target != "anon_inode:[timerfd]" for target in targets)

    @property
    def resident(self) -> int:
        """Bytes, without pages of files, which the system drops and reads again when it likes."""
        return sum(map(resident, self.pids))

    def cpu_seconds(self) -> float:
        return sum(self.thread_seconds().values())

    def thread_seconds(self) -> dict[str, float]:
        """CPU time by thread."""
        found = {}
        for pid in self.pids:
            for thread, text in told_of_threads(pid, "stat").items():
                fields = text.rpartition(")")[2].split()
                found[thread] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return found

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Every sample: (name, then the values of its labels, sorted by label) → value."""
        from prometheus_client.parser import text_string_to_metric_families

        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=DEADLINE) as answer:
            text = answer.read().decode()
        return {
            (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


def in_processes(arguments: Sequence[object]) -> Sequence[object]:
    """The same with processes for threads, where that is asked for (`IN_PROCESSES`)."""
    if not IN_PROCESSES or {"--processes", "--config"} & {*arguments}:
        return arguments
    if "--threads" in arguments:
        return ["--processes" if word == "--threads" else word for word in arguments]
    return [*arguments, "--processes", 2]


@contextlib.contextmanager
def proxy(*arguments: object, listeners: int = 1, **options: Any) -> Iterator[Proxy]:
    """`python -m sslsock proxy` once it listens. Killed at the end if it still runs; it must not have shown a traceback."""
    program = options.pop("program", command("proxy", *in_processes(arguments)))
    environment = {**ENVIRONMENT, **options.pop("env", {})}
    lifetime = options.pop("lifetime", LIFETIME)
    pipe = subprocess.PIPE
    with subprocess.Popen(program, env=environment, stdout=pipe, stderr=pipe, **options) as process:
        watchdog = threading.Timer(lifetime, process.kill)
        watchdog.start()
        running = Proxy(process)
        try:
            running.read_announcement(listeners)
            yield running
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
            outlived = running.end_the_rest()
            running._reader.join(DEADLINE)
        assert not outlived, f"the front had ended, and these were still there: {outlived}"
        for word in ("Traceback", "runtime error: "):  # the second is UBSan's
            assert not any(word in line for line in running.lines), "\n".join(running.lines)


# Certificates


class Site:
    """An authority, and files with certificates of it, each with its key. context: for clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.context = heeding_cuts(ssl.create_default_context(cafile=str(self.ca)))

    def issue(self, name: str = "localhost", file: str = "site.pem") -> Path:
        path = self.folder / file
        issued = self.authority.issue_cert("localhost", "127.0.0.1", "::1", common_name=name)
        issued.private_key_and_cert_chain_pem.write_to_path(path)
        path.chmod(0o600)
        return path


def put(source: Path, target: Path) -> None:
    """Make `target` the same as `source`, so that a reader sees the old file or the new one."""
    temporary = target.with_suffix(".new")
    temporary.write_bytes(source.read_bytes())
    temporary.chmod(source.stat().st_mode)
    temporary.replace(target)


def write_ticket_keys(path: Path, *keys: bytes) -> bytes:
    """A file of ticket keys, swapped as `put` does; a random key in front. Returns that key."""
    key = os.urandom(80)
    temporary = path.with_suffix(".new")
    temporary.touch(0o600)
    temporary.write_bytes(b"".join(base64.b64encode(one) + b"\n" for one in (key, *keys)))
    temporary.replace(path)
    return key


# Back ends


def answer_of(name: str, size: int) -> bytes:
    pattern = (name + " 0123456789abcdef").encode()
    return (pattern * (size // len(pattern) + 1))[:size]


class Origin:
    """A back end, in threads. connections: those it has taken so far."""

    def __init__(self, name: str, port: int = 0, host: str = "127.0.0.1") -> None:
        self.name = name
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((host, port), backlog=4096)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            for line in lines:
                if line.startswith(b"get "):
                    connection.sendall(answer_of(self.name, int(line[4:])))
                    break
                connection.sendall(self.name.encode() + b"\n" if line == b"who\n" else line)
        self._open.discard(connection)

    def close(self) -> None:
        """As when its process is killed: the port is closed, every connection reset."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept(2)
        self._thread.join(DEADLINE)
        self._listener.close()
        for connection in self._open.copy():
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def origin(name: str = "origin") -> Iterator[Origin]:
    made = Origin(name)
    try:
        yield made
    finally:
        made.close()


# Clients


def connect(port: int, context: Optional[ssl.SSLContext] = None, **options: Any) -> socket.socket:
    """A connection to the proxy, with TLS if there is a context. options: of `wrap_socket`."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
    if context is None:
        return raw
    try:
        return context.wrap_socket(raw, server_hostname="localhost", **options)
    except BaseException:
        raw.close()
        raise


def say(connection: socket.socket, line: bytes = b"hello\n") -> None:
    """A line to the back end, and back."""
    connection.sendall(line)
    came = b""
    while len(came) < len(line):
        data = connection.recv(65536)
        assert data, f"cut after {came!r}"
        came += data
    assert came == line


def ask(connection: socket.socket, size: int) -> bytes:
    """The whole answer to `get`."""
    connection.sendall(b"get %d\n" % size)
    return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while data := connection.recv(65536):
        parts.append(data)
    return b"".join(parts)


def read_from_all(connections: Sequence[socket.socket], expected: bytes) -> None:
    """The whole answer to each, in whatever order they come; each is closed."""
    left = set(connections)
    while left:
        ready = select.select(left, [], [], DEADLINE)[0]
        assert ready, f"{len(left)} wait in vain"
        for connection in ready:
            assert read_all(connection) == expected
            connection.close()
            left.discard(connection)


def fetch(port: int, size: int = 1000, context: Optional[ssl.SSLContext] = None) -> bytes:
    with connect(port, context) as connection:
        return ask(connection, size)


def common_name(connection: socket.socket) -> str:
    """Of the certificate that the proxy has shown."""
    assert isinstance(connection, ssl.SSLSocket)
    certificate = connection.getpeercert()
    assert certificate is not None
    return str(dict(pair[0] for pair in certificate["subject"])["commonName"])  # type: ignore[index,misc]


class Traffic:
    """Clients that ask one thing a connection, again and again, until `stop`.

    answers: how often all was well. failures: what was not, among connections that the system had made. refused: how often it
    made none. answered_by: the names of the back ends.
    """

    def __init__(
        self, ports: Sequence[int], context: Optional[ssl.SSLContext] = None, clients: int = 4, size: int = 20_000
    ) -> None:
        self.answers = self.refused = 0
        self.failures: list[str] = []
        self.answered_by: dict[str, int] = {}
        self.names: set[str] = set()
        self._rounds = [0] * clients
        self._ports = ports
        self._context = context
        self._size = size
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,), daemon=True) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def _work(self, number: int) -> None:
        while not self._stopped.is_set():
            port = self._ports[number % len(self._ports)]
            try:
                raw = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
            except OSError:
                with self._lock:
                    self.refused += 1
                if self._stopped.wait(0.01):
                    return
                continue
            try:
                self._ask(raw)
            except (OSError, AssertionError) as exc:
                with self._lock:
                    self.failures.append(f"{type(exc).__name__}: {exc}")
            self._rounds[number] += 1

    def _secured(self, raw: socket.socket) -> socket.socket:
        """As it is, without a context. An end without close_notify is a failure, even behind the whole answer."""
        if self._context is None:
            return raw
        return self._context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False)

    def _ask(self, raw: socket.socket) -> None:
        with self._secured(raw) as connection:
            answer = ask(connection, self._size)
            name = answer.partition(b" ")[0].decode()
            assert answer == answer_of(name, self._size), f"{len(answer)} bytes of {self._size}"
            with self._lock:
                self.answers += 1
                self.answered_by[name] = self.answered_by.get(name, 0) + 1
                if self._context is not None:
                    self.names.add(common_name(connection))

    def wait_for(self, answers: int) -> None:
        """Until there are so many more answers."""
        goal = self.answers + answers
        wait_until(lambda: self.answers >= goal, f"{answers} more answers; failures: {self.failures[:3]}")

    def wait_for_all(self) -> None:
        """Until each client is done with what it has begun, well or not."""
        goals = [rounds + 1 for rounds in self._rounds]
        wait_until(lambda: all(map(int.__ge__, self._rounds, goals)), f"the next round of every client; {self.failures[:3]}")

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive(), "a client hangs"

    def __enter__(self) -> Traffic:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(DEADLINE)


# Sockets as systemd passes them

PASS_IN = """
import os, sys
if int(sys.argv[1]) != 3:
    os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


def inherited(listening: socket.socket, *arguments: object) -> list[str]:
    """The command, with a socket passed in as systemd does."""
    return [sys.executable, "-c", PASS_IN, str(listening.fileno()), *command("proxy", *in_processes(arguments))]
