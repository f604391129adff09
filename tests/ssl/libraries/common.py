"""What the programs of this folder share: the switch, the contexts under test, peers that stay with the interpreter's `ssl`.

A program is run as `python PROGRAM HOW CA_FILE SERVER_FILE`; those that meet a real server (`real_*.py`) as `python PROGRAM HOW
CA_FILE CLIENT_FILE PORT…`. It imports its library, calls `switch`, speaks TLS by means of the library, and `report`s what came
of it. HOW is one of

    stdlib     nothing is switched: what all the others are compared with
    context    contexts are made by `sslsock.ssl` and handed to the library
    install    `sslsock.ssl.install()` before the library is imported: this module does it
    late       `sslsock.ssl.install()` after the library was imported: `switch` does it
    matrix     a program of tests/aio/libraries, which goes through kinds of contexts by `use`
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable

HOW, CA_FILE, SERVER_FILE = sys.argv[1:4]
CLIENT_FILE, PORTS = SERVER_FILE, [int(word) for word in sys.argv[4:] if word.isdigit()]
NAME = "localhost"
WRONG_NAME = "127.1"  # the same address by a name that no certificate has (inet_aton(3))
TIMEOUT = 30.0

interpreters = ssl.SSLContext
counted = {"ours": 0, "stdlib": 0}


class PeerContext(ssl.SSLContext):
    """A context of the interpreter's, which is not counted."""


def count(context: Any, name: str) -> None:
    def counting(original: Any) -> Any:
        def wrap(self: Any, *arguments: Any, **options: Any) -> Any:
            if not isinstance(self, PeerContext):
                counted[name] += 1
            return original(self, *arguments, **options)

        return wrap

    context._wrap_socket = counting(context._wrap_socket)
    context._wrap_bio = counting(context._wrap_bio)


count(interpreters, "stdlib")
if HOW != "stdlib":
    import sslsock.ssl

    count(sslsock.ssl.SSLContext, "ours")
if HOW == "install":
    sslsock.ssl.install()


def switch() -> None:
    """To be called after the imports."""
    if HOW == "late":
        sslsock.ssl.install()


def report(**result: Any) -> None:
    print(json.dumps({"result": result, "counted": counted}))


# The contexts under test, and those of peers


own = HOW == "context"  # whether the contexts are of `sslsock.ssl`


def use(ours: bool) -> None:
    """Which contexts are made from now on, and none of them is counted yet."""
    global own
    own = ours
    counted.update(ours=0, stdlib=0)


def module() -> Any:
    return sslsock.ssl if own else ssl


def client_context() -> Any:
    return module().create_default_context(cafile=CA_FILE)


def untrusting_context() -> Any:
    """Of a client that does not know the authority of the tests."""
    return module().create_default_context()


def server_context(file: str = SERVER_FILE) -> Any:
    context = module().create_default_context(module().Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


def peer_client_context() -> ssl.SSLContext:
    context = PeerContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(CA_FILE)
    return context


def peer_server_context() -> ssl.SSLContext:
    context = PeerContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(SERVER_FILE)
    return context


# Peers


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(f"GET {self.path}".encode())

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/xml" if body.startswith(b"<?xml") else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, *arguments: Any) -> None:
        """A client that refuses the certificate ends the handshake."""


@contextlib.contextmanager
def https_server(context: Any = None) -> Iterator[int]:
    """http.server over TLS, of a peer unless a context is given: GET answers with the path, POST with the body."""
    server = QuietServer(("127.0.0.1", 0), Handler)
    server.socket = (context or peer_server_context()).wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@contextlib.contextmanager
def scripted(talk: Callable[[socket.socket, Callable[[], ssl.SSLSocket]], Any]) -> Iterator[tuple[int, list[Any]]]:
    """A server that gives each connection to `talk(plain, start_tls)`. Yields its port, and what each has returned."""
    listener = socket.create_server(("127.0.0.1", 0))
    context, returned = peer_server_context(), []

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            plain.settimeout(TIMEOUT)
            made: list[ssl.SSLSocket] = []

            def start_tls(plain: socket.socket = plain, made: list[ssl.SSLSocket] = made) -> ssl.SSLSocket:
                made.append(context.wrap_socket(plain, server_side=True))
                return made[0]

            try:
                returned.append(talk(plain, start_tls))
            except (OSError, EOFError) as exc:
                returned.append(type(exc).__name__)
            finally:
                for one in (*made, plain):
                    one.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1], returned
    listener.shutdown(socket.SHUT_RDWR)
    thread.join(TIMEOUT)
    listener.close()


def read_exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def read_line(stream: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += read_exactly(stream, 1)
    return line


def peer_request(port: int, path: str = "/") -> tuple[int, str]:
    """Status and body of a GET by http.client over a context of the interpreter's."""
    import http.client

    connection = http.client.HTTPSConnection(NAME, port, context=peer_client_context(), timeout=TIMEOUT)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def outcome(call: Callable[[], Any]) -> Any:
    """What it returns, or the names of the exceptions that it ends with, the outer one first."""
    try:
        return call()
    except Exception as exc:
        return names(exc)


def names(exc: BaseException) -> list[str]:
    """Of an exception and those that have led to it."""
    found, seen = [], set()
    current: Any = exc
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        found.append(type(current).__name__)
        current = current.__cause__ or current.__context__
    return found
