"""What the kernel knows about one of our processes, read from /proc; Linux proc(5)."""

from __future__ import annotations

import os

from server.observe.snapshot import Process

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def read_process(pid: int, role: str, slot: int = 0) -> Process | None:
    """A sample of the process, or None if there is none; what may not be read is 0."""
    try:
        # The command's name is in parentheses and may itself hold any character: the fields follow the last one.
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        return Process(
            role=role,
            slot=slot,
            cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
            resident_bytes=int(fields[21]) * _PAGE_BYTES,
            virtual_bytes=int(fields[20]),
            start_time_s=_boot_time_s() + int(fields[19]) / _TICKS_PER_S,
            open_fds=_open_fds(pid),
            max_fds=_max_fds(pid),
            threads=int(fields[17]),
        )
    except (OSError, ValueError, IndexError):
        return None


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read(65536) or b""


def _boot_time_s() -> int:
    for line in _read("/proc/stat").splitlines():
        if line.startswith(b"btime "):
            return int(line[6:])
    return 0


def _open_fds(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def _max_fds(pid: int) -> int:
    try:
        for line in _read(f"/proc/{pid}/limits").splitlines():
            if line.startswith(b"Max open files"):
                soft = line.split()[3]
                return int(soft) if soft.isdigit() else 0
    except OSError:
        pass
    return 0
