"""TcpServer and SslServer: listening, taking connections, the bound on what is pending, and errors."""

from __future__ import annotations

import errno
import gc
import os
import resource
import socket
import weakref

import pytest

from peers import Recorder, accept, end_lookups, listening, secure_server
from sslsock import (
    SocketError,
    SslConfiguration,
    SslMode,
    SslServer,
    SslSocket,
    TcpServer,
    TcpSocket,
)


def connected(count, port, address="127.0.0.1"):
    return [socket.create_connection((address, port)) for _ in range(count)]


def close_all(peers):
    for peer in peers:
        peer.close()


def test_a_new_server_does_not_listen(own_host):
    server = TcpServer()
    assert (server.listening, server.port, server.address) == (False, 0, "")
    assert server.max_pending_connections == 30
    assert not server.has_pending_connections
    assert server.next_pending_connection() is None
    assert server.error is None
    assert server.error_string == ""
    server.close()


@pytest.mark.parametrize(
    ("address", "reachable"),
    [
        ("", ["127.0.0.1", "::1"]),
        ("127.0.0.1", ["127.0.0.1"]),
        ("0.0.0.0", ["127.0.0.1"]),
        ("::1", ["::1"]),
        ("[::1]", ["::1"]),
        ("::", ["::1"]),
    ],
)
def test_listening_on_an_address(host, address, reachable):
    server = TcpServer()
    assert server.listen(0, address), server.error_string
    assert server.listening
    assert server.port > 0
    for where in reachable:
        peers = connected(1, server.port, where)
        recorder = accept(host, server)
        assert recorder.socket.remote_address == where
        assert recorder.socket.remote_port == peers[0].getsockname()[1]
        assert recorder.socket.state is TcpSocket.CONNECTED_STATE
        close_all(peers)
    server.close()
    assert (server.listening, server.port) == (False, 0)


def test_without_ipv6_every_address_means_every_ipv4_address(host, monkeypatch):
    make = socket.socket

    def without_ipv6(family=-1, *arguments, **options):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return make(family, *arguments, **options)

    monkeypatch.setattr("sslsock.sockets.tcp_server.socket.socket", without_ipv6)
    server = listening(TcpServer(), "")
    assert server.address == "0.0.0.0"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((-1,), ValueError),
        ((65536,), ValueError),
        (("80",), TypeError),
        ((0, None), TypeError),
        ((0, b"::"), TypeError),
    ],
)
def test_wrong_arguments_raise(own_host, arguments, error):
    with pytest.raises(error):
        TcpServer().listen(*arguments)


@pytest.mark.parametrize("address", ["localhost", "1.2.3", "nonsense", "::1%nosuchinterface", "192.0.2.1"])
def test_an_address_that_cannot_be_listened_on(own_host, address):
    server = TcpServer()
    assert not server.listen(0, address)
    assert address.partition("%")[0] in server.error_string
    assert server.error is SocketError.NETWORK_ERROR
    assert not server.listening


def test_a_port_in_use(own_host):
    first = listening(TcpServer())
    second = TcpServer()
    assert not second.listen(first.port, "127.0.0.1")
    assert second.error is TcpServer.ADDRESS_IN_USE_ERROR
    assert f"127.0.0.1 port {first.port}" in second.error_string
    first.close()
    assert not second.listening
    assert second.listen(0, "127.0.0.1")
    assert second.error_string == ""


def test_a_server_listens_once(own_host):
    server = listening(TcpServer())
    port = server.port
    assert not server.listen(0, "127.0.0.1")
    assert server.error is TcpServer.OPERATION_ERROR
    assert server.port == port


def test_servers_can_share_a_port(own_host):
    first, second = TcpServer(), TcpServer()
    first.reuse_port = second.reuse_port = True
    listening(first)
    assert second.listen(first.port, "127.0.0.1"), second.error_string


def test_new_connections_are_told_and_taken_in_order(host):
    server = listening(TcpServer())
    told = []
    server.new_connection_handler = lambda s: told.append(s.has_pending_connections)
    peers = connected(3, server.port)
    host.wait_for(lambda: told)
    taken = []
    while len(taken) < 3:
        host.wait_for(lambda: server.has_pending_connections)
        taken.append(server.next_pending_connection())
    assert [sock.remote_port for sock in taken] == [peer.getsockname()[1] for peer in peers]
    assert server.next_pending_connection() is None
    assert all(told)
    close_all(peers)


def test_at_the_bound_the_server_stops_accepting_until_one_is_taken(host):
    server = TcpServer()
    server.max_pending_connections = 2
    listening(server)
    told = []
    server.new_connection_handler = lambda s: told.append(1)
    peers = connected(5, server.port)
    host.wait_for(lambda: told)
    host.turn(10)
    assert server._listener.pending == 2
    taken = [server.next_pending_connection()]
    host.wait_for(lambda: server._listener.pending == 2)
    for _ in range(4):
        host.wait_for(lambda: server.has_pending_connections)
        taken.append(server.next_pending_connection())
    assert None not in taken
    server.max_pending_connections = 5
    assert server.max_pending_connections == 5
    for wrong, error in ((0, ValueError), ("5", TypeError)):
        with pytest.raises(error):
            server.max_pending_connections = wrong
    close_all(peers)


def test_pausing_and_resuming(host):
    server = listening(TcpServer())
    server.pause_accepting()
    peers = connected(2, server.port)
    host.turn(10)
    assert not server.has_pending_connections
    server.resume_accepting()
    host.wait_for(lambda: server._listener.pending == 2)
    close_all(peers)


def test_closing_ends_what_nobody_took_and_nothing_else(host):
    server = listening(TcpServer())
    taken_peer, waiting_peer = connected(2, server.port)
    host.wait_for(lambda: server._listener.pending == 2)
    recorder = Recorder(server.next_pending_connection())
    server.close()
    assert not server.has_pending_connections
    waiting_peer.settimeout(5)
    assert waiting_peer.recv(1) == b""
    taken_peer.sendall(b"still there")
    host.wait_for(lambda: recorder.data == b"still there")
    recorder.socket.abort()
    close_all([taken_peer, waiting_peer])
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port or 1))


def test_a_server_listens_again_after_closing(host):
    server = listening(TcpServer())
    port = server.port
    peers = connected(1, port)
    recorder = accept(host, server)
    server.close()
    assert server.listen(port, "127.0.0.1"), server.error_string
    recorder.socket.abort()
    close_all(peers)


def test_a_listening_server_lives_without_the_programs_reference(host):
    server = listening(TcpServer())
    port = server.port
    told = []
    server.new_connection_handler = lambda s: (told.append(s.next_pending_connection()), s.close())
    ended = weakref.ref(server)
    del server
    gc.collect()
    peers = connected(1, port)
    host.wait_for(lambda: told)
    host.turn()
    gc.collect()
    assert ended() is None
    close_all(peers)


def test_running_out_of_descriptors_is_told_and_passes(own_host):
    server = listening(TcpServer())
    errors = []
    server.accept_error_handler = lambda s, error: errors.append((error, s.error, s.error_string))
    end_lookups()  # one that nobody waits for could give a descriptor back
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    peers = connected(1, server.port)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (peers[0].fileno() + 1, hard))
        own_host.wait_for(lambda: errors)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert errors[0][:2] == (SocketError.SOCKET_RESOURCE_ERROR, SocketError.SOCKET_RESOURCE_ERROR)
    assert os.strerror(errno.EMFILE) in errors[0][2]
    own_host.wait_for(lambda: server.has_pending_connections)
    close_all(peers)


def test_a_handler_that_raises_does_not_stop_the_server(host):
    server = listening(TcpServer())
    server.new_connection_handler = lambda s: (s.next_pending_connection().abort(), 1 / 0)
    for _ in range(2):
        peers = connected(1, server.port)
        host.wait_for(lambda: host.failures)
        assert isinstance(host.take_failures()[0], ZeroDivisionError)
        close_all(peers)


def test_a_derived_server_makes_its_own_sockets(host):
    class Session(TcpSocket):
        pass

    class Server(TcpServer):
        def _make_socket(self, fd):
            return self._adopted(Session(), fd)

    server = listening(Server())
    peers = connected(1, server.port)
    recorder = accept(host, server)
    assert type(recorder.socket) is Session
    close_all(peers)


def test_a_peer_that_is_gone_before_it_is_taken(host):
    server = listening(TcpServer())
    for peer in connected(3, server.port):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
    host.wait_for(lambda: server._listener.pending == 3)
    for _ in range(3):
        recorder = Recorder(server.next_pending_connection())
        host.wait_for(lambda recorder=recorder: recorder.has("disconnected"))
        assert recorder.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]


# SslServer


def test_a_secure_connection_shakes_hands_by_itself(host, certificates):
    server = secure_server(certificates)
    assert server.next_pending_secure_connection() is None
    client = SslSocket()
    client.configuration = certificates.client()
    client.connect_encrypted("localhost", server.port)
    recorder = accept(host, server)
    assert type(recorder.socket) is SslSocket
    assert recorder.socket.mode is SslMode.SSL_SERVER_MODE
    assert not recorder.socket.encrypted
    assert recorder.socket.handshake_timeout == server.handshake_timeout == 10
    host.wait_for(lambda: recorder.socket.encrypted and client.encrypted)
    client.abort()


def test_a_plain_connection_can_be_encrypted_later(host, certificates):
    server = secure_server(certificates)
    peers = connected(1, server.port)
    host.wait_for(lambda: server.has_pending_connections)
    sock = server.next_pending_connection()
    assert type(sock) is SslSocket
    assert sock.mode is SslMode.UNENCRYPTED_MODE
    assert sock.configuration is server.configuration
    recorder = Recorder(sock)
    peers[0].sendall(b"plain")
    host.wait_for(lambda: recorder.data == b"plain")
    sock.start_server_encryption()
    assert sock.mode is SslMode.SSL_SERVER_MODE
    sock.abort()
    close_all(peers)


def test_a_servers_configuration_counts_when_the_connection_is_taken(host, certificates):
    server = SslServer()
    server.configuration = certificates.server("first.example")
    listening(server)
    for name in ("first.example", "second.example"):
        client = SslSocket()
        client.configuration = certificates.client()
        client.peer_verify_name = name
        client.connect_encrypted("127.0.0.1", server.port)
        recorder = accept(host, server)
        host.wait_for(lambda client=client, recorder=recorder: client.encrypted and recorder.socket.encrypted)
        server.configuration = certificates.server("second.example")
        client.abort()


def test_a_configuration_has_to_be_one(own_host):
    server = SslServer()
    assert server.configuration == SslConfiguration()
    with pytest.raises(TypeError):
        server.configuration = {}


def test_many_connections_at_once(host, certificates):
    server = SslServer()
    server.configuration = certificates.server()
    server.max_pending_connections = 7
    listening(server)
    peers = []

    def new(s):
        while (sock := s.next_pending_secure_connection()) is not None:
            sock.ready_read_handler = lambda p: p.write(p.read_all())
            peers.append(sock)

    server.new_connection_handler = new
    configuration = certificates.client()
    recorders = []
    for number in range(50):
        client = SslSocket()
        client.configuration = configuration
        recorders.append(Recorder(client))
        client.connect_encrypted("localhost", server.port)
        client.write(b"%d" % number)
    host.wait_for(lambda: all(r.data == b"%d" % n for n, r in enumerate(recorders)))
    for recorder in recorders:
        recorder.socket.disconnect()
    host.wait_for(lambda: all(sock.state is SslSocket.UNCONNECTED_STATE for sock in peers))
    assert len(peers) == 50
