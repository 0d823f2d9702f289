"""What /proc says of a process tree: CPU time, memory, names; and of the machine: steal."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@contextlib.contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """This process stays on one processor, and what it starts meanwhile unless that is told otherwise."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def parents() -> dict[int, int]:
    """pid -> parent pid of every process."""
    table = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            stat = _read(entry / "stat")
            if stat:  # the name may hold spaces and parentheses; the state follows the last one
                table[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    return table


def tree(root: int) -> list[int]:
    """`root` and all its descendants, parents first."""
    table = parents()
    found = [root] if root in table else []
    for pid in found:
        found += [child for child, parent in table.items() if parent == pid]
    return found


def names(pids: list[int]) -> dict[int, str]:
    return {pid: _read(PROC / str(pid) / "comm").strip() for pid in pids}


def cpu_ns(pids: list[int]) -> dict[int, int]:
    """pid -> time on a CPU of all its threads, user and system; exact for threads that sleep, else up to a tick old."""
    result = {}
    for pid in pids:
        total = 0
        for task in sorted((PROC / str(pid) / "task").glob("*")):
            first = _read(task / "schedstat").split()
            total += int(first[0]) if first else 0
        result[pid] = total
    return result


def pss_bytes(pids: list[int]) -> dict[int, int]:
    """pid -> proportional set size: shared pages are divided among the processes that map them."""
    result = {}
    for pid in pids:
        for line in _read(PROC / str(pid) / "smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                result[pid] = int(line.split()[1]) * 1024
    return result


def machine_times(cpu: int) -> list[int]:
    """The figures of one core's line of /proc/stat."""
    for line in _read(PROC / "stat").splitlines():
        if line.startswith(f"cpu{cpu} "):
            return [int(figure) for figure in line.split()[1:]]
    raise ValueError(f"/proc/stat has no cpu{cpu}")


@dataclass(frozen=True)
class Snapshot:
    """CPU time of a tree and of the machine's cores at one moment."""

    at_ns: int
    cpu_ns: dict[int, int]
    machine: dict[int, list[int]]


def snapshot(root: int, cores: tuple[int, ...]) -> Snapshot:
    return Snapshot(time.monotonic_ns(), cpu_ns(tree(root)), {core: machine_times(core) for core in cores})


def tree_cpu_ns(before: Snapshot, after: Snapshot) -> int:
    """CPU time that the tree used between two snapshots.

    Raises ValueError if a process of the first is gone: its time is lost and the figure would be too small.
    """
    gone = before.cpu_ns.keys() - after.cpu_ns.keys()
    if gone:
        raise ValueError(f"processes {sorted(gone)} ended during the measurement")
    return sum(after.cpu_ns.values()) - sum(before.cpu_ns.values())


def facts() -> dict[str, object]:
    """The machine, for the record of a result."""
    cpuinfo = _read(PROC / "cpuinfo")
    model = next((line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if "model name" in line), "")
    memory = _read(PROC / "meminfo").splitlines()
    return {
        "cpu": model,
        "core_count": os.cpu_count(),
        "kernel": os.uname().release,
        "memory": memory[0].split(":", 1)[1].strip() if memory else "",
        "hypervisor": "hypervisor" in cpuinfo,
        "load_average": os.getloadavg(),
    }
