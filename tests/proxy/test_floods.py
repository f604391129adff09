"""Too much of everything: handshakes that never end, connections past the limit, no descriptors. Others are served."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import socket
import ssl

import pytest

from peers import open_descriptors

from .operations import (
    DEADLINE,
    RESET,
    Origin,
    Proxy,
    Site,
    Traffic,
    answer_of,
    connect,
    fetch,
    proxy,
    read_from_all,
    say,
    wait_until,
)

LOCAL = "127.0.0.1:0"
MIB = 1 << 20
FLOOD = 300  # fewer than the handshakes that a proxy with 1,024 descriptors, the usual limit, has places for
# A process that spins uses a whole second of CPU in a second; one that waits uses next to nothing.
OTHER_ROUTE = """\
[[listener.route]]
server-names = ["other"]
passthrough = true
to = "tcp://127.0.0.1:1"
"""
QUIET_SECONDS = 1.0
MOST_CPU = 0.3


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    shaking = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        shaking.do_handshake()
    return outgoing.read()


def flood(port: int, count: int, data: bytes = b"") -> list[socket.socket]:
    """Connections that say `data` and nothing more."""
    made = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        made.append(connection)
        if data:
            connection.sendall(data)
    return made


def close(connections: list[socket.socket]) -> None:
    """With a reset: no port waits for its last packets."""
    for connection in connections:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.close()


def assert_quiet(running: Proxy) -> None:
    """It waits; it does not look again and again."""
    before = running.cpu_seconds()
    select.select([], [], [], QUIET_SECONDS)  # the time over which is measured
    used = running.cpu_seconds() - before
    assert used < MOST_CPU, f"{used:.2f} s of CPU in {QUIET_SECONDS:g} s without anything to do"


@pytest.mark.parametrize("passthrough", [False, True], ids=["nothing said", "half a hello, routes by name"])
def test_slow_handshakes_harm_nobody(site: Site, back: Origin, passthrough: bool) -> None:
    hello = client_hello()
    data = hello[: len(hello) // 2] if passthrough else b""
    config = site.folder / "proxy.toml"

    def configure(timeout: int) -> None:
        config.write_text(
            f"""\
threads = 1
handshake-timeout = {timeout}
log-format = "json"
[[listener]]
listen = "tls://{LOCAL}"
cert = "{site.issue()}"
to = "{back.url}"
"""
            + (OTHER_ROUTE if passthrough else "")
        )

    configure(600)  # never reached: they stay, however long it takes
    with proxy("--config", config) as running:
        descriptors = running.descriptors
        assert fetch(running.port, 1000, site.context) == answer_of("origin", 1000)
        resident = running.resident
        slow = flood(running.port, FLOOD, data)
        try:
            for _ in range(10):  # each comes after all of them in the queue
                assert fetch(running.port, 1000, site.context) == answer_of("origin", 1000)
            grown = (running.resident - resident) / FLOOD
            assert grown < 40 * 1024, f"{grown / 1024:.1f} KiB for each connection that does not speak"
        finally:
            close(slow)
        wait_until(lambda: running.descriptors <= descriptors, "the descriptors given back")

    configure(1)
    with proxy("--config", config) as running:
        descriptors = running.descriptors
        slow = flood(running.port, FLOOD, data)
        try:  # the clients stay: it is the proxy that ends them
            # Where there are places for fewer, the oldest have to give way.
            ends = ("handshake_timeout", "handshake_evicted")
            wait_until(lambda: sum(any(end in line for end in ends) for line in running.lines) >= FLOOD, "a line for each")
            wait_until(lambda: running.descriptors <= descriptors, "the descriptors given back")
        finally:
            close(slow)
        assert fetch(running.port, 1000, site.context) == answer_of("origin", 1000)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_flood_past_the_limit(back: Origin, threads: int) -> None:
    limit, count = 20, 300
    arguments = ("--listen", f"tcp://{LOCAL}", "--to", back.url, "--threads", threads, "--max-connections", limit)
    with proxy(*arguments) as running, contextlib.ExitStack() as stack:
        served = [stack.enter_context(connect(running.port)) for _ in range(limit)]
        for connection in served:
            say(connection)
        waiting = [stack.enter_context(connect(running.port)) for _ in range(count)]
        for connection in waiting:
            connection.sendall(b"get 1000\n")
        running.wait_for_line(f"the limit of {limit} connections is reached")
        assert_quiet(running)
        for connection in served:
            say(connection)
        assert back.connections == limit
        assert not select.select(waiting, [], [], 0)[0]
        # One place is enough for all of them, one after the other, whichever thread they are with.
        served[0].close()
        read_from_all(waiting, answer_of("origin", 1000))
        for connection in served[1:]:
            say(connection)


def test_places_are_counted_exactly(back: Origin) -> None:
    """After thousands of connections of several threads there are as many places as at the start."""
    arguments = ("--listen", f"tcp://{LOCAL}", "--to", back.url, "--threads", 4, "--max-connections", 3)
    with proxy(*arguments) as running:
        with Traffic(running.ports, clients=8, size=10) as traffic:
            traffic.wait_for(1500)
            traffic.stop()
            assert not traffic.failures
        with contextlib.ExitStack() as stack:
            live = [stack.enter_context(connect(running.port)) for _ in range(4)]
            for connection in live:
                connection.sendall(b"hello\n")
            answered: list[socket.socket] = []

            def three() -> bool:
                answered.extend(one for one in select.select(live, [], [], 0)[0] if one.recv(100) == b"hello\n")
                return len(answered) >= 3

            wait_until(three, "three answers")
            assert not select.select(live, [], [], 0.2)[0] and len(answered) == 3
            answered[0].close()
            (last,) = set(live) - set(answered)
            assert last.recv(100) == b"hello\n"


def test_no_descriptors_left(back: Origin) -> None:
    with proxy("--listen", f"tcp://{LOCAL}", "--to", back.url, "--threads", 1) as running, contextlib.ExitStack() as stack:
        live = [stack.enter_context(connect(running.port)) for _ in range(5)]
        for connection in live:
            say(connection)
        worker = running.pids[-1]
        most = len(open_descriptors(worker)) + 3  # one connection more, and half of another
        limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (most, limits[1]))
        more = flood(running.port, 60, b"hello\n")
        try:
            running.wait_for_line(os.strerror(errno.EMFILE))
            for connection in live:
                say(connection)
            assert_quiet(running)
            for connection in live:
                say(connection)
            assert not any("left out" in line for line in running.lines), running.lines
        finally:
            close(more)
        # It comes back by itself, as soon as there are descriptors.
        for connection in live:
            connection.close()

        def served() -> bool:
            with contextlib.suppress(OSError):
                return fetch(running.port) == answer_of("origin", 1000)
            return False

        wait_until(served, "an answer")
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
        for _ in range(20):
            assert fetch(running.port) == answer_of("origin", 1000)
        assert len([line for line in running.lines if os.strerror(errno.EMFILE) in line]) <= 3, "it says so again and again"


def test_few_descriptors_from_the_start(back: Origin) -> None:
    """Connections are bounded by what the system gives, so that none is accepted in vain."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))

    arguments = ("--listen", f"tcp://{LOCAL}", "--to", back.url, "--threads", 1, "--max-connections", 1000)
    with proxy(*arguments, preexec_fn=few) as running, contextlib.ExitStack() as stack:
        line = running.wait_for_line("--max-connections 1000: only ")
        possible = int(line.split("only ")[1].split()[0])
        assert 10 <= possible < 60
        clients = [stack.enter_context(connect(running.port)) for _ in range(100)]
        for connection in clients:
            connection.sendall(b"hello\n")
        answered: set[socket.socket] = set()

        def all_places() -> bool:
            answered.update(select.select(clients, [], [], 0)[0])
            return len(answered) >= possible

        wait_until(all_places, "as many answers as there are places")
        assert_quiet(running)
        assert len(select.select(clients, [], [], 0)[0]) == possible
        assert not any("open files" in line for line in running.lines), running.lines
        for connection in answered:
            connection.close()
        late = [connection for connection in clients if connection not in answered]
        assert select.select(late, [], [], DEADLINE)[0]


def test_garbage_floods_leave_nothing_behind(site: Site, back: Origin) -> None:
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", site.issue(), "--threads", 1) as running:
        descriptors = running.descriptors
        made = flood(running.port, 300, b"GET / HTTP/1.0\r\n\r\n" + os.urandom(2000))
        try:
            assert fetch(running.port, 1000, site.context) == answer_of("origin", 1000)
            # The clients do not close: their ends are awaited for a few seconds only.
            wait_until(lambda: running.descriptors <= descriptors, "the descriptors given back")
        finally:
            close(made)


def test_clients_that_reset_at_once(back: Origin) -> None:
    with proxy("--listen", f"tcp://{LOCAL}", "--to", back.url, "--threads", 2) as running:
        descriptors = running.descriptors
        for _ in range(500):
            with socket.create_connection(("127.0.0.1", running.port), timeout=DEADLINE) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        assert fetch(running.port) == answer_of("origin", 1000)
        wait_until(lambda: running.descriptors <= descriptors, "the descriptors given back")
