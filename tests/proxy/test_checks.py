"""Active checks of back ends and the choice among them: real servers that fail, fall silent and come back."""

from __future__ import annotations

import contextlib
import re
import select
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path as FilePath
from typing import Any, Callable, Optional

import pytest

from command_helpers import Identity
from interop.programs import program
from peers import refused_port, stuck_port

from .operations import IN_PROCESSES
from .running import Proxy, connect, listener, receive_all
from .test_back_ends import port_of
from .test_programs import nginx

Start = Callable[..., Proxy]

OFTEN = ("--to-check-interval", 0.05, "--to-check-timeout", 5)
HTTP = ("--to-check", "http", *OFTEN)


class Farm:
    """An HTTP server whose answer is its name. status: of answers; 0: it takes requests and answers none."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status = 200
        self.served = self.checked = 0
        self.released = threading.Event()
        farm = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.headers["User-Agent"] == "sslsock":
                    farm.checked += 1
                else:
                    farm.served += 1
                if not farm.status:
                    farm.released.wait(60)
                    return
                body = farm.name.encode()
                self.send_response(farm.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.to = f"tcp://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def farms() -> Iterator[list[Farm]]:
    made = [Farm(name) for name in ("one", "two", "three")]
    yield made
    for farm in made:
        farm.close()


def ask(proxy: Proxy, context: Any = None, **options: Any) -> str:
    """Which back end a client gets: its name."""
    with connect(proxy.port, context, **options) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return receive_all(client).rpartition(b"\r\n\r\n")[2].decode()


def ask_until(proxy: Proxy, name: str) -> None:
    for _ in range(10000):
        if ask(proxy) == name:
            return
    raise AssertionError(f"{name} was never used")


def front(*to: str) -> list[str]:
    return ["--listen", "tcp://127.0.0.1:0", *(word for one in to for word in ("--to", one))]


def value(proxy: Proxy, metric: str) -> float:
    """Of one line of the metrics, which begins so; 0 where there is none."""
    return sum(float(line.rpartition(" ")[2]) for line in proxy.metrics() if re.match(metric, line))


# Black holes, with checks


def test_one_that_swallows_what_comes_costs_no_client(start: Start, farms: list[Farm]) -> None:
    with stuck_port() as stuck:
        proxy = start(*front(f"tcp://127.0.0.1:{stuck}", farms[0].to), "--to-check", "tcp", *OFTEN, "--connect-timeout", 60)
        assert [ask(proxy) for _ in range(10)] == ["one"] * 10
        assert not [line for line in proxy.messages if "left out" in line]


def test_one_that_takes_connections_and_never_answers_costs_no_client(start: Start, farms: list[Farm]) -> None:
    farms[0].status = 0
    proxy = start(*front(farms[0].to, farms[1].to), *HTTP)
    assert [ask(proxy) for _ in range(10)] == ["two"] * 10
    assert farms[0].served == 0


# And without


@pytest.mark.parametrize("answering", [True, False])
def test_one_that_takes_connections_and_never_answers(start: Start, farms: list[Farm], answering: bool) -> None:
    """It is at fault where others answer. Where nobody does, that is the protocol."""
    farms[0].status = 0
    proxy = start(*front(farms[1].to, farms[0].to), "--idle-timeout", 3 if answering else 1)
    if answering:
        assert ask(proxy) == "two"
    else:
        farms[1].status = 0
    with connect(proxy.port) as silent, connect(proxy.port) as served:
        for client in (silent, served):
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        for client in (served, silent):  # who is served has to end before it is silent for too long itself
            with contextlib.suppress(ConnectionResetError), client:
                receive_all(client)
    seen = [proxy.record() for _ in range(3 if answering else 2)]
    assert [one["reason"] for one in seen].count("idle_timeout") == (1 if answering else 2)
    if answering:
        assert f"{farms[0].to} (127.0.0.1:" in proxy.wait_for_message("is left out: it took what a client sent")
    assert len(proxy.messages) == answering


# Up and down


@pytest.mark.parametrize("kind", ["tcp", "tls", "http"])
def test_what_each_check_wants(start: Start, farms: list[Farm], kind: str, identity: Identity) -> None:
    """A server that speaks HTTP in the clear, and one that refuses."""
    with refused_port() as port:
        refused = f"tcp://127.0.0.1:{port}"
        proxy = start(*front(refused, farms[0].to), "--to-check", kind, *OFTEN)
        assert "refused" in proxy.wait_for_message(f"{refused} (127.0.0.1:{port}) is down by its {kind} check")
        if kind == "tls":
            proxy.wait_for_message(f"{farms[0].to} (127.0.0.1:{farms[0].server.server_address[1]}) is down by its tls check")
        assert [ask(proxy) for _ in range(3)] == ["one"] * 3


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_down_after_some_bad_checks_and_up_after_some_good_ones(start: Start, farms: list[Farm], method: str) -> None:
    pace = ("--to-check-rise", 2, "--to-check-fall", 3, "--metrics", "127.0.0.1:0", "--to-check-method", method)
    proxy = start(*front(farms[0].to, farms[1].to), *HTTP, *pace, threads=2)
    for name in ("one", "two"):
        ask_until(proxy, name)
    farms[0].status = 503
    before = farms[0].checked
    assert "the answer has status 503" in proxy.wait_for_message(f"{farms[0].to} ")
    assert farms[0].checked - before >= 3
    served = farms[0].served
    assert {ask(proxy) for _ in range(16)} == {"two"}
    assert farms[0].served == served
    up = f'sslsock_proxy_backend_up{{backend="{farms[0].to[6:]}"}}'
    assert f"{up} 0.0" in proxy.metrics()
    checks = "sslsock_proxy_backend_checks_total{.*"
    assert value(proxy, f'{checks}{farms[0].to[6:]}",result="failed"') >= 3
    assert value(proxy, f'{checks}{farms[0].to[6:]}",result="ok"') >= 1
    assert value(proxy, f'{checks}{farms[1].to[6:]}",result="failed"') == 0
    farms[0].status = 200
    proxy.wait_for_message(f"(127.0.0.1:{farms[0].server.server_address[1]}) is up by its http check")
    ask_until(proxy, "one")
    assert f"{up} 1.0" in proxy.metrics()


def test_the_status_that_is_wanted(start: Start, farms: list[Farm]) -> None:
    farms[0].status = 404
    proxy = start(*front(farms[0].to, farms[1].to), *HTTP, "--to-check-status", "404")
    proxy.wait_for_message("the answer has status 200")
    assert {ask(proxy) for _ in range(4)} == {"one"}


def test_all_down_are_tried_anyway(start: Start, farms: list[Farm]) -> None:
    farms[0].status = 500
    proxy = start(*front(farms[0].to), *HTTP)
    proxy.wait_for_message("is down by its http check")
    assert ask(proxy) == "one"


# With real programs


def test_nginx_is_checked_with_a_proxy_header_of_nobody(start: Start, identity: Identity, tmp_path: FilePath) -> None:
    with nginx(tmp_path, identity) as ports:
        good, bad = f"tcp://127.0.0.1:{ports['informed']}", f"tcp://127.0.0.1:{ports['plain']}"
        proxy = start(*front(good, bad), *HTTP, "--proxy-protocol-out", "v2", "--metrics", "127.0.0.1:0")
        proxy.wait_for_message(f"{bad} (127.0.0.1:{ports['plain']}) is down by its http check")
        assert "127.0.0.1" in ask(proxy)
        assert value(proxy, rf'sslsock_proxy_backend_checks_total{{.*:{ports["informed"]}",result="ok"}}') >= 1


def test_nginx_is_checked_through_tls_and_its_sessions_are_resumed(
    start: Start, identity: Identity, tmp_path: FilePath
) -> None:
    with nginx(tmp_path, identity) as ports:
        to = f"tls://localhost:{ports['tls']}"
        options = ("--to-ca", identity.ca, "--to-check-path", "/small", "--to-check-status", "200", "--metrics", "127.0.0.1:0")
        proxy = start(*front(to), *HTTP, *options)
        for _ in range(3):
            with connect(proxy.port) as client:
                client.sendall(b"GET /small HTTP/1.0\r\n\r\n")
                assert receive_all(client).endswith(b"small\n")
            proxy.record()
        handshakes = "sslsock_proxy_backend_handshakes_total{.*resumed="
        assert value(proxy, f'{handshakes}"false"') == 1
        assert value(proxy, f'{handshakes}"true"') == 2
        assert value(proxy, 'sslsock_proxy_backend_checks_total{.*result="ok"}') >= 1
        assert value(proxy, r"sslsock_proxy_backend_connections_active\{.*127\.0\.0\.1") == 0


def test_a_tls_check_verifies_the_openssl_program(start: Start, identity: Identity, tmp_path: FilePath) -> None:
    """In its own name it is good, in another one it is not."""
    files = ("-cert", str(identity.cert), "-key", str(identity.key))
    arguments = [program("openssl", "openssl"), "s_server", "-accept", "127.0.0.1:0", "-www", *files]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            assert process.stdout is not None
            port = next(int(found[1]) for line in process.stdout if (found := re.match(rb"ACCEPT 127\.0\.0\.1:(\d+)", line)))
            file = tmp_path / "proxy.toml"
            file.write_text(
                "".join(
                    f'[[listener]]\nlisten = "tcp://127.0.0.1:0"\nto = "tls://127.0.0.1:{port}"\nto-ca = "{identity.ca}"\n'
                    f'to-server-name = "{name}"\nto-check = "tls"\nto-check-interval = 0.05\nto-check-timeout = 5\n'
                    for name in ("localhost", "other.example")
                )
            )
            proxy = start("--config", file, "--metrics", "127.0.0.1:0", listeners=2)
            assert "is not for other.example" in proxy.wait_for_message("is down by its tls check")
            while not value(proxy, 'sslsock_proxy_backend_checks_total{.*result="ok"}'):
                pass
            assert len([line for line in proxy.messages if "is down" in line]) == 1
        finally:
            process.kill()


# The choice


def test_weights(start: Start, farms: list[Farm]) -> None:
    proxy = start(*front(f"{farms[0].to} weight=3", farms[1].to))
    assert Counter(ask(proxy) for _ in range(12)) == {"one": 9, "two": 3}


def test_a_spare_takes_over_and_gives_back(start: Start, farms: list[Farm]) -> None:
    proxy = start(*front(f"{farms[0].to} backup", farms[1].to), *HTTP)
    ask_until(proxy, "two")
    farms[1].status = 503
    proxy.wait_for_message("is down by its http check")
    assert {ask(proxy) for _ in range(5)} == {"one"}
    farms[1].status = 200
    proxy.wait_for_message("is up by its http check")
    ask_until(proxy, "two")


def test_least_connections(start: Start) -> None:
    workers = 1 if IN_PROCESSES else 2  # each process counts its own
    with listener() as one, listener() as two, contextlib.ExitStack() as stack:
        to = [f"tcp://127.0.0.1:{port_of(sock)}" for sock in (one, two)]
        proxy = start(*front(*to), "--balance", "least-connections", "--metrics", "127.0.0.1:0", threads=workers)
        pairs: dict[socket.socket, list[tuple[Any, Any]]] = {one: [], two: []}

        def come() -> socket.socket:
            """Where the next client comes out."""
            client = stack.enter_context(connect(proxy.port))
            (came, *_), _, _ = select.select([one, two], [], [], 60)
            pairs[came].append((client, stack.enter_context(came.accept()[0])))
            return came

        for _ in range(6):
            come()
        assert [len(found) for found in pairs.values()] == [3, 3]
        active = "sslsock_proxy_backend_connections_active{.*"
        assert value(proxy, f"{active}:{port_of(one)}") == value(proxy, f"{active}:{port_of(two)}") == 3
        for client, server in pairs[two]:
            client.close()
            server.close()
            proxy.record()
        assert [come() for _ in range(3)] == [two] * 3


def test_the_same_source_gets_the_same_back_end(start: Start, farms: list[Farm]) -> None:
    proxy = start(*front(*(farm.to for farm in farms)), "--balance", "hash-source")
    first = {source: ask(proxy, source=source) for source in (f"127.0.0.{number}" for number in range(2, 18))}
    assert len(set(first.values())) > 1
    assert {source: ask(proxy, source=source) for source in reversed(first)} == first


def test_the_same_name_gets_the_same_back_end(start: Start, farms: list[Farm], identity: Identity) -> None:
    tls = ("--listen", "tls://127.0.0.1:0", "--cert", identity.both, "--balance", "hash-sni")
    proxy = start(*front(*(farm.to for farm in farms))[2:], *tls)
    context = identity.client_context()
    context.check_hostname = False
    names = [f"name{number}.example" for number in range(16)]
    first = {name: ask(proxy, context, name=name) for name in names}
    assert len(set(first.values())) > 1
    assert {name: ask(proxy, context, name=name.upper()) for name in reversed(names)} == first


# SIGHUP


def test_what_is_known_of_those_that_stay_is_kept(start: Start, farms: list[Farm], tmp_path: FilePath) -> None:
    one, two, three = farms
    one.status = 503
    file = tmp_path / "proxy.toml"

    def write(*to: str, interval: Optional[float] = 0.05) -> None:
        file.write_text(
            f'[[listener]]\nlisten = "tcp://127.0.0.1:0"\nto = {list(to)}\nto-check = "http"\nto-check-interval = {interval}\n'
            "to-check-timeout = 5\nto-check-rise = 1\n"
        )

    write(one.to, two.to)
    proxy = start("--config", file, "--metrics", "127.0.0.1:0")
    proxy.wait_for_message("is down by its http check")
    assert ask(proxy) == "two"
    write(f"{one.to} weight=5", three.to, interval=600)
    proxy.process.send_signal(signal.SIGHUP)
    proxy.wait_for_message("read again")
    assert {ask(proxy) for _ in range(5)} == {"three"}
    assert len([line for line in proxy.messages if "is down" in line]) == 1, "it was not learnt a second time"
    assert not any(f'"{two.to[6:]}"' in line for line in proxy.metrics() if "_checks_total" in line)
    checked = one.checked
    assert value(proxy, rf'sslsock_proxy_backend_checks_total{{.*{re.escape(one.to[6:])}.*result="failed"}}') >= 1
    write(one.to, three.to, two.to)
    one.status = 200
    proxy.process.send_signal(signal.SIGHUP)
    proxy.wait_for_message("is up by its http check")
    ask_until(proxy, "one")
    assert one.checked > checked
