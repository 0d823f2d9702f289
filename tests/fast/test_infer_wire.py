"""server/_fast/infer_wire and wire_fill against the protobuf library, and the texts of their refusals."""

from __future__ import annotations

import random
from typing import Any

import pytest

from server._fast.infer_spec import InferRefused, Spec
from server._fast.infer_wire import index, model
from tests.reference import infer_wire as reference
from tests.reference import numbers
from tests.reference.infer_json import Model, Refused
from tests.support.guard_page import GuardedMemory
from tests.support.wire_mutation import END, FIXED32, GROUP, LEN, VARINT, field, tag, varint

INVALID_ARGUMENT = 1
INPUTS = [("image", "FP32", [-1, 3]), ("mask", "BOOL", [-1])]
OUTPUTS = [("probabilities", "FP32", [-1, 10]), ("label", "INT64", [-1])]
SPEC = Spec("digits", "1", True, 64, INPUTS, OUTPUTS)
MODEL = Model("digits", "1", True, INPUTS, OUTPUTS)
TYPED = reference.CONTENTS_FIELD


def read(body: bytes | memoryview, spec: Spec, the_model: Model, row_counts: list[int] | None = None) -> Any:
    """Index and fill, as the twin answers."""
    found = index(body, spec, row_counts or [])
    request = reference.Request(
        found["id"], {}, found["outputs"], found["timeout_us"], found["priority"], found["rows"]
    )
    for (name, datatype, _), tensor in zip(the_model.inputs, found["inputs"], strict=True):
        assert tensor["datatype"] == datatype
        at = tensor["bytes"]
        contents = b"".join(tensor["parts"]) if at is None else bytes(body[at[0] : at[0] + at[1]])
        assert len(contents) == tensor["byte_count"] == tensor["element_count"] * numbers.WIDTH_BYTES[datatype]
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


def request(*, rows: int = 2, typed: bool = False, **members: Any) -> Any:
    message = reference.REQUEST(model_name="digits", **members)
    image = message.inputs.add(name="image", datatype="FP32", shape=[rows, 3])
    mask = message.inputs.add(name="mask", datatype="BOOL", shape=[rows])
    if typed:
        image.contents.fp32_contents.extend(range(3 * rows))
        mask.contents.bool_contents.extend([True, False, True][:rows])
    else:
        message.raw_input_contents.extend([bytes(range(12 * rows)), b"\1\0\1"[:rows]])
    return message


def refusal(message: Any, spec: Spec = SPEC, the_model: Model = MODEL) -> InferRefused:
    body = message if isinstance(message, bytes) else message.SerializeToString()
    assert not same_as_twin(body, spec, the_model)
    with pytest.raises(InferRefused) as caught:
        read(body, spec, the_model)
    return caught.value


# ---- accepted


@pytest.mark.parametrize("typed", [False, True], ids=["raw", "typed"])
def test_inputs_in_any_order(typed: bool) -> None:
    message = request(typed=typed, id="é-1")
    assert same_as_twin(message.SerializeToString())
    swapped = reference.REQUEST(id="2")
    swapped.inputs.extend([message.inputs[1], message.inputs[0]])
    swapped.raw_input_contents.extend(reversed(message.raw_input_contents))
    assert same_as_twin(swapped.SerializeToString())


def test_raw_contents_may_come_before_the_inputs() -> None:
    message = request()
    raw, rest = b"".join(field(7, contents) for contents in message.raw_input_contents), request()
    del rest.raw_input_contents[:]
    assert same_as_twin(raw + rest.SerializeToString())


@pytest.mark.parametrize("names", [["label"], ["label", "probabilities"], ["probabilities"]])
def test_outputs_asked_for(names: list[str]) -> None:
    message = request()
    for name in names:
        message.outputs.add(name=name)
    body = message.SerializeToString()
    assert same_as_twin(body)
    assert [OUTPUTS[at][0] for at in index(body, SPEC)["outputs"]] == names


@pytest.mark.parametrize("typed", [False, True], ids=["raw", "typed"])
def test_last_scalar_wins_and_messages_merge(typed: bool) -> None:
    """Two halves of a tensor message, two halves of its contents."""
    whole = request(typed=typed)
    halves = reference.REQUEST(id="first", model_name="other").SerializeToString()
    for tensor in whole.inputs:
        encoded = tensor.SerializeToString()
        # proto3: embedded *repeated* messages do not merge, their own embedded messages do.
        halves += field(5, field(1, b"wrong") + encoded[: len(encoded)])
    halves += b"".join(field(7, contents) for contents in whole.raw_input_contents) + field(3, b"last")
    assert same_as_twin(halves)
    assert index(halves, SPEC)["id"] == b"last"


def test_contents_merge_from_packed_and_single_pieces() -> None:
    floats = [bytes([0, 0, n, 0x40]) for n in range(6)]
    single = b"".join(tag(6, FIXED32) + one for one in floats[:2])
    contents = [single, field(6, floats[2] + floats[3]) + tag(6, FIXED32) + floats[4], b"", field(6, floats[5])]
    image = field(1, b"image") + field(2, b"FP32") + tag(3, VARINT) + b"\x02" + field(3, b"\x03")
    image += b"".join(field(5, piece) for piece in contents)
    bits = tag(1, VARINT) + b"\x85\x00" + field(1, b"\x00")
    mask = field(5, field(5, bits) + field(3, b"\x02") + field(2, b"BOOL") + field(1, b"mask"))
    body = mask + field(5, image)
    assert same_as_twin(body)
    for row_counts in ([2], [1, 1], [0, 2, 0], [1, 0, 1]):
        assert read(body, SPEC, MODEL, row_counts).inputs["image"] == ([2, 3], b"".join(floats))
        assert read(body, SPEC, MODEL, row_counts).inputs["mask"] == ([2], b"\1\0")


def test_unknown_fields_and_groups_are_skipped() -> None:
    group = tag(9, GROUP) + tag(3, GROUP) + field(1, b"x") + tag(3, END) + tag(7, VARINT) + b"\x01" + tag(9, END)
    body = group + field(99, b"\xff") + tag(1, FIXED32) + b"abcd" + request().SerializeToString() + group
    assert same_as_twin(body)


@pytest.mark.parametrize("depth", [1, 99, 100, 101, 1000])
def test_groups_nest_as_deeply_as_the_library_lets_them(depth: int) -> None:
    body = request().SerializeToString() + tag(9, GROUP) * depth + tag(9, END) * depth
    assert same_as_twin(body) == (depth <= 100)


@pytest.mark.parametrize(
    ("datatype", "typed"),
    [(datatype, typed) for typed in (False, True) for datatype in numbers.DATATYPES if not typed or datatype in TYPED],
)
def test_every_datatype(datatype: str, typed: bool) -> None:
    spec = Spec("m", "1", False, 1, [("x", datatype, [-1])], [])
    the_model = Model("m", "1", False, [("x", datatype, [-1])], [])
    own = reference.CONTENTS_FIELD.get(datatype)
    generator = random.Random(datatype)
    width = numbers.WIDTH_BYTES[datatype]
    for count in (0, 1, 2, 7, 40):
        raw = (
            bytes(generator.randrange(2) for _ in range(count))
            if datatype == "BOOL"
            else generator.randbytes(count * width)
        )
        message = reference.REQUEST()
        tensor = message.inputs.add(name="x", datatype=datatype, shape=[count])
        if typed and own:
            if datatype.startswith("FP"):
                raw = bytes(byte & 0x3F for byte in raw)  # no NaN: Python would make it quiet
            tensor.contents.SetInParent()
            letter = reference.STRUCT_LETTER[datatype]
            values = [numbers.struct.unpack(f"<{letter}", raw[at : at + width])[0] for at in range(0, len(raw), width)]
            getattr(tensor.contents, own).extend(values)
        else:
            message.raw_input_contents.append(raw)
        body = message.SerializeToString()
        assert same_as_twin(body, spec, the_model)
        assert read(body, spec, the_model).inputs["x"][1] == raw


LIMITS = [
    (datatype, value, least <= value <= most)
    for datatype, (_, least, most) in numbers.INTEGERS.items()
    for value in {least - 1, least, most, most + 1}
    if (-(2**31) <= value < 2**31 if datatype in ("INT8", "INT16") else 0 <= value < 2**32)
    and datatype in ("INT8", "INT16", "UINT8", "UINT16")
]


@pytest.mark.parametrize(("datatype", "value", "fits"), LIMITS)
def test_numbers_that_do_not_fit_are_refused(datatype: str, value: int, fits: bool) -> None:
    spec = Spec("m", "1", False, 1, [("x", datatype, [-1])], [])
    the_model = Model("m", "1", False, [("x", datatype, [-1])], [])
    message = reference.REQUEST()
    tensor = message.inputs.add(name="x", datatype=datatype, shape=[2])
    getattr(tensor.contents, reference.CONTENTS_FIELD[datatype]).extend([1, value])
    body = message.SerializeToString()
    assert same_as_twin(body, spec, the_model) == fits
    if not fits:
        assert refusal(body, spec, the_model).text == f"input 'x': element 1: {value} does not fit {datatype}"


@pytest.mark.parametrize(
    ("key", "kind", "value", "found"),
    [
        ("timeout", "int64_param", 5, {"timeout_us": 5}),
        ("timeout", "uint64_param", 2**63 - 1, {"timeout_us": 2**63 - 1}),
        ("priority", "int64_param", 3, {"priority": 3}),
        ("priority", "uint64_param", 2**64 - 1, {"priority": 2**64 - 1}),
        ("sequence_id", "int64_param", 0, {}),
        ("sequence_id", "string_param", "", {}),
        ("sequence_start", "bool_param", True, {}),
        ("sequence_end", "bool_param", False, {}),
        ("triton_enable_empty_final_response", "bool_param", True, {}),
        ("other", "string_param", "x", {}),
        ("other", "double_param", 1.5, {}),
        ("", "bool_param", True, {}),
    ],
)
def test_parameters(key: str, kind: str, value: Any, found: dict[str, int]) -> None:
    message = request()
    setattr(message.parameters[key], kind, value)
    body = message.SerializeToString()
    assert same_as_twin(body)
    answer = index(body, SPEC)
    assert {name: answer[name] for name in ("timeout_us", "priority")} == {"timeout_us": 0, "priority": 0} | found


def test_a_later_parameter_replaces_an_earlier_one() -> None:
    wrong = field(4, field(1, b"timeout") + field(2, field(3, b"text")))
    right = field(4, field(2, tag(2, VARINT) + b"\x07") + field(1, b"timeout"))
    body = request().SerializeToString()
    assert same_as_twin(wrong + body + right)
    assert index(wrong + body + right, SPEC)["timeout_us"] == 7
    assert "invalid value type for 'timeout'" in refusal(right + body + wrong).text


# ---- refused


def changed(**members: Any) -> Any:
    """A typed request, its first input changed."""
    message = request(typed=True)
    for name, value in members.items():
        if name == "shape":
            message.inputs[0].shape[:] = value
        else:
            setattr(message.inputs[0], name, value)
    return message


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (changed(name="picture"), "unexpected inference input 'picture' for model 'digits'"),
        (changed(name="mask"), "input 'mask' already exists in request"),
        (
            changed(datatype="FP64"),
            (
                "unexpected explicit tensor data for input tensor 'image' for model 'digits' of type 'FP32', expected "
                "datatype 'FP64'"
            ),
        ),
        (
            changed(datatype="float"),
            "inference input 'image' data-type is 'float', but model 'digits' expects 'FP32'",
        ),
        (changed(shape=[2, 4]), "unexpected shape for input 'image' for model 'digits'. Expected [-1,3], got [2,4]"),
        (changed(shape=[2, -3]), "unexpected shape for input 'image' for model 'digits'. Expected [-1,3], got [2,-3]"),
        (changed(shape=[-1, 3]), "input 'mask' batch size does not match other inputs for 'digits'"),
        (changed(shape=[2] * 9), "got [2,2,2,2,2,2,2,2,...]"),
        (changed(shape=[3, 3]), "input 'mask' batch size does not match other inputs for 'digits'"),
        (request(rows=0), "inference request batch-size must be >= 1 for 'digits'"),
    ],
)
def test_wrong_inputs(message: Any, text: str) -> None:
    assert text in refusal(message).text


@pytest.mark.parametrize(
    ("key", "kind", "value", "code", "text"),
    [
        ("timeout", "string_param", "5", 1, "invalid value type for 'timeout' parameter, expected int64_param"),
        ("timeout", "int64_param", -5, 1, "invalid value for 'timeout', expected value >= 0"),
        ("timeout", "uint64_param", 2**63, 1, "invalid value for 'timeout', expected value >= 0"),
        ("priority", "bool_param", True, 1, "invalid value type for 'priority' parameter"),
        ("priority", "int64_param", -1, 1, "invalid value for 'priority', expected value >= 0"),
        ("sequence_id", "int64_param", 7, 4, "'sequence_id' is not supported"),
        ("sequence_id", "string_param", "a", 4, "'sequence_id' is not supported"),
        ("sequence_id", "double_param", 0.0, 1, "expected int64_param or string_param."),
        (
            "sequence_start",
            "int64_param",
            1,
            1,
            "invalid value type for 'sequence_start' parameter, expected bool_param.",
        ),
        ("triton_x", "bool_param", True, 1, "parameter keys starting with 'triton_' are reserved for Triton usage."),
    ],
)
def test_wrong_parameters(key: str, kind: str, value: Any, code: int, text: str) -> None:
    message = request()
    setattr(message.parameters[key], kind, value)
    error = refusal(message)
    assert text in error.text
    assert error.code == code


def test_sources_are_not_mixed() -> None:
    message = request(typed=True)
    message.raw_input_contents.append(bytes(24))
    assert refusal(message).text == (
        "contents field must not be specified when using raw_input_contents for 'image' for model 'digits'"
    )
    message = request()
    del message.raw_input_contents[1:]
    assert refusal(message).text == "unable to find data for input tensor 'mask' for model 'digits' in request."
    message = request(typed=True)
    message.inputs[1].ClearField("contents")
    assert refusal(message).text == "unable to find data for input tensor 'mask' for model 'digits' in request."
    message = request()
    message.raw_input_contents.append(b"")
    assert "unexpected additional input data for model 'digits'" in refusal(message).text


def test_sizes() -> None:
    message = request()
    message.raw_input_contents[0] += b"\0"
    assert "input byte size mismatch for input 'image' for model 'digits'. Expected 24, got 25" in refusal(message).text
    message = request(typed=True)
    del message.inputs[0].contents.fp32_contents[4:]
    assert "input byte size mismatch for input 'image' for model 'digits'. Expected 24, got 16" in refusal(message).text
    message = request()
    message.raw_input_contents[1] = b"\1\2"
    assert refusal(message).text == "input 'mask': BOOL elements are bytes 0 or 1, got another value"


def test_missing_inputs() -> None:
    message = request()
    del message.inputs[1], message.raw_input_contents[1]
    assert "expected 2 inputs but got 1 inputs for model 'digits'" in refusal(message).text
    assert "expected 2 inputs but got 0 inputs for model 'digits'" in refusal(b"").text


def test_wrong_outputs() -> None:
    message = request()
    message.outputs.add(name="nothing")
    assert refusal(message).text == (
        "unexpected inference output 'nothing' for model 'digits'; its outputs: 'probabilities', 'label'"
    )
    message.outputs[0].name = "label"
    message.outputs.add(name="label")
    assert refusal(message).text == "output 'label' already exists in request"
    del message.outputs[1]
    message.outputs[0].parameters["classification"].int64_param = -1
    assert refusal(message).text == "invalid value for 'classification', expected value >= 0, got -1"
    message.outputs[0].parameters["classification"].int64_param = 3
    assert same_as_twin(message.SerializeToString())
    assert index(message.SerializeToString(), SPEC)["class_counts"] == [3]
    message.outputs[0].parameters["classification"].string_param = "3"
    assert refusal(message).text == "invalid value type for 'classification' parameter, expected int64_param."


MALFORMED = {
    "tag without a value": b"\x08",
    "number 0": b"\x00\x00",
    "wire type 6": b"\x0e\x00",
    "wire type 7": b"\x0f",
    "end of no group": tag(1, END),
    "group without end": tag(1, GROUP),
    "group with another end": tag(1, GROUP) + tag(2, END),
    "tag of six bytes": b"\x8a\x80\x80\x80\x80\x00\x00",
    "tag over 32 bits": b"\xfa\xff\xff\xff\x7f\x00",
    "varint of eleven bytes": b"\x08" + b"\x80" * 10 + b"\x00",
    "length past the end": b"\x0a\x05abcd",
    "length of six bytes": b"\x0a\x80\x80\x80\x80\x80\x00",
    "length over 2 GiB": b"\x0a\x80\x80\x80\x80\x08",
    "name that is no text": field(1, b"\xff"),
    "id with a surrogate": field(3, b"\xed\xa0\x80"),
    "id in overlong form": field(3, b"\xc0\xaf"),
    "id cut inside a character": field(3, b"\xe2\x82"),
    "input past its end": field(5, b"\x0a\x05ab"),
    "packed floats of odd length": field(5, field(5, field(6, b"abc"))),
    "packed varint cut short": field(5, field(5, field(3, b"\x80"))),
    "packed shape cut short": field(5, field(3, b"\x80")),
    "parameter key that is no text": field(4, field(1, b"\x80")),
    "parameter text that is no text": field(4, field(2, field(3, b"\x80"))),
    "raw contents past the end": b"\x3a\x01",
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=list(MALFORMED))
def test_what_is_no_protobuf_is_refused(message: bytes) -> None:
    body = request().SerializeToString()
    for malformed in (message, body + message):
        assert "invalid protobuf: expected a message of type inference.ModelInferRequest" in refusal(malformed).text
    with pytest.raises(InferRefused):
        model(b"\x08")


def test_the_model_asked_for() -> None:
    assert model(b"") == (b"", b"")
    assert model(field(1, b"a") + field(2, b"7") + field(1, "é".encode())) == ("é".encode(), b"7")
    with pytest.raises(InferRefused, match="invalid protobuf"):
        model(field(1, b"\xff"))


# ---- bounds


def bodies() -> list[bytes]:
    message = request(typed=True, id="x" * 20)
    message.parameters["timeout"].int64_param = 2**40
    message.outputs.add(name="label")
    typed: bytes = message.SerializeToString()
    return [typed, request(id="é").SerializeToString(), typed + tag(9, GROUP) + field(1, b"x") + tag(9, END)]


@pytest.mark.parametrize("body", bodies(), ids=["typed", "raw", "group"])
def test_every_prefix_at_a_guard_page(body: bytes) -> None:
    """A read behind the end would end this process."""
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


def test_bytes_behind_are_not_read() -> None:
    body = request(typed=True).SerializeToString()
    with_more = memoryview(body + b"\x0a\xff")[: len(body)]
    assert read(with_more, SPEC, MODEL) == reference.read_request(body, MODEL)


def test_long_names_are_cut_in_texts() -> None:
    message = request()
    message.inputs[0].name = "é" * 5000
    assert len(refusal(message).text.encode()) <= 511


def test_many_inputs_in_the_worst_order() -> None:
    names = [f"x{at}" for at in range(200)]
    spec = Spec("m", "1", False, 1, [(name, "INT8", [1]) for name in names], [])
    the_model = Model("m", "1", False, [(name, "INT8", [1]) for name in names], [])
    message = reference.REQUEST()
    for name in reversed(names):
        message.inputs.add(name=name, datatype="INT8", shape=[1])
        message.raw_input_contents.append(bytes([int(name[1:])]))
    assert same_as_twin(message.SerializeToString(), spec, the_model)


def test_a_varint_may_be_longer_than_it_needs() -> None:
    body = request().SerializeToString()
    for pad in range(1, 10):
        assert same_as_twin(body + field(4, field(1, b"timeout") + field(2, tag(2, VARINT) + varint(5, pad))))
    ten_bytes = b"\xff" * 9 + b"\x7f"  # bits beyond 64 are dropped
    assert not same_as_twin(body + field(4, field(1, b"timeout") + field(2, tag(2, VARINT) + ten_bytes)))
    assert same_as_twin(body + tag(200, LEN) + varint(1, 3) + b"x")
