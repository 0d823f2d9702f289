"""The cost table in shared memory against its reference in Python: the same numbers, to the nanosecond."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server._fast import cost_table
from server._fast.layout import Arena
from server.batching.cost import MAX_NS, CostTable

TENSOR = (11, 4, [-1, 1])
CAPACITIES = [1, 2, 3, 5, 8, 48, 64, 100, 4095]


def make_arena(capacity: int) -> Arena:
    return Arena.create(
        inputs=[TENSOR], outputs=[TENSOR], rows_mode=True, row_capacity=capacity, slab_count=3, owner_count=1,
        instance_count=1,
    )  # fmt: skip


def cells(table: CostTable) -> list[tuple[int, int, int, int]]:
    return [(cell.rows, cell.mean_ns, cell.upper_ns, cell.count) for cell in table.cells]


def assert_same(arena: Arena, table: CostTable, asked: Sequence[int]) -> None:
    assert cost_table.cells(arena) == cells(table)
    assert cost_table.rate(arena) == table.rate()
    for number in asked:
        rows = number % (1 << 20)  # as many as can wait
        assert cost_table.of(arena, rows) == table.of(rows)
        assert cost_table.upper(arena, rows) == table.upper(rows)
        assert cost_table.largest_within(arena, number) == table.largest_within(number)


DURATIONS_NS = st.one_of(
    st.integers(0, 100), st.integers(10_000, 30_000), st.integers(0, 10**9), st.integers(0, 1 << 45)
)
STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 5000), DURATIONS_NS, st.integers(0, 3 * 10**9)),
    st.tuples(st.just("learn"), st.integers(0, 12), DURATIONS_NS, st.integers(1, 9)),
)


@settings(max_examples=300, deadline=None)
@given(capacity=st.sampled_from(CAPACITIES), steps=st.lists(STEPS, max_size=40))
def test_it_keeps_the_numbers_of_the_reference(capacity: int, steps: list[tuple[str, int, int, int]]) -> None:
    arena, table, now_ns = make_arena(capacity), CostTable(capacity), 10**9
    assert cost_table.sizes(arena) == [cell.rows for cell in table.cells]
    for what, number, ns, extra in steps:
        if what == "learn":
            rows = table.cells[number % len(table.cells)].rows
            for one in (cost_table.learn, lambda _, *given: table.learn(*given)):
                one(arena, rows, ns, ns // 10, extra, now_ns)
        else:
            now_ns += extra
            for one in (cost_table.add, lambda _, *given: table.add(*given)):
                one(arena, number, ns, now_ns)
        assert_same(arena, table, [0, 1, number, ns, capacity, 2 * capacity + 1])


@given(capacity=st.sampled_from(CAPACITIES), seed=st.integers(0, 1 << 40), budget_ns=st.integers(0, 1 << 41))
def test_what_fits_a_budget_is_the_most_that_does(capacity: int, seed: int, budget_ns: int) -> None:
    table = CostTable(capacity)
    for cell in table.cells:
        # A convex curve, so that no larger batch is cheaper again.
        table.learn(cell.rows, 1000 + seed % 9999 * cell.rows, 50, 3, 0)
    budget_ns %= 2 * table.upper(capacity)
    rows = table.largest_within(budget_ns)
    assert rows == 0 or table.upper(rows) <= budget_ns
    assert rows == capacity or table.upper(rows + 1) >= budget_ns


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_nothing_is_known_at_first(capacity: int) -> None:
    arena = make_arena(capacity)
    assert cost_table.of(arena, 1) == cost_table.upper(arena, capacity) == 0
    assert cost_table.rate(arena) == 0
    assert cost_table.largest_within(arena, 1) == capacity
    assert all(count == 0 for *_, count in cost_table.cells(arena))


def test_sizes_without_a_cell_are_not_learnt() -> None:
    arena = make_arena(48)
    for rows, count in ((3, 1), (64, 1), (0, 1), (8, 0)):
        with pytest.raises(ValueError, match="expected one of"):
            cost_table.learn(arena, rows, 1, 1, count, 1)


def test_the_largest_numbers_do_not_run_over() -> None:
    arena, table = make_arena(4095), CostTable(4095)
    for now_ns in range(200):
        rows = (4094, 3000, 2049, 1, 7)[now_ns % 5]
        ns = (1 << 63) if now_ns % 3 else 1
        cost_table.add(arena, rows, ns, now_ns * 10**10)
        table.add(rows, ns, now_ns * 10**10)
        assert_same(arena, table, [1, 4094, 4095, 10**6])
    assert max(mean for _, mean, _, _ in cost_table.cells(arena)) <= MAX_NS
