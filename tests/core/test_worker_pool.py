"""The threads of handshakes alone (include/worker_pool.c), under ThreadSanitizer and AddressSanitizer."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INCLUDE = HERE.parent.parent / "include"


@pytest.mark.skipif(not INCLUDE.exists(), reason="the sources are not beside the tests")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_races(tmp_path, sanitizer):
    program = tmp_path / "races"
    sources = [HERE / "worker_pool_races.c", INCLUDE / "worker_pool.c", INCLUDE / "fork_gate.c"]
    flags = ["-O1", "-g", "-Wall", "-Werror", f"-fsanitize={sanitizer}", f"-I{INCLUDE}", "-pthread"]
    subprocess.run(["gcc", *flags, *map(str, sources), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
