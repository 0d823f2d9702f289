"""Golden checks: what passes, what is refused and with which words, against ONNX Runtime on small models."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.executor.backend import LoadError
from server.executor.golden import EXACT, Tolerance, check_golden, first_difference
from server.executor.golden_tensors import TensorError, from_json, from_proto
from server.executor.onnx_backend import OnnxBackend
from server.executor.reshaping import ReshapingBackend
from server.executor.runner import TensorSpec
from server.models.golden_files import MAX_CASES, GoldenError, cases, golden_folder, signature
from server.protocol.datatypes import BY_NAME
from tests.support.onnx_writer import (
    ELEMENT_TYPES,
    FIXED_WIDTH_TYPES,
    _bytes,
    _integer,
    _varint,
    add_sub,
    classifier,
    identity,
    upper_case,
)

Shape = tuple[int, ...]
Spec = tuple[str, str, Shape]
Json = dict[str, Any]


def put(folder: Path, name: str, request: Json, answer: Json) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.request.json").write_text(json.dumps(request))
    (folder / f"{name}.response.json").write_text(json.dumps(answer))


def tensor(name: str, datatype: str, shape: list[int], data: Any, **more: Any) -> Json:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data, **more}


def check(
    tmp_path: Path, model: bytes, inputs: list[Spec], outputs: list[Spec], reshaped: dict[str, Shape] | None = None
) -> None:
    """Loads the model in tmp_path with whatever lies in tmp_path/golden."""
    (tmp_path / "model.onnx").write_bytes(model)
    native = OnnxBackend(tmp_path / "model.onnx", intra_op_threads=1)
    check_golden(
        tmp_path / "golden",
        backend=ReshapingBackend(native, reshaped) if reshaped else native,
        native=native,
        inputs=[TensorSpec(name, BY_NAME[datatype].code, dims) for name, datatype, dims in inputs],
        outputs=[TensorSpec(name, BY_NAME[datatype].code, dims) for name, datatype, dims in outputs],
    )


def check_add_sub(tmp_path: Path) -> None:
    both = [(name, "FP32", (-1, 4)) for name in ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")]
    check(tmp_path, add_sub(width=4), both[:2], both[2:])


REQUEST = {
    "inputs": [
        tensor("INPUT0", "FP32", [1, 4], [1, 2, 3, 4]),
        tensor("INPUT1", "FP32", [1, 4], [[0.5, 0.5, 0.5, 0.5]]),
    ]
}
SUM = tensor("OUTPUT0", "FP32", [1, 4], [1.5, 2.5, 3.5, 4.5])
DIFFERENCE = tensor("OUTPUT1", "FP32", [1, 4], [0.5, 1.5, 2.5, 3.5])


def test_an_answer_as_it_was_passes(tmp_path: Path) -> None:
    put(tmp_path / "golden", "one", REQUEST, {"model_name": "m", "outputs": [SUM, DIFFERENCE]})
    # The second output is not compared.
    put(tmp_path / "golden", "two", REQUEST | {"id": "7"}, {"id": "7", "outputs": [DIFFERENCE]})
    (tmp_path / "golden" / "README").write_text("where these come from")
    check_add_sub(tmp_path)


def test_the_first_difference_is_named(tmp_path: Path) -> None:
    wrong = DIFFERENCE | {"data": [0.5, 1.5, 2.75, 3.25]}
    put(tmp_path / "golden", "one", REQUEST, {"outputs": [SUM, wrong]})
    with pytest.raises(LoadError) as refused:
        check_add_sub(tmp_path)
    assert str(refused.value) == (
        "golden/one: output 'OUTPUT1' at [0, 2]: expected 2.75, got 2.5 "
        "(2 of 4 differ; allowed: rtol 0.001, atol 1e-05)"
    )


WIDER: dict[str, Callable[[Path], None]] = {
    "toml": lambda folder: (folder / "golden.toml").write_text("atol = 0.5\n") and None,
    "toml of the output": lambda folder: (folder / "golden.toml").write_text("[output.OUTPUT1]\nrtol = 0.2\n") and None,
    "response": lambda folder: put(
        folder, "one", REQUEST, {"parameters": {"atol": 0.5, "other": 1}, "outputs": [WRONG]}
    ),
    "output": lambda folder: put(
        folder, "one", REQUEST, {"parameters": {"atol": 0}, "outputs": [WRONG | {"parameters": {"atol": 0.5}}]}
    ),
}
WRONG = DIFFERENCE | {"data": [0.5, 1.5, 2.75, 3.5]}


@pytest.mark.parametrize("where", WIDER)
def test_tolerances_can_be_wider(where: str, tmp_path: Path) -> None:
    put(tmp_path / "golden", "one", REQUEST, {"outputs": [WRONG]})
    with pytest.raises(LoadError):
        check_add_sub(tmp_path)
    WIDER[where](tmp_path / "golden")
    check_add_sub(tmp_path)


REFUSED: dict[str, tuple[Json, Json, str]] = {
    "an error": (REQUEST, {"error": "no such model"}, "expected a JSON object with `outputs`, found an error"),
    "no outputs": (REQUEST, {"outputs": []}, "expected a JSON object with `outputs`"),
    "no inputs": ({"input": []}, {"outputs": [SUM]}, "one.request.json: expected a JSON object with `inputs`"),
    "unknown output": (REQUEST, {"outputs": [SUM | {"name": "z"}]}, "the model has no output 'z', it has OUTPUT0"),
    "another type": (REQUEST, {"outputs": [SUM | {"datatype": "INT64", "data": [1, 2, 3, 4]}]}, "the model's is FP"),
    "no such type": (REQUEST, {"outputs": [SUM | {"datatype": "FP31"}]}, "expected one of the V2 datatypes, got"),
    "binary": (REQUEST, {"outputs": [{**SUM, "data": None}]}, "expected its elements in `data`"),
    "too few": (REQUEST, {"outputs": [SUM | {"data": [1.5]}]}, "expected 4 elements for shape [1, 4], got 1"),
    "another shape": (REQUEST, {"outputs": [SUM | {"shape": [4]}]}, "expected shape [4], got [1, 4]"),
    "strings": (REQUEST, {"outputs": [SUM | {"data": ["1", "2", "3", "4"]}]}, "expected numbers"),
    "an input less": ({"inputs": REQUEST["inputs"][:1]}, {"outputs": [SUM]}, "expected each of the inputs INPUT0"),
    "refused by the model": (
        {"inputs": [REQUEST["inputs"][0], tensor("INPUT1", "FP32", [1, 3], [1, 2, 3])]},
        {"outputs": [SUM]},
        "the model refused the request",
    ),
    "a tolerance below 0": (REQUEST, {"parameters": {"rtol": -1}, "outputs": [SUM]}, "rtol: expected a number of 0 or"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_compared_is_refused(what: str, tmp_path: Path) -> None:
    request, answer, reason = REFUSED[what]
    put(tmp_path / "golden", "one", request, answer)
    with pytest.raises(LoadError) as refused:
        check_add_sub(tmp_path)
    assert str(refused.value).startswith("golden/one: ")
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rtol = ", "golden.toml is no TOML text"),
        ("tolerance = 1", "expected rtol and atol, got tolerance"),
        ("rtol = 'much'", "rtol: expected a number of 0 or more"),
        ("[output.z]\nrtol = 1", "the model has no output 'z'"),
    ],
)
def test_tolerances_that_cannot_be_followed(text: str, reason: str, tmp_path: Path) -> None:
    put(tmp_path / "golden", "one", REQUEST, {"outputs": [SUM]})
    (tmp_path / "golden" / "golden.toml").write_text(text)
    with pytest.raises(LoadError, match="golden: ") as refused:
        check_add_sub(tmp_path)
    assert reason in str(refused.value)


# -- what lies in the folder


def test_half_a_case_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GoldenError, match=r"no case; expected: NAME\.request\.json"):
        cases(tmp_path)
    (tmp_path / "a.request.json").write_text("{}")
    with pytest.raises(GoldenError, match=r"found: a\.request\.json without a\.response\.json"):
        cases(tmp_path)
    (tmp_path / "a.request.json").rename(tmp_path / "a.response.json")
    with pytest.raises(GoldenError, match=r"found: a\.response\.json without a\.request\.json"):
        cases(tmp_path)
    (tmp_path / "a.response.json").unlink()
    (tmp_path / "test_data_set_0").mkdir()
    (tmp_path / "test_data_set_0" / "input_1.pb").write_bytes(b"")
    with pytest.raises(GoldenError, match="test_data_set_0 with inputs 1; expected: input_0"):
        cases(tmp_path)
    (tmp_path / "test_data_set_0" / "input_0.pb").write_bytes(b"")
    with pytest.raises(GoldenError, match="with outputs none"):
        cases(tmp_path)
    (tmp_path / "test_data_set_0" / "output_0.pb").write_bytes(b"")
    assert [(case.name, len(case.inputs), len(case.outputs)) for case in cases(tmp_path)] == [("test_data_set_0", 2, 1)]
    for number in range(MAX_CASES):
        (tmp_path / f"{number}.request.json").write_text("")
        (tmp_path / f"{number}.response.json").write_text("")
    with pytest.raises(GoldenError, match=f"found: {MAX_CASES + 1} cases"):
        cases(tmp_path)


def test_the_version_s_own_folder_counts_first(tmp_path: Path) -> None:
    file = tmp_path / "m" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    assert golden_folder(file, tmp_path / "m") is None
    (tmp_path / "m" / "golden").mkdir()
    assert golden_folder(file, tmp_path / "m") == tmp_path / "m" / "golden"
    (tmp_path / "m" / "1" / "golden").mkdir()
    assert golden_folder(file, tmp_path / "m") == tmp_path / "m" / "1" / "golden"
    # Neighbours of a single file are not its own.
    assert golden_folder(file, None) is None


def test_the_signature_changes_with_the_files(tmp_path: Path) -> None:
    put(tmp_path, "one", REQUEST, {"outputs": [SUM]})
    before = signature(tmp_path)
    assert before == signature(tmp_path)
    os.utime(tmp_path / "one.response.json", ns=(1, 1))
    assert signature(tmp_path) != before
    assert signature(None) == ()


def test_files_are_read_only_inside_the_model_s_directory(tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    outside.write_text("secret")
    root = tmp_path / "m"
    put(root / "golden", "one", REQUEST, {"outputs": [SUM]})
    (root / "golden" / "one.response.json").unlink()
    (root / "golden" / "one.response.json").symlink_to(outside)
    with pytest.raises(LoadError, match="a link that leads out of the model's directory"):
        check_add_sub(root)
    (root / "golden" / "one.response.json").unlink()
    os.mkfifo(root / "golden" / "one.response.json")
    with pytest.raises(LoadError, match="not a regular file"):
        check_add_sub(root)


# -- every type, in both forms

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False, True, True],
    "FP16": [0.5, -1.0, 65504.0, 0.0],
    "BF16": [1.0, -2.5, 3.140625, 2.0**100],
    "BYTES": ["", "a", "b", "a longer one"],
}
VALUES |= {name: [0, 1, 127, 5] for name in FIXED_WIDTH_TYPES if name not in VALUES}


def as_proto(datatype: str, values: list[Any], typed: bool) -> bytes:
    """A TensorProto, its elements in raw_data or in the field of their type."""
    head = _integer(1, len(values)) + _integer(2, ELEMENT_TYPES[datatype])
    if datatype == "BYTES":
        return head + b"".join(_bytes(6, value) for value in values)
    if datatype == "BF16":
        raw = b"".join(struct.pack("<f", value)[2:] for value in values)
    else:
        raw = np.array(values, BY_NAME[datatype].numpy).tobytes()
    if not typed:
        return head + _bytes(9, raw)
    if datatype in ("FP32", "FP64"):
        return head + _bytes(4 if datatype == "FP32" else 10, raw)
    if datatype in ("FP16", "BF16"):
        values = list(struct.unpack(f"<{len(values)}H", raw))
    number = {"INT64": 7, "UINT32": 11, "UINT64": 11}.get(datatype, 5)
    return head + _bytes(number, b"".join(_varint(value) for value in values))


@pytest.mark.parametrize("datatype", VALUES)
def test_every_type_in_every_form(datatype: str) -> None:
    name, found, array = from_json(tensor("x", datatype, [4], VALUES[datatype]))
    assert (name, found.name, array.shape) == ("x", datatype, (4,))
    for typed in (False, True):
        _, same, again = from_proto(as_proto(datatype, VALUES[datatype], typed))
        assert same == found
        assert again.dtype == array.dtype
        assert first_difference(array, again, EXACT) is None


@pytest.mark.parametrize("datatype", VALUES)
def test_every_type_through_a_model(datatype: str, tmp_path: Path) -> None:
    if datatype == "BYTES":
        model, inputs, outputs = upper_case(), [("text", datatype, (-1,))], [("upper", datatype, (-1,))]
        upper = [value.upper() for value in VALUES[datatype]]
        asked = tensor("text", datatype, [4], ["abc", *VALUES[datatype][1:]])
        answer = tensor("upper", datatype, [4], ["ABC", *upper[1:]])
    else:
        model, inputs, outputs = identity(datatype, (-1,)), [("x", datatype, (-1,))], [("y", datatype, (-1,))]
        asked, answer = tensor("x", datatype, [4], VALUES[datatype]), tensor("y", datatype, [4], VALUES[datatype])
    put(tmp_path / "golden", "one", {"inputs": [asked]}, {"outputs": [answer]})
    check(tmp_path, model, inputs, outputs)
    wrong = answer | {"data": [*answer["data"][:3], "other" if datatype == "BYTES" else answer["data"][0]]}
    put(tmp_path / "golden", "one", {"inputs": [asked]}, {"outputs": [wrong]})
    if wrong != answer:
        with pytest.raises(LoadError, match=r"at \[3\]: expected") as refused:
            check(tmp_path, model, inputs, outputs)
        assert "(1 of 4 differ" in str(refused.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x08", "is no TensorProto: it"),
        (_integer(1, 4) + _integer(2, 1) + _bytes(9, bytes(12)), "has 3 elements; expected 4"),
        (_integer(1, 4) + _integer(2, 1) + _bytes(9, bytes(13)), "has 13 bytes of elements of 4 bytes each"),
        (_integer(2, 15), "a type that is not"),
        (_integer(2, 1) + _integer(14, 1), "keeps its elements in another file"),
        (_integer(1, -1) + _integer(2, 1), "a shape that no tensor has"),
        (_integer(1, 1) + _integer(2, 1) + _integer(7, 1), "keeps FP32 in a field of another type"),
    ],
)
def test_protos_that_are_none(data: bytes, reason: str) -> None:
    with pytest.raises(TensorError) as refused:
        from_proto(data)
    assert reason.replace("a type that is not", "no tensor of a type that is served") in str(refused.value)


def test_onnx_s_own_layout(tmp_path: Path) -> None:
    """By position where the tensors have no name; more inputs than one; outputs compared with tolerance."""
    folder = tmp_path / "golden" / "test_data_set_0"
    folder.mkdir(parents=True)
    a, b = np.arange(8, dtype=np.float32).reshape(2, 4), np.full((2, 4), 3, np.float32)

    def proto(array: Any, name: str = "") -> bytes:
        dims = b"".join(_integer(1, size) for size in array.shape)
        return dims + _integer(2, 1) + (_bytes(8, name) if name else b"") + _bytes(9, array.tobytes())

    (folder / "input_0.pb").write_bytes(proto(a))
    (folder / "input_1.pb").write_bytes(proto(b))
    (folder / "output_0.pb").write_bytes(proto((a + b) * np.float32(1.0001)))
    (folder / "output_1.pb").write_bytes(proto(a - b))
    check_add_sub(tmp_path)
    # Names go before positions.
    (folder / "input_0.pb").write_bytes(proto(b, "INPUT1"))
    (folder / "input_1.pb").write_bytes(proto(a, "INPUT0"))
    check_add_sub(tmp_path)
    (folder / "output_1.pb").write_bytes(proto(b - a))
    with pytest.raises(LoadError, match=r"golden/test_data_set_0: output 'OUTPUT1' at \[0, 0\]: expected 3, got -3"):
        check_add_sub(tmp_path)
    (folder / "output_2.pb").write_bytes(proto(a))
    with pytest.raises(LoadError, match=r"output_2\.pb has no counterpart"):
        check_add_sub(tmp_path)


def test_clients_shapes_and_the_model_s(tmp_path: Path) -> None:
    """A request has the shapes of config.pbtxt, ONNX's tensors those of the model."""
    put(
        tmp_path / "golden",
        "one",
        {"inputs": [tensor("x", "FP32", [2, 1, 4], list(range(8)))]},
        {"outputs": [tensor("y", "FP32", [2, 2, 2], list(range(8)))]},
    )
    folder = tmp_path / "golden" / "test_data_set_0"
    folder.mkdir()
    data = _integer(1, 2) + _integer(1, 4) + _integer(2, 1) + _bytes(9, bytes(32))
    (folder / "input_0.pb").write_bytes(data)
    (folder / "output_0.pb").write_bytes(data)
    both = [("x", "FP32", (-1, 4))], [("y", "FP32", (-1, 4))]
    check(tmp_path, identity(), *both, reshaped={"x": (-1, 4), "y": (-1, 2, 2)})


@pytest.mark.parametrize(
    ("expected", "got", "allowed", "is_equal"),
    [
        ([1.0], [1.0], EXACT, True),
        ([float("nan")], [float("nan")], EXACT, True),
        ([float("nan")], [1.0], Tolerance(1, 1), False),
        ([float("inf")], [float("inf")], EXACT, True),
        ([float("inf")], [3e38], Tolerance(1e-3, 1e-5), False),
        ([100.0], [100.2], Tolerance(1e-3, 0), False),
        ([100.0], [100.05], Tolerance(1e-3, 0), True),
        ([0.0], [1e-6], Tolerance(1e-3, 1e-5), True),
        ([0.0], [1e-4], Tolerance(1e-3, 1e-5), False),
        ([], [], EXACT, True),
    ],
)
def test_how_far_is_too_far(expected: list[float], got: list[float], allowed: Tolerance, is_equal: bool) -> None:
    difference = first_difference(np.array(expected), np.array(got), allowed)
    assert (difference is None) == is_equal


def test_labels_are_compared_exactly(tmp_path: Path) -> None:
    asked = tensor("image", "FP32", [1, 64], [0.5] * 64)
    put(tmp_path / "golden", "one", {"inputs": [asked]}, {"outputs": [tensor("label", "INT64", [1], [11])]})
    (tmp_path / "golden" / "golden.toml").write_text("atol = 100\n")
    outputs = [("probabilities", "FP32", (-1, 10)), ("label", "INT64", (-1,))]
    with pytest.raises(LoadError, match=r"output 'label' at \[0\]: expected 11, got \d \(1 of 1 differ\)"):
        check(tmp_path, classifier(), [("image", "FP32", (-1, 64))], outputs)
