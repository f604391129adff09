"""Joined sockets, by a seed: handlers that write, read, close, abort, raise, encrypt, fork and dispatch, over a network that
cuts the stream into any pieces; directly, or with a relay between. Whatever happens, these hold:

- What is read is what was written, in order, from the first byte on; and all of it where the end was a clean one.
- From the call that starts encryption on, nothing but TLS records leaves.
- The end of each connection is told once.
- No exception comes but those that handlers raise themselves.
- No descriptor, watcher or object is left.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import socket
import time
import warnings
from collections.abc import Iterator
from typing import Any, Callable, Optional

from core.pairs import identity
from hostile.witness import check_consistent, live_objects
from peers import HANDLERS, open_descriptors
from sslsock import (
    EventLoop,
    OpenMode,
    Relay,
    SocketError,
    SocketState,
    SslConfiguration,
    SslMode,
    SslProtocol,
    SslServer,
    SslSocket,
)

from . import foreign
from .garbage import collected_inside
from .streams import Mistake, check_records, check_text, text
from .wire import Exchange, Wire

DEADLINE = 60.0  # seconds until a run that does not come to its end has failed
READ_WRITE = OpenMode.READ_WRITE_MODE
CONNECTED, UNCONNECTED = SocketState.CONNECTED_STATE, SocketState.UNCONNECTED_STATE
CLOSED_BY_PEER = SocketError.REMOTE_HOST_CLOSED_ERROR
SIZES = (0, 1, 7, 100, 5000, 16384, 16385, 70_000, 300_000)
BOUNDS = (0, 1, 10, 1000, 20_000)
MOST_WRITTEN = 2 << 20  # by one end of a connection


class Line:
    """One end of one connection: what was asked of it, and what it has told."""

    def __init__(self, number: int, tls: bool) -> None:
        self.number = number  # of the stream that it writes
        self.port = 0  # the client's, by which both ends are found
        self.sent = self.reported = 0
        self.received = bytearray()
        self.plain_sent: Optional[int] = 0 if tls else None  # written when encryption was asked for; None: it was not
        self.initial = tls  # from the first byte on
        self.encrypted = False
        self.connected = False
        self.ends = 0
        self.clean = False  # the peer's end was told, and it was no cut
        self.errors: list[SocketError] = []
        self.gave_up = False  # the program has ended it so that what comes is not told any more
        self.aborted = False  # what was written may be lost
        self.replaced = False  # the socket was connected anew before its end was told
        self.deaf = False  # what comes may be thrown away


class End:
    """A socket with handlers that misbehave."""

    def __init__(self, play: SocketPlay, name: str, sock: SslSocket, line: Line, wild: bool = True) -> None:
        self.play, self.name, self.sock, self.line, self.wild = play, name, sock, line, wild
        self.random = random.Random(f"{play.seed} {name}")
        self.depth = 0
        play.ends.append(self)
        for attribute, told in HANDLERS.items():
            setattr(sock, attribute, self.make_handler(told))

    def make_handler(self, told: str) -> Callable[..., None]:
        def handler(sock: SslSocket, *arguments: Any) -> None:
            if self.play.child:
                return
            self.play.note(f"{self.name}: {told}", *(a for a in arguments if isinstance(a, int)))
            self.record(told, *arguments)
            if told == "ssl_errors":
                sock.ignore_ssl_errors()
            self.depth += 1
            try:
                if self.wild and self.depth < 4 and not self.play.settling and self.random.random() < self.play.wildness:
                    self.act()
            finally:
                self.depth -= 1
            if self.play.settling and told == "ready" and not self.play.child:
                self.read(None)

        return handler

    def record(self, told: str, *arguments: Any) -> None:
        line, sock = self.line, self.sock
        if told == "state" and arguments[0] is CONNECTED:
            line.connected = True
            line.port = sock.local_port
        elif told == "written":
            line.reported += arguments[0]
            assert line.reported <= line.sent, f"{self.name}: {line.reported} of {line.sent} bytes were told as written"
        elif told == "disconnected":
            line.ends += 1
            assert line.ends == 1, f"{self.name}: the end was told {line.ends} times"
        elif told == "error":
            if arguments[0] is not SocketError.OPERATION_ERROR:
                line.errors.append(arguments[0])
            if arguments[0] is CLOSED_BY_PEER and sock.clean_close:
                line.clean = True
        elif told == "encrypted":
            assert line.plain_sent is not None, f"{self.name}: encrypted, which nobody has asked for"
            line.encrypted = True

    # What a handler does

    def act(self) -> None:
        actions = {
            self.write: 30,
            self.read_some: 30,
            self.set_bound: 5,
            self.nest: 4,
            self.collect: 2,
            self.fail: 3,
            self.fork: self.play.forks,
            self.disconnect: 2,
            self.close: 1,
            self.abort: 1,
            self.reopen: 1,
            self.encrypt: 6 if self.play.starttls else 0.5,
            self.connect: 1 if self.name == "client" else 0,
        }
        self.random.choices(list(actions), list(actions.values()))[0]()

    def write(self) -> None:
        line = self.line
        size = min(self.random.choice(SIZES), MOST_WRITTEN - line.sent)
        data = self.random.choice((bytes, bytearray, memoryview))(text(line.number, line.sent, size))
        line.sent += size  # first, for a handler may be called inside
        count = -1
        try:
            with self.garbage():
                count = self.sock.write(data)
        finally:
            if line is not self.line or count < 0:
                line.sent -= size  # nothing was accepted, or not on this connection
        self.play.note(f"{self.name} writes {size}: {count}")
        assert count in (size, -1), f"{self.name}: write() of {size} bytes says {count}"

    def take(self, line: Line, data: bytes) -> None:
        if line is self.line:
            line.received += data

    def read(self, count: Optional[int]) -> None:
        line = self.line
        self.take(line, self.sock.read(count))

    def read_some(self) -> None:
        sock, line = self.sock, self.line
        way = self.random.randrange(5)
        count = self.random.choice((0, 1, 10, 1000, 100_000, None))
        self.play.note(f"{self.name} reads {count}, way {way}")
        if way == 0:
            self.take(line, sock.read_line(count))
        elif way == 1:
            room = bytearray(count or 100)
            with self.garbage():
                got = sock.read_into(room)
            self.take(line, bytes(room[:got]))
        elif way == 2:
            seen = sock.peek(count)
            assert sock.peek(count)[: len(seen)] == seen, f"{self.name}: two looks differ"
        else:
            with self.garbage():
                data = sock.read(count)
            self.take(line, data)

    def set_bound(self) -> None:
        bound = self.random.choice(BOUNDS)
        self.play.note(f"{self.name} bound {bound}")
        self.sock.read_buffer_size = bound

    def nest(self) -> None:
        self.play.note(f"{self.name} dispatches")
        self.sock.loop.dispatch(0)

    def collect(self) -> None:
        gc.collect()

    @contextlib.contextmanager
    def garbage(self) -> Iterator[None]:
        """Sometimes Python code runs inside the call, wherever an object is made, and does something to the socket."""
        if self.depth > 3 or self.random.random() > 0.1 or self.play.settling:
            yield
            return
        victim = self.random.choice((self.abort, self.disconnect, self.close))
        self.play.note(f"{self.name} has garbage: {victim.__name__}")
        depth, self.depth = self.depth, 9  # no handler does more: it could write before what is about to be written
        try:
            with collected_inside(lambda: self.play.child or self.play.settling or victim()):
                yield
        finally:
            self.depth = depth

    def fail(self) -> None:
        self.play.note(f"{self.name} raises")
        self.play.mistakes += 1
        raise Mistake

    def fork(self) -> None:
        self.play.note(f"{self.name} forks")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a lookup's thread that an earlier test has left
            child = os.fork()
        if not child:
            self.play.child = True
            return
        until = time.monotonic() + DEADLINE
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
        assert ended[1] == 0, f"{self.name}: the forked child ended with status {ended[1]}"

    def disconnect(self) -> None:
        self.play.note(f"{self.name} disconnects")
        line = self.line
        if self.sock.state is not UNCONNECTED:
            line.gave_up = True
            line.aborted |= not line.connected or (line.plain_sent is not None and not self.sock.encrypted)
        self.sock.disconnect()

    def close(self) -> None:
        self.play.note(f"{self.name} closes")
        line = self.line
        line.gave_up = line.deaf = True
        line.aborted |= not line.connected or (line.plain_sent is not None and not self.sock.encrypted)
        self.sock.close()

    def abort(self) -> None:
        self.play.note(f"{self.name} aborts")
        self.line.gave_up = self.line.aborted = self.line.deaf = True
        self.sock.abort()

    def reopen(self) -> None:
        mode = self.random.choice((OpenMode.READ_ONLY_MODE, OpenMode.WRITE_ONLY_MODE, READ_WRITE))
        opened = self.sock.open(mode)
        self.play.note(f"{self.name} opens {mode}: {opened}")
        self.line.deaf |= opened

    def encrypt(self) -> None:
        sock, line = self.sock, self.line
        self.play.note(f"{self.name} starts encryption")
        if line.plain_sent is None and sock.state is CONNECTED and sock.mode is SslMode.UNENCRYPTED_MODE:
            line.plain_sent = line.sent
        start = sock.start_client_encryption if self.name == "client" else sock.start_server_encryption
        with contextlib.suppress(RuntimeError), warnings.catch_warnings():  # in a relay
            warnings.simplefilter("ignore", RuntimeWarning)  # where it has no effect
            start()

    def connect(self) -> None:
        sock, before = self.sock, self.line
        if sock.state is not UNCONNECTED or self.play.clients > 5:
            return
        self.play.note(f"{self.name} connects")
        before.replaced = before.connected and not before.ends
        before.deaf = True  # what it had unread is dropped
        self.line = self.play.new_line(self.play.encrypted)
        self.play.clients += 1
        self.play.client_lines.append(self.line)
        (sock.connect_encrypted if self.play.encrypted else sock.connect)("127.0.0.1", self.play.exchange.port)


class ForeignEnd:
    """A client that is not ours, and may ask for small records (RFC 6066, 4)."""

    name = "client"

    def __init__(self, play: SocketPlay, line: Line) -> None:
        self.play, self.line = play, line
        fragment = play.random.randint(0, 4)
        play.note("foreign client, fragment", fragment)
        self.engine = foreign.ForeignClient(int(play.version), fragment)
        self.sock = socket.create_connection(("127.0.0.1", play.exchange.port), 20)
        self.sock.setblocking(False)
        line.port = self.sock.getsockname()[1]
        line.connected = line.encrypted = True
        self.out = bytearray(self.engine.start())
        self.closing = False

    def act(self) -> None:
        choose, line = self.play.random, self.line
        if choose.random() < 0.3 and self.engine.handshake_done and not self.closing:
            size = min(choose.choice(SIZES), MOST_WRITTEN - line.sent)
            self.play.note(f"client writes {size}")
            self.out += self.engine.encrypt(text(line.number, line.sent, size))
            line.sent += size
        elif choose.random() < 0.02:
            self.finish()
        self.move(choose.choice((1, 1000, 100_000)))

    def finish(self) -> None:
        """End what it sends. What comes is read all the same."""
        if not self.closing:
            self.play.note("client finishes")
            self.closing = True
            if not self.line.ends:
                self.out += self.engine.close()

    def move(self, size: int = 1 << 20) -> bool:
        line, changed = self.line, False
        if line.ends:
            return False
        try:
            with contextlib.suppress(BlockingIOError):
                if self.out:
                    sent = self.sock.send(self.out[:size])
                    del self.out[:sent]
                    changed = sent > 0
                    if self.closing and not self.out:
                        self.sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(BlockingIOError):
                data = self.sock.recv(size)
                changed = True
                if data:
                    line.received += self.engine.decrypt(data)
                    self.out += self.engine.take()
                else:
                    line.ends, line.clean = 1, self.engine.peer_closed
        except (OSError, foreign.ForeignError) as error:
            self.play.note("client:", repr(error))
            line.errors.append(SocketError.NETWORK_ERROR)
            line.ends = 1
        if line.ends:
            self.close()
        return changed

    def close(self) -> None:
        self.line.ends = 1
        self.sock.close()


class SocketPlay:
    """One run; `trace` tells its steps. Which decisions are drawn depends on the order of events on loopback: a run is repeated
    as exactly as the system repeats that."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = choose = random.Random(f"sockets {seed}")
        self.trace: list[str] = []
        self.ends: list[End] = []
        self.relays: list[Any] = []
        self.client_lines: list[Line] = []
        self.server_lines: list[Line] = []
        self.lines = self.clients = self.mistakes = 0
        self.child = self.settling = False
        self.exceptions: list[BaseException] = []
        self.relayed = choose.random() < 0.3
        self.style = "tls" if self.relayed and choose.random() < 0.7 else choose.choice(("plain", "tls", "tls", "starttls"))
        self.encrypted, self.starttls = self.style == "tls", self.style == "starttls" and not self.relayed
        self.back_encrypted = choose.random() < 0.5
        self.wildness = choose.choice((0.1, 0.3, 0.7))
        self.forks = choose.choice((0, 0, 0, 1))
        self.small = choose.random() < 0.3
        self.faults = choose.choice((0, 0, 0.002, 0.01))
        self.version = choose.choice((SslProtocol.TLS_1_2, SslProtocol.TLS_1_3))
        self.hello = choose.random() < 0.3
        self.foreign: Optional[ForeignEnd] = None
        self.with_foreign = foreign.LIB is not None and self.encrypted and choose.random() < 0.4

    def note(self, *words: object) -> None:
        self.trace.append(" ".join(map(str, words)))

    def new_line(self, tls: bool) -> Line:
        self.lines += 1
        return Line(self.lines, tls)

    def configuration(self, server: bool) -> SslConfiguration:
        # Ed25519's signatures have one size: the same seed gives the same bytes to cut.
        own = identity("ed25519")
        made = SslConfiguration()
        made.use_system_ca = False
        # Of no other run, so that none resumes another's session.
        made.allowed_next_protocols = [f"run-{self.seed}"]
        if server:
            made.local_certificate, made.private_key = own.certificate, own.key
        else:
            made.add_ca_certificate(own.authority)
            made.maximum_protocol = self.version
        return made

    # The run

    def run(self) -> None:
        self.loop = EventLoop.current()
        self.loop.exception_handler = lambda loop, context: self.exceptions.append(context["exception"])
        objects, descriptors = live_objects(), open_descriptors()
        gc.disable()
        try:
            self.play()
        except BaseException:
            if not self.child:
                self.give_up()
            raise
        finally:
            if self.child:  # wherever it has come out: it has no business but to end
                os._exit(0)
            gc.enable()
        self.check_exceptions()
        EventLoop.current().dispatch(0)  # one that was closed outside a turn is kept until there has been one
        self.forget()
        gc.collect()
        left = live_objects() - objects
        left.pop("Context", None)  # the package keeps some
        assert not left, f"objects were left: {dict(left)}"
        now = open_descriptors()
        assert len(now) <= len(descriptors), f"descriptors were left open: {sorted(now.items() - descriptors.items())}"

    def play(self) -> None:
        self.note("relayed" if self.relayed else "direct", self.style, "small" if self.small else "", self.version.name)
        server = self.make_server("server", self.encrypted if not self.relayed else self.back_encrypted)
        port = server.port
        self.exchanges = []
        self.servers = [server]
        if self.relayed:
            self.inner = Exchange(port, self.small)
            self.exchanges.append(self.inner)
            middle = self.make_middle()
            self.servers.append(middle)
            port = middle.port
        self.exchange = Exchange(port, self.small)
        self.exchanges.append(self.exchange)
        line = self.new_line(self.encrypted)
        self.client_lines.append(line)
        self.clients = 100 if self.relayed else 1  # a relay's client connects once
        if self.with_foreign:
            self.foreign = ForeignEnd(self, line)
        else:
            client = SslSocket()
            client.configuration = self.configuration(server=False)
            client.peer_verify_name = "localhost"
            End(self, "client", client, line)
            (client.connect_encrypted if self.encrypted else client.connect)("127.0.0.1", self.exchange.port)
        for _ in range(self.random.randint(20, 150)):
            self.step()
        if self.random.random() < 0.1:
            self.note("the loop closes")
            self.give_up()
            return
        self.settle()
        self.check_lines()

    def make_server(self, name: str, tls: bool) -> SslServer:
        server = SslServer()
        server.configuration = self.configuration(server=True)
        if self.hello:
            server.client_hello_handler = self.on_hello
        server.new_connection_handler = lambda server: self.on_server_connection(server, name, tls)
        assert server.listen(0, "127.0.0.1"), server.error_string
        return server

    def on_hello(self, sock: SslSocket, hello: object) -> None:
        if self.random.random() < 0.3 and not self.child:
            self.note("the handshake is held")
            sock.hold_handshake()
            self.loop.call_soon(sock.continue_handshake)

    def on_server_connection(self, server: SslServer, name: str, tls: bool) -> None:
        if self.child:
            return
        take = server.next_pending_secure_connection if tls else server.next_pending_connection
        while (sock := take()) is not None:
            line = self.new_line(tls)
            line.connected = True
            line.port = sock.remote_port
            self.server_lines.append(line)
            End(self, name, sock, line)

    def make_middle(self) -> SslServer:
        """The server before a relay."""
        middle = SslServer()
        middle.configuration = self.configuration(server=True)
        middle.new_connection_handler = self.on_front
        assert middle.listen(0, "127.0.0.1"), middle.error_string
        return middle

    def on_front(self, middle: SslServer) -> None:
        if self.child:
            return
        take = middle.next_pending_secure_connection if self.encrypted else middle.next_pending_connection
        while (front := take()) is not None:
            back = SslSocket()
            back.configuration = self.configuration(server=False)
            back.peer_verify_name = "localhost"

            def join(back: SslSocket, front: SslSocket = front) -> None:
                try:
                    relay = Relay(front, back)
                except ValueError as error:
                    self.note("no relay:", error)
                    self.abandon(front, back)
                    return
                relay.closed_handler = self._on_relay_closed
                self.relays.append([relay, 0])
                self.note("joined")

            back.connected_handler = join
            back.error_handler = lambda back, error, front=front: front.abort()
            front.disconnected_handler = lambda front, back=back: back.abort()
            self.middles = (front, back)
            (back.connect_encrypted if self.back_encrypted else back.connect)("127.0.0.1", self.inner.port)

    def abandon(self, *socks: SslSocket) -> None:
        self.exchange_fault()
        for sock in socks:
            sock.abort()

    def exchange_fault(self) -> None:
        for exchange in self.exchanges:
            for wire in exchange.wires:
                wire.faulty = True

    def _on_relay_closed(self, relay: Relay, reason: int) -> None:
        self.note("relay closed:", reason.name, relay.error_string)
        for entry in self.relays:
            if entry[0] is relay:
                entry[1] += 1

    def turn(self) -> int:
        count = self.loop.dispatch(0)
        if self.child:
            os._exit(0)
        return count

    def step(self) -> None:
        kind = self.random.random()
        if kind < self.faults:
            wires = [wire for exchange in self.exchanges for wire in exchange.wires if not wire.over]
            if wires:
                hard = self.random.random() < 0.5
                self.note("the wire is reset" if hard else "the wire is cut")
                self.random.choice(wires).cut(hard)
        elif kind < 0.45:
            self.turn()
        elif kind < 0.8:
            exchange = self.random.choice(self.exchanges)
            if not exchange.accept() and exchange.wires:
                self.random.choice(exchange.wires).move(self.random)
        elif kind < 0.82 and self.relays:
            if self.random.random() < 0.1:
                self.note("the relay is closed")
                self.exchange_fault()
                self.random.choice(self.relays)[0].close()
            else:
                self.relays[0][0].bytes_forward, repr(self.relays[0][0])
        elif self.foreign is not None and self.random.random() < 0.5:
            self.foreign.act()
        elif self.ends:
            end = self.random.choice(self.ends)
            try:
                end.act()
            except Mistake:
                self.mistakes -= 1
            if self.child:
                os._exit(0)
            check_consistent(end.sock)

    def settle(self) -> None:
        """The network is perfect, everybody reads and ends, until nothing is left."""
        self.note("settling")
        self.settling = True
        for exchange in self.exchanges:
            for wire in exchange.wires:
                wire.widen()
        for end in list(self.ends):
            end.sock.read_buffer_size = 0
            end.read(None)
        until = time.monotonic() + DEADLINE
        told = [(a, b) for a, b in self.pairs() if self.agree(a, b)]
        self.pump(lambda: all(self.has_arrived(a, b) and self.has_arrived(b, a) for a, b in told), until, "what was written")
        if self.foreign is not None:
            self.foreign.finish()
        for end in list(self.ends):
            if end.sock.state is not UNCONNECTED:
                end.sock.disconnect()
        if not all(end.sock.encrypted or end.line.plain_sent is None for end in self.ends if end.sock.state is not UNCONNECTED):
            # A handshake whose other side nobody has asked for.
            self.exchange_fault()
            for end in self.ends:
                end.line.aborted |= end.sock.state is not UNCONNECTED
                end.sock.abort()
        for server in self.servers:
            server.close()
        for sock in getattr(self, "middles", ()) if not self.relays else ():
            self.abandon(sock)

        def over() -> bool:
            return all(wire.over for exchange in self.exchanges for wire in exchange.wires) and not self.loop.watching

        self.pump(over, until, "the end")
        for end in self.ends:
            end.read(None)
        self.close_network()

    def close_network(self) -> None:
        for exchange in self.exchanges:
            exchange.close()
        if self.foreign is not None:
            self.foreign.close()

    def pump(self, condition: Callable[[], bool], until: float, what: str) -> None:
        while not condition():
            assert time.monotonic() < until, f"{what} does not come: {[end.sock for end in self.ends]}"
            moved = [exchange.move() for exchange in self.exchanges]
            if self.foreign is not None:
                moved.append(self.foreign.move())
            if not self.turn() and not any(moved):
                self.loop.dispatch(0.001)

    # What holds

    def pairs(self) -> list[tuple[Line, Line]]:
        """Both ends of each connection."""
        if self.relayed:
            return list(zip(self.client_lines[:1], self.server_lines[:1]))
        by_port = {wire.server_port: wire.client_port for wire in self.exchange.wires}
        clients = {line.port: line for line in self.client_lines if line.port}
        found = [(clients.get(by_port.get(line.port, 0)), line) for line in self.server_lines]
        return [(client, line) for client, line in found if client is not None]

    def faulty(self, *lines: Line) -> bool:
        wires: list[Wire] = [wire for exchange in self.exchanges for wire in exchange.wires]
        ports = {line.port for line in lines}
        return any(wire.faulty for wire in wires if self.relayed or ports & {wire.client_port, wire.server_port})

    def agree(self, one: Line, other: Line) -> bool:
        """Nothing keeps these two from talking."""
        quiet = all(
            line.connected and not (line.gave_up or line.aborted or line.deaf or line.errors or line.replaced)
            for line in (one, other)
        )
        if self.relayed:
            begun = all(line.initial or line.plain_sent is None for line in (one, other))
            quiet = quiet and begun and bool(self.relays) and not self.relays[0][0].closed
        elif (one.plain_sent is None) is not (other.plain_sent is None):
            return False
        elif self.starttls and one.plain_sent is not None:
            return False  # whether it fits depends on what was read before
        return quiet and not self.faulty(one, other)

    def has_arrived(self, one: Line, other: Line) -> bool:
        return len(other.received) >= one.sent or bool(one.errors or other.errors)

    def check_lines(self) -> None:
        for exchange in self.exchanges:
            for wire in exchange.wires:
                self.check_wire(wire)
        for client, server in self.pairs():
            self.check_direction("server", client, server)
            self.check_direction("client", server, client)
        for line in self.client_lines + self.server_lines:
            if line.connected and not line.replaced:
                assert line.ends == 1, f"line {line.number}: the end was told {line.ends} times"
        for relay, ends in self.relays:
            assert ends == 1, f"the end of {relay} was told {ends} times"

    def check_direction(self, reader: str, source: Line, target: Line) -> None:
        """What the target has read is what the source has written."""
        matched = (source.plain_sent is None) is (target.plain_sent is None)
        got = bytes(target.received)
        if source.plain_sent is not None and not (source.initial if self.relayed else target.encrypted):
            got = got[: source.plain_sent]  # what follows are records, which nobody opens
        if target.replaced or target.deaf:
            return
        check_text(source.number, 0, got, reader)
        assert len(got) <= source.sent, f"{reader}: {len(got)} bytes have come of {source.sent}"
        sealed = target.encrypted and not self.relayed
        # Of a plain stream nobody can tell the end from a cut.
        whole = not (source.aborted or source.errors or self.faulty(source, target)) and target.plain_sent is None
        if target.clean and matched and not target.gave_up and (sealed or whole):
            assert len(got) == source.sent, f"{reader}: a clean end after {len(got)} of {source.sent} bytes"

    def check_wire(self, wire: Wire) -> None:
        """From where encryption was asked for, nothing but records."""
        if self.relayed:
            inner = wire in self.inner.wires
            tls = self.back_encrypted if inner else self.encrypted
            if tls:
                check_records(bytes(wire.up.seen), "upwards")
                check_records(bytes(wire.down.seen), "downwards")
            return
        clients = [line for line in self.client_lines if line.port == wire.client_port]
        servers = [line for line in self.server_lines if line.port == wire.server_port]
        for lines, flow, who in ((clients, wire.up, "client"), (servers, wire.down, "server")):
            seen = bytes(flow.seen)
            for line in lines:
                plain = line.sent if line.plain_sent is None else line.plain_sent
                check_text(line.number, 0, seen[:plain], f"what the {who} sends in the clear")
                check_records(seen[plain:], who)
            if not lines:
                assert not seen or self.encrypted, f"{seen[:20]!r} was sent on a connection that was given up"

    def check_exceptions(self) -> None:
        wrong = [one for one in self.exceptions if not isinstance(one, Mistake)]
        if wrong:
            raise wrong[0]
        assert len(self.exceptions) == self.mistakes, f"{len(self.exceptions)} of {self.mistakes} exceptions were told"

    def give_up(self) -> None:
        """End everything at once."""
        self.settling = True
        self.loop.close()
        self.close_network()
        self.mistakes = sum(isinstance(one, Mistake) for one in self.exceptions)

    def forget(self) -> None:
        for end in self.ends:
            for name in HANDLERS:
                setattr(end.sock, name, None)
        for name in ("ends", "foreign", "relays", "servers", "middles", "exceptions", "exchanges", "loop"):
            self.__dict__.pop(name, None)
        EventLoop.current().exception_handler = None
