from .loop import Loop
from .planner import Planner

class Watcher:
    """What a loop knows of one descriptor: base of Channel, Listener and Watch."""

    @property
    def loop(self) -> Loop: ...

class LevelWatcher(Watcher):
    """A descriptor that is told of on each turn while it is ready."""

class Reactor(Planner):
    """A loop's descriptors, and what their watchers have planned."""

    @property
    def unsent(self) -> int: ...
    @property
    def watching(self) -> int: ...
