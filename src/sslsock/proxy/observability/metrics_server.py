"""Where Prometheus and an orchestrator ask: an HTTP server for `GET /metrics` and probes, with threads of its own.

Apart from `metrics` because http.server and what it imports take as long to load as a third of the proxy, and only who
asks for `--metrics` needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Callable, Optional

from .metrics import import_prometheus
from .small_server import SmallHandler, SmallServer

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

__all__ = ["MetricsServer"]

SCRAPERS = 16  # connections to the metrics that may be open at once


class MetricsServer(SmallServer):
    """Serves GET /metrics, in Prometheus's text format or in OpenMetrics', and probes, whose answer is 200 or 503.

    OSError: it cannot be bound. MetricsError: the package prometheus_client is missing.
    """

    def __init__(self, host: str, port: int) -> None:
        self._prometheus = import_prometheus()
        super().__init__(host, port, SCRAPERS, _Handler, "metrics")
        self._registry = self._prometheus.CollectorRegistry(auto_describe=False)
        self._prometheus.ProcessCollector(registry=self._registry)
        self._probes: Mapping[str, Callable[[], str]] = {}

    def start(self, collector: Collector, probes: Optional[Mapping[str, Callable[[], str]]] = None) -> None:
        """Answer from now on. collector: from `make_collector`. probes: by path, what says why the answer is 503, or ""."""
        self._registry.register(collector)
        self._probes = probes or {}
        self.begin()

    def probe(self, path: str) -> Optional[str]:
        """Why not, "" for no reason; None: there is no such probe."""
        probe = self._probes.get(path)
        return None if probe is None else probe()

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """The body and its type, for what a scraper accepts."""
        encode, content_type = self._prometheus.exposition.choose_encoder(accept)
        return encode(self._registry), content_type


class _Handler(SmallHandler):
    server: MetricsServer  # type: ignore[assignment]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        status = 200
        try:
            if path == "/metrics":
                body, content_type = self.server.metrics(self.headers.get("Accept", ""))
            else:
                problem = self.server.probe(path)
                if problem is None:
                    self.send_error(404, explain="/metrics, /healthz and /readyz are here")
                    return
                status = 503 if problem else 200
                body, content_type = f"{problem or 'ok'}\n".encode(), "text/plain; charset=utf-8"
        except Exception as exc:  # of a view: whoever looks at the metrics is told
            self.send_error(500, explain=repr(exc))
            return
        self.send_body(status, body, content_type)
