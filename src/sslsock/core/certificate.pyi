from collections.abc import Iterable
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Any, Callable, ClassVar, Optional, Protocol, Union, final

from .encoded import SslEncoding
from .loaded import Loaded
from .loading import Loader

if TYPE_CHECKING:
    from ..sockets.configuration import SslConfiguration
    from ..sockets.ssl_error import SslError

_Encoded = Union[bytes, bytearray, memoryview, str]

class _CryptographyCertificate(Protocol):
    """Of `cryptography`."""

    def public_bytes(self, encoding: Any) -> bytes: ...

def _set_verify(function: Callable[..., list[SslError]]) -> None: ...

@final
class CertificateLoader(Loader): ...

@final
class SslCertificate(Loaded):
    PEM: ClassVar[SslEncoding]
    DER: ClassVar[SslEncoding]

    def __new__(
        cls, encoded: Union[_Encoded, _CryptographyCertificate] = b"", format: int = SslEncoding.PEM
    ) -> SslCertificate: ...
    @staticmethod
    def from_bytes(data: _Encoded) -> list[SslCertificate]: ...
    @staticmethod
    def from_path(path: Union[str, bytes, PathLike[str], PathLike[bytes]]) -> list[SslCertificate]: ...
    @staticmethod
    def verify(
        chain: Iterable[SslCertificate],
        name: str = "",
        configuration: Optional[SslConfiguration] = None,
        *,
        purpose: Optional[int] = None,
        time: Optional[datetime] = None,
    ) -> list[SslError]: ...
    @property
    def subject(self) -> dict[str, list[str]]: ...
    @property
    def issuer(self) -> dict[str, list[str]]: ...
    @property
    def serial_number(self) -> int: ...
    @property
    def not_before(self) -> Optional[datetime]: ...
    @property
    def not_after(self) -> Optional[datetime]: ...
    @property
    def subject_alternative_names(self) -> list[tuple[str, str]]: ...
    def digest(self, name: str = "sha256") -> bytes: ...
    def to_pem(self) -> bytes: ...
    def to_der(self) -> bytes: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
