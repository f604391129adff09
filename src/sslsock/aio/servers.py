"""`Server`: what `create_server` and `create_unix_server` give. asyncio's, and what ours can do besides.

What comes before a protocol stands here: the PROXY header and the choice by the ClientHello (`sockets/entrance.py`). A
connection without these is made by its listener (`core/protocol_listener.pyx`) alone.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
from asyncio import base_events, constants
from asyncio.log import logger
from collections.abc import Iterable
from functools import partial
from typing import Any, Callable, Optional, Union

from ..core.client_hello import ClientHello
from ..core.descriptor import Descriptor
from ..core.handshake_pool import MOST_THREADS, HandshakePool
from ..core.protocol_listener import HandshakePlace, ProtocolListener
from ..sockets.checked import checked_count
from ..sockets.entrance import Entrance, EntranceError, TrustedProxies, endpoints
from .tls import require_context, require_seconds, start_of

__all__ = ["Server", "ServerOptions"]

INTERNAL_ERROR, UNRECOGNIZED_NAME = 80, 112  # alerts: RFC 8446, 6; RFC 6066, 3

HelloHandler = Callable[[ClientHello, Any], Any]


class ServerOptions:
    """What `create_server` takes besides asyncio's arguments. TypeError, ValueError."""

    def __init__(
        self,
        client_hello_handler: Optional[HelloHandler] = None,
        trusted_proxies: Union[bool, str, Iterable[str], None] = None,
        max_handshakes: int = 0,
        handshake_threads: int = 0,
        ssl_half_close: bool = False,
    ) -> None:
        if client_hello_handler is not None and not callable(client_hello_handler):
            raise TypeError(f"client_hello_handler is callable, not {client_hello_handler!r}")
        self.client_hello_handler = client_hello_handler
        self.trusted_proxies = None if trusted_proxies is None else TrustedProxies(trusted_proxies)
        self.max_handshakes = checked_count(max_handshakes, "max_handshakes")
        threads = checked_count(handshake_threads, "handshake_threads", most=MOST_THREADS)
        self.handshake_pool = HandshakePool(threads) if threads else None
        self.half_close = bool(ssl_half_close)

    def check(self, context: Any, handshake_timeout: Optional[float], shutdown_timeout: Optional[float]) -> None:
        """context: what is given as `ssl`; of the time-outs asyncio says that they are for that only."""
        if context is not None and not isinstance(context, bool):  # of which asyncio speaks itself
            require_context(context, server_side=self.client_hello_handler is None)  # which may choose another
            require_seconds(handshake_timeout, shutdown_timeout)
        if context is None and self.client_hello_handler is not None:
            raise ValueError("client_hello_handler is only meaningful with ssl")
        if context is None and self.half_close:
            raise ValueError("ssl_half_close is only meaningful with ssl")
        if context is None and self.max_handshakes and self.trusted_proxies is None:
            raise ValueError("max_handshakes is only meaningful with ssl")


class Server(base_events.Server):
    """An asyncio.Server. Made by `create_server`, never by programs."""

    # asyncio's own, which the stubs of the standard library leave out
    _loop: Any
    _sockets: Any
    _protocol_factory: Any
    _ssl_context: Any
    _ssl_handshake_timeout: Any

    _options: ServerOptions
    _entrances: set[Entrance]
    _ended: asyncio.Future[None]  # when it is closed and all its connections are lost

    def _take(self, options: ServerOptions) -> None:
        self._options = options
        self._entrances = set()
        self._ended = self._loop.create_future()

    def get_loop(self) -> Any:
        """The loop that it serves in."""
        return self._loop._for_transports()

    @property
    def ssl(self) -> Any:
        """The context of connections that are accepted from now on: SSLContext, None without TLS."""
        return self._ssl_context

    def set_ssl(self, context: Any) -> None:
        """Use another context for the connections that are accepted from now on; those that are there keep theirs. ValueError
        for a server without TLS, TypeError for what is no context, ValueError for a configuration that no server can
        use."""
        if self.ssl is None or context is None:
            raise ValueError("a server is with TLS or without it, for good")
        require_context(context, server_side=True)
        self._ssl_context = context
        for sock in self._sockets or ():
            listener = self._loop._listeners.get(sock.fileno())
            if listener is not None:
                self._set_up(listener)

    def _listen(self, sock: socket.socket) -> ProtocolListener:
        loop = self._loop
        listener = ProtocolListener(
            loop._for_transports(),
            loop.core,
            sock,
            self._protocol_factory,
            self,
            loop._transports,
            self._options.max_handshakes,
        )
        self._set_up(listener)
        return listener

    def _set_up(self, listener: ProtocolListener) -> None:
        """How the connections of `listener` begin."""
        options = self._options
        listener.start_tls = None if self.ssl is None else self._start_of(self.ssl)
        comes_first = options.client_hello_handler is not None or options.trusted_proxies is not None
        listener.enter = self._enter if comes_first else None

    def _start_of(self, context: Any, handshake_timeout: Optional[float] = None) -> Callable[[], Any]:
        seconds = handshake_timeout or self._ssl_handshake_timeout
        shutdown, pool = getattr(self, "_ssl_shutdown_timeout", None), self._options.handshake_pool
        return partial(start_of, context, True, None, seconds, shutdown, self._options.half_close, pool)

    def _enter(self, listener: ProtocolListener, descriptor: Descriptor, name: Any, place: Optional[HandshakePlace]) -> None:
        """Something comes before the protocol."""
        options = self._options
        header, hello = options.trusted_proxies is not None, options.client_hello_handler is not None
        address = name[0] if isinstance(name, tuple) else name
        if options.trusted_proxies is not None and address not in options.trusted_proxies:
            self._not_in(EntranceError("it is not among the trusted proxies"), name, place)
            return
        timeout = self._ssl_handshake_timeout or constants.SSL_HANDSHAKE_TIMEOUT
        then = partial(self._came, listener, name, place)
        self._entrances.add(Entrance(self._loop.core, descriptor, header, hello, timeout, then))

    def _not_in(self, error: EntranceError, name: Any, place: Optional[HandshakePlace]) -> None:
        if place is not None:
            place.set_result(None)
        if self.get_loop().get_debug():
            logger.debug("%r: the connection from %r is refused: %s", self, name, error)

    def _came(
        self,
        listener: ProtocolListener,
        name: Any,
        place: Optional[HandshakePlace],
        entrance: Entrance,
        error: Optional[EntranceError],
    ) -> None:
        """Header and ClientHello are there, or will not be."""
        if error is not None:
            self._entrances.discard(entrance)
            self._not_in(error, name, place)
            return
        source, destination = endpoints(entrance.header)
        extra: dict[str, Any] = {"peername": name if source is None else source}
        if destination is not None:
            extra["sockname"] = destination
        if entrance.header is not None:
            extra["proxy_header"] = entrance.header
        handler = self._options.client_hello_handler
        if handler is None:
            self._entrances.discard(entrance)
            self._admit(listener, entrance, extra, self.ssl, place)
            return
        admit = partial(self._chosen, listener, entrance, extra, place)
        try:
            context = handler(entrance.hello, extra["peername"])  # type: ignore[arg-type]
        except Exception as exc:
            admit(None, exc)
            return
        if not inspect.isawaitable(context):
            admit(context, None)
            return
        task = asyncio.ensure_future(asyncio.wait_for(context, entrance.seconds_left()))
        task.add_done_callback(lambda done: admit(*outcome(done)))

    def _chosen(
        self,
        listener: ProtocolListener,
        entrance: Entrance,
        extra: dict[str, Any],
        place: Optional[HandshakePlace],
        context: Any,
        error: Optional[BaseException],
    ) -> None:
        """`client_hello_handler` has decided, or raised."""
        self._entrances.discard(entrance)
        if entrance.closed:  # the server was closed meanwhile
            return
        context = self.ssl if context is None else context
        if error is None:
            try:
                require_context(context, server_side=True)
            except (TypeError, ValueError) as exc:
                error = exc
        if error is None:
            self._admit(listener, entrance, extra, context, place)
            return
        entrance.refuse(UNRECOGNIZED_NAME if isinstance(error, LookupError) else INTERNAL_ERROR)
        self._not_in(EntranceError(f"client_hello_handler has raised {error!r}"), extra["peername"], place)
        if not isinstance(error, (LookupError, OSError, asyncio.TimeoutError, asyncio.CancelledError)):
            told = {"message": "client_hello_handler has raised an exception", "exception": error}
            self.get_loop().call_exception_handler(told)

    def _admit(
        self,
        listener: ProtocolListener,
        entrance: Entrance,
        extra: dict[str, Any],
        context: Any,
        place: Optional[HandshakePlace],
    ) -> None:
        """To a protocol and its transport."""
        start = None if context is None else self._start_of(context, entrance.seconds_left())
        listener.admit(entrance.take(), extra, start, place)

    def close(self) -> None:
        """Stop listening. Connections that have no protocol yet are closed."""
        super().close()
        entrances, self._entrances = self._entrances, set()
        for entrance in entrances:
            entrance.close()

    def _wakeup(self) -> None:
        super()._wakeup()  # type: ignore[misc]
        if not self._ended.done():
            self._ended.set_result(None)


def outcome(done: asyncio.Future[Any]) -> tuple[Any, Optional[BaseException]]:
    if done.cancelled():
        return None, asyncio.CancelledError()
    error = done.exception()
    return (None, error) if error is not None else (done.result(), None)
