"""How long a request takes on a device that others use too: an estimate from T(b). Pure functions.

A device answers one batch after the other. While one runs, the rows of the next one come in; so batches grow until each
has the rows that come during a run, and how large that is follows from T(b) and the demand. A request waits for half a
run on the average, if one is under way, and then for its own; longer, the nearer the demand is to what the device can
run at all, since chance makes more come at times (of a model whose rows take as long together as one by one, that is
the wait of the queue M/D/1). Others that compute on the device at the same time stretch every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: T(b): rows and what a run of so many takes, ascending.
Cells = Sequence[tuple[int, int]]
#: Longer than any answer: one of a device that gets as much as it can run, and more.
OVERLOAD_NS = 1e18
#: What a device has left at the least, as a share, where no queue would end.
_MIN_LEFT = 0.02


class Estimate(NamedTuple):
    """Of one request; `pressure` is the demand as a share of what the device can run, above 1 it cannot keep up."""

    ns: float
    pressure: float

    @property
    def cost(self) -> float:
        """To compare by: what cannot keep up is worse than what is slow, the less of the demand it runs the worse."""
        return self.ns if self.pressure <= 1 else self.pressure * OVERLOAD_NS


def answer(cells: Cells, rows_per_s: float, stretch: float = 1.0) -> Estimate:
    """What a request for a row takes where every run takes `stretch` times what `cells` say. At least one cell."""
    rows_per_ns = rows_per_s * stretch / 1e9
    pressure = min(rows_per_ns * ns / rows for rows, ns in cells)
    rows = _batch_rows(cells, rows_per_ns)
    run_ns = _run_ns(cells, rows)
    under_way = min(1.0, rows_per_ns * run_ns / rows)
    return Estimate(stretch * run_ns * (1 + under_way / 2 / max(_MIN_LEFT, 1 - pressure)), pressure)


def rate(cells: Cells) -> float:
    """Rows per second at the batch size that gives most."""
    return max(rows * 1e9 / ns for rows, ns in cells)


def ratio(cells: Cells, base: Cells) -> float | None:
    """How long batches take in terms of another device, the geometric mean over the sizes that both were measured with;
    None: there are none.
    """
    base_ns = dict(base)
    pairs = [(ns, base_ns[rows]) for rows, ns in cells if rows in base_ns]
    if not pairs:
        return None
    product = 1.0
    for ns, other_ns in pairs:
        product *= (ns / other_ns) ** (1.0 / len(pairs))
    return product


def _batch_rows(cells: Cells, rows_per_ns: float) -> float:
    """The size at which as many rows come during a run as it has; the largest, if more come."""
    before: tuple[int, int] | None = None
    for rows, ns in cells:
        if rows_per_ns * ns > rows:
            before = (rows, ns)
            continue
        if before is None:
            return rows
        low_rows, low_ns = before
        slope = (ns - low_ns) / (rows - low_rows)
        found = rows_per_ns * (low_ns - slope * low_rows) / (1 - rows_per_ns * slope)
        return min(float(rows), max(float(low_rows), found))
    return cells[-1][0]


def _run_ns(cells: Cells, rows: float) -> float:
    """T(rows), on the line between two sizes that were measured."""
    low_rows, low_ns = cells[0]
    for high_rows, high_ns in cells:
        if rows <= high_rows:
            if high_rows == low_rows:
                return high_ns
            return low_ns + (high_ns - low_ns) * (rows - low_rows) / (high_rows - low_rows)
        low_rows, low_ns = high_rows, high_ns
    return low_ns
