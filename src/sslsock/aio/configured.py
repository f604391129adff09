"""TLS by an `SslConfiguration`: the engine of the family's sockets on asyncio's connections."""

from __future__ import annotations

from typing import Any, Optional

from .._ssl.ssl_certificate import certificate_info
from .._ssl.ssl_cipher import engine_cipher
from ..core.engine import Engine
from ..core.hostname import parse_host
from ..sockets.configuration import SslConfiguration, decoded_protocol
from ..sockets.constants import PeerVerifyMode

__all__ = ["EngineView", "engine_of", "require_certificate"]

AUTO_VERIFY_PEER = PeerVerifyMode.AUTO_VERIFY_PEER
VERIFY_NONE = PeerVerifyMode.VERIFY_NONE
VERSIONS = {0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}  # as `ssl` names them


def mode_of(configuration: SslConfiguration, server_side: bool) -> PeerVerifyMode:
    mode = configuration.peer_verify_mode
    if mode is not AUTO_VERIFY_PEER:
        return mode
    return PeerVerifyMode.QUERY_PEER if server_side else PeerVerifyMode.VERIFY_PEER


def require_certificate(configuration: SslConfiguration) -> None:
    """ValueError for what no server can use."""
    if configuration.local_certificate is None and not configuration.local_certificate_chain:
        raise ValueError("the server's configuration has no certificate")
    try:
        configuration.context(True, mode_of(configuration, True))
    except ValueError as exc:  # a ConfigurationError among them
        raise ValueError(f"the server's configuration cannot be used: {exc}") from exc


def engine_of(configuration: SslConfiguration, server_side: bool, server_hostname: Optional[str], peer: Any) -> Engine:
    """server_hostname: the name to verify a server by; "" for none. peer: the address on the other side, for sessions are kept
    for a name and a port. ValueError."""
    if server_side:
        require_certificate(configuration)
    mode = mode_of(configuration, server_side)
    context = configuration.context(server_side, mode)
    if server_side:
        return Engine(context)
    host = parse_host(server_hostname) if server_hostname else None
    verify_name = None
    if configuration.verify_hostname and mode is not VERIFY_NONE:
        if host is not None:
            verify_name = host.verify_name
        elif server_hostname is None and mode is PeerVerifyMode.VERIFY_PEER:
            raise ValueError("there is no name to verify the peer by: give server_hostname")
    server_name = host.server_name if host is not None else None
    place = peer[:2] if isinstance(peer, tuple) else (peer, None)
    key = (server_hostname or place[0], place[1], verify_name, server_name)
    return Engine(context, server_name=server_name, verify_name=verify_name, session_key=key)


class EngineView:
    """What `get_extra_info("ssl_object")` gives: what was agreed on, asked as of an `ssl.SSLObject`. It neither reads nor
    writes."""

    def __init__(self, engine: Engine, context: SslConfiguration, server_side: bool, server_hostname: Optional[str]) -> None:
        self._engine = engine
        self.context = context
        self.server_side = server_side
        self.server_hostname = server_hostname or None

    @property
    def session_reused(self) -> bool:
        return self._engine.session_reused

    def version(self) -> Optional[str]:
        return VERSIONS.get(self._engine.protocol)

    def cipher(self) -> Optional[tuple[str, str, int]]:
        return engine_cipher(self._engine)

    def group(self) -> Optional[str]:
        return self._engine.group or None

    def compression(self) -> None:
        return None

    def selected_alpn_protocol(self) -> Optional[str]:
        wire = self._engine.next_protocol
        return None if wire is None else decoded_protocol(wire)

    def requested_server_name(self) -> Optional[str]:
        return self._engine.requested_server_name if self.server_side else None

    def getpeercert(self, binary_form: bool = False) -> Any:
        """As `ssl`: None without a certificate, {} for one that was not verified; DER with binary_form."""
        engine = self._engine
        chain = engine.peer_certificate_chain()
        if not chain:
            return None
        if binary_form:
            return chain[0].to_der()
        unverified = mode_of(self.context, self.server_side) is VERIFY_NONE or engine.verify_errors
        return {} if unverified else certificate_info(chain[0])

    def get_channel_binding(self, cb_type: str = "tls-unique") -> Optional[bytes]:
        return self._engine.channel_binding(cb_type)
