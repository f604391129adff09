"""Peers made of the standard library's `ssl`: blocking in a thread, or asyncio in a thread."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NamedTuple, Optional

from peers import DEADLINE, plain_listener

from .pki import NAME, Identity, Pki

VERSIONS = {"TLS_1_2": ssl.TLSVersion.TLSv1_2, "TLS_1_3": ssl.TLSVersion.TLSv1_3}


def bound(context: ssl.SSLContext, version: Optional[str]) -> ssl.SSLContext:
    if version is not None:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


def server_context(
    pki: Pki,
    identity: Optional[Identity] = None,
    version: Optional[str] = None,
    chain: Optional[Sequence[Identity]] = None,
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pki.files(identity or pki.server, chain))
    return bound(context, version)


def client_context(pki: Pki, identity: Optional[Identity] = None, version: Optional[str] = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki.root_file)
    if identity is not None:
        context.load_cert_chain(*pki.files(identity))
    return bound(context, version)


@contextlib.contextmanager
def blocking_client(
    context: ssl.SSLContext, port: int, name: str = NAME, session: Optional[ssl.SSLSession] = None
) -> Iterator[ssl.SSLSocket]:
    raw = socket.create_connection(("127.0.0.1", port), DEADLINE)
    with raw, context.wrap_socket(raw, server_hostname=name, session=session) as tls:
        yield tls


class Seen(NamedTuple):
    """What a blocking server saw of one connection. `error` is what its handshake or its reading ended with."""

    error: Optional[Exception]
    version: Optional[str]
    reused: Optional[bool]
    protocol: Optional[str]
    certificate: Optional[dict[str, Any]]
    clean: bool

    @property
    def words(self) -> str:
        return "" if self.error is None else str(self.error).lower()


def echo(tls: ssl.SSLSocket) -> None:
    while True:
        data = tls.recv(65536)
        if not data:
            return
        tls.sendall(data)


class SslModuleServer:
    """Serves one connection after the other in a thread: handshake, `talk`, goodbye.

    `seen` has an entry for each connection that has ended."""

    def __init__(self, context: ssl.SSLContext, talk: Callable[[ssl.SSLSocket], object] = echo) -> None:
        self.context = context
        self.talk = talk
        self.seen: list[Seen] = []
        self.wake: Optional[Callable[..., object]] = None
        self._stack = contextlib.ExitStack()
        self._listener = self._stack.enter_context(plain_listener())
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> SslModuleServer:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accept
        self._thread.join(DEADLINE)
        self._stack.close()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            raw.settimeout(DEADLINE)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or 40 ms go by before each answer
            self.seen.append(self._serve_one(raw))
            if self.wake is not None:  # a loop that would otherwise look at `seen` only now and then
                with contextlib.suppress(RuntimeError):
                    self.wake(int)

    def _serve_one(self, raw: socket.socket) -> Seen:
        try:
            tls = self.context.wrap_socket(raw, server_side=True)
        except OSError as exc:
            raw.close()
            return Seen(exc, None, None, None, None, False)
        error, clean = None, False
        try:
            self.talk(tls)
            clean = True
        except OSError as exc:
            error = exc
        seen = Seen(error, tls.version(), tls.session_reused, tls.selected_alpn_protocol(), tls.getpeercert() or None, clean)
        if clean:
            with contextlib.suppress(OSError):
                tls.unwrap().close()
        tls.close()
        return seen


def wait_for_greeting(port: int, greeting: bytes, server: Any) -> bool:
    """Wait, in a thread, until a server that speaks first does so. False when its program has ended."""
    end = time.monotonic() + DEADLINE
    while not server.ended and time.monotonic() < end:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), DEADLINE) as sock:
            return sock.recv(len(greeting)) == greeting
        threading.Event().wait(0.02)
    return False
