"""The slab ring of an arena for Python: the supervisor and tests."""

from collections.abc import Sequence
from typing import TypedDict

from server._fast.layout import Arena

#: (slab, first row, row count, generation)
Claim = tuple[int, int, int, int]

class Batch(TypedDict):
    """A sealed slab. live_count: rows to run. attempts: executors that died with it. row_limit: take() takes no more
    rows, but for those of one request, and leaves the rest for a later pass; 0: all.
    """

    slab: int
    generation: int
    row_count: int
    live_count: int
    attempts: int
    wait_until_ns: int
    row_limit: int

class Ring:
    """The ring of one arena. Owner ids are workers' ids; times are monotonic nanoseconds."""

    arena: Arena
    def __init__(self, arena: Arena) -> None: ...
    def claim(
        self,
        owner: int,
        row_count: int = 1,
        shapes: Sequence[Sequence[int]] | None = None,
        now_ns: int = 0,
        signature: int | None = None,
        level: int = 0,
    ) -> Claim | None:
        """Neighbouring rows of one slab, or None when the ring is full. ValueError for more rows than a slab has.

        shapes: shaped mode, the dims of a row of every input; signature: instead of their hash, for tests. level: the
        priority level, from 0.
        """

    def reserve(self, owner: int, now_ns: int = 0) -> Claim | None:
        """A free slab for one owner alone, without rows yet; None where rows wait in an open slab, or less than half of
        the slabs is free. Rows mode only.
        """

    def open_reserved(self, owner: int, claim: Claim, row_count: int, now_ns: int = 0) -> Claim:
        """Opens a reserved slab with so many rows: the claim of them, to be published."""

    def give_up_reserved(self, owner: int, claim: Claim) -> None:
        """Makes a reserved slab free again; nothing happens to one that was opened."""
    def level_of(self, priority: int) -> int:
        """The level, from 0, of a request with this priority."""

    def level_times(self, level: int, timeout_us: int, now_ns: int) -> tuple[int, int]:
        """When a request is refused, and when it goes behind the others; 0: never."""

    def level_is_full(self, level: int) -> bool:
        """Whether as many rows of the level wait as may."""

    def stale_after(self, slab: int, stale_ns: int) -> None:
        """When the caller's rows in the slab are past their timeout; 0: never."""

    def has_room(self) -> bool: ...
    def publish(self, owner: int, claim: Claim, now_ns: int = 0, deadline_ns: int = 0) -> None:
        """Says that the rows are filled; deadline_ns 0 is none."""

    def wake(self, bells: list[int]) -> bool:
        """Wakes one sleeping instance by its eventfd; whether one slept. After publishing."""

    def cancel(self, owner: int, claim: Claim) -> int:
        """Gives rows up in any state; how many had not begun to run."""

    def finished(self, owner: int, claim: Claim) -> int | None:
        """None while a row is not finished; else 0, or the failure code of the first failed row."""

    def release(self, owner: int, claim: Claim) -> bool:
        """Frees finished rows; whether that made the slab free."""

    def seal(self, instance: int, now_ns: int = 0) -> Batch | int | None:
        """The oldest slab that is due, the time when one will be, or None when nothing waits."""

    def take(self, instance: int, batch: Batch, now_ns: int = 0, partial: bool = False) -> Batch | None:
        """Makes a sealed slab's rows run; None while one of them is still being filled.

        partial: rows that are being filled are left for a later pass instead.
        """

    def take_alone(self, batch: Batch, row: int) -> int:
        """1 run this row alone, 0 it is gone, -1 it ended two executors alone and has failed."""

    def put_back(self, slab: int, row: int) -> None:
        """A running row is ready again, for a later pass."""

    def crowd(self, slab: int) -> None:
        """Shaped mode: the slab is not due again while it has finished rows that nobody read."""

    def finish_row(self, slab: int, row: int, code: int = 0) -> None: ...
    def complete(self, instance: int, batch: Batch) -> int:
        """Ends a running slab; the owners to wake as a bit set."""

    def reap_owner(self, owner: int) -> int:
        """Takes back all rows of a dead worker; how many."""

    def recover_executor(self) -> int:
        """Makes all slabs of a dead executor due again; how many."""

    def slab(self, slab: int) -> tuple[int, int, int, int, int]:
        """(state, owner, claimed rows, generation, attempts)"""

    def row(self, slab: int, row: int) -> tuple[int, int, int, int, int]:
        """(state, owner, attempts, failure code, generation)"""

    def row_counts(self) -> list[int]:
        """Rows by state over all slabs that are in use; the index is the row state."""

    def held(self) -> list[tuple[int, int, int]]:
        """(slab, generation, steps) of each slab that an instance has, sealed or running."""

    def beat(self) -> tuple[int, int]:
        """(when an instance without work looked last, runs up to now): changes while the executor is well and idle."""

    def free_slabs(self) -> int: ...
