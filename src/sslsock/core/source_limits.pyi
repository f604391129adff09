from typing import Optional, final

ADMITTED: int
DENIED: int
CONNECTIONS: int
HANDSHAKES: int
CONNECTION_RATE: int
HANDSHAKE_RATE: int
NO_MEMORY: int

@final
class SourceLimits:
    """How many connections each source has and makes, in all threads or processes, and how many it may. From any thread."""

    @property
    def active(self) -> bool: ...
    @property
    def present(self) -> int: ...
    def __init__(self, size: int = 65536, workers: int = 0, capacity: int = 2097152) -> None: ...
    def join(self, number: int) -> None: ...
    def clear(self, number: int) -> None: ...
    def follow(
        self,
        *,
        connections: int = 0,
        handshakes: int = 0,
        connection_rate: tuple[int, int] = (0, 1),
        handshake_rate: tuple[int, int] = (0, 1),
        ipv4_bits: int = 32,
        ipv6_bits: int = 64,
    ) -> None: ...
    def enter(
        self, address: bytes, shakes: bool, now: Optional[int] = None, exact: bool = False
    ) -> tuple[int, Optional[bytes]]: ...
    def shake(self, source: bytes, now: Optional[int] = None) -> int: ...
    def settle(self, source: bytes) -> None: ...
    def leave(self, source: bytes, shakes: bool) -> None: ...
