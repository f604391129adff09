"""The proxy as a service manager and an orchestrator see it: ready, reloading, ending, alive."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .operations import DEADLINE, Origin, Proxy, connect, origin, proxy, say, wait_until

LOCAL = "127.0.0.1:0"


class Manager:
    """A service manager's socket."""

    def __init__(self, path: Path) -> None:
        self.environment = {"NOTIFY_SOCKET": str(path)}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(DEADLINE)
        self.socket.bind(str(path))

    def wait_for(self, line: str) -> list[str]:
        """The next datagram that begins so, past signs of life."""
        while (found := self.socket.recv(4096).decode().split("\n"))[0] == "WATCHDOG=1" != line:
            pass
        assert found[0] == line, found
        return found


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    with made.socket:
        yield made


@pytest.fixture
def back() -> Iterator[Origin]:
    with origin() as made:
        yield made


def probe(running: Proxy, path: str, method: str = "GET") -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", running.metrics_port, timeout=DEADLINE)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_a_service_from_its_start_to_its_end(manager: Manager, back: Origin, tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    text = f'[[listener]]\nlisten = "tcp://{LOCAL}"\nto = "{back.url}"\n'
    file.write_text(text)
    with proxy("--config", str(file), "--threads", 2, "--drain-timeout", 5, env=manager.environment) as running:
        _, status = manager.wait_for("READY=1")
        assert status == "STATUS=serving tcp://127.0.0.1:0"
        with connect(running.port) as client:
            say(client)
        running.send(signal.SIGHUP)
        assert manager.wait_for("RELOADING=1")[1].startswith("MONOTONIC_USEC=")
        assert manager.wait_for("READY=1")[1] == status
        file.write_text("nonsense")
        running.send(signal.SIGHUP)
        manager.wait_for("RELOADING=1")
        assert manager.wait_for("READY=1")[1] == f"{status}; a reload has failed, the old settings are in force"
        running.send(signal.SIGTERM)
        assert manager.wait_for("STOPPING=1")[1:] == ["EXTEND_TIMEOUT_USEC=5000000", "STATUS=ending"]
        assert running.wait() == 0


def test_signs_of_life(manager: Manager, back: Origin) -> None:
    environment = {**manager.environment, "WATCHDOG_USEC": "400000"}
    with proxy("--listen", f"tcp://{LOCAL}", "--to", back.url, "--threads", 2, env=environment):
        manager.wait_for("READY=1")
        for _ in range(3):
            manager.wait_for("WATCHDOG=1")


def test_a_manager_that_is_not_there(back: Origin) -> None:
    with proxy("--listen", f"tcp://{LOCAL}", "--to", back.url, env={"NOTIFY_SOCKET": "/nonexistent/notify"}) as running:
        running.wait_for_line("NOTIFY_SOCKET=/nonexistent/notify: ")
        with connect(running.port) as client:
            say(client)
        assert running.end() == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_the_delay_of_an_end(back: Origin, threads: int) -> None:
    options = ("--metrics", LOCAL, "--threads", threads, "--shutdown-delay", 1000)
    with proxy("--listen", f"tcp://{LOCAL}", "--to", back.url, *options) as running:
        for path in ("/healthz", "/readyz"):
            assert probe(running, path) == (200, b"ok\n")
            assert probe(running, path, "HEAD") == (200, b"")
        assert probe(running, "/elsewhere")[0] == 404
        running.send(signal.SIGTERM)
        running.wait_for_line("SIGTERM: no longer ready; new connections are taken for 1000 s more")
        assert probe(running, "/readyz") == (503, b"ending\n")
        assert probe(running, "/healthz") == (200, b"ok\n")
        with connect(running.port) as client:  # new, and served
            say(client)
            running.send(signal.SIGTERM)  # that is long enough
            running.wait_for_line("SIGTERM: no new connections; 1 ")
            say(client)
        assert running.wait() == 0


def test_the_delay_passes(back: Origin) -> None:
    with proxy("--listen", f"tcp://{LOCAL}", "--to", back.url, "--shutdown-delay", 0.2) as running:
        running.send(signal.SIGTERM)
        running.wait_for_line("SIGTERM: no new connections")
        assert running.wait() == 0


def test_sigint_does_not_wait_for_the_delay(back: Origin) -> None:
    with proxy("--listen", f"tcp://{LOCAL}", "--to", back.url, "--shutdown-delay", 1000) as running:
        running.send(signal.SIGTERM)
        running.wait_for_line("SIGTERM: no longer ready")
        assert running.end(signal.SIGINT) == 130


def test_a_worker_that_stands_still_is_seen(back: Origin) -> None:
    """A stopped process gives no answer at all; one that goes on has its workers answer before it is called ill for long."""
    with proxy("--listen", f"tcp://{LOCAL}", "--to", back.url, "--metrics", LOCAL, "--threads", 2) as running:
        running.send(signal.SIGSTOP)
        running.send(signal.SIGCONT)
        wait_until(lambda: probe(running, "/healthz") == (200, b"ok\n"), "that it is well again")
