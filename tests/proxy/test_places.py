"""Places for connections, and the descriptors behind them: who may take how many, and that they suffice for all at once."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import socket
import ssl
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from sslsock.proxy_protocol import SIGNATURE, encode_v1

from .operations import (
    DEADLINE,
    IN_PROCESSES,
    Origin,
    Proxy,
    Site,
    answer_of,
    connect,
    fetch,
    proxy,
    read_all,
    say,
    wait_until,
)
from .test_floods import client_hello, close, flood

LOCAL = "127.0.0.1:0"
LIMIT = 40
RESET_BY_PEER = (ConnectionError, ssl.SSLError)
HEADER = encode_v1(("192.0.2.1", 4711), ("192.0.2.2", 443))


@contextlib.contextmanager
def guarded(site: Site, back: Origin, *options: object, **more: Any) -> Iterator[Proxy]:
    """A proxy that waits for handshakes for ever."""
    arguments = ("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", site.issue(), "--log-format", "text")
    with proxy(*arguments, "--handshake-timeout", 0, *options, **more) as running:
        yield running


# Silent clients


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01", None], ids=["nothing", "three bytes", "half a ClientHello"])
def test_silent_clients_keep_nobody_out(site: Site, back: Origin, threads: int, data: bytes | None) -> None:
    said = client_hello()[:100] if data is None else data
    with guarded(site, back, "--max-connections", LIMIT, "--threads", threads) as running:
        silent = flood(running.port, 3 * LIMIT, said)
        try:
            for _ in range(10):
                assert fetch(running.port, 1000, site.context) == answer_of("origin", 1000)
            running.wait_for_line("reason=handshake_evicted")
            running.wait_for_line("handshakes are under way, the limit")
        finally:
            close(silent)


def test_silent_clients_whose_hello_or_header_is_awaited(site: Site, back: Origin) -> None:
    certificate = site.issue()
    config = site.folder / "proxy.toml"
    config.write_text(
        f"""\
threads = 1
max-connections = {LIMIT}
handshake-timeout = 0
log-format = "text"
[[listener]]
listen = "tls://{LOCAL}"
cert = "{certificate}"
to = "{back.url}"
[[listener.route]]
server-names = ["other"]
passthrough = true
to = "tcp://127.0.0.1:1"
[[listener]]
listen = "tcp://{LOCAL}"
to = "{back.url}"
proxy-protocol-in = true
trusted-proxy = "127.0.0.1"
[[listener]]
listen = "tcp://{LOCAL}"
to = "{back.url}"
"""
    )
    with proxy("--config", config, listeners=3) as running:
        by_name, by_header, plain = running.ports
        silent = flood(by_name, LIMIT) + flood(by_header, LIMIT)
        try:
            for _ in range(3):
                assert fetch(by_name, 1000, site.context) == answer_of("origin", 1000)
                assert fetch(plain, 1000) == answer_of("origin", 1000)
                with connect(by_header) as connection:
                    connection.sendall(HEADER + b"get 1000\n")
                    assert read_all(connection) == answer_of("origin", 1000)
        finally:
            close(silent)


def test_who_is_served_is_not_cut_for_silent_clients(site: Site, back: Origin) -> None:
    with guarded(site, back, "--max-connections", 8, "--threads", 1) as running, contextlib.ExitStack() as stack:
        served = [stack.enter_context(connect(running.port, site.context)) for _ in range(6)]
        for connection in served:
            say(connection)
        silent = flood(running.port, 60)
        try:
            running.wait_for_line("reason=handshake_evicted")
            served += [stack.enter_context(connect(running.port, site.context)) for _ in range(2)]
            for connection in served:
                say(connection)
            # All places are served now; the next one waits until one of them ends, whatever silent clients do.
            served.pop(0).close()
            assert fetch(running.port, 10, site.context) == answer_of("origin", 10)
            for connection in served:
                say(connection)
        finally:
            close(silent)


# One source


def from_source(port: int, source: str, context: ssl.SSLContext | None = None) -> socket.socket:
    raw = socket.create_connection(("127.0.0.1", port), DEADLINE, (source, 0))
    return raw if context is None else context.wrap_socket(raw, server_hostname="localhost")


def is_refused(make: Callable[..., socket.socket], *args: Any) -> bool:
    try:
        with make(*args) as connection:
            return connection.recv(1) == b"never"
    except ConnectionResetError:  # perhaps so fast that it is not even connected
        return True


@pytest.mark.parametrize("threads", [1, 3])
def test_a_source_has_its_number_in_the_whole_process(back: Origin, threads: int) -> None:
    arguments = ("--listen", f"tcp://{LOCAL}", "--to", back.url, "--threads", threads, "--log-format", "text")
    with proxy(*arguments, "--max-connections-per-source", 5) as running, contextlib.ExitStack() as stack:
        mine = [stack.enter_context(from_source(running.port, "127.0.0.1")) for _ in range(5)]
        for connection in mine:
            say(connection)
        for _ in range(20):
            assert is_refused(from_source, running.port, "127.0.0.1")
        running.wait_for_line("(source_limit: max-connections-per-source), one of the last from 127.0.0.1")
        for number in range(2, 6):
            other = stack.enter_context(from_source(running.port, f"127.0.0.{number}"))
            say(other)
        mine.pop().close()
        running.wait_for_line("reason=ended")
        say(stack.enter_context(from_source(running.port, "127.0.0.1")))
        assert is_refused(from_source, running.port, "127.0.0.1")
        for connection in mine:
            say(connection)


def test_a_source_that_says_nothing_leaves_room_for_others(site: Site, back: Origin) -> None:
    """400 clients of one source at a limit of 400, and none of them more than its number."""
    options = ("--max-connections", 400, "--max-connections-per-source", 100)
    with guarded(site, back, *options) as running:
        silent: list[socket.socket] = []
        try:
            for _ in range(400):
                with contextlib.suppress(ConnectionResetError):  # perhaps it is not even connected
                    silent += flood(running.port, 1)
            running.wait_for_line("(source_limit")
            with from_source(running.port, "127.0.0.2", site.context) as connection:
                say(connection)
            assert not any("handshake_evicted" in line for line in running.lines)
        finally:
            close(silent)


def test_the_source_is_the_client_of_a_trusted_header(back: Origin) -> None:
    arguments = ("--listen", f"tcp://{LOCAL}", "--to", back.url, "--threads", 2, "--log-format", "text")
    options = ("--proxy-protocol-in", "--trusted-proxy", "127.0.0.1", "--max-connections-per-source", 2)

    def client(host: str) -> socket.socket:
        connection = connect(running.port)
        connection.sendall(encode_v1((host, 4711), ("2001:db8::1" if ":" in host else "192.0.2.2", 443)))
        return connection

    with proxy(*arguments, *options) as running, contextlib.ExitStack() as stack:
        for host in ("192.0.2.1", "192.0.2.3", "2001:db8::1", "2001:db8:0:1::1"):
            for _ in range(2):
                say(stack.enter_context(client(host)))
        for host in ("192.0.2.1", "2001:db8::aaaa"):
            assert is_refused(client, host)
        assert "reason=source_limit" in running.wait_for_line("peer=192.0.2.1:4711")  # the others of it are there still
        unknown = [stack.enter_context(connect(running.port)) for _ in range(4)]
        for connection in unknown:
            connection.sendall(b"PROXY UNKNOWN\r\n")
            say(connection)


PATHS = [b"/run/a.sock", b"a:\xff", b"\xff", b"::1%\xff", b"\xed\xa0\x80:", b'/run/"q\\', b"a=b c\n", b"\0abstract\0:\0name"]


def test_a_source_may_be_a_path_whatever_its_bytes_are(back: Origin) -> None:
    arguments = ("--listen", f"tcp://{LOCAL}", "--to", back.url, "--threads", 1, "--log-format", "json")
    options = ("--proxy-protocol-in", "--trusted-proxy", "127.0.0.1", "--max-connections-per-source", 1)

    def client(path: bytes) -> socket.socket:
        connection = connect(running.port)
        family = b"\x21\x31\0\xd8"  # PROXY, UNIX and STREAM, 216 bytes
        connection.sendall(SIGNATURE + family + path.ljust(108, b"\0") + bytes(108))
        return connection

    with proxy(*arguments, *options) as running, contextlib.ExitStack() as stack:
        for path in PATHS:
            say(stack.enter_context(client(path)))
            assert is_refused(client, path), path
        for _ in range(3):  # a client that was not bound to a path: the header names none
            say(stack.enter_context(client(b"")))
        running.wait_for_line("source_limit", len(PATHS))
        records = [json.loads(line) for line in running.lines]
        assert all("internal_error" not in line and "exception" not in line for line in running.lines), running.lines
        peers = {record["peer"] for record in records if record.get("reason") == "source_limit"}
        assert len(peers) == len(PATHS) and "[a:\\xff]:0" in peers, peers


def test_a_reload_changes_the_number(site: Site, back: Origin) -> None:
    config = site.folder / "proxy.toml"

    def write(count: int) -> None:
        config.write_text(
            f'threads = 1\nmax-connections-per-source = {count}\n[[listener]]\nlisten = "tcp://{LOCAL}"\nto = "{back.url}"\n'
        )

    write(1)
    with proxy("--config", config) as running, contextlib.ExitStack() as stack:
        say(stack.enter_context(connect(running.port)))
        assert is_refused(connect, running.port)
        write(2)
        running.send(signal.SIGHUP)
        running.wait_for_line("SIGHUP: read again")
        say(stack.enter_context(connect(running.port)))
        assert is_refused(connect, running.port)


# Descriptors


def test_too_few_descriptors_to_start(back: Origin) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (34, 34))

    starting = proxy("--listen", f"tcp://{LOCAL}", "--to", back.url, "--threads", 4, preexec_fn=few)
    with pytest.raises(AssertionError, match="34 descriptors are too few"), starting:
        pass


@pytest.mark.parametrize("threads", [1, 3])
def test_descriptors_suffice_for_all_at_once(site: Site, back: Origin, threads: int) -> None:
    """Every place taken, refused clients that stay, silent ones, scrapers that say nothing, and files read again."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (260, 260))

    options = ("--max-connections", 1000, "--threads", threads, "--metrics", LOCAL)
    with guarded(site, back, *options, preexec_fn=few) as running, contextlib.ExitStack() as stack:
        line = running.wait_for_line("--max-connections 1000: only ")
        possible = int(line.split("only ")[1].split()[0]) // (threads if IN_PROCESSES else 1)  # each process has its own
        assert 40 <= possible < 130
        staying = flood(running.port, 150, b"GET / HTTP/1.0\r\n\r\n")  # refused, and do not go
        staying += flood(running.metrics_port, 40)
        try:
            running.wait_for_line("reason=handshake_failed", 150)
            silent = flood(running.port, possible // 2)
            staying += silent
            served = []
            for _ in range(possible - 10):
                served.append(stack.enter_context(connect(running.port, site.context)))
                say(served[-1])
                if len(served) % 10 == 0:
                    running.send(signal.SIGHUP)
            staying += flood(running.port, 150, b"GET / HTTP/1.0\r\n\r\n")
            for connection in served:
                say(connection)
            wait_until(lambda: any("SIGHUP: " in line for line in running.lines), "the end of a reload")
            said = [line for line in running.lines if "open files" in line or "internal_error" in line]
            assert not said, said
        finally:
            close(staying)


def test_back_ends_that_are_seen_out_are_counted(back: Origin) -> None:
    """A back end that fails its handshake and stays is no more than its bounded room."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))

    with socket.create_server(("127.0.0.1", 0), backlog=512) as staying:
        to = f"tls://127.0.0.1:{staying.getsockname()[1]}"
        options = ("--to", to, "--to", back.url, "--threads", 1, "--log-format", "text", "--max-connections", 1000)
        with proxy("--listen", f"tcp://{LOCAL}", *options, preexec_fn=few) as running, contextlib.ExitStack() as stack:
            possible = int(running.wait_for_line("only ").split("only ")[1].split()[0])
            staying.settimeout(DEADLINE)
            for number in range(3 * possible):
                client = stack.enter_context(connect(running.port))
                bad = stack.enter_context(staying.accept()[0])
                bad.sendall(b"220 no TLS here\r\n")  # and it does not close
                say(client)
                if number >= possible // 2:
                    client.close()
            said = [line for line in running.lines if "open files" in line or "internal_error" in line]
            assert not said, said
