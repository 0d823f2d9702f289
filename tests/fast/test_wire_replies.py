"""server/_fast/infer_wire_reply and tensor_proto_reply against the protobuf library: the same bytes."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from server._fast import infer_wire_reply, tensor_proto_reply
from server._fast.infer_spec import Spec
from tests.reference import infer_wire as infer_twin
from tests.reference import numbers
from tests.reference import tensor_proto as tensor_twin

OUTPUTS = [(datatype.lower(), datatype, [-1]) for datatype in numbers.DATATYPES]
SPEC = Spec("identity", "3", False, 1, [], OUTPUTS)
Tensor = tuple[int, list[int], list[bytes]]


def random_tensor(index: int, shape: list[int], cuts: int, generator: random.Random) -> Tensor:
    """Elements of all magnitudes, cut into segments between elements."""
    datatype = OUTPUTS[index][1]
    width = numbers.WIDTH_BYTES[datatype]
    count = 1
    for size in shape:
        count *= size
    elements = [
        bytes([generator.randrange(2)])
        if datatype == "BOOL"
        else (generator.randbytes(generator.randint(0, width)) + b"\0" * width)[:width]
        for _ in range(count)
    ]
    marks = sorted(generator.randint(0, count) for _ in range(cuts))
    return index, shape, [b"".join(elements[a:b]) for a, b in zip([0, *marks], [*marks, count], strict=True)]


def tensors(generator: random.Random) -> list[Tensor]:
    shapes = [[], [0], [1], [2, 3], [0, 5], [1] * 8, [200, 2]]
    return [
        random_tensor(index, generator.choice(shapes), generator.randrange(3), generator)
        for index in generator.sample(range(len(OUTPUTS)), generator.randint(0, len(OUTPUTS)))
    ]


def infer_response(message: Any, request_id: str, outputs: list[Tensor]) -> None:
    message.model_name, message.model_version, message.id = "identity", "3", request_id
    for index, shape, segments in outputs:
        message.outputs.add(name=OUTPUTS[index][0], datatype=OUTPUTS[index][1], shape=shape)
        message.raw_output_contents.append(b"".join(segments))


@pytest.mark.parametrize("seed", range(60))
def test_infer_replies_are_the_library_s_bytes(seed: int) -> None:
    generator = random.Random(seed)
    outputs = tensors(generator)
    request_id = generator.choice(["", "é", "x" * 300])
    expected = infer_twin.RESPONSE()
    infer_response(expected, request_id, outputs)
    assert infer_wire_reply.reply(SPEC, request_id.encode(), outputs) == expected.SerializeToString(deterministic=True)
    stream = infer_twin.STREAM_RESPONSE()
    infer_response(stream.infer_response, request_id, outputs)
    stream.infer_response.parameters["triton_final_response"].bool_param = True
    found = infer_wire_reply.reply(SPEC, request_id.encode(), outputs, True)
    assert found == stream.SerializeToString(deterministic=True)


@pytest.mark.parametrize("request_id", ["", "é-1"])
def test_errors_of_a_stream(request_id: str) -> None:
    stream = infer_twin.STREAM_RESPONSE(error_message="naïve " * 50)
    stream.infer_response.id = request_id
    stream.infer_response.parameters["triton_final_response"].bool_param = True
    found = infer_wire_reply.stream_error(stream.error_message.encode(), request_id.encode())
    assert found == stream.SerializeToString(deterministic=True)


def predict_response(outputs: list[Tensor], as_content: bool) -> Any:
    message = tensor_twin.RESPONSE()
    message.model_spec.name, message.model_spec.signature_name = "identity", "serving_default"
    message.model_spec.version.value = 3
    for index, shape, segments in outputs:
        name, datatype, _ = OUTPUTS[index]
        made = message.outputs[name]
        made.dtype = tensor_twin.NUMBERS[datatype]
        made.tensor_shape.SetInParent()
        for size in shape:
            made.tensor_shape.dim.add(size=size)
        contents = b"".join(segments)
        own = tensor_twin.TYPES[made.dtype][1]
        if as_content:
            made.tensor_content = contents
        else:
            letter = "H" if own == "half_val" else infer_twin.STRUCT_LETTER[datatype]
            count = len(contents) // numbers.WIDTH_BYTES[datatype]
            getattr(made, own).extend(struct.unpack(f"<{count}{letter}", contents))
    return message


@pytest.mark.parametrize("as_content", [False, True], ids=["values", "content"])
@pytest.mark.parametrize("seed", range(60))
def test_predict_replies_are_the_library_s_bytes(seed: int, as_content: bool) -> None:
    """Map entries come in the order of the outputs; the library sorts them when it is asked to be deterministic."""
    outputs = sorted(tensors(random.Random(seed)), key=lambda row: OUTPUTS[row[0]][0])
    found = tensor_proto_reply.reply(SPEC, outputs, as_content)
    expected = predict_response(outputs, as_content).SerializeToString(deterministic=True)
    # FP32 goes through Python's floats there, which makes NaNs quiet.
    assert tensor_twin.RESPONSE.FromString(found).SerializeToString(deterministic=True) == found
    if found != expected:
        assert len(found) == len(expected)
        differing = [at for at, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b]
        assert all(expected[at] == found[at] | 0x40 for at in differing)


@pytest.mark.parametrize(
    ("version", "found"),
    [("1", 1), ("0", 0), ("9223372036854775807", 2**63 - 1), ("9223372036854775808", None), ("v1", None), ("", None)],
)
def test_versions_that_are_numbers_stand_in_the_reply(version: str, found: int | None) -> None:
    spec = Spec("m", version, False, 1, [], [("y", "FP32", [-1])])
    message = tensor_twin.RESPONSE.FromString(tensor_proto_reply.reply(spec, []))
    assert (message.model_spec.version.value if message.model_spec.HasField("version") else None) == found


def test_a_wrong_output_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected an output of 0 to"):
        infer_wire_reply.reply(SPEC, b"", [(99, [], [])])
    with pytest.raises(ValueError, match="expected at most 8 dimensions, got 9"):
        tensor_proto_reply.reply(SPEC, [(0, [1] * 9, [b""])])
