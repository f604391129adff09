"""Libraries of other people with `sslsock.ssl` below them: each program of `libraries/` in a process of its own, once with the
interpreter's `ssl` and once for each way to switch. What comes of it must be the same, and the contexts must be ours.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_helpers import ENVIRONMENT, TIMEOUT
from tls_pairs import Files

PROGRAMS = Path(__file__).parent / "libraries"
ALL = ("context", "install", "late")
INSTALLED = ("install", "late")

# Program, the modules that it needs, the ways to switch.
CASES = {
    "standard_http": ([], ALL),
    "standard_mail": ([], ALL),
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
    "asgi_servers": (["uvicorn", "hypercorn"], ALL),
    "wsgi_servers": (["werkzeug"], ALL),
}


def need(modules: list[str]) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def run(program: str, how: str, files: Files) -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, str(PROGRAMS / f"{program}.py"), how, str(files.ca_file), str(files.server_file)],
        env={**ENVIRONMENT, "PYTHONWARNINGS": "ignore"}, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def stdlib_run(files: Files) -> Any:
    """What a program comes to with the interpreter's `ssl`."""
    return functools.cache(lambda program: run(program, "stdlib", files))


@pytest.mark.parametrize(("program", "how"), [(program, how) for program, (_, ways) in CASES.items() for how in ways])
def test_a_library(program: str, how: str, files: Files, stdlib_run: Any) -> None:
    need(CASES[program][0])
    stdlib, ours = stdlib_run(program), run(program, how, files)
    assert ours["result"] == stdlib["result"]
    assert stdlib["counted"]["ours"] == 0 and stdlib["counted"]["stdlib"] > 0
    assert ours["counted"] == {"ours": stdlib["counted"]["stdlib"], "stdlib": 0}
