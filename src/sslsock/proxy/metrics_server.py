"""Where Prometheus and an orchestrator ask: an HTTP server for `GET /metrics` and probes, with threads of its own.

Apart from `metrics` because http.server and what it imports take as long to load as a third of the proxy, and only who
asks for `--metrics` needs it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Callable, Optional

from .metrics import import_prometheus

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

__all__ = ["MetricsServer"]

SCRAPERS = 16  # connections to the metrics that may be open at once
LOOK_SECONDS = 0.25  # between looks whether there are descriptors again, or it is to end
SCRAPE_TIMEOUT = 10.0  # seconds that a scraper may be silent


class MetricsServer:
    """Serves GET /metrics, in Prometheus's text format or in OpenMetrics', and probes, whose answer is 200 or 503.

    Binds when it is made (so before privileges are dropped) and answers from `start` on; who connects before waits. Each
    scraper has a thread, so that a slow one stops nobody; when there are `SCRAPERS` of them, the oldest has to go.

    host: "" for every address. port: 0 for any.

    OSError: it cannot be bound. MetricsError: the package prometheus_client is missing.
    """

    def __init__(self, host: str, port: int) -> None:
        self._prometheus = import_prometheus()
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        self._socket = socket.create_server(address[:2], family=family, backlog=SCRAPERS)
        self._registry = self._prometheus.CollectorRegistry(auto_describe=False)
        self._prometheus.ProcessCollector(registry=self._registry)
        self._probes: Mapping[str, Callable[[], str]] = {}
        self._scrapers: dict[socket.socket, None] = {}  # oldest first
        self._held = 0  # connections that are open, those that were cut too
        self._lock = threading.Condition()  # for both; notified when one is closed
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="metrics", daemon=True)

    @property
    def port(self) -> int:
        """The port that it is bound to."""
        return int(self._socket.getsockname()[1])

    @property
    def most_descriptors(self) -> int:
        """How many scrapers may hold at once: a connection each, with one that has to go, and a file read for its answer."""
        return 2 * (SCRAPERS + 1)

    def start(self, collector: Collector, probes: Optional[Mapping[str, Callable[[], str]]] = None) -> None:
        """Answer from now on. collector: from `make_collector`. probes: by path, what says why the answer is 503, or ""."""
        self._registry.register(collector)
        self._probes = probes or {}
        self._thread.start()

    def close(self) -> None:
        """Scrapers that are being answered are cut. A second call does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that is in accept(2)
        with self._lock:
            for scraper in self._scrapers:
                _cut(scraper)
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            with self._lock:
                # Who was cut holds its descriptor until its thread has seen that.
                if not self._lock.wait_for(lambda: self._held <= SCRAPERS, LOOK_SECONDS):
                    continue
            try:
                scraper, address = self._socket.accept()
            except OSError:
                # Closed, or there are no descriptors: those come back when connections end, so trying on at once is no use.
                self._closed.wait(LOOK_SECONDS)
                continue
            with self._lock:
                if len(self._scrapers) >= SCRAPERS:
                    oldest = next(iter(self._scrapers))
                    del self._scrapers[oldest]
                    _cut(oldest)
                self._scrapers[scraper] = None
                self._held += 1
            try:
                threading.Thread(target=self._answer, args=(scraper, address), name="scraper", daemon=True).start()
            except RuntimeError:  # the system gives no more threads
                self._forget(scraper)

    def _answer(self, scraper: socket.socket, address: Any) -> None:
        with suppress(OSError):  # it is slow, or gone
            _Handler(scraper, address, self)  # type: ignore[arg-type]
            scraper.shutdown(socket.SHUT_WR)
        self._forget(scraper)

    def _forget(self, scraper: socket.socket) -> None:
        with self._lock:
            self._scrapers.pop(scraper, None)
            scraper.close()
            self._held -= 1
            self._lock.notify_all()

    def probe(self, path: str) -> Optional[str]:
        """Why not, "" for no reason; None: there is no such probe."""
        probe = self._probes.get(path)
        return None if probe is None else probe()

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """The body and its type, for what a scraper accepts."""
        encode, content_type = self._prometheus.exposition.choose_encoder(accept)
        return encode(self._registry), content_type


def _cut(scraper: socket.socket) -> None:
    with suppress(OSError):  # it has gone already
        scraper.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer  # type: ignore[assignment]
    timeout = SCRAPE_TIMEOUT

    def do_HEAD(self) -> None:
        self.do_GET()  # whose answer has the same head (RFC 9110, 9.3.2)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        status = 200
        try:
            if path == "/metrics":
                body, content_type = self.server.metrics(self.headers.get("Accept", ""))
            else:
                problem = self.server.probe(path)
                if problem is None:
                    self.send_error(404, explain="/metrics, /healthz and /readyz are here.")
                    return
                status = 503 if problem else 200
                body, content_type = f"{problem or 'ok'}\n".encode(), "text/plain; charset=utf-8"
        except Exception as exc:  # of a view: whoever looks at the metrics is told
            self.send_error(500, explain=repr(exc))
            return
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "sslsock"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the metrics are asked for every few seconds."""
