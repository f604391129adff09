"""Agreed: what a TLS connection and its peer have agreed on, as SslSocket shows it.

It is asked of the engine, which the socket keeps after the end of the connection too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional, Union

from ..core.binding import check_binding
from ..core.certificate import SslCertificate
from .configuration import decoded_protocol
from .constants import SslProtocol
from .tcp_socket import TcpSocket

if TYPE_CHECKING:
    from ..core.engine import Engine

__all__ = ["Agreed"]


class Agreed(TcpSocket):
    """Base of SslSocket. `_engine`: the connection's, None before the handshake."""

    __slots__ = ("_engine",)

    _engine: Optional[Engine]

    @property
    def peer_certificate(self) -> Optional[SslCertificate]:
        """The peer's certificate: SslCertificate, None when it sent none."""
        chain = self.peer_certificate_chain
        return chain[0] if chain else None

    @property
    def peer_certificate_chain(self) -> list[SslCertificate]:
        """The certificates the peer sent, its own first: list of SslCertificate."""
        return self._engine.peer_certificate_chain() if self._engine is not None else []

    @property
    def peer_verified_chain(self) -> list[SslCertificate]:
        """The chain by which the peer's certificate was verified: its own first, the trusted one last: list of
        SslCertificate. Empty before the handshake is done, where nothing was verified (VERIFY_NONE, a resumed session,
        no certificate), and where errors were found, ignored ones too."""
        return self._engine.peer_verified_chain() if self._engine is not None else []

    def channel_binding(self, kind: str) -> Optional[bytes]:
        """What binds an authentication inside the connection to it (SCRAM's `-PLUS`), the same on both sides: bytes.
        kind: "tls-exporter" (RFC 9266), "tls-server-end-point" or "tls-unique" (RFC 5929). None before the handshake
        is done, and where the connection has none of the kind: "tls-unique" in TLS 1.3, for example. ValueError: there is
        no such kind. RuntimeError in a relay, and in another thread than the loop's."""
        self._loop.check()
        check_binding(kind)
        return self._engine.channel_binding(kind) if self._engine is not None else None

    def export_keying_material(
        self, label: Union[str, bytes], length: int, context: Optional[Union[bytes, bytearray, memoryview]] = None
    ) -> bytes:
        """A secret that both sides can make and nobody else (RFC 5705; RFC 8446, 7.5): bytes. label: str (ASCII) or
        bytes, as registered with IANA or beginning with "EXPERIMENTAL". length: bytes wanted, int. context: bytes-like,
        what it is for; None: no context, which is another than an empty one with TLS 1.2. RuntimeError before the
        handshake is done, in a relay, and in another thread than the loop's; TypeError, ValueError."""
        self._loop.check()
        if self._engine is None:
            raise RuntimeError("nothing can be exported before the handshake is done")
        return self._engine.export_keying_material(label, length, context)

    @property
    def session_protocol(self) -> Optional[SslProtocol]:
        """The protocol agreed on: SslProtocol, None before."""
        number = self._engine.protocol if self._engine is not None else 0
        return SslProtocol(number) if number else None

    @property
    def session_cipher(self) -> str:
        """OpenSSL's name of the cipher suite, "" before it is agreed on: str."""
        return self._engine.cipher if self._engine is not None else ""

    @property
    def session_group(self) -> str:
        """Name of the group of the key exchange, "" when there is none: str."""
        return self._engine.group if self._engine is not None else ""

    @property
    def next_negotiated_protocol(self) -> Optional[str]:
        """The protocol agreed on by ALPN: str, None when there is none."""
        wire = self._engine.next_protocol if self._engine is not None else None
        return None if wire is None else decoded_protocol(wire)

    @property
    def requested_server_name(self) -> Optional[str]:
        """The server name that the client asked for: str as `ClientHello.server_name`, None when it named none."""
        return self._engine.requested_server_name if self._engine is not None else None
