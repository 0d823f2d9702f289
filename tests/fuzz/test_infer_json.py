"""Generated JSON: the reader of infer requests against the standard library, and no input ends the process."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server._fast.infer_json_fill import fill
from server._fast.infer_json_index import check_json, index, raw_index
from server._fast.infer_json_reply import reply
from server._fast.infer_spec import InferRefused, Spec
from tests.reference import infer_json as reference
from tests.reference import numbers

STRESS = int(os.environ.get("HEADRACE_STRESS", "0"))
MANY = settings(
    max_examples=300 * (1 + 30 * STRESS),
    deadline=None,
    derandomize=not STRESS,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["image", "FP32", "\\", '"', "]", "\u2028", "😀"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
pieces = st.sampled_from(
    [
        b"",
        b'"',
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b"0",
        b"-",
        b".",
        b"e",
        b"\\",
        b"\\u",
        b" ",
        b"\xc3",
        b"\xff",
        b"\0",
    ]
)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """JSON as one writer or another would write it, some of it then broken."""
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n", "\t: ")]))
    text = json.dumps(draw(values), separators=separators, ensure_ascii=draw(st.booleans())).encode(
        "utf-8", "surrogatepass"
    )
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(pieces) + text[at + draw(st.integers(0, 2)) :]
    return text


@MANY
@given(texts())
def test_json_is_judged_as_by_the_standard_library(text: bytes) -> None:
    try:
        reference.parse(text)
    except reference.Refused:
        accepted = False
    else:
        accepted = True
    try:
        check_json(text)
    except InferRefused:
        assert not accepted
    else:
        assert accepted


INPUTS = [("image", "FP32", [-1, 2]), ("k", "INT8", [-1])]
OUTPUTS = [("y", "FP32", [-1]), ("z", "INT64", [-1])]
SPEC = Spec("m", "1", True, 4, INPUTS, OUTPUTS)
MODEL = reference.Model("m", "1", True, INPUTS, OUTPUTS)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Requests that are right, or nearly."""

    def nearly(value: object, often: int = 40) -> object:
        return draw(values) if draw(st.integers(0, often)) == 0 else value

    def tensor(name: str, datatype: str, dims: list[int], data: object) -> object:
        members = {"name": nearly(name), "datatype": nearly(datatype), "shape": nearly(dims), "data": nearly(data)}
        members |= draw(st.dictionaries(st.text(max_size=4), values, max_size=1))
        keys = draw(st.permutations(list(members)))
        return nearly({key: members[key] for key in keys})

    rows = draw(st.integers(1, 3))
    floats = st.one_of(st.floats(width=32), st.integers(-1000, 1000), st.booleans())
    pairs = st.lists(floats, min_size=2, max_size=2)
    inputs = [
        tensor("image", "FP32", [rows, 2], draw(st.lists(pairs, min_size=rows, max_size=rows))),
        tensor("k", "INT8", [rows], draw(st.lists(st.integers(-130, 130), min_size=rows, max_size=rows))),
    ]
    document: dict[str, Any] = {"inputs": nearly(draw(st.permutations(inputs)))}
    if draw(st.booleans()):
        document["id"] = nearly(draw(st.text(max_size=5)), 10)
    if draw(st.booleans()):
        document["outputs"] = nearly([{"name": nearly(name)} for name in draw(st.permutations(["y", "z"]))])
    if draw(st.booleans()):
        keys = st.sampled_from(["timeout", "priority", "binary_data_output", "x", "sequence_id", "triton_y"])
        document["parameters"] = draw(st.dictionaries(keys, scalars, max_size=3))
    return document


@MANY
@given(requests())
def test_requests_are_read_as_by_the_twin(document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    try:
        expected = reference.read_request(body, MODEL)
    except reference.Refused:
        expected = None
    try:
        found = index(body, SPEC)
        contents = []
        for tensor in found["inputs"]:
            at, size = tensor["json_data"]
            contents += fill(body[at : at + size], tensor["datatype"], [tensor["element_count"]])
    except InferRefused:
        assert expected is None
        return
    assert expected is not None
    assert contents == [expected.inputs[name][2] for name, _, _ in INPUTS]
    assert (found["rows"], found["timeout_us"], found["priority"], found["outputs"]) == (
        expected.rows,
        expected.timeout_us,
        expected.priority,
        expected.outputs,
    )


@MANY
@given(st.binary(max_size=200), st.integers(-1, 210), st.sampled_from(numbers.DATATYPES), st.integers(0, 9))
def test_any_bytes_are_answered(body: bytes, json_bytes: int, datatype: str, count: int) -> None:
    for read in (
        lambda: index(body, SPEC, json_bytes),
        lambda: raw_index(body, SPEC),
        lambda: check_json(body),
        lambda: fill(body, datatype, [count]),
    ):
        try:
            read()
        except InferRefused as error:
            assert 0 < len(error.text.encode()) <= 511


@MANY
@given(st.sampled_from(sorted(numbers.FLOATS)), st.binary(min_size=64, max_size=64))
def test_floats_round_trip(datatype: str, bits: bytes) -> None:
    width = numbers.WIDTH_BYTES[datatype]
    spec = Spec("m", "1", False, 1, [], [("y", datatype, [-1])])
    body, _ = reply(spec, b"", [(0, [64 // width], False, [bits])])
    text = body[body.index(b'"data":') + 7 : -3]
    (again,) = fill(text, datatype, [64 // width])
    for at in range(0, 64, width):
        number = numbers.value(bits[at : at + width], datatype)
        assert again[at : at + width] == bits[at : at + width] or number != number


@MANY
@given(st.lists(st.floats(width=32), max_size=40), st.data())
def test_float32_lists_in_parts(floats: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(floats)))
    parts = fill(json.dumps(floats).encode(), "FP32", [cut, len(floats) - cut])
    expected = struct.unpack(f"<{len(floats)}f", b"".join(parts))
    assert [repr(number) for number in expected] == [repr(number) for number in floats]
