"""What `ssl=` may be, and the start of TLS that comes of it."""

from __future__ import annotations

import ssl as standard
from asyncio import constants
from types import FunctionType
from typing import Any, Optional

from .. import ssl as own
from .._ssl import _SSLContext
from .._ssl.ssl_engine import ContextEngine
from ..core.tls_start import TlsStart

__all__ = ["is_own", "start_of"]

_defaults: dict[bool, Any] = {}


def chosen(context: Any, server_side: bool, server_hostname: Optional[str]) -> Any:
    """What a connection uses: `context`, or for None and True what `ssl.create_default_context` makes where a program has put a
    function of its own there. None: our default context is to be used. ValueError, as asyncio's, for a server without one."""
    if context is not None and context is not True:
        return context
    if server_side:
        raise ValueError("Server side SSL needs a valid SSLContext")
    make = standard.create_default_context
    if isinstance(make, FunctionType) and make.__module__ == "ssl":
        return None
    context = make()
    if not server_hostname:
        context.check_hostname = False
    return context


def is_own(context: Any) -> bool:
    """Whether our engine takes it: a context of `sslsock.ssl`, or None for the default one."""
    return context is None or isinstance(context, _SSLContext)


def default_context(checks_name: bool) -> Any:
    """As `create_default_context()`, made once. checks_name: False where there is no name to check."""
    context = _defaults.get(checks_name)
    if context is None:
        context = own.create_default_context()
        context.check_hostname = checks_name
        _defaults[checks_name] = context
    return context


def seconds(value: Optional[float], default: float, name: str) -> float:
    """A time-out as asyncio takes it. ValueError unless it is positive."""
    if value is None:
        return default
    if value <= 0:
        raise ValueError(f"{name} should be a positive number, got {value}")
    return value


def start_of(
    context: Any,
    server_side: bool,
    server_hostname: Optional[str],
    handshake_timeout: Optional[float],
    shutdown_timeout: Optional[float],
    half_close: bool = False,
) -> TlsStart:
    """For a context that `is_own`."""
    handshake = seconds(handshake_timeout, constants.SSL_HANDSHAKE_TIMEOUT, "ssl_handshake_timeout")
    shutdown = seconds(shutdown_timeout, 30.0, "ssl_shutdown_timeout")
    if context is None:
        context = default_context(bool(server_hostname))
    name = server_hostname if server_hostname and not server_side else None
    tls_object = context.wrap_bio(own.MemoryBIO(), own.MemoryBIO(), server_side, name)
    return TlsStart(ContextEngine(tls_object._sslobj), tls_object, context, handshake, shutdown, half_close)
