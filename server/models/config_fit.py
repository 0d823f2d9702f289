"""Puts a model's configuration and its file together: the shapes that are served, and whether rows share batches.

Pure functions. Raises ModelConfigError, with the field and its line, where the two contradict each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from server.models import batchability
from server.models.batch_axes import NO_AXES, BatchAxes, batch_axes, is_batch_rule
from server.models.batchability import Batching, shape_text
from server.models.model_config import ModelConfig, Parsed, TensorConfig
from server.models.onnx_file import Dimension, OnnxModel, TensorInfo
from server.models.shape_rules import NO_PADDING, Padding, ShapeRuleError, is_shape_rule, padding_of


@dataclass(frozen=True, slots=True)
class Fitted:
    """`model` has the shapes that the model runs with; `inputs` and `outputs` have those that clients see.

    max_batch_size: 0 if requests have no batch axis, None if nothing limits the rows of a batch.
    """

    model: OnnxModel
    batching: Batching
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    max_batch_size: int | None = None
    padding: Padding = NO_PADDING
    #: All shapes here have the batch axis in front; some tensors of the file, and of clients, have it elsewhere.
    batch_axes: BatchAxes = NO_AXES


def without_config(model: OnnxModel) -> Fitted:
    """A model that nothing was said about."""
    return Fitted(model, batchability.verdict(model), model.inputs, model.outputs)


def fit(parsed: Parsed, model: OnnxModel) -> Fitted:
    """A model as its configuration has it served."""
    return _Fit(parsed, model).fit()


class _Fit:
    def __init__(self, parsed: Parsed, model: OnnxModel) -> None:
        self._parsed = parsed
        self._config: ModelConfig = parsed.config
        rules = {key: text for key, text in self._config.parameters if is_batch_rule(key)}
        try:
            self._axes = batch_axes(rules, model)
        except ShapeRuleError as error:
            parsed.refuse(f"parameters{{{error.key}}}", str(error))
        self._model = self._axes.all_moved(model) if self._axes else model

    def fit(self) -> Fitted:
        config, model = self._config, self._model
        sides = (("input", config.inputs, model.inputs), ("output", config.outputs, model.outputs))
        for kind, said, there in sides:
            for index, tensor in enumerate(said):
                self._check_tensor(kind, index, tensor, there)
        is_batched = self._is_batched()
        inputs = self._narrowed("input", config.inputs, model.inputs, is_batched)
        outputs = self._narrowed("output", config.outputs, model.outputs, is_batched)
        narrowed = replace(model, inputs=inputs, outputs=outputs)
        batching = self._batching(narrowed, is_batched)
        padding = self._padding(narrowed, batching)
        fitted = Fitted(
            narrowed,
            replace(batching, reason=_padded_reason(batching.reason, padding, inputs)) if padding else batching,
            _seen(config.inputs, inputs, is_batched),
            _seen(config.outputs, outputs, is_batched),
            config.max_batch_size if is_batched else 0,
            padding,
            self._axes,
        )
        self._check_rest(fitted, is_batched)
        return fitted

    def _check_tensor(self, kind: str, index: int, said: TensorConfig, there: Sequence[TensorInfo]) -> None:
        place = f"{kind}[{index}]"
        found = next((tensor for tensor in there if tensor.name == said.name), None)
        if found is None:
            names = ", ".join(repr(tensor.name) for tensor in there)
            self._parsed.refuse(f"{place}.name", f"expected one of the model's {kind}s {names}, got {said.name!r}")
        if said.datatype not in (None, found.dtype):
            self._parsed.refuse(f"{place}.data_type", f"expected the model's {found.dtype}, got {said.datatype}")

    def _is_batched(self) -> bool:
        """Whether the first axis of every tensor counts rows: as max_batch_size says, else as the dims show."""
        config = self._config
        if config.max_batch_size is not None:
            return config.max_batch_size > 0
        for said, there in ((config.inputs, self._model.inputs), (config.outputs, self._model.outputs)):
            for tensor in said:
                shape = next(item.shape for item in there if item.name == tensor.name)
                dims = tensor.dims if tensor.reshape is None else tensor.reshape
                if shape is not None and tensor.dims:
                    return len(dims) != len(shape)
        return batchability.verdict(self._model).batched

    def _narrowed(
        self, kind: str, said: Sequence[TensorConfig], there: Sequence[TensorInfo], is_batched: bool
    ) -> tuple[TensorInfo, ...]:
        """The model's tensors with the sizes that the configuration gives to free dimensions."""
        found = []
        for tensor in there:
            index = next((index for index, item in enumerate(said) if item.name == tensor.name), None)
            if index is None or not said[index].dims:
                found.append(tensor)
                continue
            dims = said[index].dims if said[index].reshape is None else said[index].reshape
            assert dims is not None
            first: tuple[Dimension, ...] = (None,) if is_batched else ()
            if tensor.shape is None:
                free = tuple(size if size > 0 else None for size in dims)
                found.append(replace(tensor, shape=first + free))
                continue
            own = tensor.shape[len(first) :]
            if len(tensor.shape) < len(first) or len(own) != len(dims):
                self._dims_differ(kind, index, tensor, dims, is_batched)
            for size, given in zip(own, dims, strict=True):
                if isinstance(size, int) and size != given:
                    self._dims_differ(kind, index, tensor, dims, is_batched)
            narrowed = tuple(
                given if given > 0 and not isinstance(size, int) else size
                for size, given in zip(own, dims, strict=True)
            )
            found.append(replace(tensor, shape=tensor.shape[: len(first)] + narrowed))
        return tuple(found)

    def _dims_differ(
        self, kind: str, index: int, tensor: TensorInfo, dims: Sequence[int], is_batched: bool
    ) -> NoReturn:
        said = (self._config.inputs if kind == "input" else self._config.outputs)[index]
        what = "dims" if said.reshape is None else "reshape"
        own = tensor.dims[1:] if is_batched else tensor.dims
        axis = (
            f"its shape {shape_text(tensor.shape or ())} without the batch axis, since max_batch_size > 0"
            if is_batched
            else f"its whole shape {shape_text(tensor.shape or ())}, since max_batch_size is 0"
        )
        self._parsed.refuse(f"{kind}[{index}].{what}", f"expected {own} for {tensor.name!r}, {axis}; got {list(dims)}")

    def _batching(self, model: OnnxModel, is_batched: bool) -> Batching:
        if not is_batched and self._axes:
            rule = min(key for key, _ in self._config.parameters if is_batch_rule(key))
            self._parsed.refuse(f"parameters{{{rule}}}", f"expected a model that can be batched: {self._why_alone()}")
        if not is_batched:
            return Batching(False, f"served one request at a time: {self._why_alone()}")
        for kind, tensors in (("input", model.inputs), ("output", model.outputs)):
            for tensor in tensors:
                if not tensor.shape or isinstance(tensor.shape[0], int):
                    self._parsed.refuse(
                        "max_batch_size",
                        f"expected 0, with dims that are whole shapes: {kind} {tensor.name!r} of the model has no free "
                        f"first axis: {'no shape' if tensor.shape is None else shape_text(tensor.shape)}",
                    )
        verdict = batchability.verdict(model)
        if self._axes and not verdict.batched:
            rule = min(key for key, _ in self._config.parameters if is_batch_rule(key))
            self._parsed.refuse(f"parameters{{{rule}}}", f"expected a model that can be batched: {verdict.reason}")
        return (
            replace(verdict, shaped=True, reason=f"{verdict.reason}; {self._moved_text()}") if self._axes else verdict
        )

    def _moved_text(self) -> str:
        moved = [f"{name!r} counts rows on axis {axis}" for name, axis in self._axes.axes.items()]
        same = [f"all rows of a batch share {name!r}" for name in sorted(self._axes.same)]
        return ", ".join(moved + same)

    def _padding(self, model: OnnxModel, batching: Batching) -> Padding:
        rules = {key: text for key, text in self._config.parameters if is_shape_rule(key)}
        if rules and not batching.batched:
            self._parsed.refuse(f"parameters{{{min(rules)}}}", f"expected a batched model: {batching.reason}")
        if rules and self._axes:
            self._parsed.refuse(f"parameters{{{min(rules)}}}", "not supported where batch axes are not the first")
        try:
            return padding_of(rules, model.inputs, model.outputs)
        except ShapeRuleError as error:
            self._parsed.refuse(f"parameters{{{error.key}}}", str(error))

    def _why_alone(self) -> str:
        verdict = batchability.verdict(self._model)
        if not verdict.batched:
            return verdict.reason.removeprefix("served one request at a time: ")
        if self._config.max_batch_size == 0:
            return f"max_batch_size is 0 in {self._parsed.origin}"
        return f"the dims in {self._parsed.origin} are whole shapes"

    def _check_rest(self, fitted: Fitted, is_batched: bool) -> None:
        parsed, config = self._parsed, self._config
        reshaped = next((index for index, tensor in enumerate(config.inputs) if tensor.reshape is not None), None)
        if fitted.batching.shaped and (
            reshaped is not None or any(tensor.reshape is not None for tensor in config.outputs)
        ):
            parsed.refuse("input[0].reshape", "not supported where other tensors have variable dimensions")
        if not is_batched and (config.preferred_batch_sizes or config.max_queue_delay_us):
            parsed.refuse("dynamic_batching", f"expected max_batch_size > 0 beside it: {fitted.batching.reason}")
        for index, sample in enumerate(config.warm_ups):
            self._check_warm_up(index, {one.name: (one.datatype, one.dims) for one in sample.inputs}, fitted)
            if sample.batch_rows > 1 and not is_batched:
                parsed.refuse(f"model_warmup[{index}].batch_size", "expected 1: the model is not batched")
            if fitted.max_batch_size and sample.batch_rows > fitted.max_batch_size:
                parsed.refuse(f"model_warmup[{index}].batch_size", f"expected at most {fitted.max_batch_size}")

    def _check_warm_up(self, index: int, given: dict[str, tuple[str, tuple[int, ...]]], fitted: Fitted) -> None:
        place = f"model_warmup[{index}].inputs"
        for tensor in fitted.inputs:
            own = tensor.dims if fitted.max_batch_size == 0 else tensor.dims[1:]
            datatype, dims = given.pop(tensor.name, ("", ()))
            if not datatype:
                self._parsed.refuse(place, f"expected every input, {tensor.name!r} is missing")
            fits = tensor.shape is None or (
                len(own) == len(dims) and all(size in (-1, one) for size, one in zip(own, dims, strict=True))
            )
            if datatype != tensor.dtype or not fits:
                self._parsed.refuse(
                    f"{place}{{{tensor.name}}}", f"expected {tensor.dtype} {own}, got {datatype} {list(dims)}"
                )
        if given:
            self._parsed.refuse(f"{place}{{{min(given)}}}", "expected the name of an input")


def _padded_reason(reason: str, padding: Padding, inputs: Sequence[TensorInfo]) -> str:
    """The verdict's reason, where rows of different shape may run together."""
    axes = ", ".join(
        f"{inputs[pad.tensor].name!r} on axis {pad.axis} to multiples of {pad.multiple}" for pad in padding.pads
    )
    return f"{reason.removesuffix(batchability.EQUAL_SHAPES)}; rows run together that are alike once padded: {axes}"


def _seen(said: Sequence[TensorConfig], there: Sequence[TensorInfo], is_batched: bool) -> tuple[TensorInfo, ...]:
    """The tensors as clients send and get them: with dims in place of a reshape's shape."""
    dims = {tensor.name: tensor.dims for tensor in said if tensor.reshape is not None}
    return tuple(
        replace(tensor, shape=(tensor.shape or ())[: int(is_batched)] + dims[tensor.name])
        if tensor.name in dims
        else tensor
        for tensor in there
    )
