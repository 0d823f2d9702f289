"""Generated predict bodies: the reader against the standard library, and no input ends the process."""

from __future__ import annotations

import json
import math
import os
import struct
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server._fast.infer_json_fill import fill
from server._fast.infer_spec import InferRefused, Spec
from server._fast.tfs_json_index import explain, index, predict_path
from server._fast.tfs_json_reply import reply
from server.protocol import tfs_routes
from tests.reference import tfs_json as reference
from tests.reference.infer_json import Model, Refused, Tensor

STRESS = int(os.environ.get("HEADRACE_STRESS", "0"))
MANY = settings(
    max_examples=300 * (1 + 30 * STRESS),
    deadline=None,
    derandomize=not STRESS,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

ONE: list[Tensor] = [("x", "FP32", [-1, -1])]
TWO: list[Tensor] = [("image", "FP32", [-1, 2]), ("k", "INT8", [-1])]
SHARED: list[Tensor] = [("y", "FP32", [-1])]


class Served:
    def __init__(self, batched: bool, inputs: list[Tensor]) -> None:
        self.spec = Spec("m", "1", batched, 4 if batched else 1, inputs, SHARED)
        self.model = Model("m", "1", batched, inputs, SHARED)


MODELS = [Served(True, ONE), Served(True, TWO), Served(False, ONE), Served(False, [("x", "BOOL", [2])])]

leaves = st.one_of(st.floats(width=32), st.integers(-130, 130), st.booleans(), st.sampled_from([None, "", "1", {}]))
numbers_only = st.one_of(st.floats(width=32), st.integers(-130, 130))
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xkb"), inner, max_size=2)
)
pieces = st.sampled_from([b"", b'"', b"[", b"]", b"{", b"}", b",", b":", b"0", b"-", b".", b"e", b"\\", b" ", b"\xff"])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Requests that are right, or nearly."""

    def nearly(value: object) -> object:
        return draw(values) if draw(st.integers(0, 30)) == 0 else value

    rows = draw(st.integers(1, 3))
    width = draw(st.integers(0, 3))
    row = st.lists(numbers_only, min_size=width, max_size=width)
    pair = st.lists(numbers_only, min_size=2, max_size=2)
    small = st.integers(-128, 127)
    form = draw(st.integers(0, 4))
    document: dict[str, Any]
    if form == 0:
        document = {"instances": nearly([nearly(draw(row)) for _ in range(rows)])}
    elif form == 1:
        document = {"instances": nearly([nearly({"x": nearly(draw(row))}) for _ in range(rows)])}
    elif form == 2:
        objects = [nearly({"k": nearly(draw(small)), "image": nearly(draw(pair))}) for _ in range(rows)]
        document = {"instances": nearly(objects)}
    elif form == 3:
        document = {"inputs": nearly({"image": [draw(pair) for _ in range(rows)], "k": [draw(small)] * rows})}
    else:
        document = {"inputs": nearly(draw(st.lists(st.booleans() | row, min_size=1, max_size=3)))}
    if draw(st.booleans()):
        document["signature_name"] = nearly("serving_default")
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n", "\t: ")]))
    text = json.dumps(document, separators=separators).encode()
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(pieces) + text[at + draw(st.integers(0, 2)) :]
    return text


@MANY
@given(bodies(), st.sampled_from(MODELS))
def test_bodies_are_read_as_by_the_twin(body: bytes, served: Served) -> None:
    try:
        expected = reference.read_predict(body, served.model)
    except Refused:
        expected = None
    try:
        found = index(body, served.spec)
        contents = []
        for tensor in found["inputs"]:
            data = tensor["bytes"]
            if data is None:
                at, size = tensor["json_data"]
                (data,) = fill(body[at : at + size], tensor["datatype"], [tensor["element_count"]])
            contents.append((tensor["shape"], data))
    except InferRefused as error:
        assert expected is None
        if "Unable to parse" in error.text:
            assert explain(body, served.spec)
        return
    assert expected is not None
    assert (found["form"], found["rows"]) == (expected.form, expected.rows)
    assert contents == [expected.inputs[name] for name, _, _ in served.model.inputs]
    assert explain(body, served.spec) == ""


@MANY
@given(st.binary(min_size=1, max_size=200) | st.text('[]{},:"x1 ', min_size=1, max_size=60).map(str.encode))
def test_any_bytes_are_answered(body: bytes) -> None:
    for served in MODELS:
        for text in (body, b'{"instances":' + body, b'{"inputs":' + body + b"}"):
            try:
                explain(text, served.spec)
            except InferRefused as error:
                assert 0 < len(error.text.encode()) <= 511


@MANY
@given(st.lists(st.integers(0, 3), max_size=5), st.sampled_from(["row", "row_single", "column"]), st.data())
def test_replies_nest_as_the_shape(shape: list[int], form: str, data: st.DataObject) -> None:
    count = math.prod(shape)
    floats = data.draw(st.lists(st.floats(width=32, allow_nan=False), min_size=count, max_size=count))
    packed = struct.pack(f"<{count}f", *floats)
    spec = Spec("m", "1", False, 1, [], SHARED)
    model = Model("m", "1", False, [], SHARED)
    try:
        expected = reference.reply_document(model, form, [(0, shape, packed)])
    except Refused:
        expected = None
    try:
        body = reply(spec, form, [(0, shape, [packed])])
    except InferRefused:
        assert expected is None
        return
    # The shortest text of a float32 is another double: compared as float32, list by list.
    shown = json.loads(body, parse_float=lambda text: struct.unpack("<f", struct.pack("<f", float(text)))[0])
    assert shown == expected


@MANY
@given(
    st.lists(
        st.sampled_from(["/", ":", "v1", "V1", "models", "versions", "labels", "predict", "7", "m", "%41", "metadata"]),
        max_size=10,
    )
)
def test_the_hot_path_and_the_control_path_read_the_same_paths(parts: list[str]) -> None:
    for path in ("".join(parts), "/v1/models/" + "".join(parts), "/v1/models/m" + "".join(parts) + ":predict"):
        found = predict_path(path.encode())
        match = tfs_routes.parse("POST", path)
        if match is None or match.kind != tfs_routes.PREDICT:
            assert found is None
        else:
            assert found is not None
            assert match == tfs_routes._match(
                "predict", found[0].decode(), found[1].decode() or None, found[2].decode() or None
            )
