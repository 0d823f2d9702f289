"""Runs the batches of a lane whose tensors have free dimensions besides the batch axis: rows of equal shape together.

The unit is the request, not the row: rows that came together run together, as they would alone. ONNX Runtime allocates
the outputs, which are copied into the slab once it is known that they have a row for each row of the batch. A model
that turns out not to work row by row is served right all the same, one request at a time, and its lane remembers it.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from time import monotonic_ns

from server import log
from server.executor.backend import REFUSALS, Backend, ModelError, ProducedTensor, TensorBuffer, is_out_of_memory
from server.executor.runner import ALONE_ATTEMPTS, LaneRunner, TensorSpec, fail_row, output_refused, zeros
from server.models.repository import MAX_RANK
from server.protocol.datatypes import BY_CODE

#: (first row, rows) in a slab.
Request = tuple[int, int]
#: The dims of one row of each input, or of each output.
RowDims = tuple[tuple[int, ...], ...]

NOT_ROW_BY_ROW = "outputs_not_row_by_row"
NOT_ROW_BY_ROW_TEXT = "outputs do not follow the batch axis: requests are run one at a time"
#: Input shapes of which the outputs' shapes are remembered: the oldest go first.
REMEMBERED_SHAPES = 4096


class ShapedRunner(LaneRunner):
    """One instance of such a lane."""

    def _begin(self) -> None:
        self._item_bytes = [BY_CODE[spec.datatype].size_bytes for spec in self._outputs]
        self._row_outputs: dict[RowDims, RowDims] = {}
        self._is_crowded = False
        self._values = frozenset(self._arena.values)

    def serve(self) -> None:
        lane = self._lane
        while (batch := lane.next_batch()) is not None:
            slab, row_count, live_count, attempts = batch
            if live_count == 0:
                lane.complete(0, 0)
                continue
            lane.run_begins()
            self._is_crowded = False
            if attempts >= ALONE_ATTEMPTS:
                self._run_alone(slab, row_count)
            else:
                self._run(slab, lane.requests())
            self._misfits.settle()
            lane.complete(0, 0)

    def _run(self, slab: int, requests: Sequence[Request]) -> None:
        """Runs these requests of a slab, together as far as that may be."""
        position = 0
        while position < len(requests):
            if self._is_crowded:
                self._lane.put_back(*requests[position])
                position += 1
                continue
            together = self._within_cap(requests[position:])
            if self._arena.apart or len(together) == 1:
                self._run_one(slab, requests[position])
                position += 1
            else:
                position += self._run_several(slab, together)

    def _within_cap(self, requests: Sequence[Request]) -> Sequence[Request]:
        """As many from the front as memory has shown to hold, one at least."""
        rows, most = 0, self._misfits.most_rows
        for count, (_, more) in enumerate(requests):
            rows += more
            if count and 0 < most < rows:
                return requests[:count]
        return requests

    def _run_one(self, slab: int, request: Request, of_rows: int = 0) -> None:
        """A request by itself: its answer is whatever comes out. of_rows: it is one row of a request of so many."""
        try:
            inputs, _keep = self._gathered(slab, [request])
            produced = self._timed_run(inputs)
            needed = self._needed(produced)
        except REFUSALS as error:
            self._fail(request, error)
            return
        if needed <= self._lane.output_room:
            is_whole = not self._is_row_by_row(inputs, produced)
            self._store(slab, [request], produced, is_whole)
        elif needed * max(of_rows, 1) <= self._arena.output_room[1]:
            self._put_back([request])
        else:
            self._fail(request, self._too_large(produced))

    def _run_several(self, slab: int, requests: Sequence[Request]) -> int:
        """Requests joined into one batch, as many from the front as their outputs have room for; with how many of them
        that dealt. A refusal is bisected down to the guilty.
        """
        try:
            inputs, _keep = self._gathered(slab, requests)
            expected = self._row_outputs_of(inputs)
        except REFUSALS as error:
            self._bisect(slab, requests, error)
            return len(requests)
        if expected is None:
            return 0
        count, rows = self._fitting(expected, requests)
        if count == 0 and self._lane.output_room == self._arena.output_room[1]:
            self._run_one(slab, requests[0])
            return 1
        if count == 0:
            self._put_back(requests)
            return len(requests)
        if count < len(requests):
            # Of fewer requests there may be other expectations: they need not be as long.
            return self._run_several(slab, requests[:count])
        try:
            produced = self._timed_run(inputs)
        except REFUSALS as error:
            self._bisect(slab, requests, error)
            return count
        if any(tensor.dims != (rows, *dims) for tensor, dims in zip(produced, expected, strict=True)):
            self._remember_apart(produced, rows)
            return 0
        self._store(slab, requests, produced, is_whole=False)
        return count

    def _bisect(self, slab: int, requests: Sequence[Request], error: Exception) -> None:
        if len(requests) == 1:
            self._fail(requests[0], error)
            return
        if is_out_of_memory(error):
            self._misfits.together([first_row for first_row, _ in requests], sum(rows for _, rows in requests))
        middle = len(requests) // 2
        self._run(slab, requests[:middle])
        self._run(slab, requests[middle:])

    def _run_alone(self, slab: int, row_count: int) -> None:
        """An executor died with this slab: one row at a time, each answered at once: only the guilty one is lost."""
        lane = self._lane
        for row in range(row_count):
            if self._is_crowded:
                # The others run when workers have read what is there.
                return
            if not lane.take_alone(row):
                continue
            first_row, count = lane.request_of(row)
            taken = [row]
            if not self._arena.apart or count == 1:
                self._run_one(slab, (row, 1), of_rows=count)
            if self._arena.apart and count > 1:
                # Its rows give no outputs of their own, so the request is one item.
                taken += [other for other in range(row + 1, first_row + count) if lane.take_alone(other)]
                self._run_one(slab, (first_row, count))
            if self._is_crowded:
                self._put_back([(other, 1) for other in taken])
                return
            for other in taken:
                lane.finish_alone(other)

    def _put_back(self, requests: Sequence[Request]) -> None:
        """Their outputs find no room before workers have read what is there."""
        self._is_crowded = True
        for request in requests:
            self._lane.put_back(*request)

    def _fail(self, request: Request, error: Exception) -> None:
        first_row, row_count = request
        if is_out_of_memory(error):
            self._misfits.alone(first_row)
        for row in range(first_row, first_row + row_count):
            fail_row(self._lane, row, error, "the input")

    def _timed_run(self, inputs: Sequence[TensorBuffer]) -> list[ProducedTensor]:
        """Runs the model and counts the batch."""
        started_ns = monotonic_ns()
        produced = self._backend.run(inputs, self._output_names)
        self._lane.ran(started_ns, inputs[0].dims[0])
        if self._cap.rows:
            self._cap.ran(inputs[0].dims[0])
        return produced

    # -- inputs

    def _gathered(self, slab: int, requests: Sequence[Request]) -> tuple[list[TensorBuffer], list[object]]:
        """The inputs of these requests, in place if they lie side by side, else copied; and the copies' memory."""
        base = self._arena.slab_address(slab)
        first_row = requests[0][0]
        row_count = sum(count for _, count in requests)
        is_side_by_side = sum(requests[-1]) - first_row == row_count
        tensors: list[TensorBuffer] = []
        keep: list[object] = []
        for index, spec in enumerate(self._inputs):
            if index in self._values:
                dims = (row_count, *spec.dims[1:])
                tensors.append(TensorBuffer(spec.name, spec.datatype, dims, self._arena.value_address(slab, index)))
                continue
            offset, row_bytes, dims = self._arena.shape(slab, index)
            address = base + offset + first_row * row_bytes
            if not is_side_by_side:
                memory = ctypes.create_string_buffer(max(row_bytes * row_count, 1))
                keep.append(memory)
                address = at = ctypes.addressof(memory)
                for first, count in requests:
                    ctypes.memmove(at, base + offset + first * row_bytes, count * row_bytes)
                    at += count * row_bytes
            tensors.append(TensorBuffer(spec.name, spec.datatype, (row_count, *dims[1:]), address))
        return tensors, keep

    # -- outputs

    def _row_outputs_of(self, inputs: Sequence[TensorBuffer]) -> RowDims | None:
        """The outputs' dims of one row of these inputs; None if an output has no row for it. Raises ModelError.

        As many rows as went in do not prove that they belong to them: with time first, say, there may be as many steps
        as rows. So before rows of some shape run together for the first time, one of them runs by itself.
        """
        row_inputs = tuple(tensor.dims[1:] for tensor in inputs)
        known = self._row_outputs.get(row_inputs)
        if known is None:
            one = [tensor._replace(dims=(1, *tensor.dims[1:])) for tensor in inputs]
            known = self._learned(row_inputs, self._backend.run(one, self._output_names))
        return known

    def _learned(self, row_inputs: RowDims, produced: Sequence[ProducedTensor]) -> RowDims | None:
        """Remembers what one row of these inputs gave."""
        if any(tensor.dims[:1] != (1,) for tensor in produced):
            self._remember_apart(produced, 1)
            return None
        learned = tuple(tensor.dims[1:] for tensor in produced)
        if len(self._row_outputs) >= REMEMBERED_SHAPES:
            del self._row_outputs[next(iter(self._row_outputs))]
        self._row_outputs[row_inputs] = learned
        return learned

    def _is_row_by_row(self, inputs: Sequence[TensorBuffer], produced: Sequence[ProducedTensor]) -> bool:
        """Whether the outputs of one request can be cut into rows."""
        if self._arena.apart:
            return False
        rows = inputs[0].dims[0]
        row_inputs = tuple(tensor.dims[1:] for tensor in inputs)
        try:
            if rows == 1 and row_inputs not in self._row_outputs:
                expected = self._learned(row_inputs, produced)
            else:
                expected = self._row_outputs_of(inputs)
        except REFUSALS:
            # One row of it would be refused: then it is what it is.
            return False
        if expected is None:
            return False
        if any(tensor.dims != (rows, *dims) for tensor, dims in zip(produced, expected, strict=True)):
            self._remember_apart(produced, rows)
            return False
        return True

    def _remember_apart(self, produced: Sequence[ProducedTensor], row_count: int) -> None:
        self._arena.apart = True
        shapes = ", ".join(
            f"{name} {list(tensor.dims)}" for name, tensor in zip(self._output_names, produced, strict=True)
        )
        log.warning(
            NOT_ROW_BY_ROW,
            NOT_ROW_BY_ROW_TEXT,
            rows=row_count,
            outputs=shapes,
        )

    def _fitting(self, row_outputs: RowDims, requests: Sequence[Request]) -> tuple[int, int]:
        """How many requests from the front find room for their outputs, and how many rows those have."""
        room, rows, count = self._lane.output_room, 0, 0
        row_bytes = [math.prod(dims) * size for dims, size in zip(row_outputs, self._item_bytes, strict=True)]
        for _, more in requests:
            if sum(_padded((rows + more) * size) for size in row_bytes) > room:
                break
            rows, count = rows + more, count + 1
        return count, rows

    def _needed(self, produced: Sequence[ProducedTensor]) -> int:
        """Bytes that these outputs take in a slab. Raises ModelError for a rank that is not served."""
        for name, tensor in zip(self._output_names, produced, strict=True):
            if len(tensor.dims) > MAX_RANK:
                raise ModelError(f"output '{name}' has {len(tensor.dims)} dimensions, at most {MAX_RANK} are served")
        return sum(_padded(tensor.size_bytes) for tensor in produced)

    def _store(
        self, slab: int, requests: Sequence[Request], produced: Sequence[ProducedTensor], is_whole: bool
    ) -> None:
        """Copies the outputs into the slab, where there is room, and says where each row's lie."""
        for output, tensor in enumerate(produced):
            self._store_output(slab, output, requests, tensor, is_whole)

    def _store_output(
        self, slab: int, output: int, requests: Sequence[Request], tensor: ProducedTensor, is_whole: bool
    ) -> None:
        offset = self._lane.reserve(tensor.size_bytes)
        ctypes.memmove(self._arena.slab_address(slab) + offset, tensor.address, tensor.size_bytes)
        if is_whole:
            self._arena.set_output(slab, output, requests[0][0], 1, offset, tensor.size_bytes, tensor.dims, True)
            return
        row_bytes = tensor.size_bytes // sum(count for _, count in requests)
        for first_row, count in requests:
            self._arena.set_output(slab, output, first_row, count, offset, row_bytes, tensor.dims)
            offset += count * row_bytes

    def _too_large(self, produced: Sequence[ProducedTensor]) -> ModelError:
        _, room = self._arena.output_room
        left = room
        for name, tensor in zip(self._output_names, produced, strict=True):
            if tensor.size_bytes > left:
                return output_refused(name, tensor, left, room)
            left -= _padded(tensor.size_bytes)
        return output_refused(self._output_names[-1], produced[-1], 0, room)


def _padded(size_bytes: int) -> int:
    return (size_bytes + 63) // 64 * 64


def try_rows(backend: Backend, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> bool:
    """Warms a model up with zeros, free dimensions being 1: whether its outputs follow the batch axis, as far as that
    shows. Raises ModelError where it refuses such an input, which need not mean anything.
    """
    names = [spec.name for spec in outputs]
    seen = []
    for row_count in (1, 2):
        keep: list[ctypes.Array[ctypes.c_char]] = []
        produced = backend.run([zeros(_fixed(spec), row_count, keep) for spec in inputs], names)
        seen.append([tensor.dims for tensor in produced])
    return all(one == (1, *two[1:]) and two[:1] == (2,) for one, two in zip(*seen, strict=True))


def _fixed(spec: TensorSpec) -> TensorSpec:
    return spec._replace(dims=tuple(1 if dim < 0 else dim for dim in spec.dims))
