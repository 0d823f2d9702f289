"""Counts what a process holds, so that a test can prove that it gave everything back."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import NamedTuple

#: Shared by all later users once a library has opened them; not a test's to close.
KEPT_OPEN = ("/dev/urandom", "/dev/null", "/sys/", "/proc/")
PATIENCE_NS = 2_000_000_000


class Holdings(NamedTuple):
    """Open descriptors (number -> what it refers to) and direct children (pid -> command name)."""

    descriptors: dict[int, str]
    children: dict[int, str]


def descriptors() -> dict[int, str]:
    """This process's open descriptors, without the one that lists them."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def process_table() -> dict[int, tuple[str, str, int, int]]:
    """pid -> (command name, state letter, parent's pid, session), read from /proc/PID/stat."""
    table = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            text = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        command, _, rest = text.partition("(")[2].rpartition(")")
        state, parent, _group, session, *_ = rest.split()
        table[int(name)] = (command, state, int(parent), int(session))
    return table


def children() -> dict[int, str]:
    """Direct children of this process, zombies too. Free of any walk through /proc where there are none."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return {}
    own = os.getpid()
    return {pid: command for pid, (command, _, parent, _) in process_table().items() if parent == own}


def take() -> Holdings:
    return Holdings(descriptors(), children())


def difference(before: Holdings, now: Holdings) -> str:
    """What is there now and was not before, in words; '' when nothing is."""
    opened = [
        f"fd {number} -> {target}"
        for number, target in now.descriptors.items()
        if before.descriptors.get(number) != target and not target.startswith(KEPT_OPEN)
    ]
    if len(now.descriptors) <= len(before.descriptors):
        opened = []  # a number reused for something that a wider fixture opened anew
    started = [f"child {pid} ({name})" for pid, name in now.children.items() if pid not in before.children]
    return ", ".join(opened + started)


def left_behind(before: Holdings) -> str:
    """What the process holds over `before`, after garbage collection and a short time for endings to finish."""
    now = take()
    if not difference(before, now):
        return ""
    gc.collect()
    deadline = time.monotonic_ns() + PATIENCE_NS
    while left := difference(before, take()):
        if time.monotonic_ns() > deadline:
            return left
        time.sleep(0.01)
    return ""
