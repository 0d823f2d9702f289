"""The batching verdict: a table of shapes, and the tensor that each refusal names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from server.models.batchability import verdict
from server.models.onnx_file import Dimension, OnnxModel, TensorInfo

Shapes = Sequence[tuple[Dimension, ...] | None]


def header(inputs: Shapes, outputs: Shapes) -> OnnxModel:
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
        op_counts={},
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
        ([("N", "S")], [("N", 2)], "input 'in0' has variable dimensions [S] besides the batch axis"),
        ([("N", 3, None, "W")], [("N", 2)], "input 'in0' has variable dimensions [?,W] besides the batch axis"),
        ([("N", 3)], [("N", "N")], "output 'out0' has variable dimensions [N] besides the batch axis"),
        (
            [("N", 3), ("M", 3)],
            [("N", 2)],
            "the inputs' first axes differ: 'in0' starts with 'N', 'in1' starts with 'M'",
        ),
        ([("N", 3)], [("boxes", 4)], "output 'out0' starts with 'boxes', the inputs with 'N'"),
        ([(None, 3)], [("boxes", 4)], "output 'out0' starts with 'boxes', the inputs with an unnamed axis"),
    ],
)
def test_one_at_a_time(inputs: Shapes, outputs: Shapes, obstacle: str) -> None:
    found = verdict(header(inputs, outputs))
    assert not found.batched
    assert found.reason == f"served one request at a time: {obstacle}"
