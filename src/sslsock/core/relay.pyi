from typing import Optional, Protocol, Union, final

from .channel import Channel
from .link import Link
from .loop import Loop

# Why a relay has ended.
RELAY_ENDED: int  # both directions were ended by their peers
RELAY_TRUNCATED: int  # both have ended, one of them without close_notify
RELAY_RESET: int  # a peer reset the connection, or is gone
RELAY_NETWORK: int  # any other error of the network
RELAY_TLS: int  # TLS failed (an alert, a record that does not decrypt)
RELAY_RESOURCE: int  # no memory
RELAY_IDLE: int  # nothing came for too long
RELAY_ABORTED: int  # close()

class _RelayObserver(Protocol):
    """Who a relay reports to. Called on the loop's thread, when both descriptors are closed; may do anything."""

    def _on_relay_closed(self, reason: int) -> None: ...

@final
class RelaySide(Link): ...

@final
class ChannelRelay:
    """Joins two sides."""

    def __init__(
        self,
        loop: Loop,
        front: Union[Channel, int],
        back: Union[Channel, int],
        observer: _RelayObserver,
        idle_seconds: float = 0.0,
        head: bytes = b"",
        half_closed_seconds: float = 0.0,
    ) -> None: ...
    idle_seconds: float

    @property
    def loop(self) -> Loop: ...
    @property
    def half_closed(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    @property
    def bytes_forward(self) -> int: ...
    @property
    def bytes_back(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def failed_side(self) -> Optional[str]: ...
    @property
    def error_text(self) -> str: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
