"""When a process that lives counts as stuck: a pure function of what it showed of its progress, look by look.

A process shows marks, values that change as long as it gets on: a worker its heartbeat, an executor how far each of its
running batches is, and when it has none, its heartbeat. A mark that stays the same for longer than its limit is late,
and its process stuck.

Time is what the looks saw pass, so a supervisor that was itself stopped (the machine suspended, every process paused)
comes back with everybody as old as before. Where no process at all gets on the machine is a better suspect than they
are: that verdict is passed over, once, until one of them got on.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

from server.observe.snapshot import bucket_bounds_ns

#: A model run may take so many times what 99 of 100 took.
P99_FACTOR = 10
#: Fewer runs than this say nothing about how long the next may take.
MIN_RUNS = 20
#: A model of which nothing is known has so many times the time of one that does not run.
UNKNOWN_FACTOR = 12
#: A look that comes so many periods late was not late by accident; marks made at one time may be seen so far apart.
MAX_PERIODS = 2


#: "worker" or "executor", and which one.
Process = tuple[str, int]


class Mark(NamedTuple):
    """One thing that should change. `place` tells the marks of a process apart, `pid` its lives."""

    process: Process
    place: Hashable
    pid: int
    value: Hashable


class Stuck(NamedTuple):
    """A process to be ended, for the mark that is the longest over its limit."""

    process: Process
    place: Hashable
    age_ns: int
    limit_ns: int


def run_limit_ns(floor_ns: int, execute_counts: Sequence[int]) -> int:
    """How long a run may take: by the 99th percentile of the requests' execution times, in buckets of snapshot.py."""
    total = sum(execute_counts)
    if total < MIN_RUNS:
        return UNKNOWN_FACTOR * floor_ns
    left = total - total // 100
    for bound_ns, count in zip(bucket_bounds_ns(), execute_counts, strict=True):
        left -= count
        if left <= 0:
            return max(floor_ns, P99_FACTOR * bound_ns)
    return UNKNOWN_FACTOR * floor_ns


class StuckPolicy:
    """Remembers marks from one look to the next."""

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._looked_ns = 0
        #: (process, place) -> pid, value, for how long it has been so.
        self._seen: dict[tuple[Process, Hashable], tuple[int, Hashable, int]] = {}
        self._is_excused = False

    def look(self, now_ns: int, marks: Iterable[Mark], floor_ns: int, limit_ns: Callable[[Mark], int]) -> list[Stuck]:
        """Who is stuck, each process once. `limit_ns` is asked only of marks older than the floor."""
        passed_ns = min(now_ns - self._looked_ns, MAX_PERIODS * self._period_ns) if self._looked_ns else 0
        self._looked_ns = now_ns
        before, self._seen = self._seen, {}
        processes: set[Process] = set()
        quiet: set[Process] = set()
        late: dict[Process, Stuck] = {}
        for mark in marks:
            key = (mark.process, mark.place)
            processes.add(mark.process)
            pid, value, age_ns = before.get(key, (0, None, 0))
            is_same = key in before and (pid, value) == (mark.pid, mark.value)
            if key in before and not is_same:
                self._is_excused = False
            age_ns = age_ns + passed_ns if is_same else 0
            self._seen[key] = (mark.pid, mark.value, age_ns)
            if age_ns > floor_ns - MAX_PERIODS * self._period_ns:
                quiet.add(mark.process)
            if age_ns <= floor_ns or age_ns <= (limit := limit_ns(mark)):
                continue
            if mark.process not in late or age_ns > late[mark.process].age_ns:
                late[mark.process] = Stuck(mark.process, mark.place, age_ns, limit)
        if late and len(quiet) == len(processes) > 1 and not self._is_excused:
            self._is_excused = True
            self._seen = {key: (pid, value, 0) for key, (pid, value, _) in self._seen.items()}
            return []
        return list(late.values())
