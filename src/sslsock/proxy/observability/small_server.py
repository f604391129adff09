"""A small HTTP server, with threads of its own: for metrics and probes (`metrics_server`) and for http-01 (`acme.http`).

Not for many: each peer has a thread, and when there are as many as there may be, the oldest has to go.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

__all__ = ["SmallHandler", "SmallServer"]

LOOK_SECONDS = 0.25  # between looks whether there are descriptors again, or it is to end
PEER_TIMEOUT = 10.0  # seconds that a peer may be silent


class SmallServer:
    """Binds when it is made (so before privileges are dropped) and answers from `begin` on; who connects before waits.

    host: "" for every address. port: 0 for any. most: peers at a time. handler: a `SmallHandler`, made for each of them. name:
    of the threads. OSError: it cannot be bound.
    """

    def __init__(self, host: str, port: int, most: int, handler: type[SmallHandler], name: str) -> None:
        self._socket = _listening(host, port, most)
        self._most = most
        self._handler = handler
        self._name = name
        self._peers: dict[socket.socket, None] = {}  # oldest first
        self._held = 0  # connections that are open, those that were cut too
        self._lock = threading.Condition()  # for both; notified when one is closed
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._accept, name=name, daemon=True)

    @property
    def port(self) -> int:
        """The port that it is bound to."""
        return int(self._socket.getsockname()[1])

    @property
    def most_descriptors(self) -> int:
        """How many its peers may hold at once: a connection each, with one that has to go, and a file read for its answer."""
        return 2 * (self._most + 1)

    def begin(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def close(self) -> None:
        """Peers that are being answered are cut. A second call does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that is in accept(2)
        with self._lock:
            for peer in self._peers:
                _cut(peer)
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            with self._lock:
                # Who was cut holds its descriptor until its thread has seen that.
                if not self._lock.wait_for(lambda: self._held <= self._most, LOOK_SECONDS):
                    continue
            try:
                peer, address = self._socket.accept()
            except OSError:
                # Closed, or there are no descriptors: those come back when connections end, so trying on at once is no use.
                self._closed.wait(LOOK_SECONDS)
                continue
            with self._lock:
                if len(self._peers) >= self._most:
                    oldest = next(iter(self._peers))
                    del self._peers[oldest]
                    _cut(oldest)
                self._peers[peer] = None
                self._held += 1
            try:
                threading.Thread(target=self._answer, args=(peer, address), name=f"{self._name}-peer", daemon=True).start()
            except RuntimeError:  # the system gives no more threads; a probe that failed for it would have the process ended
                self._answer(peer, address)

    def _answer(self, peer: socket.socket, address: Any) -> None:
        with suppress(OSError):  # it is slow, or gone
            self._handler(peer, address, self)  # type: ignore[arg-type]
            peer.shutdown(socket.SHUT_WR)
        self._forget(peer)

    def _forget(self, peer: socket.socket) -> None:
        with self._lock:
            self._peers.pop(peer, None)
            peer.close()
            self._held -= 1
            self._lock.notify_all()


def _listening(host: str, port: int, most: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        with suppress(OSError):  # no IPv6 here, or the port is taken: the attempt below says which
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=most, dualstack_ipv6=True)
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return socket.create_server(address[:2], family=family, backlog=most)


def _cut(peer: socket.socket) -> None:
    with suppress(OSError):  # it has gone already
        peer.shutdown(socket.SHUT_RDWR)


class SmallHandler(BaseHTTPRequestHandler):
    timeout = PEER_TIMEOUT

    def do_HEAD(self) -> None:
        self.do_GET()  # whose answer has the same head (RFC 9110, 9.3.2)

    def do_GET(self) -> None:
        raise NotImplementedError

    def send_body(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "sslsock"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: who asks here does so every few seconds."""
