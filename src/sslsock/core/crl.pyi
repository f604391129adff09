from datetime import datetime
from os import PathLike
from typing import Any, ClassVar, Optional, Protocol, Union, final

from .encoded import SslEncoding
from .loaded import Loaded
from .loading import Loader

_Encoded = Union[bytes, bytearray, memoryview, str]

class _CryptographyCrl(Protocol):
    """Of `cryptography`."""

    def public_bytes(self, encoding: Any) -> bytes: ...

@final
class CrlLoader(Loader): ...

@final
class SslCrl(Loaded):
    PEM: ClassVar[SslEncoding]
    DER: ClassVar[SslEncoding]

    def __new__(cls, encoded: Union[_Encoded, _CryptographyCrl] = b"", format: int = SslEncoding.PEM) -> SslCrl: ...
    @staticmethod
    def from_bytes(data: _Encoded) -> list[SslCrl]: ...
    @staticmethod
    def from_path(path: Union[str, bytes, PathLike[str], PathLike[bytes]]) -> list[SslCrl]: ...
    @property
    def issuer(self) -> dict[str, list[str]]: ...
    @property
    def last_update(self) -> Optional[datetime]: ...
    @property
    def next_update(self) -> Optional[datetime]: ...
    def to_der(self) -> bytes: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
