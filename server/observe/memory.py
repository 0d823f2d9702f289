"""How much memory this host, or the cgroup of this process, has and has left; Linux proc(5), cgroups(7)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
#: Version 1 writes "no limit" as a number near 2^63.
_NO_LIMIT_BYTES = 1 << 60


def available_bytes(root: Path = ROOT) -> int | None:
    """What may still be taken without swapping or being killed; None where nobody says.

    Page cache counts as available, on the host and inside a cgroup's limit.
    """
    found = [value for value in (_meminfo(root, "MemAvailable"), *_left_in_groups(root)) if value is not None]
    return min(found, default=None)


def total_bytes(root: Path = ROOT) -> int | None:
    """The most that all processes of this host, or of this cgroup, can have together."""
    limits = [limit for _, limit, _ in _groups(root)]
    found = [value for value in (_meminfo(root, "MemTotal"), *limits) if value is not None]
    return min(found, default=None)


def _left_in_groups(root: Path) -> Iterator[int]:
    for folder, limit, used_name in _groups(root):
        used = _number(folder / used_name)
        if used is not None:
            cache = _statistic(folder / "memory.stat", ("inactive_file", "total_inactive_file"))
            yield max(0, limit - max(0, used - cache))


def _groups(root: Path) -> Iterator[tuple[Path, int, str]]:
    """Every group from the process's own to the top that has a limit: its folder, the limit, the file of its use."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            mount, limit_name, used_name = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            mount, limit_name, used_name = (
                root / "sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
        else:
            continue
        parts = [part for part in group.split("/") if part not in ("", ".", "..")]
        for depth in range(len(parts), -1, -1):
            folder = mount.joinpath(*parts[:depth])
            limit = _number(folder / limit_name)
            if limit is not None and limit < _NO_LIMIT_BYTES:
                yield folder, limit, used_name


def _meminfo(root: Path, name: str) -> int | None:
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return None


def _statistic(path: Path, names: tuple[str, ...]) -> int:
    values = dict(line.split(" ", 1) for line in _read(path).splitlines() if " " in line)
    return max((int(values[name]) for name in names if values.get(name, "").isdigit()), default=0)


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
