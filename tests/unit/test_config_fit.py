"""A configuration and a model's file together: shapes that are served, contradictions, and what the lane gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server import cli_explain
from server.config import ServeConfig
from server.models import repository
from server.models.config_document import configured, text_of
from server.models.lane_settings import settings_of
from server.models.onnx_file import TensorInfo
from server.models.repository import ModelVersion
from tests.support import onnx_writer, triton_repository
from tests.support.onnx_writer import Graph

SERVER = ServeConfig(instances=1, intra_op_threads=4, queue_rows=256)


def read(root: Path, content: bytes, config: str | None) -> ModelVersion:
    triton_repository.put(root, "m", content, config)
    (found,) = repository.scan(root / "m")
    return found


def shapes(tensors: tuple[TensorInfo, ...]) -> list[list[int]]:
    return [tensor.dims for tensor in tensors]


def free(dims: list[int]) -> bytes:
    return onnx_writer.identity(dims=dims)


def shapeless_output() -> bytes:
    graph = Graph("shapeless")
    graph.input("x", "FP32", [-1, 4])
    graph.node("Identity", ["x"], ["y"])
    graph.output("y", "FP32", None)
    return graph.model()


def test_left_out_everything_is_inferred(tmp_path: Path) -> None:
    found = read(tmp_path, free([-1, 4]), "# nothing\n")
    assert found.batching is not None and found.batching.batched
    assert settings_of(found, SERVER) == settings_of(read(tmp_path / "other", free([-1, 4]), None), SERVER)


def test_zero_rows_are_no_batch(tmp_path: Path) -> None:
    found = read(tmp_path, free([-1, 4]), "max_batch_size: 0")
    assert found.batching is not None and not found.batching.batched
    assert "max_batch_size is 0 in config.pbtxt" in found.batching.reason


@pytest.mark.parametrize(("dims", "batched"), [("[ 4 ]", True), ("[ -1, 4 ]", False)])
def test_dims_show_the_batch_axis(tmp_path: Path, dims: str, batched: bool) -> None:
    found = read(tmp_path, free([-1, 4]), f'input {{ name: "x" dims: {dims} }}')
    assert found.error is None and found.batching is not None and found.batching.batched == batched


def test_a_size_takes_the_place_of_a_free_dimension(tmp_path: Path) -> None:
    text = 'max_batch_size: 4 input { name: "x" dims: [ 5 ] } output { name: "y" dims: [ 5 ] }'
    found = read(tmp_path, free([-1, -1]), text)
    assert found.fitted is not None and shapes(found.fitted.inputs) == shapes(found.fitted.outputs) == [[-1, 5]]
    assert settings_of(found, SERVER).plan.rows_mode


def test_dims_give_an_output_its_shape(tmp_path: Path) -> None:
    assert not settings_of(read(tmp_path / "without", shapeless_output(), None), SERVER).plan.rows_mode
    found = read(tmp_path, shapeless_output(), 'max_batch_size: 4 output { name: "y" dims: [ 4 ] }')
    assert settings_of(found, SERVER).plan.rows_mode


def test_a_reshape_is_what_the_model_gets(tmp_path: Path) -> None:
    text = 'max_batch_size: 4 input { name: "x" dims: [ 2, 2 ] reshape { shape: [ 4 ] } }'
    found = read(tmp_path, free([-1, 4]), text)
    assert found.fitted is not None and found.model is not None
    assert (shapes(found.fitted.inputs), shapes(found.model.inputs)) == ([[-1, 2, 2]], [[-1, 4]])


def test_strings_keep_their_batch_axis(tmp_path: Path) -> None:
    found = read(tmp_path, triton_repository.strings(), triton_repository.STRINGS.replace("strings", "m"))
    assert found.error is None and found.batching is not None and not found.batching.batched
    assert configured(found, settings_of(found, SERVER))["max_batch_size"] == 8


def test_the_lane_gets_what_is_said(tmp_path: Path) -> None:
    text = (
        "max_batch_size: 16 instance_group { count: 2 } dynamic_batching { preferred_batch_size: [ 8, 4 ] "
        "max_queue_delay_microseconds: 70 default_queue_policy { max_queue_size: 40 } }"
    )
    found = settings_of(read(tmp_path, free([-1, 4]), text), SERVER)
    assert (found.plan.row_capacity, found.instances, found.intra_op_threads) == (16, 2, 2)
    assert (found.max_queue_delay_us, found.preferred_rows, found.queue_rows) == (70, 4, 40)
    assert found.plan.slab_count == 3 + 2 + 1
    threads = 'parameters { key: "intra_op_thread_count" value: { string_value: "3" } }'
    assert settings_of(read(tmp_path / "other", free([-1, 4]), threads), SERVER).intra_op_threads == 3
    target = read(tmp_path / "slo", free([-1, 4]), 'parameters { key: "slo_p99_ms" value: { string_value: "7.5" } }')
    assert settings_of(target, ServeConfig(slo_p99_ms=20.0)).slo_p99_us == 7500
    assert settings_of(read(tmp_path / "none", free([-1, 4]), None), ServeConfig(slo_p99_ms=20.0)).slo_p99_us == 20000


REFUSED = [
    ([1, 4], "\nmax_batch_size: 4", "line 2: max_batch_size: expected 0"),
    ([-1, 4], 'input { name: "z" }', "line 1: input[0].name: expected one of the model's inputs 'x', got 'z'"),
    ([-1, 4], 'input { name: "x" data_type: TYPE_INT8 }', "input[0].data_type: expected the model's FP32, got INT8"),
    (
        [-1, 4],
        'max_batch_size: 2\ninput { name: "x" dims: [ -1, 4 ] }',
        "line 2: input[0].dims: expected [4] for 'x', its shape [batch,4] without the batch axis, since max_batch_size",
    ),
    ([-1, 4], 'max_batch_size: 2 input { name: "x" dims: [ 5 ] }', "input[0].dims: expected [4]"),
    ([2, 4], 'input { name: "x" dims: [ 2, 4 ] reshape { shape: [ 8 ] } }', "input[0].reshape: expected"),
    ([2, 4], "dynamic_batching { max_queue_delay_microseconds: 5 }", "dynamic_batching: expected max_batch_size > 0"),
    (
        [-1, 4],
        'model_warmup { inputs { key: "z" value { data_type: TYPE_FP32 zero_data: true } } }',
        "model_warmup[0].inputs: expected every input, 'x' is missing",
    ),
    (
        [-1, 4],
        'model_warmup { inputs { key: "x" value { data_type: TYPE_FP32 dims: 5 zero_data: true } } }',
        "model_warmup[0].inputs{x}: expected FP32 [4], got FP32 [5]",
    ),
    ([-1, 4], 'output { name: "y" label_filename: "l.txt" }', "output[0].label_filename: expected a file 'l.txt'"),
]


@pytest.mark.parametrize(("dims", "text", "reason"), REFUSED, ids=[reason[:40] for _, _, reason in REFUSED])
def test_contradictions(tmp_path: Path, dims: list[int], text: str, reason: str) -> None:
    found = read(tmp_path, free(dims), text)
    assert found.error is not None and found.error.startswith("config.pbtxt line ") and reason in found.error


def test_order_and_instances(tmp_path: Path) -> None:
    found = read(tmp_path, free([-1, 4]), "dynamic_batching { preserve_ordering: true }")
    assert settings_of(found, ServeConfig(instances=4)).instances == 4


def test_a_model_without_versions(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(free([-1, 4]))
    (tmp_path / "config.pbtxt").write_text("max_batch_size: 3")
    (found,) = repository.scan(tmp_path)
    assert found.config.max_batch_size == 3


@pytest.mark.parametrize(
    "content", [b"\xff", b"a" * (2 << 20), b"input " * 1000, b"input {" * 2000, b"[" * 5000, b'name: "\\'], ids=len
)
def test_what_is_no_configuration(tmp_path: Path, content: bytes) -> None:
    folder = triton_repository.put(tmp_path, "m", free([-1, 4]), None)
    (folder / "config.pbtxt").write_bytes(content)
    (found,) = repository.scan(folder)
    assert found.error is not None and found.error.startswith("config.pbtxt")


def test_versions(tmp_path: Path) -> None:
    for version in (1, 2, 5):
        triton_repository.put(tmp_path, "m", free([-1, 4]), None, version)

    def served(policy: str) -> list[tuple[int, bool]]:
        (tmp_path / "m" / "config.pbtxt").write_text(f"version_policy {{ {policy} }}")
        return [(one.version, one.error is None) for one in repository.scan(tmp_path)]

    assert served("") == [(5, True)]
    assert served("latest { num_versions: 2 }") == [(2, True), (5, True)]
    assert served("all { }") == [(1, True), (2, True), (5, True)]
    assert served("specific { versions: [ 1, 4 ] }") == [(1, True), (4, False)]


def test_what_changes_the_files(tmp_path: Path) -> None:
    folder = triton_repository.put(tmp_path, "m", free([-1, 4]), 'output { name: "y" label_filename: "l" }')
    reader = repository.Reader()

    def files() -> repository.Files:
        (found,) = repository.scan(folder, reader=reader)
        return found.files

    seen = [files()]
    (folder / "l").write_text("cat\n")
    seen.append(files())
    (folder / "l").write_text("cat\r\ndog")
    seen.append(files())
    (found,) = repository.scan(folder, reader=reader)
    assert found.config.labels == (("y", ("cat", "dog")),)
    (folder / "config.pbtxt").write_text("max_batch_size: 3")
    seen.append(files())
    (folder / "config.pbtxt").unlink()
    seen.append(files())
    reader.configs.give("m", {"max_batch_size": 2})
    seen.append(files())
    (found,) = repository.scan(folder, reader=reader)
    assert found.config.max_batch_size == 2
    reader.configs.give("m", None)
    assert len(set(seen)) == 6 and files() == seen[4]


@pytest.mark.parametrize("name", ["densenet_onnx", "simple", "batched", "strings", "scalars", "plain"])
def test_explained_and_read_again_it_is_the_same(tmp_path: Path, name: str) -> None:
    folder = triton_repository.write(tmp_path) / name
    before = repository.scan(folder)[-1]
    settings = settings_of(before, SERVER)
    (folder / "config.pbtxt").write_text(text_of(before, settings))
    after = repository.scan(folder)[-1]
    assert after.error is None and after.fitted is not None and before.fitted is not None
    assert settings_of(after, SERVER) == settings
    assert (after.fitted.inputs, after.fitted.outputs) == (before.fitted.inputs, before.fitted.outputs)
    assert (after.batching, after.config.session) == (before.batching, before.config.session)
    assert after.config.warm_ups == before.config.warm_ups and after.config.labels == before.config.labels
    assert text_of(after, settings) == text_of(before, settings)
    assert json.dumps(configured(after, settings))


def test_explain_prints_reasons_as_comments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = triton_repository.write(tmp_path) / "plain"
    assert cli_explain.run([str(folder)]) == 0
    text = capsys.readouterr().out
    assert "# batch axis: 0 'batch' of every input and output\n" in text
    assert "# batching: yes: axis 'batch' is free on every input and output\n" in text
    (folder / "config.pbtxt").write_text(text)
    (found,) = repository.scan(folder)
    assert found.error is None
