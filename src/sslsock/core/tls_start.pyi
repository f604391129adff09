from typing import Any, final

from .bare_engine import BareEngine

@final
class TlsStart:
    """How TLS begins on a connection."""

    def __init__(
        self,
        engine: BareEngine,
        tls_object: Any,
        context: Any,
        handshake_timeout: float,
        shutdown_timeout: float,
        half_close: bool = False,
    ) -> None: ...
    def feed(self, data: bytes) -> None: ...
