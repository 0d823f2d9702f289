"""The published rule of padding: how long rows get, which open slab they join, how long a batch runs."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest

from server.batching.padding import PaddedAxis, RunCost, best, cheapest_runs, elements, rounded, waste

AXES = [PaddedAxis(0, 1, 16, 64), PaddedAxis(1, 1, 16, 64)]


def row(length: int, width: int = 3) -> tuple[tuple[int, ...], ...]:
    return (length,), (length, width)


@pytest.mark.parametrize(
    ("length", "expected"), [(0, 0), (1, 16), (16, 16), (17, 32), (49, 60), (60, 60), (61, 61), (1000, 1000)]
)
def test_a_length_goes_up_to_the_next_multiple_or_the_longest(length: int, expected: int) -> None:
    assert rounded(length, 16, 60) == expected


def test_waste_is_counted_where_only_padded_axes_are_longer() -> None:
    assert elements(row(16)) == 16 + 48
    assert waste(row(16), row(48), AXES) == 32 * 4
    assert waste(row(16), row(16), AXES) == 0
    assert waste(row(16), row(16, 4), AXES) is None
    assert waste(row(32), row(16), AXES) is None
    assert waste(row(0), row(16), AXES) is None
    # The slab is for rows that are longer than anything is padded to.
    assert waste(row(16), row(80), AXES) is None


@pytest.mark.parametrize(
    ("rows", "overhead", "expected"),
    [(1, 63, None), (1, 64, 1), (1, 10_000, 1), (2, 127, None), (2, 128, 1), (1, 0, None)],
)
def test_rows_join_longer_ones_if_that_wastes_less_than_a_run(rows: int, overhead: int, expected: int | None) -> None:
    slabs = [row(64), row(32), row(48), row(16, 9)]
    assert best(row(16), slabs, AXES, rows, overhead) == expected


def all_ways(count: int) -> Iterator[list[list[int]]]:
    """Every way to part so many things."""
    if not count:
        yield []
        return
    for way in all_ways(count - 1):
        yield [*way, [count - 1]]
        for index in range(len(way)):
            yield [*way[:index], [*way[index], count - 1], *way[index + 1 :]]


def cost(runs: list[list[int]], requests: list[tuple[tuple[int, ...], int]], overhead: int) -> int:
    total = 0
    for run in runs:
        longest = [max(sizes) for sizes in zip(*(requests[index][0] for index in run), strict=True)]
        total += overhead + sum(requests[index][1] for index in run) * math.prod(longest)
    return total


@pytest.mark.parametrize("seed", range(60))
def test_requests_run_together_as_costs_least(seed: int) -> None:
    """Against every way there is."""
    rng = random.Random(seed)
    requests = [((rng.randint(0, 40),), rng.choice([1, 1, 3])) for _ in range(rng.randint(1, 7))]
    overhead = rng.choice([1, 5, 20, 100])
    found = cheapest_runs(requests, math.prod, overhead)
    assert sorted(index for run in found for index in run) == list(range(len(requests)))
    assert all(run == sorted(run) for run in found)
    assert cost(found, requests, overhead) == min(cost(way, requests, overhead) for way in all_ways(len(requests)))


@pytest.mark.parametrize("seed", range(20))
def test_two_lengths_are_no_worse_than_equal_lengths_alone(seed: int) -> None:
    rng = random.Random(seed)
    requests = [((rng.randint(1, 9), rng.randint(1, 9)), rng.choice([1, 2])) for _ in range(60)]
    apart = cheapest_runs(requests, math.prod, 0)
    assert len(apart) == len({lengths for lengths, _ in requests})
    for overhead in (1, 10, 1000):
        found = cheapest_runs(requests, math.prod, overhead)
        assert sorted(index for run in found for index in run) == list(range(60))
        assert cost(found, requests, overhead) <= cost(apart, requests, overhead)
    assert len(cheapest_runs(requests, math.prod, 1 << 40)) <= 2


def test_while_nothing_is_known_equal_lengths_run_together() -> None:
    assert cheapest_runs([((5,), 1), ((6,), 1), ((5,), 2)], math.prod, 0) == [[0, 2], [1]]


@pytest.mark.parametrize(("fixed_ns", "element_ns"), [(100_000, 50), (20_000, 400), (0, 10)])
def test_the_cost_of_a_run_is_learnt_though_times_are_noisy(fixed_ns: int, element_ns: int) -> None:
    rng, cost = random.Random(1), RunCost()
    assert cost.overhead_elements() == 0
    for _ in range(3000):
        size = rng.choice([64, 100, 500, 2000, 9000])
        cost.observe(size, int((fixed_ns + element_ns * size) * (1 + rng.expovariate(4))))
    expected = fixed_ns / element_ns
    assert abs(cost.overhead_elements() - expected) <= 0.3 * expected + 20


def test_one_size_of_run_teaches_nothing() -> None:
    cost = RunCost()
    for _ in range(9):
        cost.observe(1000, 50_000)
    cost.observe(0, 5)
    assert cost.overhead_elements() == 0


def test_runs_that_all_cost_the_same_may_be_joined_up_to_the_largest() -> None:
    cost = RunCost()
    for size in (10, 1000):
        cost.observe(size, 50_000)
    assert cost.overhead_elements() == 1000
