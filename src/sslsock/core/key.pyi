from enum import IntEnum
from typing import Any, ClassVar, NoReturn, Optional, Protocol, Union, final

from .encoded import SslEncoding
from .loaded import Loaded

class KeyType(IntEnum):
    PUBLIC = 0
    """A public key."""
    PRIVATE = 1
    """A private key."""

class KeyAlgorithm(IntEnum):
    RSA = 0
    """RSA."""
    DSA = 1
    """DSA (FIPS 186-4)."""
    EC = 2
    """ECDSA, on any curve that OpenSSL knows."""
    ED25519 = 3
    """Ed25519 (RFC 8032)."""
    ED448 = 4
    """Ed448 (RFC 8032)."""
    ML_DSA = 5
    """ML-DSA (FIPS 204), with OpenSSL 3.5 and newer."""
    RSA_PSS = 6
    """RSA for PSS signatures alone (RFC 8017)."""

_Encoded = Union[bytes, bytearray, memoryview, str]
class _CryptographyPrivateKey(Protocol):
    """Of `cryptography`."""

    def private_bytes(self, encoding: Any, format: Any, encryption_algorithm: Any) -> bytes: ...

class _CryptographyPublicKey(Protocol):
    """Of `cryptography`."""

    def public_bytes(self, encoding: Any, format: Any) -> bytes: ...

_Passphrase = Union[str, bytes, bytearray, memoryview]

@final
class SslKey(Loaded):
    PUBLIC: ClassVar[KeyType]
    PRIVATE: ClassVar[KeyType]
    RSA: ClassVar[KeyAlgorithm]
    DSA: ClassVar[KeyAlgorithm]
    EC: ClassVar[KeyAlgorithm]
    ED25519: ClassVar[KeyAlgorithm]
    ED448: ClassVar[KeyAlgorithm]
    ML_DSA: ClassVar[KeyAlgorithm]
    RSA_PSS: ClassVar[KeyAlgorithm]

    def __new__(
        cls,
        encoded: Union[_Encoded, _CryptographyPrivateKey, _CryptographyPublicKey] = b"",
        algorithm: Optional[int] = None,
        format: int = SslEncoding.PEM,
        type: int = KeyType.PRIVATE,
        passphrase: Optional[_Passphrase] = None,
    ) -> SslKey: ...
    @property
    def type(self) -> KeyType: ...
    @property
    def algorithm(self) -> Optional[KeyAlgorithm]: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> NoReturn: ...

def _secret_of(key: SslKey) -> bytes: ...
