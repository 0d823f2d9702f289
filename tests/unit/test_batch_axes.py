"""batch_axis_ and same_ parameters: where a model's tensors count rows, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.models import repository
from server.models.batch_axes import BatchAxes, batch_axes
from server.models.config_document import configured, text_of
from server.models.lane_settings import settings_of
from server.models.onnx_file import OnnxModel, TensorInfo
from server.models.repository import ModelVersion
from server.models.shape_rules import ShapeRuleError
from tests.support import triton_repository
from tests.support.onnx_writer import Graph
from tests.unit.test_config_fit import SERVER, shapes

PARAMETERS = {"batch_axis_state": "1", "batch_axis_next": "1", "same_rate": "true"}


def voice(*, operator: str = "Identity") -> bytes:
    graph = Graph("voice")
    graph.input("sound", "FP32", [-1, 4])
    graph.input("state", "FP32", [2, -1, 8])
    graph.input("rate", "INT64", [])
    graph.node("Identity", ["sound"], ["speech"])
    graph.node("Identity", ["state"], ["next"])
    graph.node(operator, ["rate"], ["unused"])
    graph.output("speech", "FP32", [-1, 4])
    graph.output("next", "FP32", [2, -1, 8])
    return graph.model()


def config(**parameters: str) -> str:
    return "".join(
        f'parameters {{\n key: "{key}" value {{ string_value: "{value}" }} }}\n' for key, value in parameters.items()
    )


def read(root: Path, text: str, content: bytes | None = None) -> ModelVersion:
    triton_repository.put(root, "m", content or voice(), text)
    (found,) = repository.scan(root / "m")
    return found


def test_shapes_have_their_batch_axis_in_front_inside_and_where_it_was_for_clients(tmp_path: Path) -> None:
    found = read(tmp_path, config(**PARAMETERS))
    assert found.error is None and found.batching is not None and found.fitted is not None
    assert found.batching.batched and found.batching.shaped
    for text in ("'state' counts rows on axis 1", "'next' counts rows on axis 1", "all rows of a batch share 'rate'"):
        assert text in found.batching.reason
    assert shapes(found.fitted.inputs) == [[-1, 4], [-1, 2, 8], [-1]]
    assert shapes(tuple(map(found.fitted.batch_axes.restored, found.fitted.inputs))) == [[-1, 4], [2, -1, 8], []]
    assert shapes(tuple(map(found.fitted.batch_axes.restored, found.fitted.outputs))) == [[-1, 4], [2, -1, 8]]
    assert found.fitted.batch_axes.by_name() == {"state": 1, "next": 1, "rate": -1}
    assert settings_of(found, SERVER).plan.shaped


def test_without_a_word_requests_run_one_at_a_time(tmp_path: Path) -> None:
    found = read(tmp_path, "")
    assert found.batching is not None and not found.batching.batched
    assert found.fitted is not None and not found.fitted.batch_axes


def test_what_explain_prints_says_the_same(tmp_path: Path) -> None:
    found = read(tmp_path, config(**PARAMETERS))
    settings = settings_of(found, SERVER)
    again = read(tmp_path / "again", text_of(found, settings))
    assert again.error is None
    assert again.fitted is not None and found.fitted is not None
    assert (again.fitted.batch_axes, again.fitted.inputs) == (found.fitted.batch_axes, found.fitted.inputs)
    (_, state, rate) = configured(again, settings)["input"]
    assert state["dims"] == [2, 8] and rate["reshape"] == {"shape": []}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"batch_axis_state": "0"},
            "line 1: parameters{batch_axis_state}: expected a free axis of 'state' [2,axis1,8]",
        ),
        ({"batch_axis_state": "one"}, "which holds FP32 (1), got 'one'"),
        ({"batch_axis_rate": "1"}, "(none), got '1'"),
        ({"batch_axis_nobody": "1"}, "one of batch_axis_sound, batch_axis_state"),
        ({"same_rate": "yes"}, "expected true, got 'yes'"),
        ({"same_sound": "true"}, "expected numbers of a fixed shape, 'sound' is FP32 [batch,4]"),
        ({"same_next": "true"}, "expected the name of a tensor: one of same_sound"),
        ({"max_batch_size": "0"}, "expected a model that can be batched: "),
        ({"pad_sound": "axis=1 multiple=4"}, "not supported where batch axes are not the first"),
        ({"batch_axis_next": ""}, "(1), got ''"),
    ],
)
def test_what_cannot_be_followed_is_refused(tmp_path: Path, change: dict[str, str], text: str) -> None:
    rows = change.pop("max_batch_size", None)
    found = read(tmp_path, config(**(PARAMETERS | change)) + (f"max_batch_size: {rows}" if rows else ""))
    assert found.error is not None and text in found.error


def test_all_tensors_have_to_be_told_of(tmp_path: Path) -> None:
    found = read(tmp_path, config(batch_axis_state="1", batch_axis_next="1"))
    assert found.error is not None and "expected a model that can be batched: input 'rate' is a scalar" in found.error


def model(*inputs: TensorInfo) -> OnnxModel:
    return OnnxModel(Path("m"), 0, 8, {}, "", "", inputs, (), 0, {}, 0, 0, ())


@pytest.mark.parametrize(("count", "is_taken"), [(7, True), (8, False)])
def test_a_value_lies_where_dims_do(count: int, is_taken: bool) -> None:
    tensors = model(TensorInfo("x", "FP32", (None,)), TensorInfo("v", "INT64", (count,)))
    if is_taken:
        assert batch_axes({"same_v": "true"}, tensors) == BatchAxes({}, frozenset({"v"}))
        return
    with pytest.raises(ShapeRuleError, match="at most 56 bytes"):
        batch_axes({"same_v": "true"}, tensors)


def test_some_input_counts_rows() -> None:
    with pytest.raises(ShapeRuleError, match="an input that has a batch axis"):
        batch_axes({"same_v": "true"}, model(TensorInfo("v", "INT64", ())))


def test_strings_have_no_rows_of_a_size() -> None:
    with pytest.raises(ShapeRuleError, match="which holds BYTES"):
        batch_axes({"batch_axis_t": "1"}, model(TensorInfo("t", "BYTES", (2, None))))


def test_the_first_axis_is_no_news() -> None:
    assert not batch_axes({"batch_axis_x": "0"}, model(TensorInfo("x", "FP32", (None, 3))))
