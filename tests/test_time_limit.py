"""Every test has a time limit, wherever it is stuck; and CI skips none but for a reason that is known."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from peers import DEADLINE

CONFTEST = (Path(__file__).parent / "conftest.py").read_text()

STUCK = {
    "in accept()": "import socket; s = socket.create_server(('127.0.0.1', 0)); s.settimeout(None); s.accept()",
    "in a lock": "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "in Python": "while True: pass",
    "in a loop": "import sslsock; loop = sslsock.EventLoop.current(); loop._hold(); loop.run()",
    "in a handler": "import sslsock; loop = sslsock.EventLoop.current(); loop.call_soon(stay); loop.dispatch()",
    "in C": "import ctypes; c = ctypes.PyDLL(None); m = bytes(40); c.pthread_mutex_lock(m); c.pthread_mutex_lock(m)",
}
PROGRAM = """
import pytest

def stay():
    while True:
        pass

@pytest.mark.slow  # four times the limit: all that is set up once for the session is set up in the first test
def test_before():
    pass

def test_stuck():
    {stuck}

def test_after():
    {after}
"""


def run(tmp_path: Path, program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """pytest on `program`, with the suite's conftest, each test with two seconds."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_program.py").write_text(program)
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {"SSLSOCK_TEST_LIMIT": "2", "PYTHONPATH": paths, **environment}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={tmp_path}", "."],
        cwd=tmp_path, env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=4 * DEADLINE,
    )  # fmt: skip


@pytest.mark.parametrize("where", [where for where in STUCK if where != "in C"])
def test_a_test_that_is_stuck_fails_and_the_others_go_on(tmp_path: Path, where: str) -> None:
    done = run(tmp_path, PROGRAM.format(stuck=STUCK[where], after="pass"))
    assert "takes longer than 2 s" in done.stdout, done.stdout
    assert "test_program.py::test_stuck" in done.stdout and "File " in done.stdout, done.stdout
    assert done.returncode == 1 and "1 failed, 2 passed" in done.stdout, done.stdout


def test_one_that_never_comes_back_to_python_ends_the_run(tmp_path: Path) -> None:
    """With every stack."""
    done = run(tmp_path, PROGRAM.format(stuck=STUCK["in C"], after="pass"))
    assert done.returncode < 0, done.stdout
    assert "in test_stuck" in done.stdout, done.stdout


def test_sockets_do_not_wait_for_ever(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as other:
        assert listener.gettimeout() == other.gettimeout() == DEADLINE


@pytest.mark.parametrize(("reason", "passes"), [("root may write everywhere", True), ("curl is not installed", False)])
def test_ci_skips_no_test_for_want_of_something(tmp_path: Path, reason: str, passes: bool) -> None:
    program = PROGRAM.format(stuck="pass", after=f"pytest.skip({reason!r})")
    assert run(tmp_path, program, CI="").returncode == 0
    done = run(tmp_path, program, CI="true")
    assert (done.returncode == 0) is passes, done.stdout
    assert passes or f"CI skips no test for this reason: Skipped: {reason}" in done.stdout, done.stdout
