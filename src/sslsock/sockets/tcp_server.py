"""TcpServer: listens, and gives out connections as sockets.

The listener accepts and keeps what nobody has taken; at `max_pending_connections` it stops, and the kernel
queues. A socket is made when a connection is taken, and from then on lives on its own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, Generic, Optional, TypeVar, Union

from ..core.event_loop import EventLoop
from ..core.hostname import is_address
from ..core.listener import Listener
from .accepted import Accepted
from .checked import Flag, checked_count
from .connection import NOWHERE, checked_port
from .connector import error_of
from .constants import ErrorConstants, SocketError
from .error_log import WARNING, log_error
from .local_listener import SocketFile, open_local_socket
from .local_path import PathLike, checked_path, end_of
from .loop_object import Handler
from .socket_failure import SocketFailure
from .tcp_socket import TcpSocket
from .twins import twin
from .waits import PENDING, Wait, Waits

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .admission import Admission
    from .entrance import TrustedProxies

__all__ = ["TcpServer"]

S_co = TypeVar("S_co", bound=TcpSocket, covariant=True)

HEADER_SECONDS = 10.0  # that a PROXY header may take
BACKLOG = 4096  # the system cuts it to net.core.somaxconn


def listening_socket(family: int, address: str, port: int, both: bool, reuse_port: bool) -> socket.socket:
    """A listening socket; `both`: for IPv4 as well. OSError."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # A server that was just stopped may start again, though old connections of its port still fade out.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        # Connections inherit it on Linux: one call for all of them.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        scoped = "%" in address  # the only form that has to be translated
        where = socket.getaddrinfo(address, port, flags=socket.AI_NUMERICHOST)[0][4] if scoped else (address, port)
        sock.bind(where)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def open_listening_socket(address: str, port: int, reuse_port: bool) -> socket.socket:
    if not address:
        try:
            return listening_socket(socket.AF_INET6, "::", port, True, reuse_port)
        except OSError as exc:
            if error_of(exc.errno or 0) is not SocketError.NETWORK_ERROR:
                raise  # the port, not the family
            return listening_socket(socket.AF_INET, "0.0.0.0", port, False, reuse_port)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return listening_socket(family, address, port, False, reuse_port)


class TcpServer(Waits, ErrorConstants):
    """A TCP server.

    `listen`, then take connections with `next_pending_connection`, as `new_connection_handler` tells of them.
    The server listens until `close`, also when the program keeps no reference to it.

    In coroutines: `async for socket in server` takes each connection as it comes, and ends when the server is closed;
    SocketFailure where it does not listen. `async with TcpServer() as server` closes it at the end.

    reuse_port: bool, False; set before `listen`, several servers (of several threads or processes) share one
    port.
    """

    _handler_names = {"_on_pending": "new_connection_handler", "_on_accept_error": "accept_error_handler"}

    __slots__ = (
        "__weakref__",
        "_accept_error_handler",
        "_error",
        "_error_string",
        "_file",
        "_listener",
        "_loop",
        "_max_pending",
        "_name",
        "_new_connection_handler",
        "_refusing",
        "_reuse_port",
        "_trusted",
        "_trusted_proxies",
        "_waits",
    )

    reuse_port = Flag()

    new_connection_handler: Handler[Callable[[Self], object]] = Handler(
        """`new_connection_handler(server)`: called when there are connections to take with `next_pending_connection`.""",
        told_while="has_pending_connections",
    )
    accept_error_handler: Handler[Callable[[Self, SocketError], object]] = Handler(
        """`accept_error_handler(server, error)`: called when the system gives no connection, for want of descriptors for
        example. The server goes on by itself."""
    )

    def __init__(self) -> None:
        self._loop = EventLoop.current()
        self._listener: Union[Listener, Admission, None] = None
        self._max_pending = 30
        self._error: Optional[SocketError] = None
        self._error_string = ""
        self._file: Optional[SocketFile] = None
        self._name = NOWHERE
        self._refusing = False  # accepting has failed since the last connection
        self._reuse_port = False
        self._trusted_proxies: Union[bool, tuple[str, ...], None] = None
        self._trusted: Optional[TrustedProxies] = None
        self._waits: Optional[list[Wait]] = None
        self._new_connection_handler = None
        self._accept_error_handler = None
        if self._methods:
            self._use_methods()

    @property
    def loop(self) -> EventLoop:
        """The loop this server lives on: that of the thread it was made in."""
        self._loop._meet()
        return self._loop

    @property
    def listening(self) -> bool:
        """True from `listen` to `close`."""
        self._loop._meet()
        return self._listener is not None

    @property
    def address(self) -> str:
        """The address listened on ("::": every one), of a UNIX socket its path, "" while it does not listen: str."""
        self._loop._meet()
        return self._name[0]

    @property
    def port(self) -> int:
        """The port listened on, 0 while it does not listen: int."""
        self._loop._meet()
        return self._name[1]

    @property
    def max_pending_connections(self) -> int:
        """Most connections that are accepted before one is taken: int, 30. ValueError below 1."""
        return self._max_pending

    @max_pending_connections.setter
    def max_pending_connections(self, count: int) -> None:
        count = checked_count(count, "max_pending_connections", 1)
        if self._listener is not None:
            self._listener.limit = count
        self._max_pending = count

    @property
    def trusted_proxies(self) -> Union[bool, tuple[str, ...], None]:
        """Proxies that speak for clients, set before `listen`: networks and addresses (str, or several), or True for everybody.
        Each connection begins with a PROXY header (version 1 or 2), before TLS, and `remote_address` and `remote_port` are the
        client's that it names. One from elsewhere, or without a header in 10 seconds (SslServer: `handshake_timeout`), is
        closed. None: there are no headers. TypeError, ValueError."""
        return self._trusted_proxies

    @trusted_proxies.setter
    def trusted_proxies(self, sources: Union[bool, str, Iterable[str], None]) -> None:
        from .entrance import TrustedProxies  # few servers need what it needs

        trusted = None if sources is None else TrustedProxies(sources)
        self._trusted, self._trusted_proxies = trusted, None if trusted is None else trusted.sources

    @property
    def has_pending_connections(self) -> bool:
        """A connection can be taken."""
        self._loop._meet()
        return self._listener is not None and self._listener.pending > 0

    @property
    def error(self) -> Optional[SocketError]:
        """What the last `listen` failed of, or accepting since: SocketError or None."""
        self._loop._meet()
        return self._error

    @property
    def error_string(self) -> str:
        """The last error in words, "" when there was none: str."""
        return self._error_string

    def listen(self, port: int, address: str = "") -> bool:
        """Listen on a port (0: any that is free) of an IPv4 or IPv6 address ("": all of both). False, with
        `error_string` set, when that is not possible. TypeError, ValueError."""
        checked_port(port, 0)
        if not isinstance(address, str):
            raise TypeError(f"an address is a str, not {type(address).__name__}")
        self._loop._follow_host()
        if self._listener is not None:
            return self._refuse_again()
        bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
        if bare and not is_address(socket.AF_INET, bare) and not is_address(socket.AF_INET6, bare.partition("%")[0]):
            return self._refuse(SocketError.NETWORK_ERROR, f"{address!r} is not an IPv4 or IPv6 address")
        unusable = self._unusable()
        if unusable:
            return self._refuse(SocketError.SSL_INVALID_USERDATA_ERROR, unusable)
        where = f"{address} port {port}" if address else f"port {port}"
        try:
            sock = open_listening_socket(bare, port, self._reuse_port)
        except OSError as exc:
            return self._refuse(error_of(exc.errno or 0), f"cannot listen on {where}: {exc.strerror or exc}")
        return self._use(sock, where)

    def listen_local(self, path: PathLike, mode: Optional[int] = None) -> bool:
        """Listen on a UNIX socket. Its file is made here and removed by `close`. One that a program has left behind is
        replaced. `address` is the path then, and `port` 0. False, with `error_string` set: a program listens there, or the file
        is no socket (ADDRESS_IN_USE_ERROR); the system refuses; `reuse_port` is set, which ports alone have. Of
        `trusted_proxies` only True lets anybody in, for who connects has no address: `mode` says who may connect.

        path: str or os.PathLike, up to 107 bytes; "@name" is a name in Linux's abstract namespace, which has no file (and no
        rights: every process in the network namespace may connect). mode: int, of the file, as in 0o660; None: as the umask has
        it. TypeError, ValueError.
        """
        text = checked_path(path)
        if mode is not None:
            mode = checked_count(mode, "mode", 0, 0o777)
        self._loop._follow_host()
        if self._listener is not None:
            return self._refuse_again()
        if self._reuse_port:
            return self._refuse(SocketError.OPERATION_ERROR, f"cannot listen on {text}: reuse_port is set, which is for ports")
        unusable = self._unusable()
        if unusable:
            return self._refuse(SocketError.SSL_INVALID_USERDATA_ERROR, unusable)
        try:
            sock, self._file = open_local_socket(text, BACKLOG, mode)
        except OSError as exc:
            return self._refuse(error_of(exc.errno or 0), f"cannot listen on {text}: {exc.strerror or exc}")
        return self._use(sock, text)

    def _refuse_again(self) -> bool:
        return self._refuse(SocketError.OPERATION_ERROR, f"the server listens on {self._where()} already")

    def _where(self) -> str:
        """What it listens on, in words."""
        return f"port {self._name[1]}" if self._name[1] else self._name[0]

    def _use(self, sock: socket.socket, where: str) -> bool:
        """Accept from a socket that listens, which is the server's from now on."""
        with sock:  # closed where that fails
            try:
                self._name = end_of(sock.getsockname())
                self._listener = self._listen_on(sock.fileno())
                sock.detach()  # it is the listener's now
                self._error = None
                self._error_string = ""
                self._refusing = False
            except BaseException as exc:
                if self._listener is not None:
                    sock.detach()
                self.close()
                if not isinstance(exc, OSError):
                    raise
                return self._refuse(error_of(exc.errno or 0), f"{where} cannot be watched: {exc.strerror}")
        return True

    def close(self) -> None:
        """Stop listening; connections that nobody has taken are closed. Those that were taken go on."""
        self._loop.check()
        listener, self._listener = self._listener, None
        self._name = NOWHERE
        file, self._file = self._file, None
        if file is not None:
            file.remove()
        if listener is not None:
            listener.close()
        if self._waits is not None:
            self._ask_waits()

    def pause_accepting(self) -> None:
        """Accept no more connections for now; the system queues them."""
        self._loop.check()
        if self._listener is not None:
            self._listener.pause()

    def resume_accepting(self) -> None:
        """End of `pause_accepting`."""
        self._loop.check()
        if self._listener is not None:
            self._listener.resume()

    def next_pending_connection(self) -> Optional[TcpSocket]:
        """Take a connection: TcpSocket in CONNECTED_STATE, None when none is pending."""
        return self._take()  # type: ignore[no-any-return]

    async def next_connection(self) -> TcpSocket:
        """Wait for a connection and take it: TcpSocket in CONNECTED_STATE. SocketFailure when the server does not listen, or is
        closed meanwhile."""
        return self._there(await self._next())  # type: ignore[no-any-return]

    def __aiter__(self) -> Connections[TcpSocket]:
        return Connections(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], exc: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        if not self._loop.closed:
            self.close()

    listen_async = twin(listen)
    listen_local_async = twin(listen_local)
    close_async = twin(close)
    next_pending_connection_async = twin(next_pending_connection)

    def __repr__(self) -> str:
        if self._listener is None:
            return f"<{type(self).__name__} not listening>"
        address, port = self._name
        return f"<{type(self).__name__} listening on {address}{f' port {port}' if port else ''}>"

    # What the listener tells

    def _on_pending(self) -> None:
        self._refusing = False
        handler: Optional[Callable[[Any], object]] = self._new_connection_handler
        if handler is not None:
            handler(self)
        if self._waits is not None:
            self._ask_waits()

    def _on_accept_error(self, errno: int) -> None:
        self._error = error_of(errno)
        self._error_string = f"a connection to {self._where()} was not accepted: {os.strerror(errno)}"
        handler: Optional[Callable[[Any, SocketError], object]] = self._accept_error_handler
        if handler is not None:
            handler(self, self._error)
        elif not self._refusing:  # the listener tries again several times a second
            self._refusing = True
            log_error(WARNING, self._error, self._error_string)

    # Steps

    def _listen_on(self, fd: int, header_timeout: float = HEADER_SECONDS, most_shaking: int = 0) -> Union[Listener, Admission]:
        if self._trusted is None and not most_shaking:
            return Listener(self._loop, fd, self, self._max_pending)
        from .admission import Admission

        return Admission(self._loop, fd, self, self._max_pending, self._trusted, header_timeout, most_shaking)

    def _take(self, secure: bool = False) -> Any:
        """The socket of the oldest connection, None when none is pending. What raises closes the connection."""
        self._loop.check()
        if self._listener is None or not self._listener.pending:
            return None
        accepted = Accepted(self._listener)
        try:
            sock: Any = self._make_socket(accepted)
            if secure:
                if not isinstance(self._listener, Listener):
                    sock._place = self._listener.place()
                sock.start_server_encryption()
            return sock
        except BaseException as exc:
            accepted.break_off(exc)
            raise

    async def _next(self, secure: bool = False) -> Any:
        """The socket of the next connection, None when the server does not listen any more."""
        self.loop.check()
        while self._listener is not None:
            sock = self._take(secure)
            if sock is not None:
                return sock
            await self._answer(lambda: self._listener is None or self._listener.pending > 0 or PENDING)
        return None

    def _there(self, sock: Any) -> Any:
        """`sock`, or SocketFailure where there is none."""
        if sock is None:
            raise SocketFailure(self._error or SocketError.OPERATION_ERROR, self._error_string or "the server does not listen")
        return sock

    def _unusable(self) -> str:
        """Why no connection could be served, in words; "" when nothing is in the way."""
        return ""

    def _make_socket(self, accepted: Accepted) -> TcpSocket:
        """The socket for an accepted connection. The place for a derived class to make one of its own."""
        return self._adopted(TcpSocket._on(self._loop), accepted)

    def _adopted(self, sock: TcpSocket, accepted: Accepted) -> TcpSocket:
        sock._adopt(accepted)
        return sock

    def _refuse(self, error: SocketError, message: str) -> bool:
        self._error = error
        self._error_string = message
        return False


class Connections(Generic[S_co]):
    """The connections of a server, as they come: an asynchronous iterator."""

    __slots__ = ("_secure", "_server")

    def __init__(self, server: TcpServer, secure: bool = False) -> None:
        server._there(server._listener)
        self._server = server
        self._secure = secure

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> S_co:
        sock = await self._server._next(self._secure)
        if sock is None:
            raise StopAsyncIteration
        return sock  # type: ignore[no-any-return]
