"""The classification extension: order, texts and shapes of Triton's."""

from __future__ import annotations

import math
import random
import struct

import pytest

from server._fast.infer_classes import classes
from server._fast.infer_spec import InferRefused, Spec
from tests.reference import bytes_form

LETTERS = {
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "FP32": "f", "FP64": "d",
}  # fmt: skip


def spec_of(datatype: str, dims: list[int], batched: bool, labels: list[str] | None = None) -> Spec:
    given = None if labels is None else {"y": labels}
    return Spec("m", "1", batched, 8, [("x", "FP32", [-1])], [("z", "BYTES", [-1]), ("y", datatype, dims)], given)


def twin(values: list[float], count: int, labels: list[str], decimals: bool) -> list[bytes]:
    """std::to_string of the best values, ties by index, NaN last."""
    order = sorted(
        range(len(values)), key=lambda i: (math.isnan(values[i]), -values[i] if values[i] == values[i] else 0, i)
    )
    texts = []
    for i in order[:count]:
        text = f"{values[i]:f}" if decimals else f"{int(values[i])}"
        texts.append(f"{text}:{i}" + (f":{labels[i]}" if i < len(labels) and labels[i] else ""))
    return [text.encode() for text in texts]


@pytest.mark.parametrize("datatype", LETTERS)
@pytest.mark.parametrize("count", [1, 3, 7, 2**64 - 1])
@pytest.mark.parametrize("batched", [False, True])
def test_against_the_twin(datatype: str, count: int, batched: bool) -> None:
    generator = random.Random(f"{datatype} {count}")
    letter, decimals = LETTERS[datatype], datatype.startswith("FP")
    labels = ["cat", "", "dög", "bird:1"]
    rows = []
    for _ in range(4):
        values = [
            generator.uniform(-5, 5) if decimals else generator.randrange(-3 if letter.islower() else 0, 5)
            for _ in range(7)
        ]
        rows.append(list(struct.unpack(f"<7{letter}", struct.pack(f"<7{letter}", *values))))
    spec = spec_of(datatype, [-1, 7], batched, labels)
    if batched:
        segments = [struct.pack(f"<7{letter}", *rows[0]), struct.pack(f"<21{letter}", *rows[1], *rows[2], *rows[3])]
        shape, form = classes(spec, 1, [4, 7], segments, count)
        expected = [text for row in rows for text in twin(row, count, labels, decimals)]
        assert shape == [4, min(count, 7)]
    else:
        flat = [value for row in rows for value in row]
        shape, form = classes(spec, 1, [4, 7], [struct.pack(f"<28{letter}", *flat)], count)
        expected = twin(flat, count, labels, decimals)
        assert shape == [min(count, 28)]
    assert bytes_form.unpack(form) == expected


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.1, 0.9, 0.5], ["0.900000:1", "0.500000:2", "0.100000:0"]),
        ([float("nan"), float("-inf"), float("inf"), 0.0], ["inf:2", "0.000000:3", "-inf:1", "nan:0"]),
        ([1e30, -0.0], ["1000000015047466219876688855040.000000:0", "-0.000000:1"]),
        ([0.0000005, 0.0000015], ["0.000002:1", "0.000000:0"]),
        ([2.0] * 4, ["2.000000:0", "2.000000:1", "2.000000:2", "2.000000:3"]),
    ],
)
def test_texts_of_fp32(values: list[float], texts: list[str]) -> None:
    _, form = classes(spec_of("FP32", [-1], False), 1, [len(values)], [struct.pack(f"<{len(values)}f", *values)], 9)
    assert [element.decode() for element in bytes_form.unpack(form) or []] == texts


def test_the_longest_text_fits() -> None:
    lowest = -1.7976931348623157e308
    _, form = classes(spec_of("FP64", [1], False, ["l" * 5000]), 1, [1], [struct.pack("<d", lowest)], 1)
    assert bytes_form.unpack(form) == [f"{lowest:f}:0:{'l' * 5000}".encode()]


@pytest.mark.parametrize(
    ("batched", "dims", "shape", "size", "expected"),
    [
        (True, [-1], [3], 3, [3, 1]),
        (True, [-1, 2, 3], [2, 2, 3], 12, [2, 4]),
        (False, [2, 2, 3], [2, 2, 3], 12, [4]),
        (False, [], [], 1, [1]),
        (False, [-1], [0], 0, [0]),
        (True, [-1, 0], [2, 0], 0, [2, 0]),
    ],
)
def test_shapes(batched: bool, dims: list[int], shape: list[int], size: int, expected: list[int]) -> None:
    got, form = classes(spec_of("INT8", dims, batched), 1, shape, [bytes(size)], 4)
    assert got == expected
    assert len(bytes_form.unpack(form) or []) == math.prod(expected)


@pytest.mark.parametrize("datatype", ["BOOL", "FP16", "BF16", "BYTES"])
def test_datatypes_without_scores(datatype: str) -> None:
    spec = spec_of(datatype, [-1], False)
    with pytest.raises(
        InferRefused, match=f"^class result not available for output due to unsupported type '{datatype}'$"
    ):
        classes(spec, 1, [1], [b"\0"], 1)


def test_labels_of_an_output_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="labels for 'w', which is not an output"):
        Spec("m", "1", False, 1, [], [("y", "FP32", [2])], {"w": ["a"]})
