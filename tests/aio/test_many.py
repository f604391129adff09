"""Many connections, and much data: 10,000 at once, ends of every kind one after the other, 300 MB to a slow reader."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from far_end import Certificates, World

from peers import MEMORY_TELLS, open_descriptors

FULL = bool(os.environ.get("SSLSOCK_FULL"))
AT_ONCE = 10_000
WITH_TLS = AT_ONCE if FULL else 2000  # a handshake in the client takes a millisecond

# The other end: opens COUNT connections, says so, and when it is told to, says a byte on each and ends them in three ways.
CLIENT = """
import os, resource, socket, ssl, struct, sys
# Before CPython 3.12 asyncio makes a socket of it, and those of the tests have a time limit, which makes them non-blocking.
os.set_blocking(0, True)
port, count, authority = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
context = ssl.create_default_context(cafile=authority) if authority else None
made = []
for _ in range(count):
    sock = socket.create_connection(("127.0.0.1", port))
    made.append(context.wrap_socket(sock, server_hostname="localhost") if context else sock)
print("open", flush=True)
sys.stdin.readline()
for sock in made:
    sock.sendall(b"x")
for sock in made:
    assert sock.recv(1) == b"y"
print("served", flush=True)
sys.stdin.readline()
for at, sock in enumerate(made):
    if at % 3 == 1:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif at % 3 == 2 and context:
        sock.setblocking(False)
        try:
            sock.unwrap()
        except ssl.SSLWantReadError:
            pass
    sock.close()
print("ended", flush=True)
"""


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_ten_thousand_connections(tls: bool, certificates: Certificates, tmp_path: Path) -> None:
    count = WITH_TLS if tls else AT_ONCE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 500:
        pytest.skip(f"the system allows {hard} descriptors only")
    if soft < count + 500:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    authority = tmp_path / "authority.pem"
    certificates.ca.cert_pem.write_to_path(authority)
    w = World(certificates, True, tls, True)
    made = lost = 0

    class Server(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            nonlocal made
            made += 1
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(b"y" * len(data))

        def connection_lost(self, exc: Any) -> None:
            nonlocal lost
            lost += 1
            w.wake()

    async def main() -> None:
        server = await w.loop.create_server(Server, "127.0.0.1", 0, backlog=1000, **({"ssl": w.near} if tls else {}))
        port = server.sockets[0].getsockname()[1]
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CLIENT, str(port), str(count), str(authority) if tls else ""),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert client.stdout is not None and client.stdin is not None
        try:
            assert await client.stdout.readline() == b"open\n"
            client.stdin.write(b"\n")
            assert await client.stdout.readline() == b"served\n"
            assert made == count and lost == 0
            client.stdin.write(b"\n")
            assert await client.stdout.readline() == b"ended\n"
            while lost < count:
                waiter = w.loop.create_future()
                w.waiters.append(waiter)
                await waiter
            await client.wait()
        finally:
            if client.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    client.kill()
                await client.wait()
        server.close()
        await w.quiet()

    gc.collect()
    objects, before = len(gc.get_objects()), set(open_descriptors().values())
    try:
        w.loop.run_until_complete(main())
        gc.collect()
        assert len(gc.get_objects()) < objects + 2000
        assert {name for name in open_descriptors().values() if name.startswith("socket")} <= before
        assert w.events == []
    finally:
        w.loop.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def kib_resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("the system does not tell")


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_three_hundred_megabytes_to_a_slow_reader(tls: bool, certificates: Certificates) -> None:
    total, piece = 300 << 20, bytes(range(256)) * 256
    w = World(certificates, True, tls, True)
    room = asyncio.Event()
    room.set()
    most = most_kib = received = 0

    async def main() -> None:
        near, far = await w.connect(pause_writing=lambda near: room.clear(), resume_writing=lambda near: room.set())
        w.events.clear()
        _, high = near.transport.get_write_buffer_limits()
        before = kib_resident()

        async def write() -> None:
            nonlocal most, most_kib
            for at in range(total // len(piece)):
                await room.wait()
                near.transport.write(piece + bytes(0))  # an object of its own
                most = max(most, near.transport.get_write_buffer_size())
                if at % 64 == 0:
                    most_kib = max(most_kib, kib_resident() - before)
            near.transport.close()

        nonlocal received
        writing = w.loop.create_task(write())
        while data := await far.receive():
            received += len(data)
        await writing
        await w.told("connection_lost")
        assert most <= high + len(piece)

    w.loop.run_until_complete(main())
    for close in w.closes:
        close()
    w.loop.close()
    assert received == total
    names = [event[0] for event in w.events]
    assert names[:-1] == ["pause_writing", "resume_writing"] * (len(names) // 2) and names[-1] == "connection_lost"
    assert len(names) > 3, "the reader was never slow"
    if MEMORY_TELLS:
        assert most_kib < 50 << 10, "what waits is not bounded"
