from typing import Any, final

from ..core.bare_engine import BareEngine

@final
class ContextEngine(BareEngine):
    """The engine of a connection that was made by an `ssl.SSLContext` of ours."""

    def __init__(self, connection: Any) -> None: ...
    @property
    def connection(self) -> Any: ...
