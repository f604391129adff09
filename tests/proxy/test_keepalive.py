"""TCP keepalive: the kernel's timers on both halves of a connection, as `ss` shows them, and what SIGHUP changes."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path as FilePath
from typing import Callable, Optional

import pytest

from .running import Proxy, accept, address_of, connect, listener, receive_exactly

pytestmark = pytest.mark.skipif(shutil.which("ss") is None, reason="the program ss shows the timers of a connection")

Start = Callable[..., Proxy]


def timer(local: str, peer: str) -> Optional[float]:
    """Seconds until the first probe on a connection, None without one. Whatever else its timer was for has run out."""
    while True:
        words = ["ss", "-tnHo", "state", "established", "src", local, "dst", peer]
        line = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout
        assert line, f"no connection from {local} to {peer}"
        found = re.search(r"timer:\((\w+),(?:(\d+)min)?(?:([\d.]+)sec)?", line)
        if found is None:
            return None
        if found[1] == "keepalive":
            return 60 * int(found[2] or 0) + float(found[3] or 0)


def timers(proxy: Proxy, listening: socket.socket) -> tuple[Optional[float], Optional[float]]:
    """Of the proxy's two ends: to the client, to the back end."""
    with connect(proxy.port) as client, accept(listening) as server:
        server.sendall(b"x")
        assert receive_exactly(client, 1) == b"x"
        return timer(f"127.0.0.1:{proxy.port}", address_of(client)), timer(
            "{}:{}".format(*server.getpeername()), address_of(server)
        )


@pytest.mark.parametrize("seconds", [None, 3600, 0])
def test_both_sides_have_it(start: Start, seconds: Optional[int]) -> None:
    options = () if seconds is None else ("--keepalive", seconds)
    with listener() as listening:
        proxy = start("--listen", "tcp://127.0.0.1:0", "--to", f"tcp://127.0.0.1:{listening.getsockname()[1]}", *options)
        found = timers(proxy, listening)
    if seconds == 0:
        assert found == (None, None)
    else:
        for side in found:
            assert side is not None and 0 < side <= (seconds or 60), found
            assert seconds is None or side > 60, found


def test_sighup_changes_it_for_connections_to_come(start: Start, tmp_path: FilePath) -> None:
    with listener() as listening:
        to = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        file = tmp_path / "proxy.toml"
        table = f'[[listener]]\nlisten = "tcp://127.0.0.1:0"\nto = "{to}"\n'
        file.write_text(f"keepalive = 0\n{table}")
        proxy = start("--config", file)
        assert timers(proxy, listening) == (None, None)
        file.write_text(f"keepalive = 1000\n{table}")
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_for_message("read again")
        for side in timers(proxy, listening):
            assert side is not None and side > 60
