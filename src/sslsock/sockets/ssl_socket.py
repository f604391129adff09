"""SslSocket: a TcpSocket that can encrypt, from the first byte or later (STARTTLS), as client or as server.

Owns the mode, which stands beside the state (tabled in `states`; only `_turn` writes it), and what the
program wants of the peer. The TLS connection itself is the engine's, in the channel; the socket keeps a
reference, for what was agreed on is asked for after the end as well.

From "we shall encrypt" to the end of the connection no byte leaves in the clear, and none that came in the clear is read. The
mode is what says so: it changes first, and `_may_read` and `_may_write` open the channel again when it shakes hands, or holds
what is written until it does. Nothing does that with a configuration that OpenSSL refuses, so both directions stay closed,
whatever the program calls, until the failure is told from the loop. `connect_encrypted` holds writes back from the start.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Callable, Optional

from ..core import channel as core
from ..core.client_hello import ClientHello, ClientHelloError, parse_client_hello
from ..core.engine import Engine
from ..core.event_loop import EventLoop
from ..core.handshake_pool import HandshakePool
from ..core.hostname import parse_host
from . import certificate_check as _certificate_check  # noqa: F401 (gives SslCertificate its `verify`)
from .checked import Seconds
from .configuration import SslConfiguration, default_configuration
from .connection import CONNECTED, whole
from .constants import OpenMode, PeerVerifyMode, SocketError, SslMode
from .error_log import INFO
from .fact import TRUE, Fact, not_yet
from .handler_tasks import DecidingTask, TaskHandler
from .hello_wait import HelloPhase, HelloWait
from .late_certificate import LateCertificate
from .local_path import PathLike
from .loop_object import Handler
from .ssl_error import SslError
from .states import MODE_MOVES, ModeEvent
from .twins import twin, warn_caller
from .waits import PENDING

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..core.channel import Channel
    from ..core.engine import _VerifyError
    from .admission import HandshakePlace
    from .relay_end import RelayOwner

__all__ = ["SslSocket"]

UNENCRYPTED = SslMode.UNENCRYPTED_MODE
SSL_SERVER = SslMode.SSL_SERVER_MODE
AUTO_VERIFY_PEER = PeerVerifyMode.AUTO_VERIFY_PEER
VERIFY_NONE = PeerVerifyMode.VERIFY_NONE
VERIFY_PEER = PeerVerifyMode.VERIFY_PEER
QUERY_PEER = PeerVerifyMode.QUERY_PEER

START_SERVER = ModeEvent.START_SERVER
CLOSED = ModeEvent.CLOSED

AWAITED, DECIDING, HELD = HelloPhase
INTERNAL_ERROR = 80  # the alert, RFC 8446, 6


class SslSocket(LateCertificate):
    """A TCP socket with TLS.

    `connect_encrypted` it; or `connect` and `start_client_encryption` later; or take it from an SslServer.

    handshake_timeout: float, seconds from the start of a handshake to its end, 30; 0 for no limit. TypeError, ValueError.
    """

    UNENCRYPTED_MODE = SslMode.UNENCRYPTED_MODE
    SSL_CLIENT_MODE = SslMode.SSL_CLIENT_MODE
    SSL_SERVER_MODE = SslMode.SSL_SERVER_MODE

    VERIFY_NONE = PeerVerifyMode.VERIFY_NONE
    QUERY_PEER = PeerVerifyMode.QUERY_PEER
    VERIFY_PEER = PeerVerifyMode.VERIFY_PEER
    AUTO_VERIFY_PEER = PeerVerifyMode.AUTO_VERIFY_PEER

    __slots__ = (
        "_client_hello_handler",
        "_configuration",
        "_encrypted_handler",
        "_handshake_pool",
        "_handshake_timeout",
        "_hello",
        "_mode_changed_handler",
        "_peer_verify_mode",
        "_peer_verify_name",
        "_place",
        "_ssl_errors_handler",
        "_tolerated",
    )

    handshake_timeout = Seconds()

    client_hello_handler: Handler[Callable[[Self, ClientHello], object]] = Handler(
        """`client_hello_handler(socket, hello)`: called on a server's socket before the handshake, when the client has said
        what it wants. The handler may set another `configuration`, which the handshake then uses, or `hold_handshake()`, or
        end the connection. If it raises, the handshake fails. Until the handshake begins nothing can be read; what is written
        waits for its end, and is dropped by a `disconnect` before it begins."""
    )
    encrypted_handler: Handler[Callable[[Self], object]] = Handler(
        """`encrypted_handler(socket)`: called when the handshake is done: from now on everything is encrypted."""
    )
    mode_changed_handler: Handler[Callable[[Self, SslMode], object]] = Handler(
        """`mode_changed_handler(socket, mode)`: called when `mode` has changed: a handshake begins, or the connection has
        ended."""
    )
    ssl_errors_handler: Handler[Callable[[Self, list[SslError]], object]] = Handler(
        """`ssl_errors_handler(socket, errors)`: called in the middle of the handshake when the peer's certificates have
        errors; `ignore_ssl_errors` may be called here. It cannot be an `async def`.""",
        decides=True,
    )

    def _set_up(self, loop: EventLoop) -> None:
        super()._set_up(loop)
        self._mode = UNENCRYPTED
        self._encrypted = False
        self._demanding = False  # this handshake is over when the peer's certificates have errors
        self._configuration: Optional[SslConfiguration] = None
        self._engine = None
        self._place: Optional[HandshakePlace] = None  # among a server's handshakes, while this is one of them
        self._hello: Optional[HelloWait] = None  # while a ClientHello is awaited or decided upon
        self._peer_verify_mode: Optional[PeerVerifyMode] = None
        self._peer_verify_name = ""
        self._handshake_errors = ()
        # What `ignore_ssl_errors` has let pass; None while it may not be called.
        self._tolerated: Optional[tuple[SslError, ...]] = None
        self._session = None
        self._handshake_timeout = 30.0
        self._handshake_pool: Optional[HandshakePool] = None  # of the server that has accepted it
        self._client_hello_handler = None
        self._encrypted_handler = None
        self._mode_changed_handler = None
        self._new_session_handler = None
        self._ssl_errors_handler = None
        self._pre_shared_key_handler = None
        self._peer_certificate_handler = None
        if self._methods:
            self._use_methods()

    # Settings

    @property
    def configuration(self) -> SslConfiguration:
        """The settings, used from the next handshake on: SslConfiguration."""
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
        """Whether TLS is spoken, and in which role: SslMode. It is not UNENCRYPTED_MODE from the start of a handshake to the
        end of the connection."""
        self._loop._meet()
        return self._mode

    @property
    def encrypted(self) -> Fact:
        """True from the end of the handshake to the end of the connection. `await socket.encrypted()` waits for it, also where
        the handshake has not begun (STARTTLS); SocketFailure when the connection, or the attempt at one, ends before, and when
        there is none."""
        self._loop._meet()
        return TRUE if self._encrypted else not_yet(self._until_encrypted)

    async def _until_encrypted(self) -> None:
        await self._answer(self._while_it_lasts(lambda: self._encrypted or PENDING))

    @property
    def ssl_handshake_errors(self) -> list[SslError]:
        """All that was wrong with the peer's certificates in the last handshake: list of SslError."""
        return list(self._handshake_errors)

    @property
    def clean_close(self) -> bool:
        """Whether nothing is missing at the end: bool. False when the peer has cut the connection without close_notify."""
        return self._clean

    # Encrypting

    def connect_encrypted(self, hostname: str, port: int, open_mode: int = OpenMode.READ_WRITE_MODE) -> None:
        """`connect`, and then `start_client_encryption` by itself. Data written meanwhile is sent when it can
        be encrypted."""
        self._connect(hostname, port, open_mode, hold_writes=True)

    def connect_local_encrypted(self, path: PathLike, open_mode: int = OpenMode.READ_WRITE_MODE) -> None:
        """`connect_local`, and then `start_client_encryption` by itself, as with `connect_encrypted`. A path is no name that a
        certificate could have: `peer_verify_name` says which to verify."""
        self._connect_local(path, open_mode, hold_writes=True)

    def start_client_encryption(self) -> None:
        """Begin TLS as the client: nothing that is written from now on leaves in the clear. No effect, and a RuntimeWarning,
        unless the socket is CONNECTED and UNENCRYPTED. RuntimeError in a relay."""
        self._start_on_request(ModeEvent.START_CLIENT)

    def start_server_encryption(self) -> None:
        """Begin TLS as the server: nothing that is written from now on leaves in the clear. No effect, and a RuntimeWarning,
        unless the socket is CONNECTED and UNENCRYPTED. RuntimeError in a relay."""
        self._start_on_request(START_SERVER)

    @property
    def handshake_held(self) -> bool:
        """The handshake waits for the program: inside `client_hello_handler`, and from `hold_handshake` to
        `continue_handshake`. Nothing of the connection has been touched then: the ClientHello lies unread
        beneath the socket."""
        self._loop._meet()
        return self._hello is not None and self._hello.phase is not AWAITED

    def hold_handshake(self) -> None:
        """Inside `client_hello_handler`: do not begin the handshake when it returns, but when
        `continue_handshake` is called. `handshake_timeout` goes on. RuntimeError anywhere else."""
        self._loop.check()
        if not self.handshake_held:
            raise RuntimeError("hold_handshake() is for inside client_hello_handler")
        assert self._hello is not None
        self._hello.phase = HELD

    def continue_handshake(self) -> None:
        """Begin the handshake that `hold_handshake` has held, with what `configuration` is now. No effect on
        one that is not held, the connection having ended for example."""
        self._loop.check()
        wait = self._hello
        if wait is not None and wait.phase is HELD:
            self._end_hello(wait)

    def ignore_ssl_errors(self, errors: Optional[Iterable[SslError]] = None) -> None:
        """Inside `ssl_errors_handler`: go on in spite of these errors, and no others; None: those that the
        handler was given. RuntimeError anywhere else."""
        if self._tolerated is None:
            raise RuntimeError("ignore_ssl_errors() is for inside ssl_errors_handler")
        self._tolerated = self._handshake_errors if errors is None else tuple(errors)

    connect_encrypted_async = twin(connect_encrypted)
    connect_local_encrypted_async = twin(connect_local_encrypted)
    start_client_encryption_async = twin(start_client_encryption)
    start_server_encryption_async = twin(start_server_encryption)
    continue_handshake_async = twin(continue_handshake)

    # What connector and channel tell

    def _begin_connection(self, address: str, port: int) -> None:
        channel = self._channel
        super()._begin_connection(address, port)
        if self._channel is channel and channel is not None and channel.hold_writes:
            self._start_if_plain(ModeEvent.START_CLIENT)

    @whole
    def _on_peer_closed(self, clean: bool) -> None:
        if self._hello is not None:
            message = "the peer closed the connection during the TLS handshake"
            self._fail_hello(self._hello, core.FAILURE_HANDSHAKE_CLOSED, message)
        else:
            super()._on_peer_closed(clean)

    @whole
    def _on_encrypted(self) -> None:
        self._encrypted = True
        if self._place is not None:
            self._leave_place()
        if self._waits is not None:
            self._ask_waits()
        self._emit("_encrypted_handler")
        if self._relay is not None:
            self._relay._on_end_ready()

    def _on_verify_errors(self, errors: list[_VerifyError]) -> bool:
        """Called by the engine in the middle of the handshake: go on in spite of these?"""
        channel, demanded = self._channel, self._demanding
        found = self._handshake_errors = tuple(SslError(*error) for error in errors)
        self._tolerated = ()
        decided = self._emit("_ssl_errors_handler", list(found))
        tolerated, self._tolerated = self._tolerated, None
        if self._channel is not channel:
            return False
        if not demanded:
            return True
        # One that has raised has not come to the end of its checks.
        return decided and tolerated is not None and all(error in tolerated for error in found)

    @whole
    def _on_unusable_configuration(self, channel: Channel, message: str) -> None:
        if self._channel is channel:
            self._fall(SocketError.SSL_INVALID_USERDATA_ERROR, self._with_peer(message), keep_input=False)

    # Steps

    def _turn(self, event: ModeEvent) -> bool:
        """The one place where the mode changes. True when it has; to announce it is up to the caller."""
        mode = MODE_MOVES.get((self._mode, event))
        if mode is None:
            raise RuntimeError(f"{event.value} while {self._mode.name}")
        changed = mode is not self._mode
        self._mode = mode
        if event is CLOSED and self._place is not None:
            self._leave_place()
        return changed

    def _leave_place(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.leave()

    def _announce_mode(self) -> None:
        if self._mode_changed_handler is not None:
            self._emit("_mode_changed_handler", self._mode)

    def _mode_in_force(self) -> PeerVerifyMode:
        mode = self.peer_verify_mode
        if mode is not AUTO_VERIFY_PEER:
            return mode
        return QUERY_PEER if self._mode is SSL_SERVER else VERIFY_PEER

    def _may_start(self) -> bool:
        channel = self._channel
        return self._state is CONNECTED and self._mode is UNENCRYPTED and channel is not None and channel.is_open

    def _start_on_request(self, event: ModeEvent) -> None:
        self._loop.check()
        if self._relay is not None and self._mode is UNENCRYPTED:
            raise RuntimeError("encryption starts before the socket is put in a relay")  # not silently: it stays plain
        if self._may_start():
            self._start_encryption(event)
            return
        reason = "not connected" if self._mode is UNENCRYPTED else "encrypted already, or about to be"
        warn_caller(f"{event.value}_encryption() has no effect: the socket is {reason}")

    def _start_if_plain(self, event: ModeEvent) -> None:
        if self._may_start():
            self._start_encryption(event)

    @whole
    def _start_encryption(self, event: ModeEvent) -> None:
        channel = self._channel
        assert channel is not None
        self._turn(event)
        self._join_ends()
        mode = self._mode
        # Nothing that was said in the clear decides how protected bytes are read. What is held was encoded to be protected.
        if self._codec is not None and channel.hold_writes:
            self._codec.forget_decoded()
        else:
            self._codec = None
        if event is START_SERVER and self._client_hello_handler is not None:
            self._await_hello(channel)
        else:
            self._start_tls(channel, event is START_SERVER, self._handshake_timeout)
        if self._channel is channel and self._mode is mode:
            self._announce_mode()

    def _start_tls(self, channel: Channel, server_side: bool, timeout: float) -> None:
        try:
            engine = self._make_engine(server_side)
        except ValueError as exc:  # a ConfigurationError among them
            self._loop.call_soon(self._on_unusable_configuration, channel, str(exc))
            return
        channel.notify_sessions = not server_side
        channel.start_tls(engine, timeout, self._handshake_pool)
        self._engine = engine
        self._join_ends()

    def _may_read(self, channel: Channel) -> bool:
        return self._mode is UNENCRYPTED or self._engine is not None

    def _may_write(self, channel: Channel) -> bool:
        # Before the handshake the channel holds what is written; not, as long as something of before has to leave in the clear.
        return self._may_read(channel) or (self._hello is not None and channel.hold_writes)

    def _make_engine(self, server_side: bool) -> Engine:
        configuration = self._configuration or default_configuration()
        verify_mode = self._mode_in_force()
        self._demanding = verify_mode is VERIFY_PEER
        keyed = self._pre_shared_key_handler is not None
        context = configuration.context(server_side, verify_mode, keyed)
        handler = None if verify_mode is VERIFY_NONE else self._on_verify_errors
        key_handler = self._key_asker(not server_side) if keyed else None
        if server_side:
            return Engine(context, verify_handler=handler, pre_shared_key_handler=key_handler)
        name = self._peer_verify_name or self._hostname
        host = parse_host(name) if name else None
        verify_name = None
        if configuration.verify_hostname and verify_mode is not VERIFY_NONE:
            if host is not None:
                verify_name = host.verify_name
            elif verify_mode is VERIFY_PEER:
                raise ValueError("there is no name to verify the peer by: set peer_verify_name")
        server_name = host.server_name if host is not None else None
        session_key = (self._hostname or self._remote_address or "", self._remote_port, verify_name, server_name)
        session, self._session = self._session, None
        return Engine(
            context,
            server_name=server_name,
            verify_name=verify_name,
            verify_handler=handler,
            session_key=session_key,
            session=session,
            pre_shared_key_handler=key_handler,
        )

    # The ClientHello, before the handshake. Its bytes are not the program's to read, and `_drop_input` is called when there are
    # more.

    def _await_hello(self, channel: Channel) -> None:
        channel.flush()  # what was written before goes out in the clear
        if self._channel is not channel:  # it failed at that
            return
        wait = self._hello = HelloWait(self._loop, channel, self._handshake_timeout, self._on_hello_overdue)
        # `connect_encrypted` holds already. Else what is left of before and what is to be held would hold each other up: see
        # `_may_write`.
        channel.hold_writes = channel.hold_writes or not channel.bytes_to_write
        self._join_ends()
        if channel.bytes_available:
            self._loop.call_soon(self._read_hello, wait)

    @whole
    def _drop_input(self) -> None:
        if self._hello is not None:
            self._read_hello(self._hello)
        else:
            super()._drop_input()

    @whole
    def _read_hello(self, wait: HelloWait) -> None:
        if self._hello is not wait or wait.phase is not AWAITED:
            return
        try:
            hello = parse_client_hello(wait.channel.peek())
        except ClientHelloError as exc:
            # Not for the engine, which might understand what we do not, and shake hands without the handler.
            self._fail_hello(wait, core.FAILURE_HANDSHAKE, f"the TLS handshake failed: {exc}", exc.alert)
            return
        if hello is None:
            return
        wait.phase = DECIDING
        handler: object = self._client_hello_handler
        if type(handler) is TaskHandler:
            try:
                DecidingTask(handler, self, (hello,), partial(self._on_decided, wait))
                return
            except Exception as exc:
                self._loop.report("exception in client_hello_handler", exc, self)
                decided = False
        else:
            decided = self._emit("_client_hello_handler", hello)
        self._on_decided(wait, decided)

    @whole
    def _on_decided(self, wait: HelloWait, decided: bool) -> None:
        """`client_hello_handler` has returned, or not."""
        if self._hello is not wait:
            return
        if not decided:
            message = "the TLS handshake failed: client_hello_handler has raised an exception"
            self._fail_hello(wait, core.FAILURE_HANDSHAKE, message, INTERNAL_ERROR)
        elif wait.phase is DECIDING:
            self._end_hello(wait)

    @whole
    def _end_hello(self, wait: HelloWait) -> None:
        """The handshake begins, with the bytes that were looked at."""
        self._hello = None
        self._join_ends()
        timeout = wait.leave()
        self._read_buffer_size_changed()
        self._start_tls(wait.channel, True, timeout)

    def _forget_hello(self) -> None:
        """There will be no handshake of ours."""
        if self._hello is not None:
            self._hello.leave()
            self._hello = None

    def _release_hello(self) -> None:
        """Somebody else takes the channel over while `handshake_held`: everything lies unread in it, and neither
        a deadline nor a hold is left. What was written must not have been meant to be encrypted."""
        wait = self._hello
        if wait is not None:
            self._forget_hello()
            wait.channel.hold_writes = False
            self._read_buffer_size_changed()

    @whole
    def _on_hello_overdue(self, wait: HelloWait) -> None:
        if self._hello is wait:
            message = "the TLS handshake was not done in time"
            self._fail_hello(wait, core.FAILURE_HANDSHAKE_TIMEOUT, message)

    def _fail_hello(self, wait: HelloWait, failure: int, message: str, alert: int = 0) -> None:
        """The handshake has failed before it began: tell the peer why, if nothing is in the way, and then the program."""
        channel = wait.channel
        channel.notify_written = False  # as after any failure: a handler would find the socket connected, with no channel
        if alert and not channel.bytes_to_write:
            channel.hold_writes = False
            channel.write(bytes((21, 3, 3, 0, 2, 2, alert)))  # RFC 8446, 5.1 and 6: a record, fatal
            channel.flush()
        if channel.bytes_to_write and not channel.hold_writes:
            channel.abort()
        else:
            channel.finish(failed=True)
        if self._hello is wait:  # else it failed at that, and has been told
            self._on_failed(failure, message)

    def _read_buffer_size_changed(self) -> None:
        if self._hello is None:
            super()._read_buffer_size_changed()

    def _log_level(self, error: SocketError) -> int:
        # What strangers try with a server is no trouble of its own.
        strange = error is SocketError.SSL_HANDSHAKE_FAILED_ERROR and self._mode is SSL_SERVER
        return INFO if strange else super()._log_level(error)

    # In a relay

    def _check_relay(self) -> None:
        super()._check_relay()
        if self.handshake_held and self.bytes_to_write and self._hello is not None and self._hello.channel.hold_writes:
            raise ValueError("what was written to be encrypted cannot leave through a relay of the untouched connection")

    def _enter_relay(self, relay: RelayOwner) -> None:
        if self.handshake_held:  # the program has seen the ClientHello, and hands the connection over as it came
            self._release_hello()
            self._turn(ModeEvent.CLOSED)
        super()._enter_relay(relay)

    @property
    def _relay_channel(self) -> Optional[Channel]:
        # A channel without TLS can be joined; where TLS was wanted and has not begun, or cannot begin, it must not be.
        return super()._relay_channel if self._encrypted or self._mode is UNENCRYPTED else None

    @property
    def _input_cut(self) -> bool:
        return self._encrypted and self._engine is not None and not self._engine.peer_closed

    def _reset(self) -> None:
        super()._reset()
        self._engine = None
        self._handshake_errors = ()
        self._tolerated = None

    def _finish(self) -> None:
        channel = self._channel
        # What was written for an encrypted connection must not be sent in the clear, nor be lost.
        if channel is not None and channel.hold_writes and channel.bytes_to_write:
            self._start_if_plain(ModeEvent.START_CLIENT)
        if self._channel is channel and self._state is CONNECTED:
            if self._hello is not None and self.bytes_to_write:
                message = self._with_peer("ended by the program before what it wrote could be encrypted")
                self._failure = (SocketError.OPERATION_ERROR, message)
            self._forget_hello()
            super()._finish()

    def _drop_connection(self, keep_input: bool) -> bool:
        if not keep_input and not self._encrypted:
            # An engine in the middle of its handshake knows this socket, and would keep it alive.
            self._engine = None
        self._forget_hello()
        self._encrypted = False
        super()._drop_connection(keep_input)
        return self._turn(CLOSED)
