"""Usable processors from trees of files as kernels of both cgroup versions show them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.hostinfo import Memory, Processors, busy_ns, cpu_quota, memory, processors

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
        # Deep inside: every group on the way may have a limit, "max" and -1 are none.
        (
            {
                "proc/self/cgroup": "0::/kubepods.slice/pod1/container/app\n",
                "sys/fs/cgroup/kubepods.slice/cpu.max": "6400000 100000",
                "sys/fs/cgroup/kubepods.slice/pod1/cpu.max": "150000 100000",
                "sys/fs/cgroup/kubepods.slice/pod1/container/cpu.max": "max 100000",
                "sys/fs/cgroup/kubepods.slice/pod1/container/app/cpu.max": "200000 100000",
            },
            1.5,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/kubepods/pod1/app\n2:cpuset:/\n",
                "sys/fs/cgroup/cpu/kubepods/pod1/cpu.cfs_quota_us": "30000",
                "sys/fs/cgroup/cpu/kubepods/pod1/cpu.cfs_period_us": "20000",
                "sys/fs/cgroup/cpu/kubepods/pod1/app/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/kubepods/pod1/app/cpu.cfs_period_us": "100000",
            },
            1.5,
        ),
        # A group of another controller does not count.
        (
            {
                "proc/self/cgroup": "5:cpuset,memory:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "10000",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000",
            },
            None,
        ),
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


@pytest.mark.parametrize(
    ("affinity_count", "quota", "compute"),
    [(8, None, 8), (8, 2.0, 2), (8, 0.1, 1), (8, 1.5, 1), (8, 1.99, 1), (8, 3.9, 3), (2, 16.0, 2), (1, 1.5, 1)],
)
def test_compute_count(affinity_count: int, quota: float | None, compute: int) -> None:
    """Never more threads than the quota lets run: else the kernel stops all of them."""
    assert Processors(affinity_count, quota).compute_count == compute


def test_this_host() -> None:
    assert processors().usable_count >= processors().compute_count >= 1
    found = memory()
    assert found is not None and 0 < found.available_bytes <= found.total_bytes


def test_busy_processors(tmp_path: Path) -> None:
    """Those that this process may use; idle and waiting for devices is not busy, what others stole is."""
    own = sorted(os.sched_getaffinity(0))
    lines = [f"cpu{number} 10 20 30 1000 2000 1 2 3 5 0" for number in (*own, max(own) + 1)]
    ns = 66 * len(own) * 10**9 // os.sysconf("SC_CLK_TCK")
    assert busy_ns(tree(tmp_path, {"proc/stat": "\n".join(["cpu 1 2 3 4 5 6 7 8 9 0", *lines, "intr 1"])})) == ns
    assert busy_ns(tmp_path / "none") is None
    before = busy_ns()
    assert before is not None and before <= (busy_ns() or 0)


def test_a_cpuset_counts(tmp_path: Path) -> None:
    """What `docker run --cpuset-cpus` and taskset do shows in the affinity mask."""
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert processors(tmp_path) == Processors(1, None)
        limited = tree(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "400000 100000"})
        assert processors(limited).compute_count == 1
    finally:
        os.sched_setaffinity(0, allowed)


MEMINFO = {
    "proc/meminfo": "MemTotal:       8388608 kB\nMemFree:  1 kB\nMemAvailable:   4194304 kB\nHugePages_Free: 0\n"
}
MIB = 1 << 20


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 1 kB\n"}, None),
        (MEMINFO, Memory(8192 * MIB, 4096 * MIB)),
        (MEMINFO | {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "max"}, Memory(8192 * MIB, 4096 * MIB)),
        (
            MEMINFO
            | {
                "proc/self/cgroup": "0::/a/b",
                "sys/fs/cgroup/a/memory.max": f"{512 * MIB}\n",
                "sys/fs/cgroup/a/memory.current": f"{300 * MIB}\n",
                "sys/fs/cgroup/a/memory.stat": f"anon 1\ninactive_file {100 * MIB}\nactive_file 7\n",
                "sys/fs/cgroup/a/b/memory.max": f"{600 * MIB}\n",
                "sys/fs/cgroup/a/b/memory.current": f"{550 * MIB}\n",
            },
            Memory(512 * MIB, 50 * MIB),
        ),
        (
            MEMINFO
            | {
                "proc/self/cgroup": "4:memory:/docker/abc",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{1024 * MIB}",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{1000 * MIB}",
                "sys/fs/cgroup/memory/memory.stat": f"inactive_file 5\ntotal_inactive_file {200 * MIB}\n",
            },
            Memory(1024 * MIB, 224 * MIB),
        ),
        # Over its limit already; and version 1's way to say that there is none.
        (
            MEMINFO
            | {
                "proc/self/cgroup": "4:memory:/",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{MIB}",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{2 * MIB}",
            },
            Memory(MIB, 0),
        ),
        (
            MEMINFO
            | {
                "proc/self/cgroup": "4:memory:/",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1",
            },
            Memory(8192 * MIB, 4096 * MIB),
        ),
    ],
)
def test_memory(tmp_path: Path, files: dict[str, str], expected: Memory | None) -> None:
    assert memory(tree(tmp_path, files)) == expected
