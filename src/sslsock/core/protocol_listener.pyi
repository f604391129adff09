import asyncio
import socket
from collections.abc import MutableMapping
from typing import Callable, Optional, final

from .acceptor import Acceptor
from .loop import Loop
from .tls_start import TlsStart

@final
class ProtocolListener(Acceptor):
    """Accepts the connections of an asyncio server."""

    def __init__(
        self,
        host: asyncio.AbstractEventLoop,
        loop: Loop,
        sock: socket.socket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        server: Optional[asyncio.AbstractServer],
        transports: MutableMapping[int, asyncio.BaseTransport],
        start_tls: Optional[Callable[[], TlsStart]] = None,
    ) -> None: ...
