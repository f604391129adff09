from typing import Optional, final

from .network_list import NetworkList
from .source_limits import SourceLimits

@final
class Door:
    """What stands before a listener: it refuses connections as soon as they are accepted, by where they come from."""

    def __init__(
        self, networks: Optional[NetworkList] = None, limits: Optional[SourceLimits] = None, shakes: bool = False
    ) -> None: ...
    def follow(self, networks: Optional[NetworkList], limits: Optional[SourceLimits], shakes: bool) -> None: ...
    def refused(self) -> tuple[tuple[int, int, bytes], ...]: ...
