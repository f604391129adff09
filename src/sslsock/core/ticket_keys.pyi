from collections.abc import Iterable
from typing import Union, final

KEY_SIZE: int
MOST_KEYS: int

@final
class TicketKeys:
    """The keys that contexts seal their session tickets with."""

    def __new__(cls, *, older: int = 2) -> TicketKeys: ...
    @property
    def older(self) -> int:
        """How many of the keys before the first one `rotate` keeps: int."""
    @property
    def names(self) -> list[bytes]: ...
    def rotate(self) -> None: ...
    def replace(self, keys: Iterable[Union[bytes, bytearray, memoryview]]) -> None: ...
