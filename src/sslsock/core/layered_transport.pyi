import asyncio
from typing import Any, final

from .loop import Loop
from .protocol_transport import ProtocolTransport
from .tls_start import TlsStart

@final
class LayeredTransport(ProtocolTransport):
    """TLS over a transport."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        core: Loop,
        lower: asyncio.Transport,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None],
        tls: TlsStart,
        full: bool,
        paused: bool,
    ) -> None: ...
    @property
    def _start_tls_compatible(self) -> bool: ...
    @property
    def _sendfile_compatible(self) -> Any: ...
