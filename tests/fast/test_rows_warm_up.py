"""The warm-up of a batched model: which sizes run, how often, and what the cost table has afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from server._fast import cost_table
from server._fast.layout import Arena
from server.executor.backend import LoadError, ModelError, ProducedTensor, TensorBuffer
from server.executor.rows_warm_up import REPEAT_BUDGET_NS, REPEATS, learn_samples, warm_up_rows
from server.executor.runner import TensorSpec

SPECS = [TensorSpec("x", 11, (-1, 2))]


class Puppet:
    """A model on a clock of its own; the first run of a size takes ten times as long."""

    device = "cpu"

    def __init__(self, cost_ns: Callable[[int], int], refused: Sequence[int] = ()) -> None:
        self.now_ns = 10**9
        self.runs: list[int] = []
        self._cost_ns = cost_ns
        self._refused = refused

    def prepare(self, inputs: Sequence[TensorBuffer], outputs: Sequence[TensorBuffer]) -> Callable[[], None]:
        rows = inputs[0].dims[0]

        def run() -> None:
            if rows in self._refused:
                raise ModelError("zeros are not an input")
            self.now_ns += self._cost_ns(rows) * (1 if rows in self.runs else 10)
            self.runs.append(rows)

        return run

    def run(self, inputs: Sequence[TensorBuffer], output_names: Sequence[str]) -> list[ProducedTensor]:
        raise NotImplementedError


def warmed(puppet: Puppet, capacity: int) -> Arena:
    tensor = (11, 4, [-1, 2])
    arena = Arena.create(
        inputs=[tensor], outputs=[tensor], rows_mode=True, row_capacity=capacity, slab_count=3, owner_count=1,
        instance_count=1,
    )  # fmt: skip
    samples = warm_up_rows(puppet, arena, SPECS, SPECS, "puppet", clock=lambda: puppet.now_ns)
    learn_samples(arena, samples, "puppet", puppet.now_ns)
    return arena


@pytest.mark.parametrize(("capacity", "sizes"), [(1, [1]), (2, [1, 2]), (48, [1, 2, 4, 8, 16, 32, 48])])
def test_every_size_runs_and_its_repetitions_are_learnt(capacity: int, sizes: list[int]) -> None:
    puppet = Puppet(lambda rows: 1000 + 10 * rows)
    arena = warmed(puppet, capacity)
    assert puppet.runs == [rows for rows in sizes for _ in range(REPEATS + 1)]
    assert cost_table.cells(arena) == [(rows, 1000 + 10 * rows, 1000 + 10 * rows, REPEATS) for rows in sizes]


def test_a_heavy_model_runs_each_size_once() -> None:
    """Its first run is over the budget: the others come without repetitions, and first runs are what there is."""
    puppet = Puppet(lambda rows: REPEAT_BUDGET_NS // 4 * rows)
    arena = warmed(puppet, 16)
    assert puppet.runs == [1, 2, 4, 8, 16]
    first_ns = 10 * REPEAT_BUDGET_NS // 4
    assert [(rows, mean) for rows, mean, _, _ in cost_table.cells(arena)] == [
        (rows, rows * first_ns) for rows in puppet.runs
    ]
    assert all(upper > mean for _, mean, upper, _ in cost_table.cells(arena))


def test_repetitions_end_with_the_budget() -> None:
    puppet = Puppet(lambda rows: 5_000_000 * rows)
    warmed(puppet, 64)
    assert puppet.runs.count(1) == REPEATS + 1
    assert puppet.runs.count(32) == puppet.runs.count(64) == 1


def test_a_model_that_refuses_zeros_is_learnt_from_what_it_takes() -> None:
    arena = warmed(Puppet(lambda rows: 1000 * rows, refused=[4, 16]), 16)
    assert [(rows, count > 0) for rows, _, _, count in cost_table.cells(arena)] == [
        (1, True), (2, True), (4, False), (8, True), (16, False),
    ]  # fmt: skip
    assert cost_table.of(arena, 16) == 16000
    assert cost_table.rate(warmed(Puppet(lambda rows: 1, refused=[1]), 1)) == 0


def test_rows_that_cannot_be_joined_end_the_loading() -> None:
    with pytest.raises(LoadError, match="cannot be joined"):
        warmed(Puppet(lambda rows: 1, refused=[2]), 16)
