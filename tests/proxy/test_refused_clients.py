"""Clients that are refused and do not go: they take no more than their bounded room beside --max-connections."""

from __future__ import annotations

import os
from typing import Callable

from command_helpers import Identity

from .running import Proxy, connect

LIMIT, CLIENTS, MOST_LEAVING, OWN = 10, 250, 64, 40


def test_refused_clients_that_stay_do_not_pile_up(start: Callable[..., Proxy], identity: Identity) -> None:
    proxy = start(
        *("--listen", "tls://127.0.0.1:0", "--to", "tcp://127.0.0.1:1", "--max-connections", LIMIT),
        *("--cert", identity.cert, "--key", identity.key),
    )
    clients = []
    try:
        for _ in range(CLIENTS):
            client = connect(proxy.port)
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")  # no TLS: it is answered with an alert, and does not close
            clients.append(client)
        for _ in range(CLIENTS):
            assert proxy.record()["reason"] == "handshake_failed"
        descriptors = len(os.listdir(f"/proc/{proxy.process.pid}/fd"))
        assert descriptors <= 2 * LIMIT + MOST_LEAVING + OWN, f"{descriptors} descriptors for {CLIENTS} refused clients"
    finally:
        for client in clients:
            client.close()
