"""SslServer: a TcpServer whose connections are encrypted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Optional, Union

from ..core.client_hello import ClientHello
from ..core.handshake_pool import MOST_THREADS, HandshakePool
from .checked import Seconds, checked_count
from .configuration import SslConfiguration
from .constants import PeerVerifyMode
from .loop_object import Handler
from .pre_shared_key import SslPreSharedKeyAuthenticator
from .ssl_socket import SslSocket
from .tcp_server import Connections, TcpServer
from .twins import twin

if TYPE_CHECKING:
    from ..core.listener import Listener
    from .accepted import Accepted
    from .admission import Admission

__all__ = ["SslServer"]

AUTO_VERIFY_PEER = PeerVerifyMode.AUTO_VERIFY_PEER
QUERY_PEER = PeerVerifyMode.QUERY_PEER


class SslServer(TcpServer):
    """A TLS server.

    `next_pending_secure_connection` gives sockets whose handshake runs by itself; `next_pending_connection`
    gives SslSockets that are not encrypted, for protocols with STARTTLS. `async for socket in server` gives the former: await
    `socket.encrypted()` in a task of its own.

    `listen` refuses a configuration that was set and that OpenSSL refuses, or that has no certificate, unless a
    `client_hello_handler` may choose another, or there is a `pre_shared_key_handler`: False, `error_string` says why.

    handshake_timeout: float, seconds a client has for its handshake, 10; 0 for no limit. TypeError, ValueError.
    """

    __slots__ = (
        "_client_hello_handler",
        "_configuration",
        "_handshake_pool",
        "_handshake_timeout",
        "_max_handshakes",
        "_pre_shared_key_handler",
    )

    handshake_timeout = Seconds()

    client_hello_handler: Handler[Callable[[SslSocket, ClientHello], object]] = Handler(
        """`client_hello_handler(socket, hello)`: given to the sockets of connections accepted from now on: see
        `SslSocket.client_hello_handler`."""
    )
    pre_shared_key_handler: Handler[Callable[[SslSocket, SslPreSharedKeyAuthenticator], object]] = Handler(
        """`pre_shared_key_handler(socket, authenticator)`: given to the sockets of connections accepted from now on: see
        `SslSocket.pre_shared_key_handler`.""",
        decides=True,
    )

    def __init__(self) -> None:
        super().__init__()
        self._configuration: Optional[SslConfiguration] = None
        self._handshake_timeout = 10.0
        self._handshake_pool: Optional[HandshakePool] = None
        self._max_handshakes = 0
        self._client_hello_handler = None
        self._pre_shared_key_handler = None
        if self._methods:
            self._use_methods()

    @property
    def configuration(self) -> SslConfiguration:
        """SslConfiguration of the connections taken from now on. It needs a certificate and its key."""
        if self._configuration is None:
            self._configuration = SslConfiguration()
        return self._configuration

    @configuration.setter
    def configuration(self, configuration: SslConfiguration) -> None:
        if not isinstance(configuration, SslConfiguration):
            raise TypeError(f"an SslConfiguration is needed, not {type(configuration).__name__}")
        self._configuration = configuration

    @property
    def handshake_threads(self) -> int:
        """How many threads of its own the server has for its handshakes, 0 to 256: int, 0 for none. TypeError, ValueError.

        What is dear in a handshake, the signature with the server's key, is then done in one of them, without the GIL,
        so that a flood of handshakes does not hold up the connections of the loop. Holds for connections taken from now
        on; the sockets of `next_pending_connection` keep it for their `start_server_encryption`. Handlers are called in
        the loop's thread, as ever; but with a `pre_shared_key_handler` the handshake stays there altogether. A `key_log`
        that is a function may be called in another thread."""
        return 0 if self._handshake_pool is None else self._handshake_pool.most

    @handshake_threads.setter
    def handshake_threads(self, threads: int) -> None:
        count = checked_count(threads, "handshake_threads", most=MOST_THREADS)
        if count != self.handshake_threads:
            self._handshake_pool = HandshakePool(count) if count else None

    @property
    def max_handshakes(self) -> int:
        """Handshakes of `next_pending_secure_connection` at once, set before `listen`: int, 0 for no bound. While so many are
        under way no connection is pending, none is accepted, and the system queues. TypeError, ValueError."""
        return self._max_handshakes

    @max_handshakes.setter
    def max_handshakes(self, count: int) -> None:
        self._max_handshakes = checked_count(count, "max_handshakes")

    def _listen_on(self, fd: int, header_timeout: float = 0.0, most_shaking: int = 0) -> Union[Listener, Admission]:
        return super()._listen_on(fd, self._handshake_timeout, self._max_handshakes)

    def _unusable(self) -> str:
        configuration = self._configuration
        if configuration is None:  # nothing was said: each socket may be given its own, for STARTTLS
            return ""
        keyed = self._pre_shared_key_handler is not None
        own = configuration.local_certificate is not None or configuration.local_certificate_chain or keyed
        if not own and self._client_hello_handler is None:  # which may choose another configuration
            return "the server's configuration has no certificate"
        if own:
            mode = configuration.peer_verify_mode
            try:
                configuration.context(True, QUERY_PEER if mode is AUTO_VERIFY_PEER else mode, keyed)
            except ValueError as exc:  # a ConfigurationError among them
                return f"the server's configuration cannot be used: {exc}"
        return ""

    def next_pending_connection(self) -> Optional[SslSocket]:
        """Take a connection as it is: SslSocket, CONNECTED and UNENCRYPTED; None when none is pending. It has
        the server's configuration, for `start_server_encryption`."""
        return self._take()  # type: ignore[no-any-return]

    def next_pending_secure_connection(self) -> Optional[SslSocket]:
        """Take a connection: SslSocket in SSL_SERVER_MODE, its handshake under way; None when none is
        pending."""
        return self._take(secure=True)  # type: ignore[no-any-return]

    async def next_connection(self, *, secure: bool = True) -> SslSocket:
        """Wait for a connection and take it: SslSocket whose handshake is under way; secure=False: one that is not encrypted,
        for protocols with STARTTLS. SocketFailure when the server does not listen, or is closed meanwhile."""
        return self._there(await self._next(secure))  # type: ignore[no-any-return]

    def __aiter__(self) -> Connections[SslSocket]:
        return Connections(self, secure=True)

    next_pending_connection_async = twin(next_pending_connection)
    next_pending_secure_connection_async = twin(next_pending_secure_connection)

    def _make_socket(self, accepted: Accepted) -> SslSocket:
        sock = SslSocket._on(self._loop)
        sock._handshake_timeout = self._handshake_timeout
        sock._handshake_pool = self._handshake_pool
        sock._configuration = self._configuration
        if self._client_hello_handler is not None:
            sock.client_hello_handler = self.client_hello_handler
        if self._pre_shared_key_handler is not None:
            sock._pre_shared_key_handler = self.pre_shared_key_handler
        self._adopted(sock, accepted)
        return sock
