from typing import final

@final
class Timer:
    """A call that `Loop.call_later` has planned."""

    @property
    def cancelled(self) -> bool: ...
    def cancel(self) -> None: ...

@final
class TimerHeap:
    """Timers, a binary heap by their time."""

@final
class WorkQueue:
    """What is planned for a turn."""
