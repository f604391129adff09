from typing import final

class Timed:
    """What stands in a heap. Base of `Timer`."""

class TimedHeap:
    """A binary heap by time."""

@final
class Timer(Timed):
    """A call that `Loop.call_later` has planned."""

    @property
    def cancelled(self) -> bool: ...
    def cancel(self) -> None: ...

@final
class TimerHeap(TimedHeap):
    """The timers of a loop."""

@final
class WorkQueue:
    """What is planned for a turn."""
