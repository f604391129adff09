"""Servers that take PROXY headers, set up as docs/how-to/tell-a-server-the-clients-address.md says: each sees a client that is
somewhere else (192.0.2.7, as a header before our proxy says)."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

import pytest

from command_helpers import Identity
from interop import dovecot, postfix
from interop.pki import Pki
from interop.programs import free_port
from interop.programs import program as installed
from sslsock.proxy_protocol import encode_v1

from .running import TIMEOUT, running, serving

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "tell-a-server-the-clients-address.md"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CLIENT, SERVICE = ("192.0.2.7", 4711), ("198.51.100.1", 443)
TRUSTED = ("--proxy-protocol-in", "--trusted-proxy", "127.0.0.1")

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the sources are not beside the tests")


def block(language: str, word: str) -> str:
    """The snippet of the page that has the word."""
    (found,) = (text for text in re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.S) if word in text)
    return found


def at(port: int) -> Callable[[], socket.socket]:
    return lambda: socket.create_connection(("127.0.0.1", port), TIMEOUT)


@contextlib.contextmanager
def before(port: int, version: str, identity: Identity) -> Iterator[ssl.SSLSocket]:
    """A connection of CLIENT's through our proxy, with TLS to there."""
    front = ("--listen", "tls://127.0.0.1:0", "--cert", identity.both, *TRUSTED)
    with (
        running(*front, "--to", f"tcp://127.0.0.1:{port}", "--proxy-protocol-out", version) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT) as raw,
    ):
        raw.sendall(encode_v1(CLIENT, SERVICE))
        with identity.client_context().wrap_socket(raw, server_hostname="localhost") as client:
            yield client


def asked(client: ssl.SSLSocket) -> bytes:
    """The body of an answer."""
    client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    with contextlib.suppress(ssl.SSLEOFError):
        while data := client.recv(65536):
            answer += data
    return answer.partition(b"\r\n\r\n")[2]


def read_line(client: ssl.SSLSocket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        piece = client.recv(1)
        assert piece, f"the end came within {line!r}"
        line += piece
    return line


def test_gunicorn(identity: Identity, tmp_path: Path) -> None:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    (tmp_path / "app.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [environ['REMOTE_ADDR'].encode()]\n"
    )
    port = free_port()
    command = re.search(r"^gunicorn (.*)$", block("sh", "gunicorn --bind"), re.M)
    assert command is not None
    words = command[1].replace("127.0.0.1:8080", f"127.0.0.1:{port}").split()
    with serving([sys.executable, "-m", "gunicorn", *words], at(port), cwd=tmp_path), before(port, "v1", identity) as client:
        assert asked(client) == CLIENT[0].encode()


@pytest.mark.parametrize("parser", ["h11", "httptools"])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_uvicorn(identity: Identity, tmp_path: Path, parser: str, version: str) -> None:
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    pytest.importorskip(parser, reason=f"{parser} is not installed")
    (tmp_path / "application.py").write_text(
        "async def application(scope, receive, send):\n"
        "    told = [scope['client'][0], str(scope['client'][1]), scope['server'][0], scope['scheme']]\n"
        "    body = ' '.join(told).encode()\n"
        "    headers = [(b'content-length', str(len(body)).encode())]\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': headers})\n"
        "    await send({'type': 'http.response.body', 'body': body})\n"
    )
    (tmp_path / "program.py").write_text((EXAMPLES / "proxied_uvicorn.py").read_text())
    blocked = "import sys; sys.modules['httptools'] = None\n" if parser == "h11" else ""
    (tmp_path / "start.py").write_text(f"{blocked}import runpy; runpy.run_path('program.py', run_name='__main__')\n")
    port = free_port()
    variables = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with serving([sys.executable, "start.py", str(port)], at(port), cwd=tmp_path, env=variables):
        with before(port, version, identity) as client:
            scheme = "https" if version == "v2" else "http"
            assert asked(client) == f"192.0.2.7 4711 198.51.100.1 {scheme}".encode()
        for wrong in (b"GET / HTTP/1.0\r\n\r\n", b"PROXY TCP4 1.2.3.4\r\n"):
            with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
                client.sendall(wrong)
                assert answer_or_reset(client) == b"", "without a header nobody is served"


def answer_or_reset(client: socket.socket) -> bytes:
    try:
        return client.recv(100)
    except ConnectionResetError:
        return b""


def test_nginx(identity: Identity, tmp_path: Path) -> None:
    port = free_port()
    server = block("nginx", "proxy_protocol;").replace("listen 127.0.0.1:8080", f"listen 127.0.0.1:{port}")
    server = server.replace("location / {", 'location / { return 200 "$remote_addr $server_addr $proxy_protocol_addr";', 1)
    user = "user root;" if os.getuid() == 0 else ""
    paths = "".join(
        f"{name}_temp_path {tmp_path}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/nginx.pid; error_log stderr crit; worker_processes 1; {user}\n"
        f"events {{ }}\nhttp {{ access_log off; {paths}\n{server}\n}}\n"
    )
    arguments = (installed("nginx", "nginx-light"), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", "stderr")
    with serving(arguments, at(port), cwd=tmp_path), before(port, "v2", identity) as client:
        assert asked(client) == b"192.0.2.7 127.0.0.1 192.0.2.7"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def wait_for(said: Callable[[str], Optional[re.Match[str]]], pattern: str) -> None:
    """A server's log says it."""
    end = time.monotonic() + TIMEOUT
    while not said(pattern):
        assert time.monotonic() < end, f"no line of the log has {pattern}"
        time.sleep(0.02)


def test_postfix(identity: Identity, pki: Pki) -> None:
    port = free_port()
    entry = block("text", "smtpd_upstream_proxy_protocol").replace("127.0.0.1:2525", str(port), 1)
    with postfix.running(pki, entry) as ports, before(port, "v2", identity) as client:
        assert read_line(client).startswith(b"220 ")
        client.sendall(b"QUIT\r\n")
        assert read_line(client).startswith(b"221 ")
        wait_for(ports.program.said, r"connect from unknown\[192\.0\.2\.7\]")


def test_dovecot(identity: Identity, pki: Pki) -> None:
    port = free_port()
    more = block("text", "haproxy_trusted_networks").replace("port = 10143", f"port = {port}")
    with dovecot.running(pki, more) as ports, before(port, "v2", identity) as client:
        assert read_line(client).startswith(b"* OK ")
        client.sendall(b"a login somebody secret\r\n")
        while not (line := read_line(client)).startswith(b"a "):
            pass
        assert line.startswith(b"a OK "), line  # in the clear from afar it would be refused: the header says that there is TLS
        wait_for(ports.program.said, r"rip=192\.0\.2\.7")
