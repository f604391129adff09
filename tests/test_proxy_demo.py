"""What `sh ci/demo` shows when it is given nothing: the proxy before a small HTTP server, until it is interrupted."""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_helpers import ENVIRONMENT, TIMEOUT

SCRIPT = Path(__file__).resolve().parent.parent / "ci" / "proxy_demo.py"


@pytest.fixture
def demo() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, str(SCRIPT)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("end", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_what_it_tells_to_try_works_and_a_signal_ends_all(
    demo: subprocess.Popen[str], end: signal.Signals, status: int
) -> None:
    assert demo.stdout is not None
    shown = ""
    while "made in memory" not in shown:
        line = demo.stdout.readline()
        assert line, shown
        shown += line
    found = re.search(r"curl -v --cacert (\S+) (https://localhost:\d+/)", shown)
    assert found is not None, shown
    authority, url = found.groups()
    with urllib.request.urlopen(url, context=ssl.create_default_context(cafile=authority), timeout=TIMEOUT) as response:
        page = response.read().decode()
    assert "TLS ended in the proxy" in page
    demo.send_signal(end)
    rest, _ = demo.communicate(timeout=TIMEOUT)
    assert demo.returncode == status, rest
    assert "sni=localhost" in rest
    assert not Path(authority).parent.exists(), "the folder of the certificate was left behind"
