"""The programs of examples/: each is started as its head says, meets a peer that is not ours where there is one (`ssl`,
smtplib, curl, openssl(1)), prints what it should, and ends.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import importlib.util
import os
import re
import shutil
import signal
import smtplib
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

import pytest

from command_helpers import ENVIRONMENT, TIMEOUT, heeding_cuts, openssl, server
from sslsock.proxy_protocol import TlsFields, encode_v2

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PROGRAMS = sorted(path.stem for path in EXAMPLES.glob("*.py"))
pytestmark = pytest.mark.skipif(not PROGRAMS, reason="the sources are not beside the tests")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what certificates.py makes."""
    folder = tmp_path_factory.mktemp("examples")
    made = run(folder, "certificates")
    assert made.stdout.splitlines()[:3] == ["ca.pem", "server.pem and server.key", "client.pem and client.key"], made
    assert (folder / "server.key").stat().st_mode & 0o777 == 0o600
    return folder


# `logging` is loaded with the first error that no handler takes. A Ctrl-C of ours must not fall into that: CPython then leaves
# the file open, and says so.
START = "import logging, runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"


def arguments(name: str, *words: object) -> list[str]:
    return [sys.executable, "-c", START, str(EXAMPLES / f"{name}.py"), *map(str, words)]


def run(folder: Path, name: str, *words: object, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program to its end."""
    done = subprocess.run(
        arguments(name, *words),
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        text=True,
        capture_output=True,
        timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr, done.stderr
    return done


def printed(folder: Path, name: str, *words: object, **options: int) -> str:
    return run(folder, name, *words, **options).stdout


class Server:
    """An example that runs, and what it has printed."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")


@contextlib.contextmanager
def running(folder: Path, command: list[str], ready: str = r"listening on 127\.0\.0\.1:(\d+)") -> Iterator[Server]:
    """A server until the end of the block, where Ctrl-C ends it, in order."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    environment = {**ENVIRONMENT, "PYTHONUNBUFFERED": "1"}  # as on a terminal, where each line is shown as it is printed
    with subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipes) as process:
        watchdog = threading.Timer(TIMEOUT, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            said = ""
            while not (found := re.search(ready, said)):
                line = process.stdout.readline()
                assert line, said
                said += line
            yield Server(process, int(found[1]))
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
            assert "Traceback" not in rest and "Warning" not in rest, rest
            assert process.wait(TIMEOUT) == 0, rest
        finally:
            watchdog.cancel()
            process.kill()


def example(folder: Path, name: str, *words: object) -> contextlib.AbstractContextManager[Server]:
    return running(folder, arguments(name, *words))


def trusting(folder: Path) -> ssl.SSLContext:
    return heeding_cuts(ssl.create_default_context(cafile=str(folder / "ca.pem")))


@contextlib.contextmanager
def encrypted(
    folder: Path, port: int, name: str = "localhost", context: Optional[ssl.SSLContext] = None, before: bytes = b""
) -> Iterator[ssl.SSLSocket]:
    """A connection of the standard library's."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain:
        plain.sendall(before)
        with (context or trusting(folder)).wrap_socket(plain, server_hostname=name) as tls:
            yield tls


def asked(connection: ssl.SSLSocket, line: bytes) -> bytes:
    connection.sendall(line)
    return connection.makefile("rb").readline()


@pytest.fixture
def line_server(folder: Path) -> Iterator[int]:
    """A TLS server of the standard library that answers each line."""

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(b"heard " + line)

    with tls_server(folder, Answer) as port:
        yield port


@contextlib.contextmanager
def tls_server(folder: Path, handler: Callable[..., socketserver.BaseRequestHandler]) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")

    class TlsServer(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def get_request(self) -> tuple[socket.socket, object]:
            plain, address = super().get_request()
            # The handshake belongs to the thread of the connection: `rfile.readline` does it.
            return context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), address

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients go as they like."""

    with TlsServer(("127.0.0.1", 0), handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        try:
            yield made.server_address[1]
        finally:
            made.shutdown()


def need(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


# Clients.


def test_the_client(folder: Path, line_server: int) -> None:
    said = printed(folder, "client", "localhost", line_server, "ca.pem")
    assert re.fullmatch(r"encrypted: TLS 1\.3, TLS_\w+\nanswer: heard hello\n", said)


def test_the_client_says_what_is_wrong(folder: Path, line_server: int) -> None:
    said = printed(folder, "client", "localhost", line_server, status=1)
    assert "certificate verify failed: unable to get local issuer certificate" in said
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    assert "refused" in printed(folder, "client", "127.0.0.1", port, status=1)


def test_the_client_that_awaits(folder: Path, line_server: int) -> None:
    said = printed(folder, "awaiting_client", "localhost", line_server, "ca.pem")
    assert said == "encrypted: TLS 1.3\nanswer: heard hello\nanswer: heard goodbye\n"
    failed = run(folder, "awaiting_client", "localhost", line_server, "client.pem", status=1)
    assert failed.stderr.startswith("failed: ") and "certificate verify failed" in failed.stderr


def test_the_engine(folder: Path, line_server: int) -> None:
    assert re.fullmatch(
        r"encrypted: 0x304 TLS_\w+\nanswer: heard hello\n", printed(folder, "engine", "localhost", line_server, "ca.pem")
    )
    assert "certificate verify failed" in run(folder, "engine", "localhost", line_server, "client.pem", status=1).stderr


def test_a_unix_socket(folder: Path) -> None:
    assert printed(folder, "unix_socket") == "answered: hello\n"
    assert not (folder / "echo.sock").exists()


def test_the_pinned_client(folder: Path, line_server: int) -> None:
    pem = (folder / "server.pem").read_text().partition("-----END CERTIFICATE-----")
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem[0] + pem[1])).hexdigest()
    colons = ":".join(re.findall("..", fingerprint.upper()))
    assert printed(folder, "pinned_client", "localhost", line_server, colons) == "it is the one\nanswer: heard hello\n"
    other = fingerprint[:-2] + f"{int(fingerprint[-2:], 16) ^ 1:02x}"
    said = printed(folder, "pinned_client", "localhost", line_server, other)
    assert said == "failed: the server has another certificate\n"


def test_the_key_log(folder: Path, line_server: int) -> None:
    printed(folder, "key_log", "localhost", line_server, "ca.pem", "own.log")
    run(folder, "client", "localhost", line_server, "ca.pem", SSLKEYLOGFILE=str(folder / "variable.log"))
    for name in ("own.log", "variable.log"):
        assert "CLIENT_TRAFFIC_SECRET_0 " in (folder / name).read_text()
        assert (folder / name).stat().st_mode & 0o777 == 0o600


def test_the_session_in_a_file(folder: Path, line_server: int) -> None:
    (folder / "session.bin").unlink(missing_ok=True)
    words = "localhost", line_server, "ca.pem"
    said = [printed(folder, "session_file", *words) for _ in range(3)]
    assert said == ["a full handshake\n", "resumed\n", "resumed\n"]
    (folder / "session.bin").write_bytes(b"rubbish")
    assert printed(folder, "session_file", *words) == "a full handshake\n"


def test_the_client_of_starttls(folder: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")

    def imap(plain: socket.socket) -> None:
        plain.sendall(b"* OK ready\r\n")
        assert plain.recv(99) == b"a STARTTLS\r\n"
        plain.sendall(b"a OK begin\r\n")
        with context.wrap_socket(plain, server_side=True) as tls:
            assert tls.recv(99) == b"b CAPABILITY\r\n"
            tls.sendall(b"* CAPABILITY IMAP4rev2\r\nb OK done\r\n")
            tls.recv(99)

    with server(imap) as port:
        said = printed(folder, "starttls_client", "localhost", port, "ca.pem")
    heard = ["* OK ready", "a OK begin", None, "* CAPABILITY IMAP4rev2", "b OK done"]
    assert said.splitlines() == [f"server: {line}" if line else "encrypted: TLS 1.3" for line in heard]


# The standard library's interface.


@pytest.fixture
def site(folder: Path) -> Iterator[int]:
    """An HTTPS server of the standard library."""
    with tls_server(folder, functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))) as port:
        yield port


def test_urllib(folder: Path, site: int) -> None:
    said = printed(folder, "urllib_client", f"https://localhost:{site}/ca.pem", "ca.pem").splitlines()
    assert said[0].startswith("sslsock.ssl OpenSSL ") and said[1].startswith("200 b'-----BEGIN CERTIFICATE-----")
    failed = run(folder, "urllib_client", f"https://localhost:{site}/", "client.pem", status=1).stderr
    assert failed.startswith("failed: [SSL: CERTIFICATE_VERIFY_FAILED]") and failed.endswith("(sslsock)\n")


def test_requests(folder: Path, site: int) -> None:
    need("requests")
    said = printed(folder, "requests_client", f"https://localhost:{site}/ca.pem", "ca.pem").splitlines()
    assert said[0].startswith("sslsock.ssl OpenSSL ") and said[1].startswith("200 b'-----BEGIN CERTIFICATE-----")
    assert "(sslsock)" in run(folder, "requests_client", f"https://localhost:{site}/", "client.pem", status=1).stderr


# Servers.


@pytest.mark.parametrize("name", ["server", "awaiting_server"])
def test_the_servers_of_lines(folder: Path, name: str) -> None:
    with example(folder, name, 0) as started, encrypted(folder, started.port) as connection:
        assert asked(connection, b"hello\n") == b"you said hello\n"


def test_the_server_says_what_is_wrong(folder: Path) -> None:
    with example(folder, "server", 0) as started:
        with pytest.raises(ssl.SSLError), encrypted(folder, started.port, context=ssl.create_default_context()):
            raise AssertionError("the authority is unknown")
        assert re.match(r'failed: 127\.0\.0\.1 port \d+: .*the peer sent the alert "unknown CA"', started.line())
        taken = run(folder, "server", started.port, status=1)
        assert "in use" in taken.stderr.lower()


def test_the_echo_server_with_many_connections(folder: Path) -> None:
    """One of them sends more than the server holds for a client."""
    data = os.urandom(1 << 22)
    with example(folder, "echo_server", 0) as started, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(encrypted(folder, started.port)) for _ in range(20)]
        for number, connection in enumerate(connections):
            assert asked(connection, b"%d\n" % number) == b"%d\n" % number
        sender = threading.Thread(target=connections[0].sendall, args=(data,))
        sender.start()
        heard = bytearray()
        while len(heard) < len(data):
            heard += connections[0].recv(1 << 16)
        sender.join()
        assert heard == data


def test_mutual_tls(folder: Path) -> None:
    with example(folder, "mutual_tls_server", 0) as started:
        assert printed(folder, "mutual_tls_client", "localhost", started.port) == "hello, visitor\n"
        assert started.line() == "client: visitor"
        context = trusting(folder)
        context.load_cert_chain(folder / "client.pem", folder / "client.key")
        with encrypted(folder, started.port, context=context) as connection:
            assert connection.recv(99) == b"hello, visitor\n"
        assert started.line() == "client: visitor"
        context.load_cert_chain(folder / "one.example.pem", folder / "one.example.key")
        with contextlib.suppress(OSError), encrypted(folder, started.port, context=context) as connection:
            assert connection.recv(99) == b""
        assert started.line() == "not allowed: one.example"
        with contextlib.suppress(OSError), encrypted(folder, started.port) as connection:
            assert connection.recv(99) == b""
        assert started.line().startswith("refused: ")


def test_pre_shared_keys(folder: Path) -> None:
    with example(folder, "pre_shared_key", "server", 0) as started:
        said = printed(folder, "pre_shared_key", "client", started.port)
        assert said == "key used: True TLS_AES_128_GCM_SHA256\nwelcome\n"
        for key, welcome in (("5d1a9e0c4c1b4a0ab31f7f2f5b8e6a13", True), ("00" * 16, False)):
            words = ["s_client", "-connect", f"127.0.0.1:{started.port}", "-ign_eof"]
            words += ["-psk_identity", "device 7", "-psk", key]
            done = subprocess.run([openssl(), *words], input=b"", capture_output=True, timeout=TIMEOUT)
            assert (b"\nwelcome\n" in done.stdout) == welcome, done
        assert started.line().startswith("failed: ")


def test_the_server_of_starttls(folder: Path) -> None:
    with example(folder, "starttls_server", 0) as started:
        with smtplib.SMTP("localhost", started.port, timeout=TIMEOUT) as client:
            assert client.docmd("MAIL", "FROM:<a@localhost>")[0] == 530
            client.starttls(context=trusting(folder))
            client.ehlo()
            assert not client.has_extn("STARTTLS") and client.docmd("MAIL", "FROM:<a@localhost>")[0] == 250
        with socket.create_connection(("127.0.0.1", started.port), TIMEOUT) as injecting:  # CVE-2011-0411
            injecting.makefile("rb").readline()
            injecting.sendall(b"STARTTLS\r\nMAIL FROM:<evil@localhost>\r\n")
            with contextlib.suppress(ConnectionError):
                assert b"250" not in injecting.makefile("rb").read()


def test_the_server_of_several_names(folder: Path) -> None:
    with example(folder, "server_names", 0) as started:
        for name in ("one.example", "two.example"):
            with encrypted(folder, started.port, name) as connection:  # which checks the name
                assert connection.recv(99) == f"this is {name}\n".encode()
        with pytest.raises(OSError), encrypted(folder, started.port, "three.example"):
            raise AssertionError("nobody is called so")
        assert started.line() == "nobody here is called 'three.example'"


def test_the_certificate_that_is_swapped(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    with example(tmp_path, "certificate_swap", 0) as started, encrypted(tmp_path, started.port) as before:
        for name in ("server", "two.example"):
            (tmp_path / "server.pem").write_bytes((folder / f"{name}.pem").read_bytes())
            (tmp_path / "server.key").write_bytes((folder / f"{name}.key").read_bytes())
            started.process.send_signal(signal.SIGHUP)
            assert started.line().startswith("valid until ")
        with encrypted(tmp_path, started.port, "two.example") as after:
            assert asked(after, b"new\n") == b"new\n"
        (tmp_path / "server.key").write_bytes((folder / "server.key").read_bytes())  # of another certificate
        started.process.send_signal(signal.SIGHUP)
        assert started.line().startswith("the old certificate stays: ")
        with encrypted(tmp_path, started.port, "two.example") as after:
            assert asked(after, b"still\n") == b"still\n"
        assert asked(before, b"old\n") == b"old\n"


def test_the_proxy_header(folder: Path) -> None:
    header = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n"
    with example(folder, "proxy_header", 0) as started:
        with encrypted(folder, started.port, before=header) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert connection.makefile("rb").read().endswith(b"\r\n\r\nyour address is 192.0.2.7\n")
        with pytest.raises(OSError), encrypted(folder, started.port):
            raise AssertionError("there was no header")


def test_alpn(folder: Path) -> None:
    with example(folder, "alpn_server", 0) as started:
        for offered, answer in ((["backwards"], b"olleh\n"), (["backwards", "shout"], b"HELLO\n"), ([], b"say which ")):
            context = trusting(folder)
            if offered:
                context.set_alpn_protocols(offered)
            with encrypted(folder, started.port, context=context) as connection:
                assert asked(connection, b"hello\n").startswith(answer)
        context.set_alpn_protocols(["whisper"])
        with pytest.raises(ssl.SSLError) as refused, encrypted(folder, started.port, context=context):
            raise AssertionError("there is no such protocol")
        assert "no application protocol" in str(refused.value).lower().replace("_", " ")


def test_limits(folder: Path) -> None:
    with example(folder, "limits", 0, 0.2) as started:
        with encrypted(folder, started.port) as silent:
            assert silent.recv(99) == b"you say nothing\n"
        assert started.line() == "silent: 127.0.0.1"
    with contextlib.ExitStack() as stack:
        started = stack.enter_context(example(folder, "limits", 0))
        first, second = (stack.enter_context(encrypted(folder, started.port)) for _ in range(2))
        assert asked(first, b"one\n") == b"one\n" and asked(second, b"two\n") == b"two\n"
        with pytest.raises(OSError), encrypted(folder, started.port):
            raise AssertionError("it is the third")
        assert started.line() == "too many from 127.0.0.1"
        second.sendall(b"x" * 1000)
        assert started.line() == "a line without end: 127.0.0.1"
        assert asked(first, b"still here\n") == b"still here\n"


def test_the_tls_proxy(folder: Path) -> None:
    class Echo(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(line)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as back:
        back.daemon_threads = True
        threading.Thread(target=back.serve_forever, daemon=True).start()
        proxy = example(folder, "tls_proxy", 0, "127.0.0.1", back.server_address[1])
        with proxy as started, encrypted(folder, started.port) as connection:
            assert asked(connection, b"hello\n") == b"hello\n"
        back.shutdown()


def test_asyncio_streams(folder: Path) -> None:
    assert re.fullmatch(r"TLSv1\.3 TLS_\w+\nyou said hello\n", printed(folder, "asyncio_streams"))


def test_the_certificate_that_is_asked_for_later(folder: Path) -> None:
    assert printed(folder, "late_certificate") == "for everybody\nfor visitor\n"


def curl(folder: Path, port: int) -> str:
    program = shutil.which("curl")
    if program is None:
        pytest.skip("there is no curl program")
    words = [program, "-sS", "--http1.1", "--cacert", str(folder / "ca.pem"), f"https://localhost:{port}/"]
    return subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout


def test_uvicorn_by_the_line_of_the_head(folder: Path) -> None:
    need("uvicorn")
    head = (EXAMPLES / "application.py").read_text()
    line = re.search(r"^    python (-m sslsock run .*?--ssl-keyfile server\.key)$", head, re.M | re.S)
    assert line
    words = line[1].replace("\\\\\n", " ").replace("8443", "0").split()
    shutil.copy(EXAMPLES / "application.py", folder)
    with running(folder, [sys.executable, *words], r"running on https://127\.0\.0\.1:(\d+)") as started:
        assert curl(folder, started.port) == "hello from https\n"


def test_uvicorn_behind_a_proxy(folder: Path) -> None:
    """With a real one: tests/proxy/test_recipes.py."""
    need("uvicorn")
    header = encode_v2(("192.0.2.7", 4711), ("192.0.2.1", 443), tls=TlsFields())
    words = [sys.executable, str(EXAMPLES / "proxied_uvicorn.py"), "0"]
    with (
        running(folder, words, r"running on http://127\.0\.0\.1:(\d+)") as started,
        socket.create_connection(("127.0.0.1", started.port), TIMEOUT) as client,
    ):
        client.sendall(header + b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while data := client.recv(65536):
            answer += data
    assert b"hello from https\n" in answer


def test_aiohttp(folder: Path) -> None:
    need("aiohttp")
    with running(folder, arguments("aiohttp_server", 0), r"Running on https://127\.0\.0\.1:(\d+)") as started:
        assert curl(folder, started.port) == "hello from https\n"


# All of them.


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_says_what_it_does_and_how_to_run_it(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text()
    head = source.split('"""')[1]
    assert source.startswith('"""') and re.search(r"^Run it.*:$", head, re.M) and f"{name}" in head
    assert max(map(len, source.splitlines())) <= 92, "a page of the documentation shows no more"


def test_each_is_tested_here() -> None:
    tests = Path(__file__).read_text()
    assert [name for name in PROGRAMS if f'"{name}' not in tests] == []
