from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import ClassVar, Optional, Union

class SslEncoding(IntEnum):
    PEM = 0
    DER = 1

class KeyType(IntEnum):
    PUBLIC = 0
    PRIVATE = 1

class KeyAlgorithm(IntEnum):
    RSA = 0
    DSA = 1
    EC = 2
    ED25519 = 3
    ED448 = 4

Passphrase = Union[str, bytes, bytearray, memoryview]

class SslCertificate:
    PEM: ClassVar[SslEncoding]
    DER: ClassVar[SslEncoding]

    def __init__(self, encoded: Union[bytes, bytearray, memoryview, str] = b"", format: int = SslEncoding.PEM) -> None: ...
    @staticmethod
    def from_bytes(data: Union[bytes, bytearray, memoryview, str]) -> list[SslCertificate]: ...
    @staticmethod
    def from_path(path: Union[str, Path]) -> list[SslCertificate]: ...
    @property
    def null(self) -> bool: ...
    @property
    def error_string(self) -> str: ...
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
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...

class SslKey:
    PUBLIC: ClassVar[KeyType]
    PRIVATE: ClassVar[KeyType]
    RSA: ClassVar[KeyAlgorithm]
    DSA: ClassVar[KeyAlgorithm]
    EC: ClassVar[KeyAlgorithm]
    ED25519: ClassVar[KeyAlgorithm]
    ED448: ClassVar[KeyAlgorithm]

    def __init__(
        self,
        encoded: Union[bytes, bytearray, memoryview, str] = b"",
        algorithm: Optional[int] = None,
        format: int = SslEncoding.PEM,
        type: int = KeyType.PRIVATE,
        passphrase: Optional[Passphrase] = None,
    ) -> None: ...
    @property
    def null(self) -> bool: ...
    @property
    def error_string(self) -> str: ...
    @property
    def type(self) -> KeyType: ...
    @property
    def algorithm(self) -> Optional[KeyAlgorithm]: ...
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...
