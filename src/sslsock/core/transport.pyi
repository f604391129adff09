import asyncio
import socket
from asyncio import trsock
from typing import Any, Optional, Union, final

from .descriptor import Descriptor
from .loop import Loop
from .protocol_transport import ProtocolTransport
from .tls_start import TlsStart

class TransportSocket(trsock.TransportSocket):
    """What a transport shows as its socket. It can say its names when `close()` has given the descriptor back: asyncio's does
    so in a later turn, and programs ask who the peer was behind `close()`."""

    def __init__(self, sock: socket.socket, own: Any, peer: Any) -> None: ...
    def getsockname(self) -> Any:
        """The address of this end."""
    def getpeername(self) -> Any:
        """The address of the peer."""

@final
class SocketTransport(ProtocolTransport):
    """A connected socket of a protocol. Made by the loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        core: Loop,
        sock: Union[socket.socket, Descriptor],
        protocol: asyncio.BaseProtocol,
        waiter: Optional[asyncio.Future[None]] = None,
        extra: Optional[dict[str, Any]] = None,
        server: Optional[asyncio.AbstractServer] = None,
        tls: Optional[TlsStart] = None,
    ) -> None: ...
    @property
    def _sock(self) -> socket.socket: ...
    @property
    def _server(self) -> Optional[asyncio.AbstractServer]: ...
    @property
    def _sock_fd(self) -> int: ...
    @property
    def _start_tls_compatible(self) -> bool: ...
    @property
    def _sendfile_compatible(self) -> Any: ...
    def _start_tls(self, protocol: asyncio.BaseProtocol, tls: TlsStart, waiter: asyncio.Future[None]) -> None: ...
    def _loop_closed(self) -> None: ...
