"""Libraries of other people on our transports: each program of `libraries/` does its work in asyncio's own loop, and in our
loop, asyncio's and uvloop's with `attach`, with contexts of the interpreter's `ssl` and of `sslsock.ssl`. What comes of it must
be the same, and the transports must be ours.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from command_helpers import ENVIRONMENT, TIMEOUT
from interop import dovecot, postfix, servers
from interop.pki import Pki
from peers import Certificates

PROGRAMS = Path(__file__).parent / "libraries"
SHARED = Path(__file__).parents[1] / "ssl" / "libraries"  # what the programs of both folders use
LOOPS = ("sslsock", "asyncio", "uvloop")
CONTEXTS = ("stdlib", "own")

# Program, the modules that it needs beside uvloop, the transports that stand while it works.
CASES = {
    "aiohttp_work": (["aiohttp"], {"sslsock", "sslsock TLS", "sslsock layered TLS"}),
    "uvicorn_work": (["aiohttp", "httptools", "uvicorn", "websockets", "wsproto"], {"sslsock TLS"}),
    "websockets_work": (["websockets"], {"sslsock TLS"}),
    "grpclib_work": (["grpclib"], {"sslsock TLS"}),
    "hypercorn_work": (["h2", "httpx", "hypercorn", "websockets"], {"sslsock", "sslsock TLS"}),
    "anyio_work": (["anyio"], {"sslsock"}),
    "twisted_work": (["twisted", "OpenSSL", "service_identity"], {"sslsock TLS"}),
}


# Where the program can be run at all, and why.
OLDEST = {
    "aiohttp_work": ((3, 11), "asyncio's own TLS in TLS, with which ours is compared"),
    "uvicorn_work": ((3, 10), "the last uvicorn for CPython 3.9 takes no context"),
    "asyncpg_work": ((3, 10), "asyncpg's copy_from_query fails on CPython 3.9, with any ssl"),
}


def need(program: str, modules: list[str]) -> None:
    version, reason = OLDEST.get(program, ((3, 9), ""))
    if sys.version_info < version:
        pytest.skip(reason)
    for module in ["uvloop", *modules]:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def run(program: str, *arguments: object) -> dict[str, Any]:
    """What a program prints (matrix.py)."""
    path = os.pathsep.join([str(SHARED), ENVIRONMENT["PYTHONPATH"]])
    result = subprocess.run(
        [sys.executable, str(PROGRAMS / f"{program}.py"), "matrix", *map(str, arguments)],
        env={**ENVIRONMENT, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Exception ignored" not in result.stderr, result.stderr
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def compare(found: dict[str, Any], loop: str, contexts: str, kinds: set[str]) -> None:
    """One time of a program's, beside asyncio's own."""
    stock, ours = found["stock stdlib"], found[f"{loop} {contexts}"]
    assert isinstance(stock["result"], dict), stock["result"]  # else where it has failed
    assert ours["result"] == stock["result"]
    assert ours["told"] == []
    assert len(ours["left"]) <= len(stock["left"]), ours["left"]  # paho leaves sockets whose peer it refuses
    assert set(ours["seen"]) == kinds
    if contexts == "own":
        assert ours["counted"]["ours"] > 0 and ours["counted"]["stdlib"] == 0
    else:
        assert ours["counted"] == stock["counted"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    certificates, folder = Certificates(), tmp_path_factory.mktemp("certificates")
    ca, server = folder / "ca.pem", folder / "server.pem"
    certificates.ca.cert_pem.write_to_path(str(ca))
    certificates._server.private_key_and_cert_chain_pem.write_to_path(str(server))
    return functools.cache(lambda program: run(program, ca, server))


@pytest.mark.parametrize("contexts", CONTEXTS)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("program", CASES)
def test_a_library(program: str, loop: str, contexts: str, found: Any) -> None:
    modules, kinds = CASES[program]
    need(program, modules)
    compare(found(program), loop, contexts, kinds)


# With the servers that they are for

REAL = {
    "asyncpg_work": (["asyncpg"], {"sslsock TLS"}),
    "redis_work": (["redis"], {"sslsock TLS"}),
    "aiosmtplib_work": (["aiosmtplib"], {"sslsock TLS"}),
    "aioimaplib_work": (["aioimaplib"], {"sslsock TLS"}),
    "aiomqtt_work": (["aiomqtt"], set()),
}
SERVERS: dict[str, Callable[[Pki], Any]] = {
    "asyncpg_work": servers.postgresql,
    "redis_work": servers.redis,
    "aiosmtplib_work": postfix.running,
    "aioimaplib_work": dovecot.running,
    "aiomqtt_work": servers.mosquitto,
}


@pytest.fixture(scope="module")
def found_real(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pki = Pki(tmp_path_factory.mktemp("pki"))
    client, server = (one_file(pki, name) for name in ("client", "server"))

    def start_and_run(program: str) -> dict[str, Any]:
        with SERVERS[program](pki) as ports:
            return run(program, pki.root_file, client, *(port for port in ports if isinstance(port, int)), server)

    return functools.cache(start_and_run)


def one_file(pki: Pki, name: str) -> Path:
    """The certificates and the key of the client or the server."""
    path = pki.folder / f"{name}.pem"
    path.write_text("".join(Path(part).read_text() for part in pki.files(getattr(pki, name))))
    return path


@pytest.mark.parametrize("contexts", CONTEXTS)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("program", REAL)
def test_a_library_with_its_server(program: str, loop: str, contexts: str, found_real: Any) -> None:
    modules, kinds = REAL[program]
    need(program, modules)
    compare(found_real(program), loop, contexts, kinds)
