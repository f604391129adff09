"""How many CPUs this process may use: what `os.cpu_count()` says of the machine is more than a container has."""

import os
import posixpath
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["default_threads", "usable_cpus"]


def usable_cpus(root: str = "/") -> int:
    """CPUs, 1 or more: those of the process's affinity, and no more than the CPU quotas of its control group and of those
    around it, rounded up (Kubernetes' `limits.cpu`, Docker's `--cpus`, systemd's CPUQuota=).

    root: where /proc and /sys/fs/cgroup are looked for.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        count = os.cpu_count() or 1
    for quota, period in quotas(Path(root)):
        if quota > 0 and period > 0:
            count = min(count, -(-quota // period))
    return max(count, 1)


def default_threads() -> int:
    """How many threads a server has that nobody has said a number for. Each has listening sockets of its own: as many as CPUs
    where the system spreads connections over those (socket(7), SO_REUSEPORT), else one."""
    return usable_cpus() if sys.platform == "linux" else 1


def quotas(root: Path) -> Iterator[tuple[int, int]]:
    """Of each control group around this process its quota and the period that it is for, in microseconds.

    Source: the kernel's Documentation/admin-guide/cgroup-v2.rst (cpu.max), scheduler/sched-bwc.rst (version 1).
    """
    for line in text_of(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mount, names = "sys/fs/cgroup", ["cpu.max"]
        elif "cpu" in controllers.split(","):
            # Controllers that are mounted together have a folder by all their names, and as a rule a link for each.
            mount = "sys/fs/cgroup/cpu" if (root / "sys/fs/cgroup/cpu").is_dir() else f"sys/fs/cgroup/{controllers}"
            names = ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        # In a container that sees no group but its own the path may be one of the host's, of which only the last part is there.
        while True:
            words = " ".join(text_of(root / mount / path.lstrip("/") / name) for name in names).split()
            if len(words) == 2 and words[0].lstrip("-").isdigit() and words[1].isdigit():
                yield int(words[0]), int(words[1])
            if path.strip("/") == "":
                break
            path = posixpath.dirname(path.rstrip("/"))


def text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
