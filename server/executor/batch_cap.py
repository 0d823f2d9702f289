"""The batch cap of an executor: what its instances find out about memory, put to the policy, told to all processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import monotonic_ns

from server import log
from server._fast import batch_cap
from server._fast.layout import Arena
from server.batching import batch_cap_policy as policy


class BatchCap:
    """One for all instances of an executor; any thread may call. Batches are cut by the arena's copy (take_due).

    rows: the cap, 0 for none: runners look at it for every batch, and call ran() only if there is one.
    """

    def __init__(self, arena: Arena, model: str = "", clock: Callable[[], int] = monotonic_ns) -> None:
        """Begins without a cap: what the executor before had no memory for, this one may have."""
        self.rows = 0
        self._arena = arena
        self._model = model
        self._clock = clock
        self._cap = policy.NO_CAP
        self._lock = threading.Lock()
        batch_cap.set_rows(arena, 0)

    def did_not_fit(self, runs: Sequence[int]) -> None:
        """Memory ran out for runs of so many rows each, one after the other, two rows at the least."""
        with self._lock:
            cap = self._cap
            for rows in runs:
                cap = policy.lowered(cap, rows, self._clock())
            self._set(cap)

    def ran(self, rows: int) -> None:
        """A run of so many rows went well."""
        with self._lock:
            self._set(policy.raised(self._cap, rows, self._arena.row_capacity, self._clock()))

    def split(self) -> None:
        """A run was cut in parts."""
        batch_cap.count_split(self._arena)

    def unfit(self) -> None:
        """Memory ran out for a row, or a request that runs as a whole, by itself: it fails."""
        batch_cap.count_unfit(self._arena)

    def _set(self, cap: policy.BatchCap) -> None:
        before, self._cap = self._cap, cap
        if cap.rows == before.rows:
            return
        self.rows = cap.rows
        batch_cap.set_rows(self._arena, cap.rows)
        most = self._arena.row_capacity
        rows, rows_before = cap.rows or most, before.rows or most
        fields = {"model": self._model, "rows": rows, "rows_before": rows_before}
        if rows < rows_before:
            if cap.rows != before.proven_rows:
                log.warning("batch_cap_lowered", "memory ran out: batches have fewer rows for now", **fields)
            elif before.wait_ns < cap.wait_ns:
                log.info("batch_cap_kept", "more rows did not fit: they are tried again ever more seldom", **fields)
        elif cap.wait_ns < policy.MOST_WAIT_NS:
            log.info("batch_cap_raised", "more rows are tried", **fields)
