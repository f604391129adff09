"""An error that no handler takes is logged: one line, with the peer and the reason."""

from __future__ import annotations

import logging
import socket

import pytest

from peers import accept, listening, make_ssl_pair, make_tcp_pair, plain_listener, refused_port, reset, secure_server
from sslsock import SocketError, SocketState, SslConfiguration, SslServer, SslSocket, TcpServer, TcpSocket
from sslsock.sockets.error_log import log_error

UNCONNECTED = SocketState.UNCONNECTED_STATE


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.DEBUG, "sslsock")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "sslsock"]


def wait_for_end(host, sock):
    host.wait_for(lambda: sock.state is UNCONNECTED, sock)


def test_a_refused_connection(host, log):
    sock = TcpSocket()
    with refused_port() as port:
        sock.connect("127.0.0.1", port)
        wait_for_end(host, sock)
    host.turn()
    [(level, text)] = log()
    assert level == "WARNING"
    assert text == f"CONNECTION_REFUSED_ERROR: no connection to 127.0.0.1 port {port}: Connection refused (127.0.0.1)"


def test_a_host_that_is_not_there(host, log):
    sock = TcpSocket()
    sock.connect("a..b", 1)
    host.wait_for(log)
    [(level, text)] = log()
    assert level == "WARNING"
    assert text.startswith("HOST_NOT_FOUND_ERROR: ")
    assert "a..b" in text


def test_a_certificate_that_is_not_trusted_says_so_to_both(host, log, certificates):
    server = secure_server(certificates)
    client = SslSocket()
    client.configuration.use_system_ca = False
    client.connect_encrypted("localhost", server.port)
    taken = accept(host, server).socket
    taken.error_handler = None
    wait_for_end(host, client)
    wait_for_end(host, taken)
    lines = dict(log())
    assert set(lines) == {"WARNING", "INFO"}  # the server's is what a stranger has tried
    assert lines["WARNING"].startswith(f"SSL_HANDSHAKE_FAILED_ERROR: localhost port {server.port}: ")
    assert "certificate" in lines["WARNING"]
    assert lines["INFO"].startswith("SSL_HANDSHAKE_FAILED_ERROR: 127.0.0.1 port ")
    server.close()


def test_a_client_that_does_not_speak_tls(host, log, certificates):
    server = secure_server(certificates)
    with socket.create_connection(("127.0.0.1", server.port)) as peer:
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
        taken = accept(host, server).socket
        taken.error_handler = None
        wait_for_end(host, taken)
        assert [level for level, _ in log()] == ["INFO"]
        assert f"port {peer.getsockname()[1]}: " in log()[0][1]
    server.close()


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_peer_that_closes_in_good_order_is_no_error(host, log, certificates, encrypted):
    pair = make_ssl_pair(host, certificates.client(), certificates.server()) if encrypted else make_tcp_pair(host)
    pair.client.error_handler = None
    pair.server.disconnect()
    wait_for_end(host, pair.client)
    assert [level for level, _ in log()] == ["DEBUG"]
    assert "the peer closed the connection" in log()[0][1]


def test_a_stream_that_was_cut_is_one(host, log, certificates):
    pair = make_ssl_pair(host, certificates.client(), certificates.server())
    pair.client.error_handler = None
    name = socket.socket(fileno=pair.server._channel.fileno())
    name.shutdown(socket.SHUT_WR)  # beneath TLS
    name.detach()
    wait_for_end(host, pair.client)
    [(level, text)] = log()
    assert level == "WARNING"
    assert "without close_notify" in text
    pair.server.abort()


def test_a_reset_is_one(host, log):
    with plain_listener() as listener:
        sock = TcpSocket()
        sock.connect("127.0.0.1", listener.getsockname()[1])
        host.wait_for(lambda: sock.state is SocketState.CONNECTED_STATE)
        reset(listener.accept()[0])
    wait_for_end(host, sock)
    assert [level for level, _ in log()] == ["WARNING"]


def test_a_handler_takes_it_whether_assigned_or_a_method(host, log):
    told = []

    class Client(TcpSocket):
        def error_handler(self, error):
            told.append(error)

    plain = TcpSocket()
    plain.error_handler = lambda s, error: told.append(error)
    with refused_port() as port:
        for sock in (Client(), plain):
            sock.connect("127.0.0.1", port)
        host.wait_for(lambda: len(told) == 2)
    assert log() == []


def test_the_same_refused_call_is_logged_once(host, log):
    sock = TcpSocket()
    for _ in range(5):
        assert sock.write(b"x") == -1
    assert log() == [("WARNING", "OPERATION_ERROR: write() while the socket is not connected")]


def test_a_line_stays_a_line(log):
    log_error(logging.WARNING, SocketError.NETWORK_ERROR, "a\nb\x1b[2Jc\u2028d é")
    assert log() == [("WARNING", "NETWORK_ERROR: a\\nb\\x1b[2Jc\\u2028d é")]


def test_accepting_that_fails_is_logged_once_until_it_works_again(own_host, log):
    server = listening(TcpServer())
    for _ in range(3):
        server._on_accept_error(24)
    assert [level for level, _ in log()] == ["WARNING"]
    assert f"a connection to port {server.port} was not accepted: Too many open files" in log()[0][1]
    server._on_pending()
    server._on_accept_error(24)
    assert len(log()) == 2
    server.accept_error_handler = lambda s, error: None
    server._on_accept_error(24)
    assert len(log()) == 2
    server.close()


# A server whose configuration cannot be used


def unusable(certificates, case):
    configuration = certificates.server()
    if case == "no certificate":
        return SslConfiguration()
    if case == "no key":
        configuration.private_key = None
    elif case == "other key":
        configuration.private_key = certificates.with_identity(certificates.ca.issue_cert("x.example")).private_key
    elif case == "unknown cipher":
        configuration.ciphers = "NO-SUCH-CIPHER"
    elif case == "protocols that contradict":
        configuration.minimum_protocol, configuration.maximum_protocol = SslConfiguration.TLS_1_3, SslConfiguration.TLS_1_2
    return configuration


@pytest.mark.parametrize("case", ["no certificate", "no key", "other key", "unknown cipher", "protocols that contradict"])
def test_listen_refuses_what_no_client_could_be_served_with(host, log, certificates, case):
    server = SslServer()
    server.configuration = unusable(certificates, case)
    assert server.listen(0, "127.0.0.1") is False
    assert server.error is SocketError.SSL_INVALID_USERDATA_ERROR
    assert server.error_string
    assert not server.listening
    assert server.port == 0
    server.configuration = certificates.server()
    listening(server)
    assert server.error is None
    assert server.error_string == ""
    server.close()


def test_a_handler_may_choose_another_configuration(host, certificates):
    server = SslServer()
    server.configuration = SslConfiguration()
    server.client_hello_handler = lambda s, hello: setattr(s, "configuration", certificates.server())
    listening(server, "")
    client = SslSocket()
    client.configuration = certificates.client()
    client.connect_encrypted("localhost", server.port)
    taken = accept(host, server).socket
    host.wait_for(lambda: client.encrypted and taken.encrypted)
    client.abort()
    taken.abort()
    server.configuration = unusable(certificates, "other key")
    server.close()
    assert not server.listen(0)  # what is there is looked at all the same


def test_a_server_that_was_given_no_configuration_says_so_at_each_connection(host, log, certificates):
    """It may be one for STARTTLS, whose sockets are given their own."""
    server = listening(SslServer())
    client = SslSocket()
    client.configuration = certificates.client()
    client.error_handler = lambda s, error: None
    client.connect_encrypted("127.0.0.1", server.port)
    taken = accept(host, server).socket
    taken.error_handler = None
    wait_for_end(host, taken)
    [(level, text)] = log()
    assert level == "WARNING"
    assert "certificate" in text
    wait_for_end(host, client)
    server.close()
