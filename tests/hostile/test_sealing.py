"""From the call that starts encryption to the end of the connection nothing leaves in the clear, whatever the program does."""

from __future__ import annotations

import contextlib
import inspect
import random
import warnings

import pytest

from peers import DEADLINE, Host, make_tcp_pair, plain_listener
from sslsock import OpenMode, Relay, SocketState, SslConfiguration, SslMode, SslSocket

from .faults import Fault
from .test_faults import SECRET, Wire
from .witness import check_consistent

CONNECTED = SocketState.CONNECTED_STATE
UNCONNECTED = SocketState.UNCONNECTED_STATE
BEFORE = b"written before\r\n"


class Scene:
    """A connected socket, a peer that keeps what comes, and a program that writes its secret again and again."""

    def __init__(self, host: Host, certificates, mode=OpenMode.READ_WRITE_MODE):
        self.host = host
        self.certificates = certificates
        self.others = []
        with plain_listener() as listener:
            self.socket = SslSocket()
            self.socket.connect("127.0.0.1", listener.getsockname()[1], mode)
            host.wait_for(lambda: self.socket.state is CONNECTED)
            self.connection = listener.accept()[0]
        self.connection.settimeout(DEADLINE)
        self.wire = Wire(self.connection)
        self.socket.peer_verify_name = "localhost"
        self.socket.configuration = certificates.server()
        self.socket.write(BEFORE)
        self.started = False

    def tell(self):
        """Write the secret, in every way there is. Only as long as the connection is the one that was to be encrypted."""
        if self.started and self.socket.state is not UNCONNECTED:
            self.socket.write(SECRET)
            self.socket.write_bytes(bytearray(SECRET))
            with contextlib.suppress(UnicodeError):
                self.socket.write_string(SECRET.decode())

    def check(self):
        for _ in range(6):  # what is going to leave does so at the end of a turn
            self.host.loop.dispatch(0)
            self.wire.take()
        assert SECRET.strip() not in self.wire.received, f"the secret left in the clear: {self.wire.received[:200]}"

    def end(self):
        for sock in (self.socket, *self.others):
            sock.abort()
        self.connection.close()


def start_client(scene):
    scene.started = True
    scene.socket.start_client_encryption()


def start_server(scene):
    scene.started = True
    scene.socket.start_server_encryption()


def start_refused(scene):
    scene.socket.configuration.ciphers = "NO-SUCH-CIPHER"
    start_client(scene)


def start_refused_server(scene):
    scene.socket.configuration.private_key = None
    start_server(scene)


def start_without_a_name(scene):
    scene.socket._hostname = scene.socket.peer_verify_name = ""  # as a socket that a server has accepted
    start_client(scene)


def start_awaiting(scene):
    scene.socket.client_hello_handler = lambda s, hello: s.hold_handshake()
    start_server(scene)


def start_behind_a_full_buffer(scene):
    """What was written before does not leave at once, and the ClientHello is awaited meanwhile."""
    scene.socket.client_hello_handler = lambda s, hello: s.hold_handshake()
    error_handler, scene.socket.error_handler = scene.socket.error_handler, None
    scene.socket.write(bytes(1 << 23))
    scene.socket.error_handler = error_handler
    start_server(scene)


STARTS = [
    *(start_client, start_server, start_refused, start_refused_server, start_without_a_name, start_awaiting),
    start_behind_a_full_buffer,
]


def close_and_open(scene):
    scene.socket.close()
    scene.socket.open(OpenMode.READ_WRITE_MODE)


def start_again(scene):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        scene.socket.start_client_encryption()
        scene.socket.start_server_encryption()


def configure(scene):
    scene.socket.configuration = SslConfiguration()
    scene.socket.configuration.ciphers = ""
    scene.socket.peer_verify_mode = SslSocket.VERIFY_NONE
    start_again(scene)


def join(scene):
    """Another connection's bytes must not go out either; a connection whose ClientHello was seen is another matter."""
    pair = make_tcp_pair(scene.host)
    scene.others += (pair.client, pair.server)
    with contextlib.suppress(ValueError):
        Relay(scene.socket, pair.server)
        pair.client.write(SECRET)


def relax(scene):
    scene.socket.handshake_timeout = 0
    scene.socket.read_buffer_size = 1
    scene.socket.encoding = "latin-1"
    scene.socket.client_hello_handler = None


def answer(scene):
    """What is not TLS, from the peer."""
    with contextlib.suppress(OSError):
        scene.connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


OPERATIONS = {
    "nothing": lambda scene: None,
    "open": lambda scene: scene.socket.open(OpenMode.READ_WRITE_MODE),
    "close": lambda scene: scene.socket.close(),
    "close and open": close_and_open,
    "disconnect": lambda scene: scene.socket.disconnect(),
    "start again": start_again,
    "configure": configure,
    "connect": lambda scene: scene.socket.connect("127.0.0.1", 1),
    "bind": lambda scene: scene.socket.bind(0),
    "join": join,
    "relax": relax,
    "continue": lambda scene: scene.socket.continue_handshake(),
    "answer": answer,
    "read": lambda scene: scene.socket.read_all_string(),
    "turn": lambda scene: scene.host.loop.dispatch(0),
}

MOMENTS = ("at once", "mode_changed_handler", "error_handler", "state_changed_handler", "about_to_close_handler", "later")
MODES = [OpenMode.READ_WRITE_MODE, OpenMode.NOT_OPEN_MODE]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("start", STARTS, ids=lambda start: start.__name__)
def test_no_operation_opens_the_way_again(own_host, certificates, start, operation):
    for moment in MOMENTS:
        for mode in MODES:
            scene = Scene(own_host, certificates, mode)
            calls = []

            def act(*arguments, scene=scene, calls=calls):
                if len(calls) < 3:
                    calls.append(arguments)
                    OPERATIONS[operation](scene)
                scene.tell()

            if moment.endswith("_handler"):
                setattr(scene.socket, moment, act)

            def run(scene=scene, moment=moment, act=act):  # what is written here leaves before anything else is called
                start(scene)
                if moment == "at once":
                    act()
                scene.tell()

            own_host.loop.call_soon(run)
            own_host.loop.dispatch(0)
            if moment == "later":
                act()
            scene.tell()
            scene.check()
            check_consistent(scene.socket)
            scene.end()


@pytest.mark.parametrize("start", STARTS, ids=lambda start: start.__name__)
@pytest.mark.parametrize("seed", range(6))
def test_no_sequence_of_operations_opens_the_way_again(own_host, certificates, start, seed):
    dice = random.Random(f"{seed} {start.__name__}")
    names = [name for name in OPERATIONS if name != "join"]
    for _ in range(10):
        scene = Scene(own_host, certificates, dice.choice(MODES))
        start(scene)
        done = [dice.choice(names) for _ in range(6)]
        for name in done:
            OPERATIONS[name](scene)
            scene.tell()
        try:
            scene.check()
        except AssertionError as exc:
            raise AssertionError(f"{done}: {exc}") from exc
        check_consistent(scene.socket)
        scene.end()


def test_what_was_written_before_leaves_in_the_clear_and_first(own_host, certificates):
    """STARTTLS: the last words in the clear are the server's reply, however full the system's buffers are."""
    for start in (start_client, start_server, start_awaiting, start_behind_a_full_buffer):
        scene = Scene(own_host, certificates)
        start(scene)
        scene.tell()
        own_host.wait_for(lambda scene=scene: scene.wire.take() or BEFORE in scene.wire.received)
        scene.check()
        scene.end()


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_start_that_raises_has_closed_both_directions(own_host, certificates, role, monkeypatch):
    def refuse(*arguments, **options):
        raise Fault

    monkeypatch.setattr("sslsock.sockets.ssl_socket.Engine", refuse)
    scene = Scene(own_host, certificates)
    told = []
    scene.socket.disconnected_handler = lambda s: told.append("disconnected")
    scene.socket.error_handler = lambda s, error: told.append(error)
    scene.started = True
    with pytest.raises(Fault):
        getattr(scene.socket, f"start_{role}_encryption")()
    assert scene.socket.state is UNCONNECTED
    assert scene.socket.mode is SslMode.UNENCRYPTED_MODE
    assert told == []
    scene.socket.write(SECRET)
    own_host.wait_for(lambda: "disconnected" in told and scene.wire.take(), told)
    assert told[-2:] == [SslSocket.SOCKET_RESOURCE_ERROR, "disconnected"]
    scene.check()
    scene.end()


def test_what_is_written_before_connect_encrypted_has_shaken_hands_is_protected(own_host, certificates):
    """In every handler on the way there."""
    with plain_listener() as listener:
        sock = SslSocket()
        sock.configuration = certificates.client()
        sock.encoding = "utf-16"
        for name in ("host_found_handler", "connected_handler", "state_changed_handler", "mode_changed_handler"):
            setattr(sock, name, lambda s, *arguments: (s.write(SECRET), s.write_string("text")))
        sock.connect_encrypted("localhost", listener.getsockname()[1])
        sock.write(SECRET)
        own_host.wait_for(lambda: sock.mode is SslMode.SSL_CLIENT_MODE)
        wire = Wire(listener.accept()[0])
        own_host.wait_for(lambda: wire.take() or wire.received)
        assert wire.received[:1] == b"\x16"  # a handshake record
        assert SECRET.strip() not in wire.received
        sock.disconnect()  # while what was written cannot be encrypted
        own_host.turn()
        wire.take()
        assert SECRET.strip() not in wire.received
        sock.abort()
        wire.socket.close()


@pytest.mark.parametrize("handler", ["state_changed_handler", "connected_handler"])
def test_what_connect_encrypted_holds_does_not_leave_when_a_client_hello_is_awaited_instead(own_host, certificates, handler):
    """The one that has connected is the server, whose handler decides on the configuration."""
    with plain_listener() as listener:
        sock = SslSocket()
        sock.configuration = certificates.server()
        sock.client_hello_handler = lambda s, hello: s.hold_handshake()
        setattr(sock, handler, lambda s, *state: s.start_server_encryption() if s.state is CONNECTED else None)
        sock.connect_encrypted("127.0.0.1", listener.getsockname()[1])
        sock.write(SECRET)
        own_host.wait_for(lambda: sock.mode is SslMode.SSL_SERVER_MODE)
        wire = Wire(listener.accept()[0])
        assert sock.write(SECRET) == len(SECRET)
        for end in (own_host.turn, sock.disconnect, own_host.turn):
            end()
            wire.take()
            assert wire.received == b""
        wire.socket.close()


# Where it has no effect


def test_a_start_without_effect_warns_once_a_call_site(own_host, certificates):
    sock = SslSocket()

    def call():
        sock.start_client_encryption()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            call()
        sock.start_server_encryption()
    assert [warning.category for warning in caught] == [RuntimeWarning] * 2
    assert {warning.filename for warning in caught} == {__file__}
    assert "start_client_encryption() has no effect" in str(caught[0].message)
    assert "start_server_encryption() has no effect" in str(caught[1].message)


@pytest.mark.parametrize("answer", ["future", "callback"])
def test_the_warning_of_a_twin_names_who_called_it(own_host, answer):
    sock = SslSocket()
    done = []

    def call():
        if answer == "callback":
            sock.start_client_encryption_async(callback=lambda *result: done.append(result))
        else:
            sock.start_client_encryption_async().add_done_callback(done.append)

    lines, first = inspect.getsourcelines(call)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            call()
        own_host.wait_for(lambda: len(done) == 3)
    assert [warning.category for warning in caught] == [RuntimeWarning], "once a call site"
    assert caught[0].filename == __file__
    assert first < caught[0].lineno < first + len(lines)


def test_a_start_without_effect_changes_nothing(own_host, certificates):
    scene = Scene(own_host, certificates)
    start_client(scene)
    told = []
    scene.socket.mode_changed_handler = scene.socket.error_handler = lambda s, *arguments: told.append(arguments)
    with pytest.warns(RuntimeWarning, match="encrypted already"):
        scene.socket.start_client_encryption()
    with pytest.raises(RuntimeWarning), warnings.catch_warnings():
        warnings.simplefilter("error")
        scene.socket.start_server_encryption()
    assert scene.socket.mode is SslMode.SSL_CLIENT_MODE
    assert told == []
    scene.end()
    with pytest.warns(RuntimeWarning, match="not connected"):
        scene.socket.start_client_encryption()


def test_a_plain_connection_after_a_refused_one_is_plain(own_host, certificates):
    """The rule ends with the connection."""
    scene = Scene(own_host, certificates)
    start_refused(scene)
    own_host.wait_for(lambda: scene.socket.state is UNCONNECTED)
    with plain_listener() as listener:
        scene.socket.connect("127.0.0.1", listener.getsockname()[1])
        assert scene.socket.write(b"plain") == 5
        own_host.wait_for(lambda: scene.socket.state is CONNECTED)
        wire = Wire(listener.accept()[0])
        own_host.wait_for(lambda: wire.take() or wire.received == b"plain")
        wire.socket.close()
    scene.end()
