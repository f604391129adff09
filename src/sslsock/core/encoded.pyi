from enum import IntEnum
from typing import Union, final

class SslEncoding(IntEnum):
    PEM = 0
    DER = 1

@final
class Source:
    def __new__(cls, encoded: Union[bytes, bytearray, memoryview, str], binary: bool) -> Source: ...

@final
class PemPart: ...
