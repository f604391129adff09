"""The constants have the documented values, and stand on the classes."""

import pytest

from sslsock import (
    KeyAlgorithm,
    KeyType,
    OpenMode,
    PeerVerifyMode,
    SocketError,
    SocketState,
    SslConfiguration,
    SslEncoding,
    SslKey,
    SslMode,
    SslProtocol,
    SslServer,
    SslSocket,
    Stream,
    TcpServer,
    TcpSocket,
    VerifyFlag,
)

VALUES = {
    OpenMode: {
        "NOT_OPEN_MODE": 0,
        "READ_ONLY_MODE": 1,
        "WRITE_ONLY_MODE": 2,
        "READ_WRITE_MODE": 3,
        "APPEND_MODE": 4,
        "TRUNCATE_MODE": 8,
    },
    SocketState: {
        "UNCONNECTED_STATE": 0,
        "HOST_LOOKUP_STATE": 1,
        "CONNECTING_STATE": 2,
        "CONNECTED_STATE": 3,
        "BOUND_STATE": 4,
        "CLOSING_STATE": 6,
    },
    SocketError: {
        "UNKNOWN_ERROR": -1,
        "CONNECTION_REFUSED_ERROR": 0,
        "REMOTE_HOST_CLOSED_ERROR": 1,
        "HOST_NOT_FOUND_ERROR": 2,
        "SOCKET_ACCESS_ERROR": 3,
        "SOCKET_RESOURCE_ERROR": 4,
        "SOCKET_TIMEOUT_ERROR": 5,
        "DATAGRAM_TOO_LARGE_ERROR": 6,
        "NETWORK_ERROR": 7,
        "ADDRESS_IN_USE_ERROR": 8,
        "UNSUPPORTED_SOCKET_OPERATION_ERROR": 10,
        "UNFINISHED_SOCKET_OPERATION_ERROR": 11,
        "SSL_HANDSHAKE_FAILED_ERROR": 13,
        "OPERATION_ERROR": 19,
        "SSL_INTERNAL_ERROR": 20,
        "SSL_INVALID_USERDATA_ERROR": 21,
        "TEMPORARY_ERROR": 22,
    },
    SslMode: {"UNENCRYPTED_MODE": 0, "SSL_CLIENT_MODE": 1, "SSL_SERVER_MODE": 2},
    PeerVerifyMode: {"VERIFY_NONE": 0, "QUERY_PEER": 1, "VERIFY_PEER": 2, "AUTO_VERIFY_PEER": 3},
    SslProtocol: {"SSL_3": 0x0300, "TLS_1_0": 0x0301, "TLS_1_1": 0x0302, "TLS_1_2": 0x0303, "TLS_1_3": 0x0304},
    VerifyFlag: {
        "VERIFY_DEFAULT": 0,
        "VERIFY_CRL_CHECK_LEAF": 0x4,
        "VERIFY_CRL_CHECK_CHAIN": 0xC,
        "VERIFY_X509_STRICT": 0x20,
        "VERIFY_X509_TRUSTED_FIRST": 0x8000,
        "VERIFY_X509_PARTIAL_CHAIN": 0x80000,
    },
    SslEncoding: {"PEM": 0, "DER": 1},
    KeyType: {"PUBLIC": 0, "PRIVATE": 1},
}

PLACES = {
    OpenMode: [Stream, TcpSocket, SslSocket],
    SocketState: [TcpSocket, SslSocket],
    SocketError: [TcpSocket, SslSocket, TcpServer, SslServer],
    SslMode: [SslSocket],
    PeerVerifyMode: [SslSocket, SslConfiguration],
    VerifyFlag: [SslConfiguration],
    SslProtocol: [SslConfiguration],
    KeyType: [SslKey],
}


@pytest.mark.parametrize("enum", VALUES)
def test_members_have_the_documented_values(enum):
    assert {name: int(enum[name]) for name in VALUES[enum]} == VALUES[enum]


@pytest.mark.parametrize(("enum", "place"), [(enum, place) for enum in PLACES for place in PLACES[enum]])
def test_members_stand_on_the_classes(enum, place):
    for name in VALUES[enum]:
        assert getattr(place, name) is enum[name]


def test_key_algorithms_begin_with_the_documented_ones():
    assert [SslKey.RSA, SslKey.DSA, SslKey.EC] == [0, 1, 2]
    assert isinstance(SslKey.RSA, KeyAlgorithm)


@pytest.mark.parametrize(
    ("member", "text"),
    [
        (SocketError.NETWORK_ERROR, "NETWORK_ERROR"),
        (SocketState.CONNECTED_STATE, "CONNECTED_STATE"),
        (SslProtocol.TLS_1_3, "TLS 1.3"),
        (SslProtocol.SSL_3, "SSL 3"),
    ],
)
def test_members_print_as_their_names(member, text):
    assert str(member) == f"{member}" == text
    assert f"{member:d}" == str(int(member))
