"""Foreign programs as peers: found or else skipped, run with a deadline, their output collected by threads.

Nothing here blocks the thread of the loop: what a program says is waited for with `Host.wait_for`, what it is told goes
through a thread of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import random
import re
import shutil
import socket
import subprocess
import termios
import threading
from concurrent.futures import Future
from typing import Any, Callable, NoReturn, Optional

import pytest

RUN_LIMIT = 180.0  # seconds after which a program is killed, whatever it does
SERVER_LIMIT = 600.0  # the same for servers that serve a whole module


def cannot_run(reason: str) -> NoReturn:
    """Skip, except in CI: there a peer that is missing would be missed by nobody."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def program(name: str, package: str) -> str:
    """The path of a program; the test is skipped, and fails in CI, when it is not installed."""
    if os.environ.get("SSLSOCK_QUICK"):
        pytest.skip("`ci/test --quick` starts no foreign program")
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin")
    return path or cannot_run(f"{name} is not installed: Debian package {package}")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now, for servers that cannot say which one they were given.

    It is none of those that the system gives to sockets which take any (ip(7), ip_local_port_range): other tests, which run
    beside this one and open many of these, do not get it before the server binds it.
    """
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        lowest, highest = map(int, file.read().split())
    outside = [*range(10_000, lowest), *range(highest + 1, 65_536)] or [0]
    while True:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", random.choice(outside)))
            return probe.getsockname()[1]


class Program:
    """A running program. `out` and `err` grow as it speaks."""

    def __init__(self, arguments: list[str], *, env: Optional[dict[str, str]] = None, limit: float = RUN_LIMIT) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
        )
        self._input: queue.Queue[Optional[bytes]] = queue.Queue()
        self._told = self._fed = 0  # pieces of input: each is counted by one thread
        self._threads = [
            threading.Thread(target=self._collect, args=(self._process.stdout, self.out)),
            threading.Thread(target=self._collect, args=(self._process.stderr, self.err)),
            threading.Thread(target=self._feed),
        ]
        self._watchdog = threading.Timer(limit, self._process.kill)
        for thread in (*self._threads, self._watchdog):
            thread.daemon = True
            thread.start()

    @staticmethod
    def _collect(pipe: Any, into: bytearray) -> None:
        with pipe:
            while True:
                piece = pipe.raw.read(65536)
                if not piece:
                    return
                into += piece

    def _feed(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):
            while True:
                data = self._input.get()
                if data is None:
                    break
                pipe.write(data)
                pipe.flush()
                self._fed += 1
        with contextlib.suppress(BrokenPipeError):
            pipe.close()

    @property
    def text(self) -> str:
        """All that it has said."""
        return (self.out + b"\n" + self.err).decode("utf-8", "replace")

    def said(self, pattern: str) -> Optional[re.Match[str]]:
        return re.search(pattern, self.text)

    def write(self, data: bytes) -> None:
        """To its standard input."""
        self._told += 1
        self._input.put(data)

    def close_input(self) -> None:
        self._input.put(None)

    @property
    def input_taken(self) -> bool:
        """It has read all that it was told."""
        left = bytearray(4)
        with contextlib.suppress(ValueError):  # the pipe is closed
            fcntl.ioctl(self._process.stdin.fileno(), termios.FIONREAD, left)
        return self._told == self._fed and not any(left)

    @property
    def ended(self) -> bool:
        """It has ended, and all that it said is here."""
        return self._process.poll() is not None and not any(thread.is_alive() for thread in self._threads[:2])

    @property
    def status(self) -> Optional[int]:
        return self._process.returncode

    def cut(self) -> None:
        """End it so that it cannot say goodbye: the system closes its connections."""
        self._process.kill()

    def ask_to_end(self) -> None:
        self._process.terminate()

    def close(self, patience: float = 0.0) -> None:
        """End it, if it has not ended within `patience` seconds, and give back what it held."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._watchdog.cancel()
        self._input.put(None)
        for thread in (*self._threads, self._watchdog):
            thread.join(10)


def in_thread(function: Callable[..., Any], *args: Any) -> Future[Any]:
    """Call a blocking function beside the loop."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function(*args))
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return future
