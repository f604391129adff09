from collections.abc import Iterable
from typing import Optional, final

@final
class RateLimits:
    """How many of something may begin in a time, in all threads or processes. From any thread."""

    def __new__(cls, count: int, shared: bool = False) -> RateLimits: ...
    def follow(self, number: int, interval: int, burst: int) -> None: ...
    def limiter(self, numbers: Iterable[int]) -> RateLimiter: ...

@final
class RateLimiter:
    """What goes by some of these rates together."""

    @property
    def limited(self) -> bool: ...
    @property
    def in_force(self) -> tuple[tuple[int, int], ...]: ...
    def take(self, patience: Optional[float] = None, now: Optional[int] = None) -> Optional[float]: ...
