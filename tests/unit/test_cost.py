"""How the cost table learns: lines, clipping, forgetting."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from server.batching.cost import STALE_NS, CostTable

Curve = Callable[[int], int]
CURVES: dict[str, Curve] = {
    "linear": lambda rows: 20_000 + 10_000 * rows,
    "flat": lambda rows: 900_000 + 100 * rows,
    "sub-linear": lambda rows: int(100_000 * rows**0.6),
    "steps": lambda rows: 50_000 + 80_000 * (-(-rows // 8)),
}


def warmed(curve: Curve, capacity: int = 64) -> CostTable:
    table = CostTable(capacity)
    for cell in table.cells:
        table.learn(cell.rows, curve(cell.rows), curve(cell.rows) // 50, 5, 0)
    return table


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("is_warm", [True, False])
@pytest.mark.parametrize("capacity", [64, 48, 5])
def test_runs_of_any_size_teach_the_curve(name: str, is_warm: bool, capacity: int) -> None:
    curve, chance = CURVES[name], random.Random(name)
    table = warmed(lambda rows: curve(rows) // 3, capacity) if is_warm else CostTable(capacity)
    for step in range(1500):
        rows = chance.randint(1, capacity)
        table.add(rows, int(curve(rows) * chance.uniform(0.9, 1.1)), step * 10**6)
    for rows in range(1, capacity + 1):
        # The steps are no line.
        assert table.of(rows) == pytest.approx(curve(rows), rel=0.45 if name == "steps" else 0.12)
        assert table.of(rows) < table.upper(rows) < 2.2 * curve(rows)
    assert table.of(3 * capacity + 1) == 3 * table.of(capacity) + table.of(1)


def test_runs_of_one_size_between_two_cells_are_learnt() -> None:
    table = warmed(CURVES["linear"])
    for step in range(100):
        table.add(40, 2 * CURVES["linear"](40), step * 1000)
    assert table.of(40) == pytest.approx(2 * CURVES["linear"](40), rel=0.01)
    assert table.of(2) == CURVES["linear"](2)


def test_one_run_out_of_line_moves_little_and_many_move_all() -> None:
    table = warmed(CURVES["linear"])
    usual_ns = table.of(8)
    table.add(8, 1000 * usual_ns, 1)
    assert table.of(8) < 1.6 * usual_ns
    for step in range(100):
        table.add(8, 10 * usual_ns, step)
    assert table.of(8) == pytest.approx(10 * usual_ns, rel=0.05)


def test_what_overload_taught_is_forgotten_though_large_batches_do_not_return() -> None:
    table, curve = warmed(CURVES["linear"]), CURVES["linear"]
    now_ns = 0
    for _ in range(500):
        now_ns += 10**6
        table.add(64, 6 * curve(64), now_ns)
        table.add(48, 6 * curve(48), now_ns)
    assert table.of(64) > 5 * curve(64)
    now_ns += STALE_NS
    for _ in range(300):
        now_ns += 10**6
        table.add(1 + now_ns // 10**6 % 2, curve(1 + now_ns // 10**6 % 2), now_ns)
    for rows in (1, 2, 16, 32, 48, 64):
        assert table.of(rows) == pytest.approx(curve(rows), rel=0.05)
        assert table.upper(rows) < 1.6 * curve(rows)


def test_sizes_that_do_not_run_follow_those_that_do() -> None:
    """A machine that became half as fast is so for every size."""
    table, curve = warmed(CURVES["sub-linear"]), CURVES["sub-linear"]
    for step in range(500):
        table.add(4, 2 * curve(4), 2 * STALE_NS + step * 10**6)
    assert table.of(64) == pytest.approx(2 * curve(64), rel=0.05)


def test_larger_batches_than_ever_ran_are_expected_to_cost_by_the_row() -> None:
    table = CostTable(64)
    table.add(4, 1000, 1)
    assert [table.of(rows) for rows in (1, 2, 4, 8, 64)] == [1000, 1000, 1000, 2000, 16000]
    for step in range(200):
        table.add(8, 1200, step)
    assert table.of(8) == pytest.approx(1200, rel=0.05)
    assert table.of(64) == pytest.approx(8 * 1200, rel=0.05)
    assert table.cells[6].count == 0


def test_the_budget_decides_how_many_rows() -> None:
    table = CostTable(64)
    for cell in table.cells:
        table.learn(cell.rows, 1000 * cell.rows, 0, 5, 0)
    assert [table.largest_within(ns) for ns in (0, 999, 1000, 1999, 7500, 33_000, 64_000, 10**12)] == [
        0, 0, 1, 1, 7, 33, 64, 64,
    ]  # fmt: skip
    assert table.rate() == 1e6
