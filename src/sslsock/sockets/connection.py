"""Connection: the steps of a TCP connection, and what they are taken by: the program, the connector and the channel.

Owns the state (drawn and tabled in `states`; only `_advance` writes it), the connector while there is one,
and the channel, which moves the bytes. Rules:

- State first, then the handler, then look again: a handler may have closed, aborted or connected this very
  socket. `_generation` counts connections, so that what belongs to an earlier one is not told to a later one.
- `_source` and `_sink` (core/endpoint.pyx) are the channel where reading or writing is allowed now, else None. Only
  `_join_ends` says where that is; it is called whenever something has changed that it looks at.
- A method checks first, and then changes the connection in a step that is `whole`: what raises has changed nothing, or has
  closed both directions.
- After a connection the socket keeps its channel only if that holds unread data, and the channel keeps no way
  back.
- In a relay (`_relay`) there is neither `_source` nor `_sink`, and the end of the connection is the relay's to tell.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..core import channel as core
from ..core.channel import Channel
from ..core.event_loop import EventLoop
from .adopted import adoptable
from .awaiting import Awaiting
from .checked import checked_count
from .connector import Connector, LocalConnector, OwnSocket
from .constants import ErrorConstants, SocketError, SocketState
from .error_log import DEBUG, WARNING, log_error
from .local_path import PathLike, checked_path, end_of, plain_address
from .states import MOVES, SocketEvent
from .stream import READ, WRITE, Buffer, checked_mode

if TYPE_CHECKING:
    from typing import TypeVar

    from typing_extensions import Concatenate, ParamSpec

    from ..core.descriptor import Descriptor
    from .accepted import Accepted
    from .relay_end import RelayOwner

    P = ParamSpec("P")
    R = TypeVar("R")

UNCONNECTED = SocketState.UNCONNECTED_STATE
HOST_LOOKUP = SocketState.HOST_LOOKUP_STATE
CONNECTING = SocketState.CONNECTING_STATE
CONNECTED = SocketState.CONNECTED_STATE
BOUND = SocketState.BOUND_STATE
CLOSING = SocketState.CLOSING_STATE

# Those of every connection of a server: looked up once.
ACCEPTED = SocketEvent.ACCEPTED
FINISH = SocketEvent.FINISH
DRAINED = SocketEvent.DRAINED
CLOSE = SocketEvent.CLOSE

FAILURES = {
    core.FAILURE_RESET: SocketError.REMOTE_HOST_CLOSED_ERROR,
    core.FAILURE_NETWORK: SocketError.NETWORK_ERROR,
    core.FAILURE_TIMEOUT: SocketError.SOCKET_TIMEOUT_ERROR,
    core.FAILURE_HANDSHAKE: SocketError.SSL_HANDSHAKE_FAILED_ERROR,
    core.FAILURE_HANDSHAKE_TIMEOUT: SocketError.SSL_HANDSHAKE_FAILED_ERROR,
    core.FAILURE_HANDSHAKE_CLOSED: SocketError.SSL_HANDSHAKE_FAILED_ERROR,
    core.FAILURE_TLS: SocketError.SSL_INTERNAL_ERROR,
    core.FAILURE_RESOURCE: SocketError.SOCKET_RESOURCE_ERROR,
}

# What a program knows the channel's calls by.
HANDLER_NAMES = {
    "_on_readable": "ready_read_handler",
    "_on_written": "bytes_written_handler",
    "_on_encrypted": "encrypted_handler",
    "_on_session": "new_session_handler",
    "_on_certificate": "peer_certificate_handler",
    "_on_drained": "disconnected_handler",
    "_on_peer_closed": "error_handler or disconnected_handler",
    "_on_failed": "error_handler or disconnected_handler",
    "verify_handler": "ssl_errors_handler",
    "pre_shared_key_handler": "pre_shared_key_handler",
}

NOWHERE = ("", 0)

MOST_DESCRIPTOR = 2**31 - 1

RELAY_UNREAD = 64 * 1024  # bytes kept of one side of a relay while the other is not ready


def whole(step: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """A step that changes a connection. Where it raises, a MemoryError for example, both directions are closed, however far it
    has come: nobody goes on with a connection in a state that was not meant."""

    @wraps(step)
    def guarded(self: Connection, *args: Any) -> R:
        try:
            return step(self, *args)  # type: ignore[call-arg]
        except BaseException as exc:
            self._break_off(exc)
            raise

    return guarded  # type: ignore[return-value]  # no step takes keywords: to pass them on would cost a dict


def checked_port(port: int, least: int) -> int:
    """A port from the program. TypeError, ValueError."""
    return checked_count(port, "a port", least, 65535)


class Connection(Awaiting, ErrorConstants):
    """The steps of a TCP connection. Base of TcpSocket."""

    _handler_names = HANDLER_NAMES

    __slots__ = (
        "_bound",
        "_connect_timeout",
        "_connected_handler",
        "_connector",
        "_disconnected_handler",
        "_error",
        "_error_handler",
        "_host_found_handler",
        "_hostname",
        "_local",
        "_remote_address",
        "_state_changed_handler",
    )

    def _set_up(self, loop: EventLoop) -> None:
        super()._set_up(loop)
        self._state = UNCONNECTED
        self._error: Optional[SocketError] = None
        self._failure = None
        self._generation = 0
        self._connector: Optional[Connector] = None
        self._bound: Optional[OwnSocket] = None
        self._hostname = ""
        self._local: Optional[tuple[str, int]] = None
        self._remote_address: Optional[str] = None  # None: nowhere
        self._remote_port = 0
        self._clean = True
        self._peer_closed = False
        self._reporting = False
        self._relay: Optional[RelayOwner] = None
        self._connect_timeout = 30.0
        self._connected_handler = None
        self._disconnected_handler = None
        self._error_handler = None
        self._state_changed_handler = None
        self._host_found_handler = None
        if self._methods:
            self._use_methods()

    # What the connector tells

    @whole
    def _on_host_found(self) -> None:
        generation = self._generation
        self._emit("_host_found_handler")
        if self._generation == generation and self._state is HOST_LOOKUP:
            self._advance(SocketEvent.FOUND)

    @whole
    def _on_established(self, descriptor: Descriptor, address: str, port: int) -> None:
        channel = self._channel
        assert channel is not None
        try:
            channel.attach(descriptor)
        except OSError as exc:
            self._on_unreachable(SocketError.SOCKET_RESOURCE_ERROR, f"the connection cannot be watched: {exc}")
            return
        self._begin_connection(plain_address(address), port)

    def _begin_connection(self, address: str, port: int) -> None:
        generation = self._generation
        self._connector = self._local = None
        self._remote_address, self._remote_port = address, port
        self._advance(SocketEvent.ESTABLISHED)
        if self._generation == generation and self._state is CONNECTED:
            self._emit("_connected_handler")

    @whole
    def _on_unreachable(self, error: SocketError, message: str) -> None:
        """There will be no connection. `error_handler` finds the socket UNCONNECTED, and may connect it again."""
        generation = self._generation
        self._error = error
        self._error_string = message
        self._failure = (error, message)
        self._leave(SocketEvent.FAILED, keep_input=False)
        if self._generation == generation:
            self._fail(error, message)

    # What the channel tells

    def _on_encrypted(self) -> None:
        pass

    @whole
    def _on_drained(self) -> None:
        if self._state is CLOSING:
            self._leave(DRAINED)

    @whole
    def _on_peer_closed(self, clean: bool) -> None:
        if self._relay is not None:
            return  # the channel remembers it, and the relay passes it on
        self._clean = clean
        self._peer_closed = True
        if self._state is not CONNECTED:
            return
        generation = self._generation
        message = self._with_peer(
            "the peer closed the connection" if clean else "the peer cut the connection without close_notify"
        )
        if not clean:
            self._failure = (SocketError.REMOTE_HOST_CLOSED_ERROR, message)
        self._fail(SocketError.REMOTE_HOST_CLOSED_ERROR, message)
        if self._generation == generation and self._state is CONNECTED and self._relay is None:
            self._finish()

    @whole
    def _on_failed(self, failure: int, message: str) -> None:
        self._fall(FAILURES.get(failure, SocketError.UNKNOWN_ERROR), self._with_peer(message))

    # Steps

    def _advance(self, event: SocketEvent, tell: bool = True) -> None:
        """The one place where the state changes."""
        state = MOVES.get((self._state, event))
        if state is None:
            raise RuntimeError(f"{event.value} while {self._state.name}")
        if state is not self._state:
            self._state = state
            if state is HOST_LOOKUP or state is CLOSING or event is ACCEPTED:  # else it is as it was, or `_drop_connection` has
                self._join_ends()
            if self._waits is not None:
                self._ask_waits()
            if tell and self._state_changed_handler is not None:
                self._emit("_state_changed_handler", state)

    def _connect(self, hostname: str, port: int, open_mode: int, hold_writes: bool = False) -> None:
        """`connect`. `hold_writes`: nothing that is written leaves before it can be encrypted."""
        if not isinstance(hostname, str):
            raise TypeError(f"a host name is a str, not {type(hostname).__name__}")
        checked_port(port, 1)
        mode = checked_mode(open_mode)
        self._loop._follow_host()
        if self._state is not UNCONNECTED and self._state is not BOUND:
            self._refuse(f"connect() while the socket is {self._state.name}")
            return
        self._begin(hostname, port, mode, hold_writes)

    def _connect_local(self, path: PathLike, open_mode: int, hold_writes: bool = False) -> None:
        """`connect_local`."""
        text = checked_path(path)
        mode = checked_mode(open_mode)
        self._loop._follow_host()
        if self._state is not UNCONNECTED:
            self._refuse(f"connect_local() while the socket is {self._state.name}")
            return
        self._begin(text, 0, mode, hold_writes)

    @whole
    def _begin(self, hostname: str, port: int, mode: int, hold_writes: bool) -> None:
        """port: 0 where `hostname` is a path."""
        self._reset()
        generation = self._generation
        self._hostname = hostname if port else ""
        self._open_mode = mode
        channel = self._channel = self._make_channel()
        channel.hold_writes = hold_writes
        connector = (
            Connector(self._loop, self, hostname, port, self._connect_timeout, self._bound)
            if port
            else LocalConnector(self._loop, self, hostname, self._connect_timeout)
        )
        self._connector = connector
        self._bound = None
        self._advance(SocketEvent.CONNECT)
        if self._generation == generation and self._connector is connector:
            connector.start()

    @whole
    def _adopt(self, accepted: Accepted) -> None:
        """Take over a connection of a server."""
        channel = self._channel = self._make_channel()
        accepted.give(self, channel)
        self._generation += 1
        self._remote_address, self._remote_port = accepted.address, accepted.port
        self._open_mode = READ | WRITE
        self._advance(ACCEPTED)

    def _set_descriptor(self, descriptor: int, open_mode: int) -> bool:
        """`set_socket_descriptor`."""
        number = checked_count(descriptor, "a descriptor", -1, MOST_DESCRIPTOR)
        mode = checked_mode(open_mode)
        self._loop._follow_host()
        if self._state is not UNCONNECTED:
            self._refuse(f"set_socket_descriptor() while the socket is {self._state.name}")
            return False
        try:
            remote = adoptable(self._loop, number)
        except OSError as exc:
            self._fail(SocketError.UNSUPPORTED_SOCKET_OPERATION_ERROR, f"descriptor {number} is refused: {exc.strerror}")
            return False
        return self._take_descriptor(number, remote, mode)

    @whole
    def _take_descriptor(self, number: int, remote: tuple[str, int], mode: int) -> bool:
        blocking = os.get_blocking(number)
        os.set_blocking(number, False)
        channel = self._make_channel()
        try:
            channel.attach(number)
        except BaseException as exc:
            os.set_blocking(number, blocking)  # it stays the caller's
            if not isinstance(exc, OSError):
                raise
            self._fail(SocketError.SOCKET_RESOURCE_ERROR, f"descriptor {number} cannot be watched: {exc.strerror}")
            return False
        self._channel = channel
        self._reset()
        self._hostname = ""
        self._local = None
        self._remote_address, self._remote_port = remote
        self._open_mode = mode
        self._advance(ACCEPTED)
        return True

    @whole
    def _take_port(self, bound: OwnSocket) -> None:
        self._reset()
        self._bound = bound
        self._local = bound.getsockname()[:2]
        self._advance(SocketEvent.BIND)

    @whole
    def _set_open_mode(self, mode: int) -> None:
        self._open_mode = mode
        self._join_ends()

    @whole
    def _disconnect(self) -> None:
        state = self._state
        if self._relay is not None:
            self._relay.close()
        elif state is CONNECTED:
            self._finish()
        elif state is not CLOSING and state is not UNCONNECTED:
            self._failure = (SocketError.OPERATION_ERROR, self._with_peer("given up before it was connected"))
            self._leave(CLOSE, keep_input=False)

    @whole
    def _close(self) -> None:
        self._set_open_mode(0)
        if self._channel is not None:
            self._channel.discard()
        self._disconnect()

    @whole
    def _abort(self) -> None:
        self._set_open_mode(0)
        if self._relay is not None:
            self._relay.close()
        elif self._state is not UNCONNECTED:
            if self._failure is None:  # else it is aborted because of that
                self._failure = (SocketError.OPERATION_ERROR, self._with_peer("aborted by the program"))
            self._leave(SocketEvent.ABORT, keep_input=False)

    def _make_channel(self) -> Channel:
        channel = Channel(self._loop, self)
        if self._read_buffer_size:
            channel.read_bound = self._read_buffer_size
        if self._bytes_written_handler is not None:
            channel.notify_written = True
        return channel

    def _reset(self) -> None:
        """Forget what was said of the connection before."""
        self._generation += 1
        self._error = None
        self._failure = None
        self._error_string = ""
        self._clean = True
        self._peer_closed = False
        self._source = None
        self._codec = None  # a new stream of characters begins

    def _finish(self) -> None:
        """Close in good order: what was written, then the end of the stream. CLOSING is told if that takes a while."""
        channel = self._channel
        assert channel is not None
        self._advance(FINISH, tell=False)
        channel.finish()
        if self._channel is channel and self._state is CLOSING:
            self._emit("_state_changed_handler", CLOSING)

    def _fall(self, error: SocketError, message: str, keep_input: bool = True) -> None:
        """A connection that stands has failed."""
        generation = self._generation
        self._failure = (error, message)
        self._join_ends()  # the channel is closed
        if self._relay is not None:
            self._relay._on_end_failed(error, message)
        # A peer that has closed does not take our last bytes any more: no second news, nor a cut of what it sent.
        if not (self._peer_closed and error is SocketError.REMOTE_HOST_CLOSED_ERROR):
            self._clean = False
            self._fail(error, message)
        if self._generation == generation and self._state is not UNCONNECTED:
            self._leave(SocketEvent.FAILED, keep_input)

    def _leave(self, event: SocketEvent, keep_input: bool = True) -> None:
        """The connection, or the attempt at one, is over."""
        if self._relay is not None:
            self._relay._on_end_left()
            return
        was_connected = self._state is CONNECTED or self._state is CLOSING
        mode_changed = self._drop_connection(keep_input)
        generation = self._generation
        self._advance(event)
        self._tell_end(generation, mode_changed, was_connected)

    def _tell_end(self, generation: int, mode_changed: bool, was_connected: bool) -> None:
        if mode_changed and self._generation == generation:
            self._announce_mode()
        if was_connected and self._generation == generation and self._disconnected_handler is not None:
            self._emit("_disconnected_handler")

    def _drop_connection(self, keep_input: bool) -> bool:
        """Give back all that the connection held. True when the mode is another one now. Each thing is forgotten when it has
        been ended, so that all of it can be done again."""
        connector, bound, channel = self._connector, self._bound, self._channel
        if connector is not None:
            connector.cancel()
            self._connector = None
        if bound is not None:
            bound.close()
            self._bound = None
        # One that was finished says goodbye by itself; one that has failed is closed already.
        if channel is not None and not keep_input:
            channel.abort()
        self._channel = self._sink = None
        if not keep_input or (self._source is not None and not self._source.bytes_available):
            self._source = None
        self._local = None
        self._remote_address, self._remote_port = None, 0
        return False

    def _break_off(self, exc: BaseException) -> None:
        """A step has raised in the middle: close both directions at once. Handlers are told by the loop, later: who has called
        hears of the exception first."""
        state = self._state
        if state is UNCONNECTED and self._channel is None and self._bound is None:
            return
        resource = isinstance(exc, (MemoryError, OSError))
        error = SocketError.SOCKET_RESOURCE_ERROR if resource else SocketError.UNKNOWN_ERROR
        message = self._with_peer(f"{type(exc).__name__}, which ended the connection: {exc}")
        relay, self._relay = self._relay, None
        if relay is not None:
            relay._on_end_failed(error, message)
            relay.close()
        mode_changed = self._drop_connection(keep_input=False)
        self._failure = (error, message)
        self._advance(SocketEvent.ABORT, tell=False)
        self._clean = False
        self._error = error
        self._error_string = message
        if state is not UNCONNECTED and relay is None:  # else the relay has told
            with suppress(RuntimeError, MemoryError):  # the loop is closed, or nothing can be told any more
                self._loop.call_soon(self._tell_break_off, self._generation, error, message, state, mode_changed)

    def _tell_break_off(
        self, generation: int, error: SocketError, message: str, state: SocketState, mode_changed: bool
    ) -> None:
        if self._generation == generation:
            self._emit("_state_changed_handler", UNCONNECTED)
        if self._generation == generation:
            self._fail(error, message)
        self._tell_end(generation, mode_changed, state is CONNECTED or state is CLOSING)

    # In a relay

    def _check_relay(self) -> None:
        """ValueError unless a relay can take this connection."""
        if self._state is not CONNECTED:
            raise ValueError(f"a relay joins connected sockets, not one that is {self._state.name}")
        if self._relay is not None:
            raise ValueError("the socket is in a relay already")
        if self._channel is None or not self._channel.is_open:  # inside the handler that tells of it
            raise ValueError("a relay joins connected sockets, not one whose connection has failed or is ending")

    def _enter_relay(self, relay: RelayOwner) -> None:
        """From now on the connection is a relay's."""
        channel = self._channel
        assert channel is not None
        self._local_name()  # while the descriptor is the channel's
        self._relay = relay
        self._join_ends()
        channel.notify_written = False
        self._read_buffer_size_changed()
        if self._waits is not None:
            self._ask_waits()

    @property
    def _relay_channel(self) -> Optional[Channel]:
        """What is joined; None while something is to be awaited before bytes may go through."""
        channel = self._channel
        return channel if channel is not None and channel.can_join else None

    @property
    def _input_cut(self) -> bool:
        """What came has an end that its sender did not declare."""
        return False

    def _leave_relay(self, cut: bool) -> None:
        """The relay has ended, and the connection with it; nobody is told but by the relay."""
        channel = self._channel
        self._relay = None
        if cut:
            self._clean = False
        self._failure = (SocketError.OPERATION_ERROR, "the relay of the socket has ended")
        # One that has failed may still be saying so to its peer, by itself.
        self._drop_connection(keep_input=channel is not None and not channel.is_open)
        self._advance(SocketEvent.ABORT, tell=False)

    def _announce_mode(self) -> None:
        pass

    def _join_ends(self) -> None:
        """The one place that says whether the program may read from the channel, and write to it."""
        mode, channel, state = self._open_mode, self._channel, self._state
        self._sink = None
        if self._relay is not None or not mode & READ:
            self._source = None
        elif channel is not None:  # else what the last connection has left stays to be read
            self._source = channel if self._may_read(channel) else None
        if self._relay is not None or not mode & WRITE or channel is None:
            return
        # A channel that has failed stays the socket's until that has been told.
        stands = state is CONNECTED and channel.is_open
        if (stands or state is HOST_LOOKUP or state is CONNECTING) and self._may_write(channel):
            self._sink = channel

    def _may_read(self, channel: Channel) -> bool:
        """The channel's bytes are the program's."""
        return True

    def _may_write(self, channel: Channel) -> bool:
        """What is written to the channel leaves as it is meant to."""
        return True

    def _drop_input(self) -> None:
        """The socket is not open for reading, so nobody will ever take what has come: except a relay, later."""
        if self._relay is None:
            super()._drop_input()

    def _fail(self, error: SocketError, message: str) -> None:
        """Set `error` and tell it: the handler; where there is none, the tasks that wait, or the log."""
        repeated = self._error is error and self._error_string == message and error is SocketError.OPERATION_ERROR
        self._error = error
        self._error_string = message
        if self._error_handler is None:
            heard = repeated or self._failure_is_heard() or (self._relay is not None and self._relay.closed_handler is not None)
            if not heard:
                log_error(self._log_level(error), error, message)
            return
        reporting, self._reporting = self._reporting, True
        try:
            self._emit("_error_handler", error)
        finally:
            self._reporting = reporting

    def _log_level(self, error: SocketError) -> int:
        """How loud an error is that no handler takes. A peer that has closed in good order is none."""
        return DEBUG if error is SocketError.REMOTE_HOST_CLOSED_ERROR and self._clean else WARNING

    def _refuse(self, message: str) -> None:
        """A call that is not possible now. An error handler that causes one is not called for it again, and
        again."""
        if self._reporting:
            self._error = SocketError.OPERATION_ERROR
            self._error_string = message
        else:
            self._fail(SocketError.OPERATION_ERROR, message)

    def _refuse_write(self, data: Buffer) -> int:
        super()._refuse_write(data)
        if self._state is UNCONNECTED or self._state is BOUND:
            self._refuse("write() while the socket is not connected")
        elif self._relay is not None:
            self._refuse("write() while the socket is in a relay")
        elif self._state is CLOSING or self._open_mode & WRITE:
            self._refuse("write() while the connection is ending")
        else:
            self._refuse("write() while the socket is not open for writing")
        return -1

    def _with_peer(self, message: str) -> str:
        name = self._hostname or self._remote_address
        if not name:
            return message
        return f"{name} port {self._remote_port}: {message}" if self._hostname or self._remote_port else f"{name}: {message}"

    def _local_name(self) -> tuple[str, int]:
        name = self._local
        if name is None:
            if self._channel is None or self._channel.fileno() < 0:
                return NOWHERE
            borrowed = socket.socket(fileno=self._channel.fileno())
            try:
                name = self._local = end_of(borrowed.getsockname())
            finally:
                borrowed.detach()
        return name

    def _read_buffer_size_changed(self) -> None:
        if self._channel is not None:
            self._channel.read_bound = self._read_buffer_size or (RELAY_UNREAD if self._relay is not None else 0)

    def _input_ended(self) -> bool:
        return self._state is UNCONNECTED
