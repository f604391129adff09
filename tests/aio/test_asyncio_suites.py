"""CPython's own tests of asyncio with our loop: no test may fail that passes with asyncio's."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from command_helpers import ENVIRONMENT

LIMIT = 300.0  # seconds
SUITES = {
    "network": "ssl sslproto streams sock_lowlevel sendfile server buffered_proto",
    "loop": "events futures runners context locks queues pep492 threads",
    "tasks": "tasks",
    "network with our ssl": "ssl sslproto streams sock_lowlevel sendfile server buffered_proto",
}

# Tests of what asyncio's own TLS is inside, which ours is not: they look for its objects, or give it a socket that is none.
INTERNALS = (
    "test_connection_lost_when_busy",
    "test_create_connection_ssl_failed_certificate_no_cycles",
    "test_remote_shutdown_receives_trailing_data_on_slow_socket",
    # Wants nothing sent to a peer that has ended without close_notify. Ours says close_notify, as RFC 8446, 6.1 has it; the
    # test hears of it when its server's thread comes before the end of the loop, which is rare with a GIL.
    "test_shutdown_timeout_handler_not_set",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        # Of all of them, or of these alone.
        not all(map(importlib.util.find_spec, ("test", "test.test_asyncio"))),
        reason="the interpreter's own tests are not installed",
    ),
]


def failures(command: list[str], folder: Path) -> tuple[set[str], str]:
    """The tests that fail, and all that was said."""
    result = subprocess.run(
        [sys.executable, *command], cwd=folder, env={**ENVIRONMENT, "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT,
    )  # fmt: skip
    failed = set(re.findall(r"^(?:FAIL|ERROR): (.*)$", result.stdout, re.M))
    if result.returncode and not failed:
        failed = {"the suite as a whole"}
    assert re.search(r"^Ran \d\d+ tests", result.stdout, re.M), result.stdout[-8000:]
    return failed, result.stdout


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_of_the_interpreter(suite: str, tmp_path: Path) -> None:
    program = str(Path(__file__).with_name("asyncio_suite.py"))
    modules = [f"test.test_asyncio.test_{name}" for name in SUITES[suite].split()]
    options = ["--ssl"] if suite == "network with our ssl" else []
    failed, said = failures([program, *options, *modules], tmp_path)
    failed = {name for name in failed if not name.startswith(INTERNALS)}
    if failed:
        failed -= failures(["-m", "unittest", *modules], tmp_path)[0]
    assert not failed, said[-8000:]
