"""Whether rows of different requests may run as one batch, read off a model's inputs and outputs.

A pure function of the header: no clock, no I/O. The first axis is the batch axis or there is none. A model that fails
any rule is still served, one request at a time, and the verdict names the tensor that decided.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from server.models.onnx_file import Dimension, OnnxModel, TensorInfo


@dataclass(frozen=True, slots=True)
class Batching:
    """The verdict: `batched`, a sentence that says why, and the batch axis's name in the file if it has one."""

    batched: bool
    reason: str
    symbol: str | None = None


def verdict(model: OnnxModel) -> Batching:
    """Batched if every input and output has a free first axis, all of them the same one, and only fixed axes behind
    it.
    """
    if not model.inputs:
        return _alone("the model has no inputs")
    tensors = [("input", tensor) for tensor in model.inputs] + [("output", tensor) for tensor in model.outputs]
    for rule in (_first_axis, _other_axes):
        for kind, tensor in tensors:
            obstacle = rule(kind, tensor)
            if obstacle is not None:
                return _alone(obstacle)
    symbols = {tensor.name: first for tensor in model.inputs if (first := _first(tensor)) is not None}
    if len(set(symbols.values())) > 1:
        axes = ", ".join(f"{name!r} starts with {_axis(symbol)}" for name, symbol in symbols.items())
        return _alone(f"the inputs' first axes differ: {axes}")
    symbol = next(iter(symbols.values()), None)
    for tensor in model.outputs:
        first = _first(tensor)
        if first is not None and first != symbol:
            return _alone(f"output {tensor.name!r} starts with {_axis(first)}, the inputs with {_axis(symbol)}")
    axis = f"axis {symbol!r}" if symbol else "first axis"
    return Batching(True, f"{axis} is free on every input and output", symbol)


def _alone(obstacle: str) -> Batching:
    return Batching(False, f"served one request at a time: {obstacle}")


def _first(tensor: TensorInfo) -> str | None:
    first = tensor.shape[0] if tensor.shape else None
    return first if isinstance(first, str) else None


def _first_axis(kind: str, tensor: TensorInfo) -> str | None:
    if tensor.shape is None:
        return f"{kind} {tensor.name!r} has no shape in the file"
    if not tensor.shape:
        return f"{kind} {tensor.name!r} is a scalar"
    first = tensor.shape[0]
    if isinstance(first, int):
        return f"{kind} {tensor.name!r} has a fixed first axis in {shape_text(tensor.shape)}"
    return None


def _other_axes(kind: str, tensor: TensorInfo) -> str | None:
    rest = (tensor.shape or ())[1:]
    free = [size for size in rest if not isinstance(size, int)]
    if not free:
        return None
    return f"{kind} {tensor.name!r} has variable dimensions {shape_text(free)} besides the batch axis"


def _axis(symbol: str | None) -> str:
    return repr(symbol) if symbol else "an unnamed axis"


def shape_text(shape: Iterable[Dimension]) -> str:
    """A shape for people: sizes and names as in the file, ? for a free dimension without a name."""
    return "[" + ",".join("?" if size is None else str(size) for size in shape) + "]"
