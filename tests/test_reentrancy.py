"""Calls inside handlers, where the state decides what they do: each does what its document says for that state."""

from __future__ import annotations

import warnings

import pytest

from peers import Recorder, listening, make_ssl_pair, make_tcp_pair, plain_listener, refused_port, reset, stuck_port
from sslsock import SocketError, SocketState, SslMode, SslSocket, TcpServer, TcpSocket

UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND, CLOSING = SocketState


# An attempt that has failed


@pytest.fixture
def good(host):
    """A server that accepts."""
    server = listening(TcpServer())
    taken = []
    server.new_connection_handler = lambda s: taken.append(s.next_pending_connection())
    yield server
    server.close()
    for sock in taken:
        sock.abort()


def failing(case, sock):
    """A port that there is no connection to."""
    if case == "no answer":
        sock.connect_timeout = 0.01
        return stuck_port()
    return refused_port()


CASES = {
    "refused": ("127.0.0.1", SocketError.CONNECTION_REFUSED_ERROR),
    "no answer": ("127.0.0.1", SocketError.CONNECTION_REFUSED_ERROR),
    "not a name": ("a..b", SocketError.HOST_NOT_FOUND_ERROR),
    "not found": ("no-such-name.invalid", None),
}


@pytest.mark.parametrize("kind", [TcpSocket, SslSocket])
@pytest.mark.parametrize("handler", ["error_handler", "state_changed_handler"])
@pytest.mark.parametrize("case", CASES)
def test_the_next_server_is_tried_in_the_handler_that_tells_of_the_first(host, good, case, handler, kind):
    name, expected = CASES[case]
    sock = kind()
    states, errors, seen = [], [], []

    def state_changed(s, state):
        states.append(state)
        if handler == "state_changed_handler" and state is UNCONNECTED and not seen:
            seen.append(s.error)
            s.connect("127.0.0.1", good.port)

    def error(s, error):
        errors.append((error, s.state, s.error, bool(s.error_string)))
        if handler == "error_handler" and not seen:
            seen.append(error)
            s.connect("127.0.0.1", good.port)

    sock.state_changed_handler = state_changed
    sock.error_handler = error
    sock.disconnected_handler = lambda s: errors.append("disconnected")
    with failing(case, sock) as port:
        sock.connect(name, port)
        host.wait_for(lambda: sock.state is CONNECTED, (states, errors))
    assert len(seen) == 1
    assert expected is None or seen == [expected]
    if handler == "error_handler":
        assert errors == [(seen[0], UNCONNECTED, seen[0], True)]
    else:
        assert errors == []  # what belongs to the attempt before is not told to the next one
    assert states[states.index(UNCONNECTED) :] == [UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED]
    assert sock.error is None
    assert sock.error_string == ""
    sock.abort()


def test_a_list_of_servers_is_tried_to_its_end(host, good):
    sock = TcpSocket()
    tried = []
    with refused_port() as first, refused_port() as second:
        ports = [first, second, good.port]

        def next_server(s, *error):
            tried.append(ports[0])
            s.connect("127.0.0.1", ports.pop(0))

        sock.error_handler = next_server
        next_server(sock)
        host.wait_for(lambda: sock.state is CONNECTED, tried)
    assert len(tried) == 3
    sock.abort()


@pytest.mark.parametrize("call", ["bind", "close", "abort", "disconnect", "open", "write"])
def test_other_calls_in_the_handler_of_a_failed_attempt(host, call):
    sock = TcpSocket()
    results = []

    def act(s, error):
        if not results:
            results.append(s.state)
            arguments = {"bind": (0,), "open": (3,), "write": (b"x",)}.get(call, ())
            results.append(getattr(s, call)(*arguments))

    sock.error_handler = act
    with refused_port() as port:
        sock.connect("127.0.0.1", port)
        host.wait_for(lambda: results)
    assert results == [UNCONNECTED, {"bind": True, "open": False, "write": -1}.get(call)]
    assert sock.state is (BOUND if call == "bind" else UNCONNECTED)
    sock.abort()


# The end


def note_ends(sock, calls):
    sock.disconnected_handler = lambda s: calls.append("disconnected")
    sock.mode_changed_handler = lambda s, mode: calls.append(mode)


@pytest.mark.parametrize("size", [10, 300_000, 1 << 23])
def test_calls_in_bytes_written_handler_while_closing(host, size):
    """It may be called inside `disconnect` itself, when all has gone out at once."""
    pair = make_tcp_pair(host, SslSocket)
    sock, calls = pair.client, []
    note_ends(sock, calls)

    def written(s, count):
        calls.append(("written", s.state))
        with pytest.warns(RuntimeWarning, match="not connected"):
            s.start_client_encryption()
        assert s.write(b"more") == -1
        assert s.error is SocketError.OPERATION_ERROR
        s.disconnect()
        assert s.state is CLOSING
        assert s.mode is SslMode.UNENCRYPTED_MODE

    sock.bytes_written_handler = written
    sock.write(bytes(size))
    sock.disconnect()
    host.wait_for(lambda: "disconnected" in calls, calls)
    assert calls[-1] == "disconnected"
    assert set(calls[:-1]) == {("written", CLOSING)}
    assert sock.state is UNCONNECTED
    host.wait_for(lambda: pair.right.has("disconnected"))
    assert len(pair.right.data) == size


@pytest.mark.parametrize("call", ["disconnect", "close", "abort"])
@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("size", [10, 1 << 22])
def test_the_connection_ends_in_bytes_written_handler(host, certificates, call, encrypted, size):
    pair = make_ssl_pair(host, certificates.client(), certificates.server()) if encrypted else make_tcp_pair(host)
    sock, calls = pair.client, []

    def written(s, count):
        calls.append((s.state, s.write(b"") if s.state is CONNECTED else None))
        getattr(s, call)()
        calls.append(s.state)

    sock.bytes_written_handler = written
    sock.write(bytes(size))
    host.wait_for(lambda: pair.left.has("disconnected") and pair.right.has("disconnected"), calls)
    assert calls[0] == (CONNECTED, 0)
    assert calls[1] is UNCONNECTED or (call != "abort" and calls[1] is CLOSING)
    assert len(pair.right.data) == size or call == "abort"
    assert pair.left.names().count("disconnected") == 1


def test_abort_and_connect_in_bytes_written_handler_inside_disconnect(host, good):
    """The end of the old connection is not told to the new one."""
    pair = make_tcp_pair(host)
    sock, calls = pair.client, []

    def written(s, count):
        s.bytes_written_handler = None
        s.abort()
        s.connect("127.0.0.1", good.port)
        calls.append(s.state)

    sock.bytes_written_handler = written
    sock.write(bytes(300_000))
    sock.disconnect()
    assert calls == [HOST_LOOKUP]
    host.wait_for(lambda: sock.state is CONNECTED, pair.left.events)
    assert sock.write(b"x") == 1
    sock.abort()
    pair.server.abort()


@pytest.mark.parametrize("call", ["disconnect", "close", "abort"])
def test_the_connection_ends_in_the_handler_of_the_mode_that_disconnect_changes(host, certificates, call):
    """What waits to be encrypted makes `disconnect` start the handshake."""
    with plain_listener() as listener:
        sock = SslSocket()
        sock.configuration = certificates.client()
        recorder = Recorder(sock)
        raised = []

        def connected(s):
            s.write(b"last words")
            try:
                s.disconnect()
            except BaseException as exc:
                raised.append(exc)

        def mode_changed(s, mode):
            if mode is SslMode.SSL_CLIENT_MODE:
                getattr(s, call)()

        sock.connected_handler = connected
        sock.mode_changed_handler = mode_changed
        sock.connect_encrypted("127.0.0.1", listener.getsockname()[1])
        host.wait_for(lambda: recorder.has("state") and recorder.of("state")[-1] in (CLOSING, UNCONNECTED), recorder.events)
        assert raised == []
        if call == "abort":
            assert sock.state is UNCONNECTED
            assert recorder.names().count("disconnected") == 1
        else:
            assert sock.state is CLOSING  # the handshake is under way, and what was written waits for it
        sock.abort()
        assert recorder.names().count("disconnected") == 1


@pytest.mark.parametrize("role", ["client", "server"])
def test_encryption_that_starts_in_bytes_written_handler(host, certificates, role):
    """While the socket is CONNECTED, it starts."""
    pair = make_tcp_pair(host, SslSocket)
    pair.client.configuration = certificates.client()
    pair.server.configuration = certificates.server()
    pair.client.peer_verify_name = "localhost"
    first, second = (pair.client, pair.server) if role == "client" else (pair.server, pair.client)
    started = []

    def written(s, count):
        if not started:
            started.append(getattr(s, f"start_{role}_encryption")())

    def ready(s):
        if s.mode is SslMode.UNENCRYPTED_MODE:
            assert s.read_all() == b"STARTTLS\r\n"
            s.start_server_encryption() if role == "client" else s.start_client_encryption()

    first.bytes_written_handler = written
    second.ready_read_handler = ready
    first.write(b"STARTTLS\r\n")
    host.wait_for(lambda: pair.client.encrypted and pair.server.encrypted, (pair.left.events, pair.right.events))
    pair.client.abort()
    pair.server.abort()


# A failure of a connection that stands


CALLS = ["start_client_encryption", "start_server_encryption", "write", "open", "connect", "disconnect", "close", "abort"]


@pytest.mark.parametrize("call", CALLS)
def test_calls_in_error_handler_of_a_connection_that_was_reset(host, call):
    with plain_listener() as listener:
        sock = SslSocket()
        recorder = Recorder(sock)
        sock.connect("127.0.0.1", listener.getsockname()[1])
        host.wait_for(lambda: recorder.has("connected"))
        peer = listener.accept()[0]
    results = []

    def act(s, error):
        if results:
            return
        results.append((error, s.state))
        arguments = {"open": (3,), "write": (b"x",), "connect": ("127.0.0.1", 1)}.get(call, ())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results.append(getattr(s, call)(*arguments))
        results.append([warning.category for warning in caught])

    sock.error_handler = act
    reset(peer)
    host.wait_for(lambda: recorder.has("disconnected"), recorder.events)
    assert results[0] == (SocketError.REMOTE_HOST_CLOSED_ERROR, CONNECTED)
    assert results[1] == {"write": -1, "open": False}.get(call)
    assert results[2] == ([RuntimeWarning] if call.startswith("start") else [])
    assert recorder.names().count("disconnected") == 1
    assert sock.state is UNCONNECTED


def test_a_socket_that_is_opened_in_error_handler_writes_to_nobody(host):
    """Its channel has failed; the state is told as CONNECTED until the end."""
    with plain_listener() as listener:
        sock = TcpSocket()
        sock.connect("127.0.0.1", listener.getsockname()[1], TcpSocket.NOT_OPEN_MODE)
        host.wait_for(lambda: sock.state is CONNECTED)
        peer = listener.accept()[0]
    results = []
    sock.error_handler = lambda s, error: (
        results.append((s.open(TcpSocket.READ_WRITE_MODE), s.write(b"x"))) if not results else None
    )
    reset(peer)
    host.wait_for(lambda: sock.state is UNCONNECTED)
    assert results == [(True, -1)]
