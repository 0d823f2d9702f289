"""Whether rows of different requests may run as one batch, read off a model's inputs, outputs and operators.

A pure function of the header: no clock, no I/O. The first axis is the batch axis or there is none. A model that fails
any rule is still served, one request at a time, and the verdict names the tensor that decided.

Equal axis names prove that an output has as many rows as the inputs. Different ones prove the contrary only if a
person chose them: exporters number the axes that they cannot relate (tf2onnx calls one axis unk__214 at the input and
unk__215 at the output). Such an axis is taken for the batch axis unless the graph has an operator whose number of
rows depends on the data; detectors that end in NonMaxSuppression look the same otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from server.models.onnx_file import Dimension, OnnxModel, TensorInfo

#: Axis names that tf2onnx, PyTorch, ONNX Runtime's and ONNX's own shape inference number through.
_INVENTED = re.compile(
    r"unk__\d+|.*_dim_\d+|.*_o\d+__d\d+|.*_dynamic_axes_\d+|DynamicDimension\.\d+|\?|None|-1", re.ASCII | re.DOTALL
)
#: Operators with an output whose size depends on the values of the input.
DATA_DEPENDENT = ("NonMaxSuppression", "NonZero", "Compress", "Unique", "Loop", "ConcatFromSequence", "StringSplit")


@dataclass(frozen=True, slots=True)
class Batching:
    """The verdict: `batched`, a sentence that says why, and the batch axis's name in the file if it has one.

    shaped: batched, but other dimensions are free too, so only rows of equal shape run together.
    """

    batched: bool
    reason: str
    symbol: str | None = None
    shaped: bool = False


#: The end of the reason of a model that is not padded.
EQUAL_SHAPES = ", so only rows of equal shape run together"


def verdict(model: OnnxModel) -> Batching:
    """Batched if every tensor has a free first axis and nothing says they are different axes."""
    if not model.inputs:
        return _alone("the model has no inputs")
    tensors = [("input", tensor) for tensor in model.inputs] + [("output", tensor) for tensor in model.outputs]
    for rule in (_first_axis, _strings):
        for kind, tensor in tensors:
            obstacle = rule(kind, tensor)
            if obstacle is not None:
                return _alone(obstacle)
    handed_through = {tensor.name for tensor in model.inputs} & {tensor.name for tensor in model.outputs}
    if handed_through:
        # ONNX Runtime does not copy it to the memory that is bound for the output.
        return _alone(f"output {min(handed_through)!r} is an input handed through")
    chosen = {tensor.name: first for tensor in model.inputs if (first := _first(tensor)) and not is_invented(first)}
    if len(set(chosen.values())) > 1:
        axes = ", ".join(f"{name!r} starts with {symbol!r}" for name, symbol in chosen.items())
        return _alone(f"the inputs' first axes differ: {axes}")
    firsts = {_first(tensor) for tensor in model.inputs}
    symbol = next(iter(chosen.values())) if chosen else firsts.pop() if len(firsts) == 1 else None
    obstacle = _outputs_differ(model, symbol)
    if obstacle is not None:
        return _alone(obstacle)
    axis = f"axis {symbol!r}" if symbol and not is_invented(symbol) else "the first axis"
    reason = f"{axis} is free on every input and output"
    varying = [(kind, tensor) for kind, tensor in tensors if _other_axes(tensor)]
    if not varying:
        return Batching(True, reason, symbol)
    kind, tensor = varying[0]
    obstacle = _shapes_differ(model, symbol)
    if obstacle is not None:
        return _alone(obstacle)
    free = shape_text(_other_axes(tensor))
    return Batching(
        True,
        f"{reason}; {kind} {tensor.name!r} has variable dimensions {free} besides{EQUAL_SHAPES}",
        symbol,
        shaped=True,
    )


def is_invented(symbol: str) -> bool:
    """Whether an exporter numbered this axis through, so that its name says nothing."""
    return _INVENTED.fullmatch(symbol) is not None


def _outputs_differ(model: OnnxModel, symbol: str | None) -> str | None:
    data_dependent = [name for name in DATA_DEPENDENT if name in model.op_counts]
    for tensor in model.outputs:
        first = _first(tensor)
        if first is not None and first == symbol:
            continue
        if first and symbol and not is_invented(first) and not is_invented(symbol):
            return f"output {tensor.name!r} starts with {first!r}, the inputs with {symbol!r}"
        if data_dependent:
            return (
                f"output {tensor.name!r} may have any number of rows: the graph has {data_dependent[0]}, "
                "and its first axis is not named like the inputs'"
            )
    return None


def _alone(obstacle: str) -> Batching:
    return Batching(False, f"served one request at a time: {obstacle}")


def _first(tensor: TensorInfo) -> str | None:
    first = tensor.shape[0] if tensor.shape else None
    return first if isinstance(first, str) else None


def _strings(kind: str, tensor: TensorInfo) -> str | None:
    # A row of them has no size of its own, so rows cannot lie side by side.
    return f"{kind} {tensor.name!r} holds strings" if tensor.dtype == "BYTES" else None


def _first_axis(kind: str, tensor: TensorInfo) -> str | None:
    if tensor.shape is None:
        return f"{kind} {tensor.name!r} has no shape in the file"
    if not tensor.shape:
        return f"{kind} {tensor.name!r} is a scalar"
    first = tensor.shape[0]
    if isinstance(first, int):
        return f"{kind} {tensor.name!r} has a fixed first axis in {shape_text(tensor.shape)}"
    return None


def _other_axes(tensor: TensorInfo) -> list[Dimension]:
    """The free dimensions behind the first."""
    return [size for size in (tensor.shape or ())[1:] if not isinstance(size, int)]


def _shapes_differ(model: OnnxModel, symbol: str | None) -> str | None:
    """Why rows of equal shape may not run together all the same."""
    for tensor in (*model.inputs, *model.outputs):
        if symbol in [axis for axis in _other_axes(tensor) if axis]:
            return f"{tensor.name!r} has the batch axis {symbol!r} more than once in {shape_text(tensor.shape or ())}"
        if tensor.dtype == "BYTES":
            return f"{tensor.name!r} is of type BYTES, and there are variable dimensions besides the batch axis"
    for tensor in model.outputs:
        data_dependent = [name for name in DATA_DEPENDENT if name in model.op_counts]
        if data_dependent and _other_axes(tensor):
            return (
                f"output {tensor.name!r} may have rows of any size {shape_text(_other_axes(tensor))}: the graph has "
                f"{data_dependent[0]}"
            )
    return None


def shape_text(shape: Iterable[Dimension]) -> str:
    """A shape for people: sizes and names as in the file, ? for a free dimension without a name."""
    return "[" + ",".join("?" if size is None else str(size) for size in shape) + "]"
