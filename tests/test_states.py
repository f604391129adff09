"""Every state with every event, and every state with every call of the program."""

from __future__ import annotations

import contextlib

import pytest

from peers import Recorder, make_tcp_pair, stuck_port
from sslsock import SocketState, SslMode, SslSocket, TcpSocket
from sslsock.sockets.states import MODE_MOVES, MOVES, ModeEvent, SocketEvent

STATES = [state.name[: -len("_STATE")] for state in SocketState]
EVENTS = [event.value for event in SocketEvent]

# One row a state, one column an event; "-" is a bug of the caller.
COLUMNS = "bind  connect accepted  found      established failed finish  drained close abort"
ROWS = {
    "UNCONNECTED": "BOUND LOOKUP CONNECTED -          -         -    -       -       -     UN",
    "BOUND": "       -     LOOKUP -         -          -         -    -       -       UN    UN",
    "HOST_LOOKUP": " -     -      -         CONNECTING -         UN   -       -       UN    UN",
    "CONNECTING": "  -     -      -         -          CONNECTED UN   -       -       UN    UN",
    "CONNECTED": "   -     -      -         -          -         UN   CLOSING -       UN    UN",
    "CLOSING": "     -     -      -         -          -         UN   -       UN      -     UN",
}
SHORT = {"UN": "UNCONNECTED", "LOOKUP": "HOST_LOOKUP"}
EXPECTED = {
    (state, event): SHORT.get(target, target)
    for state, row in ROWS.items()
    for event, target in zip(COLUMNS.split(), row.split())
}


def test_the_table_here_is_complete():
    assert set(EXPECTED) == {(state, event) for state in STATES for event in EVENTS}
    assert len(MOVES) == sum(target != "-" for target in EXPECTED.values())


@pytest.mark.parametrize("event", SocketEvent, ids=lambda event: event.value)
@pytest.mark.parametrize("state", SocketState, ids=lambda state: state.name)
def test_each_event_in_each_state(own_host, state, event):
    sock = TcpSocket()
    sock._state = state
    told = []
    sock.state_changed_handler = lambda s, new: told.append((new, s.state))
    target = EXPECTED[state.name[: -len("_STATE")], event.value]
    if target == "-":
        with pytest.raises(RuntimeError, match=state.name):
            sock._advance(event)
        assert sock.state is state
        assert told == []
    else:
        new = SocketState[target + "_STATE"]
        sock._advance(event)
        assert sock.state is new
        assert told == ([] if new is state else [(new, new)])


@pytest.mark.parametrize("event", ModeEvent, ids=lambda event: event.value)
@pytest.mark.parametrize("mode", SslMode, ids=lambda mode: mode.name)
def test_each_event_in_each_mode(own_host, mode, event):
    expected = {"start_client": SslMode.SSL_CLIENT_MODE, "start_server": SslMode.SSL_SERVER_MODE}
    sock = SslSocket()
    sock._mode = mode
    if event is ModeEvent.CLOSED:
        assert sock._turn(event) is (mode is not SslMode.UNENCRYPTED_MODE)
        assert sock.mode is SslMode.UNENCRYPTED_MODE
    elif mode is SslMode.UNENCRYPTED_MODE:
        assert sock._turn(event)
        assert sock.mode is expected[event.value]
    else:
        with pytest.raises(RuntimeError, match=mode.name):
            sock._turn(event)
        assert sock.mode is mode
    assert len(MODE_MOVES) == 5


@contextlib.contextmanager
def socket_in(host, state):
    """A socket that came to the state in the usual way, its recorder, and a port that it may connect to."""
    with stuck_port() as port:
        sock = SslSocket()
        recorder = Recorder(sock)
        if state in (SocketState.CONNECTED_STATE, SocketState.CLOSING_STATE):
            pair = make_tcp_pair(host, SslSocket)
            sock, recorder = pair.client, pair.left
            pair.server.read_buffer_size = 1  # so that a large write stays pending
            if state is SocketState.CLOSING_STATE:
                pair.right.socket.ready_read_handler = None
                sock.write(bytes(1 << 24))
                sock.disconnect()
        elif state is SocketState.BOUND_STATE:
            assert sock.bind(0)
        elif state is not SocketState.UNCONNECTED_STATE:
            sock.connect("127.0.0.1", port)
            if state is SocketState.CONNECTING_STATE:
                host.wait_for(lambda: sock.state is SocketState.CONNECTING_STATE, recorder.events)
        assert sock.state is state
        recorder.clear()
        yield sock, recorder, port
        sock.abort()


STATE_CASES = pytest.mark.parametrize("state", SocketState, ids=lambda state: state.name)
UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND, CLOSING = SocketState


@STATE_CASES
def test_abort_ends_every_state_at_once(host, state):
    with socket_in(host, state) as (sock, recorder, _):
        sock.abort()
        assert sock.state is UNCONNECTED
        assert not sock.is_open or state in (UNCONNECTED, BOUND)
        assert recorder.has("disconnected") is (state in (CONNECTED, CLOSING))
        assert recorder.has("state") is (state is not UNCONNECTED)
        assert sock.bytes_to_write == sock.bytes_available == sock.local_port == sock.remote_port == 0


@STATE_CASES
def test_disconnect_in_every_state(host, state):
    with socket_in(host, state) as (sock, recorder, _):
        sock.disconnect()
        assert sock.state is (CLOSING if state is CLOSING else UNCONNECTED)
        assert recorder.has("disconnected") is (state is CONNECTED)
        assert not recorder.has("error")


@STATE_CASES
def test_close_in_every_state(host, state):
    with socket_in(host, state) as (sock, recorder, _):
        was_open = sock.is_open
        sock.close()
        assert sock.state is (CLOSING if state is CLOSING else UNCONNECTED)
        assert not sock.is_open
        assert recorder.has("about_to_close") is was_open


@STATE_CASES
def test_connect_is_possible_in_two_states_only(host, state):
    with socket_in(host, state) as (sock, recorder, port):
        sock.connect("127.0.0.1", port)
        if state in (UNCONNECTED, BOUND):
            assert sock.state is HOST_LOOKUP
            assert sock.error is None
        else:
            assert sock.state is state
            assert recorder.events == [("error", SslSocket.OPERATION_ERROR)]
            assert state.name in sock.error_string


@STATE_CASES
def test_bind_is_possible_in_one_state_only(host, state):
    with socket_in(host, state) as (sock, _, _):
        assert sock.bind(0) is (state is UNCONNECTED)
        assert sock.state is (BOUND if state is UNCONNECTED else state)
        assert (sock.error is SslSocket.OPERATION_ERROR) is (state is not UNCONNECTED)


@STATE_CASES
def test_write_in_every_state(host, state):
    with socket_in(host, state) as (sock, recorder, _):
        before = sock.bytes_to_write
        if state in (HOST_LOOKUP, CONNECTING, CONNECTED):
            assert sock.write(b"data") == 4
            assert sock.bytes_to_write == before + 4
        else:
            assert sock.write(b"data") == -1
            assert recorder.events == [("error", SslSocket.OPERATION_ERROR)]
            assert "write()" in sock.error_string
            assert sock.state is state


@STATE_CASES
@pytest.mark.parametrize("role", ["client", "server"])
def test_encryption_starts_when_connected_only(host, state, role, certificates):
    with socket_in(host, state) as (sock, recorder, _):
        sock.configuration = certificates.server()
        with contextlib.nullcontext() if state is CONNECTED else pytest.warns(RuntimeWarning, match="not connected"):
            getattr(sock, f"start_{role}_encryption")()
        mode = getattr(SslMode, f"SSL_{role.upper()}_MODE") if state is CONNECTED else SslMode.UNENCRYPTED_MODE
        assert sock.mode is mode
        assert recorder.events == ([("mode", mode)] if state is CONNECTED else [])
        with pytest.warns(RuntimeWarning, match="encrypted already" if state is CONNECTED else "not connected"):
            sock.start_client_encryption()  # a second start has no effect
        assert sock.mode is mode


@STATE_CASES
def test_reading_is_harmless_in_every_state(host, state):
    with socket_in(host, state) as (sock, _, _):
        assert sock.read() == sock.read_all() == sock.peek() == sock.read_line() == b""
        assert sock.read(5) == b""
        assert sock.read_into(bytearray(4)) == 0
        assert sock.at_end
        assert not sock.can_read_line


@STATE_CASES
def test_valid_means_a_port_of_its_own(host, state):
    with socket_in(host, state) as (sock, _, _):
        assert sock.valid is (state not in (UNCONNECTED, HOST_LOOKUP))
