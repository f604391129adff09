from .consumer import ReportingLink
from .engine import _Buffer

class OutputLink(ReportingLink):
    """The outgoing half of a channel."""

    hold_writes: bool

    @property
    def bytes_to_write(self) -> int: ...
    @property
    def sending_failed(self) -> bool: ...
    def write(self, data: _Buffer) -> int: ...
    def flush(self) -> None: ...
