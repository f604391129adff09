from typing import Any, final

from .bare_engine import BareEngine

@final
class ForeignEngine(BareEngine):
    """The engine of a connection whose TLS is another library's."""

    def __init__(self, tls_object: Any, incoming: Any, outgoing: Any, server_side: bool) -> None: ...
    @property
    def tls_object(self) -> Any: ...
