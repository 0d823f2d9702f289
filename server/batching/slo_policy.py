"""How many rows of a batch run now so that a latency target holds: a pure function of waits and the cost table.

The rule in words. All that waits runs together, as without a target, if its oldest row is answered in time. If not, the
batch may be cut: as many rows run first as are in time with it, the rest follows as a batch of its own. It is cut when
that answers more rows in time than it costs. Two batches take longer than one; in that time the machine could have
done other rows, and on a busy machine everything behind waits for it: the price is the rows that it does in such a
time, times busy / (1 - busy).

So a burst for a model whose cost grows with the rows is answered in parts, and a model whose large batches are cheap
keeps its large batches. What is late already is never cut, so that a queue drains at the full rate.

`rows_to_run` is the reference for slo_rows in server/_fast/slo_cut.pyx. Where a queue delay is set, plan.decide ends it
in time for the target (`Slab.run_by_ns`).
"""

from __future__ import annotations

from collections.abc import Sequence

from server.batching.cost import CostTable

#: What `busy` is a fraction of.
BUSY_ONE = 1024
#: The price of time on a machine that is never idle.
MAX_PRICE = 16


def rows_to_run(waits: Sequence[tuple[int, int]], cost: CostTable, slo_ns: int, busy: int) -> int:
    """How many rows from the front run now. waits: (ns waited, rows) of each request of the batch, in their order;
    busy: the share of the last runs' time in which the instance ran, in 1/BUSY_ONE. Requests are not cut.
    """
    rows = sum(count for _, count in waits)
    if not slo_ns or not rows or not cost.is_known:
        return rows
    oldest_ns = max(wait_ns for wait_ns, _ in waits)
    whole_ns = cost.upper(rows)
    if oldest_ns + whole_ns <= slo_ns or oldest_ns >= slo_ns:
        return rows
    fitting = cost.largest_within(slo_ns - oldest_ns)
    first = 0
    for _, count in waits:
        if first + count > fitting:
            break
        first += count
    if not 0 < first < rows:
        return rows
    rest_ns = cost.upper(first) + cost.upper(rows - first)
    gain, place = 0, 0
    for wait_ns, count in waits:
        is_first = place < first
        gain += count * ((is_first or wait_ns + rest_ns <= slo_ns) - (wait_ns + whole_ns <= slo_ns))
        place += count
    if gain <= 0:
        return rows
    extra_ns = max(0, cost.of(first) + cost.of(rows - first) - cost.of(rows))
    price, per = busy, BUSY_ONE - busy
    if price > MAX_PRICE * per:
        price, per = MAX_PRICE, 1
    return first if gain * cost.of(rows) * per > price * extra_ns * rows else rows


def run_by_ns(opened_ns: int, rows: int, cost: CostTable, slo_ns: int) -> int:
    """When a slab of so many rows has to run at the latest, whatever the queue delay; 0: nothing says so."""
    if not slo_ns or not cost.is_known:
        return 0
    return opened_ns + max(0, slo_ns - cost.upper(rows))


class BusyMeter:
    """The share of the last 16 to 32 runs' time in which an instance ran."""

    WINDOW_RUNS = 16

    def __init__(self) -> None:
        self.before_start_ns = self.before_busy_ns = self.start_ns = self.busy_ns = self.run_count = 0

    def add(self, start_ns: int, end_ns: int) -> None:
        """A run began and ended."""
        if not self.start_ns:
            self.before_start_ns = self.start_ns = start_ns
        self.busy_ns += end_ns - start_ns
        self.run_count += 1
        if self.run_count == self.WINDOW_RUNS:
            self.before_start_ns, self.before_busy_ns = self.start_ns, self.busy_ns
            self.start_ns, self.busy_ns, self.run_count = end_ns, 0, 0

    def busy(self, now_ns: int) -> int:
        """In 1/BUSY_ONE; 0 before the first run."""
        span_ns = now_ns - self.before_start_ns
        if not self.start_ns or span_ns <= 0:
            return 0
        return min((self.before_busy_ns + self.busy_ns) * BUSY_ONE // span_ns, BUSY_ONE)
