"""Every enumeration of the family. The members also stand on the classes: `SslSocket.VERIFY_PEER`.

Values are those of the documents (and of Qt, from which they come), so a gap is a value that never occurs
here.
"""

from enum import IntEnum, IntFlag

__all__ = [
    "ErrorConstants",
    "OpenMode",
    "PeerVerifyMode",
    "RelayReason",
    "SocketError",
    "SocketState",
    "SslMode",
    "SslProtocol",
    "VerifyFlag",
]


class OpenMode(IntFlag):
    """How a stream is open."""

    NOT_OPEN_MODE = 0
    """Closed."""
    READ_ONLY_MODE = 1
    """Open for reading only: `write` fails."""
    WRITE_ONLY_MODE = 2
    """Open for writing only: `read` gives nothing."""
    READ_WRITE_MODE = 3
    """Open for both."""
    APPEND_MODE = 4
    """Of files: a socket has no use for it."""
    TRUNCATE_MODE = 8
    """Of files: a socket has no use for it."""


class NamedInt(IntEnum):
    """A number that prints as its name, in every Python version."""

    def __str__(self) -> str:
        return self.name

    def __format__(self, spec: str) -> str:
        return format(int(self), spec) if spec else str(self)


class SocketState(NamedInt):
    """Where a socket is in its life."""

    UNCONNECTED_STATE = 0
    """There is no connection."""
    HOST_LOOKUP_STATE = 1
    """The name of the host is being looked up."""
    CONNECTING_STATE = 2
    """The connection is being made."""
    CONNECTED_STATE = 3
    """The connection stands."""
    BOUND_STATE = 4
    """The local address is fixed by `bind`, and there is no connection yet."""
    CLOSING_STATE = 6
    """`disconnect` was called; what was written before is still being sent."""


class SocketError(NamedInt):
    """What went wrong with a socket or a server."""

    UNKNOWN_ERROR = -1
    """An error that has no other name here; `error_string` says more."""
    CONNECTION_REFUSED_ERROR = 0
    """The peer refused, or did not answer in time."""
    REMOTE_HOST_CLOSED_ERROR = 1
    """The peer closed or reset the connection."""
    HOST_NOT_FOUND_ERROR = 2
    """The name of the host is not known."""
    SOCKET_ACCESS_ERROR = 3
    """The system denies the operation: a port below 1024, for example."""
    SOCKET_RESOURCE_ERROR = 4
    """Out of descriptors, buffers or memory."""
    SOCKET_TIMEOUT_ERROR = 5
    """The system gave up waiting for the peer."""
    DATAGRAM_TOO_LARGE_ERROR = 6
    """Of UDP: does not occur here."""
    NETWORK_ERROR = 7
    """Any other error of the network: no route to the host, for example."""
    ADDRESS_IN_USE_ERROR = 8
    """Another program has this address and port."""
    UNSUPPORTED_SOCKET_OPERATION_ERROR = 10
    """A descriptor is no connection that a socket can take over."""
    UNFINISHED_SOCKET_OPERATION_ERROR = 11
    """Does not occur here."""
    SSL_HANDSHAKE_FAILED_ERROR = 13
    """The TLS handshake failed."""
    OPERATION_ERROR = 19
    """Not possible in the state the object is in."""
    SSL_INTERNAL_ERROR = 20
    """TLS failed after the handshake."""
    SSL_INVALID_USERDATA_ERROR = 21
    """The configuration holds something that OpenSSL refuses."""
    TEMPORARY_ERROR = 22
    """The name service cannot answer now."""


class SslMode(NamedInt):
    """Whether a connection is encrypted (or about to be), and in which role."""

    UNENCRYPTED_MODE = 0
    """Plain TCP."""
    SSL_CLIENT_MODE = 1
    """TLS as the client, from the start of the handshake on."""
    SSL_SERVER_MODE = 2
    """TLS as the server, from the start of the handshake on."""


class PeerVerifyMode(NamedInt):
    """What is demanded of the peer's certificate."""

    VERIFY_NONE = 0
    """Nothing; a server does not ask for one."""
    QUERY_PEER = 1
    """It is asked for and checked, errors are reported, the handshake goes on in spite of them."""
    VERIFY_PEER = 2
    """It has to be there and to be good."""
    AUTO_VERIFY_PEER = 3
    """VERIFY_PEER for clients, QUERY_PEER for servers."""


class VerifyFlag(IntFlag):
    """How strictly certificates are verified. Names and numbers are those of `ssl.VerifyFlags` (and of OpenSSL)."""

    VERIFY_DEFAULT = 0
    """None of the others."""
    VERIFY_CRL_CHECK_LEAF = 0x4
    """The peer's own certificate is looked up in its authority's CRL, which has to be there."""
    VERIFY_CRL_CHECK_CHAIN = 0xC
    """Every certificate of the chain is."""
    VERIFY_X509_STRICT = 0x20
    """What is against RFC 5280 is refused, and not worked around."""
    VERIFY_X509_TRUSTED_FIRST = 0x8000
    """Trusted certificates come before those that were sent: always so."""
    VERIFY_X509_PARTIAL_CHAIN = 0x80000
    """A chain may end at any trusted certificate, not only at a root: an intermediate authority, or the peer's own."""


class RelayReason(NamedInt):
    """Why a relay has ended."""

    ENDED = 0
    """Both peers have ended their streams in order."""
    TRUNCATED = 1
    """Both have ended, but one of them cut its TLS stream without close_notify."""
    RESET = 2
    """A peer reset its connection, or is gone."""
    NETWORK_ERROR = 3
    """Any other error of the network."""
    TLS_ERROR = 4
    """TLS failed: an alert, a record that does not decrypt."""
    RESOURCE_ERROR = 5
    """Out of memory or descriptors."""
    IDLE_TIMEOUT = 6
    """Nothing came for too long."""
    ABORTED = 7
    """It was closed by the program."""
    HANDSHAKE_FAILED = 8
    """A handshake that was under way came to nothing."""


class SslProtocol(NamedInt):
    """Protocol versions, by the number they have on the wire."""

    SSL_3 = 0x0300
    """Cannot be spoken; a ClientHello may name it."""
    TLS_1_0 = 0x0301
    """Out of date (RFC 8996)."""
    TLS_1_1 = 0x0302
    """Out of date (RFC 8996)."""
    TLS_1_2 = 0x0303
    """RFC 5246."""
    TLS_1_3 = 0x0304
    """RFC 8446."""

    def __str__(self) -> str:
        return self.name.replace("_", " ", 1).replace("_", ".")


class ErrorConstants:
    """The members of SocketError, to stand on a class."""

    __slots__ = ()

    UNKNOWN_ERROR = SocketError.UNKNOWN_ERROR
    CONNECTION_REFUSED_ERROR = SocketError.CONNECTION_REFUSED_ERROR
    REMOTE_HOST_CLOSED_ERROR = SocketError.REMOTE_HOST_CLOSED_ERROR
    HOST_NOT_FOUND_ERROR = SocketError.HOST_NOT_FOUND_ERROR
    SOCKET_ACCESS_ERROR = SocketError.SOCKET_ACCESS_ERROR
    SOCKET_RESOURCE_ERROR = SocketError.SOCKET_RESOURCE_ERROR
    SOCKET_TIMEOUT_ERROR = SocketError.SOCKET_TIMEOUT_ERROR
    DATAGRAM_TOO_LARGE_ERROR = SocketError.DATAGRAM_TOO_LARGE_ERROR
    NETWORK_ERROR = SocketError.NETWORK_ERROR
    ADDRESS_IN_USE_ERROR = SocketError.ADDRESS_IN_USE_ERROR
    UNSUPPORTED_SOCKET_OPERATION_ERROR = SocketError.UNSUPPORTED_SOCKET_OPERATION_ERROR
    UNFINISHED_SOCKET_OPERATION_ERROR = SocketError.UNFINISHED_SOCKET_OPERATION_ERROR
    SSL_HANDSHAKE_FAILED_ERROR = SocketError.SSL_HANDSHAKE_FAILED_ERROR
    OPERATION_ERROR = SocketError.OPERATION_ERROR
    SSL_INTERNAL_ERROR = SocketError.SSL_INTERNAL_ERROR
    SSL_INVALID_USERDATA_ERROR = SocketError.SSL_INVALID_USERDATA_ERROR
    TEMPORARY_ERROR = SocketError.TEMPORARY_ERROR
