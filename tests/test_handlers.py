"""Handlers that misbehave: each one with each thing it may do. Another connection on the same loop must not notice."""

from __future__ import annotations

import gc
import warnings

import pytest

from peers import HANDLERS, Recorder, accept, listening, make_ssl_pair, make_tcp_pair, refused_port, secure_server
from sslsock import Relay, RelayReason, SocketState, SslServer, SslSocket, TcpServer, TcpSocket


def raise_error(scene, s):
    raise ValueError("from a handler")


def drop_references(scene, s):
    scene.client = None
    gc.collect()


def reconnect(scene, s):
    s.abort()
    s.connect_encrypted("localhost", scene.port)


def start_encryption(scene, s):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where it has no effect
        s.start_client_encryption()


def replace_handlers(scene, s):
    for name in HANDLERS:
        setattr(s, name, None)


ACTIONS = {
    "close": lambda scene, s: s.close(),
    "abort": lambda scene, s: s.abort(),
    "disconnect": lambda scene, s: s.disconnect(),
    "connect": lambda scene, s: s.connect("localhost", scene.port),
    "reconnect": reconnect,
    "start encryption": start_encryption,
    "read": lambda scene, s: s.read_all(),
    "peek": lambda scene, s: s.peek(),
    "write": lambda scene, s: s.write(b"x"),
    "write a lot": lambda scene, s: s.write(bytes(1 << 22)),
    "drop": drop_references,
    "raise": raise_error,
    "dispatch": lambda scene, s: [scene.host.loop.dispatch(0) for _ in range(5)],
    "replace": replace_handlers,
    "bind": lambda scene, s: s.bind(0),
    "stop": lambda scene, s: s.loop.stop(),
}

ONCE = 3  # how often a handler misbehaves: some actions lead to the same handler again


class Scene:
    """A client whose one handler misbehaves, its echoing server, and an innocent pair beside them."""

    def __init__(self, host, certificates):
        self.host = host
        self.server = SslServer()
        self.server.configuration = certificates.server()
        self.server.new_connection_handler = self.new
        listening(self.server, "")
        self.port = self.server.port
        self.client = SslSocket()
        self.client.configuration = certificates.client()
        self.innocent = make_ssl_pair(host, certificates.client(), certificates.server())
        self.peers = []
        self.calls = 0

    def new(self, server):
        while (peer := server.next_pending_secure_connection()) is not None:
            peer.write(b"hello\n")
            peer.ready_read_handler = lambda p: p.write(p.read_all())
            self.peers.append(peer)

    def misbehave(self, name, action):
        def handler(s, *arguments):
            if self.calls < ONCE:
                self.calls += 1
                action(self, s)

        setattr(self.client, name, handler)

    def check_the_innocent(self, text):
        pair = self.innocent
        pair.left.data.clear()
        pair.client.write(text)
        self.host.wait_for(lambda: pair.right.data.endswith(text))
        pair.server.write(text)
        self.host.wait_for(lambda: pair.left.data == text)
        assert not pair.left.has("error")
        assert not pair.right.has("error")

    def end(self):
        self.server.close()
        for sock in (self.client, self.innocent.client, *self.peers):
            if sock is not None:
                replace_handlers(self, sock)
                sock.abort()


def start(host, scene):
    """Connect, and go on until the handler has been called or nothing more is going to happen."""
    client = scene.client
    client.connect_encrypted("localhost", scene.port)
    client.write(b"first")
    host.wait_for(lambda: scene.calls or client.encrypted or client.state is SocketState.UNCONNECTED_STATE)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", sorted(HANDLERS))
def test_each_handler_may_do_anything(host, certificates, name, action):
    scene = Scene(host, certificates)
    if name == "ssl_errors_handler":
        scene.client.peer_verify_name = "other.example"
    scene.misbehave(name, ACTIONS[action])
    start(host, scene)
    host.turn(5)
    if scene.client is not None and scene.client.state is SocketState.CONNECTED_STATE:
        scene.client.write(b"more")
    host.turn(3)
    if scene.client is not None:
        scene.client.close() if name == "about_to_close_handler" else scene.client.disconnect()
    host.turn(3)
    if name == "error_handler" and not scene.calls and scene.client is not None:
        with refused_port() as port:
            scene.client.abort()
            scene.client.connect_encrypted("127.0.0.1", port)
            host.wait_for(lambda: scene.calls)
    host.turn(3)
    assert scene.calls, "the handler was never called"
    failures = host.take_failures()
    assert all(isinstance(failure, ValueError) for failure in failures), failures
    assert bool(failures) is (action == "raise")
    scene.check_the_innocent(b"still well")
    scene.end()


@pytest.mark.parametrize("action", ["abort", "close", "disconnect", "raise", "dispatch", "drop"])
@pytest.mark.parametrize("moment", ["new_connection", "server_ready", "server_encrypted", "server_disconnected"])
def test_handlers_of_a_server_may_do_anything(host, certificates, moment, action):
    server = secure_server(certificates)
    innocent = make_ssl_pair(host, certificates.client(), certificates.server())
    calls = []

    def act(sock):
        calls.append(moment)
        if action == "raise":
            raise ValueError("from a handler")
        if action == "dispatch":
            host.loop.dispatch(0)
        elif action == "drop":
            taken.clear()
        elif sock is server:
            server.close()
        else:
            getattr(sock, action)()

    taken = []

    def new(s):
        sock = s.next_pending_secure_connection()
        if sock is None:
            return
        taken.append(sock)
        attribute = {
            "server_ready": "ready_read_handler",
            "server_encrypted": "encrypted_handler",
            "server_disconnected": "disconnected_handler",
        }.get(moment)
        if attribute:
            setattr(sock, attribute, act)
        else:
            act(server)

    server.new_connection_handler = new
    client = SslSocket()
    client.configuration = certificates.client()
    left = Recorder(client)
    client.connect_encrypted("localhost", server.port)
    client.write(b"data")
    client.encrypted_handler = lambda s: s.disconnect() if moment == "server_disconnected" else None
    host.wait_for(lambda: calls, left.events)
    host.turn(5)
    assert len(host.take_failures()) == (action == "raise")
    innocent.client.write(b"still well")
    host.wait_for(lambda: innocent.right.data == b"still well")
    for sock in [*taken, client, innocent.client]:
        sock.abort()
    server.close()


def test_a_handler_that_raises_does_not_keep_the_others_from_being_called(host, certificates):
    server = secure_server(certificates)
    client = SslSocket()
    client.configuration = certificates.client()
    left = Recorder(client)
    recording = {name: getattr(client, name) for name in HANDLERS}

    def failing(name):
        def handler(s, *arguments):
            recording[name](s, *arguments)
            raise ValueError(name)

        return handler

    for name in HANDLERS:
        setattr(client, name, failing(name))
    client.connect_encrypted("localhost", server.port)
    client.write(b"data")
    right = accept(host, server)
    right.socket.write(b"answer")
    host.wait_for(lambda: right.data == b"data" and left.data == b"answer")
    right.socket.disconnect()
    host.wait_for(lambda: left.has("disconnected"))
    expected = ["state", "host_found", "state", "state", "connected", "mode", "encrypted", "error", "state", "mode"]
    assert left.names() == [*expected, "disconnected"]
    assert len(host.take_failures()) == len(left.names()) + 2  # ready and written besides


def test_a_dispatch_inside_a_handler_moves_other_connections(host, certificates):
    first = make_ssl_pair(host, certificates.client(), certificates.server())
    second = make_ssl_pair(host, certificates.client(), certificates.server())
    order = []

    def wait_inside(s):
        s.read_all()
        second.client.write(b"inner")
        while not second.right.data:
            host.loop.dispatch(0.01)
        order.append("outer")

    first.server.ready_read_handler = wait_inside
    second.right.data.clear()
    first.client.write(b"outer")
    host.wait_for(lambda: order)
    assert second.right.data == b"inner"
    first.client.abort()
    second.client.abort()


# Handlers that a class defines


def method_class(base, name):
    """A class with the handler as a method, which notes what it was called with."""

    def method(self, *arguments):
        self.calls.append(arguments)
        if name == "ssl_errors_handler":
            self.ignore_ssl_errors()

    return type("Derived", (base,), {name: method, "calls": []})


@pytest.mark.parametrize("name", [*HANDLERS, "client_hello_handler"])
def test_each_handler_may_be_a_method_of_the_class(host, certificates, name):
    """It is called as often as a handler that was assigned, and with the same arguments but the socket."""

    def play(assigned):
        calls = []
        cls = SslSocket if assigned else method_class(SslSocket, name)

        class Server(SslServer):
            def _make_socket(self, accepted):
                sock = self._adopted(cls() if name == "client_hello_handler" else SslSocket(), accepted)
                sock.configuration = self.configuration
                if assigned and name == "client_hello_handler":
                    sock.client_hello_handler = lambda s, *arguments: calls.append(arguments)
                return sock

        server = Server()
        server.configuration = certificates.server()
        listening(server, "")
        client = SslSocket() if name == "client_hello_handler" else cls()
        client.configuration = certificates.client()
        if name == "ssl_errors_handler":
            client.peer_verify_name = "other.example"
        if assigned and name != "client_hello_handler":

            def handler(s, *arguments):
                calls.append(arguments)
                if name == "ssl_errors_handler":
                    s.ignore_ssl_errors()

            setattr(client, name, handler)
        client.connect_encrypted("localhost", server.port)
        client.write(b"question")
        taken = accept(host, server).socket
        host.wait_for(lambda: taken.encrypted and client.encrypted)
        taken.write(b"answer")
        host.wait_for(lambda: client.bytes_available == 6)
        if name == "about_to_close_handler":
            client.close()
        else:
            taken.disconnect()
        host.wait_for(lambda: client.state is SocketState.UNCONNECTED_STATE)
        taken.abort()
        server.close()
        return calls if assigned else cls.calls

    expected, told = play(True), play(False)
    assert told
    assert len(told) == len(expected)
    if name not in ("client_hello_handler", "ssl_errors_handler"):  # whose arguments are equal to themselves only
        assert told == expected


def test_what_is_assigned_goes_before_the_method_until_it_is_deleted(host):
    calls = []

    class Client(TcpSocket):
        def connected_handler(self):
            calls.append("method")

    def play(sock):
        calls.clear()
        server = listening(TcpServer())
        sock.connect("127.0.0.1", server.port)
        host.wait_for(lambda: sock.state is SocketState.CONNECTED_STATE and server.has_pending_connections)
        sock.abort()
        server.close()
        return list(calls)

    sock = Client()
    assert play(sock) == ["method"]
    kept = sock.connected_handler
    sock.connected_handler = lambda s: calls.append("assigned")
    assert play(sock) == ["assigned"]
    sock.connected_handler = None
    assert play(sock) == []
    assert sock.connected_handler is None
    sock.connected_handler = kept  # what the attribute gave
    assert play(sock) == ["method"]
    sock.connected_handler = lambda s: calls.append("assigned")
    del sock.connected_handler
    assert play(sock) == ["method"]
    sock.connected_handler()
    assert calls == ["method", "method"]
    assert sock.connected_handler == kept


def test_a_method_may_call_the_one_that_it_overrides(host):
    calls = []

    class Base(TcpSocket):
        def state_changed_handler(self, state):
            calls.append(("base", state))

    class Middle(Base):
        pass

    class Derived(Middle):
        def state_changed_handler(self, state):
            calls.append(("derived", state))
            super().state_changed_handler(state)
            Base.state_changed_handler(self, state)

    class Mixin:
        def state_changed_handler(self, state):
            calls.append(("mixin", state))

    class Mixed(Mixin, TcpSocket):
        pass

    class Silenced(Base):
        state_changed_handler = None

    class Plain(TcpSocket):
        @staticmethod
        def state_changed_handler(sock, state):
            calls.append((type(sock).__name__, state))

    def states(cls):
        calls.clear()
        sock = cls()
        assert sock.bind(0)
        sock.abort()
        return [who for who, _ in calls]

    assert states(Middle) == ["base"] * 2
    assert states(Derived) == ["derived", "base", "base"] * 2
    assert states(Mixed) == ["mixin"] * 2
    assert states(Silenced) == []
    assert states(Plain) == ["Plain"] * 2
    with pytest.raises(TypeError, match="state_changed_handler"):
        type("Wrong", (TcpSocket,), {"state_changed_handler": 5})


def test_methods_of_servers_and_relays_are_handlers(host, certificates):
    calls = []

    class Server(SslServer):
        def new_connection_handler(self):
            sock = self.next_pending_secure_connection()
            sock.encrypted_handler = lambda s: calls.append("encrypted")
            sock.disconnected_handler = lambda s: calls.append("disconnected")

        def client_hello_handler(self, sock, hello):
            calls.append((self, type(sock), hello.server_name))

    class Joined(Relay):
        def closed_handler(self, reason):
            calls.append(reason)

    server = Server()
    server.configuration = certificates.server()
    listening(server, "")
    client = SslSocket()
    client.configuration = certificates.client()
    client.connect_encrypted("localhost", server.port)
    host.wait_for(lambda: "encrypted" in calls and client.encrypted)
    assert calls == [(server, SslSocket, "localhost"), "encrypted"]
    client.disconnect()
    host.wait_for(lambda: "disconnected" in calls)
    server.close()

    front, back = make_tcp_pair(host), make_tcp_pair(host)
    calls.clear()
    relay = Joined(front.server, back.client)
    relay.close()
    assert calls == [RelayReason.ABORTED]
    front.client.abort()
    back.server.abort()


def test_a_method_that_raises_goes_to_the_exception_handler(host):
    class Client(TcpSocket):
        def connected_handler(self):
            raise ValueError("from a method")

    server = listening(TcpServer())
    sock = Client()
    sock.connect("127.0.0.1", server.port)
    host.wait_for(lambda: host.failures)
    assert [type(failure) for failure in host.take_failures()] == [ValueError]
    sock.abort()
    server.close()


def generator(s, *arguments):
    yield "nobody iterates over this"


async def asynchronous_generator(s, *arguments):
    yield "nor over this"


@pytest.mark.parametrize("function", [generator, asynchronous_generator], ids=lambda function: function.__name__)
def test_a_function_that_runs_nothing_when_it_is_called_is_no_handler(own_host, function):
    server, sock = TcpServer(), TcpSocket()
    bound = function.__get__(sock)
    for obj, name in ((sock, "connected_handler"), (sock, "ready_read_handler"), (server, "new_connection_handler")):
        kept = lambda *arguments: None  # noqa: E731
        setattr(obj, name, kept)
        for handler in (function, bound):
            with pytest.raises(TypeError, match=f"{name} is called, not awaited"):
                setattr(obj, name, handler)
        assert getattr(obj, name) is kept
    with pytest.raises(TypeError, match=r"Client\.encrypted_handler is called, not awaited"):
        type("Client", (SslSocket,), {"encrypted_handler": function})
