"""server/_fast/infer_json_reply against the standard library's json."""

from __future__ import annotations

import json
import random
import struct

import pytest

from server._fast.infer_json_reply import reply
from server._fast.infer_spec import Spec
from tests.reference import infer_json as reference
from tests.reference import numbers

OUTPUTS = [(datatype.lower(), datatype, [-1]) for datatype in numbers.DATATYPES]
SPEC = Spec("identity", "3", False, 1, [], OUTPUTS)
MODEL = reference.Model("identity", "3", False, [], OUTPUTS)
Tensor = tuple[int, list[int], bool, list[bytes]]


def random_contents(generator: random.Random, datatype: str, count: int) -> bytes:
    if datatype == "BOOL":
        return bytes(generator.choice([0, 1]) for _ in range(count))
    contents = bytearray(generator.randbytes(count * numbers.WIDTH_BYTES[datatype]))
    return bytes(contents)


def same_as_twin(request_id: str, tensors: list[Tensor]) -> None:
    body, json_bytes = reply(SPEC, json.dumps(request_id)[1:-1].encode(), tensors)
    document, sections = reference.reply_document(
        MODEL, request_id, [(index, shape, binary, b"".join(parts)) for index, shape, binary, parts in tensors]
    )
    assert body[json_bytes:] == sections
    parsed = json.loads(body[:json_bytes])
    # repr tells 1 from 1.0 and -0.0 from 0.0, and a NaN is itself. Texts are those of the nearest float32.
    assert list(parsed) == list(document)
    outputs, expected = parsed.pop("outputs"), document.pop("outputs")
    assert parsed == document
    assert isinstance(expected, list)
    for output, wanted in zip(outputs, expected, strict=True):
        assert list(output) == list(wanted)
        if wanted["datatype"] in ("FP16", "BF16", "FP32") and "data" in output:
            output["data"] = [struct.unpack("<f", struct.pack("<f", number))[0] for number in output["data"]]
        assert repr(output) == repr(wanted)


@pytest.mark.parametrize("index", range(len(OUTPUTS)), ids=numbers.DATATYPES)
@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 1000])
def test_data_of_every_datatype(index: int, count: int) -> None:
    """Counts around the run length that room is made for."""
    contents = random_contents(random.Random(count), OUTPUTS[index][1], count)
    for binary in (False, True):
        same_as_twin("", [(index, [count], binary, [contents])])


def test_bytes_on_the_wire() -> None:
    spec = Spec("digits", "1", True, 64, [], [("p", "FP32", [-1, 2]), ("label", "INT64", [-1])])
    tensors: list[Tensor] = [
        (0, [2, 2], False, [struct.pack("<2f", 0.1, 1), struct.pack("<2f", float("nan"), 1e20)]),
        (1, [2], True, [struct.pack("<q", 7), struct.pack("<q", -1)]),
    ]
    body, json_bytes = reply(spec, b"a\\n", tensors)
    assert body[:json_bytes] == (
        b'{"id":"a\\n","model_name":"digits","model_version":"1","outputs":['
        b'{"name":"p","datatype":"FP32","shape":[2,2],"data":[0.1,1.0,NaN,1e+20]},'
        b'{"name":"label","datatype":"INT64","shape":[2],"parameters":{"binary_data_size":16}}]}'
    )
    assert body[json_bytes:] == struct.pack("<2q", 7, -1)


def test_segments_are_one_tensor() -> None:
    generator = random.Random(2)
    for _ in range(50):
        tensors: list[Tensor] = []
        for index in generator.sample(range(len(OUTPUTS)), generator.randint(0, 5)):
            datatype = OUTPUTS[index][1]
            counts = [generator.choice([0, 1, 7, 300]) for _ in range(generator.randint(0, 4))]
            parts = [random_contents(generator, datatype, count) for count in counts]
            tensors.append((index, [sum(counts)], generator.random() < 0.4, parts))
        same_as_twin(generator.choice(["", "q", 'é"\\/\n😀']), tensors)


@pytest.mark.parametrize("shape", [[], [1], [0, 5], [2**62, 1, 1, 1, 1, 1, 1, 2**62]])
def test_shapes(shape: list[int]) -> None:
    body, _ = reply(SPEC, b"", [(0, shape, False, [])])
    assert json.loads(body)["outputs"][0]["shape"] == shape


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "é😀", "\x00\x1f\x7f", ""])
def test_names_are_escaped(name: str) -> None:
    spec = Spec(name, name, False, 1, [], [(name, "INT8", [1])])
    document = json.loads(reply(spec, b"", [(0, [1], False, [b"\5"])])[0])
    assert document["model_name"] == document["model_version"] == document["outputs"][0]["name"] == name


def test_widest_numbers_fit_the_room() -> None:
    """A thousand of the longest texts of each datatype, in a buffer that has to grow for them."""
    longest = {
        "FP32": struct.pack("<f", -1.17549435e-38),
        "FP64": struct.pack("<d", -2.2250738585072014e-308),
        "INT64": struct.pack("<q", -(2**63)),
        "UINT64": struct.pack("<Q", 2**64 - 1),
        "BF16": struct.pack("<H", 0x8080),
        "FP16": struct.pack("<H", 0x8401),
        "BOOL": b"\0",
    }
    for datatype, bits in longest.items():
        same_as_twin("", [(numbers.DATATYPES.index(datatype), [1000], False, [bits * 1000])])
