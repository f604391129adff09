"""Very much of everything: bytes, connections at once and one after another. Memory, descriptors, objects stay flat."""

from __future__ import annotations

import gc
import logging
import resource
import zlib
from collections import Counter

import pytest

from core.hellos import made_by_ssl
from peers import MEMORY_TELLS, listening, make_ssl_pair, make_tcp_pair, open_descriptors, silence
from sslsock import SslProtocol, SslServer, SslSocket

from .witness import Inventory, check_consistent, live_objects, resident_bytes

pytestmark = pytest.mark.slow

MIB = 1 << 20
PATIENCE = 300.0  # seconds; under valgrind everything takes fifty times as long
MEMORY_FOR_TRANSFER = 16 * MIB  # scratch, kernel's leftovers and the bound of both ends are far below it


@pytest.fixture(autouse=True)
def nothing_is_logged(monkeypatch):
    """pytest keeps it, and it would count."""
    monkeypatch.setattr(logging.getLogger("sslsock"), "disabled", True)


class Sink:
    """Reads what comes to a socket and notes what matters of it."""

    def __init__(self, sock, bound):
        self.count = 0
        self.checksum = 0
        self.most_unread = 0
        self.most_memory = 0
        self.events = 0
        self.bound = bound
        sock.read_buffer_size = bound
        sock.ready_read_handler = self.on_ready

    def on_ready(self, sock):
        self.events += 1
        self.most_unread = max(self.most_unread, sock.bytes_available)
        if self.bound and self.events % 3 == 0:
            self.take(sock.read(self.bound // 2))  # so that it is at its bound now and then
        else:
            self.take(sock.read_all())
        if self.events % 64 == 0:
            self.most_memory = max(self.most_memory, resident_bytes())

    def take(self, data):
        self.count += len(data)
        self.checksum = zlib.crc32(data, self.checksum)


@pytest.mark.parametrize("bound", [0, 10_000, 1_000_000], ids=["unbounded", "10 kB", "1 MB"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "encrypted"])
def test_many_mib_each_way_at_once(host, certificates, bystander, secure, bound):
    size = (64 if host.kind == "own" else 32) * MIB  # well above what may be kept of it
    pair = make_ssl_pair(host, certificates.client(), certificates.server()) if secure else make_tcp_pair(host)
    # Two sizes that no record and no buffer divides.
    up = bytes(range(251)) * (size // 251 + 1)
    down = bytes(range(241)) * (size // 241 + 1)
    left, right = Sink(pair.client, bound), Sink(pair.server, bound)
    before = resident_bytes()
    assert pair.client.write(up) == len(up)
    assert pair.server.write(down) == len(down)

    def done():
        for sink, sock in ((left, pair.client), (right, pair.server)):
            sink.take(sock.read_all())
        return left.count >= len(down) and right.count >= len(up)

    host.wait_for(done, (left.count, right.count), seconds=PATIENCE)
    assert (left.count, left.checksum) == (len(down), zlib.crc32(down))
    assert (right.count, right.checksum) == (len(up), zlib.crc32(up))
    assert pair.client.bytes_to_write == pair.server.bytes_to_write == 0
    if bound:
        assert max(left.most_unread, right.most_unread) <= bound
    if MEMORY_TELLS:
        grown = max(left.most_memory, right.most_memory) - before
        assert grown < MEMORY_FOR_TRANSFER, f"{grown / MIB:.1f} MiB more than before"
    assert not pair.left.has("error") and not pair.right.has("error")
    silence(pair)
    pair.client.abort()
    pair.server.abort()


CONNECTIONS = 2000


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * CONNECTIONS + 200
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"the system allows {hard} descriptors only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_2000_connections_at_once_each_echoing(own_host, certificates, own_bystander, many_descriptors):
    server = SslServer()
    server.configuration = certificates.server()
    server.handshake_timeout = 0
    configuration = certificates.client()
    taken, clients, echoes, wrong = [], [], {}, []

    def new(s):
        while (sock := s.next_pending_secure_connection()) is not None:
            taken.append(sock)
            sock.ready_read_handler = lambda s: s.write(s.read_all())

    def ready(number):
        def handler(s):
            echoes[number] = echoes.get(number, b"") + s.read_all()

        return handler

    server.new_connection_handler = new
    listening(server)
    for number in range(CONNECTIONS):
        client = SslSocket()
        client.configuration = configuration
        client.handshake_timeout = client.connect_timeout = 0
        client.ready_read_handler = ready(number)
        client.error_handler = lambda s, error: wrong.append(s.error_string)
        client.connect_encrypted("127.0.0.1", server.port)
        client.write(b"number %d" % number)
        clients.append(client)
    own_host.wait_for(lambda: len(echoes) == CONNECTIONS or wrong, lambda: len(echoes), seconds=PATIENCE)
    assert not wrong, wrong[:3]
    assert len(taken) == CONNECTIONS
    assert all(client.encrypted for client in clients) and all(sock.encrypted for sock in taken)
    # And once more, now that all of them are there.
    echoes.clear()
    for number, client in enumerate(clients):
        client.write(b"again %d" % number)
    own_host.wait_for(lambda: len(echoes) == CONNECTIONS, lambda: len(echoes), seconds=PATIENCE)
    assert all(echo == b"again %d" % number for number, echo in echoes.items())
    for sock in (*clients, *taken):
        check_consistent(sock)
        sock.error_handler = sock.ready_read_handler = None
        sock.abort()
    server.close()


AT_ONCE = 40
MEMORY_FOR_ROUNDS = MIB


class Rounds:
    """Connections one after another, some at a time. A subclass says how one begins, and when it is over."""

    def __init__(self, host, configuration):
        self.host = host
        self.begun = self.done = self.limit = 0
        self.wrong = []
        self.server = SslServer()
        self.server.configuration = configuration
        self.server.new_connection_handler = self.on_new
        listening(self.server, "0.0.0.0")
        self.watching = host.loop.watching

    def begin_next(self):
        self.begun += 1
        self.begin(self.begun - 1)

    def over(self, sock):
        self.done += 1
        if self.begun < self.limit:
            self.begin_next()

    def run(self, limit):
        self.limit = limit
        while self.begun < min(limit, self.done + AT_ONCE):
            self.begin_next()
        loop = self.host.loop
        while self.done < limit:
            goal = min(limit, self.done + 1000)  # a machine may be slow, but not stand still
            self.host.wait_for(lambda goal=goal: self.done >= goal or self.wrong, lambda: self.done, seconds=PATIENCE)
            assert not self.wrong, self.wrong[:3]
        self.host.wait_for(lambda: loop.watching == self.watching or self.wrong, "connections that linger")
        assert not self.wrong, self.wrong[:3]

    def measure(self):
        gc.collect()
        return live_objects(), len(open_descriptors()), resident_bytes()

    def stay_flat(self, warm_up, total):
        """What is there after `warm_up` connections is all that is there after `total`."""
        self.run(warm_up)
        objects, descriptors, memory = self.measure()
        self.run(total)
        objects_after, descriptors_after, memory_after = self.measure()
        assert (objects_after, descriptors_after) == (objects, descriptors)
        if MEMORY_TELLS:
            grown = memory_after - memory
            assert grown < MEMORY_FOR_ROUNDS, f"{grown / MIB:.2f} MiB more after {total - warm_up} further connections"


class Words(Rounds):
    """Connect, shake hands, one word, close: with both protocols, and with sessions resumed and not."""

    def __init__(self, host, certificates):
        super().__init__(host, certificates.server())
        self.reused = self.full = 0
        self.clients = {}
        for version in (SslProtocol.TLS_1_2, SslProtocol.TLS_1_3):
            self.clients[version] = certificates.client()
            self.clients[version].maximum_protocol = version

    def on_new(self, server):
        while (sock := server.next_pending_secure_connection()) is not None:
            sock.error_handler = self.on_server_error
            sock.encrypted_handler = self.on_server_encrypted

    def on_server_encrypted(self, sock):
        sock.write(b"x")

    def on_server_error(self, sock, error):
        if not sock.clean_close:
            self.wrong.append(f"server: {sock.error_string}")

    def begin(self, number):
        client = SslSocket()
        client.configuration = self.clients[SslProtocol.TLS_1_2 if number % 4 < 2 else SslProtocol.TLS_1_3]
        client.peer_verify_name = "localhost"
        client.ready_read_handler = self.on_ready
        client.error_handler = lambda s, error: self.wrong.append(f"client: {s.error_string}")
        client.disconnected_handler = self.over
        # A host not met before has no session to resume.
        address = "127.0.0.1" if number % 2 else f"127.{1 + number % 250}.{number // 250 % 250}.{1 + number // 62500}"
        client.connect_encrypted(address, self.server.port)

    def on_ready(self, sock):
        sock.read_all()
        if sock.session_reused:
            self.reused += 1
        else:
            self.full += 1
        sock.disconnect()


def test_20000_connections_one_after_another_leave_nothing(own_host, certificates):
    inventory = Inventory(own_host)
    rounds = Words(own_host, certificates)
    rounds.stay_flat(5_000, 20_000)
    assert min(rounds.reused, rounds.full) > 4_000, (rounds.reused, rounds.full)
    rounds.server.close()
    del rounds
    inventory.check()


# What becomes of the wait for a ClientHello. The first four ask for it by name.
NAMES = DECIDED, HELD, REFUSED, LEFT = "decided.example", "held.example", "refused.example", "left.example"
HALF, FOREIGN = made_by_ssl()[:50], b"GET / HTTP/1.0\r\n\r\n"
WAITS = (*NAMES, HALF, FOREIGN)


class Hellos(Rounds):
    """Clients whose handshake the server decides upon, at once or later; and what never comes to that."""

    def __init__(self, host, certificates):
        super().__init__(host, certificates.server("other.example"))
        self.hellos, self.encrypted = Counter(), Counter()
        self.leaving = {}  # clients by their ports
        self.named = certificates.server(*NAMES)
        self.trusting = certificates.client()
        self.server.client_hello_handler = self.on_hello

    def on_new(self, server):
        while (sock := server.next_pending_secure_connection()) is not None:
            sock.encrypted_handler = lambda s: s.disconnect()

    def on_hello(self, sock, hello):
        self.hellos[hello.server_name] += 1
        sock.configuration = self.named
        if hello.server_name == DECIDED:
            return
        sock.hold_handshake()
        if hello.server_name == LEFT:
            self.leaving.pop(sock.remote_port).abort()
        else:
            self.host.loop.call_soon(sock.continue_handshake if hello.server_name == HELD else sock.abort)

    def begin(self, number):
        wait = WAITS[number % len(WAITS)]
        client = SslSocket()
        client.disconnected_handler = self.over
        if wait in NAMES:
            client.configuration = self.trusting
            client.peer_verify_name = wait
            client.connected_handler = self.on_connected
            client.encrypted_handler = self._on_encrypted
            client.connect_encrypted("127.0.0.1", self.server.port)
        else:
            client.connected_handler = lambda s: (s.write(wait), s.disconnect() if wait == HALF else None)
            client.connect("127.0.0.1", self.server.port)

    def on_connected(self, client):
        if client.peer_verify_name == LEFT:
            self.leaving[client.local_port] = client

    def _on_encrypted(self, client):
        self.encrypted[client.peer_verify_name] += 1


def test_6000_client_hellos_one_after_another_leave_nothing(own_host, certificates):
    inventory = Inventory(own_host)
    rounds = Hellos(own_host, certificates)
    rounds.stay_flat(1_500, 6_000)
    assert rounds.hellos == dict.fromkeys(NAMES, 1000)
    assert rounds.encrypted == dict.fromkeys((DECIDED, HELD), 1000)
    rounds.server.close()
    del rounds
    inventory.check()
