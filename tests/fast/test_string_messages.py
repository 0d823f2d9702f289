"""BYTES in protobuf messages and in replies of every protocol, against the libraries."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest

from server._fast import (
    infer_json_reply,
    infer_wire,
    infer_wire_reply,
    tensor_proto,
    tensor_proto_reply,
    tfs_json_reply,
)
from server._fast.infer_spec import InferRefused, Spec
from tests.reference import bytes_form
from tests.reference import infer_json as json_twin
from tests.reference import infer_wire as wire_twin
from tests.reference import tensor_proto as tensor_twin
from tests.reference import tfs_json as tfs_twin
from tests.support.guard_page import GuardedMemory
from tests.support.wire_mutation import field

SPEC = Spec("text", "1", False, 1, [("s", "BYTES", [-1])], [("y", "BYTES", [-1]), ("y_bytes", "BYTES", [-1])])
MODEL = json_twin.Model("text", "1", False, [("s", "BYTES", [-1])], [("y", "BYTES", [-1]), ("y_bytes", "BYTES", [-1])])
ELEMENTS: list[list[bytes]] = [
    [],
    [b""],
    [b"a", b"", b"\xff\0"],
    [b"x" * 127, b"x" * 128, b"x" * 16384],
    [b""] * 1000,
    [bytes([n]) * n for n in range(256)],
]


def read(index: Any, body: bytes | memoryview) -> bytes:
    """The one input as it stands in a slab."""
    (tensor,) = index(body, SPEC)["inputs"]
    at = tensor["bytes"]
    contents = tensor["parts"][0] if at is None else bytes(body[at[0] : at[0] + at[1]])
    assert len(contents) == tensor["byte_count"]
    return bytes(contents)


def refusal(index: Any, message: Any) -> str:
    with pytest.raises(InferRefused) as caught:
        index(message.SerializeToString(), SPEC)
    assert caught.value.code == 1
    return caught.value.text


# ---- KServe V2


def infer_request(elements: list[bytes], raw: bool, count: int | None = None) -> Any:
    message = wire_twin.REQUEST()
    tensor = message.inputs.add(name="s", datatype="BYTES", shape=[len(elements) if count is None else count])
    if raw:
        message.raw_input_contents.append(bytes_form.pack(elements))
    else:
        tensor.contents.SetInParent()
        tensor.contents.bytes_contents.extend(elements)
    return message


@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
@pytest.mark.parametrize("elements", ELEMENTS, ids=range(len(ELEMENTS)))
def test_infer_requests(elements: list[bytes], raw: bool) -> None:
    message = infer_request(elements, raw)
    assert read(infer_wire.index, message.SerializeToString()) == bytes_form.pack(elements)
    for count in {max(len(elements) - 1, 0), len(elements) + 1, 2**40} - {len(elements)}:
        text = refusal(infer_wire.index, infer_request(elements, raw, count))
        assert "string elements" in text and "for inference input 's' for model 'text'" in text


def test_contents_that_come_in_pieces_are_one_list() -> None:
    """Embedded messages merge: their repeated fields are put together."""
    message = infer_request([b"a", b"b"], False)
    message.inputs[0].shape[0] = 4
    tensor = message.inputs[0].SerializeToString() + field(5, field(8, b"") + field(8, b"\xff"))
    assert read(infer_wire.index, field(5, tensor)) == bytes_form.pack([b"a", b"b", b"", b"\xff"])


def test_contents_of_another_datatype() -> None:
    message = infer_request([b"a"], False)
    message.inputs[0].contents.int_contents.append(1)
    assert "of type 'INT32', expected datatype 'BYTES'" in refusal(infer_wire.index, message)


# ---- TensorFlow Serving


def predict_request(elements: list[bytes], dims: list[int]) -> Any:
    message = tensor_twin.REQUEST()
    tensor = message.inputs["s"]
    tensor.dtype = tensor_twin.NUMBERS["BYTES"]
    for size in dims:
        tensor.tensor_shape.dim.add(size=size)
    tensor.string_val.extend(elements)
    return message


@pytest.mark.parametrize("elements", ELEMENTS, ids=range(len(ELEMENTS)))
def test_predict_requests(elements: list[bytes]) -> None:
    for more in (0, 1, 5):
        body = predict_request(elements, [len(elements) + more]).SerializeToString()
        last = elements[-1] if elements else b""
        assert read(tensor_proto.index, body) == bytes_form.pack([*elements, *[last] * more])
        request = tensor_twin.read_request(body, MODEL)
        assert request.inputs["s"][1] == read(tensor_proto.index, body)


@pytest.mark.parametrize(
    ("elements", "count", "text"),
    [
        ([b"a", b"b"], 1, "unexpected number of string elements 2"),
        ([b"a" * 1000], 1 << 17, "at most 67108864 bytes are filled with the last value"),
        ([], 1 << 40, "at most 67108864 bytes are filled with the last value"),
        ([b"a" * 1000], 1 << 62, "causes total element count to exceed maximum size"),
        ([], 2**63 - 1, "causes total element count to exceed maximum size"),
    ],
)
def test_predict_requests_refused(elements: list[bytes], count: int, text: str) -> None:
    assert text in refusal(tensor_proto.index, predict_request(elements, [count]))


def test_strings_are_not_read_from_tensor_content() -> None:
    message = predict_request([], [1])
    message.inputs["s"].tensor_content = b"\1a"
    assert "the values are not in the field of DT_STRING" in refusal(tensor_proto.index, message)
    message.inputs["s"].float_val.append(1)
    assert "the values are not in the field of DT_STRING" in refusal(tensor_proto.index, message)


@pytest.mark.parametrize("which", ["infer", "predict"])
def test_every_cut_of_a_message_at_a_guard_page(which: str) -> None:
    elements = [b"ab", b"", b"\xff" * 130]
    if which == "infer":
        index, message = infer_wire.index, infer_request(elements, False)
    else:
        index, message = tensor_proto.index, predict_request(elements, [3])
    whole = message.SerializeToString()
    memory = GuardedMemory(len(whole))
    try:
        for size in range(1, len(whole)):
            with memory.at_end(whole[:size]) as part, pytest.raises(InferRefused):
                index(part, SPEC)
        with memory.at_end(whole) as part:
            assert read(index, part) == bytes_form.pack(elements)
    finally:
        memory.close()


# ---- replies


@pytest.mark.parametrize("elements", ELEMENTS, ids=range(len(ELEMENTS)))
def test_replies_in_protobuf(elements: list[bytes]) -> None:
    form = bytes_form.pack(elements)
    outputs = [(0, [len(elements)], [form])]
    response = wire_twin.RESPONSE.FromString(infer_wire_reply.reply(SPEC, b"", outputs))
    assert list(response.raw_output_contents) == [form]
    assert response.outputs[0].datatype == "BYTES"
    for as_content in (False, True):
        found = tensor_proto_reply.reply(SPEC, outputs, as_content)
        message = tensor_twin.RESPONSE.FromString(found)
        assert list(message.outputs["y"].string_val) == elements
        assert message.SerializeToString(deterministic=True) == found


def some_text(generator: random.Random) -> bytes:
    letters = 'az09"\\/\b\f\n\r\t\0\x1f\x7fé߿ࠀ\uffff\U00010000\U0010ffff'
    return "".join(generator.choices(letters, k=generator.choice([0, 1, 3, 40]))).encode()


def test_replies_in_json() -> None:
    generator = random.Random(9)
    for _ in range(200):
        elements = [some_text(generator) for _ in range(generator.randrange(7))]
        form, shape = bytes_form.pack(elements), [len(elements)]
        cut = len(bytes_form.pack(elements[:2]))
        body, json_bytes = infer_json_reply.reply(SPEC, b"", [(0, shape, False, [form[:cut], form[cut:]])])
        assert json_bytes == len(body)
        expected, _ = json_twin.reply_document(MODEL, None, [(0, shape, False, form)])
        assert json.loads(body) == expected
        body, json_bytes = infer_json_reply.reply(SPEC, b"", [(0, shape, True, [form])])
        assert body[json_bytes:] == form


TFS_SHAPES = [[], [1], [3], [2, 2], [2, 0], [0], [2, 1, 3]]


@pytest.mark.parametrize("form", ["row", "row_single", "column"])
@pytest.mark.parametrize("shape", TFS_SHAPES, ids=str)
def test_predict_replies_in_json(form: str, shape: list[int]) -> None:
    generator = random.Random(str(shape))
    count = 1
    for size in shape:
        count *= size
    texts = [some_text(generator) for _ in range(count)]
    raw = [generator.randbytes(generator.randrange(5)) for _ in range(count)]
    for outputs in ([(0, texts)], [(1, raw)], [(0, texts), (1, raw)]):
        tensors = [(index, shape, [bytes_form.pack(elements)]) for index, elements in outputs]
        whole = [(index, dims, parts[0]) for index, dims, parts in tensors]
        try:
            expected = tfs_twin.reply_document(MODEL, form, whole)
        except json_twin.Refused:
            with pytest.raises(InferRefused):
                tfs_json_reply.reply(SPEC, form, tensors)
            continue
        assert json.loads(tfs_json_reply.reply(SPEC, form, tensors)) == expected


def test_more_outputs_than_places_on_the_stack() -> None:
    """Forty outputs of strings, row by row."""
    outputs = [(f"o{n}", "BYTES", [-1]) for n in range(40)]
    spec = Spec("many", "1", False, 1, [], outputs)
    rows = [[f"{n}" * (row + n % 3) for n in range(40)] for row in range(3)]
    tensors = [(n, [3], [bytes_form.pack(row[n].encode() for row in rows)]) for n in range(40)]
    found = json.loads(tfs_json_reply.reply(spec, "row", tensors))
    assert found == {"predictions": [{f"o{n}": row[n] for n in range(40)} for row in rows]}


@pytest.mark.parametrize("bad", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80"])
def test_bytes_that_are_no_text_are_not_sent_as_json(bad: bytes) -> None:
    parts = [bytes_form.pack([b"good", bad])]
    with pytest.raises(
        InferRefused, match=r"^output 'y': element 1 is not UTF-8, .*: ask for the output as binary data$"
    ):
        infer_json_reply.reply(SPEC, b"", [(0, [2], False, parts)])
    with pytest.raises(InferRefused, match=r"^output 'y': element 1 is not UTF-8, .* _bytes are sent as base64$"):
        tfs_json_reply.reply(SPEC, "column", [(0, [2], parts)])
    found = json.loads(tfs_json_reply.reply(SPEC, "column", [(1, [2], parts)]))
    assert found["outputs"][1] == {"b64": base64.b64encode(bad).decode()}


def test_elements_that_are_cut_are_our_fault() -> None:
    with pytest.raises(InferRefused, match=r"^output 'y': its elements are not complete$") as caught:
        infer_json_reply.reply(SPEC, b"", [(0, [1], False, [b"\2\0\0\0a"])])
    assert caught.value.code == 5
