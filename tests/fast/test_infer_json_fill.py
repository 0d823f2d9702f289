"""server/_fast/infer_json_fill against the standard library: arrays, nesting, parts, refusals, memory bounds."""

from __future__ import annotations

import json
import random
import struct

import pytest

from server._fast.infer_json_fill import fill
from server._fast.infer_spec import InferRefused
from tests.reference import numbers
from tests.support.guard_page import GuardedMemory

FLAT = struct.pack("<6f", 1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    "text",
    [
        "[1,2,3,4,5,6]",
        "[1, 2, 3, 4, 5, 6]",
        "[[1,2,3],[4,5,6]]",
        "[[1,2],[3,4],[5,6]]",
        "[[[1],[2]],[[3],[4]],[[5],[6]]]",
        "[[1,2,3],4,[5,[6]]]",
        "[[],1,[[]],2,[3,[]],4,5,6,[[],[]]]",
        "[ 1 ,\t2\n,\r\n3  ,  4,5 ,6 ]",
        "\n [[1 , 2],\n  [3 , 4],\n  [5 , 6]] \n",
        "[1.0,2.0e0,0.3E+1,40e-1,5,6]",
    ],
)
def test_nesting_and_white_space_do_not_matter(text: str) -> None:
    assert fill(text.encode(), "FP32", [6]) == [FLAT]
    assert numbers.read_array(text, "FP32", 6) == FLAT


@pytest.mark.parametrize("cuts", [[1, 5], [2, 4], [0, 6], [6, 0], [3, 0, 3], [1] * 6, [0, 0, 6, 0]])
@pytest.mark.parametrize("text", ["[1,2,3,4,5,6]", "[[1, 2], [3, 4], [5, 6]]", "[1,[2,3],[[4]],5,[6]]"])
def test_parts_are_the_whole(text: str, cuts: list[int]) -> None:
    parts = fill(text.encode(), "FP32", cuts)
    assert [len(part) for part in parts] == [4 * count for count in cuts]
    assert b"".join(parts) == FLAT


@pytest.mark.parametrize("text", ["[]", "[ ]", "[[],[]]", " [[[]]] "])
def test_no_elements(text: str) -> None:
    assert fill(text.encode(), "INT64", [0]) == [b""]
    with pytest.raises(InferRefused, match="the shape asks for at least 1 elements, got 0"):
        fill(text.encode(), "INT64", [1])


@pytest.mark.parametrize(
    ("text", "count", "message"),
    [
        ("[1,2]", 3, "Shape does not match true shape of 'data' field: the shape asks for at least 3 elements, got 2"),
        ("[1,2,3]", 2, "Shape does not match true shape of 'data' field: 'data' has more than the 2 elements"),
        ("[[1,2],[3]]", 2, "has more than the 2 elements"),
        ("[1,,2]", 2, "expected a value after 1 elements, got ','"),
        ("[,1]", 1, "expected a value after 0 elements, got ','"),
        ("[1,]", 1, "expected a value after 1 elements, got ']'"),
        ("[1,2", 2, "expected ',' or ']' after 2 elements, got the end"),
        ("[1,2,", 2, "expected a value after 2 elements, got the end"),
        ("[[1,2]", 2, "expected ',' or ']' after 2 elements, got the end"),
        ("[", 0, "expected a value after 0 elements, got the end"),
        ("", 0, "expected '[' after 0 elements, got the end"),
        ("1", 1, "expected '[' after 0 elements, got '1'"),
        ("{}", 0, "expected '[' after 0 elements, got '{}'"),
        ("[1 2]", 2, "expected ',' or ']' after 1 elements, got '2'"),
        ("[1]]", 1, "expected the end of the array after 1 elements, got ']'"),
        ("[1] 2", 1, "expected the end of the array after 1 elements, got '2'"),
        ("[1],", 1, "expected the end of the array after 1 elements, got ','"),
        ("[[1][2]]", 2, "expected ',' or ']' after 1 elements, got '[2'"),
        ("[1[2]]", 2, "expected ',' or ']' after 1 elements, got '[2'"),
        ('["1"]', 1, "element 0: expected a number for FP32, got '\"1\"'"),
        ("[1,{}]", 2, "element 1: expected a number for FP32, got '{}'"),
        ("[\x80]", 1, "element 0: expected a number for FP32, got '??'"),
        (f"[{'x' * 100}]", 1, f"got '{'x' * 40}'"),
    ],
)
def test_refusals_say_where_and_what(text: str, count: int, message: str) -> None:
    with pytest.raises(InferRefused) as caught:
        fill(text.encode(), "FP32", [count])
    assert caught.value.code == 1
    assert caught.value.text.startswith("Unable to parse 'data': ")
    assert message in caught.value.text


@pytest.mark.parametrize(("datatype", "code"), [("BYTES", 4), ("FP8", 4)])
def test_datatypes_without_fixed_width(datatype: str, code: int) -> None:
    with pytest.raises(InferRefused, match="not supported") as caught:
        fill(b"[1]", datatype, [1])
    assert caught.value.code == code


def test_depth() -> None:
    assert fill(b"[" * 100 + b"7" + b"]" * 100, "UINT8", [1]) == [b"\7"]
    for depth in (101, 100_000):
        with pytest.raises(InferRefused, match=r"nesting depth exceeds maximum allowed limit \(100\)"):
            fill(b"[" * depth + b"7" + b"]" * depth, "UINT8", [1])


def random_element(generator: random.Random, datatype: str) -> str:
    if datatype == "BOOL":
        return generator.choice(["true", "false", "0", "1"])
    if datatype in numbers.FLOATS:
        return generator.choice([repr(generator.uniform(-9, 9)), "NaN", "-Infinity", str(generator.randrange(300))])
    _, least, greatest = numbers.INTEGERS[datatype]
    return str(generator.randint(least, greatest))


def random_array(generator: random.Random, datatype: str, depth: int = 0) -> tuple[str, int]:
    """Text and element count of an array with random nesting and white space."""
    members, count = [], 0
    for _ in range(generator.randrange(5)):
        if depth < 4 and generator.random() < 0.4:
            text, inner = random_array(generator, datatype, depth + 1)
        else:
            text, inner = random_element(generator, datatype), 1
        space = generator.choice(["", "", " ", "\n\t"])
        members.append(f"{space}{text}{generator.choice(['', '', ' '])}")
        count += inner
    return f"[{','.join(members)}]", count


@pytest.mark.parametrize("datatype", numbers.DATATYPES)
def test_random_arrays_in_random_parts(datatype: str) -> None:
    generator = random.Random(datatype)
    for _ in range(60):
        text, count = random_array(generator, datatype)
        expected = numbers.read_array(text, datatype, count)
        cut = generator.randint(0, count)
        assert b"".join(fill(text.encode(), datatype, [cut, count - cut])) == expected, text


@pytest.mark.parametrize("datatype", ["FP32", "FP16", "INT32", "UINT64", "BOOL"])
def test_broken_arrays_are_refused_as_by_the_standard_library(datatype: str) -> None:
    """One byte is changed, inserted or taken away."""
    generator = random.Random(datatype)
    for _ in range(400):
        text, count = random_array(generator, datatype)
        at = generator.randrange(len(text))
        piece = generator.choice(["", "[", "]", ",", " ", "-", "0", "9", ".", "e", "{", '"', "x", "tru"])
        broken = text[:at] + piece + text[at + generator.randrange(2) :]
        try:
            expected = numbers.read_array(broken, datatype, count)
        except (ValueError, RecursionError):
            with pytest.raises(InferRefused):
                fill(broken.encode(), datatype, [count])
        else:
            assert fill(broken.encode(), datatype, [count]) == [expected], broken


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "FP16", "INT8", "BOOL"])
def test_reads_nothing_behind_the_text(datatype: str) -> None:
    """Every prefix of the text at the end of mapped memory."""
    texts = [
        "[1,0]",
        "[ 1 , 0 ]",
        "[[1],[0]]",
        "[-1.5e+3,-Infinity,NaN,0.1]",
        "[true,false]",
        "[-0,12345678901234567890]",
    ]
    memory = GuardedMemory(256)
    try:
        for text in texts:
            for size in range(len(text) + 1):
                prefix = text.encode()[:size]
                with memory.at_end(prefix) as view:
                    for count in (0, 1, 2, 4):
                        try:
                            expected = numbers.read_array(prefix.decode(), datatype, count)
                        except (ValueError, RecursionError):
                            with pytest.raises(InferRefused):
                                fill(view, datatype, [count])
                        else:
                            assert fill(view, datatype, [count]) == [expected]
    finally:
        memory.close()


def test_long_numbers() -> None:
    digits = "1" + "0" * 100_000
    assert fill(f"[0.{'3' * 100_000}]".encode(), "FP32", [1]) == [struct.pack("<f", 1 / 3)]
    assert fill(f"[{digits}e-100000]".encode(), "FP64", [1]) == [struct.pack("<d", 1)]
    for datatype in ("INT64", "FP32"):
        with pytest.raises(InferRefused, match="does not fit"):
            fill(f"[{digits}]".encode(), datatype, [1])


def test_large_array() -> None:
    generator = random.Random(1)
    values = [generator.uniform(-1e6, 1e6) for _ in range(20_000)]
    text = json.dumps([values[at : at + 100] for at in range(0, len(values), 100)])
    parts = fill(text.encode(), "FP64", [7_777, 1, 12_222])
    assert b"".join(parts) == struct.pack(f"<{len(values)}d", *values)
