"""What a program may do in the handlers of a relay and of a side that still shakes hands; and what thousands of relays leave.

A scene: `alice` talks in the clear to `front`, which is joined to `back`, which talks TLS with `bob`.
"""

from __future__ import annotations

import gc
import weakref

import pytest

from peers import HANDLERS, HOSTS, MEMORY_TELLS, Recorder, listening, make_tcp_pair
from sslsock import Relay, RelayReason, SocketState, SslServer, SslSocket, TcpServer, TcpSocket

from .witness import check_consistent, resident_bytes

UNCONNECTED = SocketState.UNCONNECTED_STATE
PATIENCE = 60.0


class Mistake(Exception):
    """What handlers raise."""


class Scene:
    def __init__(self, host, certificates, bystander, verified=True):
        self.host = host
        self.bystander = bystander
        self.acted = 0
        self.ends = []
        self.more = []  # pairs and relays that an action has made
        pair = make_tcp_pair(host, reads=False)  # what comes before the relay is unread in the front
        self.alice, self.front = pair.client, pair.server
        self.at_alice = Recorder(self.alice)
        self.server = SslServer()
        self.server.configuration = certificates.server()
        self.server.new_connection_handler = self.take
        listening(self.server)
        self.at_bob = None
        self.spare = make_tcp_pair(host)
        self.other = make_tcp_pair(host)
        self.again = listening(TcpServer())
        self.back = SslSocket()
        self.back.configuration = certificates.client()
        self.back.peer_verify_name = "localhost" if verified else "other.example"
        self.references = [weakref.ref(self.front), weakref.ref(self.back)]

    def take(self, server):
        self.at_bob = Recorder(server.next_pending_secure_connection())

    def begin(self):
        """`back` connects, and the relay is made while its handshake is under way."""
        self.back.connected_handler = self.join
        self.back.connect_encrypted("127.0.0.1", self.server.port)
        self.alice.write(b"question")

    def join(self, back):
        self.relay = Relay(self.front, back)
        self.relay.closed_handler = self.on_closed
        self.references.append(weakref.ref(self.relay))

    def on_closed(self, relay, reason):
        self.ends.append(reason)

    def wait(self, condition):
        self.host.wait_for(condition, (self.ends, self.at_alice.events, self.at_bob and self.at_bob.events))

    def end(self):
        self.server.close()
        self.again.close()
        for one in (self.spare, self.other):
            for sock in (one.client, one.server):
                self.clear(sock)
        for reference in self.references:
            if isinstance(reference(), TcpSocket):
                self.clear(reference())
        for sock in (self.alice, self.at_bob and self.at_bob.socket):
            if sock is not None:
                self.clear(sock)
        self.relay = self.front = self.back = self.at_bob = self.at_alice = self.spare = self.other = None
        self.more.clear()
        self.alice = None
        gc.collect()
        assert [repr(one()) for one in self.references if one() is not None] == []

    @staticmethod
    def clear(sock):
        for name in HANDLERS:
            if hasattr(sock, name):
                setattr(sock, name, None)
        sock.abort()


def connect_again(scene):
    for sock in (scene.front, scene.back):
        if sock.state is UNCONNECTED:
            sock.connected_handler = None
            sock.connect("127.0.0.1", scene.again.port)


def join_others(scene):
    relay = Relay(scene.spare.server, scene.other.client)
    ends = []
    relay.closed_handler = lambda relay, reason: ends.append(reason)
    scene.more.append((relay, ends))


def drop(scene):
    scene.relay = scene.front = scene.back = None
    gc.collect()


def fail(scene):
    raise Mistake


ACTIONS = {
    "close": lambda scene: scene.relay.close(),
    "close the front": lambda scene: scene.front.close(),
    "abort": lambda scene: (scene.front.abort(), scene.back.abort()),
    "disconnect": lambda scene: (scene.front.disconnect(), scene.back.disconnect()),
    "connect again": connect_again,
    "join others": join_others,
    "drop": drop,
    "raise": fail,
    "dispatch": lambda scene: scene.bystander.wait_inside(),
    "write": lambda scene: (scene.front.write(b"x"), scene.back.write(b"x")),
}
OWN_LOOP_ONLY = ("dispatch",)
ENDING = ("close", "close the front", "abort", "disconnect")


def cases():
    for action in ACTIONS:
        for kind in HOSTS if action not in OWN_LOOP_ONLY else HOSTS[:1]:
            yield pytest.param(kind, action, id=f"{kind}-{action}")


def check(scene, action):
    """Nobody else has noticed; what the action began goes on."""
    failures = [type(failure) for failure in scene.host.take_failures()]
    assert failures == ([Mistake] if action == "raise" else [])
    if action == "join others":
        ((_, ends),) = scene.more
        scene.spare.client.write(b"through the other")
        scene.host.wait_for(lambda: scene.other.right.data == b"through the other")
        scene.spare.client.disconnect()
        scene.host.wait_for(lambda: ends)
        assert ends == [RelayReason.ENDED]
    for reference in scene.references:
        if isinstance(reference(), TcpSocket):
            check_consistent(reference())


# How a relay ends, and the reason told.
ENDS = {
    "peers": RelayReason.ENDED,
    "handshake": RelayReason.HANDSHAKE_FAILED,
    "idle": RelayReason.IDLE_TIMEOUT,
    "close": RelayReason.ABORTED,
    "close while waiting": RelayReason.ABORTED,
}


@pytest.mark.parametrize("ending", ENDS)
@pytest.mark.parametrize(("host", "action"), list(cases()), indirect=["host"])
def test_closed_handler_may_do_anything(host, certificates, bystander, ending, action):
    scene = Scene(host, certificates, bystander, verified=ending != "handshake")

    def on_closed(relay, reason):
        scene.ends.append(reason)
        assert scene.front.state is UNCONNECTED and scene.back.state is UNCONNECTED
        ACTIONS[action](scene)

    scene.on_closed = on_closed
    if ending == "close while waiting":
        scene.server.new_connection_handler = None
    scene.begin()
    if ending == "close while waiting":
        scene.wait(lambda: scene.back.mode != 0)
        scene.relay.close()
    elif ending != "handshake":
        scene.wait(lambda: scene.at_bob and scene.at_bob.data == b"question")
    if ending == "peers":
        scene.alice.disconnect()
    elif ending == "idle":
        scene.relay.idle_timeout = 0.01
    elif ending == "close":
        scene.relay.close()
    scene.wait(lambda: scene.ends)
    assert scene.ends == [ENDS[ending]]
    if action == "connect again":
        taken = []
        host.wait_for(lambda: len(taken) == 2 or taken.extend(filter(None, [scene.again.next_pending_connection()])))
        host.wait_for(lambda: scene.front.state is scene.back.state is SocketState.CONNECTED_STATE)
        for sock in taken:
            sock.abort()
        scene.clear(scene.front)
        scene.clear(scene.back)
    check(scene, action)
    assert scene.ends == [ENDS[ending]], "told twice"
    scene.end()


@pytest.mark.parametrize("name", ["encrypted_handler", "error_handler"])
@pytest.mark.parametrize(("host", "action"), list(cases()), indirect=["host"])
def test_the_handlers_of_a_side_that_shakes_hands_may_do_anything(host, certificates, bystander, name, action):
    scene = Scene(host, certificates, bystander, verified=name == "encrypted_handler")

    def handler(sock, *args):
        if not scene.acted:
            scene.acted += 1
            ACTIONS[action](scene)

    setattr(scene.back, name, handler)
    scene.begin()
    scene.wait(lambda: scene.acted)
    if name == "error_handler":
        scene.wait(lambda: scene.ends)
        assert scene.ends == [RelayReason.HANDSHAKE_FAILED]
    elif action in ENDING:
        scene.wait(lambda: scene.ends)
        assert scene.ends == [RelayReason.ABORTED]
    else:
        scene.wait(lambda: scene.at_bob.data == b"question")
        scene.at_bob.socket.write(b"answer")
        scene.wait(lambda: scene.at_alice.data == b"answer")
        scene.alice.disconnect()
        scene.wait(lambda: scene.ends)
        assert scene.ends == [RelayReason.ENDED]
    check(scene, action)
    scene.end()


# A relay is made inside each handler of a connected socket.

WHERE = ("connected_handler", "ready_read_handler", "bytes_written_handler", "encrypted_handler", "mode_changed_handler",
         "ssl_errors_handler")  # fmt: skip


@pytest.mark.parametrize("where", WHERE)
def test_a_relay_made_in_a_handler(host, certificates, bystander, where):
    scene = Scene(host, certificates, bystander, verified=where != "ssl_errors_handler")
    scene.relay = None
    scene.begin()
    scene.back.connected_handler = None

    def handler(sock, *args):
        if scene.relay is None:
            if where == "ssl_errors_handler":
                sock.ignore_ssl_errors()
            scene.join(sock)

    setattr(scene.back, where, handler)
    if where in ("ready_read_handler", "bytes_written_handler"):
        scene.wait(lambda: scene.at_bob and scene.at_bob.socket.encrypted)
        (scene.at_bob.socket if where == "ready_read_handler" else scene.back).write(b"first ")
    scene.wait(lambda: scene.relay and scene.at_bob and scene.at_bob.data.endswith(b"question"))
    scene.at_bob.socket.write(b"answer")
    scene.wait(lambda: scene.at_alice.data.endswith(b"answer"))
    assert scene.at_bob.data == (b"first question" if where == "bytes_written_handler" else b"question")
    assert scene.at_alice.data == (b"first answer" if where == "ready_read_handler" else b"answer")
    scene.at_bob.socket.disconnect()
    scene.wait(lambda: scene.ends)
    assert scene.ends == [RelayReason.ENDED]
    scene.end()


def test_a_relay_made_in_new_connection_handler(host, certificates, bystander):
    """From the first moment of a connection, over and over."""
    scene = Scene(host, certificates, bystander)
    ends = []

    def on_new_connection(server):
        front = server.next_pending_secure_connection()
        back = scene.spare.server
        Relay(front, back).closed_handler = lambda relay, reason: ends.append(reason)

    scene.server.new_connection_handler = on_new_connection
    client = SslSocket()
    client.configuration = certificates.client()
    client.peer_verify_name = "localhost"
    client.connect_encrypted("127.0.0.1", scene.server.port)
    client.write(b"all the way")
    host.wait_for(lambda: scene.spare.left.data == b"all the way")
    client.disconnect()
    host.wait_for(lambda: ends)
    assert ends == [RelayReason.ENDED]
    scene.end()


# Many


class Crowd:
    """Relays between sockets of one server, a few at a time, each with a byte each way."""

    AT_ONCE = 20

    def __init__(self, host, total):
        self.host = host
        self.left = total
        self.ended = 0
        self.wrong = []
        self.behind = listening(TcpServer())
        self.behind.new_connection_handler = self.on_behind
        self.gate = listening(TcpServer())
        self.gate.new_connection_handler = self.on_gate

    def start(self):
        for _ in range(self.AT_ONCE):
            self.next()

    def next(self):
        if self.left:
            self.left -= 1
            client = TcpSocket()
            client.ready_read_handler = lambda s: s.read_all() == b"y" and s.disconnect()
            client.connect("127.0.0.1", self.gate.port)
            client.write(b"x")

    def on_behind(self, server):
        while (sock := server.next_pending_connection()) is not None:
            sock.ready_read_handler = lambda s: s.read_all() == b"x" and s.write(b"y")

    def on_gate(self, server):
        while (front := server.next_pending_connection()) is not None:
            back = TcpSocket()
            back.connected_handler = lambda back, front=front: self.join(front, back)
            back.connect("127.0.0.1", self.behind.port)

    def join(self, front, back):
        Relay(front, back).closed_handler = self.on_closed

    def on_closed(self, relay, reason):
        self.ended += 1
        if reason is not RelayReason.ENDED or (relay.bytes_forward, relay.bytes_back) != (1, 1):
            self.wrong.append((reason, relay.bytes_forward, relay.bytes_back))
        self.next()

    def play(self, total):
        aim = self.ended + total
        self.left = total
        self.start()
        self.host.wait_for(lambda: self.ended >= aim, self.wrong, seconds=PATIENCE)
        assert not self.wrong, self.wrong[:3]


def test_thousands_of_relays_leave_nothing(own_host, own_bystander):
    crowd = Crowd(own_host, 0)
    crowd.play(1000)
    gc.collect()
    before = resident_bytes()
    crowd.play(3000)
    gc.collect()
    if MEMORY_TELLS:
        assert resident_bytes() - before < 600 << 10, "memory grows with each relay"
    crowd.behind.close()
    crowd.gate.close()
