"""What surrounds the proxy as a service: back ends that die, ticket keys of a fleet, numbers and lines that add up, sockets and
rights that are given and given up, memory over time."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import pytest

from command_helpers import ENVIRONMENT, command
from peers import MEMORY_TELLS, refused_port
from sslsock.proxy.observability.access_log import LineWriter
from sslsock.proxy.service import openings
from sslsock.proxy.service.openings import Unstartable, open_listeners
from sslsock.proxy.settings.model import Address

from .operations import (
    DEADLINE,
    RESET,
    Origin,
    Proxy,
    Site,
    Traffic,
    answer_of,
    ask,
    connect,
    fetch,
    inherited,
    origin,
    proxy,
    read_all,
    say,
    told_of_threads,
    user_ids,
    wait_until,
    write_ticket_keys,
)

LOCAL = "127.0.0.1:0"
MIB = 1 << 20


# Back ends that die


@pytest.mark.parametrize("threads", [1, 2])
def test_a_back_end_that_dies_takes_only_its_own_connections(threads: int) -> None:
    with origin("stays") as stays, contextlib.ExitStack() as stack:
        dies = Origin("dies")
        arguments = ("--listen", f"tcp://{LOCAL}", "--to", stays.url, "--to", dies.url, "--threads", threads)
        with proxy(*arguments) as running, Traffic(running.ports, clients=4, size=50_000) as traffic:
            live: dict[str, list[socket.socket]] = {"stays": [], "dies": []}
            while min(map(len, live.values())) < 3:
                connection = stack.enter_context(connect(running.port))
                connection.sendall(b"who\n")
                live[connection.recv(100).decode().strip()].append(connection)
            traffic.wait_for(50)
            dies.close()
            for connection in live["dies"]:
                with contextlib.suppress(ConnectionResetError):
                    assert connection.recv(1) == b""
            for connection in live["stays"]:
                say(connection)
            line = running.wait_for_line(f"{dies.url} (")
            # EPIPE: the reset came behind a FIN.
            assert line.partition(" is left out: ")[2] in map(os.strerror, (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE))
            traffic.wait_for_all()
            failed = len(traffic.failures)
            assert failed <= 4, f"{failed} connections failed, of which the dead back end can have had 4: {traffic.failures}"
            traffic.wait_for(100)
            assert len(traffic.failures) == failed, traffic.failures
            again = Origin("again", dies.port)
            stack.callback(again.close)
            wait_until(lambda: traffic.answered_by.get("again"), "the back end used again")
            running.wait_for_line("is used again")
            traffic.stop()
            assert len(traffic.failures) == failed, traffic.failures


# Session tickets


def resumable(running: Proxy, context: ssl.SSLContext) -> ssl.SSLSession:
    with connect(running.port, context) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        ask(connection, 10)  # TLS 1.3 brings its tickets after the handshake
        assert connection.session is not None and connection.session.has_ticket
        return connection.session


def resumes(running: Proxy, context: ssl.SSLContext, session: ssl.SSLSession) -> bool:
    with connect(running.port, context, session=session) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        ask(connection, 10)
        return bool(connection.session_reused)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_two_proxies_share_a_ticket_key_file(site: Site, back: Origin, version: ssl.TLSVersion) -> None:
    context = site.context
    context.minimum_version = context.maximum_version = version
    keys, pair = site.folder / "keys", site.issue()
    old = write_ticket_keys(keys)
    arguments = ("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", pair, "--threads", 2, "--ticket-key-file", keys)
    with proxy(*arguments) as one, proxy(*arguments) as other:
        session = resumable(one, context)
        assert resumes(other, context, session) and resumes(one, context, session)
        write_ticket_keys(keys, old)  # the old key opens still
        one.reload()
        fresh = resumable(one, context)
        assert resumes(one, context, session)
        wait_until(lambda: resumes(other, context, fresh), "the new key at the other proxy, without a signal")
        write_ticket_keys(keys)
        one.reload()
        assert not resumes(one, context, session)
        # A bad file leaves the old keys in force, and is told once.
        last = resumable(one, context)
        keys.write_bytes(b"not a key\n")
        one.send(signal.SIGHUP)
        assert str(keys) in one.wait_for_line("the old settings stay in force")
        assert str(keys) in other.wait_for_line("the old ticket keys stay in force")
        assert resumes(one, context, last)


def test_keys_in_memory_serve_all_threads(site: Site, back: Origin) -> None:
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", site.issue(), "--threads", 4) as running:
        session = resumable(running, site.context)
        assert all(resumes(running, site.context, session) for _ in range(30))


@pytest.mark.parametrize(("text", "mode"), [(b"", 0o600), (b"short\n", 0o600), (None, 0o644)])
def test_a_bad_ticket_key_file_at_the_start(tmp_path: Path, text: bytes | None, mode: int) -> None:
    keys = tmp_path / "keys"
    write_ticket_keys(keys)
    if text is not None:
        keys.write_bytes(text)
    keys.chmod(mode)
    arguments = command("proxy", "--listen", f"tls://{LOCAL}", "--to", "tcp://127.0.0.1:9", "--ticket-key-file", keys)
    result = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, timeout=DEADLINE)
    assert result.returncode == 2 and str(keys) in result.stderr.decode() and b"Traceback" not in result.stderr


# Numbers and lines


def test_metrics_and_log_add_up(site: Site, back: Origin) -> None:
    size, count = 5000, 60
    listener = f"tls://{LOCAL}"
    arguments = ("--listen", listener, "--to", back.url, "--cert", site.issue(), "--threads", 2)
    with proxy(*arguments, "--metrics", LOCAL, "--log-format", "json") as running:
        session = resumable(running, site.context)
        scraped = []
        ended = threading.Event()

        def scrape() -> None:
            while not ended.is_set():
                scraped.append(running.metrics())

        scraper = threading.Thread(target=scrape)
        scraper.start()
        try:
            for number in range(count):
                with connect(running.port, site.context, session=session if number % 3 else None) as connection:
                    assert len(ask(connection, size)) == size
            with connect(running.port) as broken:
                broken.sendall(b"no TLS\r\n\r\n")
                assert broken.recv(100) == b""
        finally:
            ended.set()
            scraper.join()
        running.wait_for_line('"reason"', count + 2)
        logged = [json.loads(line) for line in running.lines if '"reason"' in line]
        numbers = running.metrics()
        name = "sslsock_proxy_"
        assert numbers[(name + "connections_total", listener)] == len(logged) == count + 2
        assert numbers[(name + "connections_active", listener)] == 0
        backward = count * size + 10
        assert numbers[(name + "bytes_total", "back", listener)] == sum(one["bytes_back"] for one in logged) == backward
        forward = count * len(b"get 5000\n") + len(b"get 10\n")
        assert numbers[(name + "bytes_total", "forward", listener)] == sum(one["bytes_forward"] for one in logged) == forward
        resumed = sum(one["resumed"] for one in logged)
        assert resumed == count * 2 // 3
        shaken = name + "handshakes_total"
        assert numbers[(shaken, listener, "ok", "true", "TLSv1.3")] == resumed
        assert numbers[(shaken, listener, "ok", "false", "TLSv1.3")] == count + 1 - resumed
        for reason, times in Counter(one["reason"] for one in logged).items():
            assert numbers[(name + "connections_closed_total", listener, reason)] == times
        assert sum(one["reason"] == "handshake_failed" for one in logged) == 1
        assert numbers[(name + "backend_up", f"127.0.0.1:{back.port}")] == 1
        assert {one["version"] for one in logged if one["backend"]} == {"TLSv1.3"}
        growing = [one.get((name + "connections_total", listener), 0.0) for one in scraped]
        assert len(scraped) > 1 and growing == sorted(growing)


def test_a_handshake_is_counted_before_its_connection_ends(site: Site, back: Origin) -> None:
    arguments = ("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", site.issue(), "--metrics", LOCAL)
    with proxy(*arguments) as running:
        with connect(running.port, site.context) as live:
            say(live)
            assert handshakes(running) == {"ok": 1}
        assert running.end() == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
def test_the_log_names_the_address_at_which_a_connection_arrived(back: Origin, host: str) -> None:
    with proxy("--listen", f"tcp://{host}:0", "--to", back.url, "--log-format", "json") as running:
        with connect(running.port) as connection:
            say(connection)
        line = json.loads(running.wait_for_line('"reason"'))
        assert (line["listener"], line["local"]) == (f"tcp://{host}:0", f"127.0.0.1:{running.port}")


def handshakes(running: Proxy) -> dict[str, float]:
    """How many there were, by result."""
    name = "sslsock_proxy_handshakes_total"
    return {labels[1]: count for (found, *labels), count in running.metrics().items() if found == name}


def test_the_summary_line_of_a_terminal(back: Origin) -> None:
    master, slave = pty.openpty()
    program = command("proxy", "--listen", f"tcp://{LOCAL}", "--to", back.url, "--threads", 2)
    environment = {**ENVIRONMENT, "TERM": "xterm"}
    shown = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while data := os.read(master, 4096):
                shown.extend(data)

    with subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, stderr=slave) as process:
        os.close(slave)
        reader = threading.Thread(target=read)
        reader.start()
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().decode().partition(", to ")[0].rpartition(":")[2])
            with connect(port) as live:
                say(live)
                wait_until(lambda: b"1 connections, " in shown, "the connection in the summary")
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()
            reader.join(DEADLINE)
            os.close(master)
    assert b"Traceback" not in shown and b"MiB/s" in shown


# Sockets and rights


def spread(running: Proxy) -> int:
    """How many threads, of all processes, have used the processor for TLS."""
    return sum(seconds >= 0.02 for seconds in running.thread_seconds().values())


@pytest.mark.parametrize("threads", [2, 4])
def test_connections_spread_over_the_threads(site: Site, back: Origin, threads: int) -> None:
    arguments = ("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", site.issue(), "--threads", threads)
    with proxy(*arguments) as running, Traffic(running.ports, site.context, clients=4, size=100) as traffic:
        wait_until(lambda: spread(running) >= threads, f"{threads} threads at work: {running.thread_seconds()}")
        traffic.stop()
        assert not traffic.failures


@pytest.mark.parametrize("threads", [1, 2])
def test_inherited_sockets_of_both_families_serve_one_listener(back: Origin, threads: int) -> None:
    with contextlib.ExitStack() as stack:
        while True:
            six = stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
            port = six.getsockname()[1]
            with contextlib.suppress(OSError):  # somebody has it
                four = stack.enter_context(socket.create_server(("127.0.0.1", port)))
                break
        arguments = command("proxy", "--listen", f"tcp://localhost:{port}", "--to", back.url, "--threads", threads)
        descriptors = (four.fileno(), six.fileno())
        program = [sys.executable, "-c", PASS_BOTH, *map(str, descriptors), *arguments]
        with proxy(program=program, pass_fds=descriptors) as running:
            for address in ("127.0.0.1", "::1"):
                with socket.create_connection((address, port), DEADLINE) as connection:
                    assert ask(connection, 1000) == answer_of("origin", 1000)
            assert running.end() == 0


PASS_BOTH = """
import os, sys
four, six = os.dup(int(sys.argv[1])), os.dup(int(sys.argv[2]))
high = [os.dup2(fd, 200 + fd) for fd in (four, six)]
os.dup2(high[0], 3)
os.dup2(high[1], 4)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2")
os.execv(sys.argv[3], sys.argv[3:])
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_an_inherited_socket_keeps_its_queue(back: Origin, threads: int) -> None:
    """Whoever connects between two runs is served by the second."""
    with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.ExitStack() as stack:
        port = listening.getsockname()[1]
        program = inherited(listening, "--listen", f"tcp://127.0.0.1:{port}", "--to", back.url, "--threads", threads)
        with proxy(program=program, pass_fds=(listening.fileno(),)) as running:
            assert running.port == port
            assert fetch(port) == answer_of("origin", 1000)
            live = stack.enter_context(connect(port))
            say(live)
            assert fetch(port) == answer_of("origin", 1000)
            running.send(signal.SIGTERM)
            running.wait_for_line("SIGTERM")
            live.close()
            assert running.wait() == 0
        waiting = [stack.enter_context(connect(port)) for _ in range(10)]
        with proxy(program=program, pass_fds=(listening.fileno(),)) as running:
            for connection in waiting:
                assert ask(connection, 1000) == answer_of("origin", 1000)
                connection.close()
            assert running.end() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_after_binding(back: Origin) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # the other user looks into it
        site = Site(Path(folder))
        pair = site.issue()
        arguments = ("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", pair, "--threads", 2, "--user", "nobody")
        pair.chmod(0o644)
        with proxy(*arguments) as running:
            assert len(told_of_threads(running.pid, "status")) > 1
            assert not any("0" in user_ids(pid) for pid in running.pids)
            assert fetch(running.port, 1000, site.context) == answer_of("origin", 1000)
            pair.chmod(0o600)
            running.send(signal.SIGHUP)
            line = running.wait_for_line("the old settings stay in force")
            assert "Permission denied" in line and str(pair) in line
            pair.chmod(0o644)
            running.reload()
            assert fetch(running.port, 1000, site.context) == answer_of("origin", 1000)
            assert running.end() == 0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("host", ["[::1]", "localhost", ""])
def test_hosts_to_listen_on(back: Origin, host: str, threads: int) -> None:
    with proxy("--listen", f"tcp://{host}:0", "--to", back.url, "--threads", threads) as running:
        name = host.strip("[]") or "127.0.0.1"
        for _ in range(4):
            with socket.create_connection((name, running.port), timeout=DEADLINE) as connection:
                assert ask(connection, 10) == answer_of("origin", 10)


@pytest.mark.parametrize("count", [1, 3])
def test_a_name_stands_for_all_its_addresses_that_are_here(tmp_path: Path, count: int) -> None:
    address = Address("tcp", "name.example", 0)
    with (tmp_path / "lines").open("wb") as lines:
        writer = LineWriter(lines)
        rows = open_listeners(address, ["192.0.2.1", "127.0.0.1", "127.0.0.2"], count, writer)
        names = [[socket.socket(fileno=fd) for fd in row] for row in rows]
        writer.close()
    try:
        port = names[0][0].getsockname()[1]
        assert [[one.getsockname() for one in row] for row in names] == [[("127.0.0.1", port), ("127.0.0.2", port)]] * count
        assert f"192.0.2.1 is left out: {os.strerror(errno.EADDRNOTAVAIL)}" in (tmp_path / "lines").read_text()
        with pytest.raises(Unstartable, match=os.strerror(errno.EADDRINUSE)):  # one that is taken is no matter of leaving out
            open_listeners(Address("tcp", "name.example", port), ["127.0.0.3", "127.0.0.2"], count, writer)
    finally:
        for one in (one for row in names for one in row):
            one.close()


def test_a_file_name_that_standard_output_cannot_hold(tmp_path: Path, back: Origin) -> None:
    file = tmp_path / "\u00e4.pem"
    arguments = ("--listen", f"tls://{LOCAL}", "--to", back.url, "--ca-out", file)
    with proxy(*arguments, env={"PYTHONIOENCODING": "ascii:strict"}) as running:
        assert fetch(running.port, context=ssl.create_default_context(cafile=str(file))) == answer_of("origin", 1000)
        assert running.end() == 0


@pytest.mark.parametrize("count", [1, 3])
def test_a_port_of_the_systems_choice_is_free_at_every_address_of_a_name(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Somebody has the first address's port at the second one, three times."""
    opened, ports = openings.open_column, []

    def open_column(host: str, port: int, count: int) -> list[socket.socket]:
        column = opened(host, port, count)
        if host == "127.0.0.1" and len(ports) < 3:
            ports.append(column[0].getsockname()[1])
            stack.enter_context(socket.create_server(("127.0.0.2", ports[-1])))
        return column

    monkeypatch.setattr(openings, "open_column", open_column)
    with contextlib.ExitStack() as stack:
        writer = LineWriter(stack.enter_context(open(os.devnull, "wb")))
        stack.callback(writer.close)
        rows = open_listeners(Address("tcp", "name.example", 0), ["127.0.0.1", "127.0.0.2"], count, writer)
        held = [stack.enter_context(socket.socket(fileno=one)) for row in rows for one in row]
        assert len(held) == 2 * count and len(ports) == 3
        (port,) = {one.getsockname()[1] for one in held}
        assert port not in ports


def test_a_name_all_of_whose_addresses_are_elsewhere(tmp_path: Path) -> None:
    with (tmp_path / "lines").open("wb") as lines:
        writer = LineWriter(lines)
        with pytest.raises(Unstartable, match=f"cannot listen on tcp://name.example:0: {os.strerror(errno.EADDRNOTAVAIL)}"):
            open_listeners(Address("tcp", "name.example", 0), ["192.0.2.1", "198.51.100.1"], 1, writer)
        writer.close()


@pytest.mark.parametrize(
    ("port", "code", "told"), [(443, errno.EACCES, True), (443, errno.EADDRINUSE, False), (4433, errno.EACCES, False)]
)
def test_a_port_that_is_roots_is_told_with_the_right_that_it_takes(port: int, code: int, told: bool) -> None:
    message = str(openings.unopened(Address("tls", "", port), OSError(code, os.strerror(code))))
    assert message.startswith(f"cannot listen on tls://:{port}: {os.strerror(code)}")
    assert ("CAP_NET_BIND_SERVICE" in message) is told


def test_ca_out_is_for_the_start(back: Origin) -> None:
    """Who has dropped his rights could not write it again, and need not."""
    user = ("--user", "nobody") if os.geteuid() == 0 else ()
    with tempfile.TemporaryDirectory() as folder:
        authority = Path(folder) / "ca.pem"
        with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, "--ca-out", authority, *user) as running:
            Path(folder).chmod(0o500)
            authority.chmod(0o400)
            context = ssl.create_default_context(cafile=str(authority))
            running.reload()
            assert fetch(running.port, 1000, context) == answer_of("origin", 1000)
            Path(folder).chmod(0o700)
            assert running.end() == 0


# Memory


def test_thousands_of_connections_leave_nothing_behind(site: Site, back: Origin) -> None:
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", site.issue(), "--threads", 2) as running:
        session = resumable(running, site.context)
        descriptors = running.descriptors

        def some(count: int) -> None:
            for _ in range(count):
                assert resumes(running, site.context, session)

        some(1000)
        resident = running.resident
        some(2000)
        grown = running.resident - resident
        assert not MEMORY_TELLS or grown < MIB, f"{grown / 1024:.0f} KiB more after 2,000 connections"
        wait_until(lambda: running.descriptors <= descriptors, "the descriptors given back")


def raw_hello(name: str) -> bytes:
    """What a client sends first that asks for this name."""
    outgoing = ssl.MemoryBIO()
    shaking = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        shaking.do_handshake()
    return outgoing.read()


def exchange(port: int, data: bytes) -> bytes:
    """All that comes back to `data` and a FIN."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def test_connections_that_end_in_every_way_leave_nothing_behind(site: Site, back: Origin) -> None:
    """In two proxies: one that begins TLS for the other."""
    hellos = {name: raw_hello(f"{name}.example") for name in ("passed", "nowhere")}
    config = site.folder / "proxy.toml"
    with refused_port() as dead, contextlib.ExitStack() as stack:
        config.write_text(
            f"""\
threads = 2
log-format = "json"
[[listener]]
listen = "tls://{LOCAL}"
cert = "{site.issue()}"
[[listener.route]]
server-names = "localhost"
to = "{back.url}"
[[listener.route]]
server-names = "passed.example"
passthrough = true
to = "{back.url}"
[[listener.route]]
alpn = "dead"
to = "tcp://127.0.0.1:{dead}"
"""
        )
        ends_tls = stack.enter_context(proxy("--config", config))
        to = f"tls://localhost:{ends_tls.port}"
        begins_tls = stack.enter_context(proxy("--listen", f"tcp://{LOCAL}", "--to", to, "--to-ca", site.ca, "--threads", 2))
        session = resumable(ends_tls, site.context)
        dead_context = ssl.create_default_context(cafile=str(site.ca))
        dead_context.check_hostname = False
        dead_context.set_alpn_protocols(["dead"])

        def refused_behind() -> None:
            raw = socket.create_connection(("127.0.0.1", ends_tls.port), timeout=DEADLINE)
            with contextlib.suppress(OSError), dead_context.wrap_socket(raw) as connection:
                assert connection.recv(1) == b""

        def left() -> None:
            with socket.create_connection(("127.0.0.1", ends_tls.port), timeout=DEADLINE) as connection:
                connection.sendall(hellos["passed"][:100])
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

        def round_of_all() -> None:
            assert resumes(ends_tls, site.context, session)
            assert fetch(begins_tls.port, 10) == answer_of("origin", 10)
            assert exchange(ends_tls.port, hellos["passed"]) == hellos["passed"]
            exchange(ends_tls.port, hellos["nowhere"])
            exchange(ends_tls.port, b"GET / HTTP/1.0\r\n\r\n")
            refused_behind()
            left()

        both = ends_tls, begins_tls
        descriptors = [running.descriptors for running in both]
        for _ in range(200):
            round_of_all()
        resident = [running.resident for running in both]
        for _ in range(500):
            round_of_all()
        for running, before in zip(both, resident):
            grown = running.resident - before
            assert not MEMORY_TELLS or grown < MIB, f"{grown / 1024:.0f} KiB more after 500 rounds"
        for running, before in zip(both, descriptors):
            wait_until(lambda running=running, before=before: running.descriptors <= before, "the descriptors given back")

        def reasons() -> Counter[str]:
            return Counter(json.loads(line)["reason"] for line in ends_tls.lines if '"reason"' in line)

        failures = dict.fromkeys(("client_reset", "handshake_failed", "no_backend", "no_route"), 700)
        wait_until(lambda: sum(reasons().values()) >= 7 * 700 + 1, "a line for each")
        assert {reason: count for reason, count in reasons().items() if reason not in ("ended", "truncated")} == failures
