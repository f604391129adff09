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
from pathlib import Path
from typing import Any

import pytest
from tls_pairs import Files

from command_helpers import ENVIRONMENT, TIMEOUT

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


OURS = "sslsock._ssl.ssl_connection"


def answers(words: list[str], files: Files) -> set[str]:
    """What a server that is started so tells of its connections (served.py)."""
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
        context = ssl.create_default_context(cafile=files.ca_file)
        told = set()
        for _ in range(4):
            connection = http.client.HTTPSConnection("localhost", int(found[1]), context=context, timeout=TIMEOUT)
            while connection.sock is None:
                assert process.poll() is None, said
                with contextlib.suppress(ConnectionRefusedError):  # its workers listen some time after it says so
                    connection.connect()
            connection.request("GET", "/")
            told.add(connection.getresponse().read().decode())
            connection.close()
        return told
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
