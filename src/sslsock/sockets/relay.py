"""Relay: two sockets joined, so that what comes in on one goes out on the other without Python.

    waiting --no handshake is under way--> joined --> ended        waiting --a handshake fails, close--> ended

While it waits, the sockets keep their channels and shake hands as ever; what comes stays in the channels. Then the core
(core/relay.pyx) takes the channels over. The sockets stay what they were to look at, and leave when the relay ends.
"""

from __future__ import annotations

from typing import Callable, Optional

from ..core.event_loop import EventLoop
from ..core.relay import ChannelRelay
from .checked import checked_seconds
from .constants import RelayReason, SocketError
from .fact import TRUE, Fact, not_yet
from .loop_object import Handler
from .relay_end import RelayEnd
from .tcp_socket import TcpSocket
from .twins import twin
from .waits import PENDING, Wait, Waits

__all__ = ["Relay"]

HANDLER_NAMES = {"_on_relay_closed": "closed_handler"}

# What a side's error before both were ready means; any other is NETWORK_ERROR.
REASONS = {
    SocketError.SSL_HANDSHAKE_FAILED_ERROR: RelayReason.HANDSHAKE_FAILED,
    SocketError.SSL_INVALID_USERDATA_ERROR: RelayReason.HANDSHAKE_FAILED,
    SocketError.SSL_INTERNAL_ERROR: RelayReason.TLS_ERROR,
    SocketError.REMOTE_HOST_CLOSED_ERROR: RelayReason.RESET,
    SocketError.SOCKET_RESOURCE_ERROR: RelayReason.RESOURCE_ERROR,
}


class Relay(Waits):
    """Joins two connected sockets of one loop, each plain, encrypted, or in the middle of its handshake.

    From then on bytes go from one to the other in C, and none of the sockets' handlers is called any more, except those of
    a handshake under way, which ends with `encrypted_handler`, or with `error_handler` and the relay. What is unread in
    either socket goes first. The end of one direction is passed on (as close_notify and FIN, or FIN), while the other goes
    on. An error on one side closes the other when what was received before has been delivered. A side is read only while
    the other takes what it is sent.

        def connected(back):
            relay = sslsock.Relay(client, back, idle_timeout=300)
            relay.closed_handler = lambda relay, reason: print(reason, relay.bytes_back)

    A socket whose handshake is held, or asked about in `client_hello_handler`, is joined as it is: the connection passes
    through with its ClientHello first, and the socket's mode is UNENCRYPTED again.

    An open relay lives until it ends, also when the program keeps no reference to it. Then both sockets are UNCONNECTED, may
    be connected again, and `closed_handler` is called, always from the loop or from what has ended it. Until then the
    sockets are CONNECTED; there is nothing to read in them and `write` is refused. To end it at once: `close`, or `abort`,
    `close` or `disconnect` of either socket.

    front, back: TcpSocket or SslSocket, CONNECTED, not in another relay. One whose peer has ended its stream can be given
    inside `error_handler`, which tells of it. idle_timeout: seconds (float) in which nothing comes on either side before
    the joined relay is ended, 0 for no limit. ValueError, TypeError.
    """

    _handler_names = HANDLER_NAMES

    __slots__ = (
        "__weakref__",
        "_back",
        "_closed_handler",
        "_core",
        "_ends",
        "_error_string",
        "_front",
        "_idle_timeout",
        "_loop",
        "_noted",
        "_reason",
        "_waits",
    )

    closed_handler: Handler[Callable[[Relay, RelayReason], object]] = Handler(
        """`closed_handler(relay, reason)`: called when it has ended, and both sockets are closed."""
    )

    def __init__(self, front: TcpSocket, back: TcpSocket, *, idle_timeout: float = 0.0) -> None:
        for sock in (front, back):
            if not isinstance(sock, TcpSocket):
                raise TypeError(f"a relay joins sockets, not {type(sock).__name__}")
        if front is back:
            raise ValueError("a relay joins two sockets, not one with itself")
        if front.loop is not back.loop:
            raise ValueError("a relay joins sockets of one loop")
        front.loop.check()
        ends: tuple[RelayEnd, RelayEnd] = (front, back)
        for one in ends:
            one._check_relay()
        self._idle_timeout = checked_seconds(idle_timeout, "idle_timeout")
        self._front = front
        self._back = back
        self._ends = ends
        self._loop: EventLoop = front.loop
        self._core: Optional[ChannelRelay] = None
        self._noted: Optional[RelayReason] = None  # why it is about to end
        self._reason: Optional[RelayReason] = None
        self._error_string = ""
        self._waits: Optional[list[Wait]] = None
        self._closed_handler = None
        if self._methods:
            self._use_methods()
        try:
            for one in ends:
                one._enter_relay(self)
            self._on_end_ready()
        except BaseException as exc:
            self._break_off(exc)
            raise

    @property
    def loop(self) -> EventLoop:
        """The loop of both sockets."""
        self._loop._meet()
        return self._loop

    @property
    def front(self) -> TcpSocket:
        """The first of the two sockets."""
        return self._front

    @property
    def back(self) -> TcpSocket:
        """The second of the two sockets."""
        return self._back

    @property
    def joined(self) -> bool:
        """Whether both sides are ready, so that bytes go through: bool."""
        self._loop._meet()
        return self._core is not None and self._reason is None

    @property
    def closed(self) -> Fact:
        """It has ended. `await relay.closed()` waits for that; `reason` then says why."""
        self._loop._meet()
        return TRUE if self._reason is not None else not_yet(self._until_closed)

    async def _until_closed(self) -> None:
        await self._answer(lambda: self._reason is not None or PENDING)

    @property
    def reason(self) -> Optional[RelayReason]:
        """Why it has ended: RelayReason, None while it has not."""
        return self._reason

    @property
    def error_string(self) -> str:
        """What went wrong, with the peer it went wrong with, in words; "" when nothing did: str."""
        return self._error_string

    @property
    def bytes_forward(self) -> int:
        """Bytes taken from the front socket and passed on: int."""
        self._loop._meet()
        return self._core.bytes_forward if self._core is not None else 0

    @property
    def bytes_back(self) -> int:
        """Bytes taken from the back socket and passed on: int."""
        self._loop._meet()
        return self._core.bytes_back if self._core is not None else 0

    @property
    def duration(self) -> float:
        """How long bytes have been going through, in seconds: float, 0 before."""
        return self._core.seconds if self._core is not None else 0.0

    @property
    def idle_timeout(self) -> float:
        """Seconds in which nothing comes on either side before it is ended, 0 for no limit: float. ValueError below 0."""
        return self._idle_timeout

    @idle_timeout.setter
    def idle_timeout(self, seconds: float) -> None:
        self._loop.check()
        self._idle_timeout = checked_seconds(seconds, "idle_timeout")
        if self._core is not None:
            self._core.idle_seconds = self._idle_timeout

    def close(self) -> None:
        """End it at once: what is on its way is dropped, both sockets are aborted. No effect on one that has ended."""
        self._loop.check()
        if self._core is not None:
            self._core.close()
        else:
            self._on_end_left()

    close_async = twin(close)

    def __repr__(self) -> str:
        state = "joined" if self.joined else "waiting" if self._reason is None else self._reason.name
        return f"<Relay {state} {self._front!r} {self._back!r}>"

    # What the sockets and the core tell

    def _on_end_ready(self) -> None:
        """Join, if the other one is ready too."""
        if self._core is not None or self._noted is not None or self._reason is not None:
            return
        front, back = self._ends[0]._relay_channel, self._ends[1]._relay_channel
        if front is None or back is None:
            return
        try:
            self._core = ChannelRelay(self._loop, front, back, self, self._idle_timeout)
        except (OSError, MemoryError) as exc:
            self._noted = RelayReason.RESOURCE_ERROR
            self._error_string = f"the sockets cannot be joined: {exc}"
            self._loop.call_soon(self._on_end_left)  # nobody could have set `closed_handler` yet

    def _on_end_failed(self, error: SocketError, message: str) -> None:
        """A side has failed before both were ready, and will leave when it has told its `error_handler`."""
        self._noted = REASONS.get(error, RelayReason.NETWORK_ERROR)
        self._error_string = message

    def _on_relay_closed(self, reason: int) -> None:
        """What the core calls."""
        self._noted = RelayReason(reason)
        self._on_end_left()

    def _on_end_left(self) -> None:
        """The end, of whichever."""
        if self._reason is None:
            try:
                self._part()
            except BaseException as exc:
                self._break_off(exc)
                raise

    def _break_off(self, exc: BaseException) -> None:
        """What raises in the middle ends both connections."""
        for one in self._ends:
            one._break_off(exc)
        if self._waits is not None:
            self._ask_waits()

    def _part(self) -> None:
        reason = self._reason = RelayReason.ABORTED if self._noted is None else self._noted
        failed = self._failed_side()
        if failed is not None and self._core is not None:
            self._error_string = failed._with_peer(self._core.error_text)
        for one in self._ends:
            one._leave_relay(one is failed or (reason is RelayReason.TRUNCATED and one._input_cut))
        if self._waits is not None:
            self._ask_waits()
        handler: Optional[Callable[[Relay, RelayReason], object]] = self._closed_handler
        if handler is not None:
            try:
                handler(self, reason)
            except BaseException as exc:
                self._loop.report("exception in closed_handler", exc, self)

    def _failed_side(self) -> Optional[RelayEnd]:
        """The socket an error came from once they were joined."""
        side = self._core.failed_side if self._core is not None else None
        return None if side is None else self._ends[0 if side == "front" else 1]
