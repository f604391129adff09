"""Signals: reload, drain, end; threads; back ends that come and go; sockets and rights that are given and given up."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from command_helpers import ENVIRONMENT, command
from peers import open_descriptors

from .operations import (
    DEADLINE,
    Origin,
    Site,
    Traffic,
    answer_of,
    ask,
    common_name,
    connect,
    fetch,
    origin,
    proxy,
    put,
    read_from_all,
    say,
    wait_until,
    write_ticket_keys,
)

LOCAL = "127.0.0.1:0"
F_SETPIPE_SZ = 1031  # linux/fcntl.h; in fcntl from CPython 3.10 on


# SIGHUP


def test_fifty_reloads_under_traffic_fail_no_connection(site: Site, back: Origin) -> None:
    pairs = [site.issue("first", "first.pem"), site.issue("second", "second.pem")]
    used = site.folder / "used.pem"
    put(pairs[0], used)
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", used, "--threads", 2) as running:
        with connect(running.port, site.context) as live, Traffic(running.ports, site.context) as traffic:
            for number in range(50):
                put(pairs[(number + 1) % 2], used)
                running.reload()
                if number % 10 == 0:
                    traffic.wait_for(5)
                    say(live)
            traffic.wait_for(20)
            traffic.stop()
            say(live)
            assert not traffic.failures and not traffic.refused
            assert traffic.names == {"first", "second"}
            assert common_name(live) == "first"
        with connect(running.port, site.context) as last:
            assert common_name(last) == "first"  # the fiftieth
        assert running.end() == 0


def test_a_bad_file_leaves_the_old_one_in_force_and_says_why(site: Site, back: Origin) -> None:
    pair = site.issue("good")
    used = site.folder / "used.pem"
    put(pair, used)
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", used, "--watch", "off") as running:
        for text, reason in ((b"no certificate", "used.pem"), (pair.read_bytes()[:-200], "used.pem"), (None, "No such file")):
            if text is None:
                used.unlink()
            else:
                used.write_bytes(text)
            before = len(running.lines)
            running.send(signal.SIGHUP)
            wait_until(lambda start=before: len(running.lines) > start, "a line about the bad file")
            line = running.lines[-1]
            assert "the old settings stay in force" in line and reason in line and str(used) in line
            with connect(running.port, site.context) as connection:
                assert common_name(connection) == "good"
                say(connection)
        put(site.issue("better", "better.pem"), used)
        running.reload()
        with connect(running.port, site.context) as connection:
            assert common_name(connection) == "better"


def test_a_warning_that_nobody_reads_does_not_hold_up_a_reload(site: Site, back: Origin) -> None:
    used = site.issue("long")
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=5)
    read_end, write_end = os.pipe()
    with open(read_end, "rb"), open(write_end, "wb", buffering=0) as full:
        os.set_blocking(write_end, False)
        while full.write(b"x"):
            pass
        os.set_blocking(write_end, True)
        arguments = command("proxy", "--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", used)
        with subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=full) as process:
            assert process.stdout is not None
            try:
                port = int(process.stdout.readline().decode().partition(", to ")[0].rpartition(":")[2])
                short = site.authority.issue_cert("localhost", common_name="short", not_after=soon)
                short.private_key_and_cert_chain_pem.write_to_path(used)
                process.send_signal(signal.SIGHUP)

                def seen() -> bool:
                    with connect(port, site.context) as connection:
                        return common_name(connection) == "short"

                wait_until(seen, "the new certificate")
            finally:
                process.kill()


CONFIG = """\
threads = {threads}
max-connections = {limit}
{top}
[[listener]]
listen = "tcp://127.0.0.1:{port}"
to = "{to}"
"""


def test_routes_and_limits_are_swapped_for_new_connections(tmp_path: Path, back: Origin) -> None:
    config = tmp_path / "proxy.toml"
    with origin("other") as other:
        config.write_text(CONFIG.format(threads=2, limit=100, top="", port=0, to=back.url))
        with proxy("--config", config) as running, connect(running.port) as live:
            say(live)
            config.write_text(CONFIG.format(threads=2, limit=1, top="", port=0, to=other.url))
            running.reload()
            with connect(running.port) as waiting:  # past the new limit, which `live` fills
                waiting.sendall(b"hello\n")
                say(live)
                assert select.select([waiting], [], [], 0.1)[0] == []
                config.write_text(CONFIG.format(threads=2, limit=100, top="", port=0, to=other.url))
                running.reload()
                assert waiting.recv(100) == b"hello\n"
            assert fetch(running.port) == answer_of("other", 1000)
            assert ask(live, 1000) == answer_of("origin", 1000)
            assert back.connections == 1


def test_a_handshake_limit_that_is_taken_away_while_the_header_is_awaited(site: Site, back: Origin) -> None:
    config = site.folder / "proxy.toml"
    text = f"""\
threads = 1
handshake-timeout = 600
[[listener]]
listen = "tls://{LOCAL}"
to = "{back.url}"
cert = "{site.issue()}"
proxy-protocol-in = true
trusted-proxy = "127.0.0.1"
"""
    config.write_text(text)

    def go_on(raw: socket.socket) -> None:
        raw.sendall(b"PROXY UNKNOWN\r\n")
        with site.context.wrap_socket(raw, server_hostname="localhost") as connection:
            say(connection)

    with proxy("--config", config) as running, connect(running.port) as first, connect(running.port) as second:
        go_on(second)  # so the first one was accepted before
        config.write_text(text.replace("600", "0"))
        running.reload()
        go_on(first)


def test_a_back_end_that_was_taken_out_is_tried_once_and_forgotten(tmp_path: Path, back: Origin) -> None:
    """By a connection that was on its way there when SIGHUP came."""
    config = tmp_path / "proxy.toml"
    values = {"threads": 1, "limit": 0, "top": "", "port": 0}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(DEADLINE)
        config.write_text(CONFIG.format(**values, to=f"tls://127.0.0.1:{silent.getsockname()[1]}"))
        with proxy("--config", config, "--metrics", LOCAL) as running, connect(running.port) as client:
            with silent.accept()[0]:
                config.write_text(CONFIG.format(**values, to=back.url))
                running.reload()
                assert fetch(running.port) == answer_of("origin", 1000)  # its worker goes by the new settings
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            assert select.select([silent], [], [], 0)[0] == []
            known = [name for name in running.metrics() if name[0] == "sslsock_proxy_backend_up"]
            assert known == [("sslsock_proxy_backend_up", f"127.0.0.1:{back.port}")]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"port": 1}, "the addresses to listen on have changed"),
        ({"threads": 2}, "threads has changed"),
        ({"top": 'log-format = "json"'}, "log-format has changed"),
        ({"top": 'metrics = "127.0.0.1:0"'}, "metrics has changed"),
        ({"top": 'ticket-key-file = "keys"'}, "ticket-key-file has changed"),
        ({"top": 'fleet = "redis://localhost"'}, "fleet has changed"),
        ({"top": 'user = "nobody"'}, "user has changed"),
    ],
)
def test_what_needs_a_restart_is_refused(tmp_path: Path, back: Origin, changes: dict[str, object], reason: str) -> None:
    config = tmp_path / "proxy.toml"
    write_ticket_keys(tmp_path / "keys")
    values = {"threads": 1, "limit": 0, "top": "", "port": 0, "to": back.url}
    config.write_text(CONFIG.format(**values))
    with proxy("--config", config) as running:
        config.write_text(CONFIG.format(**{**values, **changes}))
        running.send(signal.SIGHUP)
        line = running.wait_for_line("the old settings stay in force")
        assert reason in line and "needs a restart" in line
        assert fetch(running.port) == answer_of("origin", 1000)


def test_a_storm_of_hangups(site: Site, back: Origin) -> None:
    pair = site.issue("old")
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", pair, "--threads", 2) as running:
        with Traffic(running.ports, site.context, clients=2) as traffic:
            for _ in range(200):
                running.send(signal.SIGHUP)
            put(site.issue("new", "new.pem"), pair)
            running.send(signal.SIGHUP)  # whatever was read before: it is read again

            def seen() -> bool:
                with connect(running.port, site.context) as connection:
                    return common_name(connection) == "new"

            wait_until(seen, "the new certificate")
            traffic.wait_for(10)
            traffic.stop()
            assert not traffic.failures and not traffic.refused
        assert running.end() == 0


# SIGTERM, SIGINT


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_drain_under_load_cuts_no_response(site: Site, back: Origin, scheme: str, threads: int) -> None:
    cert = ("--cert", site.issue()) if scheme == "tls" else ()
    context = site.context if scheme == "tls" else None
    arguments = ("--listen", f"{scheme}://{LOCAL}", "--to", back.url, "--threads", threads, *cert)
    with proxy(*arguments) as running, Traffic(running.ports, context, clients=8, size=300_000) as traffic:
        traffic.wait_for(30)
        assert running.end() == 0
        traffic.stop()
        assert traffic.failures == []
        assert traffic.refused > 0


def test_drain_waits_for_live_connections_on_all_threads(back: Origin) -> None:
    arguments = ("--listen", f"tcp://{LOCAL}", "--to", back.url, "--threads", 2, "--log-format", "text")
    with proxy(*arguments) as running, contextlib.ExitStack() as stack:
        live = [stack.enter_context(connect(running.port)) for _ in range(12)]
        for connection in live:
            say(connection)
        running.send(signal.SIGTERM)
        running.wait_for_line("SIGTERM: no new connections; 12 are given 30 s to end")
        running.send(signal.SIGTERM)  # says nothing new
        running.send(signal.SIGHUP)
        running.wait_for_line("the proxy is ending")
        wait_until(lambda: not listens(running.port), "the port closed")
        for connection in live:
            assert ask(connection, 100_000) == answer_of("origin", 100_000)
            connection.close()
        assert running.wait() == 0
        assert not any("drained" in line for line in running.lines)


def listens(port: int) -> bool:
    """Whether the kernel has a listening socket with this port."""
    wanted = f":{port:04X}"
    return any(
        fields[1].endswith(wanted) and fields[3] == "0A"
        for name in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/net/{name}").read_text().splitlines()[1:])
    )


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_what_is_left_after_the_drain_timeout_is_cut(back: Origin, threads: int) -> None:
    arguments = ("--listen", f"tcp://{LOCAL}", "--to", back.url, "--threads", threads, "--drain-timeout", 0.5)
    with proxy(*arguments, "--log-format", "text") as running, connect(running.port) as live:
        say(live)
        assert running.end() == 0
        with pytest.raises(ConnectionResetError):  # without TLS nothing else says that it was not the end of the data
            live.recv(1)
        assert any("reason=drained" in line for line in running.lines)


def test_a_drain_timeout_of_zero_is_none(back: Origin) -> None:
    with proxy("--listen", f"tcp://{LOCAL}", "--to", back.url, "--drain-timeout", 0) as running, connect(running.port) as live:
        say(live)
        running.send(signal.SIGTERM)
        wait_until(lambda: not listens(running.port), "the port closed")
        assert ask(live, 1000) == answer_of("origin", 1000)
        live.close()
        assert running.wait() == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_who_waits_for_a_place_when_the_drain_begins_is_served(back: Origin, threads: int) -> None:
    arguments = ("--listen", f"tcp://{LOCAL}", "--to", back.url, "--threads", threads, "--max-connections", 2)
    with proxy(*arguments) as running, contextlib.ExitStack() as stack:
        live = [stack.enter_context(connect(running.port)) for _ in range(2)]
        for connection in live:
            say(connection)
        waiting = [stack.enter_context(connect(running.port)) for _ in range(40)]
        for connection in waiting:
            connection.sendall(b"get 1000\n")
        running.send(signal.SIGTERM)
        running.wait_for_line("SIGTERM")
        for connection in live:
            connection.close()
        read_from_all(waiting, answer_of("origin", 1000))
        assert running.wait() == 0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("draining", [False, True])
def test_sigint_ends_at_once(back: Origin, threads: int, draining: bool) -> None:
    arguments = ("--listen", f"tcp://{LOCAL}", "--to", back.url, "--threads", threads, "--log-format", "json")
    with proxy(*arguments) as running, contextlib.ExitStack() as stack:
        live = [stack.enter_context(connect(running.port)) for _ in range(6)]
        for connection in live:
            say(connection)
        if draining:
            running.send(signal.SIGTERM)
            running.wait_for_line("SIGTERM")
        assert running.end(signal.SIGINT) == 130
        assert sum('"reason": "aborted"' in line for line in running.lines) == 6


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, None)], ids=["TERM", "INT", "HUP"]
)
def test_signals_while_it_starts(tmp_path: Path, back: Origin, number: signal.Signals, status: int | None) -> None:
    """While its server waits for a reader of the authority that it has made."""
    authority = tmp_path / "ca.pem"
    os.mkfifo(authority)
    with authority.open("r+b", buffering=0) as full:
        fcntl.fcntl(full, F_SETPIPE_SZ, 4096)
        full.write(bytes(4096))
        arguments = command("proxy", "--listen", f"tls://{LOCAL}", "--to", back.url, "--ca-out", authority)
        with subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stderr is not None
            try:
                wait_until(lambda: has_open(process.pid, authority), "that it writes")
                process.send_signal(number)
                if status is not None:
                    # If the signal came just before write(2), Python sees it when that returns.
                    full.read(4096)
                    assert process.wait(DEADLINE) == status
                else:
                    full.read(4096)
                    assert process.stdout.readline().startswith(b"listening on")
                    assert b"SIGHUP: read again" in process.stderr.readline()
            finally:
                process.kill()
                rest = process.stderr.read()
    assert b"Traceback" not in rest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["TERM", "HUP"])
def test_signals_while_it_ends_do_not_change_the_status(back: Origin, number: signal.Signals) -> None:
    arguments = command("proxy", "--listen", f"tcp://{LOCAL}", "--to", back.url)
    with subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith(b"listening on")
            process.send_signal(signal.SIGTERM)
            begin = time.monotonic()
            while process.poll() is None and time.monotonic() - begin < DEADLINE:
                process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.001)
            assert process.returncode == 0
        finally:
            process.kill()


def has_open(pid: int, path: Path) -> bool:
    return str(path) in open_descriptors(pid).values()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, None)], ids=["TERM", "INT", "HUP"]
)
def test_signals_while_its_settings_are_read(tmp_path: Path, back: Origin, number: signal.Signals, status: int | None) -> None:
    """Before there is a server: the file is a pipe in which nothing comes."""
    file = tmp_path / "proxy.toml"
    text = f'[[listener]]\nlisten = "tcp://{LOCAL}"\nto = "{back.url}"\n'.encode()
    os.mkfifo(file)
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "PYTHONWARNINGS"}  # the file is left open then
    pipe = subprocess.PIPE
    arguments = command("proxy", "--config", file)
    with subprocess.Popen(arguments, env=environment, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            waiting = open_for_reader(file)
            process.send_signal(number)
            if status is None:
                file.unlink()
                file.write_bytes(text)
                os.write(waiting, text.replace(back.url.encode(), b"tcp://127.0.0.1:1"))
                os.close(waiting)
                first = process.stdout.readline()
                assert first.startswith(b"listening on") and back.url.encode() in first
            else:
                os.close(waiting)
                assert process.wait(DEADLINE) == status
        finally:
            process.kill()
            rest = process.stderr.read()
        assert b"Traceback" not in rest


EMPTY_HELLO = b"\x16\3\1\0\4\1\0\0\0"  # a ClientHello without anything in it: an alert is the answer


def test_the_drain_waits_until_a_refused_client_has_heard_why(site: Site, back: Origin) -> None:
    """A process that ends over bytes which it has not read resets the connection, and the alert may be lost."""
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", site.issue(), "--log-format", "json") as running:
        with connect(running.port) as refused:
            refused.sendall(EMPTY_HELLO)
            running.wait_for_line('"handshake_failed"')
            running.send(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                running.process.wait(1)
            refused.sendall(b"more, after the alert")
            assert refused.recv(100)[:1] == b"\x15"
            assert refused.recv(100) == b""
        assert running.wait() == 0


def test_a_refused_client_that_stays_does_not_keep_the_drain_up(site: Site, back: Origin) -> None:
    arguments = ("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", site.issue(), "--log-format", "json")
    with proxy(*arguments) as running, connect(running.port) as refused:
        refused.sendall(EMPTY_HELLO)
        running.wait_for_line('"handshake_failed"')
        assert running.end() == 0


def open_for_reader(fifo: Path) -> int:
    """The end to write to, once somebody reads."""
    opened: list[int] = []

    def can_open() -> bool:
        with contextlib.suppress(OSError):
            opened.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        return bool(opened)

    wait_until(can_open, "a reader")
    return opened[0]
