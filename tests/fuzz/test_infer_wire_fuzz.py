"""Mutated protobuf messages: our readers and the protobuf library read the same, or both refuse."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from server._fast import infer_wire, tensor_proto
from server._fast.infer_spec import InferRefused, Spec
from tests.reference import bytes_form
from tests.reference import infer_wire as wire_twin
from tests.reference import tensor_proto as tensor_twin
from tests.reference.infer_json import Model, Refused
from tests.reference.numbers import DATATYPES, WIDTH_BYTES
from tests.support.wire_mutation import mutate

STRESS = int(os.environ.get("HEADRACE_STRESS", "0"))
COUNT = 1_000_000 * STRESS or 5_000

INPUTS = [("x", "FP32", [-1, 2]), ("k", "INT8", [-1]), ("é", "UINT64", [-1, 1])]
OUTPUTS = [("y", "FP32", [-1]), ("z", "INT64", [-1])]
SPEC = Spec("m", "1", True, 4, INPUTS, OUTPUTS)
MODEL = Model("m", "1", True, INPUTS, OUTPUTS)
#: Each datatype alone, so that one message in two is about a single tensor.
LONE = {
    datatype: (
        Spec("m", "1", False, 1, [("x", datatype, [-1])], OUTPUTS),
        Model("m", "1", False, [("x", datatype, [-1])], OUTPUTS),
    )
    for datatype in (*DATATYPES, "BYTES")
}
NAMES = list(LONE)
PARAMETERS = ["timeout", "priority", "sequence_id", "sequence_start", "sequence_end", "a", "triton_x"]


def element(datatype: str, r: random.Random) -> Any:
    if datatype == "BOOL":
        return r.random() < 0.5
    if datatype == "BYTES":
        return r.randbytes(r.choice([0, 0, 1, 5, 200]))
    if datatype.startswith("FP") or datatype == "BF16":
        return r.choice([0.0, 1.5, -2.25, r.random()])
    bits = int(datatype.lstrip("UINT"))
    value = r.getrandbits(r.choice([1, 6, bits - 1]))
    return value if datatype.startswith("U") or r.random() < 0.5 else -value


def packed(datatype: str, count: int, r: random.Random) -> bytes:
    """Elements as they lie in memory."""
    if datatype == "BYTES":
        return bytes_form.pack(element(datatype, r) for _ in range(count))
    size = count * WIDTH_BYTES[datatype]
    return bytes(r.randrange(2) for _ in range(size)) if datatype == "BOOL" else r.randbytes(size)


def some_parameter(parameter: Any, r: random.Random) -> None:
    kind = r.choice(["bool_param", "int64_param", "string_param", "double_param", "uint64_param"])
    values = {"bool_param": True, "string_param": "s", "double_param": 0.5}
    setattr(parameter, kind, values.get(kind, r.choice([0, 1, 2**40])))


def infer_request(model: Model, r: random.Random) -> bytes:
    message = wire_twin.REQUEST(model_name="m", model_version=r.choice(["", "1"]), id=r.choice(["", "id", "é"]))
    rows = r.randint(1, 3)
    typed = r.random() < 0.5
    for name, datatype, dims in r.sample(model.inputs, len(model.inputs)):
        shape = [rows, *dims[1:]]
        count = rows * (dims[1] if len(dims) > 1 else 1)
        tensor = message.inputs.add(name=name, datatype=datatype, shape=shape)
        own = wire_twin.CONTENTS_FIELD.get(datatype)
        if typed and own:
            getattr(tensor.contents, own).extend(element(datatype, r) for _ in range(count))
        else:
            message.raw_input_contents.append(packed(datatype, count, r))
        if r.random() < 0.1:
            some_parameter(tensor.parameters[r.choice(["a", "shared_memory_region"])], r)
    if r.random() < 0.3:
        message.outputs.add(name=r.choice(["y", "z"]))
        if r.random() < 0.3:
            some_parameter(message.outputs[0].parameters["classification"], r)
    if r.random() < 0.3:
        some_parameter(message.parameters[r.choice(PARAMETERS)], r)
    encoded: bytes = message.SerializeToString()
    return encoded


def predict_request(model: Model, r: random.Random) -> bytes:
    message = tensor_twin.REQUEST()
    message.model_spec.name = "m"
    if r.random() < 0.3:
        message.model_spec.version.value = r.choice([0, 1, 2**40])
    elif r.random() < 0.3:
        message.model_spec.version_label = "stable"
    if r.random() < 0.3:
        message.model_spec.signature_name = "serving_default"
    rows = r.randint(1, 3)
    for name, datatype, dims in model.inputs:
        tensor = message.inputs[name]
        tensor.dtype = tensor_twin.NUMBERS[datatype]
        for size in [rows, *dims[1:]]:
            tensor.tensor_shape.dim.add(size=size, name=r.choice(["", "", "n"]))
        count = rows * (dims[1] if len(dims) > 1 else 1)
        own = tensor_twin.TYPES[tensor.dtype][1]
        if r.random() < 0.6:
            values = [
                r.getrandbits(16) if own == "half_val" else element(datatype, r) for _ in range(r.randint(0, count))
            ]
            getattr(tensor, own).extend(values)
        else:
            tensor.tensor_content = packed(datatype, count, r)
    if r.random() < 0.3:
        message.output_filter.append(r.choice(["y", "z"]))
    encoded: bytes = message.SerializeToString()
    return encoded


def found_by(index: Callable[..., dict[str, Any]], body: bytes, spec: Spec, model: Model) -> wire_twin.Request | None:
    try:
        found = index(body, spec)
    except InferRefused as error:
        assert 0 < len(error.text.encode()) <= 511
        return None
    request = wire_twin.Request(
        found["id"], {}, found["outputs"], found["timeout_us"], found["priority"], found["rows"]
    )
    for (name, datatype, _), tensor in zip(model.inputs, found["inputs"], strict=True):
        at = tensor["bytes"]
        contents = b"".join(tensor["parts"]) if at is None else body[at[0] : at[0] + at[1]]
        if at is None and datatype == "FP32":
            contents = wire_twin.quiet(contents)
        assert len(contents) == tensor["byte_count"]
        request.inputs[name] = (tensor["shape"], contents)
    return request


def expected_of(read: Callable[[bytes, Model], wire_twin.Request], body: bytes, model: Model) -> Any:
    try:
        return read(body, model)
    except Refused:
        return None


@pytest.mark.parametrize(
    ("make", "index", "read"),
    [
        (infer_request, infer_wire.index, wire_twin.read_request),
        (predict_request, tensor_proto.index, tensor_twin.read_request),
    ],
    ids=["infer", "predict"],
)
def test_mutated_messages_are_read_as_by_the_library(
    make: Callable[[Model, random.Random], bytes],
    index: Callable[..., dict[str, Any]],
    read: Callable[[bytes, Model], wire_twin.Request],
) -> None:
    accepted = refused = 0
    for seed in range(COUNT):
        r = random.Random(seed)
        spec, model = (SPEC, MODEL) if seed % 2 else LONE[NAMES[seed // 2 % len(NAMES)]]
        body = mutate(make(model, r), r)
        expected = expected_of(read, body, model)
        assert found_by(index, body, spec, model) == expected, f"seed {seed}: {body.hex()}"
        accepted += expected is not None
        refused += expected is None
    assert accepted > COUNT // 10
    assert refused > COUNT // 10


def test_the_model_that_a_mutated_message_is_for() -> None:
    """The peek does not look into what it does not need, so only what the library reads can be compared."""
    for seed in range(COUNT // 5):
        r = random.Random(seed)
        body = mutate(infer_request(MODEL, r), r)
        try:
            message = wire_twin.parse(wire_twin.REQUEST, body)
        except Refused:
            continue
        assert infer_wire.model(body) == (message.model_name.encode(), message.model_version.encode()), seed
        body = mutate(predict_request(MODEL, r), r)
        try:
            expected = tensor_twin.read_model(body)
        except Refused:
            continue
        assert tensor_proto.model(body) == expected, f"seed {seed}: {body.hex()}"


def test_random_bytes_are_answered() -> None:
    r = random.Random(1)
    for _ in range(COUNT):
        body = r.randbytes(r.randrange(40))
        assert found_by(infer_wire.index, body, SPEC, MODEL) == expected_of(wire_twin.read_request, body, MODEL)
        assert found_by(tensor_proto.index, body, SPEC, MODEL) == expected_of(tensor_twin.read_request, body, MODEL)
