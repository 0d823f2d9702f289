"""Runs the batches of one lane on one instance: neighbouring rows where they lie, others through a scratch copy."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from server._fast.lane_executor import LaneExecutor
from server._fast.layout import Arena
from server.executor.backend import (
    REFUSALS,
    Backend,
    ModelError,
    ProducedTensor,
    Run,
    TensorBuffer,
    is_out_of_memory,
)
from server.executor.batch_cap import BatchCap
from server.executor.misfits import Misfits
from server.executor.run_failures import unfit_text
from server.models.repository import MAX_RANK
from server.protocol.datatypes import BY_CODE

#: FailureCode of slab_ring.pxd.
MODEL_FAILED = 5
NO_MEMORY = 9
#: A slab that so many executors died with is run row by row (slab_ring.pxd).
ALONE_ATTEMPTS = 1
#: Bindings that a runner keeps, the oldest goes first. With three tensors one takes 3.2 KiB and 10 to 30 us to make, so
#: without a bound 1024 slabs of 64 rows would come to 200 MiB in every instance.
KEPT_BINDINGS = 2048


class TensorSpec(NamedTuple):
    """A model's input or output: name, datatype code, dims with -1 for free ones."""

    name: str
    datatype: int
    dims: tuple[int, ...]


class LaneRunner:
    """One instance of a lane: what the runners of all modes have."""

    def __init__(
        self,
        lane: LaneExecutor,
        arena: Arena,
        backend: Backend,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        cap: BatchCap | None = None,
    ) -> None:
        """cap: of all instances of the executor."""
        self._lane = lane
        self._arena = arena
        self._backend = backend
        self._cap = cap or BatchCap(arena)
        self._misfits = Misfits(self._cap)
        self._inputs = list(inputs)
        self._outputs = list(outputs)
        self._output_names = [spec.name for spec in outputs]
        self._begin()

    def _begin(self) -> None:
        """What one kind of runner keeps besides."""

    def serve(self) -> None:
        """Runs until the lane shuts down."""
        raise NotImplementedError


class RowsRunner(LaneRunner):
    """Batched models. A slab's rows are run in place; the binding of each (slab, first row, rows) is made once and
    kept.
    """

    def _begin(self) -> None:
        self._runs: dict[tuple[int, int, int], Run] = {}

    def serve(self) -> None:
        lane, runs, cap = self._lane, self._runs, self._cap
        while (batch := lane.next_batch()) is not None:
            slab, row_count, live_count, attempts = batch
            if live_count == 0:
                lane.complete(0, 0)
                continue
            is_one_run = True
            if attempts >= ALONE_ATTEMPTS:
                started_ns = lane.run_begins()
                self._run_alone(slab, row_count)
                is_one_run = False
            elif live_count == row_count and not cap.rows:
                run = runs.get((slab, 0, row_count)) or self._prepare(slab, 0, row_count)
                started_ns = lane.run_begins()
                try:
                    run()
                except REFUSALS as error:
                    self._bisect(slab, list(range(row_count)), error)
                    is_one_run = False
            else:
                rows = lane.live_rows()
                started_ns = lane.run_begins()
                is_one_run = self._run_rows(slab, rows)
            if not is_one_run:
                self._misfits.settle()
            lane.complete(started_ns, live_count, is_one_run)

    def _buffers(self, slab: int, row_count: int, first_row: int = 0) -> tuple[list[TensorBuffer], list[TensorBuffer]]:
        def place(index: int, spec: TensorSpec) -> TensorBuffer:
            address, row_bytes = self._arena.tensor(slab, index)
            return TensorBuffer(spec.name, spec.datatype, (row_count, *spec.dims[1:]), address + first_row * row_bytes)

        count = len(self._inputs)
        return (
            [place(index, spec) for index, spec in enumerate(self._inputs)],
            [place(count + index, spec) for index, spec in enumerate(self._outputs)],
        )

    def _prepare(self, slab: int, first_row: int, row_count: int) -> Run:
        run = self._backend.prepare(*self._buffers(slab, row_count, first_row))
        if len(self._runs) >= KEPT_BINDINGS:
            del self._runs[next(iter(self._runs))]
        self._runs[slab, first_row, row_count] = run
        return run

    def _run_rows(self, slab: int, rows: list[int]) -> bool:
        """Runs some rows of a slab, in place if they lie side by side, else through a scratch copy; a refusal is
        bisected down to the guilty row. Whether they ran at once.
        """
        if not rows:
            # All of them were cancelled since the batch was taken.
            return False
        most = self._misfits.most_rows
        if 0 < most < len(rows):
            # Memory ran out for so many meanwhile, or they are of one request.
            first = 0
            while first < len(rows):
                most = self._misfits.most_rows or len(rows)
                self._run_rows(slab, rows[first : first + most])
                first += most
            return False
        try:
            if rows[-1] - rows[0] + 1 == len(rows):
                (self._runs.get((slab, rows[0], len(rows))) or self._prepare(slab, rows[0], len(rows)))()
            else:
                self._run_copied(slab, rows)
        except REFUSALS as error:
            self._bisect(slab, rows, error)
            return False
        if self._cap.rows:
            self._cap.ran(len(rows))
        return True

    def _bisect(self, slab: int, rows: list[int], error: Exception) -> None:
        """Rows that were refused, or found no memory, together: in halves, down to the guilty row."""
        is_unfit = is_out_of_memory(error)
        if len(rows) == 1:
            if is_unfit:
                self._misfits.alone(rows[0])
            fail_row(self._lane, rows[0], error, "one row")
            return
        if is_unfit:
            self._misfits.together(rows, len(rows))
        middle = len(rows) // 2
        self._run_rows(slab, rows[:middle])
        self._run_rows(slab, rows[middle:])

    def _run_alone(self, slab: int, row_count: int) -> None:
        """An executor died with this slab: one row at a time, each answered at once, so that only the guilty is
        lost.
        """
        for row in range(row_count):
            if self._lane.take_alone(row):
                self._run_rows(slab, [row])
                self._lane.finish_alone(row)

    def _run_copied(self, slab: int, rows: list[int]) -> None:
        inputs, outputs = self._buffers(slab, len(rows))
        scratch_inputs = [self._scratch(slab, index, tensor, rows) for index, tensor in enumerate(inputs)]
        scratch_outputs = [
            self._scratch(slab, index, tensor, rows) for index, tensor in enumerate(outputs, start=len(inputs))
        ]
        for scratch in scratch_inputs:
            scratch.gather()
        self._backend.prepare(
            [scratch.tensor for scratch in scratch_inputs], [scratch.tensor for scratch in scratch_outputs]
        )()
        for scratch in scratch_outputs:
            scratch.scatter()

    def _scratch(self, slab: int, index: int, tensor: TensorBuffer, rows: list[int]) -> _Scratch:
        _, row_bytes = self._arena.tensor(slab, index)
        return _Scratch(tensor, row_bytes, rows)


def fail_row(lane: LaneExecutor, row: int, error: Exception, what: str) -> None:
    """Fails a row that ran by itself, or with the others of its request. what: ran, in the words of unfit_text."""
    if is_out_of_memory(error):
        lane.fail(row, NO_MEMORY, unfit_text(error, what))
    else:
        lane.fail(row, MODEL_FAILED, str(error))


class _Scratch:
    """Some rows of a tensor side by side, outside the slab."""

    def __init__(self, home: TensorBuffer, row_bytes: int, rows: list[int]) -> None:
        self._memory = ctypes.create_string_buffer(max(row_bytes * len(rows), 1))
        self._home = home.address
        self._row_bytes = row_bytes
        self._rows = rows
        self.tensor = home._replace(address=ctypes.addressof(self._memory))

    def _places(self) -> Iterator[tuple[int, int]]:
        for position, row in enumerate(self._rows):
            yield self._home + row * self._row_bytes, self.tensor.address + position * self._row_bytes

    def gather(self) -> None:
        for in_slab, here in self._places():
            ctypes.memmove(here, in_slab, self._row_bytes)

    def scatter(self) -> None:
        for in_slab, here in self._places():
            ctypes.memmove(in_slab, here, self._row_bytes)


class SingleRunner(LaneRunner):
    """Models without a usable batch axis: one request per slab, shapes as they came, outputs as they come out."""

    def serve(self) -> None:
        lane = self._lane
        while (batch := lane.next_batch()) is not None:
            slab, _, live_count, attempts = batch
            if live_count == 0 or (attempts >= ALONE_ATTEMPTS and not lane.take_alone(0)):
                lane.complete(0, 0)
                continue
            started_ns = lane.run_begins()
            is_one_run = True
            try:
                self._run(slab)
            except REFUSALS as error:
                if is_out_of_memory(error):
                    self._cap.unfit()
                fail_row(lane, 0, error, "the input")
                is_one_run = False
            lane.complete(started_ns, 1, is_one_run)

    def _run(self, slab: int) -> None:
        arena = self._arena
        base = arena.slab_address(slab)
        inputs = []
        for index, spec in enumerate(self._inputs):
            offset, _, dims = arena.shape(slab, index)
            inputs.append(TensorBuffer(spec.name, spec.datatype, dims, base + offset))
        offset, room = arena.output_room
        end = offset + room
        for index, produced in enumerate(self._backend.run(inputs, self._output_names), start=len(inputs)):
            name = self._output_names[index - len(inputs)]
            if len(produced.dims) > MAX_RANK:
                raise ModelError(f"output '{name}' has {len(produced.dims)} dimensions, at most {MAX_RANK} are served")
            if produced.size_bytes > end - offset:
                raise output_refused(name, produced, end - offset, room)
            ctypes.memmove(base + offset, produced.address, produced.size_bytes)
            arena.set_shape(slab, index, offset, produced.size_bytes, produced.dims)
            offset = (offset + produced.size_bytes + 63) // 64 * 64


def output_refused(name: str, produced: ProducedTensor, left: int, room: int) -> ModelError:
    """What a client is told whose outputs do not fit into the slab: `left` of `room` bytes were there."""
    return ModelError(
        f"output '{name}' with shape {list(produced.dims)} has {produced.size_bytes} bytes, {left} "
        f"of {room} are left for the outputs of a request: send a smaller input"
    )


def zeros(spec: TensorSpec, row_count: int, keep: list[ctypes.Array[ctypes.c_char]]) -> TensorBuffer:
    """A tensor of zeros at an address aligned to a cache line; `keep` holds its memory."""
    dims = (row_count, *spec.dims[1:])
    memory = ctypes.create_string_buffer(max(math.prod(dims) * BY_CODE[spec.datatype].size_bytes, 1) + 64)
    keep.append(memory)
    return TensorBuffer(spec.name, spec.datatype, dims, (ctypes.addressof(memory) + 63) // 64 * 64)
