"""asyncio's functions with the loop as their first argument, for loops that exist.

Names and signatures are those of aiofastnet, so that libraries which call that can be given this module in its place.
"""

from __future__ import annotations

import asyncio
from typing import Any, Optional

from .hosted import hosted, with_loop
from .streams import StreamReader, StreamReaderProtocol, StreamWriter

__all__ = [
    "connect_accepted_socket",
    "create_connection",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "open_connection",
    "open_unix_connection",
    "sendfile",
    "start_server",
    "start_tls",
    "start_unix_server",
]

LIMIT = 2**16  # bytes, as asyncio.streams has it

create_connection = with_loop("create_connection")
"""`EventLoop.create_connection` in `loop`."""
create_server = with_loop("create_server")
"""`EventLoop.create_server` in `loop`."""
create_unix_connection = with_loop("create_unix_connection")
"""`EventLoop.create_unix_connection` in `loop`."""
create_unix_server = with_loop("create_unix_server")
"""`EventLoop.create_unix_server` in `loop`."""
connect_accepted_socket = with_loop("connect_accepted_socket")
"""`EventLoop.connect_accepted_socket` in `loop`."""
start_tls = with_loop("start_tls")
"""`EventLoop.start_tls` in `loop`."""
sendfile = with_loop("sendfile")
"""`EventLoop.sendfile` in `loop`."""

Streams = tuple[StreamReader, StreamWriter]


async def _open(loop: asyncio.AbstractEventLoop, limit: int, name: str, *args: Any, **kwargs: Any) -> Streams:
    reader = StreamReader(limit=limit, loop=loop)
    protocol = StreamReaderProtocol(reader, loop=loop)
    transport, _ = await getattr(hosted(loop), name)(lambda: protocol, *args, **kwargs)
    return reader, StreamWriter(transport, protocol, reader, loop)


async def _serve(loop: asyncio.AbstractEventLoop, limit: int, name: str, connected: Any, *args: Any, **kwargs: Any) -> Any:
    def factory() -> StreamReaderProtocol:
        return StreamReaderProtocol(StreamReader(limit=limit, loop=loop), connected, loop=loop)

    return await getattr(hosted(loop), name)(factory, *args, **kwargs)


async def open_connection(
    loop: asyncio.AbstractEventLoop,
    host: Optional[str] = None,
    port: Optional[int] = None,
    *,
    limit: int = LIMIT,
    **kwargs: Any,
) -> Streams:
    """asyncio.open_connection in `loop`, which is the one that runs."""
    return await _open(loop, limit, "create_connection", host, port, **kwargs)


async def open_unix_connection(
    loop: asyncio.AbstractEventLoop, path: Any = None, *, limit: int = LIMIT, **kwargs: Any
) -> Streams:
    """asyncio.open_unix_connection in `loop`."""
    return await _open(loop, limit, "create_unix_connection", path, **kwargs)


async def start_server(
    loop: asyncio.AbstractEventLoop,
    client_connected_cb: Any,
    host: Any = None,
    port: Optional[int] = None,
    *,
    limit: int = LIMIT,
    **kwargs: Any,
) -> Any:
    """asyncio.start_server in `loop`."""
    return await _serve(loop, limit, "create_server", client_connected_cb, host, port, **kwargs)


async def start_unix_server(
    loop: asyncio.AbstractEventLoop, client_connected_cb: Any, path: Any = None, *, limit: int = LIMIT, **kwargs: Any
) -> Any:
    """asyncio.start_unix_server in `loop`."""
    return await _serve(loop, limit, "create_unix_server", client_connected_cb, path, **kwargs)
