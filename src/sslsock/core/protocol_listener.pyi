import asyncio
import socket
from collections.abc import MutableMapping
from typing import Any, Callable, Optional, final

from .acceptor import Acceptor
from .descriptor import Descriptor
from .loop import Loop
from .tls_start import TlsStart

@final
class HandshakePlace:
    """One of the handshakes that a listener has at once."""

    def done(self) -> bool: ...
    def cancelled(self) -> bool: ...
    def set_result(self, result: object) -> None: ...
    def set_exception(self, exc: Optional[BaseException]) -> None: ...

@final
class ProtocolListener(Acceptor):
    """Accepts the connections of an asyncio server."""

    start_tls: Optional[Callable[[], TlsStart]]
    enter: Optional[Callable[[ProtocolListener, Descriptor, Any, Optional[HandshakePlace]], object]]

    def __init__(
        self,
        host: asyncio.AbstractEventLoop,
        loop: Loop,
        sock: socket.socket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        server: Optional[asyncio.AbstractServer],
        transports: MutableMapping[int, asyncio.BaseTransport],
        most_shaking: int = 0,
    ) -> None: ...
    @property
    def shaking(self) -> int: ...
    @property
    def protocol_factory(self) -> Callable[[], asyncio.BaseProtocol]: ...
    def admit(
        self,
        descriptor: Descriptor,
        extra: Optional[dict[str, Any]],
        start_tls: Optional[Callable[[], TlsStart]],
        place: Optional[HandshakePlace],
    ) -> None: ...
