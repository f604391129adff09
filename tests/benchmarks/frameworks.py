"""Frameworks and libraries over TLS, each on the loops that it may run on: CPU of the whole program per piece of work.

Servers: aiohttp, uvicorn on h11 and on httptools (1 KiB by HTTP/1.1 over 64 connections that stay; the load is that of
application.py), websockets (16 connections whose messages of 128 bytes come back; the load is websockets itself). Clients:
aiohttp (1 KiB by HTTP/1.1, 16 requests at a time; the server is aiohttp), asyncpg (`SELECT 1`, one at a time, PostgreSQL).

The peers are loops: `sslsock-aio` is ours, `sslsock-aio-uvloop` uvloop with `attach`, both with contexts of `sslsock.ssl`; the
others have contexts of the standard library.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import harness
from application import Load
from harness import BACKLOG, FOLDER, LOAD_CPU, SERVER_CPU, Report, Server

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `interop`, whose PostgreSQL is used

PEERS = ("sslsock-aio", "sslsock-aio-uvloop", "uvloop", "aiofastnet-uvloop")
BASELINE = "aiofastnet-uvloop"
TARGET = 0.97
BODY = b"x" * 1024
MESSAGE = "m" * 128
TALKERS = 16


# Servers: each takes a context, tells its port and serves


async def serve_aiohttp(context: Any) -> None:
    from aiohttp import web

    async def small(request: Any) -> Any:
        return web.Response(body=BODY)

    application = web.Application()
    application.router.add_get("/small", small)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context, backlog=BACKLOG)
    await site.start()
    harness.announce(runner.addresses[0][1])
    await asyncio.Event().wait()


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1024")]})
    await send({"type": "http.response.body", "body": BODY})


def serve_uvicorn(parser: str) -> Callable[[Any], Any]:
    async def serve(context: Any) -> None:
        import uvicorn

        config = uvicorn.Config(
            asgi, port=0, http=parser, lifespan="off", log_level="error", access_log=False, backlog=BACKLOG,
            ssl_certfile=FOLDER / "server.pem", ssl_keyfile=FOLDER / "server.key",
            ssl_context_factory=lambda config, default: context,
        )  # fmt: skip
        server = uvicorn.Server(config)
        serving = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0.001)
        harness.announce(server.servers[0].sockets[0].getsockname()[1])
        await serving

    return serve


async def serve_websockets(context: Any) -> None:
    from websockets.asyncio.server import serve

    async def echo(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, ssl=context, compression=None) as server:
        harness.announce(server.sockets[0].getsockname()[1])
        await server.serve_forever()


# Clients: each takes a context and a port, and returns what does so many pieces of work


async def open_aiohttp(context: Any, port: int) -> Callable[[int], Any]:
    import aiohttp

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))
    url = f"https://localhost:{port}/small"

    async def ask(count: int) -> None:
        for _ in range(count):
            async with session.get(url) as answer:
                assert len(await answer.read()) == len(BODY)

    async def work(count: int) -> None:
        await asyncio.gather(*(ask(count // TALKERS) for _ in range(TALKERS)))

    return work


async def open_asyncpg(context: Any, port: int) -> Callable[[int], Any]:
    import asyncpg

    context.set_ecdh_curve("prime256v1")  # PostgreSQL 15 knows no X25519
    connection = await asyncpg.connect(
        host="127.0.0.1", port=port, user="me", password="secret", database="postgres", ssl=context
    )

    async def work(count: int) -> None:
        for _ in range(count):
            assert await connection.fetchval("SELECT 1") == 1

    return work


async def talk(port: int, count: int) -> None:
    """The load of websockets' server."""
    from websockets.asyncio.client import connect

    async def one() -> None:
        async with connect(f"wss://localhost:{port}/", ssl=harness.client_context(), compression=None) as client:
            for _ in range(count // TALKERS):
                await client.send(MESSAGE)
                await client.recv()

    await asyncio.gather(*(one() for _ in range(TALKERS)))


# Row: its name, what it counts, the modules it needs, how many times, what it is.
SERVERS = {
    "aiohttp server": ("request", ["aiohttp"], 20_000, serve_aiohttp),
    "uvicorn on h11": ("request", ["uvicorn", "h11"], 10_000, serve_uvicorn("h11")),
    "uvicorn on httptools": ("request", ["uvicorn", "httptools"], 20_000, serve_uvicorn("httptools")),
    "websockets": ("echo", ["websockets"], 16_000, serve_websockets),
}
CLIENTS = {
    "aiohttp client": ("request", ["aiohttp"], 16_000, open_aiohttp),
    "asyncpg": ("SELECT 1", ["asyncpg", "cryptography"], 10_000, open_asyncpg),
}


def run(peer: str, row: str, far: int, cpu: int) -> None:
    """Be the program under test. A client does so much as each line of standard input says."""
    os.sched_setaffinity(0, {cpu})
    loop, module = harness.make_loop(peer), harness.ssl
    asyncio.set_event_loop(loop)
    if peer.startswith("sslsock"):
        import sslsock.aio
        import sslsock.ssl

        sslsock.aio.attach(loop)  # no effect on our own
        module = sslsock.ssl  # type: ignore[assignment]
    if row in SERVERS:
        loop.run_until_complete(SERVERS[row][3](harness.server_context(module)))
        return
    context = module.create_default_context(cafile=os.environ.get("SSLSOCK_BENCHMARK_CA") or str(FOLDER / "ca.pem"))
    work = loop.run_until_complete(CLIENTS[row][3](context, far))
    harness.announce(far)
    for line in sys.stdin:
        loop.run_until_complete(work(int(line)))
        print("done", flush=True)


def cost(server: Server, row: str, count: int) -> Optional[float]:
    """The program's CPU time for one piece of work; None when some were not done."""
    if row in SERVERS and row != "websockets":
        return Load("request", count).cpu_seconds(server)
    before = server.cpu_seconds()
    if row in CLIENTS:
        done = server.ask(str(count)) == "done"
    else:
        words = [sys.executable, __file__, "--talk", str(server.port), str(count)]
        done = subprocess.call(words, preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CPU})) == 0
    spent = server.cpu_seconds() - before
    if not done:
        print(f"{server.peer}, {row}: not all was done\n{server.log.read_text()[-2000:]}", file=sys.stderr)
    return spent / count if done else None


@contextlib.contextmanager
def on_load_cpu() -> Iterator[None]:
    """What is started meanwhile runs there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {LOAD_CPU})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def far_end(row: str) -> Iterator[int]:
    """The port of the server of a client's row; 0 for a row that has none."""
    if row == "asyncpg":
        from interop import servers
        from interop.pki import Pki

        with tempfile.TemporaryDirectory() as folder:
            pki = Pki(Path(folder))
            configuration = os.environ.pop("OPENSSL_CONF")  # PostgreSQL's user cannot read it
            with on_load_cpu(), servers.postgresql(pki) as ports:
                os.environ.update(OPENSSL_CONF=configuration, SSLSOCK_BENCHMARK_CA=pki.root_file)
                yield ports[0]
        del os.environ["SSLSOCK_BENCHMARK_CA"]
    elif row in CLIENTS:
        with Server("asyncio", "--row", "aiohttp server", "--cpu", str(LOAD_CPU)) as server:
            yield server.port
    else:
        yield 0


def can_run(row: str, modules: list[str], report: Report) -> bool:
    missing = harness.installed(modules)
    if row == "asyncpg" and not any(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        missing = missing or "PostgreSQL"
    if missing is not None:
        report.leave_out(row, f"no {missing}")
        return False
    report.add_version(modules[0], harness.version_of(modules[0]))
    return True


def main() -> int:
    parser = harness.arguments(__doc__ or "", rounds=5)
    harness.server_arguments(parser, PEERS)
    parser.add_argument("--only", default="", metavar="A,B", help="the rows whose names begin so")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--far", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--cpu", type=int, default=SERVER_CPU, help=argparse.SUPPRESS)
    parser.add_argument("--talk", nargs=2, type=int, help=argparse.SUPPRESS)
    options = harness.begin(parser)
    if options.serve:
        run(options.serve, options.row, options.far, options.cpu)
        return 0
    if options.talk:
        asyncio.run(talk(*options.talk))
        return 0
    report = Report("Frameworks", options)
    peers = harness.available_servers(options.peers, report)
    baseline = BASELINE if BASELINE in peers else peers[0]
    targets = {"sslsock-aio": TARGET} if baseline == BASELINE else {}
    rows = {name: row for name, row in {**SERVERS, **CLIENTS}.items() if any(map(name.startswith, options.only.split(",")))}
    rows = {name: row for name, row in rows.items() if can_run(name, row[1], report)}
    report.head()
    for name, (what, _, count, _) in rows.items():
        count = 64 if options.quick else count
        measure = report.measure(f"{name}: {what}", "us of CPU", less=True, baseline=baseline, targets=targets)
        with contextlib.ExitStack() as stack:
            far = str(stack.enter_context(far_end(name)))
            programs = []
            for peer in peers:
                with report.forgiving(peer):
                    programs.append(stack.enter_context(Server(peer, "--row", name, "--far", far)))
            for number in range(options.rounds):
                for program in harness.rotated(programs, number):
                    cost(program, name, max(TALKERS, count // 10))  # warms up
                    seconds = cost(program, name, count)
                    measure.add(program.peer, None if seconds is None else seconds * 1e6)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
