"""sslsock: event-driven sockets with TLS. Python decides, C moves the bytes.

Sockets with handlers (`SslSocket`, `TcpSocket`), servers (`SslServer`, `TcpServer`), their settings
(`SslConfiguration`, `SslCertificate`, `SslKey`), the loop they run on (`run`, `stop`, `EventLoop`; inside a
running asyncio loop by themselves), and the TLS engine without input or output (`Engine`, `Context`). `sslsock.ssl` has the
interface of the standard library's `ssl`.
"""

from importlib import import_module as _import_module

from . import core as _core  # noqa: F401 (refuses a subinterpreter)
from ._version import __version__

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without the time that `typing` takes
if TYPE_CHECKING:
    from . import ssl as ssl
    from .aio.event_loop import new_event_loop
    from .core.build import build_info
    from .core.certificate import SslCertificate
    from .core.client_hello import ClientHello
    from .core.context import ConfigurationError, Context, openssl_version
    from .core.crl import SslCrl
    from .core.encoded import SslEncoding
    from .core.engine import Engine, TlsError
    from .core.event_loop import EventLoop, run, stop
    from .core.key import KeyAlgorithm, KeyType, SslKey
    from .core.session import SslSession
    from .core.ticket_keys import TicketKeys
    from .sockets.configuration import SslConfiguration
    from .sockets.constants import (
        OpenMode,
        PeerVerifyMode,
        RelayReason,
        SocketError,
        SocketState,
        SslMode,
        SslProtocol,
        VerifyFlag,
    )
    from .sockets.pre_shared_key import SslPreSharedKeyAuthenticator
    from .sockets.relay import Relay
    from .sockets.socket_failure import SocketFailure
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
    "SocketFailure",
    "SocketState",
    "SslCertificate",
    "SslConfiguration",
    "SslCrl",
    "SslEncoding",
    "SslError",
    "SslKey",
    "SslMode",
    "SslPreSharedKeyAuthenticator",
    "SslProtocol",
    "SslServer",
    "SslSession",
    "SslSocket",
    "Stream",
    "TcpServer",
    "TcpSocket",
    "TicketKeys",
    "TlsError",
    "VerifyFlag",
    "__version__",
    "build_info",
    "new_event_loop",
    "openssl_version",
    "run",
    "stop",
]

# Name -> the module that has it, which is loaded when the name is first asked for: `sslsock.ssl` needs none of the sockets, and
# they take longer to import than the interpreter's `ssl`.
_PLACES = {
    "ClientHello": ".core.client_hello",
    "ConfigurationError": ".core.context",
    "Context": ".core.context",
    "Engine": ".core.engine",
    "EventLoop": ".core.event_loop",
    "KeyAlgorithm": ".core.key",
    "KeyType": ".core.key",
    "OpenMode": ".sockets.constants",
    "PeerVerifyMode": ".sockets.constants",
    "Relay": ".sockets.relay",
    "RelayReason": ".sockets.constants",
    "SocketError": ".sockets.constants",
    "SocketFailure": ".sockets.socket_failure",
    "SocketState": ".sockets.constants",
    "SslCertificate": ".sockets.certificate_check",  # which gives it its `verify`
    "SslConfiguration": ".sockets.configuration",
    "SslCrl": ".core.crl",
    "SslEncoding": ".core.encoded",
    "SslError": ".sockets.ssl_error",
    "SslKey": ".core.key",
    "SslMode": ".sockets.constants",
    "SslPreSharedKeyAuthenticator": ".sockets.pre_shared_key",
    "SslProtocol": ".sockets.constants",
    "SslServer": ".sockets.ssl_server",
    "SslSession": ".core.session",
    "SslSocket": ".sockets.ssl_socket",
    "Stream": ".sockets.stream",
    "TcpServer": ".sockets.tcp_server",
    "TcpSocket": ".sockets.tcp_socket",
    "TicketKeys": ".core.ticket_keys",
    "TlsError": ".core.engine",
    "VerifyFlag": ".sockets.constants",
    "build_info": ".core.build",
    "new_event_loop": ".aio.event_loop",
    "openssl_version": ".core.context",
    "run": ".core.event_loop",
    "stop": ".core.event_loop",
}


def __getattr__(name: str) -> object:
    if name == "ssl":  # a user of `import sslsock` has it, too
        return _import_module(".ssl", __name__)
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(_import_module(place, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "ssl"})
