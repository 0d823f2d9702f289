"""Batches for which memory runs out, on a puppet that has room for so many bytes: who is answered, what runs next."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest

from server._fast import batch_cap, cost_table
from server._fast.lane_executor import LaneExecutor
from server._fast.layout import Arena, Control
from server._fast.ring import Ring
from server.batching.batch_cap_policy import FIRST_WAIT_NS
from server.executor.backend import DeviceLostError, LoadError, ModelError, OutOfMemoryError, ProducedTensor
from server.executor.backend import TensorBuffer as Buffer
from server.executor.batch_cap import BatchCap
from server.executor.rows_warm_up import warm_up_rows
from server.executor.runner import MODEL_FAILED, NO_MEMORY, RowsRunner, SingleRunner, TensorSpec
from server.executor.shaped_runner import ShapedRunner

UINT8 = 2
CAPACITY = 32
#: Values of a byte: it needs more than there is, no memory is left for Python, the model refuses it, the GPU is gone.
GREEDY, UNGATHERED, REFUSED, LOST = 200, 201, 202, 203
Claim = tuple[int, int, int, int]


class Puppet:
    """y = x + 1, for at most `room` bytes at once. `ran` has the rows of each run that went well, `failed` those that
    did not fit.
    """

    device = "cpu"

    def __init__(self, room: int) -> None:
        self.room = room
        self.ran: list[int] = []
        self.failed: list[int] = []

    def _values(self, tensor: Buffer) -> bytes:
        data = ctypes.string_at(tensor.address, math.prod(tensor.dims))
        if len(data) > self.room or GREEDY in data:
            self.failed.append(tensor.dims[0])
            raise OutOfMemoryError("Status Message: Failed to allocate memory")
        if UNGATHERED in data:
            raise MemoryError
        if REFUSED in data:
            raise ModelError("202 is not in the table")
        if LOST in data:
            raise DeviceLostError("CUDA failure 700")
        self.ran.append(tensor.dims[0])
        return bytes(value + 1 for value in data)

    def prepare(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> Callable[[], None]:
        def run() -> None:
            values = self._values(inputs[0])
            ctypes.memmove(outputs[0].address, values, len(values))

        return run

    def run(self, inputs: Sequence[Buffer], output_names: Sequence[str]) -> list[ProducedTensor]:
        values = self._values(inputs[0])
        memory = ctypes.create_string_buffer(values, max(len(values), 1))
        return [ProducedTensor(inputs[0].dims, ctypes.addressof(memory), len(values), memory)]


class Rig:
    """A lane with one instance whose rows have a byte; serve() runs what waits, on a clock of its own."""

    def __init__(self, mode: str, room: int, bell: int) -> None:
        shape: list[int] = [-1] if mode == "rows" else [-1, -1]
        tensor = (UINT8, 1, shape)
        self.arena = Arena.create(
            inputs=[tensor], outputs=[tensor], rows_mode=mode == "rows", shaped=mode == "shaped",
            row_capacity=1 if mode == "single" else CAPACITY, slab_count=4, owner_count=1, instance_count=1,
            input_bytes=4096, output_bytes=4096,
        )  # fmt: skip
        self.mode = mode
        self.ring = Ring(self.arena)
        self.puppet = Puppet(room)
        self.now_ns = 10**9
        self.cap = BatchCap(self.arena, "puppet", lambda: self.now_ns)
        self._lane = LaneExecutor(self.arena, Control.create(1, 0), 0, bell, [bell])
        runner: Any = {"rows": RowsRunner, "shaped": ShapedRunner, "single": SingleRunner}[mode]
        specs = [TensorSpec("x", UINT8, tuple(shape))]
        self.runner = runner(cast(LaneExecutor, self), self.arena, self.puppet, specs, specs, self.cap)
        self.claims: list[Claim] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lane, name)

    def next_batch(self) -> tuple[int, int, int, int] | None:
        """The lane shuts down when nothing waits."""
        return self._lane.next_batch() if self.ring.row_counts()[2] else None

    def send(self, *requests: Sequence[int]) -> None:
        """Each a request with so many rows of one value each."""
        for values in requests:
            claim = self.ring.claim(0, len(values), [(1,)] if self.mode == "shaped" else None)
            assert claim is not None
            slab, first_row, _, _ = claim
            if self.mode == "single":
                self.arena.set_shape(slab, 0, 0, 1, (1, 1))
            if self.mode == "rows":
                data, at = self.arena.tensor_buffer(slab, 0), first_row
            else:
                data = self.arena.slab_buffer(slab)
                at = self.arena.shape(slab, 0)[0] + first_row
            data[at : at + len(values)] = bytes(values)
            self.ring.publish(0, claim)
            self.claims.append(claim)

    def serve(self) -> None:
        self.runner.serve()

    def answers(self) -> list[int]:
        """The value of each request's first row, or its failure's code below 0."""
        found = []
        for claim in self.claims:
            slab, first_row, _, _ = claim
            code = self.ring.finished(0, claim)
            assert code is not None
            if self.mode == "rows":
                value = self.arena.tensor_buffer(slab, 1)[first_row]
            else:
                value = self.arena.slab_buffer(slab)[self.arena.output(slab, first_row, 0)[0]] if not code else 0
            found.append(-code if code else value)
        for claim in self.claims:
            self.ring.release(0, claim)
        self.claims.clear()
        return found


@pytest.fixture
def rig() -> Iterator[Callable[[str, int], Rig]]:
    bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    yield lambda mode, room: Rig(mode, room, bell)
    os.close(bell)


def test_a_batch_that_does_not_fit_is_answered_in_parts_and_the_next_is_smaller(rig: Callable[..., Rig]) -> None:
    here = rig("rows", 10)
    here.send(*[[value] for value in range(CAPACITY)])
    here.serve()
    assert here.answers() == list(range(1, CAPACITY + 1))
    assert here.puppet.failed == [32, 16]
    assert here.puppet.ran == [8] * 4
    assert batch_cap.read(here.arena) == (8, 2, 0)
    assert all(count == 0 for *_, count in cost_table.cells(here.arena)), "a batch in parts says nothing of its cost"
    here.send(*[[value] for value in range(20)])
    here.serve()
    assert here.answers() == list(range(1, 21))
    assert here.puppet.ran[4:] == [8, 8, 4] and len(here.puppet.failed) == 2
    assert [(rows, count) for rows, _, _, count in cost_table.cells(here.arena) if count] == [(4, 1), (8, 2)]


def test_it_rises_after_a_while_and_falls_back_to_what_was_proven(rig: Callable[..., Rig]) -> None:
    here = rig("rows", 10)
    caps = []
    for room in (10, 10, 10, 32, 32):
        here.puppet.room = room
        here.send(*[[value] for value in range(CAPACITY)])
        here.serve()
        assert here.answers() == list(range(1, CAPACITY + 1))
        caps.append(batch_cap.read(here.arena)[0])
        here.now_ns += FIRST_WAIT_NS
    # Twice as long is waited after sixteen rows did not fit again.
    assert caps == [8, 8, 8, 16, 0]
    assert here.puppet.failed == [32, 16, 16]


@pytest.mark.parametrize("greedy", [0, 5, 31])
def test_one_that_does_not_fit_by_itself_fails_alone_and_lowers_nothing(rig: Callable[..., Rig], greedy: int) -> None:
    here = rig("rows", 100)
    values = list(range(CAPACITY))
    values[greedy] = GREEDY
    here.send(*[[value] for value in values])
    here.serve()
    assert here.answers() == [-NO_MEMORY if value == GREEDY else value + 1 for value in values]
    assert len(here.puppet.failed) == 6 and sum(here.puppet.ran) == 31
    assert batch_cap.read(here.arena) == (0, 5, 1)


def test_a_batch_too_large_with_one_that_is_too_large_itself(rig: Callable[..., Rig]) -> None:
    """The halves without it show what fits."""
    here = rig("rows", 10)
    here.send([GREEDY], *[[value] for value in range(CAPACITY - 1)])
    here.serve()
    assert here.answers() == [-NO_MEMORY, *range(1, CAPACITY)]
    assert batch_cap.read(here.arena)[0] == 8


def test_where_nothing_fits_batches_get_small(rig: Callable[..., Rig]) -> None:
    here = rig("rows", 0)
    here.send(*[[value] for value in range(8)])
    here.serve()
    assert here.answers() == [-NO_MEMORY] * 8
    assert batch_cap.read(here.arena)[::2] == (1, 8)


def test_rows_of_one_request_run_in_parts_too(rig: Callable[..., Rig]) -> None:
    here = rig("rows", 3)
    here.send([1, 2, 3, 4, 5, 6, 7, 8])
    here.serve()
    here.send([11, 12, 13, 14, 15], [20])
    here.serve()
    data = bytes(here.arena.tensor_buffer(here.claims[1][0], 1)[:5])
    assert here.answers() == [2, 12, 21]
    assert data == bytes([12, 13, 14, 15, 16])
    assert here.puppet.failed == [8, 4] and max(here.puppet.ran) == 2


def test_rows_with_a_gap_between_them(rig: Callable[..., Rig]) -> None:
    here = rig("rows", 4)
    here.send(*[[value] for value in range(9)])
    here.ring.cancel(0, here.claims.pop(4))
    here.serve()
    assert here.answers() == [1, 2, 3, 4, 6, 7, 8, 9]
    assert here.puppet.ran == [4, 4]


def test_what_the_model_refuses_is_not_the_memorys_fault(rig: Callable[..., Rig]) -> None:
    here = rig("rows", 100)
    here.send([1], [REFUSED], [3], [GREEDY], [UNGATHERED])
    here.serve()
    assert here.answers() == [2, -MODEL_FAILED, 4, -NO_MEMORY, -NO_MEMORY]


@pytest.mark.parametrize("mode", ["rows", "shaped", "single"])
def test_a_lost_device_ends_the_instance(rig: Callable[..., Rig], mode: str) -> None:
    here = rig(mode, 100)
    here.send([LOST])
    with pytest.raises(DeviceLostError):
        here.serve()
    assert here.ring.finished(0, here.claims[0]) is None, "its successor runs it again"


def test_shaped_requests_stay_whole(rig: Callable[..., Rig]) -> None:
    here = rig("shaped", 5)
    here.send([1], [2, 2, 2], [3], [4, 4, 4], [5, 5])
    here.serve()
    assert here.answers() == [2, 3, 4, 5, 6]
    # One row to learn the outputs' shape; then halves of requests.
    assert here.puppet.failed == [10]
    assert here.puppet.ran == [1, 4, 4, 2]
    assert batch_cap.read(here.arena) == (5, 1, 0)
    here.send([1], [2, 2, 2], [3], [4, 4, 4], [5, 5])
    here.serve()
    assert here.answers() == [2, 3, 4, 5, 6]
    assert here.puppet.ran[4:] == [5, 5] and len(here.puppet.failed) == 1


def test_a_shaped_request_too_large_by_itself_fails_alone(rig: Callable[..., Rig]) -> None:
    here = rig("shaped", 5)
    here.send([1], [2] * 6, [3])
    here.serve()
    assert here.answers() == [2, -NO_MEMORY, 4]
    assert batch_cap.read(here.arena) == (0, 1, 1)


def test_a_single_request_too_large(rig: Callable[..., Rig]) -> None:
    here = rig("single", 5)
    for value in (1, GREEDY, UNGATHERED, 4):
        here.send([value])
    here.serve()
    assert [here.ring.finished(0, claim) for claim in here.claims] == [0, NO_MEMORY, NO_MEMORY, 0]
    assert batch_cap.read(here.arena) == (0, 0, 2)


@pytest.mark.parametrize(
    ("room", "cap", "ran"), [(32, 0, [1, 2, 4, 8, 16, 32]), (20, 16, [1, 2, 4, 8, 16]), (1, 1, [1])]
)
def test_the_warm_up_ends_with_what_fits(rig: Callable[..., Rig], room: int, cap: int, ran: list[int]) -> None:
    here = rig("rows", room)
    specs = [TensorSpec("x", UINT8, (-1,))]
    warm_up_rows(here.puppet, here.arena, specs, specs, "puppet", cap=here.cap)
    assert sorted(set(here.puppet.ran)) == ran
    assert batch_cap.read(here.arena)[0] == here.cap.rows == cap


def test_a_model_of_which_one_row_does_not_fit_is_not_loaded(rig: Callable[..., Rig]) -> None:
    here = rig("rows", 0)
    specs = [TensorSpec("x", UINT8, (-1,))]
    with pytest.raises(LoadError, match=r"one row of zeros does not fit into memory: .*Failed to allocate"):
        warm_up_rows(here.puppet, here.arena, specs, specs, "puppet", cap=here.cap)
