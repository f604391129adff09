import asyncio
from typing import Any, Optional

from .channel import Channel

class CarriedChannel(Channel):
    """A channel over a transport in place of a descriptor."""

    @property
    def loss(self) -> Optional[BaseException]: ...

class CarrierProtocol(asyncio.BufferedProtocol):
    """What the transport beneath a CarriedChannel tells."""

    def __init__(self, channel: CarriedChannel) -> None: ...
    def data_received(self, data: Any) -> None: ...
