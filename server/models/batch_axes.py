"""Parameters of a configuration that say where tensors have their batch axis: batch_axis_TENSOR and same_INPUT.

    batch_axis_TENSOR: a number; the axis of this input or output that counts rows, where it is not the first
    same_INPUT: true; this input has no batch axis: only requests with equal values run together

Inside, the batch axis of every tensor is the first, and one that all rows share has one that nothing is known of. These
functions go from the file's order to that and back. Pure; Raises ShapeRuleError.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from server.models.batchability import shape_text
from server.models.onnx_file import Dimension, OnnxModel, TensorInfo
from server.models.shape_rules import ShapeRuleError
from server.protocol.datatypes import BY_NAME

AXIS, SAME = "batch_axis_", "same_"
#: Such an input lies where the dims of others do, all but the batch axis: layout.h.
MAX_VALUE_BYTES = 56


class BatchAxes(NamedTuple):
    """Tensors whose batch axis is not the first, and inputs that have none."""

    axes: Mapping[str, int] = {}
    same: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.axes or self.same)

    def all_moved(self, model: OnnxModel) -> OnnxModel:
        """A model with batch axes in front: whatever the file calls them, they are those of the other inputs."""
        plain = (tensor.shape for tensor in model.inputs if tensor.name not in self.by_name())
        first = next((shape[0] for shape in plain if shape), None)
        inputs, outputs = ([self._moved(one, first) for one in side] for side in (model.inputs, model.outputs))
        return replace(model, inputs=tuple(inputs), outputs=tuple(outputs))

    def _moved(self, tensor: TensorInfo, first: Dimension) -> TensorInfo:
        shape = tensor.shape
        if shape is None:
            return tensor
        if tensor.name in self.same:
            return replace(tensor, shape=(first, *shape))
        axis = self.axes.get(tensor.name)
        return tensor if axis is None else replace(tensor, shape=(first, *shape[:axis], *shape[axis + 1 :]))

    def restored(self, tensor: TensorInfo) -> TensorInfo:
        """A tensor with its batch axis where clients have it."""
        shape = tensor.shape
        if shape is None or not shape:
            return tensor
        if tensor.name in self.same:
            return replace(tensor, shape=shape[1:])
        axis = self.axes.get(tensor.name, 0)
        return replace(tensor, shape=(*shape[1 : axis + 1], shape[0], *shape[axis + 1 :]))

    def by_name(self) -> dict[str, int]:
        """What the readers of requests are told: -1 for an input without a batch axis."""
        return {**self.axes, **dict.fromkeys(self.same, -1)}


NO_AXES = BatchAxes()


def is_batch_rule(key: str) -> bool:
    """Whether this parameter is one of those read here."""
    return any(key.startswith(prefix) and len(key) > len(prefix) for prefix in (AXIS, SAME))


def batch_axes(parameters: Mapping[str, str], model: OnnxModel) -> BatchAxes:
    """What the parameters say of a model's tensors."""
    axes: dict[str, int] = {}
    same = set()
    for key, text in parameters.items():
        if key.startswith(AXIS):
            tensor = _find(key, AXIS, (*model.inputs, *model.outputs))
            free = _free(tensor.shape or ())
            if text not in map(str, free) or tensor.dtype == "BYTES":
                raise ShapeRuleError(
                    key,
                    f"expected a free axis of {tensor.name!r} {shape_text(tensor.shape or ())}, which holds "
                    f"{tensor.dtype} ({', '.join(map(str, free)) or 'none'}), got {text!r}",
                )
            axes[tensor.name] = int(text)
        elif key.startswith(SAME):
            tensor = _find(key, SAME, model.inputs)
            _check_value(key, text, tensor)
            same.add(tensor.name)
    both = sorted(same & axes.keys())
    if both:
        raise ShapeRuleError(AXIS + both[0], f"{both[0]!r} has no batch axis, since {SAME}{both[0]} is true")
    if same and len(same) == len(model.inputs):
        raise ShapeRuleError(SAME + min(same), "expected an input that has a batch axis besides")
    return BatchAxes({name: axis for name, axis in axes.items() if axis}, frozenset(same))


def _find(key: str, prefix: str, tensors: Sequence[TensorInfo]) -> TensorInfo:
    name = key.removeprefix(prefix)
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    names = ", ".join(prefix + tensor.name for tensor in tensors)
    raise ShapeRuleError(key, f"expected the name of a tensor: one of {names}")


def _free(shape: Sequence[Dimension]) -> list[int]:
    return [axis for axis, size in enumerate(shape) if not isinstance(size, int)]


def _check_value(key: str, text: str, tensor: TensorInfo) -> None:
    if text != "true":
        raise ShapeRuleError(key, f"expected true, got {text!r}")
    shape = tensor.shape
    if shape is None or _free(shape) or tensor.dtype == "BYTES":
        raise ShapeRuleError(key, f"expected numbers of a fixed shape, {tensor.name!r} is {tensor.dtype} "
                                  f"{'of unknown shape' if shape is None else shape_text(shape)}")  # fmt: skip
    size = math.prod(tensor.dims) * BY_NAME[tensor.dtype].size_bytes
    if size > MAX_VALUE_BYTES:
        raise ShapeRuleError(key, f"expected at most {MAX_VALUE_BYTES} bytes, {tensor.name!r} has {size}")
