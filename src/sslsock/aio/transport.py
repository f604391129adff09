"""The classes that connections of `sslsock.aio` say to be of: `Transport`, and with TLS `SslTransport`."""

from __future__ import annotations

import asyncio
from asyncio import transports
from typing import Any

from ..core import protocol_transport as _made

__all__ = ["SslTransport", "Transport"]


class Transport(transports._FlowControlMixin, asyncio.Transport):
    """A connection of a protocol: TCP or UNIX, with or without TLS. Made by the loop, never by programs."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Transport:
        raise TypeError("transports are made by the loop")


class SslTransport(Transport):
    """A connection with TLS. Programs tell it by the name of its class, as they do with asyncio's."""


_made.transport_class = Transport
_made.ssl_transport_class = SslTransport
