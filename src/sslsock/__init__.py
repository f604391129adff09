"""sslsock: event-driven sockets with TLS. Python decides, C moves the bytes.

Sockets with handlers (`SslSocket`, `TcpSocket`), servers (`SslServer`, `TcpServer`), their settings
(`SslConfiguration`, `SslCertificate`, `SslKey`), the loop they run on (`run`, `stop`, `EventLoop`; inside a
running asyncio loop by themselves), and the TLS engine without input or output (`Engine`, `Context`). `sslsock.ssl` has the
interface of the standard library's `ssl`; it is a module to be imported by itself.
"""

from ._version import __version__
from .core.build import build_info
from .core.certificate import SslCertificate
from .core.client_hello import ClientHello
from .core.context import ConfigurationError, Context, openssl_version
from .core.crl import SslCrl
from .core.encoded import SslEncoding
from .core.engine import Engine, TlsError
from .core.key import KeyAlgorithm, KeyType, SslKey
from .core.ticket_keys import TicketKeys
from .sockets import certificate_check as _certificate_check  # noqa: F401 (SslCertificate.verify)
from .sockets.configuration import SslConfiguration
from .sockets.constants import OpenMode, PeerVerifyMode, RelayReason, SocketError, SocketState, SslMode, SslProtocol, VerifyFlag
from .sockets.event_loop import EventLoop, run, stop
from .sockets.relay import Relay
from .sockets.ssl_error import SslError
from .sockets.ssl_server import SslServer
from .sockets.ssl_socket import SslSocket
from .sockets.stream import Stream
from .sockets.tcp_server import TcpServer
from .sockets.tcp_socket import TcpSocket

__all__ = [
    "ClientHello",
    "ConfigurationError",
    "Context",
    "Engine",
    "EventLoop",
    "KeyAlgorithm",
    "KeyType",
    "OpenMode",
    "PeerVerifyMode",
    "Relay",
    "RelayReason",
    "SocketError",
    "SocketState",
    "SslCertificate",
    "SslConfiguration",
    "SslCrl",
    "SslEncoding",
    "SslError",
    "SslKey",
    "SslMode",
    "SslProtocol",
    "SslServer",
    "SslSocket",
    "Stream",
    "TcpServer",
    "TcpSocket",
    "TicketKeys",
    "TlsError",
    "VerifyFlag",
    "__version__",
    "build_info",
    "openssl_version",
    "run",
    "stop",
]
