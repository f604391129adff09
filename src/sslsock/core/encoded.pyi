from enum import IntEnum
from typing import Union, final

class SslEncoding(IntEnum):
    PEM = 0
    """Base64 text between `-----BEGIN` and `-----END` lines (RFC 7468)."""
    DER = 1
    """Bytes as ASN.1 has them."""

@final
class Source:
    def __new__(cls, encoded: Union[bytes, bytearray, memoryview, str], binary: bool) -> Source: ...

@final
class PemPart: ...
