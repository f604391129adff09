"""How connections come to be: what asyncio's `create_connection`, `create_server` and others call of a loop."""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Optional, Union

from ..core.layered_transport import LayeredTransport
from ..core.protocol_listener import ProtocolListener
from ..core.tls_start import TlsStart
from ..core.transport import SocketTransport
from .datagrams import DatagramTransport
from .servers import HelloHandler, Server, ServerOptions
from .tls import HalfClosing, chosen, require_context, start_of, with_half_close

if TYPE_CHECKING:
    from ..core.event_loop import EventLoop as CoreLoop

__all__ = ["Connecting"]


class Connecting:
    """Stands before asyncio.SelectorEventLoop among the bases of a loop: its connections are `Transport`s."""

    # asyncio's own, which the stubs of the standard library leave out.
    _transports: Any
    _ensure_fd_no_transport: Any
    create_future: Any
    sock_sendfile: Any
    _listeners: dict[int, ProtocolListener]  # by the descriptors of servers' sockets

    if TYPE_CHECKING:

        @property
        def core(self) -> CoreLoop:
            """The loop that the channels stand in."""

    def _for_transports(self) -> Any:
        """The asyncio loop that transports plan their calls in."""
        raise NotImplementedError

    async def _create_connection_transport(
        self,
        sock: socket.socket,
        protocol_factory: Any,
        ssl: Any,
        server_hostname: Optional[str],
        server_side: bool = False,
        ssl_handshake_timeout: Optional[float] = None,
        ssl_shutdown_timeout: Optional[float] = None,
        **more: Any,
    ) -> Any:
        """As asyncio's, but what is given up here ends at once: nobody has had it who could want its end in order."""
        try:
            sock.setblocking(False)
            protocol, waiter = protocol_factory(), self.create_future()
            if ssl:
                more.update(server_side=server_side, server_hostname=server_hostname)
                more.update(ssl_handshake_timeout=ssl_handshake_timeout, ssl_shutdown_timeout=ssl_shutdown_timeout)
                transport = self._make_ssl_transport(sock, protocol, None if isinstance(ssl, bool) else ssl, waiter, **more)
            else:
                transport = self._make_socket_transport(sock, protocol, waiter, **more)
        except BaseException:
            sock.close()
            raise
        try:
            await waiter
        except BaseException:
            transport.abort()
            raise
        finally:
            waiter = None  # whose exception has this frame in its traceback: a cycle that keeps the transport
        return transport, protocol

    async def create_connection(self, *args: Any, ssl_half_close: bool = False, **options: Any) -> Any:
        """asyncio's `create_connection`, and:

        ssl_half_close: bool, whether each direction of a connection with TLS ends by itself, as without TLS: `write_eof` sends
        close_notify and what comes is read on, and a protocol whose `eof_received` returns True goes on writing: RFC 8446, 6.1.
        """
        return await super().create_connection(*args, **with_half_close(options, ssl_half_close))  # type: ignore[misc]

    async def create_unix_connection(self, *args: Any, ssl_half_close: bool = False, **options: Any) -> Any:
        """asyncio's `create_unix_connection`, and `ssl_half_close`: see `create_connection`."""
        return await super().create_unix_connection(*args, **with_half_close(options, ssl_half_close))  # type: ignore[misc]

    async def connect_accepted_socket(self, *args: Any, ssl_half_close: bool = False, **options: Any) -> Any:
        """asyncio's `connect_accepted_socket`, and `ssl_half_close`: see `create_connection`."""
        return await super().connect_accepted_socket(*args, **with_half_close(options, ssl_half_close))  # type: ignore[misc]

    async def create_server(
        self,
        protocol_factory: Any,
        host: Any = None,
        port: Any = None,
        *,
        client_hello_handler: Optional[HelloHandler] = None,
        trusted_proxies: Union[bool, str, Iterable[str], None] = None,
        max_handshakes: int = 0,
        handshake_threads: int = 0,
        ssl_half_close: bool = False,
        start_serving: bool = True,
        **options: Any,
    ) -> Server:
        """asyncio's `create_server`, `ssl_half_close` (see `create_connection`), and:

        client_hello_handler: `handler(hello, peername)`, perhaps `async`, returns the SSLContext of the connection, or None for
        `ssl`. LookupError: the client is told that there is no such name.
        trusted_proxies: networks and addresses (str), or True for everybody. Each connection begins with a PROXY header, and is
        its client's; one from elsewhere is refused.
        max_handshakes: at once; who comes then waits in the system's queue. 0: no bound.
        handshake_threads: threads of its own, without the GIL, for what is dear in handshakes, those of `start_tls` too, so
        that a flood of them does not hold up the loop. 0: none.
        """
        more = ServerOptions(client_hello_handler, trusted_proxies, max_handshakes, handshake_threads, ssl_half_close)
        more.check(*map(options.get, ("ssl", "ssl_handshake_timeout", "ssl_shutdown_timeout")))
        made = await super().create_server(protocol_factory, host, port, start_serving=False, **options)  # type: ignore[misc]
        return await self._opened(made, more, start_serving)

    async def create_unix_server(
        self,
        protocol_factory: Any,
        path: Any = None,
        *,
        client_hello_handler: Optional[HelloHandler] = None,
        trusted_proxies: Union[bool, str, Iterable[str], None] = None,
        max_handshakes: int = 0,
        handshake_threads: int = 0,
        ssl_half_close: bool = False,
        start_serving: bool = True,
        **options: Any,
    ) -> Server:
        """As `create_server`, on a UNIX socket. Of `trusted_proxies` only True lets somebody in."""
        more = ServerOptions(client_hello_handler, trusted_proxies, max_handshakes, handshake_threads, ssl_half_close)
        more.check(*map(options.get, ("ssl", "ssl_handshake_timeout", "ssl_shutdown_timeout")))
        made = await super().create_unix_server(protocol_factory, path, start_serving=False, **options)  # type: ignore[misc]
        return await self._opened(made, more, start_serving)

    async def _opened(self, server: Any, options: ServerOptions, start_serving: bool) -> Server:
        server.__class__ = Server
        server._take(options)
        if start_serving:
            await server.start_serving()
        return server  # type: ignore[no-any-return]

    def _make_datagram_transport(self, sock: socket.socket, protocol: Any, *rest: Any, **more: Any) -> Any:
        self._ensure_fd_no_transport(sock)
        return DatagramTransport(self, sock, protocol, *rest, **more)

    def _start_serving(
        self,
        protocol_factory: Any,
        sock: socket.socket,
        sslcontext: Any,
        server: Server,
        *rest: Any,
        context: Optional[contextvars.Context] = None,
    ) -> None:
        """context: that of whoever has made the server, from CPython 3.15 on. None: that of whoever starts it."""
        listener = server._listen(sock) if context is None else context.run(server._listen, sock)
        self._listeners[sock.fileno()] = listener

    def _stop_serving(self, sock: socket.socket) -> None:
        listener = self._listeners.pop(sock.fileno(), None)
        if listener is not None:
            listener.close()
        super()._stop_serving(sock)  # type: ignore[misc]

    def _make_socket_transport(
        self, sock: socket.socket, protocol: Any, waiter: Any = None, *, extra: Any = None, server: Any = None, **more: Any
    ) -> Any:
        self._ensure_fd_no_transport(sock)
        made = SocketTransport(self._for_transports(), self.core, sock, protocol, waiter, extra, server)
        self._transports[made._sock_fd] = made
        return made

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: Any,
        sslcontext: Any,
        waiter: Any = None,
        *,
        server_side: bool = False,
        server_hostname: Optional[str] = None,
        extra: Any = None,
        server: Any = None,
        ssl_handshake_timeout: Optional[float] = None,
        ssl_shutdown_timeout: Optional[float] = None,
        **more: Any,
    ) -> Any:
        self._ensure_fd_no_transport(rawsock)
        half_close = isinstance(sslcontext, HalfClosing)
        if half_close:
            sslcontext = None if sslcontext.context is True else sslcontext.context
        sslcontext = chosen(sslcontext, server_side, server_hostname)
        start = start_of(
            sslcontext,
            server_side,
            server_hostname,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
            half_close,
            peer=rawsock.getpeername,
        )
        made = SocketTransport(self._for_transports(), self.core, rawsock, protocol, waiter, extra, server, start)
        self._transports[made._sock_fd] = made
        return made

    async def start_tls(
        self,
        transport: Any,
        protocol: Any,
        sslcontext: Any,
        *,
        server_side: bool = False,
        server_hostname: Optional[str] = None,
        ssl_handshake_timeout: Optional[float] = None,
        ssl_shutdown_timeout: Optional[float] = None,
        ssl_half_close: bool = False,
    ) -> Any:
        """Begin TLS on a connection. Returns the transport that `protocol` is to use: the same, or one over it where it is over
        TLS already or another library's."""
        require_context(sslcontext, server_side)
        in_place = type(transport) is SocketTransport and not transport._over_tls
        if not in_place and not carries(transport):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        if transport.is_closing():
            raise ConnectionResetError("the transport is closing: TLS cannot begin on it")
        server = transport._server if in_place and server_side else None
        pool = server._options.handshake_pool if isinstance(server, Server) else None
        start = start_of(
            sslcontext,
            server_side,
            server_hostname,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
            ssl_half_close,
            pool,
            partial(transport.get_extra_info, "peername"),
        )
        if isinstance(protocol, asyncio.StreamReaderProtocol):
            take_unread(protocol, start)
            protocol._over_ssl = not ssl_half_close  # type: ignore[attr-defined]
        waiter = self.create_future()
        if in_place:
            transport._start_tls(protocol, start, waiter)
            made = transport
        else:
            full = is_full(transport)
            paused = full and transport.get_protocol() is protocol
            made = LayeredTransport(self._for_transports(), self.core, transport, protocol, waiter, start, full, paused)
        try:
            await waiter
        except BaseException:
            made.abort()
            raise
        finally:
            waiter = None  # whose exception has this frame in its traceback: a cycle that keeps the transport
        return made

    async def sendfile(
        self, transport: Any, file: Any, offset: int = 0, count: Optional[int] = None, *, fallback: bool = True
    ) -> int:
        """Send from a file. Returns the bytes sent: int. SendfileNotAvailableError over TLS with `fallback=False`."""
        if type(transport) is SocketTransport and transport._over_tls and not transport.is_closing():
            if not fallback:
                raise asyncio.SendfileNotAvailableError("over TLS the kernel cannot send from a file: use fallback=True")
            file.seek(offset)
        return await super().sendfile(transport, file, offset, count, fallback=fallback)  # type: ignore[misc, no-any-return]

    async def _sendfile_native(self, transp: Any, file: Any, offset: int, count: Optional[int]) -> int:
        if type(transp) is not SocketTransport:
            return await super()._sendfile_native(transp, file, offset, count)  # type: ignore[misc, no-any-return]
        reads = transp.is_reading()
        transp.pause_reading()
        await transp._make_empty_waiter()
        try:
            # A duplicate has a place of its own in the loop's set, and so a writer that is told of room.
            with socket.socket(fileno=os.dup(transp._sock_fd)) as duplicate:
                duplicate.setblocking(False)
                return int(await self.sock_sendfile(duplicate, file, offset, count, fallback=False))
        finally:
            transp._reset_empty_waiter()
            if reads:
                transp.resume_reading()


def carries(transport: Any) -> bool:
    """Whether TLS can be put over it: a stream of bytes in both directions, by asyncio's interface."""
    says = getattr(transport, "_start_tls_compatible", None)
    if says is not None or hasattr(transport, "sendto"):
        return bool(says)
    wanted = ("write", "close", "abort", "set_protocol", "pause_reading", "resume_reading", "is_closing", "get_extra_info")
    return all(callable(getattr(transport, name, None)) for name in wanted)


def is_full(transport: Any) -> bool:
    """Whether it has told its protocol to pause."""
    told = getattr(transport, "_protocol_paused", None)
    if told is None:  # who does not say so lets see it by the protocol, if that is one of asyncio's streams
        told = getattr(transport.get_protocol(), "_paused", None)
    if told is None:
        told = transport.get_write_buffer_size() > transport.get_write_buffer_limits()[1]
    return bool(told)


def take_unread(protocol: Any, start: TlsStart) -> None:
    """What a StreamReader holds unread was sent behind the wish for TLS: it belongs to the handshake."""
    reader = protocol._stream_reader
    unread = None if reader is None else getattr(reader, "_buffer", None)
    if unread:
        start.feed(bytes(unread))
        unread.clear()
