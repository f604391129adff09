"""How many CPUs a process may use, from files such as the kernel shows them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sslsock.core.cpu_count import usable_cpus

MINE = "/kubepods/pod7/box"


def tree(root: Path, **files: str) -> str:
    """Files under root, named by their paths."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.fixture(autouse=True)
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000\n", 16),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("5000 100000\n", 1),
        ("6400000 100000\n", 16),
        ("50000 10000\n", 5),
        ("", 16),
        ("nonsense\n", 16),
        ("1 0\n", 16),
    ],
)
def test_the_quota_of_the_own_group(tmp_path: Path, quota: str, cpus: int) -> None:
    files = {"proc/self/cgroup": f"0::{MINE}\n", f"sys/fs/cgroup{MINE}/cpu.max": quota}
    assert usable_cpus(tree(tmp_path, **files)) == cpus


def test_the_least_of_all_groups_around(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": f"0::{MINE}\n",
        f"sys/fs/cgroup{MINE}/cpu.max": "800000 100000",
        "sys/fs/cgroup/kubepods/pod7/cpu.max": "300000 100000",
        "sys/fs/cgroup/kubepods/cpu.max": "1200000 100000",
    }
    assert usable_cpus(tree(tmp_path, **files)) == 3


def test_a_container_that_sees_its_own_group_only(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": f"0::/../..{MINE}\n", "sys/fs/cgroup/cpu.max": "200000 100000"}
    assert usable_cpus(tree(tmp_path, **files)) == 2


@pytest.mark.parametrize(("quota", "cpus"), [("400000", 4), ("-1", 16)])
def test_version_1(tmp_path: Path, quota: str, cpus: int) -> None:
    files = {
        "proc/self/cgroup": f"4:memory:/x\n2:cpu,cpuacct:{MINE}\n0::/\n",
        f"sys/fs/cgroup/cpu{MINE}/cpu.cfs_quota_us": quota,
        f"sys/fs/cgroup/cpu{MINE}/cpu.cfs_period_us": "100000",
    }
    assert usable_cpus(tree(tmp_path, **files)) == cpus


def test_version_1_without_links(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": f"2:cpu,cpuacct:{MINE}\n",
        f"sys/fs/cgroup/cpu,cpuacct{MINE}/cpu.cfs_quota_us": "300000",
        f"sys/fs/cgroup/cpu,cpuacct{MINE}/cpu.cfs_period_us": "100000",
    }
    assert usable_cpus(tree(tmp_path, **files)) == 3


JOIN = 'echo $$ >"$0" && exec "$@"'
COUNT = """
import os
os.sched_getaffinity = lambda pid: range(16)
from sslsock.core.cpu_count import usable_cpus
print(usable_cpus())
"""


@pytest.mark.parametrize(("quota", "cpus"), [(250_000, 3), (100_000, 1)])
def test_a_group_of_the_kernels(quota: int, cpus: int) -> None:
    """Around a group of its own, so that the outer one's quota counts."""
    top, file, text = Path("/sys/fs/cgroup/cpu"), "cpu.cfs_quota_us", f"{quota}"
    if not top.is_dir():  # version 2
        top, file, text = top.parent, "cpu.max", f"{quota} 100000"
    outer = top / f"sslsock-{os.getpid()}"
    inner = outer / "inner"
    try:
        outer.mkdir()
    except OSError as exc:
        pytest.skip(f"no control group is to be had: {exc.strerror}")
    try:
        try:
            (outer / file).write_text(text)
            inner.mkdir()
        except OSError as exc:
            pytest.skip(f"no control group is to be had: {exc.strerror}")
        words = ["sh", "-c", JOIN, str(inner / "cgroup.procs"), sys.executable, "-c", COUNT]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(words, capture_output=True, timeout=60, check=False, env=environment)
        assert (done.stdout, done.stderr) == (f"{cpus}\n".encode(), b"")
    finally:
        for group in (inner, outer):
            with contextlib.suppress(FileNotFoundError):
                group.rmdir()


def test_where_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cpus(str(tmp_path)) == 16
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert usable_cpus(str(tmp_path)) == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus(str(tmp_path)) == 1


def test_this_process() -> None:
    assert 1 <= usable_cpus() <= 16
