"""How many processors and how much memory this process may really use, its cgroup's limits considered.

A container with two CPUs' worth of quota on a host of 64 sees 64 processors everywhere but here, and with one GiB the
host's memory. Standard library only; every file is read below a root that tests replace.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")


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

    @property
    def compute_count(self) -> int:
        """Threads that may compute at the same time, at least 1: a quota's fraction does not count.

        With more of them than the quota the kernel stops every thread of the container, those that answer clients too,
        for the rest of each period: two threads on a quota of 1.5 stand still for a quarter of the time.
        """
        if self.quota is None:
            return max(1, self.affinity_count)
        return max(1, min(self.affinity_count, int(self.quota)))


@dataclass(frozen=True, slots=True)
class Memory:
    """What there is for this process and others in its cgroup, and how much of it is not in use."""

    total_bytes: int
    available_bytes: int


def processors(root: Path = ROOT) -> Processors:
    """What the scheduler and the cgroup of this process allow now."""
    return Processors(len(os.sched_getaffinity(0)), cpu_quota(root))


def cpu_quota(root: Path = ROOT) -> float | None:
    """Processors' worth of time that the cgroup (version 2 or 1) of this process may use; None if unlimited or
    unknown.

    The smallest limit on the way from the process's own group to the top counts. Inside a container whose cgroup
    namespace hides that way, the mount's top directory is the container's own group.
    """
    found = [
        _quota_v2(folder) if is_v2 else _quota_v1(folder)
        for is_v2, folder in _folders(root, "cpu", ("cpu,cpuacct", "cpuacct,cpu", "cpu"))
    ]
    return min((quota for quota in found if quota is not None), default=None)


def memory(root: Path = ROOT) -> Memory | None:
    """What the kernel and the cgroup (version 2 or 1) leave to this process; None if the kernel does not say.

    Cached files that nobody reads at the moment count as available: the kernel drops them first.
    """
    host = _numbers(root / "proc/meminfo")
    if "MemTotal:" not in host or "MemAvailable:" not in host:
        return None
    total, available = host["MemTotal:"] * 1024, host["MemAvailable:"] * 1024
    for is_v2, folder in _folders(root, "memory", ("memory",)):
        limit = _number(folder / ("memory.max" if is_v2 else "memory.limit_in_bytes"))
        if limit is None:
            continue
        used = _number(folder / ("memory.current" if is_v2 else "memory.usage_in_bytes")) or 0
        cached = _numbers(folder / "memory.stat").get("inactive_file" if is_v2 else "total_inactive_file", 0)
        total = min(total, limit)
        available = min(available, max(0, limit - used + cached))
    return Memory(total, available)


def busy_ns(root: Path = ROOT) -> int | None:
    """For how long the processors that this process may use have been busy, all together and with whatever, since the
    host has been up; None if the kernel does not say.
    """
    ticks = 0
    names = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    lines = [line.split() for line in _read(root / "proc/stat").splitlines()]
    found = [words[1:] for words in lines if words and words[0] in names]
    for user, nice, system, _, _, irq, softirq, steal, *_ in found:
        # Guests count as users; what was stolen, others have had.
        ticks += sum(map(int, (user, nice, system, irq, softirq, steal)))
    return ticks * 10**9 // os.sysconf("SC_CLK_TCK") if found else None


def _folders(root: Path, controller: str, mounts: tuple[str, ...]) -> Iterator[tuple[bool, Path]]:
    """(whether of version 2, directory) of every group that limits this process, its own first."""
    for controllers, group in _groups(root):
        if controllers == "":
            yield from ((True, folder) for folder in _way_up(root / "sys/fs/cgroup", group))
        elif controller in controllers.split(","):
            for mount in mounts:
                yield from ((False, folder) for folder in _way_up(root / "sys/fs/cgroup" / mount, group))


def _groups(root: Path) -> list[tuple[str, str]]:
    """(controllers, group) pairs of /proc/self/cgroup; version 2 has no controllers there."""
    text = _read(root / "proc/self/cgroup")
    fields = [line.split(":", 2) for line in text.splitlines()]
    return [(parts[1], parts[2]) for parts in fields if len(parts) == 3]


def _way_up(mount: Path, group: str) -> list[Path]:
    parts = [part for part in group.split("/") if part not in ("", ".", "..")]
    return [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


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


def _number(path: Path) -> int | None:
    """None where there is no number: no file, or "max"."""
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def _numbers(path: Path) -> dict[str, int]:
    """The first number of each line by its first word."""
    lines = [line.split() for line in _read(path).splitlines()]
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def _read(path: Path) -> str:
    """The file's text, or "" if there is none: a missing file means no limit."""
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
