"""Servers behind a proxy (`trusted_proxies`), and the bound of handshakes at once (`max_handshakes`)."""

from __future__ import annotations

import socket

import pytest

from peers import Recorder, accept, listening
from sslsock import SslServer, SslSocket, TcpServer
from sslsock.proxy_protocol import encode_v1, encode_v2

CLIENT = ("192.0.2.7", 4711)
SERVICE = ("198.51.100.1", 443)


def behind(server, *networks):
    server.trusted_proxies = networks or "127.0.0.1"
    return listening(server)


def connected(server):
    return socket.create_connection(("127.0.0.1", server.port))


def ended(peer):
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("header", [encode_v1(CLIENT, SERVICE), encode_v2(CLIENT, SERVICE)], ids=["1", "2"])
@pytest.mark.parametrize("split", [False, True], ids=["whole", "byte by byte"])
def test_the_client_is_whom_the_header_names(host, header, split):
    server = behind(TcpServer(), "10.0.0.0/8", "127.0.0.0/8")
    with connected(server) as peer:
        for piece in [header[i : i + 1] for i in range(len(header))] if split else [header]:
            assert not server.has_pending_connections
            peer.sendall(piece)
            host.turn()
        peer.sendall(b"data behind")
        recorder = accept(host, server)
        assert (recorder.socket.remote_address, recorder.socket.remote_port) == CLIENT
        host.wait_for(lambda: recorder.data == b"data behind")
        recorder.socket.abort()
    server.close()


def plain_client(host, certificates, server, header=b""):
    """An SslSocket that is connected, and has sent its header."""
    client = SslSocket()
    client.configuration = certificates.client()
    client.peer_verify_name = "localhost"
    client.connect("127.0.0.1", server.port)
    host.wait_for(lambda: client.state is SslSocket.CONNECTED_STATE)
    client.write(header)
    host.wait_for(lambda: not client.bytes_to_write)
    return client


def test_a_header_in_front_of_tls(host, certificates):
    server = SslServer()
    server.configuration = certificates.server()
    behind(server)
    client = plain_client(host, certificates, server, encode_v1(CLIENT, SERVICE))
    client.start_client_encryption()
    recorder = accept(host, server)
    host.wait_for(lambda: client.encrypted and recorder.socket.encrypted)
    assert recorder.socket.remote_address == CLIENT[0]
    client.abort()
    server.close()


def test_who_speaks_for_itself_is_the_peer(host):
    server = behind(TcpServer())
    with connected(server) as peer:
        peer.sendall(encode_v2(None, None))
        recorder = accept(host, server)
        assert recorder.socket.remote_port == peer.getsockname()[1]
        recorder.socket.abort()
    server.close()


@pytest.mark.parametrize("what", ["untrusted", "no header", "ended", "late"])
def test_who_is_not_let_in(host, what):
    server = SslServer()
    if what == "late":
        server.handshake_timeout = 0.02
    behind(server, "10.0.0.0/8" if what == "untrusted" else "127.0.0.1")
    told = []
    server.new_connection_handler = told.append
    with connected(server) as peer:
        if what == "no header":
            peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
        elif what == "ended":
            peer.sendall(b"PROXY TCP4 1")
            peer.shutdown(socket.SHUT_WR)
        peer.setblocking(False)

        def over():
            try:
                return ended(peer)
            except BlockingIOError:
                return False

        host.wait_for(over)
    assert not told and not server.has_pending_connections and not server._listener._entrances
    server.close()


def test_the_bound_of_what_is_pending_holds_behind_a_proxy(host):
    server = TcpServer()
    server.max_pending_connections = 2
    behind(server)
    told = []
    server.new_connection_handler = lambda s: told.append(s.has_pending_connections)
    peers = [connected(server) for _ in range(7)]
    for peer in peers:
        peer.sendall(encode_v1(CLIENT, SERVICE))
    host.wait_for(lambda: server._listener.pending == 2)
    host.turn(5)
    assert server._listener.pending == 2 and all(told)
    for _ in peers:
        accept(host, server).socket.abort()
    for peer in peers:
        peer.close()
    server.close()


def test_closing_ends_who_has_not_come_in(host):
    server = behind(TcpServer())
    peers = [connected(server) for _ in range(2)]
    peers[0].sendall(encode_v1(CLIENT, SERVICE))
    host.wait_for(lambda: server.has_pending_connections and len(server._listener._entrances) == 1)
    server.close()
    assert not server.has_pending_connections and all(ended(peer) for peer in peers)
    for peer in peers:
        peer.close()


@pytest.mark.parametrize(
    "wrong, error",
    [
        *((False, TypeError), (5, TypeError), (b"127.0.0.1", TypeError), ([5], TypeError)),
        *((["10.0.0.0/33"], ValueError), ("host", ValueError)),
    ],
)
def test_what_is_no_network(own_host, wrong, error):
    server = TcpServer()
    assert server.trusted_proxies is None
    server.trusted_proxies = "::1"
    with pytest.raises(error):
        server.trusted_proxies = wrong
    assert server.trusted_proxies == ("::1",)
    server.trusted_proxies = True
    assert server.trusted_proxies is True


# The bound of handshakes


def shaking_server(certificates, count):
    server = SslServer()
    server.configuration = certificates.server()
    server.max_handshakes = count
    assert server.max_handshakes == count
    return listening(server)


@pytest.mark.parametrize("end", ["success", "the client's end", "abort", "time"])
@pytest.mark.parametrize("proxied", [False, True], ids=["", "behind a proxy"])
def test_no_more_handshakes_at_once_than_allowed(host, certificates, end, proxied):
    server = SslServer()
    server.configuration = certificates.server()
    server.max_handshakes = 2
    if end == "time":
        server.handshake_timeout = 0.1
    if proxied:
        server.trusted_proxies = "127.0.0.1"
    listening(server)
    taken = []

    def take(server):
        while server.has_pending_connections:
            taken.append(Recorder(server.next_pending_secure_connection()))

    header = encode_v1(CLIENT, SERVICE) if proxied else b""
    server.new_connection_handler = take
    silent = [plain_client(host, certificates, server, header) for _ in range(2)]
    host.wait_for(lambda: len(taken) == 2)
    client = plain_client(host, certificates, server, header)
    client.start_client_encryption()
    if end != "time":
        host.turn(10)
        assert len(taken) == 2 and not server.has_pending_connections
        assert server.next_pending_secure_connection() is None and server.next_pending_connection() is None
    if end == "success":
        silent[0].start_client_encryption()
    elif end == "the client's end":
        silent[0].disconnect()
    elif end == "abort":
        taken[0].socket.abort()
    host.wait_for(lambda: client.encrypted)
    host.wait_for(lambda: any(one.socket.encrypted for one in taken[2:]))
    server.close()
    for one in (client, *silent, *(one.socket for one in taken)):
        one.abort()


def test_a_connection_that_is_taken_as_it_is_takes_no_place(host, certificates):
    server = shaking_server(certificates, 1)
    peers = [connected(server) for _ in range(3)]
    taken = []
    while len(taken) < 3:
        host.wait_for(lambda: server.has_pending_connections)
        taken.append(server.next_pending_connection())
    server.close()
    for end in (*taken, *peers):
        end.abort() if isinstance(end, SslSocket) else end.close()


def test_handshakes_that_end_after_the_server(host, certificates):
    server = shaking_server(certificates, 1)
    with connected(server):
        taken = accept(host, server)
        server.close()
    host.wait_for(lambda: taken.has("disconnected") or taken.socket.state is SslSocket.UNCONNECTED_STATE)


@pytest.mark.parametrize("wrong, error", [(-1, ValueError), (1.5, TypeError), (True, TypeError), ("1", TypeError)])
def test_what_is_no_bound(own_host, wrong, error):
    server = SslServer()
    with pytest.raises(error):
        server.max_handshakes = wrong
    assert server.max_handshakes == 0
