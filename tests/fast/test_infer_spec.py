"""server/_fast/infer_spec: what a Spec refuses, and the error that carries a refusal."""

from __future__ import annotations

import gc

import pytest

from server._fast.infer_json_index import index
from server._fast.infer_spec import InferRefused, Spec


@pytest.mark.parametrize(
    ("batched", "max_batch", "inputs", "text"),
    [
        (True, 0, [], "model 'm': expected max_batch of at least 1, got 0"),
        (False, 1, [("x", "FP8", [1])], "model 'm', input 'x': unknown datatype 'FP8'"),
        (False, 1, [("x", "fp32", [1])], "unknown datatype 'fp32'"),
        (False, 1, [("x", "FP32", [1] * 9)], "expected at most 8 dimensions, got 9"),
        (False, 1, [("x", "FP32", [1, -2])], "expected dimensions of at least -1"),
        (True, 1, [("x", "FP32", [1, 2])], "expected -1 as the first dimension of a batched model, got (1, 2)"),
        (True, 1, [("x", "FP32", [])], "expected -1 as the first dimension of a batched model, got ()"),
        (False, 1, [("x", "FP32", [1]), ("x", "FP32", [1])], "the name stands there twice"),
        (False, 1, [("x", "FP32", [2**20, 2**20])], "are too many elements"),
        (False, 1, [("x", "FP32", [-1, 2**40])], "are too many elements"),
        (False, 1, [("\ud800", "FP32", [1])], "surrogates not allowed"),
    ],
)
def test_wrong_specs_name_the_tensor(
    batched: bool, max_batch: int, inputs: list[tuple[str, str, list[int]]], text: str
) -> None:
    with pytest.raises(ValueError) as caught:
        Spec("m", "1", batched, max_batch, inputs, [])
    assert text in str(caught.value)


def test_a_spec_owns_what_it_points_to() -> None:
    """Nothing the caller passed in has to live on."""
    name = "x" * 1000
    spec = Spec("m" * 1000, "1", False, 1, ((name, "INT8", dim) for dim in [[1]]), [("y", "INT8", (1,))])
    del name
    gc.collect()
    body = b'{"inputs":[{"name":"' + b"x" * 1000 + b'","shape":[1],"datatype":"INT8","data":[1]}]}'
    assert index(body, spec)["rows"] == 1
    assert (spec.name, spec.version) == ("m" * 1000, "1")


def test_refusal_carries_code_and_text() -> None:
    error = InferRefused(4, "no")
    assert (error.code, error.text, str(error)) == (4, "no", "no")
    assert isinstance(error, ValueError)


def test_long_text_is_cut_between_characters() -> None:
    """Names of a model may be long; the text stays valid UTF-8 of at most 511 bytes."""
    for pad in range(4):
        names = ["é" * 200 + str(number) + "a" * pad for number in range(40)]
        spec = Spec("模" * 60 + "b" * pad, "1", False, 1, [(name, "INT8", [1]) for name in names], [])
        with pytest.raises(InferRefused) as caught:
            index(b'{"inputs":[]}', spec)
        assert len(caught.value.text.encode()) <= 511
        assert caught.value.text.startswith("expected 40 inputs but got 0 inputs for model '模模")
