"""Which rows share a batch and when it runs: the published batching rule, as pure functions.

The rule in words. An idle instance takes the oldest slab that is due, of those of the first priority level that has
one. Where late requests are delayed, slabs with others go before those in which every request is past its timeout;
where they are refused, a slab in which every request is goes before all, as that costs nothing. A slab that was left
behind (by a dead executor, or run while some of its rows were still being filled, or had no room for their outputs) is
due as soon as it has a row to run. An open slab with rows in it is due at once (natural batching) unless a queue delay
is set; then it is due when it holds the preferred number of rows, or as many as it has room for, or was opened that
long ago, or has to run for its latency target to hold. How many of its rows run then is slo_policy's to say: all,
without a target. If nothing is due, the instance sleeps until the earliest open slab will be, or until it is woken.

While the queue stands (after each batch another slab has been due for a while), the newest slab of those goes first:
its clients still wait, those of the oldest will soon have given up. The oldest keeps its turn if a row of it has no
deadline, since it could wait for ever, or has passed its deadline, since it then holds memory for nothing.

`decide` and `claim` are the reference for `ring_due` and `ring_claim` in server/_fast/slab_run.pyx and slab_ring.pyx,
which do the same on the shared words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

STANDING_NS = 100_000_000


class Slab(NamedTuple):
    """A slab as the rule sees it: `age` orders slabs (smaller is older), `rows` are claimed rows.

    left_behind: an executor died with it, or ran what was there of it; held_up: nothing of the rest can run yet, since
    it is being filled or its outputs need the room of others that workers have not read. capacity: rows that it holds
    where that depends on their shape, 0 for what the plan says. run_by_ns: when it is due whatever the queue delay,
    so that its latency target holds (slo_policy), 0 without one. level: the priority level of its rows, 0 is the first;
    stale_ns: when the last of them is past its timeout, 0 for never; delays: late ones let others pass, else they are
    refused. deadline_ns: the earliest of its rows; undated: a row has none.
    """

    slab: int
    age: int
    rows: int
    opened_ns: int = 0
    left_behind: bool = False
    held_up: bool = False
    capacity: int = 0
    run_by_ns: int = 0
    level: int = 0
    stale_ns: int = 0
    delays: bool = True
    deadline_ns: int = 0
    undated: bool = True


class Plan(NamedTuple):
    """A lane's settings; preferred_rows 0 stands for the capacity of a slab. newest_first: the queue stands."""

    row_capacity: int
    max_queue_delay_ns: int = 0
    preferred_rows: int = 0
    newest_first: bool = False


class Standing:
    """Whether a lane's queue stands, as each of its instances sees it: after every batch for STANDING_NS another slab
    has waited. One batch that leaves none, or a sleep, and it is forgotten. The reference for standing_queue.pxd.
    """

    def __init__(self) -> None:
        self.since_ns = 0
        self.newest_first = False

    def sealed(self, others_wait: bool, now_ns: int) -> None:
        """A slab was sealed."""
        if not others_wait:
            self.slept()
        elif not self.since_ns:
            self.since_ns = now_ns
        elif now_ns - self.since_ns > STANDING_NS:
            self.newest_first = True

    def slept(self) -> None:
        """The instance found nothing to do."""
        self.since_ns, self.newest_first = 0, False


class Join(NamedTuple):
    """Rows go behind those of this slab."""

    slab: int


class Open(NamedTuple):
    """Rows begin a slab of their own."""


class Full(NamedTuple):
    """There is no room for them."""


class RunSlab(NamedTuple):
    """Seal and run this slab now."""

    slab: int


class WaitUntil(NamedTuple):
    """Nothing is due before this time."""

    at_ns: int


class Sleep(NamedTuple):
    """Nothing waits: sleep until woken."""


def decide(slabs: Sequence[Slab], plan: Plan, now_ns: int) -> RunSlab | WaitUntil | Sleep:
    """What an idle instance does about the slabs that are open or left behind."""
    full = plan.preferred_rows if 0 < plan.preferred_rows <= plan.row_capacity else plan.row_capacity
    due: list[Slab] = []
    waits: list[int] = []
    for slab in slabs:
        if slab.left_behind and slab.held_up:
            continue
        is_full = slab.rows >= min(full, slab.capacity or full)
        due_ns = slab.opened_ns + plan.max_queue_delay_ns
        due_ns = min(due_ns, slab.run_by_ns or due_ns)
        if slab.left_behind or not plan.max_queue_delay_ns or is_full or now_ns >= due_ns:
            due.append(slab)
        else:
            waits.append(due_ns)
    if due:
        rank = min(_rank(slab, now_ns) for slab in due)
        first = [slab for slab in due if _rank(slab, now_ns) == rank]
        oldest = min(first, key=lambda slab: slab.age)
        if plan.newest_first and not oldest.undated and now_ns < oldest.deadline_ns:
            return RunSlab(max(first, key=lambda slab: slab.age).slab)
        return RunSlab(oldest.slab)
    return WaitUntil(min(waits)) if waits else Sleep()


def claim(slabs: Sequence[Slab], plan: Plan, rows: int, free_count: int, hint: int = -1) -> Join | Open | Full:
    """Where the rows of a request go, of which the open slabs are `slabs` by number and `free_count` are free.

    Into a slab that has room, the one that was claimed from last (`hint`) before others; else into a new one.
    """
    fits = [slab for slab in slabs if slab.rows + rows <= (slab.capacity or plan.row_capacity)]
    if fits:
        return Join(next((slab.slab for slab in fits if slab.slab == hint), fits[0].slab))
    return Open() if free_count else Full()


def _rank(slab: Slab, now_ns: int) -> tuple[int, bool]:
    """What comes before age."""
    is_late = 0 < slab.stale_ns <= now_ns
    return (-1, False) if is_late and not slab.delays else (slab.level, is_late)
