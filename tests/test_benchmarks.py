"""The benchmarks run: each one with `--quick`, in a process of its own. How fast anything is, is not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "harness")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs(name: str, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--quick", "--json", str(results)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
    found = json.loads(results.read_text())
    assert found["measures"], done.stdout
    for measure in found["measures"]:
        assert measure["name"] in done.stdout
        for peer, values in measure["values"].items():
            assert len(values) == 1, (measure["name"], peer)
            # A few connections' memory may find room in what the process has already, or less than it had.
            assert values[0] is None or values[0] > 0 or measure["unit"] == "KiB", (measure["name"], peer, values)
