"""The client's certificate after the handshake (RFC 8446, 4.6.2): when its request shows that it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from .connection import whole
from .constants import SslMode
from .loop_object import Handler
from .pre_shared_key import PreSharedKeys
from .ssl_error import SslError
from .twins import twin

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..core.engine import _VerifyError

__all__ = ["LateCertificate"]


class LateCertificate(PreSharedKeys):
    """Base of SslSocket."""

    __slots__ = ("_encrypted", "_handshake_errors", "_mode", "_peer_certificate_handler")

    _encrypted: bool
    _handshake_errors: tuple[SslError, ...]
    _mode: SslMode

    peer_certificate_handler: Handler[Callable[[Self], object]] = Handler(
        """`peer_certificate_handler(socket)`: called when a client has answered `request_peer_certificate`.
        `peer_certificate` is what it has sent, None if nothing; `ssl_handshake_errors` is what is wrong with it and was
        ignored."""
    )

    def request_peer_certificate(self) -> bool:
        """Ask a client for its certificate after the handshake, with TLS 1.3. What it sends is verified as
        `peer_verify_mode` says: `ssl_errors_handler` is asked, then `peer_certificate_handler` told; or the connection ends
        with SSL_HANDSHAKE_FAILED_ERROR. Data goes on meanwhile, and nobody says when an answer comes. False, with
        OPERATION_ERROR, where that cannot be: in another state, while an answer is awaited, with an older protocol, and
        where the client has not agreed to it (`SslConfiguration.post_handshake_authentication`)."""
        self._loop.check()
        reason = self._ask_client()
        if reason:
            self._refuse(f"request_peer_certificate(): {reason}")
        return not reason

    request_peer_certificate_async = twin(request_peer_certificate)

    @whole
    def _ask_client(self) -> str:
        """Why it cannot be, "" when the client has been asked."""
        channel = self._channel
        if not self._encrypted or channel is None or not channel.is_open or self._relay is not None:
            return "there is no encrypted connection of the program's own"
        if self._mode is not SslMode.SSL_SERVER_MODE:
            return "the server asks the client"
        reason = channel.request_certificate(self._on_verify_errors)
        if not reason:
            self._handshake_errors = ()
        return reason

    @whole
    def _on_certificate(self) -> None:
        """Called by the channel."""
        self._emit("_peer_certificate_handler")
        if self._relay is not None:
            self._relay._on_end_ready()

    def _on_verify_errors(self, errors: list[_VerifyError]) -> bool:
        raise NotImplementedError
