"""A cgroup of a test's own with a CPU quota, where this host lets a test make one."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PERIOD_US = 100_000
_MOUNTS_V1 = ("cpu", "cpu,cpuacct", "cpuacct,cpu")


def _parents() -> Iterator[tuple[bool, Path]]:
    """(whether of version 2, directory) of the groups that this process is in and that may limit processors."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            yield True, Path("/sys/fs/cgroup") / group.lstrip("/")
        elif "cpu" in controllers.split(","):
            for mount in _MOUNTS_V1:
                yield False, Path("/sys/fs/cgroup") / mount / group.lstrip("/")


def _make(parent: Path, is_v2: bool, quota_us: int) -> Path:
    """Raises OSError where it cannot be done."""
    folder = parent / f"headrace-test-{os.getpid()}"
    folder.mkdir()
    try:
        if is_v2:
            (folder / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
    except OSError:
        folder.rmdir()
        raise
    return folder


@contextlib.contextmanager
def quota_group(cpus: float) -> Iterator[Path]:
    """The directory of a group that may use so many processors; skips the test where none can be made."""
    reasons = []
    for is_v2, parent in _parents():
        try:
            folder = _make(parent, is_v2, int(cpus * PERIOD_US))
        except OSError as error:
            reasons.append(str(error))
            continue
        try:
            yield folder
        finally:
            _remove(folder)
        return
    pytest.skip(f"no cgroup with a CPU quota can be made here: {'; '.join(reasons) or 'there is no cpu controller'}")


def _remove(folder: Path) -> None:
    """Its processes have been waited for; the kernel may take a moment to notice."""
    for _ in range(200):
        try:
            folder.rmdir()
            return
        except OSError:
            time.sleep(0.01)
    raise AssertionError(f"{folder} is still in use: {(folder / 'cgroup.procs').read_text().split()}")


def inside(folder: Path, *command: str) -> list[str]:
    """A command line that enters the group and becomes the command."""
    return ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(folder), *command]
