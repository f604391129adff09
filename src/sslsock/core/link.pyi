from typing import Optional

from .engine import Engine
from .loop import Watcher

class Link(Watcher):
    """A connected descriptor, perhaps TLS on it: base of Channel and RelaySide."""

    @property
    def engine(self) -> Optional[Engine]: ...
