"""`Transport`: the class that connections of `sslsock.aio` say to be of."""

from __future__ import annotations

import asyncio
from asyncio import transports
from typing import Any

from ..core import protocol_transport as _made

__all__ = ["Transport"]


class Transport(transports._FlowControlMixin, asyncio.Transport):
    """A connection of a protocol: TCP or UNIX, with or without TLS. Made by the loop, never by programs."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Transport:
        raise TypeError("transports are made by the loop")


_made.transport_class = Transport
