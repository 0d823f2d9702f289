"""How many processors this process may really use: the affinity mask, cut by the cgroup's CPU quota.

A container with two CPUs' worth of quota on a host of 64 sees 64 processors everywhere but here. Standard library
only; every file is read below a root that tests replace.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
Quota = Callable[[Path], float | None]


@dataclass(frozen=True, slots=True)
class Processors:
    """`affinity_count` processors may be used, at most `quota` of them at a time (None: no limit)."""

    affinity_count: int
    quota: float | None

    @property
    def usable_count(self) -> int:
        """Whole processors, at least 1. A fraction of 0.5 and more counts as one: half a processor idle costs more
        than a thread too many.
        """
        if self.quota is None:
            return max(1, self.affinity_count)
        return max(1, min(self.affinity_count, int(self.quota + 0.5)))


def processors(root: Path = ROOT) -> Processors:
    """What the scheduler and the cgroup of this process allow now."""
    return Processors(len(os.sched_getaffinity(0)), cpu_quota(root))


def cpu_quota(root: Path = ROOT) -> float | None:
    """Processors' worth of time that the cgroup (version 2 or 1) of this process may use; None if unlimited or
    unknown.

    The smallest limit on the way from the process's own group to the top counts. Inside a container whose cgroup
    namespace hides that way, the mount's top directory is the container's own group.
    """
    quotas: list[float] = []
    for controllers, group in _groups(root):
        if controllers == "":
            quotas += _quotas_up(root / "sys/fs/cgroup", group, _quota_v2)
        elif "cpu" in controllers.split(","):
            for mount in ("cpu,cpuacct", "cpuacct,cpu", "cpu"):
                quotas += _quotas_up(root / "sys/fs/cgroup" / mount, group, _quota_v1)
    return min(quotas, default=None)


def _groups(root: Path) -> list[tuple[str, str]]:
    """(controllers, group) pairs of /proc/self/cgroup; version 2 has no controllers there."""
    text = _read(root / "proc/self/cgroup")
    fields = [line.split(":", 2) for line in text.splitlines()]
    return [(parts[1], parts[2]) for parts in fields if len(parts) == 3]


def _quotas_up(mount: Path, group: str, quota_of: Quota) -> list[float]:
    parts = [part for part in group.split("/") if part not in ("", ".", "..")]
    found = (quota_of(mount.joinpath(*parts[:depth])) for depth in range(len(parts), -1, -1))
    return [quota for quota in found if quota is not None]


def _quota_v2(folder: Path) -> float | None:
    """cpu.max holds "QUOTA PERIOD" in microseconds, or "max PERIOD"."""
    words = _read(folder / "cpu.max").split()
    return _ratio(words[0], words[1]) if len(words) == 2 else None


def _quota_v1(folder: Path) -> float | None:
    """cpu.cfs_quota_us is -1 without a limit."""
    return _ratio(_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip())


def _ratio(quota: str, period: str) -> float | None:
    if not quota.isdigit() or not period.isdigit() or int(quota) == 0 or int(period) == 0:
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    """The file's text, or "" if there is none: a missing file means no limit."""
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
