"""The state tables of the family: (state, event) -> state. Data only; `TcpSocket._advance` and
`SslSocket._turn` apply them.

    UNCONNECTED --bind--> BOUND
    UNCONNECTED, BOUND --connect--> HOST_LOOKUP --found--> CONNECTING --established--> CONNECTED
    UNCONNECTED --accepted--> CONNECTED                             a server's socket begins there
    HOST_LOOKUP, CONNECTING, CONNECTED, CLOSING --failed--> UNCONNECTED
    CONNECTED --finish--> CLOSING --drained--> UNCONNECTED          at once, if nothing is pending
    BOUND, HOST_LOOKUP, CONNECTING, CONNECTED --close--> UNCONNECTED
    any --abort--> UNCONNECTED

The end of the peer's stream is no event of its own: the socket answers it with close or finish.

The mode stands beside it:

    UNENCRYPTED --start_client--> SSL_CLIENT, --start_server--> SSL_SERVER; any --closed--> UNENCRYPTED

An event that a table does not have for a state is a bug of the caller (this package), and raises.
"""

from enum import Enum

from .constants import SocketState, SslMode

__all__ = ["MODE_MOVES", "MOVES", "ModeEvent", "SocketEvent"]


class Event(str, Enum):
    """A str, because Enum alone has its hash computed in Python, at each look into a table."""


class SocketEvent(Event):
    """What moves a socket from state to state."""

    BIND = "bind"
    CONNECT = "connect"
    ACCEPTED = "accepted"
    FOUND = "found"
    ESTABLISHED = "established"
    FAILED = "failed"
    FINISH = "finish"
    DRAINED = "drained"
    CLOSE = "close"
    ABORT = "abort"


class ModeEvent(Event):
    """What changes a socket's encryption mode."""

    START_CLIENT = "start_client"
    START_SERVER = "start_server"
    CLOSED = "closed"


MOVES: "dict[tuple[SocketState, SocketEvent], SocketState]" = {
    (SocketState.UNCONNECTED_STATE, SocketEvent.BIND): SocketState.BOUND_STATE,
    (SocketState.UNCONNECTED_STATE, SocketEvent.CONNECT): SocketState.HOST_LOOKUP_STATE,
    (SocketState.UNCONNECTED_STATE, SocketEvent.ACCEPTED): SocketState.CONNECTED_STATE,
    (SocketState.UNCONNECTED_STATE, SocketEvent.ABORT): SocketState.UNCONNECTED_STATE,
    (SocketState.BOUND_STATE, SocketEvent.CONNECT): SocketState.HOST_LOOKUP_STATE,
    (SocketState.BOUND_STATE, SocketEvent.CLOSE): SocketState.UNCONNECTED_STATE,
    (SocketState.BOUND_STATE, SocketEvent.ABORT): SocketState.UNCONNECTED_STATE,
    (SocketState.HOST_LOOKUP_STATE, SocketEvent.FOUND): SocketState.CONNECTING_STATE,
    (SocketState.HOST_LOOKUP_STATE, SocketEvent.FAILED): SocketState.UNCONNECTED_STATE,
    (SocketState.HOST_LOOKUP_STATE, SocketEvent.CLOSE): SocketState.UNCONNECTED_STATE,
    (SocketState.HOST_LOOKUP_STATE, SocketEvent.ABORT): SocketState.UNCONNECTED_STATE,
    (SocketState.CONNECTING_STATE, SocketEvent.ESTABLISHED): SocketState.CONNECTED_STATE,
    (SocketState.CONNECTING_STATE, SocketEvent.FAILED): SocketState.UNCONNECTED_STATE,
    (SocketState.CONNECTING_STATE, SocketEvent.CLOSE): SocketState.UNCONNECTED_STATE,
    (SocketState.CONNECTING_STATE, SocketEvent.ABORT): SocketState.UNCONNECTED_STATE,
    (SocketState.CONNECTED_STATE, SocketEvent.FINISH): SocketState.CLOSING_STATE,
    (SocketState.CONNECTED_STATE, SocketEvent.CLOSE): SocketState.UNCONNECTED_STATE,
    (SocketState.CONNECTED_STATE, SocketEvent.FAILED): SocketState.UNCONNECTED_STATE,
    (SocketState.CONNECTED_STATE, SocketEvent.ABORT): SocketState.UNCONNECTED_STATE,
    (SocketState.CLOSING_STATE, SocketEvent.DRAINED): SocketState.UNCONNECTED_STATE,
    (SocketState.CLOSING_STATE, SocketEvent.FAILED): SocketState.UNCONNECTED_STATE,
    (SocketState.CLOSING_STATE, SocketEvent.ABORT): SocketState.UNCONNECTED_STATE,
}

MODE_MOVES: "dict[tuple[SslMode, ModeEvent], SslMode]" = {
    (SslMode.UNENCRYPTED_MODE, ModeEvent.START_CLIENT): SslMode.SSL_CLIENT_MODE,
    (SslMode.UNENCRYPTED_MODE, ModeEvent.START_SERVER): SslMode.SSL_SERVER_MODE,
    (SslMode.UNENCRYPTED_MODE, ModeEvent.CLOSED): SslMode.UNENCRYPTED_MODE,
    (SslMode.SSL_CLIENT_MODE, ModeEvent.CLOSED): SslMode.UNENCRYPTED_MODE,
    (SslMode.SSL_SERVER_MODE, ModeEvent.CLOSED): SslMode.UNENCRYPTED_MODE,
}
