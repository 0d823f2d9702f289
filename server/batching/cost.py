"""What a run of b rows takes: the cost table T(b), as plain Python.

The reference for server/_fast/cost_table, which keeps the same numbers in shared memory, and what simulations of
policies use. How it learns is told there. Whole nanoseconds, no clock.
"""

from __future__ import annotations

#: A run of eighteen minutes counts as one of this.
MAX_NS = 1 << 40
#: How many runs an average remembers.
MEMORY_RUNS = 16
#: A cell that has learnt from fewer believes whatever it is told.
TRUSTED_RUNS = 4
STALE_NS = 1_000_000_000
DRIFT_ONE = 1024
DRIFT_MAX = 1 << 16
#: Mean deviations over the mean: what 99 of 100 runs stay below where times are normally distributed.
UPPER_DEVIATIONS = 3


class Cell:
    """One batch size; count 0: it never ran, and its numbers are guessed from those that did."""

    __slots__ = ("base_ns", "count", "deviation_ns", "mean_ns", "rows", "updated_ns")

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.count = self.mean_ns = self.deviation_ns = self.base_ns = self.updated_ns = 0

    @property
    def upper_ns(self) -> int:
        return self.mean_ns + UPPER_DEVIATIONS * self.deviation_ns


class CostTable:
    """T(b) of one lane whose slabs hold `capacity` rows."""

    def __init__(self, capacity: int) -> None:
        self.cells: list[Cell] = []
        while not self.cells or self.cells[-1].rows < capacity:
            self.cells.append(Cell(min(1 << len(self.cells), capacity)))
        self.run_count = 0
        self.drift = DRIFT_ONE

    # -- asking

    @property
    def capacity(self) -> int:
        return self.cells[-1].rows

    @property
    def is_known(self) -> bool:
        """Whether anything has run."""
        return self.run_count > 0

    def of(self, rows: int) -> int:
        """Expected time of running so many rows on one instance; 0 while nothing is known."""
        return self._estimate([cell.mean_ns for cell in self.cells], rows)

    def upper(self, rows: int) -> int:
        """What about 99 of 100 such runs stay below; 0 while nothing is known."""
        return self._estimate([cell.upper_ns for cell in self.cells], rows)

    def largest_within(self, budget_ns: int) -> int:
        """The most rows whose upper() is within the budget, 0 if not even one row's is; the capacity if nothing is
        known.
        """
        if not self.is_known:
            return self.capacity
        above: Cell | None = None
        for cell in reversed(self.cells):
            if cell.upper_ns <= budget_ns:
                if above is None:
                    return cell.rows
                span_ns = above.upper_ns - cell.upper_ns
                return cell.rows + (budget_ns - cell.upper_ns) * (above.rows - cell.rows) // span_ns
            above = cell
        return 0

    def rate(self) -> float:
        """Rows per second of one instance at the batch size that gives most; 0 while nothing is known."""
        if not self.is_known:
            return 0.0
        return max(cell.rows * 1e9 / cell.mean_ns if cell.mean_ns else 0.0 for cell in self.cells)

    def _below(self, rows: int) -> int:
        """Index of the last cell with at most so many rows."""
        return max(index for index, cell in enumerate(self.cells) if cell.rows <= rows)

    def _estimate(self, cells_ns: list[int], rows: int) -> int:
        if not self.is_known:
            return 0
        total_ns = rows // self.capacity * cells_ns[-1]
        rest = rows % self.capacity
        return total_ns + (self._on_line(cells_ns, rest) if rest else 0)

    def _on_line(self, cells_ns: list[int], rows: int) -> int:
        k = self._below(rows)
        past = rows - self.cells[k].rows
        if past == 0:
            return cells_ns[k]
        span = self.cells[k + 1].rows - self.cells[k].rows
        return (cells_ns[k] * (span - past) + cells_ns[k + 1] * past) // span

    # -- learning

    def learn(self, rows: int, ns: int, deviation_ns: int, count: int, now_ns: int) -> None:
        """What the warm-up measured in `count` runs of a size that has a cell; ValueError for another."""
        if count < 1 or rows not in (cell.rows for cell in self.cells):
            raise ValueError(f"{count} runs of {rows} rows: expected one of {[cell.rows for cell in self.cells]}")
        cell = self.cells[self._below(rows)]
        cell.mean_ns = cell.base_ns = _clamped(ns, 1, MAX_NS)
        cell.deviation_ns = min(deviation_ns, MAX_NS)
        cell.updated_ns = now_ns
        cell.count = count
        self.drift = DRIFT_ONE
        self._guess_all()
        self.run_count += count

    def add(self, rows: int, ns: int, now_ns: int) -> None:
        """One run of `rows` rows took `ns`, without others in between."""
        rows = _clamped(rows, 1, self.capacity)
        ns = _clamped(ns, 1, MAX_NS)
        k = self._below(rows)
        below, above = self.cells[k], self.cells[min(k + 1, len(self.cells) - 1)]
        cell = below if 2 * (rows - below.rows) <= above.rows - below.rows else above
        swept = self.run_count % len(self.cells)
        if below.count and (above.count or rows == below.rows):
            expected_ns = self._on_line([cell.mean_ns for cell in self.cells], rows)
            if cell.count >= TRUSTED_RUNS:
                ns = _clamped(ns, expected_ns // 4, expected_ns * 4)
            self._add_drift(ns, self._on_line([cell.base_ns for cell in self.cells], rows))
            if rows != cell.rows:
                ns = ns * _clamped(cell.mean_ns * 1024 // expected_ns, 256, 4096) // 1024
        else:
            ns = min(ns * cell.rows // rows, MAX_NS)
        is_new = not cell.count
        _move(cell, _clamped(ns, 1, MAX_NS), now_ns)
        if is_new:
            self._guess_all()
        elif self.cells[swept] is not cell:
            self._refresh(swept, now_ns)
        self.run_count += 1

    def _guess_all(self) -> None:
        for k, cell in enumerate(self.cells):
            if not cell.count:
                self._guess(k)

    def _guess(self, k: int) -> None:
        """A size that never ran: on the line between its neighbours that did; smaller ones take no longer than the
        least of those, larger ones as long for each row as the largest.
        """
        cell = self.cells[k]
        below = next((other for other in reversed(self.cells[:k]) if other.count), None)
        above = next((other for other in self.cells[k:] if other.count), None)
        if below is not None and above is not None:
            past, span = cell.rows - below.rows, above.rows - below.rows
            cell.mean_ns = (below.mean_ns * (span - past) + above.mean_ns * past) // span
        elif below is not None:
            cell.mean_ns = min(below.mean_ns * cell.rows // below.rows, MAX_NS)
        elif above is not None:
            cell.mean_ns = above.mean_ns
        cell.deviation_ns = cell.mean_ns // 8

    def _add_drift(self, ns: int, base_ns: int) -> None:
        seen = _clamped(ns * DRIFT_ONE // base_ns, self.drift // 4, self.drift * 4)
        self.drift = _clamped(self.drift + _divided(seen - self.drift, 16), 16, DRIFT_MAX)

    def _refresh(self, k: int, now_ns: int) -> None:
        cell = self.cells[k]
        if not cell.count:
            self._guess(k)
        elif now_ns - cell.updated_ns > STALE_NS:
            home_ns = _clamped(cell.base_ns * self.drift // DRIFT_ONE, 1, MAX_NS)
            cell.mean_ns += _divided(home_ns - cell.mean_ns, 4)
            cell.deviation_ns += _divided(home_ns // 8 - cell.deviation_ns, 4)


def _move(cell: Cell, ns: int, now_ns: int) -> None:
    if cell.count:
        gain, error = min(cell.count + 1, MEMORY_RUNS), ns - cell.mean_ns
        cell.mean_ns += _divided(error, gain)
        cell.deviation_ns += _divided(abs(error) - cell.deviation_ns, gain)
    else:
        cell.mean_ns = cell.base_ns = ns
        cell.deviation_ns = ns // 8
    cell.updated_ns = now_ns
    cell.count += 1


def _clamped(value: int, low: int, high: int) -> int:
    return low if value < low else min(value, high)


def _divided(a: int, b: int) -> int:
    """Towards zero, as C divides."""
    return a // b if a >= 0 else -(-a // b)
