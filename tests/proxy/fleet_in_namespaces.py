"""Of test_fleet: two proxies and a Redis, on both sides of a cable between two network namespaces. This program runs in the
first one; the process whose number stands in a file is in the other.

Arguments: a folder, a certificate with its key. Prints what became of a session at each proxy, the other one first.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
from pathlib import Path

from command_helpers import command

from .operations import DEADLINE, proxy, read_all
from .redis_server import RedisServer

NEAR, FAR = "192.0.2.1", "192.0.2.2"  # RFC 5737


def serve(listening: socket.socket) -> None:
    while True:
        with listening.accept()[0] as connection:
            connection.sendall(b"hello")


def main(folder: Path, pair: Path) -> None:
    other = ["nsenter", "-t", (folder / "other").read_text().strip(), "-n"]
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    back = socket.create_server((NEAR, 8080))
    back.settimeout(None)
    threading.Thread(target=serve, args=(back,), daemon=True).start()
    with contextlib.ExitStack() as stack:
        stack.enter_context(RedisServer(folder, "--bind", NEAR, "--protected-mode", "no", "--port", "6379"))
        words = ["--to", f"tcp://{NEAR}:8080", "--fleet", f"redis://{NEAR}", "--cert", pair]
        starts = [[], other]
        for address, start in zip((NEAR, FAR), starts):
            program = [*start, *command("proxy", "--listen", f"tls://{address}:8443", *words)]
            stack.enter_context(proxy(program=program)).wait_for_line("session ticket keys are shared")
        session = None
        for address in (NEAR, FAR, NEAR):
            raw = socket.create_connection((address, 8443), DEADLINE)
            with context.wrap_socket(raw, server_hostname="localhost", session=session) as connection:
                assert read_all(connection) == b"hello"
                if session is not None:
                    print("resumed" if connection.session_reused else "not resumed")
                session = connection.session


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
