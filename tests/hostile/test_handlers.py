"""Each handler, in each situation that calls it, with each thing it may do.

A scene is one conversation: the subject asks, its peer answers and hangs up (or the subject closes). One handler of the
subject misbehaves. Where that does not end the connection, the conversation has to come to its end as if nothing had been.
"""

from __future__ import annotations

import copy
import gc
import os
import resource
import socket
import warnings
import weakref

import pytest

from peers import HANDLERS, HOSTS, listening, refused_port
from sslsock import SocketError, SocketState, SslMode, SslServer, SslSocket

from .witness import check_consistent, check_states

QUESTION = b"is there anybody?"
ANSWER = b"there is"
A_LOT = 8 << 20

UNCONNECTED = SocketState.UNCONNECTED_STATE
CONNECTED = SocketState.CONNECTED_STATE


class Mistake(Exception):
    """What handlers raise."""


# What a handler does: action(scene, socket).


def connect_again(scene, s):
    s.connect_encrypted("127.0.0.1", scene.port)


def abort_and_connect_again(scene, s):
    s.abort()
    connect_again(scene, s)


def start_encryption(scene, s):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where it has no effect
        s.start_client_encryption()
        s.start_server_encryption()


def configure(scene, s):
    """Nothing that holds for this connection already."""
    s.configuration = copy.copy(s.configuration)
    s.peer_verify_name = s.peer_verify_name
    s.handshake_timeout, s.read_buffer_size, s.encoding = 20, 0, "utf-8"


def read(scene, s):
    scene.received += s.read(1) + s.read_line(2) + s.peek(0)
    scene.received += s.read_all()


def drop(scene, s):
    scene.subject = None
    gc.collect()


def fail(scene, s):
    raise Mistake


def interrupt(scene, s):
    raise KeyboardInterrupt


def replace(scene, s):
    for name in HANDLERS:
        setattr(s, name, scene.make_handler(name))


ACTIONS = {
    "close": lambda scene, s: s.close(),
    "abort": lambda scene, s: s.abort(),
    "disconnect": lambda scene, s: s.disconnect(),
    "connect": connect_again,
    "abort and connect": abort_and_connect_again,
    "bind": lambda scene, s: s.bind(0),
    "open": lambda scene, s: s.open(s.READ_WRITE_MODE),
    "configure": configure,
    "start encryption": start_encryption,
    "read": read,
    "write": lambda scene, s: s.write(b"x"),
    "write a lot": lambda scene, s: s.write(bytes(A_LOT)),
    "drop": drop,
    "raise": fail,
    "interrupt": interrupt,
    "dispatch": lambda scene, s: scene.bystander.wait_inside(),
    "replace": replace,
    "close the server": lambda scene, s: scene.server.close(),
}
OWN_LOOP_ONLY = ("interrupt", "dispatch")
ENDING = ("close", "abort", "disconnect")
BEGINNING = ("connect", "abort and connect", "bind")  # what is told of the connection before ends there
LIMITS = {"write a lot": 1, "abort and connect": 2}  # times that it is done; otherwise three

# Situations: role of the subject, handler, first argument that it is called with (None: any), how the conversation ends.
SITUATIONS = {
    "client, host found": ("client", "host_found_handler", None, "peer"),
    "client, connected": ("client", "connected_handler", None, "peer"),
    "client, looking up": ("client", "state_changed_handler", SocketState.HOST_LOOKUP_STATE, "peer"),
    "client, connecting": ("client", "state_changed_handler", SocketState.CONNECTING_STATE, "peer"),
    "client, state connected": ("client", "state_changed_handler", CONNECTED, "peer"),
    "client, state unconnected": ("client", "state_changed_handler", UNCONNECTED, "peer"),
    "client, state closing": ("client", "state_changed_handler", SocketState.CLOSING_STATE, "write and close"),
    "client, mode client": ("client", "mode_changed_handler", SslMode.SSL_CLIENT_MODE, "peer"),
    "client, mode unencrypted": ("client", "mode_changed_handler", SslMode.UNENCRYPTED_MODE, "peer"),
    "client, ssl errors": ("client", "ssl_errors_handler", None, "peer"),
    "client, encrypted": ("client", "encrypted_handler", None, "peer"),
    "client, ready to read": ("client", "ready_read_handler", None, "peer"),
    "client, bytes written": ("client", "bytes_written_handler", None, "peer"),
    "client, bytes written while closing": ("client", "bytes_written_handler", None, "write and close"),
    "client, about to close": ("client", "about_to_close_handler", None, "subject"),
    "client, peer closed": ("client", "error_handler", SocketError.REMOTE_HOST_CLOSED_ERROR, "peer"),
    "client, peer cut": ("client", "error_handler", SocketError.REMOTE_HOST_CLOSED_ERROR, "peer aborts"),
    "client, refused": ("client", "error_handler", SocketError.CONNECTION_REFUSED_ERROR, "refused"),
    "client, not verified": ("client", "error_handler", SocketError.SSL_HANDSHAKE_FAILED_ERROR, "not verified"),
    "client, unusable": ("client", "error_handler", SocketError.SSL_INVALID_USERDATA_ERROR, "unusable"),
    "client, disconnected": ("client", "disconnected_handler", None, "peer"),
    "server, state unconnected": ("server", "state_changed_handler", UNCONNECTED, "peer"),
    "server, mode server": ("server", "mode_changed_handler", SslMode.SSL_SERVER_MODE, "peer"),
    "server, mode unencrypted": ("server", "mode_changed_handler", SslMode.UNENCRYPTED_MODE, "peer"),
    "server, client hello": ("server", "client_hello_handler", None, "peer"),
    "server, ssl errors": ("server", "ssl_errors_handler", None, "peer"),
    "server, encrypted": ("server", "encrypted_handler", None, "peer"),
    "server, ready to read": ("server", "ready_read_handler", None, "peer"),
    "server, bytes written": ("server", "bytes_written_handler", None, "peer"),
    "server, about to close": ("server", "about_to_close_handler", None, "subject"),
    "server, peer closed": ("server", "error_handler", SocketError.REMOTE_HOST_CLOSED_ERROR, "peer"),
    "server, disconnected": ("server", "disconnected_handler", None, "peer"),
}
FAILING = ("refused", "not verified", "unusable")


class Scene:
    """One conversation with a subject that misbehaves."""

    def __init__(self, host, certificates, bystander, situation, action):
        self.host = host
        self.certificates = certificates
        self.bystander = bystander
        self.role, self.name, self.argument, self.ending = SITUATIONS[situation]
        self.action = action
        self.limit = LIMITS.get(action, 3)
        self.calls = 0
        self.interrupts = 0
        self.rounds_at_call = None
        self.events = []
        self.events_at_call = None
        self.received = b""
        self.heard = b""  # by the peers
        self.subject = None
        self.cast_as = None  # weak: the subject, also when it has been dropped
        self.references = []
        self.peers = []
        self.server = SslServer()
        self.server.configuration = certificates.server()
        self.server.new_connection_handler = self.on_new_connection
        listening(self.server)
        self.port = self.server.port

    def begin(self):
        client = SslSocket()
        client.configuration = self.certificates.client()
        if self.role == "client":
            self.cast(client)
            if self.name == "ssl_errors_handler" or self.ending == "not verified":
                client.peer_verify_name = "other.example"
            if self.ending == "unusable":
                client.configuration.ciphers = "no such cipher"
        else:
            if self.name == "ssl_errors_handler":
                stranger = type(self.certificates)()  # an authority that nobody here knows
                client.configuration = stranger.client(identity=True)
                client.configuration.add_ca_certificate(self.certificates.ca_certificate)
            self.befriend(client)
        if self.ending == "refused":
            with refused_port() as port:
                client.connect_encrypted("127.0.0.1", port)
                self.wait(lambda: self.calls)
            return
        client.connect_encrypted("127.0.0.1", self.port)
        client.write(QUESTION)

    def cast(self, sock):
        """Make `sock` the subject."""
        self.subject = sock
        self.cast_as = weakref.ref(sock)
        self.references.append(self.cast_as)
        for name in HANDLERS:
            setattr(sock, name, self.make_handler(name))
        if self.name == "client_hello_handler":
            sock.client_hello_handler = self.make_handler("client_hello_handler")

    def befriend(self, sock):
        """Make `sock` a well-behaved peer."""
        self.peers.append(sock)
        self.references.append(weakref.ref(sock))
        sock.ready_read_handler = self.on_peer_ready

    def on_new_connection(self, server):
        while (sock := server.next_pending_connection()) is not None:
            if self.role == "server" and self.cast_as is None:
                self.cast(sock)
            else:
                self.befriend(sock)
            sock.start_server_encryption()
            sock.write(ANSWER if self.role == "client" else QUESTION)

    def on_peer_ready(self, sock):
        self.heard += sock.read_all()

    def make_handler(self, name):
        def handler(sock, *arguments):
            first = arguments[0] if arguments and name != "bytes_written_handler" else None
            self.events.append((HANDLERS.get(name, name), first))
            try:
                if name == "ssl_errors_handler" and self.ending != "not verified":
                    sock.ignore_ssl_errors()
                if name == self.name and self.argument in (None, first) and self.calls < self.limit:
                    self.calls += 1
                    if self.events_at_call is None:
                        self.events_at_call = len(self.events)
                        self.rounds_at_call = self.bystander.rounds
                    ACTIONS[self.action](self, sock)
            finally:
                if name == "ready_read_handler":
                    self.received += sock.read_all()

        return handler

    def wait(self, condition):
        """`Host.wait_for`, going on where a handler has interrupted the loop."""
        while True:
            try:
                self.host.wait_for(condition, self.events)
                return
            except KeyboardInterrupt:
                self.interrupts += 1

    def has(self, name, argument=None):
        return (name, argument) in self.events

    def over(self):
        """The first connection of the subject has come to its end."""
        return ("state", UNCONNECTED) in self.events or (self.has_acted() and self.action in ENDING)

    def has_acted(self):
        return self.calls > 0

    def talked(self):
        wanted = (ANSWER, QUESTION) if self.role == "client" else (QUESTION, QUESTION)
        return wanted[0] in self.received and wanted[1] in self.heard

    def play(self):
        self.begin()
        if self.ending not in FAILING:
            self.wait(lambda: self.talked() or self.over())
            self.end_conversation()
        self.wait(lambda: self.has_acted() and self.over())
        aim = self.rounds_at_call + 2
        self.wait(lambda: self.bystander.rounds >= aim)

    def end_conversation(self):
        if self.ending in ("peer", "peer aborts"):
            for peer in self.peers:
                peer.disconnect() if self.ending == "peer" else peer.abort()
        else:
            subject = self.cast_as()
            if subject is not None:
                if self.ending == "write and close":
                    subject.write(bytes(A_LOT))
                subject.close()

    def check(self):
        assert self.calls, "the handler was never called"
        failures = self.host.take_failures()
        assert [type(failure) for failure in failures] == ([Mistake] * self.calls if self.action == "raise" else [])
        assert self.interrupts == (self.calls if self.action == "interrupt" else 0)
        self.check_events()
        for sock in (reference() for reference in self.references):
            if sock is not None:
                check_consistent(sock)

    def check_events(self):
        states = [argument for name, argument in self.events if name == "state"]
        first = UNCONNECTED if self.role == "client" else CONNECTED
        last = states[-1] if self.subject is None else self.subject.state
        check_states(states, first, last)
        if self.action in ENDING:
            operation = ("error", SocketError.OPERATION_ERROR)  # the scene itself has written where that is over
            later = {event[0] for event in self.events[self.events_at_call :] if event != operation}
            allowed = {"about_to_close", "state", "mode", "disconnected", "written"}
            if self.action != "abort":
                allowed |= {"ssl_errors", "error"}
            assert later <= allowed, f"after {self.action}: {self.events}"
        elif self.action not in BEGINNING and self.ending not in FAILING and not self.is_refused():
            assert self.has("disconnected"), self.events
            assert self.talked() is not self.must_not_talk(), (self.received, self.heard[:99], self.events)

    def is_refused(self):
        """There is no server any more when the connection attempt begins."""
        return self.action == "close the server" and ("error", SocketError.CONNECTION_REFUSED_ERROR) in self.events

    def must_not_talk(self):
        """A client's handler that raises has not let the errors pass, whatever it has called before; a server's has not
        let the handshake begin."""
        decides = ("ssl_errors_handler", "client") if self.role == "client" else ("client_hello_handler", "server")
        return self.action in ("raise", "interrupt") and (self.name, self.role) == decides

    def end(self):
        self.server.close()
        for sock in (self.subject, *self.peers, *(reference() for reference in self.references)):
            if sock is not None:
                for name in (*HANDLERS, "client_hello_handler"):
                    setattr(sock, name, None)
                sock.abort()
        self.subject = None
        self.peers.clear()

    def check_nothing_is_left(self):
        gc.collect()
        left = [repr(reference()) for reference in self.references if reference() is not None]
        assert not left, left


def combinations(situations):
    for situation in situations:
        for action in ACTIONS:
            for kind in HOSTS if action not in OWN_LOOP_ONLY else HOSTS[:1]:
                yield pytest.param(kind, situation, action, id=f"{kind}-{situation}-{action}")


@pytest.mark.parametrize(("host", "situation", "action"), list(combinations(SITUATIONS)), indirect=["host"])
def test_a_handler_may_do_anything(host, certificates, bystander, situation, action):
    scene = Scene(host, certificates, bystander, situation, action)
    try:
        scene.play()
    except KeyboardInterrupt:  # would end the whole run of tests
        pytest.fail("what ends programs left a call of the socket's, and not the loop")
    bystander.check()
    scene.check()
    scene.end()
    scene.check_nothing_is_left()


# Servers


def take(scene):
    """A connection that waits, or None, as when the process has no descriptor for it."""
    sock = scene.server.next_pending_connection()
    if sock is not None:
        scene.taken.append(sock)
    return sock


def listen_again(scene, server):
    server.close()
    server.listen(scene.port, "127.0.0.1")


def close_taken(scene, server):
    if (sock := take(scene)) is not None:
        sock.close()


def drop_the_server(scene, server):
    scene.server = None
    gc.collect()


def replace_server_handlers(scene, server):
    server.new_connection_handler = scene.on_new_connection
    server.accept_error_handler = None


def with_taken(name, *arguments):
    def action(scene, server):
        if (sock := take(scene)) is not None:
            getattr(sock, name)(*arguments)

    return action


SERVER_ACTIONS = {
    "close": lambda scene, server: server.close(),
    "close a connection": with_taken("close"),
    "abort": with_taken("abort"),
    "disconnect": with_taken("disconnect"),
    "connect again": listen_again,
    "connect": with_taken("connect_encrypted", "127.0.0.1", 1),
    "start encryption": with_taken("start_server_encryption"),
    "read": with_taken("read_all"),
    "write": with_taken("write", b"x"),
    "write a lot": with_taken("write", bytes(A_LOT)),
    "drop": drop_the_server,
    "raise": fail,
    "interrupt": interrupt,
    "dispatch": lambda scene, server: scene.bystander.wait_inside(),
    "replace": replace_server_handlers,
    "pause": lambda scene, server: (server.pause_accepting(), server.resume_accepting()),
}


class ServerScene:
    """A server that misbehaves once, in a handler, and has to serve the next client if it still listens."""

    def __init__(self, host, certificates, bystander, handler, action):
        self.host = host
        self.bystander = bystander
        self.action = action
        self.calls = 0
        self.interrupts = 0
        self.served = []
        self.taken = []
        self.server = SslServer()
        self.server.configuration = certificates.server()
        self.server.new_connection_handler = self.on_new_connection
        setattr(self.server, handler, self.misbehave)
        listening(self.server)
        self.port = self.server.port
        self.reference = weakref.ref(self.server)

    def on_new_connection(self, server):
        while (sock := server.next_pending_connection()) is not None:
            self.served.append(sock)

    def misbehave(self, server, *arguments):
        self.calls += 1
        server.new_connection_handler = self.on_new_connection
        server.accept_error_handler = None
        SERVER_ACTIONS[self.action](self, server)

    def wait(self, condition):
        while True:
            try:
                self.host.wait_for(condition, self.action)
                return
            except KeyboardInterrupt:
                self.interrupts += 1


def play_server_scene(host, certificates, bystander, handler, action):
    scene = ServerScene(host, certificates, bystander, handler, action)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    begun = []

    def called():
        if not begun:  # not before: some hosts take descriptors when they begin to run
            begun.append(True)
            if handler == "accept_error_handler":
                free = os.dup(first.fileno())
                os.close(free)
                resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
            first.connect(("127.0.0.1", scene.port))
        return scene.calls

    with socket.socket() as first:
        try:
            scene.wait(called)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        bystander.check()
        server = scene.reference()
        if action == "close" or server is None:
            assert server is None or not server.listening
        else:
            assert server.listening and server.port == scene.port
            before = len(scene.served) + len(scene.taken)
            with socket.create_connection(("127.0.0.1", scene.port)):
                scene.wait(lambda: len(scene.served) + len(scene.taken) > before)
    assert scene.calls == 1
    failures = host.take_failures()
    assert [type(failure) for failure in failures] == ([Mistake] if action == "raise" else [])
    assert scene.interrupts == (1 if action == "interrupt" else 0)
    for sock in (*scene.served, *scene.taken):
        check_consistent(sock)
        sock.abort()
    if server is not None:
        server.close()
    return scene.reference


@pytest.mark.parametrize("handler", ["new_connection_handler", "accept_error_handler"])
@pytest.mark.parametrize(
    ("host", "action"),
    [
        pytest.param(kind, action, id=f"{kind}-{action}")
        for action in SERVER_ACTIONS
        for kind in (HOSTS if action not in OWN_LOOP_ONLY else HOSTS[:1])
    ],
    indirect=["host"],
)
def test_a_servers_handler_may_do_anything(host, certificates, bystander, handler, action):
    reference = play_server_scene(host, certificates, bystander, handler, action)
    host.turn()
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("name", ["state_changed_handler", "host_found_handler", "error_handler"])
def test_what_ends_programs_leaves_run_and_the_rest_goes_on(own_host, certificates, own_bystander, name):
    sock = SslSocket()
    events = []
    sock.disconnected_handler = sock.error_handler = lambda s, *arguments: events.append(arguments)
    setattr(sock, name, lambda *arguments: interrupt(None, None))
    before = own_bystander.rounds
    with refused_port() as port:
        sock.connect("127.0.0.1", port)
        with pytest.raises(KeyboardInterrupt):
            own_host.loop.run()
        setattr(sock, name, None)
        own_host.wait_for(lambda: sock.state is UNCONNECTED and own_bystander.rounds > before + 1)
    assert sock.error is SocketError.CONNECTION_REFUSED_ERROR
    if name != "error_handler":
        assert events == [(SocketError.CONNECTION_REFUSED_ERROR,)]
