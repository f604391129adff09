"""CPython's own tests, run below `python -m sslsock run`: no test may fail that passes with the interpreter's `ssl`."""

from __future__ import annotations

import importlib.util
import re
import ssl as stdlib
import subprocess
import sys
from pathlib import Path

import pytest

from command_helpers import ENVIRONMENT
from sslsock import ssl

LIMIT = 400.0  # seconds
SUITES = {
    "ssl": ["test", "-W", "-u", "none", "test_ssl"],
    "asyncio": ["unittest", "test.test_asyncio.test_ssl", "test.test_asyncio.test_sslproto"],
    "http": ["test", "-W", "-u", "none", "test_httplib", "test_httpservers", "test_urllib2_localnet"],
    "mail": ["test", "-W", "-u", "none", "test_ftplib", "test_imaplib", "test_poplib", "test_smtplib"],
}
# These want a version below 4.0, "SSLV3" in the names of alerts, and SSL 3 as a lower bound.
OF_OPENSSL_3 = {"test_openssl_version", "test_sni_callback_raising", "test_stls_context", "test_PROTOCOL_TLS"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        # Of all of them, or of these alone.
        not all(map(importlib.util.find_spec, ("test", "test.test_ssl"))),
        reason="the interpreter's own tests are not installed",
    ),
]


def failures(suite: str, way: list[str], folder: Path) -> tuple[set[str], str]:
    """The tests that fail, and all that was said."""
    result = subprocess.run(
        [sys.executable, *way, "-m", *SUITES[suite]], cwd=folder, env={**ENVIRONMENT, "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT,
    )  # fmt: skip
    failed = set(re.findall(r"^(?:FAIL|ERROR): (.*)$", result.stdout, re.M))
    if result.returncode and not failed:
        failed = {"the suite as a whole"}
    return failed, result.stdout


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_of_the_interpreter(suite: str, tmp_path: Path) -> None:
    failed, said = failures(suite, ["-m", "sslsock", "run"], tmp_path)
    if ssl.OPENSSL_VERSION_INFO >= (4,) > stdlib.OPENSSL_VERSION_INFO:  # so the interpreter's cannot show that it fails, too
        failed = {test for test in failed if test.split()[0] not in OF_OPENSSL_3}
    if failed:
        failed -= failures(suite, [], tmp_path)[0]
    assert not failed, said[-8000:]
