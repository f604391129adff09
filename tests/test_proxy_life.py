"""What the proxy tells of its life: the service manager's datagrams, and the beats of its workers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from clock import Clock
from sslsock import EventLoop
from sslsock.proxy.observability.pulse import Pulse
from sslsock.proxy.service.service_manager import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket, and what NOTIFY_SOCKET has for it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(60)
        if request.param == "path":
            address = str(tmp_path / "notify")
            listening.bind(address)
        else:
            listening.bind("")  # unix(7): the system chooses an abstract one
            address = "@" + listening.getsockname()[1:].decode()
        yield listening, address


def lines(listening: socket.socket) -> list[str]:
    return listening.recv(4096).decode().split("\n")


def test_what_it_is_told(manager: tuple[socket.socket, str]) -> None:
    listening, address = manager
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2500000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    told = ServiceManager(environment)
    assert (told.watchdog, told.problem, environment) == (2.5, "", {"HOME": "/"})
    told.ready("serving")
    assert lines(listening) == ["READY=1", "STATUS=serving"]
    told.reloading()
    first, when, _ = lines(listening)
    assert first == "RELOADING=1" and when.startswith("MONOTONIC_USEC=") and int(when.partition("=")[2]) > 0
    told.stopping(35, "ending")
    assert lines(listening) == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=35000000", "STATUS=ending"]
    told.stopping(0, "ending")
    assert lines(listening) == ["STOPPING=1", "STATUS=ending"]
    told.alive()
    assert lines(listening) == ["WATCHDOG=1"]
    told.close()
    told.close()
    told.alive()  # nobody hears it


def test_there_is_none() -> None:
    told = ServiceManager({"WATCHDOG_USEC": "1000000"})
    assert (told.watchdog, told.problem) == (0, "")
    told.ready("serving")


def test_a_watchdog_for_another_process(manager: tuple[socket.socket, str]) -> None:
    told = ServiceManager({"NOTIFY_SOCKET": manager[1], "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"})
    assert told.watchdog == 0
    told.close()


@pytest.mark.parametrize("address", ["vsock:2:1234", "nonsense", "/nonexistent/notify", "/" + "x" * 200])
def test_an_address_that_cannot_be_used_is_told_and_harms_nothing(address: str) -> None:
    told = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
    assert told.problem.startswith(f"NOTIFY_SOCKET={address}: ") and told.watchdog == 0
    told.ready("serving")


def test_a_manager_that_has_gone(manager: tuple[socket.socket, str]) -> None:
    told = ServiceManager({"NOTIFY_SOCKET": manager[1]})
    manager[0].close()
    told.ready("serving")
    told.close()


def test_who_does_not_turn_is_silent() -> None:
    clock, lively, stuck = Clock(), EventLoop(), EventLoop()
    pulse = Pulse([lively, stuck], clock)
    clock.now += 3
    assert pulse.silence() == 3
    pulse.ask()
    lively.dispatch(0)
    assert pulse.silence() == 3  # of the other
    stuck.dispatch(0)
    assert pulse.silence() == 0
    for loop in (lively, stuck):
        loop.close()


def test_who_has_ended_is_not_missed() -> None:
    clock, left, ended = Clock(), EventLoop(), EventLoop()
    pulse = Pulse([left, ended], clock)
    ended.close()
    clock.now += 3
    pulse.ask()
    left.dispatch(0)
    assert pulse.silence() == 0
    left.close()
    pulse.ask()
    assert pulse.silence() == 0
