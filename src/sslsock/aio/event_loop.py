"""EventLoop: asyncio's loop with its queue, timers and epoll in C."""

from __future__ import annotations

import asyncio
import os
import select
import selectors
import socket
import time
import weakref
from asyncio.base_events import _format_handle  # type: ignore[attr-defined]
from asyncio.log import logger
from typing import Any, Optional

from ..core.asyncio_loop import LoopCore
from ..core.transport import SocketTransport, TlsStart
from .tls import is_own, start_of

__all__ = ["EventLoop", "new_event_loop"]


class _Selector:
    """In place of asyncio's selector, for those who look there: the descriptors stand in the epoll set of `LoopCore`."""

    def __init__(self, core: LoopCore) -> None:
        self._core = weakref.ref(core)

    def get_key(self, file: Any) -> selectors.SelectorKey:
        """What is watched of `file`, a descriptor or an object with fileno. KeyError: nothing."""
        core = self._core()
        found = None if core is None else core._watched(file)
        if found is None:
            raise KeyError(f"{file!r} is not registered")
        file, fd, events, handles = found
        mask = selectors.EVENT_READ if events & select.EPOLLIN else 0
        mask |= selectors.EVENT_WRITE if events & select.EPOLLOUT else 0
        return selectors.SelectorKey(file, fd, mask, handles)

    def close(self) -> None:
        """What asyncio's loop calls at its end."""


class EventLoop(LoopCore, asyncio.SelectorEventLoop):  # type: ignore[misc]  # typeshed's call_* are generic
    """An asyncio event loop. Its queue of calls, timers, readers and writers, sockets and TLS are C; all else is asyncio's.

    selector: accepted, for the sake of programs that give asyncio's loop one, and ignored.
    """

    # asyncio's own, which the stubs of the standard library leave out.
    _transports: Any
    _ensure_fd_no_transport: Any

    def __init__(self, selector: object = None) -> None:
        super().__init__(_Selector(self))  # type: ignore[arg-type]

    def run_forever(self) -> None:
        """Run until `stop()` is called. RuntimeError when it, or another loop of this thread, runs already."""
        if self.is_running() or asyncio._get_running_loop() is not None:
            super().run_forever()  # which raises
        self._begin_run()
        try:
            super().run_forever()
        finally:
            self._end_run()

    def close(self) -> None:
        """Close every connection, and give the descriptors back. RuntimeError while the loop runs."""
        if self.is_closed() or self.is_running():
            super().close()  # which does nothing, or raises
            return
        super().close()
        self._close_core()

    def _make_socket_transport(
        self, sock: socket.socket, protocol: Any, waiter: Any = None, *, extra: Any = None, server: Any = None, **more: Any
    ) -> Any:
        self._ensure_fd_no_transport(sock)
        made = SocketTransport(self, self.core, sock, protocol, waiter, extra, server)
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
        if not is_own(sslcontext):
            if ssl_shutdown_timeout is not None:
                more["ssl_shutdown_timeout"] = ssl_shutdown_timeout
            return super()._make_ssl_transport(  # type: ignore[misc]
                rawsock,
                protocol,
                sslcontext,
                waiter,
                server_side=server_side,
                server_hostname=server_hostname,
                extra=extra,
                server=server,
                ssl_handshake_timeout=ssl_handshake_timeout,
                **more,
            )
        start = start_of(sslcontext, server_side, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout)
        made = SocketTransport(self, self.core, rawsock, protocol, waiter, extra, server, start)
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
        **more: Any,
    ) -> Any:
        """Begin TLS on a connection. Returns the transport that `protocol` is to use."""
        if type(transport) is not SocketTransport or sslcontext is None or not is_own(sslcontext) or transport._over_tls:
            if ssl_shutdown_timeout is not None:
                more["ssl_shutdown_timeout"] = ssl_shutdown_timeout
            return await super().start_tls(
                transport,
                protocol,
                sslcontext,
                server_side=server_side,
                server_hostname=server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
                **more,
            )
        if transport.is_closing():
            raise ConnectionResetError("the transport is closing: TLS cannot begin on it")
        start = start_of(sslcontext, server_side, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout)
        if isinstance(protocol, asyncio.StreamReaderProtocol):
            take_unread(protocol, start)
        waiter = self.create_future()
        transport._start_tls(protocol, start, waiter)
        try:
            await waiter
        except BaseException:
            transport.abort()
            raise
        return transport

    async def sendfile(
        self, transport: Any, file: Any, offset: int = 0, count: Optional[int] = None, *, fallback: bool = True
    ) -> int:
        """Send from a file. Returns the bytes sent: int. SendfileNotAvailableError over TLS with `fallback=False`."""
        if type(transport) is SocketTransport and transport._over_tls and not transport.is_closing():
            if not fallback:
                raise asyncio.SendfileNotAvailableError("over TLS the kernel cannot send from a file: use fallback=True")
            file.seek(offset)
        return await super().sendfile(transport, file, offset, count, fallback=fallback)

    async def _sendfile_native(self, transp: Any, file: Any, offset: int, count: Optional[int]) -> int:
        if type(transp) is not SocketTransport:
            return await super()._sendfile_native(transp, file, offset, count)  # type: ignore[misc, no-any-return]
        reads = transp.is_reading()
        transp.pause_reading()
        await transp._make_empty_waiter()
        try:
            # A duplicate has a place of its own in the epoll set, and so a writer that is told of room.
            with socket.socket(fileno=os.dup(transp._sock_fd)) as duplicate:
                duplicate.setblocking(False)
                return await self.sock_sendfile(duplicate, file, offset, count, fallback=False)
        finally:
            transp._reset_empty_waiter()
            if reads:
                transp.resume_reading()

    def _run_debug(self, handle: Any) -> None:
        """A call in debug mode: a slow one is logged."""
        self._current_handle = handle
        try:
            begun = time.monotonic()
            handle._run()
            seconds = time.monotonic() - begun
            if seconds >= self.slow_callback_duration:
                logger.warning("Executing %s took %.3f seconds", _format_handle(handle), seconds)
        finally:
            self._current_handle = None


def take_unread(protocol: Any, start: TlsStart) -> None:
    """What a StreamReader holds unread was sent behind the wish for TLS: it belongs to the handshake."""
    reader = protocol._stream_reader
    unread = None if reader is None else getattr(reader, "_buffer", None)
    if unread:
        start.feed(bytes(unread))
        unread.clear()


def new_event_loop() -> EventLoop:
    """A new `EventLoop`, for `asyncio.run(main(), loop_factory=sslsock.new_event_loop)`."""
    return EventLoop()
