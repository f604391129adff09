"""Shared by the tests: certificates, a host that drives the loop, pairs of connected sockets, a recorder of handlers.

Nothing here sleeps for a fixed time or uses a fixed port: `Host.wait_for` turns the loop until a condition holds, and
fails with what was recorded when the deadline has passed.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
import trustme

import sslsock
from sslsock import EventLoop, SslCertificate, SslConfiguration, SslKey, SslServer, SslSocket, TcpServer, TcpSocket
from sslsock.core.folder_watch import FolderWatch
from sslsock.sockets import snapshot

INSTRUMENTED = bool(os.environ.get("SSLSOCK_SANITIZE") or os.environ.get("SSLSOCK_VALGRIND"))

# A sanitizer keeps freed memory, and valgrind adds its own: what a process takes says nothing there.
MEMORY_TELLS = not INSTRUMENTED

# A wheel is tested beside the tests alone (ci/prove-wheels); what reads the package's sources needs a checkout.
SOURCES = Path(__file__).resolve().parent.parent / "src" / "sslsock"
needs_sources = pytest.mark.skipif(not SOURCES.is_dir(), reason="the sources are not beside the tests")


def has_inotify() -> bool:
    try:
        FolderWatch().close()
    except OSError:
        return False
    return True


needs_inotify = pytest.mark.skipif(not has_inotify(), reason="there is no inotify to be had")

HOSTS = ("own", "asyncio", "uvloop")
# Seconds until a test that waits has failed: what a busy machine needs. valgrind takes thirty times as long.
DEADLINE = 100.0 if INSTRUMENTED else 30.0

HANDLERS = {
    "ready_read_handler": "ready",
    "bytes_written_handler": "written",
    "about_to_close_handler": "about_to_close",
    "connected_handler": "connected",
    "disconnected_handler": "disconnected",
    "error_handler": "error",
    "state_changed_handler": "state",
    "host_found_handler": "host_found",
    "encrypted_handler": "encrypted",
    "mode_changed_handler": "mode",
    "ssl_errors_handler": "ssl_errors",
}


class Host:
    """What turns the loop under test: it itself, or an asyncio loop that it is attached to."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.failures: list[dict[str, Any]] = []
        self._host: Any = None
        if kind == "asyncio":
            import asyncio

            self._host = asyncio.new_event_loop()
        elif kind == "uvloop":
            self._host = pytest.importorskip("uvloop").new_event_loop()
        self.loop = EventLoop.current()
        self.loop.exception_handler = self._on_exception

    def _on_exception(self, loop: object, context: dict[str, Any]) -> None:
        self.failures.append(context)

    def take_failures(self) -> list[BaseException]:
        """Exceptions that handlers have raised, which then do not fail the test."""
        failures, self.failures = self.failures, []
        return [failure["exception"] for failure in failures]

    def wait_for(
        self, condition: Callable[[], object], what: object = "", seconds: float = DEADLINE, pause: float = 0.02
    ) -> None:
        """Turn the loop until `condition()` is true. what: said if it does not become so; called first if it is a function."""
        end = time.monotonic() + seconds
        if self._host is not None:
            self._host.run_until_complete(self._until(condition, what, end))
            return
        while not condition():
            assert time.monotonic() < end, f"waited in vain: {what() if callable(what) else what or condition}"
            self.loop.dispatch(pause)  # a condition may also come true in another thread

    async def _until(self, condition: Callable[[], object], what: object, end: float) -> None:
        import asyncio

        EventLoop.current()  # as any use of a socket does: it attaches the loop
        while not condition():
            assert time.monotonic() < end, f"waited in vain: {what() if callable(what) else what or condition}"
            await asyncio.sleep(0.0005)

    def turn(self, count: int = 3) -> None:
        """Some turns, to see that nothing happens in them."""
        left = iter(range(count))
        self.wait_for(lambda: next(left, None) is None, pause=0.001)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """The result of a call made where the loop runs: under asyncio inside the running loop."""
        results: list[Any] = []
        self.wait_for(lambda: results or results.append(function(*args)) or results)
        return results[0]

    def close(self) -> None:
        self.loop.close()
        if self._host is not None:
            self._host.close()
        assert not self.failures, [repr(failure["exception"]) for failure in self.failures]


def forget_contexts() -> None:
    """Contexts of equal configurations are shared, with their sessions: the next are new ones."""
    snapshot.contexts.clear()
    snapshot.recent.clear()


class Recorder:
    """Notes what the handlers of a socket tell, in order: tuples of name and arguments. Received data goes to
    `data`."""

    def __init__(self, sock: TcpSocket, *, reads: bool = True) -> None:
        self.socket = sock
        self.events: list[tuple[Any, ...]] = []
        self.data = bytearray()
        self.written = 0
        for attribute, name in HANDLERS.items():
            if hasattr(sock, attribute):
                setattr(sock, attribute, self._make(name, reads))

    def _make(self, name: str, reads: bool) -> Callable[..., None]:
        def handler(sock: TcpSocket, *args: Any) -> None:
            if name == "ready" and reads:
                self.data += sock.read_all()
            elif name == "written":
                self.written += args[0]
            else:
                self.events.append((name, *args))

        return handler

    def names(self) -> list[str]:
        return [event[0] for event in self.events]

    def has(self, name: str) -> bool:
        return name in self.names()

    def of(self, name: str) -> list[Any]:
        """First arguments of the events of a name."""
        return [event[1] for event in self.events if event[0] == name]

    def clear(self) -> None:
        self.events.clear()


class Certificates:
    """An authority, and configurations for both ends."""

    def __init__(self) -> None:
        self.ca = trustme.CA()
        self.ca_certificate = SslCertificate(self.ca.cert_pem.bytes())
        self._server = self.ca.issue_cert("localhost", "127.0.0.1", "::1", common_name="localhost")
        self._client = self.ca.issue_cert("client@example.org", common_name="client")

    @staticmethod
    def with_identity(issued: trustme.LeafCert) -> SslConfiguration:
        configuration = SslConfiguration()
        configuration.local_certificate_chain = [SslCertificate(pem.bytes()) for pem in issued.cert_chain_pems]
        configuration.private_key = SslKey(issued.private_key_pem.bytes())
        configuration.use_system_ca = False
        return configuration

    def server(self, *names: str, **options: Any) -> SslConfiguration:
        """For a server: of localhost, or of `names` and trustme's options."""
        issued = self.ca.issue_cert(*names, **options) if names or options else self._server
        configuration = self.with_identity(issued)
        configuration.add_ca_certificate(self.ca_certificate)
        return configuration

    def client(self, identity: bool = False) -> SslConfiguration:
        """For a client that trusts the authority."""
        configuration = self.with_identity(self._client) if identity else SslConfiguration()
        configuration.use_system_ca = False
        configuration.add_ca_certificate(self.ca_certificate)
        return configuration


class Pair:
    """Two connected sockets, each with its recorder."""

    def __init__(self, host: Host, client: Any, server: Any, left: Recorder, right: Recorder) -> None:
        self.host = host
        self.client = client
        self.server = server
        self.left = left
        self.right = right


def wait_for_end(host: Host, recorder: Recorder) -> None:
    host.wait_for(lambda: recorder.has("disconnected"), recorder.events)


def silence(pair: Pair) -> None:
    """Take the recorders off, which know their sockets and are known to them."""
    for sock in (pair.client, pair.server):
        for attribute in HANDLERS:
            if hasattr(sock, attribute):
                setattr(sock, attribute, None)


def listening(server: TcpServer, address: str = "127.0.0.1") -> TcpServer:
    assert server.listen(0, address), server.error_string
    return server


def secure_server(certificates: Certificates) -> SslServer:
    """A server of localhost that listens."""
    server = SslServer()
    server.configuration = certificates.server()
    listening(server)
    return server


def accept(host: Host, server: TcpServer, reads: bool = True) -> Recorder:
    """The server's next connection, secure if it is an SslServer, with a recorder on it."""
    host.wait_for(lambda: server.has_pending_connections, "a pending connection")
    secure = isinstance(server, SslServer)
    sock = server.next_pending_secure_connection() if secure else server.next_pending_connection()
    assert sock is not None
    return Recorder(sock, reads=reads)


def make_tcp_pair(host: Host, kind: type[TcpSocket] = TcpSocket, reads: bool = True) -> Pair:
    server = listening(TcpServer() if kind is TcpSocket else SslServer())
    client = kind()
    left = Recorder(client, reads=reads)
    client.connect("127.0.0.1", server.port)
    host.wait_for(lambda: left.has("connected") and server.has_pending_connections, left.events)
    taken = server.next_pending_connection()
    assert taken is not None
    right = Recorder(taken, reads=reads)
    server.close()
    return Pair(host, client, taken, left, right)


def make_ssl_pair(
    host: Host,
    client_configuration: SslConfiguration,
    server_configuration: SslConfiguration,
    reads: bool = True,
    name: str = "localhost",
) -> Pair:
    """A pair whose handshakes are done."""
    server = SslServer()
    server.configuration = server_configuration
    listening(server)
    client = SslSocket()
    client.configuration = client_configuration
    client.peer_verify_name = name
    left = Recorder(client, reads=reads)
    client.connect_encrypted("127.0.0.1", server.port)
    right = accept(host, server, reads=reads)
    server.close()
    host.wait_for(lambda: client.encrypted and right.socket.encrypted, (left.events, right.events))
    return Pair(host, client, right.socket, left, right)


@contextlib.contextmanager
def stuck_port() -> Iterator[int]:
    """A port of 127.0.0.1 that does not answer: its queue is full, so the system drops what comes."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        stack.enter_context(socket.create_connection(listener.getsockname(), DEADLINE))
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextlib.contextmanager
def refused_port() -> Iterator[int]:
    """A port of 127.0.0.1 that is taken but not listened on: connections to it are refused."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextlib.contextmanager
def plain_listener() -> Iterator[socket.socket]:
    """A listening socket of the standard library, for peers that do as the test says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        yield listener


def reset(sock: socket.socket) -> None:
    """Close so that the peer sees a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


def echoed(connection: ssl.SSLSocket, data: bytes) -> bytes:
    """What comes back while `data` is sent, in one thread: not every CPython keeps two threads from being in one connection
    at once, which OpenSSL forbids (openssl-threads(7)).
    """
    patience = connection.gettimeout()
    connection.setblocking(False)
    poll = select.poll()
    left, received = memoryview(data), bytearray()
    while len(received) < len(data):
        try:
            if left:
                left = left[connection.send(left[:65536]) :]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        try:
            piece = connection.recv(65536)
            assert piece, f"the end came after {len(received)} bytes"
            received += piece
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            poll.register(connection, select.POLLIN | (select.POLLOUT if left else 0))
            assert poll.poll(None if patience is None else patience * 1000), f"nothing came after {len(received)} bytes"
    connection.settimeout(patience)
    return bytes(received)


def error_of(recorder: Recorder) -> Optional[sslsock.SocketError]:
    errors = recorder.of("error")
    return errors[-1] if errors else None


def end_lookups() -> None:
    """A name lookup that nobody waits for any more goes on in its thread, and has files open there."""
    for thread in threading.enumerate():
        if thread.name == "sslsock-resolver":
            thread.join()


def open_descriptors(pid: int | str = "self") -> dict[str, str]:
    """Number and target of each that this process, or another, has open, so that a leak can be named."""
    found = {}
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # closed since: by the other process, or the one that lists
            found[number] = os.readlink(f"/proc/{pid}/fd/{number}")
    return found


def opened_since(before: dict[str, str]) -> list[tuple[str, str]]:
    """What is open and was not; not what an earlier test's object has given back meanwhile."""
    return sorted(open_descriptors().items() - before.items())
