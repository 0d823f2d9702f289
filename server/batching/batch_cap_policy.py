"""How many rows a run may have after memory ran out: a pure function of what did not fit, what did since, and the time.

The rule in words. A run of several rows that finds no memory is cut in halves, and from then on no run has more rows
than half of what did not fit. After a while in which such runs went well the cap is doubled, until it reaches what a
slab holds and is gone. If a run with more rows than before then finds no memory, the cap goes back to what it was, and
the while is twice as long from then on, up to sixteen seconds: a cap that has to stay costs one failed run in such a
time, and what was short for a moment only is forgotten within half a minute. A run that was cut before the cap fell
says nothing new, nor does one that is far from the cap.
"""

from __future__ import annotations

from typing import NamedTuple

#: How long the first cap stays before more rows are tried, and the longest.
FIRST_WAIT_NS = 2_000_000_000
MOST_WAIT_NS = 16_000_000_000
#: A failure so long after the cap was raised last has nothing to do with that.
FORGET_NS = 600_000_000_000


class BatchCap(NamedTuple):
    """rows: the cap, 0 for none. proven_rows: the cap before it was raised last, or what has run since then if that is
    more; 0 if it was not raised. since_ns: when the cap changed last; wait_ns: how long from then until it is raised.
    """

    rows: int = 0
    proven_rows: int = 0
    since_ns: int = 0
    wait_ns: int = FIRST_WAIT_NS


NO_CAP = BatchCap()


def lowered(cap: BatchCap, failed_rows: int, now_ns: int) -> BatchCap:
    """Memory ran out for a run of so many rows, two at the least."""
    if cap.rows and failed_rows > cap.rows:
        return cap
    if cap.proven_rows < failed_rows and cap.proven_rows and now_ns - cap.since_ns < FORGET_NS:
        return BatchCap(cap.proven_rows, 0, now_ns, min(2 * cap.wait_ns, MOST_WAIT_NS))
    return BatchCap(max(failed_rows // 2, 1), 0, now_ns, cap.wait_ns if cap.rows else FIRST_WAIT_NS)


def raised(cap: BatchCap, ran_rows: int, most_rows: int, now_ns: int) -> BatchCap:
    """A run of so many rows went well; most_rows: what a slab holds."""
    if 0 < cap.proven_rows < ran_rows:
        # More than before: what was short is so no longer.
        cap = BatchCap(cap.rows, ran_rows, cap.since_ns)
    if not cap.rows or 2 * ran_rows < cap.rows or now_ns - cap.since_ns < cap.wait_ns:
        return cap
    rows = 2 * cap.rows
    return BatchCap(rows if rows < most_rows else 0, cap.rows, now_ns, cap.wait_ns)
