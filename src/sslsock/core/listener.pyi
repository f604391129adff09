from typing import Optional, Protocol, final

from .acceptor import Acceptor
from .door import Door
from .loop import Loop

class _ListenerConsumer(Protocol):
    """Who a listener reports to, on the loop's thread."""

    def _on_pending(self) -> None: ...
    def _on_accept_error(self, errno: int) -> None: ...

@final
class Listener(Acceptor):
    """A listening descriptor and the connections accepted from it that nobody has taken yet."""

    limit: int

    def __init__(self, loop: Loop, fd: int, consumer: _ListenerConsumer, limit: int, door: Optional[Door] = None) -> None: ...
    @property
    def pending(self) -> int: ...
    def take(self) -> Optional[tuple[int, str, int]]: ...
    def take_counted(self) -> Optional[tuple[int, tuple[str, int], Optional[bytes]]]: ...
