"""server/_fast/tfs_json_reply against the standard library's json, and its bytes."""

from __future__ import annotations

import itertools
import json
import math
import random
import struct

import pytest

from server._fast.infer_spec import InferRefused, Spec
from server._fast.tfs_json_reply import reply
from tests.reference import numbers
from tests.reference import tfs_json as reference
from tests.reference.infer_json import Model, Refused, Tensor

OUTPUTS: list[Tensor] = [(datatype.lower(), datatype, [-1]) for datatype in numbers.DATATYPES]
SPEC = Spec("identity", "3", False, 1, [], OUTPUTS)
MODEL = Model("identity", "3", False, [], OUTPUTS)
FORMS = ("row", "row_single", "column")
SHAPES = [
    [],
    [0],
    [1],
    [2],
    [257],
    [1, 1],
    [3, 4],
    [2, 300],
    [300, 2],
    [2, 0],
    [0, 2],
    [2, 0, 3],
    [2, 3, 4],
    [2, 2, 0],
    [1, 1, 1, 1, 1, 1, 1, 1],
    [2, 1, 2, 1, 2, 1, 2, 2],
    [2, 1, 2, 1, 2, 1, 2, 0],
]

Given = tuple[int, list[int], list[bytes]]


def random_contents(generator: random.Random, datatype: str, count: int) -> bytes:
    if datatype == "BOOL":
        return bytes(generator.choice([0, 1]) for _ in range(count))
    return generator.randbytes(count * numbers.WIDTH_BYTES[datatype])


def narrowed(value: object) -> object:
    """Texts are those of the nearest float32, or of the 16-bit float."""
    if isinstance(value, list):
        return [narrowed(member) for member in value]
    return struct.unpack("<f", struct.pack("<f", value))[0] if isinstance(value, float) else value


def same_as_twin(form: str, tensors: list[Given]) -> bool:
    """Compares; whether both write it."""
    whole = [(index, dims, b"".join(parts)) for index, dims, parts in tensors]
    try:
        expected = reference.reply_document(MODEL, form, whole)
    except Refused:
        with pytest.raises(InferRefused):
            reply(SPEC, form, tensors)
        return False
    body = reply(SPEC, form, tensors)
    assert b" " not in body
    got = json.loads(body)
    # repr tells 1 from 1.0 and -0.0 from 0.0, and a NaN is itself.
    if len(tensors) == 1 and MODEL.outputs[tensors[0][0]][1] in ("FP32", "FP16", "BF16"):
        (key,) = got
        got[key] = narrowed(got[key])
    assert repr(got) == repr(expected)
    return True


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("index", range(len(OUTPUTS)), ids=numbers.DATATYPES)
def test_every_shape_of_every_datatype(form: str, index: int) -> None:
    for number, shape in enumerate(SHAPES):
        contents = random_contents(random.Random(number), OUTPUTS[index][1], math.prod(shape))
        written = same_as_twin(form, [(index, shape, [contents])])
        assert written == (form != "row" or (bool(shape) and shape[0] > 0))


def cut(generator: random.Random, contents: bytes, row_bytes: int) -> list[bytes]:
    """Segments of whole rows, some of them empty."""
    rows = len(contents) // row_bytes if row_bytes else 0
    cuts = sorted(generator.randint(0, rows) for _ in range(generator.randint(0, 5)))
    edges = [0, *cuts, rows]
    parts = [contents[a * row_bytes : b * row_bytes] for a, b in itertools.pairwise(edges)]
    return parts if rows else [contents]


@pytest.mark.parametrize("form", FORMS)
def test_several_outputs_in_segments(form: str) -> None:
    generator = random.Random(5)
    integers = [at for at, output in enumerate(OUTPUTS) if output[1] not in numbers.FLOATS or output[1] == "FP64"]
    written = 0
    for _ in range(150):
        rows = generator.choice([1, 2, 3, 40])
        tensors: list[Given] = []
        for index in generator.sample(integers, generator.randint(2, 6)):
            shape = [rows, *generator.choice([[], [1], [3], [2, 2], [0], [300], [1, 2, 3]])]
            if generator.random() < 0.02:
                shape[0] += 1
            contents = random_contents(generator, OUTPUTS[index][1], math.prod(shape))
            row_bytes = math.prod(shape[1:]) * numbers.WIDTH_BYTES[OUTPUTS[index][1]]
            tensors.append((index, shape, cut(generator, contents, row_bytes)))
        written += same_as_twin(form, tensors)
    assert written > 100


def test_more_outputs_than_places_are_kept_for() -> None:
    outputs = [(f"y{number}", "INT16", [-1, 2]) for number in range(40)]
    spec = Spec("wide", "1", True, 8, [], outputs)
    contents = [struct.pack("<6h", *range(number, number + 6)) for number in range(40)]
    body = reply(spec, "row", [(at, [3, 2], [data[:4], b"", data[4:]]) for at, data in enumerate(contents)])
    rows = [{f"y{at}": [at + 2 * row, at + 2 * row + 1] for at in range(40)} for row in range(3)]
    assert json.loads(body) == {"predictions": rows}


FLOATS = struct.pack("<4f", 0.1, 1, float("nan"), 1e20)


@pytest.mark.parametrize(
    ("form", "tensors", "body"),
    [
        ("row", [(0, [2, 2], [FLOATS])], b'{"predictions":[[0.1,1.0],[NaN,1e+20]]}'),
        ("column", [(0, [2, 2], [FLOATS])], b'{"outputs":[[0.1,1.0],[NaN,1e+20]]}'),
        ("row_single", [(0, [2, 2], [FLOATS])], b'{"predictions":[[[0.1,1.0],[NaN,1e+20]]]}'),
        ("row", [(1, [2], [struct.pack("<2q", 7, -1)])], b'{"predictions":[7,-1]}'),
        (
            "row",
            [(0, [2, 2], [FLOATS[:8], FLOATS[8:]]), (1, [2], [struct.pack("<2q", 7, -1)])],
            b'{"predictions":[{"p \\"1":[0.1,1.0],"label":7},{"p \\"1":[NaN,1e+20],"label":-1}]}',
        ),
        (
            "column",
            [(1, [1], [struct.pack("<q", 7)]), (0, [1, 1], [FLOATS[:4]])],
            b'{"outputs":{"label":[7],"p \\"1":[[0.1]]}}',
        ),
        ("column", [(2, [], [b"\1"])], b'{"outputs":true}'),
        ("row_single", [(2, [], [b"\0"]), (1, [0], [])], b'{"predictions":[{"flag":false,"label":[]}]}'),
    ],
)
def test_bytes_on_the_wire(form: str, tensors: list[Given], body: bytes) -> None:
    spec = Spec(
        "digits", "1", True, 64, [], [('p "1', "FP32", [-1, 2]), ("label", "INT64", [-1]), ("flag", "BOOL", [-1])]
    )
    assert reply(spec, form, tensors) == body


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ([(0, [], [b"\1"])], "Tensor name: a has no shape information "),
        ([(0, [0], [])], "Tensor name: a has invalid batch size: 0"),
        ([(0, [2], [b"\1\1"]), (1, [3], [b"\1\1\1"])], "Tensor name: b has inconsistent batch size: 3 expecting: 2"),
        ([], "Cannot convert empty tensor map to JSON"),
    ],
)
def test_outputs_that_are_no_rows(tensors: list[Given], text: str) -> None:
    spec = Spec("m", "1", False, 1, [], [("a", "INT8", [-1]), ("b", "INT8", [-1])])
    with pytest.raises(InferRefused) as caught:
        reply(spec, "row", tensors)
    assert (caught.value.code, caught.value.text) == (1, text)
