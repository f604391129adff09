from collections.abc import Sequence
from os import PathLike
from typing import Callable, Optional, Union

from .certificate import SslCertificate
from .crl import SslCrl
from .key import SslKey
from .ticket_keys import TicketKeys

VERIFY_NONE: int
VERIFY_QUERY: int
VERIFY_PEER: int
DEFAULT_CIPHERSUITES: str
DEFAULT_CIPHERS: str
DEFAULT_GROUPS: str
PSK_CIPHERS: str
TICKET_LIFETIME: int

class ConfigurationError(ValueError):
    """A setting that OpenSSL or this package refuses: what it is, and OpenSSL's reason."""

def openssl_version() -> str: ...
def protocol_supported(version: int) -> bool: ...

class Context:
    """One SSL_CTX, made from settings that do not change afterwards."""

    def __new__(
        cls,
        *,
        server_side: bool,
        certificate: Optional[SslCertificate] = None,
        certificate_chain: Sequence[SslCertificate] = (),
        private_key: Optional[SslKey] = None,
        certificates: Sequence[tuple[SslCertificate, Sequence[SslCertificate], SslKey]] = (),
        verify_mode: int = ...,
        verify_depth: int = -1,
        ca_certificates: Sequence[SslCertificate] = (),
        use_system_ca: bool = True,
        minimum_protocol: int = ...,
        maximum_protocol: int = 0,
        ciphers: str = "",
        ciphersuites: str = "",
        groups: str = "",
        signature_algorithms: str = "",
        next_protocols: Sequence[bytes] = (),
        ticket_keys: Optional[TicketKeys] = None,
        session_context: bytes = b"",
        key_log: Union[str, PathLike[str], Callable[[str], object], None] = None,
        verify_flags: int = 0,
        crls: Sequence[SslCrl] = (),
        pre_shared_keys: bool = False,
        pre_shared_key_identity_hint: str = "",
        post_handshake_authentication: bool = False,
        legacy_server_connect: bool = False,
        prefer_server_ciphers: bool = True,
    ) -> Context: ...
    @property
    def server_side(self) -> bool:
        """Role: bool."""
    @property
    def verify_mode(self) -> int:
        """VERIFY_NONE, VERIFY_QUERY or VERIFY_PEER: int."""
