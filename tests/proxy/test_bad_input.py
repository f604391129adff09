"""What is wrong from outside: options, files, ports, peers. A clear message, the right exit status, never a traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from command_helpers import ENVIRONMENT, command, run

from .operations import DEADLINE, Site, answer_of, connect, fetch, origin, proxy, read_all, wait_until

LOCAL = "127.0.0.1:0"
NOWHERE = "tcp://127.0.0.1:9"


def refused(status: int, *arguments: object) -> str:
    """What a proxy says that does not start."""
    result = run("proxy", *arguments)
    text = result.stderr.decode()
    assert "Traceback" not in text, text
    assert result.returncode == status, (result.returncode, text)
    assert result.stdout == b"", "it says that it listens"
    return text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", f"tls://{LOCAL}", "--to", NOWHERE, "--fast"], "unrecognized arguments: --fast"),
        (["--listen", f"udp://{LOCAL}", "--to", NOWHERE], "the scheme is tls or tcp, not 'udp'"),
        (["--listen", f"tls://{LOCAL}", "--to", "http://127.0.0.1:1"], "the scheme is tls or tcp, not 'http'"),
        (["--listen", f"tls://{LOCAL}"], "--to is missing"),
        (["--listen", f"tls://{LOCAL}", "--to", NOWHERE, "--threads", "0"], "--threads"),
        (["--listen", f"tls://{LOCAL}", "--to", NOWHERE, "--log-format", "xml"], "--log-format"),
        (["--listen", f"tls://{LOCAL}", "--to", NOWHERE, "--user", "nobody-like-this"], "nobody-like-this"),
        (["--listen", f"tls://{LOCAL}", "--to", NOWHERE, "--cert", "/no/such/file"], "/no/such/file: No such file"),
        (["--listen", f"tls://{LOCAL}", "--to", NOWHERE, "--client-ca", "/no/such/file"], "/no/such/file: No such file"),
        (["--listen", f"tls://{LOCAL}", "--to", NOWHERE, "--ticket-key-file", "/no/such/file"], "/no/such/file: No such file"),
        (["--config", "/no/such/file"], "/no/such/file: No such file"),
    ],
)
def test_wrong_usage(arguments: list[object], message: str) -> None:
    assert message in refused(2, *arguments)


def test_certificates_and_keys_that_do_not_hold(site: Site) -> None:
    pair = site.issue()
    text = pair.read_bytes()
    begin = text.index(b"-----BEGIN CERTIFICATE")
    key, certificate = site.folder / "key.pem", site.folder / "certificate.pem"
    key.write_bytes(text[:begin])
    certificate.write_bytes(text[begin:])
    other = site.issue("other", "other.pem")
    cut = site.folder / "cut.pem"
    cut.write_bytes(text[: len(text) - 300])
    empty = site.folder / "empty.pem"
    empty.touch()
    for files in (["--cert", certificate], ["--cert", certificate, "--key", other], ["--cert", cut], ["--cert", empty],
                  ["--cert", key], ["--cert", site.folder]):  # fmt: skip
        message = refused(2, "--listen", f"tls://{LOCAL}", "--to", NOWHERE, *files)
        assert any(str(file) in message for file in files[1::2]), message


@pytest.mark.parametrize("threads", [1, 2])
def test_a_taken_port(threads: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        message = refused(1, "--listen", f"tcp://{address}", "--to", NOWHERE, "--threads", threads)
        assert f"cannot listen on tcp://{address}: {os.strerror(errno.EADDRINUSE)}" in message
        message = refused(1, "--listen", f"tcp://{LOCAL}", "--to", NOWHERE, "--threads", threads, "--metrics", address)
        assert os.strerror(errno.EADDRINUSE) in message and address in message


@pytest.mark.parametrize("threads", [1, 2])
def test_a_port_that_another_proxy_has(threads: int) -> None:
    """SO_REUSEPORT would share it."""
    with proxy("--listen", f"tcp://{LOCAL}", "--to", NOWHERE, "--threads", threads) as running:
        address = f"tcp://127.0.0.1:{running.port}"
        message = refused(1, "--listen", address, "--to", NOWHERE, "--threads", threads)
        assert f"cannot listen on {address}: {os.strerror(errno.EADDRINUSE)}" in message


def test_hosts_that_are_not_here() -> None:
    assert "cannot listen on tcp://192.0.2.1:0" in refused(1, "--listen", "tcp://192.0.2.1:0", "--to", NOWHERE)
    message = refused(1, "--listen", "tcp://no-such-host.invalid:0", "--to", NOWHERE)
    assert "cannot listen on tcp://no-such-host.invalid:0" in message


def test_an_unreachable_back_end() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
        to = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
        with proxy("--listen", f"tcp://{LOCAL}", "--to", to, "--log-format", "text", "--threads", 1) as running:
            with pytest.raises(ConnectionResetError), connect(running.port) as connection:  # which may be too late already
                connection.recv(1)
            line = running.wait_for_line("reason=no_backend")
            assert "Connection refused" in line
            assert f"{to} (" in running.wait_for_line("is left out: Connection refused")
            assert running.end() == 0


def test_a_back_end_whose_name_nobody_knows() -> None:
    with proxy("--listen", f"tcp://{LOCAL}", "--to", "tcp://no-such-host.invalid:1", "--log-format", "text") as running:
        with pytest.raises(ConnectionResetError), connect(running.port) as connection:  # which may be too late already
            connection.recv(1)
        running.wait_for_line("tcp://no-such-host.invalid:1: its name was not found")
        running.wait_for_line("reason=no_backend")
        assert running.end() == 0


def test_plain_http_to_a_tls_port(site: Site) -> None:
    with origin() as back:
        arguments = ("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", site.issue(), "--log-format", "text")
        with proxy(*arguments) as running:
            with connect(running.port) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                # OpenSSL knows it for HTTP (SSL_R_HTTP_REQUEST), and that such a client would not understand an alert.
                assert read_all(connection) == b""
            with connect(running.port) as connection:
                connection.sendall(b"\x16\x03\x01\0\x04\xff\0\0\0")  # TLS, but no ClientHello
                assert read_all(connection)[:1] == b"\x15", "no alert"
            assert "reason=handshake_failed" in running.wait_for_line("http request")
            running.wait_for_line("reason=handshake_failed", 2)
            assert fetch(running.port, 10, site.context) == answer_of("origin", 10)
            with pytest.raises(ssl.SSLError), connect(running.port, ssl.create_default_context()):
                pass  # it does not trust us, and says so
            running.wait_for_line("unknown CA")
            assert back.connections == 1


V1 = b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 443\r\n"


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"PROXY TCP5 192.0.2.7 192.0.2.8 4711 443\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 99999\r\n",
        b"PROXY TCP4 192.0.2.777 192.0.2.8 4711 443\r\n",
        b"PROXY " + b"x" * 200,
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c" + bytes(12),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04" + bytes(4),
    ],
)
def test_malformed_proxy_headers(header: bytes) -> None:
    with origin() as back:
        arguments = ("--listen", f"tcp://{LOCAL}", "--to", back.url, "--log-format", "text", "--threads", 1)
        with proxy(*arguments, "--proxy-protocol-in", "--trusted-proxy", "127.0.0.0/8") as running:
            with connect(running.port) as connection:
                connection.sendall(header)
                with contextlib.suppress(ConnectionResetError):
                    assert read_all(connection) == b""
            line = running.wait_for_line("reason=bad_proxy_header")
            assert "error=-" not in line
            with connect(running.port) as connection:
                connection.sendall(V1 + b"get 10\n")
                assert read_all(connection) == answer_of("origin", 10)
            assert "peer=192.0.2.7:4711" in running.wait_for_line("reason=ended")
            assert back.connections == 1


def test_every_truncation_of_a_proxy_header() -> None:
    with origin() as back:
        arguments = ("--listen", f"tcp://{LOCAL}", "--to", back.url, "--log-format", "text", "--log-probes", "--threads", 1)
        with proxy(*arguments, "--proxy-protocol-in", "--trusted-proxy", "127.0.0.0/8") as running:
            for size in range(len(V1)):
                with connect(running.port) as connection:
                    connection.sendall(V1[:size])
                    connection.shutdown(socket.SHUT_WR)
                    with contextlib.suppress(ConnectionResetError):
                        assert read_all(connection) == b""
            running.wait_for_line("reason=", len(V1))
            assert not any("reason=ended" in line or "internal" in line for line in running.lines)
            assert back.connections == 0


def test_a_proxy_that_nobody_trusts() -> None:
    arguments = ("--listen", f"tcp://{LOCAL}", "--to", NOWHERE, "--log-format", "text")
    with proxy(*arguments, "--proxy-protocol-in", "--trusted-proxy", "192.0.2.0/24") as running:
        with connect(running.port) as connection, pytest.raises(ConnectionError):
            connection.sendall(V1)
            read_all(connection)
        running.wait_for_line("reason=untrusted_proxy")


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_standard_streams(closed: int) -> None:
    """As some who start services leave them. Descriptors of connections must not be taken for them."""
    shell = ["sh", "-c", f'exec "$@" {closed}>&-', "sh", *command("proxy", "--listen", f"tcp://{LOCAL}", "--to", NOWHERE)]
    with subprocess.Popen(shell, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            status = Path(f"/proc/{process.pid}/status")
            # It catches the signal from when its loop is made, and then ends with 0.
            wait_until(lambda: process.poll() is not None or catches(status, signal.SIGTERM), "a handler of SIGTERM")
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
            assert b"Traceback" not in process.stderr.read()
        finally:
            process.kill()


def catches(status: Path, number: signal.Signals) -> bool:
    """Whether a process has a handler, by its /proc/PID/status."""
    line = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def test_a_port_for_metrics_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        text = refused(1, "--listen", f"tcp://{LOCAL}", "--to", NOWHERE, "--metrics", place)
    assert text == f"sslsock: --metrics {place}: Address already in use\n"
