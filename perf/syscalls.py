"""Counts the system calls of running processes while something is done.

Preferred: kernel tracepoints through `perf stat`, which hardly disturb what they count. Where those are not to be had
(no perf, no rights), `strace -c`, which stops the process twice per call and so also changes how much work one wake-up
finds: its figure is an upper bound in practice. The method is named beside the figure.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Named counters beside the total; calls that are not here show up as the difference.
NAMED = (
    "epoll_wait",
    "epoll_pwait",
    "epoll_ctl",
    "read",
    "write",
    "readv",
    "writev",
    "recvfrom",
    "recvmsg",
    "sendto",
    "sendmsg",
    "futex",
    "poll",
    "ppoll",
    "accept4",
    "close",
    "mmap",
    "munmap",
    "madvise",
    "sched_yield",
    "clock_nanosleep",
)
ALL = "raw_syscalls:sys_enter"


@dataclass(frozen=True)
class Counted:
    total: int
    by_name: dict[str, int]
    method: str


def count(pids: list[int], work: Callable[[], object]) -> Counted:
    """Runs `work` and counts the calls of all threads of `pids` meanwhile."""
    return _with_perf(pids, work) if _perf_can_count() else _with_strace(pids, work)


def _perf_can_count() -> bool:
    if shutil.which("perf") is None:
        return False
    trial = subprocess.run(["perf", "stat", "-x,", "-e", ALL, "true"], capture_output=True, text=True)
    return any(int(figure) > 0 for figure in re.findall(r"^(\d+),", trial.stderr, re.M))


def parse_perf(text: str) -> dict[str, int]:
    """event -> count, from `perf stat -x,`: lines of `COUNT,UNIT,EVENT,...`; `<not counted>` is 0."""
    counts = {}
    for line in text.splitlines():
        fields = line.split(",")
        if len(fields) > 3 and ":" in fields[2]:
            counts[fields[2]] = int(fields[0]) if fields[0].isdigit() else 0
    return counts


def parse_strace(text: str) -> dict[str, int]:
    """call -> count, from the table of `strace -c`: the fourth figure of a row, its last word the name."""
    counts = {}
    for line in text.splitlines():
        fields = line.split()
        is_row = len(fields) in (5, 6) and re.fullmatch(r"[\d.]+", fields[0]) and fields[3].isdigit()
        if is_row and fields[-1] != "total":
            counts[fields[-1]] = int(fields[3])
    return counts


def _finish(tracer: subprocess.Popen[bytes], work: Callable[[], object], attach_s: float) -> None:
    try:
        time.sleep(attach_s)
        if tracer.poll() is not None:
            raise RuntimeError(f"{tracer.args!r} ended with {tracer.returncode} before the work began")
        work()
    finally:
        tracer.send_signal(signal.SIGINT)
        try:
            tracer.wait(10)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.wait()


def _with_perf(pids: list[int], work: Callable[[], object]) -> Counted:
    events = [ALL, *(f"syscalls:sys_enter_{name}" for name in NAMED)]
    with tempfile.NamedTemporaryFile(suffix=".csv") as output:
        arguments = ["perf", "stat", "-x,", "-o", output.name, "-e", ",".join(events), "-p", ",".join(map(str, pids))]
        _finish(subprocess.Popen(arguments), work, attach_s=0.5)
        counts = parse_perf(Path(output.name).read_text())
    by_name = {name: counts.get(f"syscalls:sys_enter_{name}", 0) for name in NAMED}
    by_name["other"] = counts[ALL] - sum(by_name.values())
    return Counted(counts[ALL], {name: calls for name, calls in by_name.items() if calls}, "perf tracepoints")


def _with_strace(pids: list[int], work: Callable[[], object]) -> Counted:
    if shutil.which("strace") is None:
        raise RuntimeError("neither perf nor strace can count system calls here: apt-get install strace")
    with tempfile.NamedTemporaryFile(suffix=".strace") as output:
        arguments = [
            "strace",
            "-c",
            "-f",
            "-qq",
            "-o",
            output.name,
            *(word for pid in pids for word in ("-p", str(pid))),
        ]
        _finish(subprocess.Popen(arguments), work, attach_s=0.5)
        counts = parse_strace(Path(output.name).read_text())
    return Counted(sum(counts.values()), counts, "strace")
