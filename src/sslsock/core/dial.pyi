from typing import Any, Protocol, Union, final

from .descriptor import Descriptor
from .loop import Loop
from .reactor import Watcher

def pack_address(family: int, address: tuple[Any, ...]) -> bytes: ...

class _DialConsumer(Protocol):
    """Who a dial reports to. Called on the loop's thread; may do anything."""

    def on_dialed(self, descriptor: Descriptor) -> None: ...
    def on_dial_failed(self, errno: int) -> None: ...

@final
class Dial(Watcher):
    """An attempt to connect."""

    def __init__(self, loop: Loop, address: bytes, consumer: _DialConsumer, *, local: bytes = b"") -> None: ...
    def start(self, timeout: float) -> Union[Descriptor, int]: ...
    def cancel(self) -> None: ...
