"""Admission with a fake clock: a lane under Poisson-like load meets deadlines and stays full."""

from __future__ import annotations

import random
from collections import deque

import pytest

from server.batching.admission import Action, Lane, Pressure, decide, margin_ns, retry_after_s

MS = 1_000_000


def served_in_time(
    factor: float, *, slower: float = 1.0, deadline_ms: int = 100, seconds: int = 1
) -> tuple[float, int]:
    """A lane that takes 1 ms a row, 64 rows a batch, offered `factor` times what it can do: rows in time per possible
    row, and rows that ran after their deadline. slower: runs take that much longer than the lane believes.
    """
    rng = random.Random(1)
    now, free_at, busy_rows, in_time, late = 0, 0, 0, 0, 0
    waiting: deque[int] = deque()
    pressure = Pressure()
    end = seconds * 1000 * MS
    while now < end:
        now += int(rng.expovariate(factor / MS))
        while waiting and free_at <= now:
            begin = free_at
            batch = [waiting.popleft() for _ in range(min(64, len(waiting)))]
            alive = [deadline for deadline in batch if deadline > begin]
            free_at = begin + int(len(alive) * MS * slower)
            busy_rows = len(alive)
            for deadline in alive:
                in_time += free_at <= deadline
                late += begin > deadline
                pressure.answered(free_at - (deadline - deadline_ms * MS), deadline_ms * MS, free_at)
        if not waiting and free_at <= now:
            free_at, busy_rows = now, 0
        believed_end = free_at if slower == 1.0 else free_at - int(busy_rows * MS * (slower - 1))
        lane = Lane(max(0, believed_end - now), (len(waiting) + 1) * MS, min(waiting, default=0), len(waiting))
        deadline = now + deadline_ms * MS
        if decide(lane, now, deadline, margin_ns(deadline_ms * MS, 0, pressure.level)) == Action.ADMIT:
            if not waiting and free_at <= now:
                free_at = now
            waiting.append(deadline)
    return in_time * MS * slower / end, late


@pytest.mark.parametrize("factor", [2.0, 10.0])
def test_overload_keeps_the_lane_full_and_in_time(factor: float) -> None:
    goodput, late = served_in_time(factor)
    assert goodput > 0.95
    assert late == 0


def test_below_capacity_nothing_is_refused() -> None:
    goodput, late = served_in_time(0.5)
    assert goodput == pytest.approx(0.5, abs=0.03)
    assert late == 0


def test_the_margin_grows_when_the_costs_are_believed_too_low() -> None:
    """Costs a third higher than believed: without the pressure nearly every answer would be late."""
    goodput, late = served_in_time(3.0, slower=1.3)
    assert goodput > 0.5
    assert late == 0


def test_a_quick_answer_ends_the_pressure() -> None:
    pressure = Pressure()
    for at in range(10):
        pressure.answered(99, 100, (1 + at) * 1_000_000_000)
    assert pressure.level > 3
    pressure.answered(10, 100, 12_000_000_000)
    assert pressure == Pressure()


@pytest.mark.parametrize(
    ("deadline", "action"), [(0, Action.ADMIT), (500, Action.PAST), (1000, Action.PAST), (1099, Action.PREDICTED_LATE)]
)
def test_actions(deadline: int, action: Action) -> None:
    assert decide(Lane(50, 50), 1000, deadline, 0) == action


def test_an_idle_lane_takes_what_it_believes_to_be_too_slow_for() -> None:
    assert decide(Lane(0, 10**9, 0, 0), 1000, 1001, 10**9) == Action.ADMIT
    assert decide(Lane(0, 10**9, 0, 1), 1000, 1001, 10**9) == Action.PREDICTED_LATE
    assert decide(Lane(1, 10**9, 0, 0), 1000, 1001, 10**9) == Action.PREDICTED_LATE
    assert decide(Lane(0, 10**9, 0, 0), 1000, 1000, 10**9) == Action.PAST


def test_without_a_deadline_a_minute_is_the_limit() -> None:
    assert decide(Lane(0, 60_000_000_000), 5, 0, 0) == Action.ADMIT
    assert decide(Lane(1, 60_000_000_000), 5, 0, 0) == Action.PREDICTED_LATE


def test_retry_after_spreads_those_who_are_sent_away_together() -> None:
    assert {retry_after_s(4_000_000_000, number) for number in range(1024)} == {4, 5, 6, 7, 8}
    assert retry_after_s(0, 1023) == 1
    assert retry_after_s(10**15, 0) == 30
