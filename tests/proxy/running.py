"""`python -m sslsock proxy` as a process, and the ends of a connection through it.

A test holds both ends itself: `Path.connected()` gives the client's and the back end's, after all handshakes. Nothing sleeps;
what does not come is missed after TIMEOUT.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import re
import select
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional

import pytest

from command_helpers import ENVIRONMENT, Identity, command

from .operations import IN_PROCESSES, family, resident

CLONE_NEWNET = 0x40000000  # unshare(2)
TIMEOUT = 90.0  # seconds
LOG = ("--log-format", "json", "--log-probes")
# On standard output too.
ANNOUNCED = re.compile(r'"message": "(?:listening on|in \d+ worker|metrics at|with a certificate for localhost) ')
LISTENING = re.compile(r"listening on (?:(?:tls|tcp)://.*:(\d+)|(?:tls\+)?unix:.*), to ")


@contextlib.contextmanager
def serving(arguments: Sequence[str], reach: Callable[[], socket.socket], **options: Any) -> Iterator[None]:
    """A back end's program, once it can be reached; ended afterwards. options: of Popen."""
    environment = {**ENVIRONMENT, **options.pop("env", {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(arguments, env=environment, **pipes, **options) as process:
        assert process.stdout is not None
        try:
            end = time.monotonic() + TIMEOUT
            while True:
                with contextlib.suppress(OSError):
                    reach().close()
                    break
                assert process.poll() is None and time.monotonic() < end, process.stdout.read()
                time.sleep(0.02)  # nothing tells when it listens
            yield
        finally:
            process.terminate()
            process.stdout.read()
            process.wait(TIMEOUT)


class Proxy:
    """A proxy that runs. ports: of its listeners, in order. process: `subprocess.Popen`."""

    def __init__(self, process: subprocess.Popen[bytes], listeners: int) -> None:
        self.process = process
        self.messages: list[str] = []  # lines for the operator, but for those that say where it listens
        self._records: queue.Queue[dict[str, Any]] = queue.Queue()
        self._news = threading.Condition()
        self._metrics_at = ""
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self.ports: list[int] = []
        assert process.stdout is not None
        while len(self.ports) < listeners:
            line = process.stdout.readline().decode()
            if not line:
                self._thread.join(TIMEOUT)
                raise AssertionError(f"the proxy did not start: {self.messages}")
            found = LISTENING.match(line)
            if found is not None:
                self.ports.append(int(found[1] or 0))  # 0: a UNIX socket

    @property
    def port(self) -> int:
        return self.ports[0]

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            text = line.decode().rstrip("\n")
            if text.startswith('{"time"'):
                self._records.put(json.loads(text))
                continue
            if ANNOUNCED.search(text):
                continue
            with self._news:
                self.messages.append(text)
                self._news.notify_all()

    def announced(self, part: str) -> str:
        """What stands behind it in the next line of standard output that has it."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline().decode():
            if part in line:
                return line.partition(part)[2].strip()
        raise AssertionError(f"the proxy has ended and not said {part!r}")

    def metrics(self) -> list[str]:
        """The lines of its metrics; it was started with --metrics."""
        self._metrics_at = self._metrics_at or self.announced("metrics at ")
        with urllib.request.urlopen(self._metrics_at, timeout=TIMEOUT) as answer:
            lines: list[str] = answer.read().decode().splitlines()
        return lines

    def record(self, peer: Optional[str] = None) -> dict[str, Any]:
        """What the proxy has logged of the next connection that ended; peer: of the next one of this client."""
        while True:
            try:
                record = self._records.get(timeout=TIMEOUT)
            except queue.Empty:
                raise AssertionError(f"the end of the connection was not logged; messages: {self.messages}") from None
            if peer is None or record["peer"] == peer:
                return record

    def wait_for_message(self, part: str, after: int = 0) -> str:
        """A line for the operator, behind the first `after`."""
        with self._news:
            found = self._news.wait_for(lambda: any(part in line for line in self.messages[after:]), TIMEOUT)
            assert found, (part, self.messages)
            return next(line for line in self.messages[after:] if part in line)

    def resident(self) -> int:
        """Bytes of memory in use by all its processes, without pages of files, which the system drops when it likes."""
        return sum(map(resident, family(self.process.pid)))

    def stop(self) -> None:
        """End it. Whatever it said must not have been an exception."""
        assert self.process.poll() is None, f"the proxy has ended by itself: {self.messages}"
        self.process.terminate()
        status = self.process.wait(TIMEOUT)
        self._thread.join(TIMEOUT)
        said = [line for line in self.messages if "Traceback" in line or "xception" in line]
        assert not said, self.messages
        assert status == 0, (status, self.messages)


@contextlib.contextmanager
def running(*options: object, listeners: int = 1, threads: int = 1, log: Sequence[str] = LOG) -> Iterator[Proxy]:
    """A proxy that logs in JSON, also those who say nothing, and drains for a moment only."""
    workers = ("--processes", threads) if IN_PROCESSES else ("--threads", threads)
    arguments = command("proxy", *workers, *log, "--drain-timeout", 0.1, *options)
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, env=ENVIRONMENT, stdout=pipe, stderr=pipe) as process:
        try:
            proxy = Proxy(process, listeners)
            yield proxy
            proxy.stop()
        finally:
            process.kill()


def in_own_network(work: Callable[[], None], preparation: str = "") -> None:
    """Work in a network namespace with nothing but loopback: of a thread, and of what that starts. preparation: commands."""
    failed: list[BaseException] = []

    def run() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            failed.append(OSError(ctypes.get_errno(), "unshare"))
            return
        try:
            subprocess.run(["sh", "-ec", f"ip link set lo up\n{preparation}"], check=True, timeout=TIMEOUT)
            work()
        except BaseException as exc:
            failed.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed and isinstance(failed[0], OSError) and failed[0].strerror == "unshare":
        pytest.skip("no network namespace is to be had")
    for exc in failed:
        raise exc


# Ends


def listener(address: str = "127.0.0.1") -> socket.socket:
    """The listening socket of a back end."""
    sock = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.settimeout(TIMEOUT)
    return sock


def accept(listening: socket.socket, context: Optional[ssl.SSLContext] = None) -> socket.socket:
    """The next connection to a back end; with TLS if there is a context."""
    sock = listening.accept()[0]
    sock.settimeout(TIMEOUT)
    return sock if context is None else context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)


def connect(
    port: int,
    context: Optional[ssl.SSLContext] = None,
    name: Optional[str] = "localhost",
    source: str = "127.0.0.1",
    **options: Any,
) -> Any:
    """A client, from the address `source`. `options` are of `SSLContext.wrap_socket`."""
    sock = socket.create_connection(("127.0.0.1", port), TIMEOUT, (source, 0))
    if context is None:
        return sock
    try:
        return context.wrap_socket(sock, server_hostname=name, suppress_ragged_eofs=False, **options)
    except BaseException:
        sock.close()
        raise


def address_of(client: Any) -> str:
    return "{}:{}".format(*client.getsockname()[:2])


def receive(sock: socket.socket, size: int = 65536) -> bytes:
    """As `recv`. `ssl` raises for a clean end if its own side was ended before."""
    try:
        return sock.recv(size)
    except ssl.SSLZeroReturnError:
        return b""


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = receive(sock, min(size - len(data), 65536))
        assert piece, f"the end came after {len(data)} bytes of {size}"
        data += piece
    return bytes(data)


def receive_all(sock: socket.socket) -> bytes:
    """Everything up to the end."""
    data = bytearray()
    while piece := receive(sock):
        data += piece
    return bytes(data)


ALERTS = {"TLSV1_ALERT_INTERNAL_ERROR": "internal_error", "TLSV1_ALERT_ACCESS_DENIED": "access_denied",
          "TLSV1_UNRECOGNIZED_NAME": "unrecognized_name"}  # fmt: skip


def end_of(sock: socket.socket) -> str:
    """How a connection ends on which nothing comes: "clean" (close_notify, or a FIN in the clear), "reset", or the alert."""
    try:
        data = receive(sock)
    except ConnectionResetError:
        return "reset"
    except ssl.SSLError as exc:
        return ALERTS.get(exc.reason, exc.reason)
    assert not data, data
    return "clean"


def end_of_new(port: int, context: Optional[ssl.SSLContext] = None, **options: Any) -> str:
    """How a new connection ends that the proxy may end by itself at once. options: of `connect`.

    The reset may be there before the client's own `connect` has returned, which then meets it.
    """
    try:
        with connect(port, context, **options) as client:
            return end_of(client)
    except ConnectionResetError:
        return "reset"


def end_output(sock: socket.socket) -> None:
    """Nothing more will be sent: close_notify with TLS, else FIN. The socket can still receive."""
    if isinstance(sock, ssl.SSLSocket):
        sock.settimeout(0)
        with contextlib.suppress(ssl.SSLWantReadError):
            sock.unwrap()
        sock.settimeout(TIMEOUT)
    else:
        sock.shutdown(socket.SHUT_WR)


class Path:
    """A proxy between two schemes, with one back end that the test plays. peer: the last client, as it is logged."""

    def __init__(self, front: str, back: str, proxy: Proxy, listening: socket.socket, identity: Identity) -> None:
        self.front, self.back = front, back
        self.proxy = proxy
        self.listening = listening
        self.client_context = identity.client_context() if front == "tls" else None
        self.peer = ""
        self.server_context = identity.server_context() if back == "tls" else None

    def connect_client(self, **options: Any) -> Any:
        client = connect(self.proxy.port, options.pop("context", self.client_context), **options)
        self.peer = address_of(client)
        return client

    def record(self) -> dict[str, Any]:
        """What the proxy has logged of the last client.

        It is known by its port, which the system may give to another client as soon as it is free. So whoever shares a path
        takes the record of every connection it has made: one that is left over would be taken for a later client's.
        """
        return self.proxy.record(self.peer)

    def accept(self, context: Optional[ssl.SSLContext] = None) -> Any:
        return accept(self.listening, context or self.server_context)

    @contextlib.contextmanager
    def connected(self) -> Iterator[tuple[Any, Any]]:
        """Both ends of a new connection."""
        with self.connect_client() as client, self.accept() as server:
            yield client, server


@contextlib.contextmanager
def path(front: str, back: str, identity: Identity, *options: object) -> Iterator[Path]:
    arguments: list[object] = []
    if front == "tls":
        arguments += ["--cert", identity.cert, "--key", identity.key]
    if back == "tls":
        arguments += ["--to-ca", identity.ca]
    with listener() as listening:
        to = f"{back}://127.0.0.1:{listening.getsockname()[1]}"
        with running("--listen", f"{front}://127.0.0.1:0", "--to", to, *arguments, *options) as proxy:
            yield Path(front, back, proxy, listening, identity)


# Bytes that can be checked

PERIOD = 1048573  # a prime: no offset of a record, a buffer or a page looks like another
PATTERN = os.urandom(PERIOD) * 2
CHUNK = 256 * 1024


def pattern(shift: int, offset: int, size: int) -> memoryview:
    """`size` (up to CHUNK) bytes of the stream number `shift`, from `offset` on."""
    start = (shift + offset) % PERIOD
    return memoryview(PATTERN)[start : start + size]  # threads share none: CPython 3.13 counts slices without a lock


class Transfer:
    """Sends one stream and checks another at the same time, in one thread: `ssl` allows only one call at a time."""

    def __init__(self, sock: Any, sends: int, shift_out: int, receives: int, shift_in: int) -> None:
        self.sock = sock
        self.sends, self.shift_out = sends, shift_out
        self.receives, self.shift_in = receives, shift_in
        self.sent = self.received = 0
        self.error: Optional[BaseException] = None

    def run(self) -> None:
        try:
            self.sock.setblocking(False)
            while self.sent < self.sends or self.received < self.receives:
                moved, waits_to_write = self._send(), self.sent < self.sends
                if not (self._receive() or moved):
                    ready = select.select([self.sock], [self.sock] if waits_to_write else [], [], TIMEOUT)
                    assert ready != ([], [], []), f"stuck: sent {self.sent}, received {self.received}"
            self.sock.settimeout(TIMEOUT)
        except BaseException as exc:
            self.error = exc

    def _send(self) -> bool:
        if self.sent == self.sends:
            return False
        piece = pattern(self.shift_out, self.sent, min(CHUNK, self.sends - self.sent))
        try:
            count = self.sock.send(piece)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return False
        self.sent += count
        return True

    def _receive(self) -> bool:
        if self.received == self.receives:
            return False
        try:
            data = self.sock.recv(min(CHUNK, self.receives - self.received))
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return False
        assert data, f"the end came after {self.received} bytes of {self.receives}"
        assert data == pattern(self.shift_in, self.received, len(data)), f"wrong bytes behind {self.received}"
        self.received += len(data)
        return True


def transfer(one: Any, other: Any, there: int, back: int) -> None:
    """`there` bytes from one to the other and `back` bytes at the same time the other way, all of them checked."""
    ends = (Transfer(one, there, 17, back, 4711), Transfer(other, back, 4711, there, 17))
    thread = threading.Thread(target=ends[1].run, daemon=True)
    thread.start()
    ends[0].run()
    thread.join(TIMEOUT if ends[0].error is not None else None)
    for end in ends:
        if end.error is not None:
            raise end.error
