from typing import Optional

from .bare_engine import BareEngine
from .reactor import Watcher

class Link(Watcher):
    """A connected descriptor, perhaps TLS on it: base of Channel and RelaySide."""

    @property
    def engine(self) -> Optional[BareEngine]: ...
