"""Clients of all kinds, good and bad, for as long as one likes, with checks, watched files, limits and a fleet on: each
connection is counted once, the good ones are served, and the proxy is afterwards as large as it was before.

The long way: SSLSOCK_FULL=1 SSLSOCK_TEST_LIMIT=600 sh ci/test tests/proxy/test_soak.py
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

import pytest

from peers import MEMORY_TELLS

from .operations import DEADLINE, RESET, Origin, Proxy, Site, answer_of, ask, connect, origin, proxy, read_all, wait_until
from .redis_server import RedisServer

FULL = bool(os.environ.get("SSLSOCK_FULL"))
CONNECTIONS = 200_000 if FULL else 1_000
ROUNDS = 20 if FULL else 2  # in each of them the certificate is changed, settings are read again, and Redis goes and comes back
CLIENTS = 8
LIFETIME = 3000.0  # seconds
LOCAL = "127.0.0.1:0"
DENIED = "127.0.0.66"
GROWTH = 4 << 20  # bytes; what the allocator keeps differs from run to run
HELLO = bytes.fromhex("16030100c8010000c40303")  # the first bytes of a ClientHello


class Client:
    """One of every kind, in turns. done: how many connections of each kind have been made."""

    def __init__(self, port: int, site: Site) -> None:
        self._port = port
        self._trusting = site.context
        self._strange = ssl.create_default_context()
        self._strange.load_verify_locations(str(Site(site.folder / "other").ca))
        self._session: ssl.SSLSession | None = None
        self.done: Counter[str] = Counter()

    def _asks(self) -> None:
        with connect(self._port, self._trusting) as connection:
            assert ask(connection, 1000) == answer_of("origin", 1000)

    def _asks_much(self) -> None:
        with connect(self._port, self._trusting) as connection:
            assert ask(connection, 100_000) == answer_of("origin", 100_000)

    def _resumes(self) -> None:
        with connect(self._port, self._trusting, session=self._session) as connection:
            assert ask(connection, 1000) == answer_of("origin", 1000)
            assert isinstance(connection, ssl.SSLSocket)
            self._session = connection.session

    def _ends_first(self) -> None:
        with connect(self._port, self._trusting) as connection:
            connection.sendall(b"get 1000\n")
            socket.socket.shutdown(connection, socket.SHUT_WR)
            assert read_all(connection) == answer_of("origin", 1000)

    def _resets_within(self) -> None:
        with connect(self._port, self._trusting) as connection:
            connection.sendall(b"get 1000000\n")
            connection.recv(1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def _distrusts(self) -> None:
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(self._port, self._strange)

    def _speaks_no_tls(self) -> None:
        with connect(self._port) as connection, contextlib.suppress(ConnectionResetError):
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            read_all(connection)

    def _stops_within_hello(self) -> None:
        with connect(self._port) as connection:
            connection.sendall(HELLO)

    def _resets_within_hello(self) -> None:
        with connect(self._port) as connection:
            connection.sendall(HELLO)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def _says_nothing(self) -> None:
        connect(self._port).close()

    def _is_denied(self) -> None:
        address = "127.0.0.1", self._port
        with pytest.raises(ConnectionResetError), socket.create_connection(address, DEADLINE, (DENIED, 0)) as connection:
            connection.recv(1)

    KINDS = (
        _asks, _asks_much, _resumes, _ends_first, _resets_within, _distrusts, _speaks_no_tls, _stops_within_hello,
        _resets_within_hello, _says_nothing, _is_denied,
    )  # fmt: skip

    def run(self, count: int) -> None:
        kinds: tuple[Callable[[Client], None], ...] = self.KINDS
        for number in range(count):
            kind = kinds[number % len(kinds)]
            kind(self)
            self.done[kind.__name__.strip("_")] += 1


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as made:
        yield made


@pytest.fixture
def back() -> Iterator[Origin]:
    with origin() as made:
        yield made


def quiet(running: Proxy) -> dict[tuple[str, ...], float]:
    """The metrics, once nobody is connected but Redis."""
    found: dict[tuple[str, ...], float] = {}

    def ended() -> object:
        found.update(running.metrics())
        active = sum(value for (name, *_), value in found.items() if name == "sslsock_proxy_connections_active")
        closed = total(found, "sslsock_proxy_connections_closed_total")
        connected = found["sslsock_proxy_fleet_connected",]
        return connected and not active and closed == total(found, "sslsock_proxy_connections_total")

    wait_until(ended, "the end of all connections")
    return found


def total(found: dict[tuple[str, ...], float], name: str) -> float:
    return sum(value for (metric, *_), value in found.items() if metric == name)


@pytest.mark.slow
def test_all_is_counted_and_nothing_grows(tmp_path: Path, back: Origin, store: RedisServer) -> None:
    (tmp_path / "other").mkdir()
    site = Site(tmp_path)
    pair, tickets = site.issue(), tmp_path / "fleet.secret"
    tickets.write_bytes(os.urandom(48))
    tickets.chmod(0o600)
    arguments = [
        *("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", pair, "--threads", 2, "--metrics", LOCAL),
        *("--to-check", "tcp", "--to-check-interval", 0.5, "--fleet", store.url, "--fleet-secret-file", tickets),
        *("--max-connections-per-source", 10_000, "--connection-rate-per-source", 1_000_000, "--handshake-rate", 1_000_000),
        *("--deny-source", DENIED, "--half-closed-timeout", 60, "--connection-lifetime", 600, "--keepalive", 60),
    ]
    with proxy(*arguments, lifetime=LIFETIME) as running, ThreadPoolExecutor(CLIENTS) as pool:
        clients = [Client(running.port, site) for _ in range(CLIENTS)]
        warm = CONNECTIONS // 10
        for count, rounds in ((warm, 1), (CONNECTIONS - warm, ROUNDS)):
            for _ in range(rounds):
                work = [pool.submit(client.run, count // rounds // CLIENTS) for client in clients]
                store.kill()
                site.issue(file="new.pem").replace(pair)
                running.reload()
                store.start()
                for one in work:
                    one.result()
            found = quiet(running)
            if count == warm:
                descriptors, resident = running.descriptors, running.resident
        done = sum((client.done for client in clients), Counter())
        refused = total(found, "sslsock_proxy_connections_refused_total")
        assert total(found, "sslsock_proxy_connections_total") + refused == done.total() and refused == done["is_denied"], found
        good = sum(found[key] for key in found if key[0] == "sslsock_proxy_handshakes_total" and "ok" in key)
        assert good == sum(done[kind] for kind in ("asks", "asks_much", "resumes", "ends_first", "resets_within")), found
        wait_until(lambda: running.descriptors <= descriptors, "that no more descriptors are left")  # but those of a check
        if FULL and MEMORY_TELLS:  # 24 bytes a connection are too much; fewer connections say nothing
            assert running.resident <= resident + GROWTH, f"{running.resident - resident} bytes more than after a tenth"
        assert running.end(signal.SIGTERM) == 0
