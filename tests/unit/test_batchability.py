"""The batching verdict: a table of shapes, and the tensor that each refusal names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from server.models.batchability import DATA_DEPENDENT, is_invented, verdict
from server.models.lane_plan import VARIABLE_OUTPUT_BYTES, Shape, plan
from server.models.onnx_file import Dimension, OnnxModel, TensorInfo

Shapes = Sequence[tuple[Dimension, ...] | None]


def header(inputs: Shapes, outputs: Shapes, operators: Sequence[str] = ()) -> OnnxModel:
    def tensors(prefix: str, shapes: Shapes) -> tuple[TensorInfo, ...]:
        return tuple(TensorInfo(f"{prefix}{index}", "FP32", shape) for index, shape in enumerate(shapes))

    return OnnxModel(
        path=Path("model.onnx"),
        file_bytes=1,
        ir_version=8,
        opsets={"": 17},
        producer="",
        graph_name="",
        inputs=tensors("in", inputs),
        outputs=tensors("out", outputs),
        node_count=0,
        op_counts=dict.fromkeys(operators, 1),
        initializer_count=0,
        function_count=0,
        external_data=(),
    )


@pytest.mark.parametrize(
    ("inputs", "outputs", "symbol"),
    [
        ([("N", 64)], [("N", 10), ("N",)], "N"),
        ([(None, 64)], [(None, 10)], None),
        ([("N",)], [("N",)], "N"),
        ([("N", 3, 224, 224), ("N", 1)], [("N", 1000)], "N"),
        ([("N", 3), (None, 4)], [("N", 2)], "N"),
        ([("N", 3)], [(None, 2)], "N"),
        ([("N", 0)], [("N", 2)], "N"),
        # As tf2onnx (magika), PyTorch and Paddle write them.
        ([("unk__214", 2048)], [("unk__215", 214)], "unk__214"),
        ([("unk__1", 2), ("unk__2", 2)], [("unk__3", 2)], None),
        ([("batch", 3)], [("Gemmoutput_dim_0", 2)], "batch"),
        ([("x_dynamic_axes_1", 3)], [("Gemmoutput_dim_0", 2)], "x_dynamic_axes_1"),
        ([("DynamicDimension.0", 3)], [("fetch_o0__d0", 2)], "DynamicDimension.0"),
        ([(None, 3)], [("batch", 4)], None),
    ],
)
def test_batched(inputs: Shapes, outputs: Shapes, symbol: str | None) -> None:
    found = verdict(header(inputs, outputs))
    assert found.batched, found.reason
    assert found.symbol == symbol
    assert "free on every input and output" in found.reason


@pytest.mark.parametrize(
    ("inputs", "outputs", "obstacle"),
    [
        ([], [("N",)], "the model has no inputs"),
        ([None], [("N",)], "input 'in0' has no shape in the file"),
        ([("N", 2), ()], [("N",)], "input 'in1' is a scalar"),
        ([(4, 3)], [("N",)], "input 'in0' has a fixed first axis in [4,3]"),
        ([(2, "N", 128)], [("N", 1)], "input 'in0' has a fixed first axis in [2,N,128]"),
        ([("N", 3)], [()], "output 'out0' is a scalar"),
        ([("N", 3)], [("N", 2), (1, 2)], "output 'out1' has a fixed first axis in [1,2]"),
        ([("N", 3)], [("N", "N")], "'out0' has the batch axis 'N' more than once in [N,N]"),
        ([("N", "S", "N")], [("N", 2)], "'in0' has the batch axis 'N' more than once in [N,S,N]"),
        (
            [("N", 3), ("M", 3)],
            [("N", 2)],
            "the inputs' first axes differ: 'in0' starts with 'N', 'in1' starts with 'M'",
        ),
        ([("N", 3)], [("boxes", 4)], "output 'out0' starts with 'boxes', the inputs with 'N'"),
    ],
)
def test_one_at_a_time(inputs: Shapes, outputs: Shapes, obstacle: str) -> None:
    found = verdict(header(inputs, outputs))
    assert not found.batched
    assert found.reason == f"served one request at a time: {obstacle}"


@pytest.mark.parametrize(
    ("inputs", "outputs", "varying"),
    [
        ([("N", "S")], [("N", 2)], "input 'in0' has variable dimensions [S] besides"),
        ([("N", 3, None, "W")], [("N", 2)], "input 'in0' has variable dimensions [?,W] besides"),
        ([("N", 3)], [("N", "T")], "output 'out0' has variable dimensions [T] besides"),
        ([(None, None)], [(None, None)], "input 'in0' has variable dimensions [?] besides"),
        ([("N", "S"), ("N", "S")], [("N", "S", 8), ("N", 8)], "input 'in0' has variable dimensions [S] besides"),
        # As Paddle's text recognisers have it.
        ([("DynamicDimension.0", 3, 48, "DynamicDimension.1")], [("fetch_o0__d0", "fetch_o0__d1", 97)], "[Dynamic"),
    ],
)
def test_rows_of_equal_shape_run_together(inputs: Shapes, outputs: Shapes, varying: str) -> None:
    found = verdict(header(inputs, outputs))
    assert found.batched and found.shaped
    assert varying in found.reason and found.reason.endswith("so only rows of equal shape run together")
    assert not verdict(header([("N", 3)], [("N", 2)])).shaped


@pytest.mark.parametrize("operator", DATA_DEPENDENT)
def test_rows_whose_size_depends_on_the_data(operator: str) -> None:
    found = verdict(header([("N", "S")], [("N", "K")], [operator]))
    assert not found.batched
    assert f"output 'out0' may have rows of any size [K]: the graph has {operator}" in found.reason
    assert verdict(header([("N", "S")], [("N", 7)], [operator])).shaped


def test_text_of_variable_length_is_served_alone() -> None:
    model = header([("N", "S")], [("N", 2)])
    text = dataclasses.replace(model.inputs[0], dtype="BYTES")
    found = verdict(dataclasses.replace(model, inputs=(text,)))
    assert not found.batched and "holds strings" in found.reason


@pytest.mark.parametrize("operator", DATA_DEPENDENT)
@pytest.mark.parametrize("first", [None, "boxes_dim_0", "unk__9"])
def test_rows_that_depend_on_the_data(operator: str, first: str | None) -> None:
    """A detector whose output axis nobody named: only the operator tells it from a classifier."""
    found = verdict(header([("batch", 3)], [(first, 7)], [operator]))
    assert not found.batched
    assert f"output 'out0' may have any number of rows: the graph has {operator}" in found.reason
    assert verdict(header([("batch", 3)], [(first, 7)], ["Conv"])).batched
    assert verdict(header([("batch", 3)], [("batch", 7)], [operator])).batched


@pytest.mark.parametrize("name", ["unk__1", "Addoutput_dim_0", "x_dynamic_axes_1", "a/b_o0__d2", "?", "None", "-1"])
def test_invented_names(name: str) -> None:
    assert is_invented(name)


@pytest.mark.parametrize("name", ["N", "batch", "batch_size", "dim_0", "s0", "unk", "num_dets", "batch_dim", ""])
def test_chosen_names(name: str) -> None:
    assert not is_invented(name)


def test_an_input_handed_through_as_output_keeps_a_model_alone() -> None:
    model = header([("N", 2), ("N", 3)], [("N", 2)])
    found = verdict(dataclasses.replace(model, outputs=(*model.outputs, model.inputs[1])))
    assert not found.batched
    assert "output 'in1' is an input handed through" in found.reason


@pytest.mark.parametrize("kind", ["input", "output"])
def test_strings_run_one_request_at_a_time(kind: str) -> None:
    """Rows without a size of their own cannot lie side by side; a slab has room as for any variable shape."""
    model = header([("N", 2)], [("N", 2)])
    text = (TensorInfo("text", "BYTES", ("N", 1)),)
    model = dataclasses.replace(model, inputs=text) if kind == "input" else dataclasses.replace(model, outputs=text)
    found = verdict(model)
    assert (found.batched, found.reason) == (False, f"served one request at a time: {kind} 'text' holds strings")
    planned = plan(
        [Shape(0 if kind == "input" else 4, (1, 2))],
        [Shape(0 if kind == "output" else 4, (1, 2))],
        batched=found.batched,
        max_batch_size=64,
        queue_rows=8,
        instances=1,
        max_body_bytes=1 << 20,
    )
    assert not planned.rows_mode
    assert (planned.input_bytes, planned.output_bytes) == (
        (1 << 20, 64) if kind == "input" else (64, VARIABLE_OUTPUT_BYTES)
    )
