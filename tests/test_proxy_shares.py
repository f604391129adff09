"""Limits that hold over worker processes, which may be killed or stopped at any moment (tests/shared_limits.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import shared_limits
from peers import DEADLINE

PROGRAM = Path(shared_limits.__file__)
SCENARIOS = [name for name, value in vars(shared_limits).items() if getattr(value, "is_scenario", False)]

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="processes cannot share a lock here")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_worker_processes_share_limits(scenario: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(PROGRAM), scenario], stderr=subprocess.PIPE, text=True, timeout=4 * DEADLINE
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
