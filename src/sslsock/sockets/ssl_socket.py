"""SslSocket: a TcpSocket that can encrypt, from the first byte or later (STARTTLS), as client or as server.

Owns the mode, which stands beside the state (tabled in `states`; only `_turn` writes it), and what the
program wants of the peer. The TLS connection itself is the engine's, in the channel; the socket keeps a
reference, for what was agreed on is asked for after the end as well.

Between "we shall encrypt" and "we do" no byte may leave in the clear: `connect_encrypted` holds writes back
from the start, and a configuration that OpenSSL refuses closes both directions at once, though the failure is
told from the loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..core.engine import Engine
from ..core.x509 import SslCertificate
from .configuration import SslConfiguration, decoded_protocol, default_configuration
from .constants import OpenMode, PeerVerifyMode, SocketError, SslMode, SslProtocol
from .hostname import parse_host
from .ssl_error import SslError
from .states import MODE_MOVES, ModeEvent
from .tcp_socket import CONNECTED, TcpSocket
from .twins import twin

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..core.engine import _VerifyError

__all__ = ["SslSocket"]

UNENCRYPTED = SslMode.UNENCRYPTED_MODE
AUTO_VERIFY_PEER = PeerVerifyMode.AUTO_VERIFY_PEER
VERIFY_NONE = PeerVerifyMode.VERIFY_NONE
VERIFY_PEER = PeerVerifyMode.VERIFY_PEER
QUERY_PEER = PeerVerifyMode.QUERY_PEER


class SslSocket(TcpSocket):
    """A TCP socket with TLS.

    `connect_encrypted` it; or `connect` and `start_client_encryption` later; or take it from an SslServer.

    handshake_timeout: float, seconds from the start of a handshake to its end, 30; 0 for no limit.
    """

    UNENCRYPTED_MODE = SslMode.UNENCRYPTED_MODE
    SSL_CLIENT_MODE = SslMode.SSL_CLIENT_MODE
    SSL_SERVER_MODE = SslMode.SSL_SERVER_MODE

    VERIFY_NONE = PeerVerifyMode.VERIFY_NONE
    QUERY_PEER = PeerVerifyMode.QUERY_PEER
    VERIFY_PEER = PeerVerifyMode.VERIFY_PEER
    AUTO_VERIFY_PEER = PeerVerifyMode.AUTO_VERIFY_PEER

    __slots__ = (
        "_configuration",
        "_demanding",
        "_encrypted",
        "_engine",
        "_handshake_errors",
        "_mode",
        "_peer_verify_mode",
        "_peer_verify_name",
        "_tolerated",
        "encrypted_handler",
        "handshake_timeout",
        "mode_changed_handler",
        "ssl_errors_handler",
    )

    encrypted_handler: Optional[Callable[[Self], object]]
    """`encrypted_handler(socket)`: the handshake is done, `encrypted` is True."""
    mode_changed_handler: Optional[Callable[[Self, SslMode], object]]
    """`mode_changed_handler(socket, mode)`."""
    ssl_errors_handler: Optional[Callable[[Self, list[SslError]], object]]
    """`ssl_errors_handler(socket, errors)`: the peer's certificates have errors; `ignore_ssl_errors` may be
    called here."""

    def __init__(self) -> None:
        super().__init__()
        self._mode = UNENCRYPTED
        self._encrypted = False
        self._demanding = False  # this handshake is over when the peer's certificates have errors
        self._configuration: Optional[SslConfiguration] = None
        self._engine: Optional[Engine] = None
        self._peer_verify_mode: Optional[PeerVerifyMode] = None
        self._peer_verify_name = ""
        self._handshake_errors: tuple[SslError, ...] = ()
        # What `ignore_ssl_errors` has let pass; None while it may not be called.
        self._tolerated: Optional[tuple[SslError, ...]] = None
        self.handshake_timeout = 30.0
        self.encrypted_handler = None
        self.mode_changed_handler = None
        self.ssl_errors_handler = None

    # Settings

    @property
    def configuration(self) -> SslConfiguration:
        """SslConfiguration, used from the next handshake on."""
        if self._configuration is None:
            self._configuration = SslConfiguration()
        return self._configuration

    @configuration.setter
    def configuration(self, configuration: SslConfiguration) -> None:
        if not isinstance(configuration, SslConfiguration):
            raise TypeError(f"an SslConfiguration is needed, not {type(configuration).__name__}")
        self._configuration = configuration

    @property
    def peer_verify_mode(self) -> PeerVerifyMode:
        """What is demanded of the peer: PeerVerifyMode, the configuration's until it is set here. Assigning
        None goes back to that."""
        if self._peer_verify_mode is not None:
            return self._peer_verify_mode
        return (self._configuration or default_configuration()).peer_verify_mode

    @peer_verify_mode.setter
    def peer_verify_mode(self, mode: Optional[int]) -> None:
        if mode is not None and (not isinstance(mode, int) or isinstance(mode, bool)):
            raise TypeError(f"a PeerVerifyMode is needed, not {type(mode).__name__}")
        self._peer_verify_mode = None if mode is None else PeerVerifyMode(mode)

    @property
    def peer_verify_name(self) -> str:
        """The name (or IP address) to check the peer's certificate against, and to ask the server for,
        instead of the host connected to: str, "" for the host."""
        return self._peer_verify_name

    @peer_verify_name.setter
    def peer_verify_name(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a name is needed, not {type(name).__name__}")
        if name:
            parse_host(name)  # ValueError
        self._peer_verify_name = name

    # What is agreed on

    @property
    def mode(self) -> SslMode:
        """SslMode; not UNENCRYPTED from the start of a handshake to the end of the connection."""
        return self._mode

    @property
    def encrypted(self) -> bool:
        """True from the end of the handshake to the end of the connection."""
        return self._encrypted

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
    def session_reused(self) -> bool:
        """Whether an earlier session was resumed."""
        return self._engine.session_reused if self._engine is not None else False

    @property
    def next_negotiated_protocol(self) -> Optional[str]:
        """The protocol agreed on by ALPN: str, None when there is none."""
        wire = self._engine.next_protocol if self._engine is not None else None
        return None if wire is None else decoded_protocol(wire)

    @property
    def requested_server_name(self) -> Optional[str]:
        """The server name that the client asked for: str, None when it named none."""
        return self._engine.requested_server_name if self._engine is not None else None

    @property
    def ssl_handshake_errors(self) -> list[SslError]:
        """All that was wrong with the peer's certificates in the last handshake: list of SslError."""
        return list(self._handshake_errors)

    @property
    def clean_close(self) -> bool:
        """False when the peer cut the connection without close_notify, so that data may be missing. True
        otherwise."""
        return self._clean

    # Encrypting

    def connect_encrypted(self, hostname: str, port: int, open_mode: int = OpenMode.READ_WRITE_MODE) -> None:
        """`connect`, and then `start_client_encryption` by itself. Data written meanwhile is sent when it can
        be encrypted."""
        self._connect(hostname, port, open_mode, hold_writes=True)

    def start_client_encryption(self) -> None:
        """Begin TLS as the client. No effect unless the socket is CONNECTED and UNENCRYPTED."""
        self._loop.check()
        if self._state is CONNECTED and self._mode is UNENCRYPTED:
            self._start_encryption(ModeEvent.START_CLIENT)

    def start_server_encryption(self) -> None:
        """Begin TLS as the server. No effect unless the socket is CONNECTED and UNENCRYPTED."""
        self._loop.check()
        if self._state is CONNECTED and self._mode is UNENCRYPTED:
            self._start_encryption(ModeEvent.START_SERVER)

    def ignore_ssl_errors(self, errors: Optional[Iterable[SslError]] = None) -> None:
        """Inside `ssl_errors_handler`: go on in spite of these errors, and no others; None: those that the
        handler was given. RuntimeError anywhere else."""
        if self._tolerated is None:
            raise RuntimeError("ignore_ssl_errors() is for inside ssl_errors_handler")
        self._tolerated = self._handshake_errors if errors is None else tuple(errors)

    connect_encrypted_async = twin(connect_encrypted)
    start_client_encryption_async = twin(start_client_encryption)
    start_server_encryption_async = twin(start_server_encryption)

    # What connector and channel tell

    def on_established(self, fd: int, address: str, port: int) -> None:
        channel = self._channel
        super().on_established(fd, address, port)
        if self._channel is channel and channel is not None and channel.hold_writes:
            self.start_client_encryption()

    def on_encrypted(self) -> None:
        self._encrypted = True
        handler: Optional[Callable[[Any], object]] = self.encrypted_handler
        if handler is not None:
            handler(self)

    def _on_verify_errors(self, errors: list[_VerifyError]) -> bool:
        """Called by the engine in the middle of the handshake: go on in spite of these?"""
        channel, demanded = self._channel, self._demanding
        found = self._handshake_errors = tuple(SslError(*error) for error in errors)
        self._tolerated = ()
        decided = self._emit("ssl_errors_handler", list(found))
        tolerated, self._tolerated = self._tolerated, None
        if self._channel is not channel:
            return False
        if not demanded:
            return True
        # One that has raised has not come to the end of its checks.
        return decided and tolerated is not None and all(error in tolerated for error in found)

    def _on_unusable_configuration(self, generation: int, message: str) -> None:
        if self._generation == generation and self._channel is not None:
            self.on_unreachable(SocketError.SSL_INVALID_USERDATA_ERROR, self._with_peer(message))

    # Steps

    def _turn(self, event: ModeEvent) -> bool:
        """The one place where the mode changes. True when it has; to announce it is up to the caller."""
        mode = MODE_MOVES.get((self._mode, event))
        if mode is None:
            raise RuntimeError(f"{event.value} while {self._mode.name}")
        changed = mode is not self._mode
        self._mode = mode
        return changed

    def _announce_mode(self) -> None:
        self._emit("mode_changed_handler", self._mode)

    def _mode_in_force(self) -> PeerVerifyMode:
        mode = self.peer_verify_mode
        if mode is not AUTO_VERIFY_PEER:
            return mode
        return QUERY_PEER if self._mode is SslMode.SSL_SERVER_MODE else VERIFY_PEER

    def _start_encryption(self, event: ModeEvent) -> None:
        channel = self._channel
        assert channel is not None
        self._turn(event)
        mode = self._mode
        try:
            self._engine = self._make_engine(event is ModeEvent.START_SERVER)
        except ValueError as exc:  # a ConfigurationError among them
            self._source = self._sink = None
            self._loop.call_soon(self._on_unusable_configuration, self._generation, str(exc))
        else:
            channel.start_tls(self._engine, self.handshake_timeout)
        if self._channel is channel and self._mode is mode:
            self._announce_mode()

    def _make_engine(self, server_side: bool) -> Engine:
        configuration = self._configuration or default_configuration()
        verify_mode = self._mode_in_force()
        self._demanding = verify_mode is VERIFY_PEER
        context = configuration.context(server_side, verify_mode)
        handler = None if verify_mode is VERIFY_NONE else self._on_verify_errors
        if server_side:
            return Engine(context, verify_handler=handler)
        name = self._peer_verify_name or self._hostname
        host = parse_host(name) if name else None
        verify_name = None
        if configuration.verify_hostname and verify_mode is not VERIFY_NONE:
            if host is not None:
                verify_name = host.verify_name
            elif verify_mode is VERIFY_PEER:
                raise ValueError("there is no name to verify the peer by: set peer_verify_name")
        server_name = host.server_name if host is not None else None
        session_key = (self._hostname, self._remote[1], verify_name, server_name)
        return Engine(
            context,
            server_name=server_name,
            verify_name=verify_name,
            verify_handler=handler,
            session_key=session_key,
        )

    def _reset(self) -> None:
        super()._reset()
        self._engine = None
        self._handshake_errors = ()
        self._tolerated = None

    def _finish(self) -> None:
        channel = self._channel
        # What was written for an encrypted connection must not be sent in the clear, nor be lost.
        if channel is not None and channel.hold_writes and channel.bytes_to_write:
            self.start_client_encryption()
        if self._channel is channel:
            super()._finish()

    def _drop_connection(self, keep_input: bool) -> bool:
        if not keep_input and not self._encrypted:
            # An engine in the middle of its handshake knows this socket, and would keep it alive.
            self._engine = None
        self._encrypted = False
        super()._drop_connection(keep_input)
        return self._turn(ModeEvent.CLOSED)
