"""server/_fast/tensor_bytes through infer_json_index: binary sections, and bodies without a JSON part."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from server._fast.infer_json_index import index, raw_index
from server._fast.infer_spec import InferRefused, Spec
from tests.reference import infer_json as reference
from tests.reference import numbers

A = ("a", "FP32", [-1, 2])
B = ("b", "INT16", [-1])
Y = ("y", "FP32", [-1])
SPEC = Spec("m", "1", True, 8, [A, B], [Y, ("z", "INT8", [-1])])
MODEL = reference.Model("m", "1", True, [A, B], [Y, ("z", "INT8", [-1])])
A_BYTES = struct.pack("<4f", 1, 2, 3, 4)
B_BYTES = struct.pack("<2h", 5, -6)


def tensor(name: str, shape: list[int], datatype: str, size: object) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}


def body_of(inputs: list[dict[str, Any]], behind: bytes, **more: Any) -> tuple[bytes, int]:
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + behind, len(head)


def contents(body: bytes, found: dict[str, Any]) -> list[bytes | None]:
    spans = [tensor["bytes"] for tensor in found["inputs"]]
    return [None if span is None else body[span[0] : span[0] + span[1]] for span in spans]


def test_sections_follow_the_order_of_the_inputs_array() -> None:
    a, b = tensor("a", [2, 2], "FP32", 16), tensor("b", [2], "INT16", 4)
    for inputs, behind in (([a, b], A_BYTES + B_BYTES), ([b, a], B_BYTES + A_BYTES)):
        body, json_bytes = body_of(inputs, behind)
        found = index(body, SPEC, json_bytes)
        assert contents(body, found) == [A_BYTES, B_BYTES]
        assert found["rows"] == 2
        expected = reference.read_request(body, MODEL, json_bytes)
        assert [expected.inputs["a"][2], expected.inputs["b"][2]] == [A_BYTES, B_BYTES]


def test_json_and_binary_inputs_mix() -> None:
    body, json_bytes = body_of(
        [tensor("a", [2, 2], "FP32", 16), {"name": "b", "shape": [2], "datatype": "INT16", "data": [5, -6]}], A_BYTES
    )
    assert contents(body, index(body, SPEC, json_bytes)) == [A_BYTES, None]


@pytest.mark.parametrize(
    ("inputs", "behind", "text"),
    [
        (
            [tensor("a", [2, 2], "FP32", 16), tensor("b", [2], "INT16", 4)],
            A_BYTES + B_BYTES + b"?",
            "unexpected additional input data for model 'm': 1 bytes behind the last tensor",
        ),
        (
            [tensor("a", [2, 2], "FP32", 16), tensor("b", [2], "INT16", 4)],
            A_BYTES + B_BYTES[:1],
            "unexpected size for input 'b', expecting 3 additional bytes for model 'm'",
        ),
        (
            [tensor("a", [2, 2], "FP32", 2**63 - 1)],
            A_BYTES,
            "unexpected size for input 'a', expecting 9223372036854775791 additional bytes for model 'm'",
        ),
        (
            [tensor("a", [2, 2], "FP32", 15), tensor("b", [2], "INT16", 4)],
            A_BYTES[:15] + B_BYTES,
            "input byte size mismatch for input 'a' for model 'm'. Expected 16, got 15",
        ),
        (
            [tensor("a", [2, 2], "FP32", 0), tensor("b", [2], "INT16", 4)],
            B_BYTES,
            "input byte size mismatch for input 'a' for model 'm'. Expected 16, got 0",
        ),
        (
            [tensor("a", [2**61, 2], "FP32", 16), tensor("b", [2**61], "INT16", 4)],
            A_BYTES + B_BYTES,
            "shape [2305843009213693952,2] causes total element count to exceed maximum size of 9223372036854775807",
        ),
        ([tensor("a", [2, 2], "FP32", -1)], A_BYTES, "Unable to parse 'binary_data_size': expected a non-negative"),
        ([tensor("a", [2, 2], "FP32", 2**64)], A_BYTES, "Unable to parse 'binary_data_size': expected a non-negative"),
        ([tensor("a", [2, 2], "FP32", "16")], A_BYTES, "Unable to parse 'binary_data_size': expected a non-negative"),
        ([tensor("a", [2, 2], "FP32", 16.0)], A_BYTES, "Unable to parse 'binary_data_size': expected a non-negative"),
        ([tensor("a", [2, 2], "FP32", None)], A_BYTES, "But no field is set"),
        (
            [{**tensor("a", [2, 2], "FP32", 16), "data": [1, 2, 3, 4]}],
            A_BYTES,
            "But set 'data' 'binary_data_size'",
        ),
    ],
)
def test_refused_with_this_text(inputs: list[dict[str, Any]], behind: bytes, text: str) -> None:
    body, json_bytes = body_of(inputs, behind)
    with pytest.raises(InferRefused) as caught:
        index(body, SPEC, json_bytes)
    assert text in caught.value.text
    assert caught.value.code == 1
    with pytest.raises(reference.Refused):
        reference.read_request(body, MODEL, json_bytes)


def test_header_length_beyond_the_body() -> None:
    body, json_bytes = body_of([tensor("a", [2, 2], "FP32", 16), tensor("b", [2], "INT16", 4)], A_BYTES + B_BYTES)
    with pytest.raises(InferRefused) as caught:
        index(body, SPEC, len(body) + 1)
    assert caught.value.text == f"inference header size should be in range (0, {len(body)}), got: {len(body) + 1}"
    for wrong in (*range(1, json_bytes), *range(json_bytes + 1, len(body) + 1)):
        with pytest.raises(InferRefused):
            index(body, SPEC, wrong)


@pytest.mark.parametrize("datatype", numbers.DATATYPES)
def test_sizes_of_every_datatype(datatype: str) -> None:
    spec = Spec("m", "1", False, 1, [("x", datatype, [3])], [Y])
    size = 3 * numbers.WIDTH_BYTES[datatype]
    for given in (size - 1, size, size + 1):
        body, json_bytes = body_of([tensor("x", [3], datatype, given)], b"\1" * given)
        if given == size:
            assert contents(body, index(body, spec, json_bytes)) == [b"\1" * size]
        else:
            with pytest.raises(InferRefused, match=f"Expected {size}, got {given}"):
                index(body, spec, json_bytes)


def test_bool_bytes_are_zero_or_one() -> None:
    spec = Spec("m", "1", False, 1, [("x", "BOOL", [256])], [Y])
    good = b"\0\1" * 128
    for read in (lambda body: raw_index(body, spec), lambda body: index(*with_head(body))):

        def with_head(body: bytes) -> tuple[bytes, Spec, int]:
            whole, json_bytes = body_of([tensor("x", [256], "BOOL", 256)], body)
            return whole, spec, json_bytes

        read(good)
        for at, wrong in ((0, 2), (255, 128), (100, 255)):
            with pytest.raises(InferRefused, match="input 'x': BOOL elements are bytes 0 or 1, got another value"):
                read(good[:at] + bytes([wrong]) + good[at + 1 :])


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("default", [None, False, True])
@pytest.mark.parametrize("own", [None, False, True])
def test_binary_outputs(listed: bool, default: bool | None, own: bool | None) -> None:
    """The request's flag holds for every output that says nothing itself."""
    parameters = {} if default is None else {"parameters": {"binary_data_output": default}}
    output = {"name": "z", **({} if own is None else {"parameters": {"binary_data": own}})}
    outputs = {"outputs": [output]} if listed else {}
    body, json_bytes = body_of(
        [tensor("a", [2, 2], "FP32", 16), tensor("b", [2], "INT16", 4)], A_BYTES + B_BYTES, **outputs, **parameters
    )
    expected = bool(default) if own is None else own
    found = index(body, SPEC, json_bytes)["outputs"]
    assert found == ([(1, expected)] if listed else [(0, bool(default)), (1, bool(default))])


# ---- bodies without a JSON part


@pytest.mark.parametrize(
    ("batched", "dims", "size", "shape"),
    [
        (True, [-1, 2], 8, [1, 2]),
        (True, [-1, -1], 12, [1, 3]),
        (True, [-1, -1], 0, [1, 0]),
        (True, [-1], 4, [1]),
        (True, [-1, 2, -1, 3], 48, [1, 2, 2, 3]),
        (False, [-1], 20, [5]),
        (False, [2, 2], 16, [2, 2]),
        (False, [], 4, []),
        (False, [0, -1], 0, [0, 0]),
    ],
)
def test_raw_body_deduces_the_shape(batched: bool, dims: list[int], size: int, shape: list[int]) -> None:
    spec = Spec("m", "1", batched, 8, [("x", "FP32", dims)], [("y", "FP32", [-1]), ("z", "INT8", [-1])])
    found = raw_index(b"\0" * size, spec)
    assert found["inputs"][0]["shape"] == shape
    assert found["inputs"][0]["bytes"] == (0, size)
    assert found["outputs"] == [(0, True), (1, True)]
    assert (found["rows"], found["id"]) == (1, None)


@pytest.mark.parametrize(
    ("inputs", "size", "code", "text"),
    [
        (
            [A, B],
            8,
            1,
            "Raw request must only have 1 input (found 1) to be deduced but got 2 inputs in 'm' model configuration",
        ),
        ([], 8, 1, "Raw request must only have 1 input (found 1) to be deduced but got 0 inputs in 'm'"),
        (
            [("x", "FP32", [-1, -1, -1])],
            8,
            1,
            "raw input 'x' can not be deduced because there are more than one variable-sized dimension",
        ),
        ([("x", "FP32", [-1, 2])], 16, 1, "input byte size mismatch for input 'x' for model 'm'. Expected 8, got 16"),
        ([("x", "FP32", [-1, 2])], 7, 1, "input byte size mismatch for input 'x' for model 'm'. Expected 8, got 7"),
        ([("x", "FP32", [-1, -1])], 7, 1, "input byte size mismatch for input 'x' for model 'm'. Expected 4, got 7"),
        ([("x", "FP32", [-1, 0, -1])], 4, 1, "input byte size mismatch for input 'x' for model 'm'. Expected 0, got 4"),
        ([("x", "BYTES", [-1, 2])], 4, 1, "For BYTE datatype raw input 'x', the model must have input shape [1]"),
        ([("x", "BYTES", [-1, -1])], 4, 1, "For BYTE datatype raw input 'x', the model must have input shape [1]"),
    ],
)
def test_raw_body_refused(inputs: list[reference.Tensor], size: int, code: int, text: str) -> None:
    spec = Spec("m", "1", True, 8, inputs, [Y])
    with pytest.raises(InferRefused) as caught:
        raw_index(b"\0" * size, spec)
    assert text in caught.value.text
    assert caught.value.code == code
