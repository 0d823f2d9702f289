"""The slab ring as plain objects: no words, no hints, no races. Every operation is atomic and obvious.

States and return values are those of server._fast.slab_ring.Ring; generations count up without wrapping.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

FREE, OPENING, OPEN, SEALED, RUNNING, DONE = range(6)
(
    ROW_FREE,
    ROW_FILLING,
    ROW_READY,
    ROW_RUNNING,
    ROW_DONE,
    ROW_FAILED,
    ROW_CANCELLED,
    ROW_ABANDONED,
    ROW_ORPHAN,
) = range(9)
ANY_INSTANCE = 63
NEVER_NS = (1 << 64) - 1
FAILURE_DEADLINE = 7
FAILURE_POISON = 8
#: Executors that died with a slab until its rows are run alone; that died with a row alone until it is poison.
ALONE_ATTEMPTS, POISON_ATTEMPTS = 1, 2

#: What becomes of a row whose owner takes it back, and of one whose owner died.
CANCEL = {
    ROW_FILLING: ROW_CANCELLED,
    ROW_READY: ROW_CANCELLED,
    ROW_RUNNING: ROW_ORPHAN,
    ROW_DONE: ROW_FREE,
    ROW_FAILED: ROW_FREE,
}
ABANDON = {**CANCEL, ROW_FILLING: ROW_ABANDONED, ROW_READY: ROW_ABANDONED}

Claim = tuple[int, int, int, int]
Batch = dict[str, int]
#: Shaped mode: the dims of a row of every input. Only rows of equal shapes share a slab.
Shapes = tuple[tuple[int, ...], ...] | None


@dataclass(eq=False)
class Row:
    """One row of the present generation of a slab."""

    owner: int
    state: int = ROW_FILLING
    attempts: int = 0
    code: int = 0
    deadline_ns: int = 0
    #: the rows that were claimed together with it, itself included
    claim: list[Row] = field(default_factory=list, repr=False)


@dataclass
class Slab:
    """One slab; `rows` holds the claimed ones only."""

    state: int = FREE
    owner: int = 0
    generation: int = 0
    attempts: int = 0
    shapes: Shapes = None
    capacity: int = 0
    crowded: bool = False
    opened_ns: int = 0
    level: int = 0
    stale_ns: int = 0
    rows: list[Row] = field(default_factory=list)


class SlabRing:
    """The model. `delay_ns`, `preferred_rows`: the lane's plan; `level_slabs`: what each priority level may hold;
    `delays`: late rows let others pass, else they go first, to be refused."""

    def __init__(
        self,
        slab_count: int,
        row_capacity: int,
        delay_ns: int = 0,
        preferred_rows: int = 0,
        input_bytes: int = 0,
        item_bytes: int = 0,
        level_slabs: tuple[int, ...] = (),
        delays: bool = True,
    ) -> None:
        self.slabs = [Slab() for _ in range(slab_count)]
        self.row_capacity = row_capacity
        self.delay_ns = delay_ns
        self.full_rows = preferred_rows if 0 < preferred_rows <= row_capacity else row_capacity
        self.input_bytes = input_bytes
        self.item_bytes = item_bytes
        self.level_slabs = level_slabs or (slab_count,)
        self.delays = delays
        self.generation = 0
        self.open_hint = 0

    # worker

    def capacity(self, shapes: Shapes) -> int:
        """How many rows of these shapes a slab holds: every input's row padded to a cache line."""
        if shapes is None:
            return self.row_capacity
        row_bytes = sum(-(-math.prod(dims) * self.item_bytes // 64) * 64 for dims in shapes)
        return min(self.row_capacity, self.input_bytes // row_bytes) if row_bytes else self.row_capacity

    def claim(
        self, owner: int, row_count: int = 1, shapes: Shapes = None, now_ns: int = 0, level: int = 0
    ) -> Claim | None:
        capacity = self.capacity(shapes)
        if not 1 <= row_count <= capacity:
            raise ValueError(row_count)
        for index in [self.open_hint, *range(len(self.slabs))]:
            slab = self.slabs[index]
            is_same = slab.shapes == shapes and slab.level == level
            if slab.state == OPEN and is_same and row_count <= capacity - len(slab.rows):
                return self._append(index, owner, row_count)
        if sum(slab.state != FREE and slab.level == level for slab in self.slabs) >= self.level_slabs[level]:
            return None
        for index, slab in enumerate(self.slabs):
            if slab.state == FREE:
                self.generation += 1
                self.slabs[index] = Slab(
                    OPEN, owner, self.generation, shapes=shapes, capacity=capacity, opened_ns=now_ns, level=level
                )
                return self._append(index, owner, row_count)
        return None

    def _append(self, index: int, owner: int, row_count: int) -> Claim:
        slab = self.slabs[index]
        first_row = len(slab.rows)
        rows = [Row(owner) for _ in range(row_count)]
        for row in rows:
            row.claim = rows
        slab.rows += rows
        slab.owner = owner
        self.open_hint = index
        return index, first_row, row_count, slab.generation

    def stale_after(self, slab: int, stale_ns: int) -> None:
        self.slabs[slab].stale_ns = max(self.slabs[slab].stale_ns, stale_ns or NEVER_NS)

    def has_room(self) -> bool:
        return any(slab.state == FREE or (slab.state == OPEN and len(slab.rows) < slab.capacity) for slab in self.slabs)

    def rows_of(self, claim: Claim) -> list[Row]:
        index, first_row, row_count, generation = claim
        assert self.slabs[index].generation == generation
        return self.slabs[index].rows[first_row : first_row + row_count]

    def publish(self, claim: Claim, deadline_ns: int = 0) -> None:
        for row in self.rows_of(claim):
            assert row.state == ROW_FILLING
            row.state = ROW_READY
            row.deadline_ns = deadline_ns

    def cancel(self, claim: Claim) -> int:
        spared = 0
        for row in self.rows_of(claim):
            row.state = CANCEL.get(row.state, row.state)
            spared += row.state == ROW_CANCELLED
        self._recycle(claim[0])
        return spared

    def finished(self, claim: Claim) -> int | None:
        rows = self.rows_of(claim)
        if any(row.state not in (ROW_DONE, ROW_FAILED) for row in rows):
            return None
        return next((row.code for row in rows if row.state == ROW_FAILED), 0)

    def release(self, claim: Claim) -> bool:
        for row in self.rows_of(claim):
            if row.state in (ROW_DONE, ROW_FAILED):
                row.state = ROW_FREE
        return self._recycle(claim[0])

    def _recycle(self, index: int) -> bool:
        slab = self.slabs[index]
        if slab.state != DONE or any(row.state != ROW_FREE for row in slab.rows):
            return False
        self.slabs[index] = Slab(generation=slab.generation, attempts=slab.attempts)
        return True

    # executor

    def seal(self, instance: int, now_ns: int = 0) -> Batch | int | None:
        due, later = [], []
        for slab in self.slabs:
            due_ns = slab.opened_ns + self.delay_ns
            states = {row.state for row in slab.rows}
            only_filling = ROW_FILLING in states and ROW_READY not in states
            held_up = only_filling or (slab.crowded and any(map(self._is_readable, slab.rows)))
            left_behind = slab.state == SEALED and slab.owner == ANY_INSTANCE and not held_up
            full_rows = min(self.full_rows, slab.capacity)
            ripe = not self.delay_ns or len(slab.rows) >= full_rows or now_ns >= due_ns
            if left_behind or (slab.state == OPEN and ripe):
                due.append(slab)
            elif slab.state == OPEN:
                later.append(due_ns)
        if not due:
            return min(later, default=None)
        oldest = min(due, key=lambda slab: (*self._rank(slab, now_ns), slab.generation))
        oldest.state, oldest.owner = SEALED, instance
        return {
            "slab": next(index for index, slab in enumerate(self.slabs) if slab is oldest),
            "generation": oldest.generation,
            "row_count": len(oldest.rows),
            "live_count": 0,
            "attempts": oldest.attempts,
            "wait_until_ns": 0,
            "row_limit": 0,
        }

    def _rank(self, slab: Slab, now_ns: int) -> tuple[int, bool]:
        is_late = 0 < slab.stale_ns <= now_ns
        return (-1, False) if is_late and not self.delays else (slab.level, is_late)

    @staticmethod
    def _is_readable(row: Row) -> bool:
        unfinished = {ROW_FILLING, ROW_READY, ROW_RUNNING}
        return row.state == ROW_DONE and not any(other.state in unfinished for other in row.claim)

    def take(self, batch: Batch, now_ns: int = 0, partial: bool = False) -> Batch | None:
        slab = self.slabs[batch["slab"]]
        if not partial and any(row.state == ROW_FILLING for row in slab.rows):
            return None
        slab.state = RUNNING
        if slab.crowded:
            # The room for outputs is needed: what nobody can read yet runs again.
            for row in slab.rows:
                if row.state == ROW_DONE:
                    row.state = ROW_READY
                    row.attempts -= row.attempts > 0
            slab.crowded = False
        live_count = 0
        asked: list[list[Row]] = []
        is_full = False
        for index, row in enumerate(slab.rows):
            if row.state != ROW_READY:
                continue
            if row.deadline_ns and row.deadline_ns <= now_ns:
                row.state, row.code = ROW_FAILED, FAILURE_DEADLINE
                continue
            if batch["row_limit"] and batch["attempts"] < ALONE_ATTEMPTS:
                if not any(row.claim is claim for claim in asked):
                    asked.append(row.claim)
                    left = sum(one in row.claim for one in slab.rows[index:])
                    is_full = is_full or (live_count > 0 and live_count + left > batch["row_limit"])
                if is_full:
                    continue
            live_count += 1
            if batch["attempts"] < ALONE_ATTEMPTS:
                row.state = ROW_RUNNING
        return {**batch, "live_count": live_count}

    def take_alone(self, batch: Batch, index: int) -> int:
        row = self.slabs[batch["slab"]].rows[index]
        if row.state != ROW_READY:
            return 0
        if row.attempts >= POISON_ATTEMPTS:
            row.state, row.code = ROW_FAILED, FAILURE_POISON
            return -1
        row.state = ROW_RUNNING
        row.attempts += 1
        return 1

    def put_back(self, slab: int, index: int) -> None:
        row = self.slabs[slab].rows[index]
        if row.state == ROW_RUNNING:
            row.state = ROW_READY
            row.attempts -= row.attempts > 0

    def crowd(self, slab: int) -> None:
        self.slabs[slab].crowded = True

    def finish_row(self, slab: int, index: int, code: int = 0) -> None:
        row = self.slabs[slab].rows[index]
        if row.state == ROW_RUNNING:
            row.state, row.code = (ROW_FAILED, code) if code else (ROW_DONE, 0)
        elif row.state in (ROW_ORPHAN, ROW_CANCELLED, ROW_ABANDONED):
            row.state = ROW_FREE

    def complete(self, batch: Batch) -> int:
        slab = self.slabs[batch["slab"]]
        owners = 0
        for index, row in enumerate(slab.rows):
            self.finish_row(batch["slab"], index)
            if row.state in (ROW_DONE, ROW_FAILED):
                owners |= 1 << row.owner
        if any(row.state in (ROW_FILLING, ROW_READY) for row in slab.rows):
            slab.state, slab.owner = SEALED, ANY_INSTANCE
        else:
            slab.state, slab.owner = DONE, 0
        self._recycle(batch["slab"])
        return owners

    # supervisor

    def reap_owner(self, owner: int) -> int:
        reaped = 0
        for index, slab in enumerate(self.slabs):
            for row in slab.rows:
                if row.owner == owner and row.state in ABANDON:
                    row.state = ABANDON[row.state]
                    reaped += 1
            self._recycle(index)
        return reaped

    def recover_executor(self) -> int:
        recovered = 0
        back = {ROW_RUNNING: ROW_READY, ROW_ORPHAN: ROW_ABANDONED}
        for index, slab in enumerate(self.slabs):
            if slab.state not in (SEALED, RUNNING):
                self._recycle(index)
                continue
            for row in slab.rows:
                row.state = back.get(row.state, row.state)
            slab.attempts += slab.state == RUNNING
            slab.state, slab.owner = SEALED, ANY_INSTANCE
            recovered += 1
        return recovered

    # what both show

    def slab(self, index: int) -> tuple[int, int, int, int, int]:
        slab = self.slabs[index]
        return slab.state, slab.owner, len(slab.rows), slab.generation, slab.attempts

    def row_counts(self) -> list[int]:
        counts = [0] * 9
        for slab in self.slabs:
            for row in slab.rows:
                counts[row.state] += 1
        return counts

    def free_slabs(self) -> int:
        return sum(slab.state == FREE for slab in self.slabs)
