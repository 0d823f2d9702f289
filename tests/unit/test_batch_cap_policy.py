"""The cap of a lane that has run out of memory: how it falls, when it rises, what it costs where it has to stay."""

from __future__ import annotations

import random

import pytest

from server.batching.batch_cap_policy import (
    FIRST_WAIT_NS,
    FORGET_NS,
    MOST_WAIT_NS,
    NO_CAP,
    BatchCap,
    lowered,
    raised,
)

SECOND_NS = 10**9


@pytest.mark.parametrize(("failed_rows", "rows"), [(2, 1), (3, 1), (64, 32), (4095, 2047)])
def test_a_run_that_did_not_fit_halves_the_cap(failed_rows: int, rows: int) -> None:
    assert lowered(NO_CAP, failed_rows, 5) == BatchCap(rows, 0, 5, FIRST_WAIT_NS)


def test_it_falls_until_something_fits() -> None:
    cap = NO_CAP
    for failed_rows in (64, 32, 16):
        cap = lowered(cap, failed_rows, 5)
    assert cap.rows == 8


def test_a_run_that_was_cut_before_the_cap_fell_says_nothing_new() -> None:
    """Another instance ran it meanwhile."""
    cap = lowered(NO_CAP, 64, 5)
    assert lowered(cap, 64, 6) == lowered(cap, 33, 6) == cap


def test_after_a_while_of_success_it_is_doubled_until_it_is_gone() -> None:
    cap, rows = BatchCap(rows=8, since_ns=0), []
    for at_ns in range(0, 12 * SECOND_NS, SECOND_NS // 10):
        cap = raised(cap, cap.rows or 64, 64, at_ns)
        rows.append(cap.rows)
    assert rows[::20] == [8, 16, 32, 0, 0, 0]
    assert raised(cap, 64, 64, 10**12) is cap, "nothing above what a slab holds"


def test_runs_far_from_the_cap_prove_nothing() -> None:
    cap = BatchCap(rows=8)
    assert raised(cap, 3, 64, 10**12) == cap
    assert raised(cap, 4, 64, 10**12).rows == 16, "whole requests do not always reach it"


def test_what_was_too_much_goes_back_to_what_was_proven_and_waits_twice_as_long() -> None:
    cap = raised(lowered(NO_CAP, 64, 0), 32, 64, FIRST_WAIT_NS)
    assert cap.rows == 0
    cap = lowered(cap, 64, FIRST_WAIT_NS + 1)
    assert cap == BatchCap(32, 0, FIRST_WAIT_NS + 1, 2 * FIRST_WAIT_NS)
    for _ in range(10):
        at_ns = cap.since_ns + cap.wait_ns
        cap = lowered(raised(cap, 32, 64, at_ns), 64, at_ns)
        assert cap.rows == 32
    assert cap.wait_ns == MOST_WAIT_NS


def test_a_failure_long_after_is_a_new_one() -> None:
    cap = BatchCap(rows=0, proven_rows=4, since_ns=0, wait_ns=MOST_WAIT_NS)
    assert lowered(cap, 64, FORGET_NS - 1) == BatchCap(4, 0, FORGET_NS - 1, MOST_WAIT_NS)
    assert lowered(cap, 64, FORGET_NS) == BatchCap(32, 0, FORGET_NS, FIRST_WAIT_NS)


def test_what_was_proven_and_no_longer_fits_is_halved() -> None:
    cap = BatchCap(rows=32, proven_rows=16, since_ns=0, wait_ns=4 * SECOND_NS)
    assert lowered(cap, 16, 9) == BatchCap(8, 0, 9, 4 * SECOND_NS)


def test_more_rows_that_run_are_proven_and_end_the_long_waits() -> None:
    cap = raised(BatchCap(rows=16, proven_rows=8, since_ns=7, wait_ns=MOST_WAIT_NS), 12, 64, 8)
    assert cap == BatchCap(16, 12, 7, FIRST_WAIT_NS)
    assert lowered(cap, 16, 9) == BatchCap(12, 0, 9, 2 * FIRST_WAIT_NS)


class World:
    """A lane that is never idle, on a device with room for `room` rows: what its runs cost. Time is what runs take."""

    def __init__(self, most_rows: int, run_ns: int) -> None:
        self.cap = NO_CAP
        self.now_ns = 0
        self.failed = self.ran = 0
        self.most_rows, self._run_ns = most_rows, run_ns

    def serve(self, rows: int, room: int) -> None:
        """All of a batch, in as many runs as it takes."""
        while rows:
            part = min(rows, self.cap.rows or rows)
            self.now_ns += self._run_ns
            if part > room:
                self.failed += 1
                self.cap = lowered(self.cap, part, self.now_ns)
                continue
            self.ran += 1
            self.cap = raised(self.cap, part, self.most_rows, self.now_ns)
            rows -= part

    def serve_for(self, seconds: float, room: int) -> None:
        end_ns = self.now_ns + int(seconds * SECOND_NS)
        while self.now_ns < end_ns:
            self.serve(self.most_rows, room)


@pytest.mark.parametrize("seed", range(20))
def test_a_limit_that_stays_costs_a_failed_run_now_and_then(seed: int) -> None:
    rng = random.Random(seed)
    most_rows = rng.choice([16, 64, 100, 1000])
    room = rng.randrange(1, most_rows)
    world = World(most_rows, run_ns=10_000_000)
    world.serve_for(60, room)
    before = world.failed
    world.serve_for(600, room)
    # One in sixteen seconds, and a few while it finds out that more rows fit than half of the first failure.
    assert world.failed - before <= 600 // 16 + 10
    assert world.cap.rows <= room < 4 * world.cap.rows or world.cap.proven_rows <= room


@pytest.mark.parametrize("bomb_s", [1, 10, 100])
@pytest.mark.parametrize("most_rows", [8, 64, 256])
def test_half_a_minute_after_memory_came_back_runs_are_whole_again(bomb_s: float, most_rows: int) -> None:
    world = World(most_rows, run_ns=10_000_000)
    world.serve_for(bomb_s, room=1)
    assert 0 < world.cap.rows <= 2
    world.serve_for(MOST_WAIT_NS / SECOND_NS + 8 * FIRST_WAIT_NS / SECOND_NS, room=most_rows)
    assert world.cap.rows == 0
