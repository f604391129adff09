"""Real programs on both sides: curl, h2load, nginx, HAProxy; and websockets."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any, Callable, NamedTuple

import pytest

from command_helpers import Identity
from interop.programs import program

from .running import TIMEOUT, Path, Proxy, address_of, connect, listener, path, receive_exactly, running

BIG = 5_000_000
FILES = 100

NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr crit;
worker_processes 1;
{user}
events {{ worker_connections 2048; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    root {folder}/www;
    keepalive_requests 100000;
    server {{ listen 127.0.0.1:{plain}; }}
    server {{ listen 127.0.0.1:{h2c} http2; }}
    server {{
        listen 127.0.0.1:{tls} ssl http2;
        ssl_certificate {cert};
        ssl_certificate_key {key};
    }}
    server {{
        listen 127.0.0.1:{informed} proxy_protocol;
        location / {{ return 200 "$proxy_protocol_addr $proxy_protocol_port\\n"; }}
    }}
}}
"""


class Site(NamedTuple):
    """A proxy in front of nginx. ports: of nginx: plain (HTTP/1), h2c, tls (both), informed (wants a PROXY header)."""

    proxy: Proxy
    ports: dict[str, int]
    folder: FilePath


@contextlib.contextmanager
def nginx(folder: FilePath, identity: Identity) -> Iterator[dict[str, int]]:
    """It inherits its sockets, as at an upgrade, so nobody has to wait for it: connections do."""
    (folder / "www").mkdir()
    (folder / "www" / "big").write_bytes(bytes(range(256)) * (BIG // 256 + 1))
    (folder / "www" / "small").write_bytes(b"small\n")
    for number in range(FILES):
        (folder / "www" / f"{number}.js").write_text(f"loaded({number});\n")
    with contextlib.ExitStack() as stack:
        socks = {name: stack.enter_context(listener()) for name in ("plain", "h2c", "tls", "informed")}
        ports = {name: sock.getsockname()[1] for name, sock in socks.items()}
        text = NGINX.format(
            folder=folder, cert=identity.cert, key=identity.key, user="user root;" if os.getuid() == 0 else "", **ports
        )
        (folder / "nginx.conf").write_text(text)
        for sock in socks.values():
            sock.set_inheritable(True)
        descriptors = [sock.fileno() for sock in socks.values()]
        environment = {**os.environ, "NGINX": "".join(f"{fd};" for fd in descriptors)}
        arguments = [program("nginx", "nginx-light"), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
        with (
            (folder / "nginx.log").open("wb") as log,
            subprocess.Popen(arguments, env=environment, pass_fds=descriptors, stdout=log, stderr=log) as process,
        ):
            try:
                yield ports
            finally:
                process.terminate()
                process.wait(TIMEOUT)


@pytest.fixture(scope="module")
def site(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """By ALPN: h2 goes to nginx in the clear, http/1.1 to its other port; a name of its own goes there with TLS again."""
    folder = tmp_path_factory.mktemp("nginx")
    with nginx(folder, identity) as ports:
        file = folder / "proxy.toml"
        file.write_text(
            f"""
[[listener]]
listen = "tls://127.0.0.1:0"
cert = "{identity.cert}"
key = "{identity.key}"
alpn = ["h2", "http/1.1"]
to = "tcp://127.0.0.1:{ports["plain"]}"

[[listener.route]]
server-names = "again.localhost"
to = "tls://127.0.0.1:{ports["tls"]}"
to-ca = "{identity.ca}"

[[listener.route]]
alpn = "h2"
to = "tcp://127.0.0.1:{ports["h2c"]}"
"""
        )
        with running("--config", file) as proxy:
            yield Site(proxy, ports, folder)


def curl(site: Site, identity: Identity, *options: str, name: str = "localhost", file: str = "big") -> tuple[bytes, str]:
    """The body, and what `-w` says: the HTTP version and the number of connections."""
    arguments = [
        program("curl", "curl"), "-sS", "--max-time", "30", "--cacert", str(identity.ca),
        "--resolve", f"{name}:{site.proxy.port}:127.0.0.1", "-w", "%{stderr}%{http_version} %{num_connects}\n",
        *options, f"https://{name}:{site.proxy.port}/{file}",
    ]  # fmt: skip
    result = subprocess.run(arguments, capture_output=True, timeout=TIMEOUT)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout, result.stderr.decode().strip()


@pytest.mark.parametrize(("option", "version", "alpn"), [("--http1.1", "1.1", "http/1.1"), ("--http2", "2", "h2")])
@pytest.mark.parametrize("name", ["localhost", "again.localhost"])
def test_curl_and_nginx(site: Site, identity: Identity, option: str, version: str, alpn: str, name: str) -> None:
    insecure = () if name == "localhost" else ("--insecure",)
    body, said = curl(site, identity, option, *insecure, name=name)
    assert body == (site.folder / "www" / "big").read_bytes()
    assert said.split()[0] == version
    record = site.proxy.record()
    assert record["alpn"] == alpn
    assert record["reason"] in ("ended", "client_reset", "truncated")
    assert record["bytes_back"] > BIG


def test_curl_keeps_a_connection_for_several_requests(site: Site, identity: Identity) -> None:
    urls = [f"https://localhost:{site.proxy.port}/{number}.js" for number in range(20)]
    body, said = curl(site, identity, "--http1.1", *urls, file="small")
    assert body.count(b"loaded(") == 20 and body.endswith(b"small\n")
    assert [line.split()[1] for line in said.splitlines()] == ["1"] + ["0"] * 20
    assert site.proxy.record()["alpn"] == "http/1.1"


@pytest.mark.parametrize("options", [("--h1",), ()], ids=["HTTP/1.1", "HTTP/2"])
def test_h2load(site: Site, options: tuple[str, ...]) -> None:
    arguments = [program("h2load", "nghttp2-client"), "-n", "3000", "-c", "30", "-m", "10", *options]
    result = subprocess.run(
        [*arguments, f"https://127.0.0.1:{site.proxy.port}/small"], capture_output=True, timeout=TIMEOUT, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "3000 succeeded, 0 failed, 0 errored, 0 timeout" in result.stdout
    assert re.search(r"Application protocol: " + ("http/1.1" if options else "h2"), result.stdout)
    for _ in range(30):
        site.proxy.record()


def test_ab_through_two_threads(site: Site, identity: Identity) -> None:
    """One connection a request, each encrypted on both sides; sessions with the back end are shared by the threads."""
    to = ("--to", f"tls://localhost:{site.ports['tls']}", "--to-ca", identity.ca)
    with running("--listen", "tls://127.0.0.1:0", "--cert", identity.both, *to, threads=2) as proxy:
        arguments = [program("ab", "apache2-utils"), "-q", "-n", "400", "-c", "20", f"https://127.0.0.1:{proxy.port}/small"]
        result = subprocess.run(arguments, capture_output=True, timeout=TIMEOUT, text=True)
        assert result.returncode == 0, result.stderr
        assert re.search(r"Complete requests: +400\n", result.stdout) and re.search(r"Failed requests: +0\n", result.stdout)
        answered = 0
        while answered < 400:  # ab may connect more often, and leaves what it has too many of
            record = proxy.record()
            if record["bytes_back"]:
                answered += 1
                assert record["reason"] in ("ended", "truncated", "client_reset"), record


def test_nginx_understands_our_proxy_header(site: Site, start: Callable[..., Proxy]) -> None:
    to = ("--to", f"tcp://127.0.0.1:{site.ports['informed']}")
    for version in ("v1", "v2"):
        proxy = start("--listen", "tcp://127.0.0.1:0", *to, "--proxy-protocol-out", version)
        with connect(proxy.port) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while piece := client.recv(65536):
                answer += piece
            assert answer.endswith("\r\n\r\n{} {}\n".format(*client.getsockname()).encode())


@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"])
def test_haproxy_in_front(start: Callable[..., Proxy], tmp_path: FilePath, option: str) -> None:
    with listener() as listening, listener() as inherited:
        to = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        proxy = start("--listen", "tcp://127.0.0.1:0", "--to", to, "--proxy-protocol-in", "--trusted-proxy", "127.0.0.1")
        inherited.set_inheritable(True)
        configuration = tmp_path / "haproxy.cfg"
        configuration.write_text(
            "defaults\n timeout client 20s\n timeout server 20s\n timeout connect 5s\n"
            f"listen front\n mode tcp\n bind fd@{inherited.fileno()}\n server ours 127.0.0.1:{proxy.port} {option}\n"
        )
        arguments = [program("haproxy", "haproxy"), "-db", "-f", str(configuration)]
        with subprocess.Popen(
            arguments, pass_fds=[inherited.fileno()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                with connect(inherited.getsockname()[1]) as client:
                    client.sendall(b"hello")
                    with listening.accept()[0] as server:
                        assert receive_exactly(server, 5) == b"hello"
                    peer, local = address_of(client), address_of(inherited)
                record = proxy.record()
            finally:
                process.kill()
    assert (record["peer"], record["local"]) == (peer, local)


# Websockets (RFC 6455): enough of them for an echo.

ACCEPT_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def send_frame(sock: Any, opcode: int, payload: bytes, masked: bool) -> None:
    size = len(payload)
    code = size if size < 126 else 126 if size < 1 << 16 else 127
    head = bytes([0x80 | opcode, masked << 7 | code])
    if code > 125:
        head += size.to_bytes(2 if code == 126 else 8, "big")
    if masked:
        mask = os.urandom(4)
        head += mask
        whole = int.from_bytes(payload, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        payload = whole.to_bytes(size, "big")
    sock.sendall(head + payload)


def receive_frame(sock: Any) -> tuple[int, bytes]:
    first, second = receive_exactly(sock, 2)
    size = second & 127
    if size > 125:
        size = int.from_bytes(receive_exactly(sock, 2 if size == 126 else 8), "big")
    mask = receive_exactly(sock, 4) if second & 128 else b""
    payload = receive_exactly(sock, size)
    if mask:
        whole = int.from_bytes(payload, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        payload = whole.to_bytes(size, "big")
    return first & 15, payload


def receive_head(sock: Any) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += receive_exactly(sock, 1)
    return head


def accept_value(key: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(key + ACCEPT_KEY).digest())


def echo(server: Any) -> None:
    """A websocket server for one connection."""
    head = receive_head(server)
    found = re.search(rb"(?i)^sec-websocket-key: (\S+)\r$", head, re.MULTILINE)
    assert found is not None and b"Upgrade: websocket" in head
    server.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_value(found[1]) + b"\r\n\r\n"
    )
    while True:
        opcode, payload = receive_frame(server)
        send_frame(server, PONG if opcode == PING else opcode, payload, False)
        if opcode == CLOSE:
            return


@pytest.fixture(params=["tcp", "tls"])
def to_websocket(request: pytest.FixtureRequest, identity: Identity) -> Iterator[Path]:
    with path("tls", request.param, identity, "--alpn", "http/1.1") as made:
        yield made


def test_websockets(to_websocket: Path) -> None:
    failures: list[BaseException] = []

    def serve() -> None:
        try:
            with to_websocket.accept() as server:
                echo(server)
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    key = base64.b64encode(os.urandom(16))
    with to_websocket.connect_client() as client:
        client.sendall(
            b"GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: " + key + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        head = receive_head(client)
        assert head.startswith(b"HTTP/1.1 101 ") and accept_value(key) in head
        for opcode, payload in ((TEXT, b"hello"), (BINARY, os.urandom(70_000)), (PING, b"?"), (BINARY, os.urandom(3_000_000))):
            send_frame(client, opcode, payload, True)
            assert receive_frame(client) == (PONG if opcode == PING else opcode, payload)
        send_frame(client, CLOSE, struct.pack("!H", 1000), True)
        assert receive_frame(client) == (CLOSE, struct.pack("!H", 1000))
        thread.join(TIMEOUT)
    assert not failures, failures
    assert to_websocket.record()["alpn"] is None
