from typing import final

@final
class Descriptor:
    """One open descriptor, closed when it is dropped before somebody has taken it."""

    def fileno(self) -> int: ...
    def take(self) -> int: ...

def owner_of(number: int) -> Descriptor: ...
