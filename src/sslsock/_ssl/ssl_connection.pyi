from typing import Any, Optional, SupportsIndex, Union, final, overload

from .memory_bio import MemoryBIO
from .ssl_context import _SSLContext
from .ssl_inspection import InspectedConnection
from .ssl_session import SSLSession

_Buffer = Union[bytes, bytearray, memoryview]

def over_socket(
    context: _SSLContext,
    sock: Any,
    server_side: bool,
    server_hostname: Optional[str],
    owner: Any,
    session: Optional[SSLSession],
) -> _SSLSocket: ...
def over_memory(
    context: _SSLContext,
    incoming: MemoryBIO,
    outgoing: MemoryBIO,
    server_side: bool,
    server_hostname: Optional[str],
    owner: Any,
    session: Optional[SSLSession],
) -> _SSLSocket: ...

@final
class _SSLSocket(InspectedConnection):
    context: _SSLContext
    owner: Any
    def do_handshake(self) -> None: ...
    @overload
    def read(self, size: SupportsIndex, /) -> bytes: ...
    @overload
    def read(self, size: SupportsIndex, buffer: Union[bytearray, memoryview], /) -> int: ...
    def write(self, b: _Buffer, /) -> int: ...
    def pending(self) -> int: ...
    def shutdown(self) -> Any: ...
    def verify_client_post_handshake(self) -> None: ...
    def uses_ktls_for_send(self) -> bool: ...
    def uses_ktls_for_recv(self) -> bool: ...
