"""What `ssl=` may be, and the start of TLS that comes of it."""

from __future__ import annotations

import logging
import ssl as standard
import sys
from asyncio import constants
from types import FunctionType
from typing import Any, Callable, Optional

from .. import ssl as own
from .._ssl import _SSLContext
from .._ssl.ssl_engine import ContextEngine
from ..core.bare_engine import BareEngine
from ..core.foreign_engine import ForeignEngine
from ..core.handshake_pool import HandshakePool
from ..core.tls_start import TlsStart
from ..sockets.configuration import SslConfiguration
from .configured import EngineView, engine_of, require_certificate

__all__ = ["is_own", "start_of"]

_log = logging.getLogger("sslsock")
_defaults: dict[bool, Any] = {}
_told_of_foreign = False
_interpreters_bio = standard.MemoryBIO  # kept, for `ssl` may be switched


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
    """Whether it is one of `sslsock.ssl`, or None for the default one."""
    return context is None or isinstance(context, _SSLContext)


class HalfClosing:
    """What stands for a context on its way through asyncio's code, where each direction is to end by itself."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.wrap_bio = getattr(context, "wrap_bio", None)  # what is asked of a context on the way


def with_half_close(options: dict[str, Any], wanted: bool) -> dict[str, Any]:
    """Arguments for asyncio's code. ValueError where there is no TLS whose directions could end."""
    context = options.get("ssl")
    if not wanted:
        return options
    if not context:
        raise ValueError("ssl_half_close is only meaningful with ssl")
    return {**options, "ssl": HalfClosing(context)}


def require_context(context: Any, server_side: bool = False) -> None:
    """TypeError, as asyncio's, for what makes no TLS. ValueError for a configuration that no server can use."""
    if isinstance(context, SslConfiguration):
        if server_side:
            require_certificate(context)
    elif not callable(getattr(context, "wrap_bio", None)):
        raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {context!r}")


def default_context(checks_name: bool) -> Any:
    """As `create_default_context()`, made once. checks_name: False where there is no name to check."""
    context = _defaults.get(checks_name)
    if context is None:
        context = own.create_default_context()
        context.check_hostname = checks_name
        _defaults[checks_name] = context
    return context


def require_seconds(handshake_timeout: Optional[float], shutdown_timeout: Optional[float]) -> tuple[float, float]:
    """The time-outs of a connection, in seconds. ValueError, as asyncio's, unless they are positive; None: asyncio's own."""
    given = {"ssl_handshake_timeout": handshake_timeout, "ssl_shutdown_timeout": shutdown_timeout}
    for name, value in given.items():
        if value is not None and value <= 0:
            raise ValueError(f"{name} should be a positive number, got {value}")
    handshake = constants.SSL_HANDSHAKE_TIMEOUT if handshake_timeout is None else handshake_timeout
    return handshake, 30.0 if shutdown_timeout is None else shutdown_timeout


def start_of(
    context: Any,
    server_side: bool,
    server_hostname: Optional[str],
    handshake_timeout: Optional[float],
    shutdown_timeout: Optional[float],
    half_close: bool = False,
    pool: Optional[HandshakePool] = None,
    peer: Optional[Callable[[], Any]] = None,
) -> TlsStart:
    """The start of TLS by a context, or by None for the default one. peer: gives the address on the other side. TypeError for
    what is no context, ValueError for a configuration that cannot be used."""
    handshake, shutdown = require_seconds(handshake_timeout, shutdown_timeout)
    if context is None:
        context = default_context(bool(server_hostname))
    require_context(context)
    name = server_hostname if server_hostname and not server_side else None
    engine: BareEngine
    tls_object: Any
    if isinstance(context, SslConfiguration):
        address = peer() if peer is not None and not server_side else None
        engine = engine_of(context, server_side, server_hostname, address)
        tls_object = EngineView(engine, context, server_side, server_hostname)
    elif is_own(context):
        tls_object = context.wrap_bio(own.MemoryBIO(), own.MemoryBIO(), server_side, name)
        engine = ContextEngine(tls_object._sslobj)
    else:
        tell_of_foreign(context)
        memory_bio = memory_bio_of(context)
        incoming, outgoing = memory_bio(), memory_bio()
        tls_object = context.wrap_bio(incoming, outgoing, server_side=server_side, server_hostname=name)
        engine = ForeignEngine(tls_object, incoming, outgoing, server_side)
    return TlsStart(engine, tls_object, context, handshake, shutdown, half_close, pool)


def memory_bio_of(context: Any) -> Any:
    """The class of the BIOs that a context of another library wants: that of the module, or of a package around it, from which
    the class of the context is; the interpreter's for what has none."""
    for base in type(context).__mro__:
        name = base.__module__
        while name and name not in ("ssl", "_ssl", "builtins"):
            found = getattr(sys.modules.get(name), "MemoryBIO", None)
            if found is not None:
                return found
            name = name.rpartition(".")[0]
    return _interpreters_bio


def tell_of_foreign(context: Any) -> None:
    """Once: who wanted TLS in C learns why it is not."""
    global _told_of_foreign
    if not _told_of_foreign:
        _told_of_foreign = True
        kind = f"{type(context).__module__}.{type(context).__qualname__}"
        _log.info("the TLS of %s is its own, driven by sslsock; contexts of sslsock.ssl are faster", kind)
