"""TcpSocket: a TCP connection, and the handlers that tell of it, as programs see it. What it does is in connection.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Optional

from .checked import Seconds
from .connection import HOST_LOOKUP, UNCONNECTED, Connection, checked_port
from .connector import bound_socket, error_of
from .constants import OpenMode, SocketError, SocketState
from .local_path import PathLike
from .loop_object import Handler
from .socket_failure import SocketFailure
from .stream import checked_mode
from .twins import twin

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["TcpSocket"]


class TcpSocket(Connection):
    """A TCP socket.

    `connect` it, or take it from a TcpServer. An open socket lives until it is disconnected, also when the
    program keeps no reference to it. It may be connected again after `disconnect` or `abort`.

    `async with TcpSocket() as socket` closes it at the end, waits until all is sent, and raises SocketFailure when it could not
    be; an exception inside aborts it.

    connect_timeout: float, seconds for lookup and all connection attempts together, 30; 0 for no limit. TypeError, ValueError.
    """

    UNCONNECTED_STATE = SocketState.UNCONNECTED_STATE
    HOST_LOOKUP_STATE = SocketState.HOST_LOOKUP_STATE
    CONNECTING_STATE = SocketState.CONNECTING_STATE
    CONNECTED_STATE = SocketState.CONNECTED_STATE
    BOUND_STATE = SocketState.BOUND_STATE
    CLOSING_STATE = SocketState.CLOSING_STATE

    __slots__ = ()

    connect_timeout = Seconds()

    connected_handler: Handler[Callable[[Self], object]] = Handler(
        """`connected_handler(socket)`: called when the connection stands. With TLS the handshake comes after it."""
    )
    disconnected_handler: Handler[Callable[[Self], object]] = Handler(
        """`disconnected_handler(socket)`: called when the connection has ended. Data that came before can still be read."""
    )
    error_handler: Handler[Callable[[Self, SocketError], object]] = Handler(
        """`error_handler(socket, error)`: called when something has failed; `error` and `error_string` say what. After an
        attempt to connect that has failed the socket is UNCONNECTED, and may be connected again here. Without a handler an
        error is logged ("sslsock", WARNING; DEBUG when the peer has closed in good order), unless a task waits, in which it
        is raised."""
    )
    state_changed_handler: Handler[Callable[[Self, SocketState], object]] = Handler(
        """`state_changed_handler(socket, state)`: called when `state` has changed."""
    )
    host_found_handler: Handler[Callable[[Self], object]] = Handler(
        """`host_found_handler(socket)`: called when the name was looked up, before it connects."""
    )

    # State

    @property
    def state(self) -> SocketState:
        """Where the socket is in its life: SocketState."""
        self._loop._meet()
        return self._state

    @property
    def error(self) -> Optional[SocketError]:
        """The last error of this connection: SocketError, None until one occurs."""
        self._loop._meet()
        return self._error

    @property
    def valid(self) -> bool:
        """Whether the socket has a port of its own or a connection: bool."""
        return self._state is not UNCONNECTED and self._state is not HOST_LOOKUP

    @property
    def local_address(self) -> str:
        """Own address, of a UNIX socket its path, "" where there is none: str."""
        self._loop._meet()
        return self._local_name()[0]

    @property
    def local_port(self) -> int:
        """Own port, 0 where there is none: int."""
        self._loop._meet()
        return self._local_name()[1]

    @property
    def remote_address(self) -> str:
        """The peer's address, of a UNIX socket its path, "" while there is no connection, or a UNIX socket has no name (as most
        clients'): str."""
        self._loop._meet()
        return self._remote_address or ""

    @property
    def remote_port(self) -> int:
        """The peer's port, 0 while there is no connection: int."""
        self._loop._meet()
        return self._remote_port

    # Connecting and disconnecting

    def connect(self, hostname: str, port: int, open_mode: int = OpenMode.READ_WRITE_MODE) -> None:
        """Connect to a name or an address. What comes of it is told by the handlers, from the loop;
        OPERATION_ERROR when the socket is neither UNCONNECTED nor BOUND.

        hostname: str. port: int, 1 to 65535. open_mode: OpenMode. TypeError, ValueError.
        """
        self._connect(hostname, port, open_mode)

    def connect_local(self, path: PathLike, open_mode: int = OpenMode.READ_WRITE_MODE) -> None:
        """Connect to a UNIX socket. All is told as with `connect`; `remote_address` is the path, and `remote_port` 0.
        A server whose queue is full is asked again until `connect_timeout`. OPERATION_ERROR when the socket is not UNCONNECTED,
        HOST_NOT_FOUND_ERROR when there is no such file, CONNECTION_REFUSED_ERROR when nobody listens there.

        path: str or os.PathLike, up to 107 bytes; "@name" is a name in Linux's abstract namespace, which has no file.
        open_mode: OpenMode. TypeError, ValueError.
        """
        self._connect_local(path, open_mode)

    def set_socket_descriptor(self, descriptor: int, open_mode: int = OpenMode.READ_WRITE_MODE) -> bool:
        """Take over a connection that was made elsewhere: a connected stream socket of TCP or UNIX, one of a `socketpair` too.
        The socket is CONNECTED then (`state_changed_handler`, but no `connected_handler`), and TLS may begin.

        True: the descriptor is the socket's, which closes it; from a `socket.socket` it comes by `detach()`. False: it stays
        the caller's, as it was, and `error_string` says why: it is not open, no socket, a datagram socket, one that listens or
        is not connected, another socket's of this loop (UNSUPPORTED_SOCKET_OPERATION_ERROR); or this socket is not UNCONNECTED
        (OPERATION_ERROR).

        descriptor: int. open_mode: OpenMode. TypeError, ValueError.
        """
        return self._set_descriptor(descriptor, open_mode)

    def disconnect(self) -> None:
        """End the connection. What was written goes out first (CLOSING). One that does not stand yet is given
        up."""
        self._loop.check()
        self._disconnect()

    def abort(self) -> None:
        """End the connection at once: what has not been sent or read is dropped. The socket is closed
        afterwards."""
        self._loop.check()
        generation = self._generation
        if self._state is not UNCONNECTED and self._open_mode:
            self._announce_close()
        if self._generation == generation:
            self._abort()

    def open(self, mode: int) -> bool:
        """Set the open mode of a socket that is not open. False when it is open, or `mode` is NOT_OPEN_MODE.
        TypeError, ValueError."""
        self._loop.check()
        mode = checked_mode(mode)
        if self._open_mode or not mode:
            return False
        self._set_open_mode(mode)
        return True

    def close(self) -> None:
        """`about_to_close_handler`, then drop unread data and `disconnect`."""
        self._loop.check()
        generation = self._generation
        if self._open_mode:
            self._announce_close()
        if self._generation == generation:
            self._close()

    def bind(self, port: int) -> bool:
        """Reserve a local port, 0 for any, to connect from. False, with `error` set, when that is not
        possible. TypeError, ValueError."""
        checked_port(port, 0)
        self._loop.check()
        if self._state is not UNCONNECTED:
            self._refuse(f"bind() while the socket is {self._state.name}")
            return False
        try:
            bound = bound_socket(port)
        except OSError as exc:
            self._fail(error_of(exc.errno or 0), f"port {port} cannot be bound: {exc.strerror}")
            return False
        self._take_port(bound)
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], exc: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        """`close`, and wait for the end; SocketFailure when not all could be sent. After an exception, and when the task is
        cancelled meanwhile: `abort`."""
        if kind is not None:
            self._give_up()
            return
        waiting = self.bytes_to_write > 0
        self.close()
        try:
            await self.disconnected()
        except BaseException:
            self._give_up()
            raise
        if waiting and self._failure is not None:
            raise SocketFailure(*self._failure)

    def _give_up(self) -> None:
        if not self._loop.closed:
            self.abort()

    connect_async = twin(connect)
    connect_local_async = twin(connect_local)
    set_socket_descriptor_async = twin(set_socket_descriptor)
    disconnect_async = twin(disconnect)
    abort_async = twin(abort)
    bind_async = twin(bind)

    def __repr__(self) -> str:
        name = type(self).__name__
        if self._remote_address is None:
            return f"<{name} {self._state.name}>"
        if not self._remote_port:
            return f"<{name} {self._state.name} {self._remote_address or 'a UNIX socket without a name'}>"
        return f"<{name} {self._state.name} {self._remote_address} port {self._remote_port}>"
