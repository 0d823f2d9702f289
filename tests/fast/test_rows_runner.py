"""Batches of rows on a puppet of a model: where they run, what becomes of gaps, refusals and latency targets."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from time import monotonic_ns

import pytest

from server._fast import cost_table
from server._fast.lane_executor import LaneExecutor
from server._fast.layout import Arena, Control
from server._fast.ring import Ring
from server.executor.backend import ModelError, ProducedTensor, TensorBuffer
from server.executor.runner import RowsRunner, TensorSpec

UINT8 = 2
CAPACITY = 32
SPECS = [TensorSpec("x", UINT8, (-1, 2))]
SECOND_NS = 10**9


class Puppet:
    """y = x + 1 on rows of two bytes; 99 is refused. `runs` has (first row in its slab, rows), scratch copies as -1."""

    device = "cpu"

    def __init__(self, arena: Arena) -> None:
        self.runs: list[tuple[int, int]] = []
        self.prepared_count = 0
        self._arena = arena

    def prepare(self, inputs: Sequence[TensorBuffer], outputs: Sequence[TensorBuffer]) -> Callable[[], None]:
        self.prepared_count += 1
        rows = inputs[0].dims[0]
        place = inputs[0].address - self._arena.tensor(0, 0)[0]
        first_row = place // 2 if 0 <= place < 2 * CAPACITY else -1

        def run() -> None:
            self.runs.append((first_row, rows))
            data = ctypes.string_at(inputs[0].address, 2 * rows)
            if 99 in data:
                raise ModelError("99 is not in the table")
            ctypes.memmove(outputs[0].address, bytes(value + 1 for value in data), 2 * rows)

        return run

    def run(self, inputs: Sequence[TensorBuffer], output_names: Sequence[str]) -> list[ProducedTensor]:
        raise NotImplementedError


class Rig:
    """One lane with one instance; serve() runs what waits and returns."""

    def __init__(self, slo_ns: int = 0) -> None:
        self.arena = Arena.create(
            inputs=[(UINT8, 1, (-1, 2))], outputs=[(UINT8, 1, (-1, 2))], rows_mode=True, row_capacity=CAPACITY,
            slab_count=3, owner_count=1, instance_count=1, slo_ns=slo_ns,
        )  # fmt: skip
        self.ring = Ring(self.arena)
        self.puppet = Puppet(self.arena)
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.lane = LaneExecutor(self.arena, Control.create(1, 0), 0, self.bell, [self.bell])
        self.runner = RowsRunner(_Until(self.lane, self.ring), self.arena, self.puppet, SPECS, SPECS)  # type: ignore[arg-type]
        self.claims: list[tuple[int, int, int, int]] = []

    def send(self, *values: int) -> None:
        """Requests of one row each."""
        for value in values:
            claim = self.ring.claim(0)
            assert claim is not None
            data = self.arena.tensor_buffer(claim[0], 0)
            data[2 * claim[1] : 2 * claim[1] + 2] = bytes([value, value])
            self.ring.publish(0, claim, monotonic_ns())
            self.claims.append(claim)

    def answers(self) -> list[int | str]:
        """The value of each request, `refused`, or `open`."""
        found: list[int | str] = []
        for slab, row, _, generation in self.claims:
            code = self.ring.finished(0, (slab, row, 1, generation))
            value = self.arena.tensor_buffer(slab, 1)[2 * row]
            found.append("open" if code is None else "refused" if code else value)
        return found


class _Until:
    """The lane, until nothing waits."""

    def __init__(self, lane: LaneExecutor, ring: Ring) -> None:
        self._lane, self._ring = lane, ring

    def __getattr__(self, name: str) -> object:
        return getattr(self._lane, name)

    def next_batch(self) -> tuple[int, int, int, int] | None:
        ready_count = self._ring.row_counts()[2]
        return self._lane.next_batch() if ready_count else None


@pytest.fixture
def rigs() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(slo_ns: int = 0) -> Rig:
        made.append(Rig(slo_ns))
        return made[-1]

    yield make
    while made:
        os.close(made.pop().bell)


def test_a_batch_runs_where_it_lies_and_is_learnt(rigs: Callable[..., Rig]) -> None:
    rig = rigs()
    rig.send(*range(5))
    rig.runner.serve()
    assert rig.puppet.runs == [(0, 5)]
    assert rig.answers() == [1, 2, 3, 4, 5]
    assert [(rows, count) for rows, _, _, count in cost_table.cells(rig.arena) if count] == [(4, 1)]


def test_rows_with_a_gap_are_copied_together(rigs: Callable[..., Rig]) -> None:
    rig = rigs()
    rig.send(*range(4))
    rig.ring.cancel(0, rig.claims.pop(1))
    rig.runner.serve()
    assert rig.puppet.runs == [(-1, 3)]
    assert rig.answers() == [1, 3, 4]


def test_neighbours_behind_a_gap_run_in_place(rigs: Callable[..., Rig]) -> None:
    rig = rigs()
    rig.send(*range(4))
    rig.ring.cancel(0, rig.claims.pop(0))
    rig.runner.serve()
    assert rig.puppet.runs == [(1, 3)]
    assert rig.answers() == [2, 3, 4]


def test_a_refused_batch_is_halved_down_to_the_guilty_row_and_teaches_nothing(rigs: Callable[..., Rig]) -> None:
    rig = rigs()
    rig.send(1, 2, 99, 4)
    rig.runner.serve()
    assert rig.puppet.runs == [(0, 4), (0, 2), (2, 2), (2, 1), (3, 1)]
    assert rig.answers() == [2, 3, "refused", 5]
    assert all(count == 0 for *_, count in cost_table.cells(rig.arena))


def test_a_burst_is_answered_in_parts_for_a_latency_target(rigs: Callable[..., Rig]) -> None:
    """A second a row, eight and a half seconds: eight rows are in time, the rest follows in one go."""
    rig = rigs(slo_ns=17 * SECOND_NS // 2)
    for rows in cost_table.sizes(rig.arena):
        cost_table.learn(rig.arena, rows, rows * SECOND_NS, 0, 5, 1)
    rig.send(*range(20))
    batch = rig.lane.next_batch()
    assert batch == (0, 20, 8, 0)
    started_ns = rig.lane.run_begins()
    assert rig.runner._run_rows(0, rig.lane.live_rows())
    rig.lane.complete(started_ns, 8, False)
    assert rig.answers() == [*range(1, 9), *["open"] * 12]
    rig.runner.serve()
    assert rig.answers() == list(range(1, 21))
    assert rig.puppet.runs[0] == (0, 8)
    assert [first for first, _ in rig.puppet.runs[1:]] == [
        8 + sum(n for _, n in rig.puppet.runs[1:k]) for k in range(1, len(rig.puppet.runs))
    ]
