"""What an executor is told of a model comes out of a document as it went in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.models.batch_axes import NO_AXES, BatchAxes
from server.models.model_config import SessionSettings, WarmUp, WarmUpInput
from server.models.plan_document import from_document, to_document
from server.models.providers import CUDA, Place, Provider
from server.models.shape_rules import NO_PADDING, Cut, Pad, Padding

VALUES: list[Any] = [
    None,
    True,
    -1,
    0.5,
    "text",
    b"\x00\xff",
    (1, ("a", None), ()),
    [1, (2,), []],
    {"a": (1, 2), "b": ()},
    {3: "a key that is no text"},
    Path("models/m/1/model.onnx"),
    frozenset({"b", "a"}),
    SessionSettings(mem_arena=False, providers=(Provider(CUDA, (("device_id", "1"),)),), entries=(("k", "v"),)),
    (WarmUp("zeros", 4, 2, (WarmUpInput("x", "FP32", (-1, 2), False),)),),
    Padding((Pad(0, 1, 0, 8, 512, b"\0\0\0\0", False, True),), (Cut(0, 1, 0, 2, 3, True),)),
    (Place("cpu"), Place("cuda:1", (Provider(CUDA),))),
    NO_PADDING,
    BatchAxes({"x": 1}, frozenset({"state"})),
    NO_AXES,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_it_comes_out_as_it_went_in(value: Any) -> None:
    got = from_document(json.loads(json.dumps(to_document(value))))
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("value", [object(), {1, 2}, json.JSONDecoder()])
def test_what_could_not_come_out_does_not_go_in(value: Any) -> None:
    with pytest.raises(TypeError, match="expected a value of a model's plan"):
        to_document({"key": (value,)})
