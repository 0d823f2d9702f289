"""A backend whose runner has every batch axis in front, where the model has some elsewhere or none.

Rows of such tensors lie side by side in a slab, so they are copied into the model's order before a run and back behind
it; one row is as it lies. O(bytes) of these tensors.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from server.executor.backend import Backend, ModelError, ProducedTensor, Run, TensorBuffer
from server.models.batch_axes import BatchAxes
from server.protocol.datatypes import BY_CODE


class BatchAxesBackend:
    """Only run() is for such models: nothing of them can be bound in place."""

    def __init__(self, backend: Backend, batch_axes: BatchAxes) -> None:
        self._backend = backend
        self._axes = batch_axes.axes
        self._same = batch_axes.same

    @property
    def device(self) -> str:
        return self._backend.device

    def prepare(self, inputs: Sequence[TensorBuffer], outputs: Sequence[TensorBuffer]) -> Run:
        raise NotImplementedError("rows of these tensors do not lie as the model takes them")

    def run(self, inputs: Sequence[TensorBuffer], output_names: Sequence[str]) -> list[ProducedTensor]:
        keep: list[object] = []
        own = [self._as_the_model_has(tensor, keep) for tensor in inputs]
        produced = self._backend.run(own, output_names)
        return [self._with_rows_first(name, tensor) for name, tensor in zip(output_names, produced, strict=True)]

    def _as_the_model_has(self, tensor: TensorBuffer, keep: list[object]) -> TensorBuffer:
        if tensor.name in self._same:
            return tensor._replace(dims=tensor.dims[1:])
        axis = self._axes.get(tensor.name)
        if axis is None:
            return tensor
        dims = (*tensor.dims[1 : axis + 1], tensor.dims[0], *tensor.dims[axis + 1 :])
        if tensor.dims[0] == 1:
            return tensor._replace(dims=dims)
        rows = _array(tensor.address, tensor.dims, BY_CODE[tensor.datatype].size_bytes)
        made = np.ascontiguousarray(np.moveaxis(rows, 0, axis))
        keep.append(made)
        return tensor._replace(dims=dims, address=made.ctypes.data)

    def _with_rows_first(self, name: str, tensor: ProducedTensor) -> ProducedTensor:
        axis = self._axes.get(name)
        if axis is None:
            return tensor
        dims = tensor.dims
        if axis >= len(dims):
            raise ModelError(f"output '{name}' has shape {list(dims)}: it has no axis {axis}, which counts its rows")
        moved = (dims[axis], *dims[:axis], *dims[axis + 1 :])
        count = math.prod(dims)
        if dims[axis] == 1 or not count:
            return tensor._replace(dims=moved)
        own = _array(tensor.address, dims, tensor.size_bytes // count)
        made = np.ascontiguousarray(np.moveaxis(own, axis, 0))
        return ProducedTensor(moved, made.ctypes.data, made.nbytes, made)


def _array(address: int, dims: Sequence[int], item_bytes: int) -> np.ndarray[Any, Any]:
    """Elements of this width that lie somewhere."""
    memory: Any = (ctypes.c_char * (math.prod(dims) * item_bytes)).from_address(address)
    return np.frombuffer(memory, f"u{item_bytes}").reshape(dims)
