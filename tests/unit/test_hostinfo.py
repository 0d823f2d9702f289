"""Usable processors from trees of files as kernels of both cgroup versions show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.hostinfo import Processors, cpu_quota, processors

V1_LINE = "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n1:name=systemd:/docker/abc\n"
V1 = "sys/fs/cgroup/cpu,cpuacct"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2.0),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "garbage"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "0 0"}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000"}, 1.5),
        # The parent's limit is the smaller one.
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "50000 100000",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000",
            },
            0.5,
        ),
        # A path from outside the cgroup namespace: only the top directory is visible.
        ({"proc/self/cgroup": "0::/../../kubepods/x\n", "sys/fs/cgroup/cpu.max": "300000 100000"}, 3.0),
        (
            {
                "proc/self/cgroup": V1_LINE,
                f"{V1}/cpu.cfs_quota_us": "250000\n",
                f"{V1}/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            {
                "proc/self/cgroup": V1_LINE,
                f"{V1}/docker/abc/cpu.cfs_quota_us": "100000",
                f"{V1}/docker/abc/cpu.cfs_period_us": "50000",
                f"{V1}/cpu.cfs_quota_us": "-1",
                f"{V1}/cpu.cfs_period_us": "100000",
            },
            2.0,
        ),
        ({"proc/self/cgroup": V1_LINE, f"{V1}/cpu.cfs_quota_us": "-1", f"{V1}/cpu.cfs_period_us": "100000"}, None),
        # Both versions mounted: the controller is on version 1.
        (
            {
                "proc/self/cgroup": V1_LINE + "0::/docker/abc\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            4.0,
        ),
    ],
)
def test_quota(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(tree(tmp_path, files)) == quota


@pytest.mark.parametrize(
    ("affinity_count", "quota", "usable"),
    [(8, None, 8), (8, 2.0, 2), (8, 0.1, 1), (8, 1.4, 1), (8, 1.5, 2), (2, 16.0, 2), (1, None, 1)],
)
def test_usable_count(affinity_count: int, quota: float | None, usable: int) -> None:
    assert Processors(affinity_count, quota).usable_count == usable


def test_this_host() -> None:
    assert processors().usable_count >= 1
