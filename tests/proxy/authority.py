"""An ACME authority for tests: pebble, Let's Encrypt's own for trials, and a DNS server.

Every name leads to this machine. What it connects to when it looks whether a name leads here is a port of the test, which hands
each connection on to the proxy: so no port needs to be known before there is a proxy, and the test can count them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Optional

import pytest
import trustme

from .operations import wait_until

TIMEOUT = 60.0
EAB_KID, EAB_KEY = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"


def needs_pebble() -> str:
    pytest.importorskip("acme", reason="the package acme is not installed")
    found = shutil.which("pebble")
    if found is None:
        known = shutil.which("apt-cache") and subprocess.run(["apt-cache", "show", "pebble"], capture_output=True).stdout
        pytest.skip("pebble is not installed" if known else "this system has no package of pebble")
    return found


class Door:
    """A port that hands connections on to another one, `target`, once that is known. 0: whoever comes is turned away."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(None)
        self.port: int = self._listening.getsockname()[1]
        self.target: Optional[int] = None
        self.taken = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listening.accept()[0]
                self.taken += 1
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        with client:
            wait_until(lambda: self.target is not None, "where the connection goes")
            if self.target:
                self._hand_on(client)

    def _hand_on(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.target or 0), TIMEOUT) as back:
            other = threading.Thread(target=self._pump, args=(back, client), daemon=True)
            other.start()
            self._pump(client, back)
            other.join(TIMEOUT)

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


class Names:
    """A DNS server (RFC 1035, 4), over UDP and TCP, for pebbles of either taste: every name has the address 127.0.0.1, and
    nothing else."""

    def __init__(self) -> None:
        self._tcp, self._udp = same_port()
        self.port: int = self._tcp.getsockname()[1]
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._run_udp, self._run_tcp)]
        for thread in self._threads:
            thread.start()

    def _run_udp(self) -> None:
        while True:
            query, peer = self._udp.recvfrom(4096)
            if not query:
                return
            self._udp.sendto(answer_to(query), peer)

    def _run_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                with self._tcp.accept()[0] as client, client.makefile("rb") as stream:
                    client.settimeout(TIMEOUT)
                    while len(head := stream.read(2)) == 2:
                        answer = answer_to(stream.read(int.from_bytes(head, "big")))
                        client.sendall(len(answer).to_bytes(2, "big") + answer)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.sendto(b"", ("127.0.0.1", self.port))
        self._tcp.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT)
        for one in (self._tcp, self._udp):
            one.close()


def same_port() -> tuple[socket.socket, socket.socket]:
    """A socket for TCP, which listens, and one for UDP."""
    for _ in range(50):
        tcp, udp = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError:
            tcp.close()
            udp.close()
            continue
        tcp.settimeout(None)
        udp.settimeout(None)
        return tcp, udp
    raise AssertionError("no port is free for both TCP and UDP")


def answer_to(query: bytes) -> bytes:
    end = query.index(0, 12) + 5  # of the question: a name, its type and its class
    a_record = query[end - 4 : end] == b"\0\1\0\1"
    counts = b"\0\1" + (b"\0\1" if a_record else b"\0\0") + b"\0\0\0\0"
    record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1" if a_record else b""
    return query[:2] + b"\x84\x00" + counts + query[12:end] + record


class Authority:
    """directory: its URL; ca: the file of who has issued the certificate of that. tls, http: where it looks for challenges.
    roots: a context that trusts what it issues."""

    def __init__(self, folder: Path, port: int, management: int, tls: Door, http: Door) -> None:
        self.directory = f"https://localhost:{port}/dir"
        self.folder = folder
        self.ca = folder / "directory-ca.pem"
        self.tls, self.http = tls, http
        self._management = f"https://localhost:{management}"
        self.lines: list[str] = []

    def ask(self, url: str) -> bytes:
        context = ssl.create_default_context(cafile=str(self.ca))
        with urllib.request.urlopen(url, timeout=TIMEOUT, context=context) as answer:
            found: bytes = answer.read()
        return found

    @property
    def resources(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask(self.directory))
        return found

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.ask(f"{self._management}/roots/0").decode())

    def options(self, storage: Path, *names: str) -> list[object]:
        """Of a proxy that has certificates for names issued here."""
        return ["--acme", *names, "--acme-terms-agreed", "--acme-storage", storage, "--acme-directory", self.directory,
                "--acme-directory-ca", self.ca]  # fmt: skip

    def count(self, text: str) -> int:
        return sum(text in line for line in self.lines)


def free_ports(count: int) -> list[int]:
    """Nobody has them now; who takes them meanwhile is met again by `authority`."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def authority(folder: Path, environment: Mapping[str, str] = {}, **settings: Any) -> Iterator[Authority]:
    """settings: of pebble's configuration, beside those that have to be."""
    program = needs_pebble()
    folder.mkdir(exist_ok=True)
    issuer = trustme.CA()
    issued = issuer.issue_cert("localhost", "127.0.0.1")
    issuer.cert_pem.write_to_path(folder / "directory-ca.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "directory.pem")
    with contextlib.ExitStack() as stack:
        doors = [Door(), Door()]
        for door in doors:
            stack.callback(door.close)
        dns = Names()
        stack.callback(dns.close)
        for attempt in range(5):
            port, management = free_ports(2)
            found = Authority(folder, port, management, *doors)
            configuration = {
                "listenAddress": f"127.0.0.1:{port}",
                "managementListenAddress": f"127.0.0.1:{management}",
                "certificate": str(folder / "directory.pem"),
                "privateKey": str(folder / "directory.pem"),
                "tlsPort": doors[0].port,
                "httpPort": doors[1].port,
                "ocspResponderURL": "",
                "externalAccountBindingRequired": False,
                **settings,
            }
            (folder / "pebble.json").write_text(json.dumps({"pebble": configuration}))
            arguments = [program, "-config", str(folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns.port}"]
            with started(arguments, environment, found.lines) as process:
                if process.poll() is not None:  # somebody else has got a port
                    assert attempt < 4, found.lines
                    continue
                yield found
                return


@contextlib.contextmanager
def started(arguments: list[str], environment: Mapping[str, str], lines: list[str]) -> Iterator[subprocess.Popen[str]]:
    steady = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
    everything = {**os.environ, **steady, **environment}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(arguments, env=everything, **pipes) as process:  # type: ignore[call-overload]

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            ready = "that pebble listens at both its ports"
            wait_until(lambda: process.poll() is not None or sum("listening on" in line.lower() for line in lines) == 2, ready)
            yield process
        finally:
            process.kill()
            reader.join(TIMEOUT)


class Front:
    """The directory of an authority with some of its resources replaced: `set` says what is answered, `asked` what was. What is
    not set is the authority's own."""

    def __init__(self, pebble: Authority) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pebble.folder / "directory.pem")
        front = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                front.asked.append(self.path)
                resource = next((one for one in front.set if self.path.startswith(f"/{one}")), None)
                if self.path == "/dir":
                    found = {**pebble.resources, **{one: f"{front.url}/{one}" for one in front.set}}
                    status, headers, body = 200, {}, found
                elif resource is not None:
                    status, headers, body = front.set[resource]
                else:
                    status, headers, body = 404, {}, {}
                data = json.dumps(body).encode()
                self.send_response(status)
                problem = "application/problem+json" if status >= 400 else "application/json"
                for name, value in {"Content-Type": problem, "Content-Length": len(data), **headers}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None: ...

        self.set: dict[str, tuple[int, dict[str, object], object]] = {}
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(TIMEOUT)
