"""Runs the batches of a lane whose rows are padded: in runs of near lengths, outputs cut back for each request.

What is padded and cut is server.models.shape_rules' Padding, what runs together and what the runs teach
server.batching.padding's rule. Workers have written the padding; rows that run shorter than they lie are copied.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Any

import numpy as np

from server.batching.padding import MOST_OVERHEAD_ELEMENTS, Lengths, RunCost, cheapest_runs, rounded
from server.executor.backend import ModelError, ProducedTensor, TensorBuffer
from server.executor.shaped_runner import Request, ShapedRunner
from server.models.shape_rules import Padding
from server.protocol.datatypes import BY_CODE

Array = np.ndarray[Any, Any]
#: Runs between two looks at what padding costs.
RUNS_PER_LOOK = 16


def padded_runner(padding: Padding) -> Callable[..., ShapedRunner]:
    """A maker of runners for lanes with this padding: its instances share what they learn."""
    cost = RunCost()

    def make(*parts: Any) -> ShapedRunner:
        runner = PaddedRunner(*parts)
        runner.pad(padding, cost)
        return runner

    return make


class PaddedRunner(ShapedRunner):
    """One instance of such a lane."""

    def pad(self, padding: Padding, cost: RunCost) -> None:
        """To be called before serve()."""
        self._padding = padding
        self._cost = cost
        self._may_be_exact = all(pad.may_be_exact for pad in padding.pads)
        self._always_together = any(pad.always_together for pad in padding.pads)
        self._run_count = 0
        #: Of the batch that runs: the length of each group.
        self._lengths: Sequence[int] = []
        self._began_ns = 0
        self._cuts = [[cut for cut in padding.cuts if cut.output == index] for index in range(len(self._output_names))]
        #: Of the present batch: how long each request came, by first row; dims of a row of each input; what is known of
        #: the elements of rows.
        self._came: dict[int, Lengths] = {}
        self._row_dims: list[tuple[int, ...]] = []
        self._row_elements: dict[Lengths, int] = {}

    def _run(self, slab: int, requests: Sequence[Request]) -> None:
        self._came = {first_row: self._arena.extents(slab, first_row) for first_row, _ in requests}
        self._row_dims = [self._arena.shape(slab, index)[2][1:] for index in range(len(self._inputs))]
        self._row_elements = {}
        lengths = [(self._lengths_of(slab, request), request[1]) for request in requests]
        overhead = MOST_OVERHEAD_ELEMENTS if self._always_together else self._arena.overhead_elements
        for run in cheapest_runs(lengths, self._elements, overhead):
            super()._run(slab, [requests[index] for index in run])

    def _run_alone(self, slab: int, row_count: int) -> None:
        self._came = {}
        self._row_dims = [self._arena.shape(slab, index)[2][1:] for index in range(len(self._inputs))]
        self._row_elements = {}
        super()._run_alone(slab, row_count)

    def _extents(self, slab: int, first_row: int) -> Lengths:
        """How long a request's rows came, by group."""
        return self._came.get(first_row) or self._arena.extents(slab, first_row)

    def _lengths_of(self, slab: int, request: Request) -> Lengths:
        """How long a request's rows have to run, by group."""
        came = self._extents(slab, request[0])
        if self._may_be_exact:
            return came
        lengths = list(came)
        for pad in self._padding.pads:
            if not pad.may_be_exact:
                lengths[pad.group] = rounded(came[pad.group], pad.multiple, pad.max)
        return tuple(lengths)

    def _gathered(self, slab: int, requests: Sequence[Request]) -> tuple[list[TensorBuffer], list[object]]:
        self._began_ns = monotonic_ns()
        came = [self._lengths_of(slab, request) for request in requests]
        lengths = self._lengths = [max(sizes) for sizes in zip(*came, strict=True)]
        dims = [list(self._arena.shape(slab, index)[2]) for index in range(len(self._inputs))]
        shorter = set()
        for pad in self._padding.pads:
            if dims[pad.tensor][pad.axis] != lengths[pad.group]:
                dims[pad.tensor][pad.axis] = lengths[pad.group]
                shorter.add(pad.tensor)
        if not shorter:
            return super()._gathered(slab, requests)
        row_count = sum(count for _, count in requests)
        rows = [row for first_row, count in requests for row in range(first_row, first_row + count)]
        is_side_by_side = rows[-1] - rows[0] + 1 == row_count
        tensors: list[TensorBuffer] = []
        keep: list[object] = []
        data = self._arena.slab_buffer(slab)
        for index, spec in enumerate(self._inputs):
            offset, row_bytes, there = self._arena.shape(slab, index)
            element = _element(BY_CODE[spec.datatype].size_bytes)
            count = there[0] * row_bytes // element.itemsize
            lying = np.frombuffer(data, element, count, offset).reshape(there)
            lying = lying[rows[0] : rows[-1] + 1] if is_side_by_side else lying[rows]
            found = np.ascontiguousarray(lying[(slice(None), *(slice(size) for size in dims[index][1:]))])
            keep.append(found)
            run_dims = (row_count, *dims[index][1:])
            tensors.append(TensorBuffer(spec.name, spec.datatype, run_dims, found.__array_interface__["data"][0]))
        return tensors, keep

    def _timed_run(self, inputs: Sequence[TensorBuffer]) -> list[ProducedTensor]:
        """Raises ModelError also where an output is not as long as the input that it is cut like."""
        produced = super()._timed_run(inputs)
        for cut in self._padding.cuts:
            dims, length = produced[cut.output].dims, self._lengths[cut.group]
            if cut.axis >= len(dims) or dims[cut.axis] != cut.length(length):
                name = self._output_names[cut.output]
                raise ModelError(
                    f"output '{name}' has shape {list(dims)}, expected {cut.length(length)} on axis {cut.axis} for an "
                    f"input padded to {length}: say in config.pbtxt with cut_{name} what is cut off"
                )
        return produced

    def _store(
        self, slab: int, requests: Sequence[Request], produced: Sequence[ProducedTensor], is_whole: bool
    ) -> None:
        super()._store(slab, requests, produced, is_whole)
        self._learn(slab, requests)

    def _store_output(
        self, slab: int, output: int, requests: Sequence[Request], tensor: ProducedTensor, is_whole: bool
    ) -> None:
        cuts = self._cuts[output]
        shapes = []
        for first_row, _ in requests:
            dims = list(tensor.dims)
            for cut in cuts:
                dims[cut.axis] = cut.length(self._extents(slab, first_row)[cut.group])
            shapes.append(tuple(dims))
        if not cuts or all(shape == tensor.dims for shape in shapes):
            super()._store_output(slab, output, requests, tensor, is_whole)
            return
        item_bytes = self._item_bytes[output]
        whole = np.frombuffer(_memory(tensor), _element(item_bytes)).reshape(tensor.dims)
        rows = [tensor.dims[0] if is_whole else count for _, count in requests]
        sizes = [item_bytes * count * math.prod(shape[1:]) for count, shape in zip(rows, shapes, strict=True)]
        offset = self._lane.reserve(sum(sizes))
        data = self._arena.slab_buffer(slab)
        at_row = 0
        for (first_row, _), count, shape, size in zip(requests, rows, shapes, sizes, strict=True):
            part = whole[(slice(at_row, at_row + count), *(slice(length) for length in shape[1:]))]
            np.frombuffer(data, part.dtype, part.size, offset).reshape(part.shape)[...] = part
            if is_whole:
                self._arena.set_output(slab, output, first_row, 1, offset, size, shape, True)
            else:
                self._arena.set_output(slab, output, first_row, count, offset, size // count, shape)
            at_row += count
            offset += size

    def _learn(self, slab: int, requests: Sequence[Request]) -> None:
        """Counts what ran, and tells the workers from time to time what a run costs."""
        duration_ns = monotonic_ns() - self._began_ns
        given = rows = 0
        for first_row, count in requests:
            given += count * self._elements(self._extents(slab, first_row))
            rows += count
        run = rows * self._elements(tuple(self._lengths))
        self._arena.count_elements(given, run)
        self._cost.observe(run, duration_ns)
        self._run_count += 1
        if self._run_count % RUNS_PER_LOOK == 0:
            self._arena.overhead_elements = self._cost.overhead_elements()

    def _elements(self, lengths: Lengths) -> int:
        """Of one row of all inputs of the present batch whose groups have these lengths."""
        known = self._row_elements.get(lengths)
        if known is None:
            dims = [list(one) for one in self._row_dims]
            for pad in self._padding.pads:
                dims[pad.tensor][pad.axis - 1] = lengths[pad.group]
            known = self._row_elements[lengths] = sum(math.prod(one) for one in dims)
        return known


def _element(size_bytes: int) -> np.dtype[Any]:
    """A type for elements of this width, whatever they mean."""
    return np.dtype(f"u{size_bytes}")


def _memory(tensor: ProducedTensor) -> Any:
    return (ctypes.c_char * tensor.size_bytes).from_address(tensor.address)
