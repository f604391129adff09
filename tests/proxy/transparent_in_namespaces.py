"""Of test_transparent: a client, the proxy and a back end, each in a network namespace of its own. This program runs in the
proxy's; the processes whose numbers it gets are in the client's and in the back end's.

Arguments: a user or "", and those numbers. Prints, for IPv4 and IPv6, the address that the
back end saw and what the client got; then the rights that the proxy has.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from .operations import proxy, read_all

CLIENTS = {"192.0.2.1": "198.51.100.2", "2001:db8:1::1": "2001:db8:2::2"}  # the proxy's address → the back end's
TIMEOUT = 20.0


@contextlib.contextmanager
def inside(process: str) -> Iterator[None]:
    """Sockets that are made meanwhile belong to that process's namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as here, open(f"/proc/{process}/ns/net") as there:
        assert libc.setns(there.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(here.fileno(), 0) == 0


def main(user: str, near: str, far: str) -> None:
    rights = ""
    for front, back in CLIENTS.items():
        host = f"[{front}]" if ":" in front else front
        with contextlib.ExitStack() as stack:
            with inside(far):
                family = socket.AF_INET6 if ":" in back else socket.AF_INET
                listening = stack.enter_context(socket.create_server((back, 0), family=family))
            listening.settimeout(TIMEOUT)
            port = listening.getsockname()[1]
            to = f"tcp://[{back}]:{port}" if ":" in back else f"tcp://{back}:{port}"
            words = ["--listen", f"tcp://{host}:8443", "--to", to, "--transparent"]
            running = stack.enter_context(proxy(*words, *(["--user", user] if user else [])))
            with inside(near):
                client = stack.enter_context(socket.create_connection((front, 8443), TIMEOUT))
            server, address = listening.accept()
            with server:
                server.settimeout(TIMEOUT)
                client.sendall(b"there")
                assert server.recv(5) == b"there"
                server.sendall(b"and back")
            same = address[0] == client.getsockname()[0]
            print(address[0], "the client's" if same else "not the client's", read_all(client).decode().replace(" ", "-"))
            status = Path(f"/proc/{running.process.pid}/status").read_text().splitlines()
            rights = " ".join(line.split()[1] for line in status if line.startswith(("Uid", "CapEff", "CapPrm")))
    print(rights)


if __name__ == "__main__":
    main(*sys.argv[1:])
