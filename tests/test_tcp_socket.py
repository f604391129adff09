"""TcpSocket: connecting, closing, errors, and what it says of itself."""

from __future__ import annotations

import contextlib
import gc
import socket
import weakref

import pytest

from peers import (
    Recorder,
    listening,
    make_tcp_pair,
    plain_listener,
    refused_port,
    reset,
    silence,
    stuck_port,
    wait_for_end,
)
from sslsock import OpenMode, SocketError, SocketState, TcpServer, TcpSocket
from sslsock.sockets import connector, resolver

UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND, CLOSING = SocketState


def connect(host, sock, address, port):
    recorder = Recorder(sock)
    sock.connect(address, port)
    host.wait_for(lambda: recorder.has("connected") or recorder.has("error"), recorder.events)
    return recorder


# Connecting


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "[::1]", "localhost"])
def test_connecting_passes_through_all_states_in_order(host, address):
    server = listening(TcpServer(), "")
    sock = TcpSocket()
    recorder = Recorder(sock)
    sock.connect(address, server.port)
    assert recorder.events == [("state", HOST_LOOKUP)]
    assert sock.state is HOST_LOOKUP
    host.wait_for(lambda: recorder.has("connected"), recorder.events)
    assert recorder.events == [
        ("state", HOST_LOOKUP),
        ("host_found",),
        ("state", CONNECTING),
        ("state", CONNECTED),
        ("connected",),
    ]
    assert sock.open_mode is OpenMode.READ_WRITE_MODE
    sock.abort()


def test_addresses_and_ports_of_both_ends_agree(host):
    pair = make_tcp_pair(host)
    for one, other in ((pair.client, pair.server), (pair.server, pair.client)):
        assert one.local_address == one.remote_address == "127.0.0.1"
        assert one.local_port == other.remote_port > 0
    pair.client.disconnect()
    assert (pair.client.remote_address, pair.client.remote_port) == ("", 0)
    assert (pair.client.local_address, pair.client.local_port) == ("", 0)


def test_ipv4_through_a_dual_stack_server_shows_as_ipv4(host):
    server = listening(TcpServer(), "")
    sock = TcpSocket()
    connect(host, sock, "127.0.0.1", server.port)
    host.wait_for(lambda: server.has_pending_connections)
    taken = server.next_pending_connection()
    assert (taken.remote_address, taken.local_address) == ("127.0.0.1", "127.0.0.1")
    sock.abort()


def test_data_written_before_the_connection_stands_is_sent(host):
    server = listening(TcpServer())
    sock = TcpSocket()
    sock.connect("localhost", server.port)
    assert sock.write(b"early ") == 6
    assert sock.bytes_to_write == 6
    recorder = Recorder(sock)
    host.wait_for(lambda: recorder.has("connected"), recorder.events)
    sock.write(b"late")
    host.wait_for(lambda: server.has_pending_connections)
    peer = Recorder(server.next_pending_connection())
    host.wait_for(lambda: peer.data == b"early late", peer.events)
    assert sock.bytes_to_write == 0
    assert recorder.written == 10


def test_refused_connection(host):
    with refused_port() as port:
        sock = TcpSocket()
        recorder = connect(host, sock, "127.0.0.1", port)
    assert recorder.events[-2:] == [("state", UNCONNECTED), ("error", SocketError.CONNECTION_REFUSED_ERROR)]
    assert sock.error is SocketError.CONNECTION_REFUSED_ERROR
    assert f"127.0.0.1 port {port}" in sock.error_string
    assert "refused" in sock.error_string
    assert not recorder.has("disconnected")


def test_error_handler_sees_that_the_attempt_is_over(host):
    with refused_port() as port:
        sock = TcpSocket()
        states = []
        sock.error_handler = lambda s, error: states.append((s.state, s.error is error))
        sock.connect("127.0.0.1", port)
        host.wait_for(lambda: states)
    assert states == [(UNCONNECTED, True)]
    assert sock.state is UNCONNECTED


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "empty"),
        ("a\0b", "NUL"),
        ("a..b", "empty or longer"),
        ("x" * 70 + ".example", "longer than 63"),
        ("fe80::1%nosuchinterface", "not found"),
    ],
)
def test_impossible_host_is_not_found(host, name, words):
    sock = TcpSocket()
    recorder = Recorder(sock)
    sock.connect(name, 80)
    assert sock.state is HOST_LOOKUP
    host.wait_for(lambda: sock.state is UNCONNECTED, recorder.events)
    assert recorder.of("error") == [SocketError.HOST_NOT_FOUND_ERROR]
    assert words in sock.error_string


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (socket.EAI_NONAME, SocketError.HOST_NOT_FOUND_ERROR),
        (socket.EAI_AGAIN, SocketError.TEMPORARY_ERROR),
        (socket.EAI_FAIL, SocketError.HOST_NOT_FOUND_ERROR),
    ],
)
def test_failing_lookup(host, monkeypatch, code, error):
    def fail(name, port, flags=0):
        raise socket.gaierror(code, "the words of the resolver")

    monkeypatch.setattr(resolver, "addresses_of", fail)
    sock = TcpSocket()
    recorder = connect(host, sock, "name.example", 80)
    assert recorder.of("error") == [error]
    assert "name.example" in sock.error_string
    assert "the words of the resolver" in sock.error_string


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((b"localhost", 80), TypeError),
        ((None, 80), TypeError),
        (("localhost", "80"), TypeError),
        (("localhost", 80.0), TypeError),
        (("localhost", 0), ValueError),
        (("localhost", 70000), ValueError),
        (("localhost", -1), ValueError),
        (("localhost", 80, "r"), TypeError),
        (("localhost", 80, 99), ValueError),
    ],
)
def test_wrong_arguments_raise_and_change_nothing(own_host, arguments, error):
    sock = TcpSocket()
    recorder = Recorder(sock)
    with pytest.raises(error):
        sock.connect(*arguments)
    assert sock.state is UNCONNECTED
    assert recorder.events == []


def test_connecting_is_given_up_after_the_timeout(host):
    with stuck_port() as port:
        sock = TcpSocket()
        sock.connect_timeout = 0.05
        recorder = connect(host, sock, "127.0.0.1", port)
    assert recorder.of("error") == [SocketError.CONNECTION_REFUSED_ERROR]
    assert "0.05 s" in sock.error_string
    assert sock.state is UNCONNECTED


def test_a_lookup_that_hangs_is_given_up_after_the_timeout(own_host, monkeypatch):
    import threading

    free = threading.Event()
    monkeypatch.setattr(resolver, "addresses_of", lambda name, port, flags=0: free.wait(10) and [])
    sock = TcpSocket()
    sock.connect_timeout = 0.05
    recorder = connect(own_host, sock, "name.example", 80)
    assert recorder.of("error") == [SocketError.CONNECTION_REFUSED_ERROR]
    assert "name" in sock.error_string
    assert own_host.loop.idle
    free.set()


@pytest.mark.parametrize("call", ["disconnect", "abort", "close"])
@pytest.mark.parametrize("state", [HOST_LOOKUP, CONNECTING])
def test_an_attempt_can_be_given_up(host, state, call):
    with stuck_port() as port:
        sock = TcpSocket()
        recorder = Recorder(sock)
        sock.connect("127.0.0.1", port)
        sock.write(b"never sent")
        host.wait_for(lambda: sock.state is state, recorder.events)
        getattr(sock, call)()
        assert sock.state is UNCONNECTED
        assert sock.bytes_to_write == 0
        host.turn()
    assert not recorder.has("disconnected")
    assert not recorder.has("error")
    assert host.loop.idle


# Several addresses


def test_families_take_turns():
    four = [(socket.AF_INET, (f"10.0.0.{n}", 1)) for n in range(3)]
    six = [(socket.AF_INET6, (f"fd00::{n}", 1, 0, 0)) for n in range(2)]
    assert connector.in_turns([*six, *four]) == [six[0], four[0], six[1], four[1], four[2]]
    assert connector.in_turns(four) == four


@contextlib.contextmanager
def resolved_to(monkeypatch, *addresses):
    monkeypatch.setattr(resolver, "addresses_of", lambda name, port, flags=0: list(addresses))
    yield


def test_the_next_address_is_tried_at_once_after_a_failure(host, monkeypatch):
    server = listening(TcpServer())
    monkeypatch.setattr(connector, "STAGGER", 60.0)
    with refused_port() as closed:
        addresses = (socket.AF_INET, ("127.0.0.1", closed)), (socket.AF_INET, ("127.0.0.1", server.port))
        with resolved_to(monkeypatch, *addresses):
            sock = TcpSocket()
            recorder = connect(host, sock, "name.example", server.port)
    assert recorder.has("connected")
    assert recorder.events.count(("host_found",)) == 1
    sock.abort()


def test_an_address_that_does_not_answer_does_not_hold_up_the_next(host, monkeypatch):
    server = listening(TcpServer())
    monkeypatch.setattr(connector, "STAGGER", 0.01)
    with stuck_port() as stuck:
        addresses = (socket.AF_INET, ("127.0.0.1", stuck)), (socket.AF_INET, ("127.0.0.1", server.port))
        with resolved_to(monkeypatch, *addresses):
            sock = TcpSocket()
            recorder = connect(host, sock, "name.example", server.port)
            assert recorder.has("connected")
            assert sock.remote_port == server.port
    server.close()
    sock.abort()
    assert host.loop.idle


def test_the_most_telling_error_is_reported(host, monkeypatch):
    with refused_port() as port:
        unreachable = (socket.AF_INET, ("255.255.255.255", port))
        with resolved_to(monkeypatch, unreachable, (socket.AF_INET, ("127.0.0.1", port))):
            sock = TcpSocket()
            recorder = connect(host, sock, "name.example", port)
    assert recorder.of("error") == [SocketError.CONNECTION_REFUSED_ERROR]
    assert "127.0.0.1" in sock.error_string


# Closing


def test_disconnecting_with_nothing_pending_is_done_at_once(host):
    pair = make_tcp_pair(host)
    pair.left.clear()
    pair.client.disconnect()
    assert pair.left.events == [("state", UNCONNECTED), ("disconnected",)]
    host.wait_for(lambda: pair.right.has("disconnected"), pair.right.events)
    assert pair.right.events == [
        ("error", SocketError.REMOTE_HOST_CLOSED_ERROR),
        ("state", UNCONNECTED),
        ("disconnected",),
    ]


def test_what_was_written_is_sent_before_the_end(host):
    pair = make_tcp_pair(host)
    data = bytes(range(256)) * (1 << 14)
    pair.left.clear()
    pair.client.write(data)
    pair.client.disconnect()
    assert pair.client.state is CLOSING
    assert pair.client.write(b"more") == -1
    host.wait_for(lambda: pair.left.has("disconnected") and pair.right.has("disconnected"), pair.left.events)
    assert pair.right.data == data
    assert [event for event in pair.left.events if event[0] != "error"] == [
        ("state", CLOSING),
        ("state", UNCONNECTED),
        ("disconnected",),
    ]


def test_aborting_drops_what_is_pending(host):
    pair = make_tcp_pair(host)
    pair.client.write(bytes(1 << 26))
    pair.left.clear()
    pair.client.abort()
    assert pair.left.names() == ["about_to_close", "state", "disconnected"]
    assert not pair.client.is_open
    assert pair.client.bytes_to_write == 0
    host.wait_for(lambda: pair.right.has("disconnected"), pair.right.events)
    assert len(pair.right.data) < 1 << 26


def test_closing_drops_unread_data_after_telling(host):
    pair = make_tcp_pair(host, reads=False)
    seen = []
    pair.client.about_to_close_handler = lambda s: seen.append((s.is_open, s.peek()))
    pair.server.write(b"unread")
    host.wait_for(lambda: pair.client.bytes_available == 6)
    pair.client.close()
    assert seen == [(True, b"unread")]
    assert not pair.client.is_open
    assert pair.client.read_all() == b""
    assert pair.client.bytes_available == 0


def test_data_that_came_before_the_end_is_readable_in_and_after_it(host):
    pair = make_tcp_pair(host, reads=False)
    seen = {}
    pair.client.error_handler = lambda s, error: seen.update(error=(error, s.state, s.peek()))
    pair.client.disconnected_handler = lambda s: seen.update(disconnected=(s.state, s.peek()))
    pair.server.write(b"last words")
    pair.server.disconnect()
    host.wait_for(lambda: "disconnected" in seen)
    assert seen["error"] == (SocketError.REMOTE_HOST_CLOSED_ERROR, CONNECTED, b"last words")
    assert seen["disconnected"] == (UNCONNECTED, b"last words")
    assert pair.client.read(4) == b"last"
    assert pair.client.read_all() == b" words"
    assert pair.client.at_end


def test_an_answer_can_be_written_when_the_peer_has_closed(host):
    pair = make_tcp_pair(host)
    with plain_listener() as listener:
        sock = TcpSocket()
        recorder = Recorder(sock)
        sock.error_handler = lambda s, error: s.write(b"answer")
        sock.connect(*listener.getsockname())
        host.wait_for(lambda: recorder.has("connected"))
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"question")
            peer.shutdown(socket.SHUT_WR)
            host.wait_for(lambda: recorder.has("disconnected"), recorder.events)
            assert peer.recv(100) == b"answer"
    assert recorder.data == b"question"
    pair.client.abort()


def test_a_reset_is_the_peers_end(host):
    with plain_listener() as listener:
        sock = TcpSocket()
        recorder = connect(host, sock, *listener.getsockname())
        peer, _ = listener.accept()
        seen = []
        sock.disconnected_handler = lambda s: seen.append(s.remote_address)
        sock.error_handler = lambda s, error: seen.append((error, s.remote_address, s.remote_port))
        reset(peer)
        host.wait_for(lambda: len(seen) == 2, recorder.events)
        assert seen == [(SocketError.REMOTE_HOST_CLOSED_ERROR, *listener.getsockname()), ""]
    assert "reset" in sock.error_string
    assert sock.state is UNCONNECTED


def test_a_socket_connects_again_and_begins_afresh(host):
    server = listening(TcpServer())
    sock = TcpSocket()
    for call in (sock.disconnect, sock.abort, sock.close):
        recorder = connect(host, sock, "127.0.0.1", server.port)
        host.wait_for(lambda: server.has_pending_connections)
        peer = server.next_pending_connection()
        peer.write(b"unread")
        sock.ready_read_handler = None
        host.wait_for(lambda: sock.bytes_available == 6, recorder.events)
        assert sock.error is None
        assert sock.is_open
        call()
    with refused_port() as port:
        connect(host, sock, "127.0.0.1", port)
        assert sock.error is SocketError.CONNECTION_REFUSED_ERROR
    connect(host, sock, "127.0.0.1", server.port)
    assert sock.error is None
    assert sock.error_string == ""
    assert sock.bytes_available == 0


def test_connecting_again_from_the_disconnected_handler(host):
    server = listening(TcpServer())
    server.new_connection_handler = lambda s: s.next_pending_connection().disconnect()
    sock = TcpSocket()
    recorder = Recorder(sock)
    rounds = []

    def again(s):
        rounds.append(s.state)
        if len(rounds) < 5:
            s.connect("127.0.0.1", server.port)

    sock.disconnected_handler = again
    sock.connect("127.0.0.1", server.port)
    host.wait_for(lambda: len(rounds) == 5, recorder.events)
    assert rounds == [UNCONNECTED] * 5
    assert recorder.names().count("connected") == 5


# Binding


def test_binding_chooses_the_port_to_connect_from(host):
    server = listening(TcpServer())
    sock = TcpSocket()
    assert sock.bind(0)
    assert sock.state is BOUND
    port = sock.local_port
    assert port > 0
    recorder = connect(host, sock, "127.0.0.1", server.port)
    assert recorder.has("connected")
    assert sock.local_port == port
    assert sock.local_address == "127.0.0.1"
    host.wait_for(lambda: server.has_pending_connections)
    assert server.next_pending_connection().remote_port == port
    sock.abort()


def test_a_bound_socket_tries_address_after_address(host, monkeypatch):
    server = listening(TcpServer())
    sock = TcpSocket()
    assert sock.bind(0)
    port = sock.local_port
    with refused_port() as closed:
        addresses = (socket.AF_INET, ("127.0.0.1", closed)), (socket.AF_INET, ("127.0.0.1", server.port))
        with resolved_to(monkeypatch, *addresses):
            assert connect(host, sock, "name.example", server.port).has("connected")
    assert sock.local_port == port
    sock.abort()


def test_a_bound_socket_may_have_several_attempts_under_way(host, monkeypatch):
    server = listening(TcpServer())
    monkeypatch.setattr(connector, "STAGGER", 0.01)
    sock = TcpSocket()
    assert sock.bind(0)
    port = sock.local_port
    with stuck_port() as stuck:
        addresses = (socket.AF_INET, ("127.0.0.1", stuck)), (socket.AF_INET, ("127.0.0.1", server.port))
        with resolved_to(monkeypatch, *addresses):
            assert connect(host, sock, "name.example", server.port).has("connected")
    assert (sock.local_port, sock.remote_port) == (port, server.port)
    sock.abort()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_bound_socket_does_not_connect_to_itself(host, address):
    sock = TcpSocket()
    assert sock.bind(0)
    recorder = connect(host, sock, address, sock.local_port)
    assert recorder.of("error") == [SocketError.CONNECTION_REFUSED_ERROR]
    assert sock.state is UNCONNECTED
    assert host.loop.idle


def test_a_taken_port_cannot_be_bound(own_host):
    server = listening(TcpServer(), "")
    sock = TcpSocket()
    recorder = Recorder(sock)
    assert not sock.bind(server.port)
    assert sock.error is SocketError.ADDRESS_IN_USE_ERROR
    assert str(server.port) in sock.error_string
    assert recorder.events == [("error", SocketError.ADDRESS_IN_USE_ERROR)]
    assert sock.state is UNCONNECTED


@pytest.mark.parametrize(("port", "error"), [("1", TypeError), (-1, ValueError), (65536, ValueError)])
def test_a_wrong_port_cannot_be_bound(own_host, port, error):
    with pytest.raises(error):
        TcpSocket().bind(port)


def test_a_bound_socket_can_be_let_go(own_host):
    sock = TcpSocket()
    assert sock.bind(0)
    port = sock.local_port
    sock.disconnect()
    assert (sock.state, sock.local_port) == (UNCONNECTED, 0)
    assert sock.bind(port)


# Reading and writing


@pytest.mark.parametrize("bound", [0, 1, 1000])
def test_all_bytes_arrive_in_order_both_ways(host, bound):
    size = 1 << 20 if bound != 1 else 1 << 12
    pair = make_tcp_pair(host)
    pair.client.read_buffer_size = pair.server.read_buffer_size = bound
    one, other = bytes(range(251)) * (size // 251), bytes(range(1, 250)) * (size // 249)
    pair.client.write(one)
    for start in range(0, len(other), 10007):
        pair.server.write(memoryview(other)[start : start + 10007])
    host.wait_for(lambda: len(pair.left.data) == len(other) and len(pair.right.data) == len(one))
    assert pair.left.data == other
    assert pair.right.data == one
    assert pair.left.written == len(one)
    assert pair.client.bytes_to_write == 0


def test_at_the_bound_nothing_more_is_taken_from_the_network(host):
    pair = make_tcp_pair(host, reads=False)
    pair.server.read_buffer_size = 100
    pair.client.write(bytes(1 << 24))
    host.wait_for(lambda: pair.server.bytes_available == 100)
    host.turn(20)
    assert pair.server.bytes_available == 100
    assert pair.client.bytes_to_write > 0
    assert len(pair.server.read(60)) == 60
    host.wait_for(lambda: pair.server.bytes_available == 100)


@pytest.mark.parametrize("data", ["text", 5, None, [1]])
def test_only_buffers_can_be_written(host, data):
    pair = make_tcp_pair(host)
    with pytest.raises(TypeError):
        pair.client.write(data)
    with pytest.raises(TypeError):
        TcpSocket().write(data)
    pair.client.abort()


def test_any_buffer_can_be_written(host):
    import array

    pair = make_tcp_pair(host)
    numbers = array.array("I", [1, 2, 3])
    buffer = bytearray(b"changed later")
    count = pair.client.write(b"bytes") + pair.client.write(buffer) + pair.client.write(memoryview(b"view"))
    buffer[:] = b"x" * len(buffer)
    count += pair.client.write(numbers)
    host.wait_for(lambda: len(pair.right.data) == count)
    assert pair.right.data == b"byteschanged laterview" + numbers.tobytes()


@pytest.mark.parametrize(
    ("mode", "readable", "writeable"), [(1, True, False), (2, False, True), (3, True, True), (0, False, False)]
)
def test_the_open_mode_decides_what_may_be_done(host, mode, readable, writeable):
    server = listening(TcpServer())
    sock = TcpSocket()
    recorder = Recorder(sock, reads=False)
    sock.connect("127.0.0.1", server.port, mode)
    host.wait_for(lambda: server.has_pending_connections and recorder.has("connected"))
    peer = server.next_pending_connection()
    peer.write(b"hello")
    assert (sock.readable, sock.writeable, int(sock.open_mode)) == (readable, writeable, mode)
    assert sock.is_open is bool(mode)
    assert sock.write(b"x") == (1 if writeable else -1)
    assert sock.error is (None if writeable else SocketError.OPERATION_ERROR)
    if readable:
        host.wait_for(lambda: sock.bytes_available == 5)
        assert sock.read_all() == b"hello"
    else:
        host.turn(20)
        assert sock.read_all() == b""
        assert sock.bytes_available == 0
    sock.abort()


def test_an_error_handler_that_writes_is_not_called_for_ever(host):
    pair = make_tcp_pair(host)
    pair.client.abort()
    calls = []

    def write_again(s, error):
        calls.append(error)
        s.write(b"again")

    pair.client.error_handler = write_again
    assert pair.client.write(b"x") == -1
    assert calls == [SocketError.OPERATION_ERROR]


# Lifetime


def test_an_open_socket_lives_without_the_programs_reference(host):
    server = listening(TcpServer())
    received = []
    server.new_connection_handler = lambda s: setattr(
        s.next_pending_connection(), "ready_read_handler", lambda peer: received.append(peer.read_all())
    )
    sock = TcpSocket()
    sock.connected_handler = lambda s: (s.write(b"still here"), s.disconnect())
    sock.connect("127.0.0.1", server.port)
    ended = weakref.ref(sock)
    del sock
    gc.collect()
    host.wait_for(lambda: received == [b"still here"])
    gc.disable()
    try:
        host.wait_for(lambda: ended() is None, "the socket to go without the help of the collector")
    finally:
        gc.enable()


@pytest.mark.parametrize("call", ["disconnect", "abort", "close"])
def test_a_socket_that_is_over_leaves_no_cycle(host, call):
    pair = make_tcp_pair(host)
    gc.collect()
    gc.disable()
    try:
        getattr(pair.client, call)()
        wait_for_end(host, pair.right)
        ended = weakref.ref(pair.client), weakref.ref(pair.server)
        silence(pair)
        del pair
        host.wait_for(lambda: not any(reference() for reference in ended), "the sockets to go, and nobody to collect them")
    finally:
        gc.enable()


def test_dropping_the_last_reference_of_a_connecting_socket_is_harmless(host):
    with stuck_port() as port:
        sock = TcpSocket()
        sock.connect("127.0.0.1", port)
        sock.connect_timeout = 0.02
        del sock
        host.turn()
