from typing import final

from .reactor import LevelWatcher, Watcher

PEER_ENDED: int

@final
class Watch(Watcher):
    """A descriptor watched for a Python callback (edge-triggered). It does not own the descriptor."""

    def close(self) -> None: ...

@final
class LevelWatch(LevelWatcher):
    """A descriptor watched for a Python callback (level-triggered). It does not own the descriptor."""

    def change(self, events: int) -> None: ...
    def close(self) -> None: ...
