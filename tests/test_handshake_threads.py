"""SslServer.handshake_threads: handshakes in threads, and a loop that serves meanwhile.

A handshake is held up in its thread by the key log, which libssl calls in the midst.
"""

from __future__ import annotations

import threading

import pytest

from peers import DEADLINE, Recorder, accept, error_of, listening, secure_server
from sslsock import SocketError, SslServer, SslSocket, TcpSocket


class Gate:
    """A key log that holds up whatever thread comes but the one that has made it."""

    def __init__(self) -> None:
        self.own = threading.get_ident()
        self.way = threading.Event()
        self.inside = 0

    def __call__(self, line: str) -> None:
        if threading.get_ident() != self.own and not self.way.is_set():
            self.inside += 1
            self.way.wait(DEADLINE)
            self.inside -= 1


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.way.set()


def client_of(certificates, server):
    client = SslSocket()
    client.configuration = certificates.client()
    recorder = Recorder(client)
    client.peer_verify_name = "localhost"
    client.connect_encrypted("127.0.0.1", server.port)
    return recorder


def test_connections_are_served_while_a_handshake_is_in_its_thread(host, certificates, gate):
    server = secure_server(certificates)
    server.handshake_threads = 1
    first = client_of(certificates, server)
    served = accept(host, server)
    host.wait_for(lambda: first.socket.encrypted and served.socket.encrypted, "the first handshake")

    held_configuration = certificates.server()
    held_configuration.key_log = gate
    server.configuration = held_configuration
    second = client_of(certificates, server)
    held = accept(host, server)
    host.wait_for(lambda: gate.inside == 1, "the step in the thread")
    third = client_of(certificates, server)
    waiting = accept(host, server)
    for _ in range(3):
        before = len(served.data)
        first.socket.write(b"are you there?")
        host.wait_for(lambda before=before: len(served.data) == before + 14, "the data")
    assert not held.socket.encrypted
    assert not waiting.socket.encrypted
    assert held.socket.mode is SslSocket.SSL_SERVER_MODE
    assert held.socket.session_protocol is None  # and can be asked
    gate.way.set()
    host.wait_for(lambda: second.socket.encrypted and third.socket.encrypted, "the other handshakes")
    third.socket.write(b"and you?")
    host.wait_for(lambda: waiting.data == b"and you?", "the data")
    server.close()


def test_sockets_that_begin_later_keep_the_threads_of_their_server(host, certificates, gate):
    """STARTTLS."""
    server = SslServer()
    configuration = certificates.server()
    configuration.key_log = gate
    server.configuration = configuration
    server.handshake_threads = 1
    listening(server)
    client = SslSocket()
    client.configuration = certificates.client()
    client.peer_verify_name = "localhost"
    left = Recorder(client)
    client.connect("127.0.0.1", server.port)
    host.wait_for(lambda: server.has_pending_connections, "the connection")
    taken = server.next_pending_connection()
    right = Recorder(taken)
    host.wait_for(lambda: left.has("connected"), "the connection")
    taken.start_server_encryption()
    client.start_client_encryption()
    host.wait_for(lambda: gate.inside == 1, "the step in the thread")
    gate.way.set()
    host.wait_for(lambda: client.encrypted and taken.encrypted, "the handshake")
    client.write(b"now")
    host.wait_for(lambda: right.data == b"now", "the data")
    server.close()


@pytest.mark.parametrize("way", ["disconnect", "abort", "collected", "peer", "time"])
def test_an_end_while_it_is_in_its_thread(host, certificates, gate, way):
    server = SslServer()
    configuration = certificates.server()
    configuration.key_log = gate
    server.configuration = configuration
    server.handshake_threads = 1
    if way == "time":
        server.handshake_timeout = 0.2
    listening(server)
    left = client_of(certificates, server)
    right = accept(host, server)
    # The time may be over before a thread of a busy machine comes.
    host.wait_for(lambda: gate.inside == 1 or (way == "time" and right.has("disconnected")), "the step in the thread")
    if way == "disconnect":
        right.socket.disconnect()
    elif way == "abort":
        right.socket.abort()
    elif way == "peer":
        left.socket.abort()
    host_ended = right.socket
    if way == "collected":
        right.socket.abort()
        del right, host_ended
    else:
        host.wait_for(lambda: host_ended.state is TcpSocket.UNCONNECTED_STATE, "the end")
        if way == "time":
            assert error_of(right) is SocketError.SSL_HANDSHAKE_FAILED_ERROR
    if way != "peer":
        host.wait_for(lambda: left.socket.state is TcpSocket.UNCONNECTED_STATE, "the client's end")
    gate.way.set()
    server.handshake_timeout = 30
    again = client_of(certificates, server)
    next_one = accept(host, server)
    host.wait_for(lambda: again.socket.encrypted and next_one.socket.encrypted, "the next handshake")
    server.close()


def test_a_client_hello_handler_and_the_errors_of_a_client_are_the_loops(host, certificates):
    """Everything of the program's is called in its own thread."""
    threads = set()
    server = SslServer()
    server.configuration = certificates.server()
    server.handshake_threads = 2
    server.client_hello_handler = lambda sock, hello: threads.add(threading.get_ident())
    listening(server)
    left = client_of(certificates, server)
    right = accept(host, server)
    right.socket.encrypted_handler = lambda sock: threads.add(threading.get_ident())
    host.wait_for(lambda: left.socket.encrypted and right.socket.encrypted, "the handshake")
    assert threads == {threading.get_ident()}
    server.close()


def test_the_number_of_threads(own_host):
    server = SslServer()
    assert server.handshake_threads == 0
    server.handshake_threads = 4
    assert server.handshake_threads == 4
    for wrong, error in ((-1, ValueError), (257, ValueError), ("1", TypeError), (True, TypeError), (1.5, TypeError)):
        with pytest.raises(error, match="handshake_threads"):
            server.handshake_threads = wrong
    assert server.handshake_threads == 4
    server.handshake_threads = 0
    assert server.handshake_threads == 0
