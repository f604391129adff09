from typing import Any, Optional, final

from .bare_engine import BareEngine
from .handshake_pool import HandshakePool

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
        pool: Optional[HandshakePool] = None,
    ) -> None: ...
    def feed(self, data: bytes) -> None: ...
