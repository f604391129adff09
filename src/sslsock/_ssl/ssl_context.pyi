from os import PathLike
from typing import Any, Callable, Optional, SupportsIndex, Union

from ..core.ticket_keys import TicketKeys
from .memory_bio import MemoryBIO
from .ssl_connection import _SSLSocket
from .ssl_session import SSLSession
from .ssl_trust import TrustingContext
from .ssl_values import constants as constants
from .ssl_values import left_to_openssl as left_to_openssl

_Path = Union[str, bytes, PathLike[str], PathLike[bytes]]
_Password = Union[str, bytes, bytearray, Callable[[], Union[str, bytes, bytearray]]]

class _SSLContext(TrustingContext):
    _host_flags: int
    _msg_callback: Optional[Callable[..., Any]]
    check_hostname: bool
    keylog_filename: Optional[_Path]
    maximum_version: int
    minimum_version: int
    num_tickets: int
    options: int
    post_handshake_auth: bool
    resume_sessions: bool
    @property
    def protocol(self) -> int: ...
    @property
    def security_level(self) -> int: ...
    sni_callback: Optional[Callable[..., Any]]
    verify_flags: int
    verify_mode: int
    def use_ticket_keys(self, keys: TicketKeys) -> None: ...
    def _wrap_socket(
        self,
        sock: Any,
        server_side: SupportsIndex,
        server_hostname: Optional[str] = None,
        *,
        owner: Any = None,
        session: Optional[SSLSession] = None,
    ) -> _SSLSocket: ...
    def _wrap_bio(
        self,
        incoming: MemoryBIO,
        outgoing: MemoryBIO,
        server_side: SupportsIndex,
        server_hostname: Optional[str] = None,
        *,
        owner: Any = None,
        session: Optional[SSLSession] = None,
    ) -> _SSLSocket: ...
    def _set_npn_protocols(self, protos: Union[bytes, bytearray, memoryview], /) -> None: ...
    def _set_alpn_protocols(self, protos: Union[bytes, bytearray, memoryview], /) -> None: ...
    def get_ciphers(self) -> list[dict[str, Any]]: ...
    def get_groups(self, *, include_aliases: bool = False) -> list[str]: ...
    def load_cert_chain(
        self, certfile: _Path, keyfile: Optional[_Path] = None, password: Optional[_Password] = None
    ) -> None: ...
    def load_dh_params(self, path: _Path, /) -> None: ...
    def session_stats(self) -> dict[str, int]: ...
    def set_ciphers(self, cipherlist: str, /) -> None: ...
    def set_ciphersuites(self, ciphersuites: str, /) -> None: ...
    def set_client_sigalgs(self, sigalgslist: str, /) -> None: ...
    def set_server_sigalgs(self, sigalgslist: str, /) -> None: ...
    def set_ecdh_curve(self, name: Union[str, bytes], /) -> None: ...
    def set_groups(self, grouplist: str, /) -> None: ...
    def set_psk_client_callback(
        self, callback: Optional[Callable[[Optional[str]], tuple[Optional[str], bytes]]]
    ) -> None: ...
    def set_psk_server_callback(
        self, callback: Optional[Callable[[Optional[str]], bytes]], identity_hint: Optional[str] = None
    ) -> None: ...
