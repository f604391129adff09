"""What the standard library's `ssl` lets threads share: contexts that change while they are used, connections that several
threads read, write and look at, MemoryBIO, sessions."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import Any

from crowd import ROUNDS, THREADS, Crowd, files, path_of, repeated

from sslsock import TicketKeys, ssl

MIB = 1 << 20


def contexts() -> tuple[Any, Any]:
    files()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path_of("cert0.pem"), path_of("key0.pem"))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(path_of("ca0.pem"))
    client.load_verify_locations(path_of("ca1.pem"))
    return client, server


class Pair:
    """A client and a server between MemoryBIO."""

    def __init__(self, client: Any, server: Any, session: Any = None, name: str = "localhost") -> None:
        self.bios = [ssl.MemoryBIO() for _ in range(4)]
        self.client = client.wrap_bio(self.bios[0], self.bios[1], server_hostname=name, session=session)
        self.server = server.wrap_bio(self.bios[2], self.bios[3], server_side=True)

    def carry(self) -> None:
        self.bios[2].write(self.bios[1].read())
        self.bios[0].write(self.bios[3].read())

    def shake(self) -> None:
        left = [self.client, self.server]
        while left:
            for one in list(left):
                try:
                    one.do_handshake()
                    left.remove(one)
                except ssl.SSLWantReadError:
                    pass
                self.carry()

    def talk(self, text: bytes) -> None:
        for writer, reader in ((self.client, self.server), (self.server, self.client)):
            writer.write(text)
            self.carry()
            got = b""
            while len(got) < len(text):
                got += reader.read(len(text))
            assert got == text


def test_a_context_changes_while_threads_connect(tmp_path: Path) -> None:
    client, server = contexts()
    keys = TicketKeys()
    log = str(tmp_path / "keys.log")
    sessions: list[Any] = [None]
    names: list[Any] = []

    def connect() -> None:
        pair = Pair(client, server, sessions[-1])
        pair.shake()
        pair.talk(b"z" * 5000)
        assert pair.client.version() == pair.server.version() and pair.client.cipher()
        assert pair.client.getpeercert()["subject"]
        sessions.append(pair.client.session)

    def change_server() -> None:
        for number in (1, 0):
            server.load_cert_chain(path_of(f"cert{number}.pem"), path_of(f"key{number}.pem"))
            server.set_alpn_protocols([f"protocol{number}"])
            server.set_ciphers("ECDHE+AESGCM" if number else "ECDHE+CHACHA20:ECDHE+AESGCM")
            server.num_tickets = 1 + number
            server.sni_callback = (lambda sock, name, context: names.append(name)) if number else None
            server.keylog_filename = log if number else None
            server.use_ticket_keys(keys)
            keys.rotate()

    def change_client() -> None:
        client.load_verify_locations(cadata=files()[0][0][2].decode())
        client.verify_flags = client.verify_flags
        client.options |= ssl.OP_NO_COMPRESSION
        client.set_alpn_protocols(["protocol0", "protocol1"])
        client.minimum_version = ssl.TLSVersion.TLSv1_2
        client.post_handshake_auth = not client.post_handshake_auth
        assert client.get_ciphers() and client.get_ca_certs() and client.cert_store_stats()["x509"] >= 2
        assert client.session_stats()["connect"] >= 0

    Crowd().work(repeated(connect)).meanwhile(change_server).meanwhile(change_client).run()
    assert len(sessions) == 1 + THREADS * ROUNDS


def test_a_client_context_keeps_sessions_for_all_threads() -> None:
    client, server = contexts()
    client.resume_sessions = True
    reused = []

    def connect() -> None:
        pair = Pair(client, server)
        pair.shake()
        pair.talk(b"a")
        reused.append(pair.client.session_reused)

    def change() -> None:
        client.check_hostname = True  # forgets them

    Crowd().work(repeated(connect)).meanwhile(change).run()
    connect()
    connect()
    assert reused[-1]


def test_threads_keep_many_sessions_in_one_context() -> None:
    """A server that gives a hundred tickets at once: each is kept, or makes room for another, in whatever order."""
    client, server = contexts()
    client.resume_sessions = True
    server.num_tickets = 100
    names = [f"{number}.localhost" for number in range(4)]
    client.check_hostname = False

    def connect() -> None:
        for name in names:
            pair = Pair(client, server, name=name)
            pair.shake()
            pair.talk(b"t")

    Crowd().work(repeated(connect)).run()
    connect()
    pair = Pair(client, server)
    pair.shake()
    pair.talk(b"t")
    again = Pair(client, server)
    again.shake()
    assert again.client.session_reused


def test_one_context_is_given_to_connections_by_a_callback() -> None:
    client, server = contexts()
    _, other = contexts()
    other.load_cert_chain(path_of("cert1.pem"), path_of("key1.pem"))
    server.sni_callback = lambda sock, name, context: setattr(sock, "context", other)

    def connect() -> None:
        pair = Pair(client, server)
        pair.shake()
        assert pair.server.context is other
        pair.talk(b"b" * 100)

    Crowd().work(repeated(connect)).run()


def socket_pair() -> tuple[Any, Any]:
    client, server = contexts()
    one, two = socket.socketpair()
    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.append(server.wrap_socket(two, server_side=True)))
    thread.start()
    sock = client.wrap_socket(one, server_hostname="localhost")
    thread.join()
    return sock, made[0]


def test_threads_read_write_and_look_at_one_socket() -> None:
    """Both directions full at once, each with several writers, and somebody who asks about the connection."""
    one, two = socket_pair()
    size = MIB // 2
    got = {"one": 0, "two": 0}

    def send(sock: Any) -> None:
        sock.sendall(b"c" * size)

    def receive(sock: Any, name: str) -> None:
        while got[name] < 2 * size:
            got[name] += len(sock.recv(65536))

    def look() -> None:
        for sock in (one, two):
            assert sock.cipher() and sock.version() and sock.selected_alpn_protocol() is None
            sock.pending()
            assert sock.session is not None
        assert one.getpeercert() and one.get_channel_binding() is not None

    crowd = Crowd().work(lambda: send(one), 2).work(lambda: send(two), 2)
    crowd.work(lambda: receive(one, "one"), 1).work(lambda: receive(two, "two"), 1).meanwhile(look).run()
    assert got == {"one": 2 * size, "two": 2 * size}
    one.close()
    two.close()


def test_a_socket_is_closed_while_another_thread_reads_it() -> None:
    for _ in range(ROUNDS):
        one, two = socket_pair()
        ended = []

        def read(sock: Any = one, ended: Any = ended) -> None:
            try:
                ended.append(sock.recv(100))
            except (OSError, ValueError) as exc:
                ended.append(exc)

        crowd = Crowd().work(read, 2).work(lambda one=one: one.shutdown(socket.SHUT_RDWR), 1)
        crowd.run()
        assert len(ended) == 2
        one.close()
        two.close()


def test_one_memory_bio_is_written_and_read_by_threads() -> None:
    bio = ssl.MemoryBIO()
    read = [0] * THREADS

    def write() -> None:
        for _ in range(200):
            assert bio.write(b"d" * 100) == 100

    def take(place: int) -> None:
        read[place] += len(bio.read(70))

    crowd = Crowd().work(write)
    for place in range(2):
        crowd.meanwhile(lambda place=place: take(place))
    crowd.run()
    assert sum(read) + bio.pending == THREADS * 200 * 100
    bio.write_eof()
    bio.read()
    assert bio.eof


def test_an_object_between_bios_is_used_by_threads() -> None:
    """What is written by several arrives whole; what the BIO holds is never missed by who carries it."""
    client, server = contexts()
    pair = Pair(client, server)
    pair.shake()
    pair.carry()
    arrived = []

    def write() -> None:
        for _ in range(50):
            pair.client.write(b"e" * 1000)

    def carry() -> None:
        pair.bios[2].write(pair.bios[1].read())

    def read() -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            arrived.append(len(pair.server.read(5000)))

    Crowd().work(write, 3).meanwhile(carry).meanwhile(read).run()
    carry()
    while sum(arrived) < 3 * 50 * 1000:
        before = sum(arrived)
        read()
        assert sum(arrived) > before
    assert sum(arrived) == 3 * 50 * 1000
