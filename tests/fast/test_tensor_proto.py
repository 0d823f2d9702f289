"""server/_fast/tensor_proto against the protobuf library: values and their repetition, names, texts, memory bounds."""

from __future__ import annotations

import random
from typing import Any

import pytest

from server._fast.infer_spec import InferRefused, Spec
from server._fast.tensor_proto import index, model
from tests.reference import numbers
from tests.reference import tensor_proto as reference
from tests.reference.infer_json import Model, Refused
from tests.reference.infer_wire import Request
from tests.support.guard_page import GuardedMemory
from tests.support.wire_mutation import END, GROUP, VARINT, field, tag

INPUTS = [("image", "FP32", [-1, 3]), ("mask", "BOOL", [-1])]
OUTPUTS = [("probabilities", "FP32", [-1, 10]), ("label", "INT64", [-1])]
SPEC = Spec("digits", "1", True, 64, INPUTS, OUTPUTS)
MODEL = Model("digits", "1", True, INPUTS, OUTPUTS)


def read(body: bytes | memoryview, spec: Spec, the_model: Model, row_counts: list[int] | None = None) -> Request:
    """Index and fill, as the twin answers."""
    found = index(body, spec, row_counts or [])
    request = Request(None, {}, found["outputs"], 0, 0, found["rows"])
    for (name, datatype, _), tensor in zip(the_model.inputs, found["inputs"], strict=True):
        assert tensor["datatype"] == datatype
        at = tensor["bytes"]
        contents = b"".join(tensor["parts"]) if at is None else bytes(body[at[0] : at[0] + at[1]])
        assert len(contents) == tensor["byte_count"]
        request.inputs[name] = (tensor["shape"], contents)
    return request


def same_as_twin(body: bytes, spec: Spec = SPEC, the_model: Model = MODEL) -> bool:
    """Compares; whether both accept."""
    try:
        expected = reference.read_request(body, the_model)
    except Refused:
        with pytest.raises(InferRefused):
            read(body, spec, the_model)
        return False
    assert read(body, spec, the_model) == expected
    return True


def refusal(message: Any, spec: Spec = SPEC, the_model: Model = MODEL) -> str:
    body = message if isinstance(message, bytes) else message.SerializeToString()
    assert not same_as_twin(body, spec, the_model)
    with pytest.raises(InferRefused) as caught:
        read(body, spec, the_model)
    text: str = caught.value.text
    return text


def tensor(number: int, dims: list[int], **values: Any) -> Any:
    made = reference.TENSOR(dtype=number, **values)
    for size in dims:
        made.tensor_shape.dim.add(size=size)
    return made


def request(image: Any = None, mask: Any = None, **members: Any) -> Any:
    message = reference.REQUEST(**members)
    message.inputs["image"].CopyFrom(image or tensor(1, [2, 3], float_val=[1, 2, 3, 4, 5, 6]))
    message.inputs["mask"].CopyFrom(mask or tensor(10, [2], tensor_content=b"\0\1"))
    return message


LONE = {
    datatype: (
        Spec("m", "1", False, 1, [("x", datatype, [-1])], []),
        Model("m", "1", False, [("x", datatype, [-1])], []),
    )
    for datatype in numbers.DATATYPES
}


@pytest.mark.parametrize("datatype", numbers.DATATYPES)
@pytest.mark.parametrize("as_content", [False, True], ids=["values", "content"])
def test_every_datatype(datatype: str, as_content: bool) -> None:
    spec, the_model = LONE[datatype]
    generator = random.Random(datatype)
    width = numbers.WIDTH_BYTES[datatype]
    number = reference.NUMBERS[datatype]
    own = reference.TYPES[number][1]
    letter = "H" if own == "half_val" else reference.infer_wire.STRUCT_LETTER[datatype]
    for count in (0, 1, 2, 7, 40):
        raw = generator.randbytes(count * width)
        if datatype == "BOOL":
            raw = bytes(byte & 1 for byte in raw)
        elif datatype.startswith("FP"):
            raw = bytes(byte & 0x3F for byte in raw)  # no NaN: Python would make it quiet
        if as_content:
            x = tensor(number, [count], tensor_content=raw)
        else:
            values = [numbers.struct.unpack(f"<{letter}", raw[at : at + width])[0] for at in range(0, len(raw), width)]
            x = tensor(number, [count], **{own: values})
        body = reference.REQUEST(inputs={"x": x}).SerializeToString()
        assert same_as_twin(body, spec, the_model)
        assert read(body, spec, the_model).inputs["x"] == ([count], raw)


@pytest.mark.parametrize("datatype", numbers.DATATYPES)
def test_the_last_value_stands_for_all_that_are_missing(datatype: str) -> None:
    spec, the_model = LONE[datatype]
    number = reference.NUMBERS[datatype]
    own = reference.TYPES[number][1]
    width = numbers.WIDTH_BYTES[datatype]
    for values in ([], [1], [0, 1], [1, 0, 1]):
        body = reference.REQUEST(inputs={"x": tensor(number, [5], **{own: values})}).SerializeToString()
        assert same_as_twin(body, spec, the_model)
        (_, contents) = read(body, spec, the_model).inputs["x"]
        elements = [contents[at : at + width] for at in range(0, 5 * width, width)]
        assert elements[len(values) :] == [elements[len(values) - 1] if values else bytes(width)] * (5 - len(values))


@pytest.mark.parametrize("row_counts", [[3], [1, 2], [2, 1], [0, 3], [1, 1, 1]])
@pytest.mark.parametrize("values", [[], [7], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7, 8, 9]])
def test_parts_of_a_split_request(values: list[float], row_counts: list[int]) -> None:
    message = request(tensor(1, [3, 3], float_val=values), tensor(10, [3], bool_val=[True]))
    body = message.SerializeToString()
    assert read(body, SPEC, MODEL, row_counts) == reference.read_request(body, MODEL)


def test_a_filled_tensor_is_no_larger_than_a_message() -> None:
    spec, the_model = LONE["INT8"]
    for count, served in ((64 << 20, True), ((64 << 20) + 1, False), (2**62, False)):
        body = reference.REQUEST(inputs={"x": tensor(6, [count], int_val=[1])}).SerializeToString()
        if served:
            assert index(body, spec)["inputs"][0]["byte_count"] == count
        else:
            assert "tensor parsing error: x: 1 values for" in refusal(body, spec, the_model)


def test_more_values_than_the_shape_has() -> None:
    message = request(tensor(1, [2, 3], float_val=[0] * 7))
    text = "input byte size mismatch for input 'image' for model 'digits'. Expected 24, got 28"
    assert refusal(message) == text


def test_values_in_the_field_of_another_datatype() -> None:
    message = request(tensor(1, [2, 3], double_val=[1] * 6))
    assert refusal(message) == "tensor parsing error: image: the values are not in the field of DT_FLOAT"
    # beside values in the own field they are ignored, as TensorFlow ignores them
    assert same_as_twin(request(tensor(1, [2, 3], double_val=[1], float_val=[2])).SerializeToString())


def test_pieces_of_one_tensor_merge() -> None:
    whole = tensor(1, [2, 3], float_val=[1, 2]).SerializeToString()
    rest = reference.TENSOR(float_val=[3, 4]).SerializeToString()
    mask = request().inputs["mask"].SerializeToString()
    body = field(2, field(1, b"mask") + field(2, mask))
    body += field(2, field(2, whole) + field(1, b"image") + field(2, rest))
    assert same_as_twin(body)
    floats = numbers.struct.pack("<6f", 1, 2, 3, 4, 4, 4)
    assert read(body, SPEC, MODEL).inputs["image"] == ([2, 3], floats)


def test_an_entry_replaces_an_earlier_one() -> None:
    """Even one that could not be served."""
    wrong = field(2, field(1, b"image") + field(2, tensor(99, [7, 7], float_val=[1]).SerializeToString()))
    right = request().SerializeToString()
    assert same_as_twin(wrong + right)
    assert not same_as_twin(right + wrong)


def test_unknown_fields_and_groups_are_skipped() -> None:
    group = tag(9, GROUP) + field(1, b"x") + tag(9, END)
    assert same_as_twin(group + field(6, b"client") + request().SerializeToString() + group)


# ---- texts


def renamed(*names: str) -> Any:
    message = reference.REQUEST()
    for name in names:
        message.inputs[name].CopyFrom(tensor(1, [2, 3]))
    return message


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (
            ["picture", "mask"],
            "input tensor alias not found in signature: picture. Inputs expected to be in the set {image,mask}.",
        ),
        (
            ["image"],
            (
                "input size does not match signature: 1!=2 len({image}) != len({image,mask}). Sent extra: {}. "
                "Missing but required: {mask}."
            ),
        ),
        (
            ["mask", "z", "image", "a"],
            (
                "input size does not match signature: 4!=2 len({a,image,mask,z}) != len({image,mask}). "
                "Sent extra: {a,z}. Missing but required: {}."
            ),
        ),
        (
            [],
            (
                "input size does not match signature: 0!=2 len({}) != len({image,mask}). Sent extra: {}. "
                "Missing but required: {image,mask}."
            ),
        ),
    ],
)
def test_wrong_input_names(names: list[str], text: str) -> None:
    assert refusal(renamed(*names)) == text


def test_many_and_long_wrong_names() -> None:
    text = refusal(renamed(*(f"{n:04}" * 9 for n in range(100))))
    assert text.startswith("input size does not match signature: ")
    assert len(refusal(renamed("é" * 9999, "b" * 9999, "c")).encode()) <= 511


def test_wrong_outputs() -> None:
    text = (
        "output tensor alias not found in signature: nothing Outputs expected to be in the set {label,probabilities}."
    )
    assert refusal(request(output_filter=["label", "nothing"])) == text
    assert refusal(request(output_filter=["label", "label"])) == "duplicate output tensor alias: label"
    body = request(output_filter=["label", "probabilities"]).SerializeToString()
    assert same_as_twin(body)
    assert index(body, SPEC)["outputs"] == [1, 0]


def test_signatures() -> None:
    assert same_as_twin(request(model_spec={"signature_name": "serving_default"}).SerializeToString())
    message = request(model_spec={"signature_name": "other"})
    assert refusal(message) == 'Serving signature key "other" not found.'


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (
            tensor(2, [2, 3], double_val=[1]),
            "inference input 'image' data-type is 'FP64', but model 'digits' expects 'FP32'",
        ),
        (tensor(8, [2, 3]), "inference input 'image' data-type is 'DT_COMPLEX64', but model 'digits' expects 'FP32'"),
        (tensor(77, [2, 3]), "data-type is 'an unknown DataType'"),
        (tensor(1, [2, 4]), "unexpected shape for input 'image' for model 'digits'. Expected [-1,3], got [2,4]"),
        (tensor(1, [2, 3], tensor_content=b"1234"), "Expected 24, got 4"),
    ],
)
def test_wrong_tensors(image: Any, text: str) -> None:
    assert text in refusal(request(image))


def test_bool_contents_are_0_or_1() -> None:
    assert "BOOL elements are bytes 0 or 1" in refusal(request(None, tensor(10, [2], tensor_content=b"\1\2")))


MALFORMED = [
    tag(1, VARINT),
    field(2, field(1, b"\xff")),
    field(2, field(2, field(5, b"abc"))),
    field(2, field(2, field(7, b"\xff"))),
    field(2, field(2, field(2, field(2, b"\x08")))),
    field(2, field(2, field(2, field(2, field(2, b"\xff"))))),
    field(1, field(2, b"\x08")),
    field(1, field(4, b"\xc0\x80")),
    field(3, b"\xed\xa0\x80"),
]


@pytest.mark.parametrize("message", MALFORMED, ids=bytes.hex)
def test_what_is_no_protobuf_is_refused(message: bytes) -> None:
    expected = "invalid protobuf: expected a message of type tensorflow.serving.PredictRequest"
    assert refusal(request().SerializeToString() + message) == expected


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [{"name": "é"}],
        [{"name": "a", "version": {"value": 3}}],
        [{"name": "a", "version": {"value": -1}}],
        [{"name": "a", "version": {}}],
        [{"name": "a", "version_label": "stable", "signature_name": "s"}],
        [{"version": {"value": 3}}, {"version": {}}],
        [{"version": {"value": 3}}, {"version_label": "stable"}],
        [{"version_label": "stable"}, {"version": {}}],
        [{"version": {"value": 3}}, {"version_label": ""}, {"version": {}}],
        [{"name": "a"}, {"name": "b"}],
    ],
)
def test_the_model_asked_for(pieces: list[dict[str, Any]]) -> None:
    body = b"".join(reference.REQUEST(model_spec=piece).SerializeToString() for piece in pieces)
    assert model(body) == reference.read_model(body)


@pytest.mark.parametrize("as_content", [False, True], ids=["values", "content"])
def test_every_prefix_at_a_guard_page(as_content: bool) -> None:
    """A read behind the end would end this process."""
    image = tensor(1, [2, 3], tensor_content=bytes(24)) if as_content else None
    message = request(image, tensor(10, [2], bool_val=[True]), output_filter=["label"])
    message.model_spec.version.value = 2**40
    body = message.SerializeToString()
    memory = GuardedMemory(len(body))
    for size in range(len(body) + 1):
        with memory.at_end(body[:size]) as view:
            try:
                found = read(view, SPEC, MODEL)
            except InferRefused:
                found = None
        try:
            expected = reference.read_request(body[:size], MODEL)
        except Refused:
            expected = None
        assert found == expected
    assert found is not None
    memory.close()
