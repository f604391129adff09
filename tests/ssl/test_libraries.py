"""Libraries of other people with `sslsock.ssl` below them: each program of `libraries/` in a process of its own, once with the
interpreter's `ssl` and once for each way to switch. What comes of it must be the same, and the contexts must be ours.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import importlib.util
import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from tls_pairs import Files

from command_helpers import ENVIRONMENT, TIMEOUT
from interop.programs import program

PROGRAMS = Path(__file__).parent / "libraries"
ALL = ("context", "install", "late")
INSTALLED = ("install", "late")

# Have their TLS from elsewhere.
NOT_FROM_SSL = ("twisted_both",)

# Program, the modules that it needs, the ways to switch.
CASES = {
    "standard_http": ([], ALL),
    "standard_mail": ([], ALL),
    "asyncio_both": (["uvloop"], ALL),
    "requests_client": (["requests"], ALL),
    "urllib3_client": (["urllib3"], ALL),
    "httpx_client": (["httpx"], ALL),
    "aiohttp_both": (["aiohttp"], ALL),
    "tornado_both": (["tornado"], ALL),
    "websockets_both": (["websockets"], ALL),
    "websocket_client": (["websocket"], ALL),
    "trio_both": (["trio"], ALL),
    "anyio_both": (["anyio", "trio"], ALL),
    "grpclib_both": (["grpclib"], ALL),
    "gevent_both": (["gevent"], ALL),
    "pymysql_client": (["pymysql"], ALL),
    "asyncpg_client": (["asyncpg"], ALL),
    "redis_client": (["redis"], INSTALLED),
    "paho_client": (["paho"], ALL),
    "pika_client": (["pika"], ALL),
    "ldap3_client": (["ldap3"], INSTALLED),
    "kafka_client": (["kafka"], ALL),
    "twisted_both": (["twisted", "OpenSSL", "service_identity"], INSTALLED),
    "asgi_servers": (["uvicorn", "hypercorn"], ALL),
    "wsgi_servers": (["werkzeug"], ALL),
}


def need(modules: list[str]) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def run(program: str, how: str, *arguments: object) -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, str(PROGRAMS / f"{program}.py"), how, *map(str, arguments)],
        env={**ENVIRONMENT, "PYTHONWARNINGS": "ignore"}, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def stdlib_run(files: Files) -> Any:
    """What a program comes to with the interpreter's `ssl`."""
    return functools.cache(lambda program: run(program, "stdlib", files.ca_file, files.server_file))


@pytest.mark.parametrize(("program", "how"), [(program, how) for program, (_, ways) in CASES.items() for how in ways])
def test_a_library(program: str, how: str, files: Files, stdlib_run: Any) -> None:
    need(CASES[program][0])
    if program == "asgi_servers" and how == "context" and sys.version_info < (3, 10):
        pytest.skip("the last uvicorn for CPython 3.9 takes no context")
    stdlib, ours = stdlib_run(program), run(program, how, files.ca_file, files.server_file)
    if program in NOT_FROM_SSL:
        assert ours["result"] == stdlib["result"]
        assert not any([*stdlib["counted"].values(), *ours["counted"].values()])
        return
    compare(stdlib, ours, how)


def compare(stdlib: dict[str, Any], ours: dict[str, Any], how: str) -> None:
    """What two runs of a program came to."""
    assert ours["result"] == stdlib["result"]
    if "wrong_name" in stdlib["result"]:
        assert "SSLCertVerificationError" in str(stdlib["result"]["wrong_name"])
    assert stdlib["counted"]["ours"] == 0 and stdlib["counted"]["stdlib"] > 0
    assert ours["counted"]["ours"] > 0
    if how != "context":  # a library may make others beside the one that it is given
        assert ours["counted"]["stdlib"] == 0


# Programs that are started: no line of theirs is changed


SERVERS = {
    "uvicorn": ["uvicorn", "served:asgi", "--host", "127.0.0.1", "--port", "0",
                "--ssl-certfile", "FILE", "--ssl-keyfile", "FILE"],
    "hypercorn": ["hypercorn", "served:asgi", "--bind", "127.0.0.1:0", "--certfile", "FILE", "--keyfile", "FILE"],
    "gunicorn": ["gunicorn", "served:wsgi", "--bind", "127.0.0.1:0", "--certfile", "FILE", "--keyfile", "FILE"],
}  # fmt: skip
# What has them demand a certificate of their clients.
DEMANDING: dict[str, Callable[[Files], list[str]]] = {
    "uvicorn": lambda files: ["--ssl-ca-certs", str(files.ca_file), "--ssl-cert-reqs", "2"],
    "hypercorn": lambda files: ["--ca-certs", str(files.ca_file), "--verify-mode", "CERT_REQUIRED"],
    "gunicorn": lambda files: ["--ca-certs", str(files.ca_file), "--cert-reqs", "2"],
}
CASES_RUN = [
    ("uvicorn", []),
    ("uvicorn", ["--workers", "2"]),
    ("hypercorn", []),
    ("hypercorn", ["--workers", "2"]),
    ("gunicorn", []),
    ("gunicorn", ["--worker-class", "gthread", "--threads", "2"]),
]


@pytest.mark.parametrize("sslsock", [True, False], ids=["run", "python"])
@pytest.mark.parametrize(("server", "more"), CASES_RUN, ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_a_server_below_run(server: str, more: list[str], sslsock: bool, files: Files) -> None:
    need([server])
    way = ["-m", "sslsock", "run"] if sslsock else []
    assert answers([*way, "-m", *SERVERS[server], *more], files) == {OURS if sslsock else "_ssl"}


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "sslsock", "run", "--loop", "-m", *SERVERS["uvicorn"]],
        ["-m", *SERVERS["uvicorn"], "--loop", "sslsock:new_event_loop"],
        ["-m", "sslsock", "run", "--loop", "-m", *SERVERS["hypercorn"]],
    ],
    ids=["run uvicorn", "uvicorn --loop", "run hypercorn"],
)
def test_a_server_on_our_loop(words: list[str], files: Files) -> None:
    need(["uvicorn", "hypercorn"])
    assert answers(words, files, "/loop") == {"sslsock.aio.event_loop"}
    assert answers(words, files) <= {OURS, "_ssl"}


OURS = "sslsock._ssl.ssl_connection"


@contextlib.contextmanager
def serving(words: list[str], files: Files) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """The port of a server that is started so, where `FILE` stands for its certificate."""
    arguments = [str(files.server_file) if word == "FILE" else word for word in words]
    process = subprocess.Popen(
        [sys.executable, "-u", *arguments], cwd=PROGRAMS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**ENVIRONMENT, "PYTHONWARNINGS": "ignore"}, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = ""
        while (found := re.search(r"https://127\.0\.0\.1:(\d+)", said)) is None:
            line = process.stdout.readline()
            assert line, said
            said += line
        yield int(found[1]), process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def connect(port: int, process: subprocess.Popen[str], context: ssl.SSLContext) -> http.client.HTTPSConnection:
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=TIMEOUT)
    while connection.sock is None:
        assert process.poll() is None
        with contextlib.suppress(ConnectionRefusedError):  # its workers listen some time after it says so
            connection.connect()
    return connection


def answers(words: list[str], files: Files, path: str = "/") -> set[str]:
    """What a server that is started so tells of its connections (served.py)."""
    context = ssl.create_default_context(cafile=files.ca_file)
    told = set()
    with serving(words, files) as (port, process):
        for _ in range(4):
            connection = connect(port, process, context)
            connection.request("GET", path)
            told.add(connection.getresponse().read().decode())
            connection.close()
    return told


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_below_run_and_curl(server: str, files: Files, tmp_path: Path) -> None:
    """Large answers and uploads, over HTTP/2 where the server speaks it, and a client's certificate, which it demands."""
    need([server])
    curl = [program("curl", "curl"), "-sS", "--fail", "--cacert", str(files.ca_file), "--max-time", str(TIMEOUT)]
    certified = [*curl, "--cert", str(files.server_file)]
    (tmp_path / "sent").write_bytes(b"x" * 5_000_000)
    with serving(["-m", "sslsock", "run", "-m", *SERVERS[server], *DEMANDING[server](files)], files) as (port, process):
        context = ssl.create_default_context(cafile=files.ca_file)
        context.load_cert_chain(files.server_file)
        connect(port, process, context).close()
        address = f"https://localhost:{port}"
        paths = [[f"{address}/"], [f"{address}/large"], ["--data-binary", f"@{tmp_path}/sent", f"{address}/count"]]
        done = [subprocess.run([*certified, *words], capture_output=True, timeout=TIMEOUT) for words in paths]
        asked = [[*certified, "-o/dev/null", "-w%{http_version}"], curl]
        version, refused = [subprocess.run([*one, address], capture_output=True, timeout=TIMEOUT) for one in asked]
    assert [one.stderr for one in done] == [b"", b"", b""]
    assert [done[0].stdout.decode(), len(done[1].stdout), done[2].stdout] == [OURS, 4_800_000, b"5000000"]
    assert version.stdout == (b"2" if server == "hypercorn" else b"1.1")
    assert refused.returncode != 0 and refused.stdout == b""  # asyncio sends no alert, with `ssl` neither
