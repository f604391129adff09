import asyncio
from typing import final

class Handle(asyncio.Handle):
    """A planned call: `callback(*args)` in `context`."""

@final
class TimerHandle(Handle):
    """A call planned for a time."""

    def when(self) -> float: ...

@final
class HandleQueue:
    """Handles in the order in which they were planned."""
