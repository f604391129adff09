import asyncio
from contextvars import Context
from typing import final

class Handle(asyncio.Handle):
    """A planned call: `callback(*args)` in `context`."""

    def get_context(self) -> Context: ...

@final
class TimerHandle(Handle):
    """A call planned for a time."""

    def when(self) -> float: ...
