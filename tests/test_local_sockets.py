"""UNIX sockets: servers at a path, clients of it, the file's life; and descriptors that are taken over."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from peers import Certificates, Recorder, accept, error_of, wait_for_end
from sslsock import SocketError, SocketState, SslConfiguration, SslMode, SslServer, SslSocket, TcpServer, TcpSocket

LINUX = sys.platform.startswith("linux")
ABSTRACT = pytest.mark.skipif(not LINUX, reason="only Linux has an abstract namespace")


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Short: a path of a socket has 107 bytes at the most."""
    monkeypatch.chdir(tmp_path)
    return "server.sock"


def listening_at(path, server=None, **keywords):
    server = server or TcpServer()
    assert server.listen_local(path, **keywords), server.error_string
    return server


def abandoned(path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
        left.listen()
    assert os.path.exists(path)


def exchange(host, server, client):
    """Both directions, and an end in good order."""
    left = Recorder(client)
    right = accept(host, server)
    host.wait_for(lambda: client.state is SocketState.CONNECTED_STATE, left.events)
    client.write(b"to the server")
    right.socket.write(b"to the client")
    host.wait_for(lambda: left.data == b"to the client" and right.data == b"to the server", (left.events, right.events))
    client.disconnect()
    wait_for_end(host, left)
    wait_for_end(host, right)
    return left, right


@pytest.mark.parametrize("name", ["server.sock", pytest.param("@sslsock-{}", marks=ABSTRACT), Path("server.sock")])
def test_a_client_of_a_path(host, path, name):
    if isinstance(name, str):
        name = name.format(os.getpid())
    server = listening_at(name)
    shown = str(name)
    assert (server.address, server.port, server.listening) == (shown, 0, True)
    assert repr(server) == f"<TcpServer listening on {shown}>"
    client = TcpSocket()
    client.connect_local(name)
    host.wait_for(lambda: client.state is SocketState.CONNECTED_STATE)
    assert (client.remote_address, client.remote_port, client.local_address) == (shown, 0, "")
    assert repr(client) == f"<TcpSocket CONNECTED_STATE {shown}>"
    exchange(host, server, client)
    server.close()
    assert not os.path.exists(path)


def test_what_the_server_sees_of_a_client_without_a_name(host, path):
    server = listening_at(path)
    client = TcpSocket()
    client.connect_local(path)
    right = accept(host, server)
    assert (right.socket.remote_address, right.socket.remote_port, right.socket.local_address) == ("", 0, path)
    client.abort()
    wait_for_end(host, right)
    server.close()


def test_tls(host, path, certificates: Certificates):
    server = SslServer()
    server.configuration = certificates.server()
    listening_at(path, server)
    client = SslSocket()
    client.configuration = certificates.client()
    client.peer_verify_name = "localhost"
    left = Recorder(client)
    client.connect_local_encrypted(path)
    client.write(b"early")
    right = accept(host, server)
    host.wait_for(lambda: right.data == b"early", (left.events, right.events))
    assert client.encrypted and client.mode is SslMode.SSL_CLIENT_MODE
    client.disconnect()
    wait_for_end(host, right)
    server.close()


def test_tls_verifies_a_name_that_is_set_and_never_the_path(host, path, certificates: Certificates):
    server = SslServer()
    server.configuration = certificates.server()
    listening_at(path, server)
    client = SslSocket()
    client.configuration = certificates.client()
    left = Recorder(client, reads=False)
    client.connect_local_encrypted(path)
    host.wait_for(lambda: left.has("error"), left.events)
    assert "peer_verify_name" in client.error_string
    server.close()


@pytest.mark.parametrize(
    "prepare, error, words",
    [
        (lambda path: None, SocketError.HOST_NOT_FOUND_ERROR, "no connection to server.sock: No such file or directory"),
        (abandoned, SocketError.CONNECTION_REFUSED_ERROR, "no connection to server.sock: Connection refused"),
        (lambda path: Path(path).write_text(""), SocketError.CONNECTION_REFUSED_ERROR, "no connection to server.sock: .*"),
    ],
    ids=["nothing", "abandoned", "a file"],
)
def test_nobody_listens(host, path, prepare, error, words):
    prepare(path)
    client = TcpSocket()
    left = Recorder(client)
    client.connect_local(path)
    host.wait_for(lambda: left.has("error"), left.events)
    assert error_of(left) is error
    assert re.fullmatch(words, client.error_string)
    assert client.state is SocketState.UNCONNECTED_STATE


@pytest.mark.skipif(not LINUX, reason="a full queue refuses there: connect(2) of macOS")
@pytest.mark.parametrize("end", ["room", "deadline", "abort"])
def test_a_server_whose_queue_is_full_is_asked_again(host, path, end):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        filler = socket.socket(socket.AF_UNIX)
        filler.connect(path)
        client = TcpSocket()
        if end == "deadline":
            client.connect_timeout = 0.05
        left = Recorder(client)
        client.connect_local(path)
        host.turn()
        if end == "room":
            assert client.state is SocketState.CONNECTING_STATE
            listener.accept()[0].close()
            host.wait_for(lambda: left.has("connected"), left.events)
        elif end == "deadline":
            host.wait_for(lambda: left.has("error"), left.events)
            assert error_of(left) is SocketError.CONNECTION_REFUSED_ERROR
        client.abort()
        filler.close()


@pytest.mark.parametrize(
    "bad, words",
    [
        ("", "no name"),
        ("a\0b", "NUL"),
        pytest.param("@", "no name", marks=ABSTRACT),
        ("x" * 108, "107 bytes at the most|103 bytes at the most"),
    ],
)
def test_what_is_no_path(host, bad, words):
    for call in (TcpSocket().connect_local, TcpServer().listen_local):
        with pytest.raises(ValueError, match=words):
            call(bad)
        with pytest.raises(TypeError):
            call(b"bytes")


def test_an_abandoned_socket_is_replaced(host, path):
    abandoned(path)
    server = listening_at(path)
    client = TcpSocket()
    client.connect_local(path)
    exchange(host, server, client)
    server.close()


@pytest.mark.parametrize("full", [False, True])
def test_a_live_socket_is_refused(host, path, full):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen(0)
        if full:
            filler = socket.socket(socket.AF_UNIX)
            filler.connect(path)
        server = TcpServer()
        assert not server.listen_local(path)
        assert server.error is SocketError.ADDRESS_IN_USE_ERROR
        assert server.error_string == "cannot listen on server.sock: another program listens there"
        assert os.path.exists(path)
        if full:
            filler.close()


def test_a_file_that_is_no_socket_stays(host, path):
    Path(path).write_text("precious")
    server = TcpServer()
    assert not server.listen_local(path)
    assert server.error_string == "cannot listen on server.sock: there is a file which is no socket"
    assert Path(path).read_text() == "precious"


@ABSTRACT
def test_an_abstract_name_that_is_taken(host):
    name = f"@sslsock-taken-{os.getpid()}"
    first, second = listening_at(name), TcpServer()
    assert not second.listen_local(name)
    assert second.error is SocketError.ADDRESS_IN_USE_ERROR
    first.close()
    listening_at(name, second).close()


def test_mode(host, path):
    server = listening_at(path, mode=0o620)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o620
    server.close()
    for bad in (-1, 0o1000):
        with pytest.raises(ValueError, match="mode"):
            server.listen_local(path, bad)


def test_a_file_that_somebody_else_has_made_since_stays(host, path):
    server = listening_at(path)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        server.close()
        assert os.path.exists(path)


def test_the_file_is_removed_where_it_was_made(host, path, tmp_path, monkeypatch):
    server = listening_at(path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    server.close()
    assert not (tmp_path / path).exists()


def test_a_forked_child_leaves_the_file(path):
    program = f"""
import os, sslsock
server = sslsock.TcpServer()
assert server.listen_local({path!r})
child = os.fork()
if child == 0:
    server._file.remove()
    os._exit(0)
os.waitpid(child, 0)
assert os.path.exists({path!r})
server.close()
assert not os.path.exists({path!r})
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_server_that_listens_refuses_to_do_so_again(host, path):
    server = listening_at(path)
    assert not server.listen_local("other.sock") and not server.listen(0)
    assert server.error_string == "the server listens on server.sock already"
    server.close()
    server.reuse_port = True
    assert not server.listen_local(path)
    assert "reuse_port" in server.error_string


def test_only_everybody_is_trusted_at_a_path(host, path):
    server = TcpServer()
    server.trusted_proxies = True
    listening_at(path, server)
    client = TcpSocket()
    client.connect_local(path)
    client.write(b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n")
    right = accept(host, server)
    assert (right.socket.remote_address, right.socket.remote_port) == ("192.0.2.1", 1234)
    client.abort()
    wait_for_end(host, right)
    server.close()


def test_two_that_start_at_once(tmp_path, monkeypatch):
    """Both find the file abandoned. One of them gets the path, and keeps it."""
    monkeypatch.chdir(tmp_path)
    program = """
import sys, sslsock
sys.stdin.readline()
server = sslsock.TcpServer()
print(server.listen_local("server.sock"), flush=True)
sys.stdin.readline()
"""
    abandoned("server.sock")
    programs = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for one in programs:
        one.stdin.write("\n")
        one.stdin.flush()
    answers = sorted(one.stdout.readline().strip() for one in programs)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("server.sock")
    for one in programs:
        one.communicate(timeout=30)
    assert answers == ["False", "False", "False", "True"]


# Descriptors that are taken over


def tcp_ends():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return socket.create_connection(listener.getsockname()), listener.accept()[0]


def is_closed(number, inode):
    try:
        return os.fstat(number).st_ino != inode  # somebody else's by now
    except OSError:
        return True


@pytest.mark.parametrize("make", [tcp_ends, socket.socketpair], ids=["TCP", "socketpair"])
def test_a_descriptor_is_taken_over(host, make):
    ours, theirs = make()
    states = []
    sock = TcpSocket()
    recorder = Recorder(sock)
    sock.state_changed_handler = lambda sock, state: states.append(state)
    number = ours.detach()
    assert sock.set_socket_descriptor(number)
    assert sock.state is SocketState.CONNECTED_STATE
    assert not recorder.has("connected")
    assert states == [SocketState.CONNECTED_STATE]
    if theirs.family == socket.AF_INET:
        assert (sock.remote_address, sock.remote_port) == theirs.getsockname()
        assert (sock.local_address, sock.local_port) == theirs.getpeername()
    assert not os.get_blocking(number)
    theirs.sendall(b"in")
    sock.write(b"out")
    host.wait_for(lambda: recorder.data == b"in", recorder.events)
    assert theirs.recv(10) == b"out"
    watched = os.fstat(number).st_ino
    sock.disconnect()
    wait_for_end(host, recorder)
    assert theirs.recv(10) == b""
    theirs.close()
    host.wait_for(lambda: is_closed(number, watched), "the descriptor is closed")


def test_tls_over_descriptors(host, certificates: Certificates):
    one, other = socket.socketpair()
    client, server = SslSocket(), SslSocket()
    client.configuration, server.configuration = certificates.client(), certificates.server()
    client.peer_verify_name = "localhost"
    recorders = Recorder(client), Recorder(server)
    assert client.set_socket_descriptor(one.detach()) and server.set_socket_descriptor(other.detach())
    client.start_client_encryption()
    server.start_server_encryption()
    client.write(b"secret")
    host.wait_for(lambda: recorders[1].data == b"secret", [recorder.events for recorder in recorders])
    client.disconnect()
    wait_for_end(host, recorders[1])


@pytest.fixture
def wrong(tmp_path):
    """Descriptors that are no connection: by what is said of them."""
    datagrams, unconnected = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
    listener = socket.create_server(("127.0.0.1", 0))
    pipe = os.pipe()
    for one in (datagrams, unconnected, listener):
        one.setblocking(True)
    yield {
        "it is not open": (-1, 987654),
        "it is no socket": pipe,
        "it is no stream of TCP or UNIX sockets": (datagrams.fileno(),),
        "it is not connected": (unconnected.fileno(),),
        "it listens: a server is made by listen()": (listener.fileno(),),
    }
    for one in (datagrams, unconnected, listener):
        one.close()
    for number in pipe:
        os.close(number)


def test_wrong_descriptors_are_refused_and_stay_the_callers(host, wrong):
    sock = TcpSocket()
    recorder = Recorder(sock, reads=False)
    for words, numbers in wrong.items():
        for number in numbers:
            assert not sock.set_socket_descriptor(number)
            assert sock.error is SocketError.UNSUPPORTED_SOCKET_OPERATION_ERROR
            assert sock.error_string == f"descriptor {number} is refused: {words}"
            assert sock.state is SocketState.UNCONNECTED_STATE
            if 0 <= number < 900000:
                os.fstat(number)
                assert os.get_blocking(number)
    assert len(recorder.events) >= 6
    for bad in ("1", 1.0, socket.socket, None):
        with pytest.raises(TypeError):
            sock.set_socket_descriptor(bad)


def test_a_descriptor_has_one_socket(host):
    one, other = socket.socketpair()
    number = one.detach()
    first, second = TcpSocket(), TcpSocket()
    Recorder(second, reads=False)
    recorder = Recorder(first)
    assert first.set_socket_descriptor(number)
    assert not second.set_socket_descriptor(number)
    assert second.error_string == f"descriptor {number} is refused: another socket of this loop has it"
    assert not first.set_socket_descriptor(other.fileno())
    assert first.error is SocketError.OPERATION_ERROR
    other.sendall(b"still here")
    host.wait_for(lambda: recorder.data == b"still here", recorder.events)
    first.abort()
    other.close()


def test_a_socket_that_has_ended_takes_a_descriptor(host, path):
    server = listening_at(path)
    sock = TcpSocket()
    sock.connect_local(path)
    exchange(host, server, sock)
    server.close()
    one, other = socket.socketpair()
    assert sock.set_socket_descriptor(one.detach())
    assert sock.error is None and sock.remote_address == ""
    recorder = Recorder(sock)
    other.sendall(b"again")
    other.close()
    host.wait_for(lambda: recorder.data == b"again", recorder.events)


def test_a_configuration_is_checked_before_a_path_is_taken(host, path):
    server = SslServer()
    server.configuration = SslConfiguration()
    assert not server.listen_local(path)
    assert server.error is SocketError.SSL_INVALID_USERDATA_ERROR
    assert not os.path.exists(path)
