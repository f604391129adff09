"""An exception at every step: afterwards the socket is as it was, or both directions are closed; and no secret leaves in the
clear, whatever the program does next."""

from __future__ import annotations

import contextlib
import socket

import pytest

from peers import listening, plain_listener
from sslsock import Relay, SocketState, SslMode, SslServer, SslSocket, TcpSocket

from .faults import Fault, LineFault
from .witness import check_consistent

SECRET = b"LOGIN user secret\r\n"
UNCONNECTED = SocketState.UNCONNECTED_STATE
CONNECTED = SocketState.CONNECTED_STATE
MOST_STEPS = 2000


class Wire:
    """A peer of the standard library, which keeps all that comes."""

    def __init__(self, sock):
        self.socket = sock
        self.socket.setblocking(False)
        self.received = b""
        self.ended = False

    def take(self):
        try:
            while not self.ended:
                piece = self.socket.recv(65536)
                self.received += piece
                self.ended = not piece
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        return self.ended


class Play:
    """One scene: `prepare`, then `act` with a fault in it, then what has become of it."""

    def __init__(self, host, certificates):
        self.host = host
        self.certificates = certificates
        self.wires = []
        self.sockets = []
        self.closers = []
        self.told = []

    def wire_to(self, kind=SslSocket):
        """A connected socket, and its peer's view."""
        with plain_listener() as listener:
            sock = self.own(kind())
            sock.connect("127.0.0.1", listener.getsockname()[1])
            self.host.wait_for(lambda: sock.state is CONNECTED)
            self.wire(listener.accept()[0])
        return sock

    def wire(self, sock):
        self.wires.append(Wire(sock))
        self.closers.append(sock.close)
        return self.wires[-1]

    def own(self, sock):
        sock.error_handler = lambda s, error: self.told.append(error)
        sock.disconnected_handler = lambda s: self.told.append("disconnected")
        self.sockets.append(sock)
        return sock

    def pump(self, turns=4):
        """Turns of the loop inside the fault."""
        for _ in range(turns):
            self.host.loop.dispatch(0)

    def check_secret(self):
        for wire in self.wires:
            wire.take()
            assert SECRET.strip() not in wire.received, "the secret left in the clear"

    def end(self):
        for sock in self.sockets:
            sock.error_handler = sock.disconnected_handler = None
            sock.abort()
        for close in self.closers:
            close()


class StartTls(Play):
    """STARTTLS on a connection that stands; the secret is written at once, as programs do."""

    role = "client"
    configuration = "server"

    def prepare(self):
        self.socket = self.wire_to()
        self.socket.peer_verify_name = "localhost"
        self.socket.configuration = getattr(self.certificates, self.configuration)()
        self.socket.encoding = "utf-16"
        self.socket.write_string("hello")

    def act(self):
        getattr(self.socket, f"start_{self.role}_encryption")()
        self.socket.write(SECRET)
        self.pump()

    def after(self):
        sock = self.socket
        if sock.state is CONNECTED and sock.mode is SslMode.UNENCRYPTED_MODE:
            getattr(sock, f"start_{self.role}_encryption")()  # as it was: it works the second time
            assert sock.mode is not SslMode.UNENCRYPTED_MODE
        sock.write(SECRET)
        sock.open(sock.READ_WRITE_MODE)
        sock.write(SECRET)
        self.pump()
        self.check_secret()
        if sock.state is UNCONNECTED:
            self.host.wait_for(lambda: self.wires[0].take(), "the peer's end of a socket that is UNCONNECTED")
        else:
            assert sock.state is CONNECTED


class StartTlsServer(StartTls):
    role = "server"


class StartTlsWithHandler(StartTlsServer):
    """The ClientHello is awaited, and comes."""

    def prepare(self):
        super().prepare()
        self.socket.client_hello_handler = lambda s, hello: s.hold_handshake()
        client = SslSocket()
        client.configuration = self.certificates.client()
        client.peer_verify_name = "localhost"
        with plain_listener() as listener:
            client.connect_encrypted("127.0.0.1", listener.getsockname()[1])
            self.host.wait_for(lambda: client.mode is SslMode.SSL_CLIENT_MODE)
            peer = listener.accept()[0]
        peer.setblocking(False)
        self.hello = b""

        def received():
            with contextlib.suppress(BlockingIOError):
                self.hello += peer.recv(65536)
            return self.hello

        self.host.wait_for(received)
        client.abort()
        peer.close()

    def act(self):
        self.socket.start_server_encryption()
        self.socket.write(SECRET)
        self.wires[0].socket.send(self.hello)
        self.pump()
        self.socket.continue_handshake()
        self.pump()


class Refused(StartTls):
    """OpenSSL refuses the configuration."""

    def prepare(self):
        super().prepare()
        self.socket.configuration.ciphers = "NO-SUCH-CIPHER"

    def after(self):
        super().after()
        self.host.wait_for(lambda: self.socket.state is UNCONNECTED, self.told)


class ConnectEncrypted(Play):
    """From a name to an encrypted connection, with a secret that was written at the start."""

    bound = False

    def prepare(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.closers.append(self.listener.close)
        self.socket = self.own(SslSocket())
        self.socket.configuration = self.certificates.client()

    def connect(self):
        if self.bound:
            assert self.socket.bind(0)
        self.socket.connect_encrypted("127.0.0.1", self.listener.getsockname()[1])

    def act(self):
        self.connect()
        self.socket.write(SECRET)
        for _ in range(6):
            self.pump(1)
            self.take()

    def take(self):
        with contextlib.suppress(BlockingIOError):
            self.wire(self.listener.accept()[0])

    def after(self):
        sock = self.socket
        before = sock.state
        sock.write(SECRET)
        if before is UNCONNECTED or before is SocketState.BOUND_STATE:
            sock.connect_encrypted("127.0.0.1", self.listener.getsockname()[1])  # a retry works
            sock.write(SECRET)
        self.host.wait_for(lambda: sock.state is CONNECTED and sock.mode is SslMode.SSL_CLIENT_MODE, (before, self.told))
        self.take()
        self.pump()
        self.check_secret()


class BindAndConnect(ConnectEncrypted):
    bound = True


class Finish(Play):
    """The end in good order, with data that the peer has not taken."""

    call = "disconnect"
    size = 1 << 23

    def prepare(self):
        self.socket = self.wire_to(TcpSocket)
        self.socket.bytes_written_handler = lambda s, count: None

    def act(self):
        self.socket.write(bytes(self.size))
        getattr(self.socket, self.call)()
        self.pump()

    def after(self):
        sock = self.socket
        if sock.state is CONNECTED:
            getattr(sock, self.call)()
        assert sock.state is not CONNECTED
        assert sock.write(b"after the end") == -1
        self.host.wait_for(lambda: self.wires[0].take(), "the peer's end")
        self.host.wait_for(lambda: sock.state is UNCONNECTED, self.told)
        assert not sock.bytes_to_write


class FinishAtOnce(Finish):
    size = 10


class Close(Finish):
    call = "close"


class Abort(Finish):
    call = "abort"


class PeerCloses(Finish):
    """The other side ends first."""

    def act(self):
        self.socket.write(b"x")
        self.wires[0].socket.shutdown(socket.SHUT_WR)
        self.pump()

    def after(self):
        self.host.wait_for(lambda: self.socket.state is UNCONNECTED, self.told)
        self.host.wait_for(lambda: self.wires[0].take(), "the peer's end")


class Accept(Play):
    """A server takes a connection, which is then encrypted."""

    def prepare(self):
        self.server = SslServer()
        self.server.configuration = self.certificates.server()
        listening(self.server)
        self.closers.append(self.server.close)
        peer = socket.create_connection(self.server_name())
        self.wire(peer)
        self.host.wait_for(lambda: self.server.has_pending_connections)

    def server_name(self):
        return ("127.0.0.1", self.server.port)

    def act(self):
        self.taken = None
        taken = self.server.next_pending_secure_connection()
        self.taken = taken
        self.own(taken)
        taken.write(SECRET)
        self.pump()

    def after(self):
        if self.taken is None:
            if self.server.has_pending_connections:  # as it was
                self.taken = self.own(self.server.next_pending_secure_connection())
            else:
                self.host.failures.clear()
                self.host.wait_for(lambda: self.wires[0].take(), "the peer's end of a connection that nobody has taken")
                return
        self.taken.write(SECRET)
        self.pump()
        self.check_secret()
        if self.taken.state is UNCONNECTED:
            self.host.wait_for(lambda: self.wires[0].take(), "the peer's end")


class Listen(Play):
    """A server begins to listen, and ends."""

    def prepare(self):
        self.server = SslServer()
        self.server.configuration = self.certificates.server()
        self.closers.append(self.server.close)

    def act(self):
        self.server.listen(0, "127.0.0.1")
        self.server.close()

    def after(self):
        if not self.server.listening:
            listening(self.server)
        with socket.create_connection(("127.0.0.1", self.server.port)):
            self.host.wait_for(lambda: self.server.has_pending_connections)
        self.server.close()


class Join(Play):
    """Two connections become one, and end."""

    def prepare(self):
        self.front, self.back = self.wire_to(), self.wire_to()

    def act(self):
        self.relay = None
        self.relay = Relay(self.front, self.back)
        self.wires[0].socket.send(b"there")
        self.pump()
        self.relay.close()

    def after(self):
        if self.front.state is CONNECTED and self.relay is None:  # as it was
            self.relay = Relay(self.front, self.back)
        if self.front.state is CONNECTED:
            self.wires[1].socket.send(b"and back")
            self.host.wait_for(lambda: self.wires[0].take() or b"and back" in self.wires[0].received)
            self.relay.close()
        assert self.front.state is self.back.state is UNCONNECTED
        for wire in self.wires:
            self.host.wait_for(wire.take, "the peer's end")


PLAYS = [
    *(StartTls, StartTlsServer, StartTlsWithHandler, Refused, ConnectEncrypted, BindAndConnect),
    *(Finish, FinishAtOnce, Close, Abort, PeerCloses, Accept, Listen, Join),
]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # a listening socket that is dropped closes, and says so
@pytest.mark.parametrize("kind", PLAYS, ids=lambda kind: kind.__name__)
def test_an_exception_at_any_step_leaves_all_or_nothing(own_host, certificates, kind):
    for step in range(1, MOST_STEPS):
        play = kind(own_host, certificates)
        play.prepare()
        fault = LineFault(step)
        try:
            with fault:
                play.act()
        except Fault:
            pass
        own_host.take_failures()
        place = f"after the exception at {fault.place}"
        try:
            play.after()
            for sock in play.sockets:
                check_consistent(sock)
        except BaseException as exc:
            raise AssertionError(f"{place}: {exc!r}") from exc
        finally:
            play.end()
        own_host.take_failures()
        if not fault.raised:
            assert step > 20, "nothing was traced"
            return
    raise AssertionError(f"the scene has more than {MOST_STEPS} steps")
