"""BYTES in KServe V2 requests, JSON, binary and raw, against the twin over the standard library."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import pytest

from server._fast.infer_json_index import index, raw_index
from server._fast.infer_spec import InferRefused, Spec
from server._fast.infer_strings import pack
from tests.reference import bytes_form
from tests.reference import infer_json as reference
from tests.support.guard_page import GuardedMemory

INPUTS = [("s", "BYTES", [-1]), ("n", "INT32", [-1])]
OUTPUTS = [("y", "BYTES", [-1])]
SPEC = Spec("text", "1", False, 1, INPUTS, OUTPUTS)
MODEL = reference.Model("text", "1", False, list(INPUTS), list(OUTPUTS))
N: dict[str, Any] = {"name": "n", "shape": [1], "datatype": "INT32", "data": [7]}
SEVEN = struct.pack("<i", 7)
TEXTS: list[list[str]] = [
    [],
    [""],
    ["", "", ""],
    ["a"],
    ["]", "[", '"', "\\", "a,b", "{}"],
    ["é", "日本語", "\U0001f600", "\u0000", "\n\t\r\b\f/", "\x7f"],
    ["x" * 15, "x" * 16, "x" * 17, "x" * 31, "é" * 40],
    ["long" * 70_000],
]


def read(body: bytes | memoryview, json_bytes: int = -1) -> reference.Request:
    found = index(body, SPEC, json_bytes)
    request = reference.Request(outputs=found["outputs"], rows=found["rows"])
    for (name, datatype, _), tensor in zip(INPUTS, found["inputs"], strict=True):
        if tensor["bytes"] is not None:
            at, size = tensor["bytes"]
            contents = bytes(body[at : at + size])
        elif datatype == "BYTES":
            at, size = tensor["json_data"]
            count, contents = pack(body[at : at + size])
            assert count == tensor["element_count"]
        else:
            contents = SEVEN
        assert len(contents) == tensor["byte_count"]
        request.inputs[name] = (datatype, tensor["shape"], contents)
    return request


def same_as_twin(body: bytes, json_bytes: int = -1) -> bool:
    try:
        expected = reference.read_request(body, MODEL, json_bytes)
    except reference.Refused:
        with pytest.raises(InferRefused):
            index(body, SPEC, json_bytes)
        return False
    assert read(body, json_bytes) == expected
    return True


def json_body(data: Any, count: int, **options: Any) -> bytes:
    tensor = {"name": "s", "shape": [count], "datatype": "BYTES", "data": data}
    return json.dumps({"inputs": [tensor, N]}, **options).encode()


def binary_body(contents: bytes, count: int) -> tuple[bytes, int]:
    tensor = {
        "name": "s",
        "shape": [count],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(contents)},
    }
    head = json.dumps({"inputs": [tensor, N]}).encode()
    return head + contents, len(head)


def refusal(body: bytes, json_bytes: int = -1) -> str:
    with pytest.raises(InferRefused) as caught:
        index(body, SPEC, json_bytes)
    assert caught.value.code == 1
    assert not same_as_twin(body, json_bytes)
    return caught.value.text


# ---- JSON


@pytest.mark.parametrize("texts", TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize("ascii_only", [False, True])
def test_json_strings(texts: list[str], ascii_only: bool) -> None:
    assert same_as_twin(json_body(texts, len(texts), ensure_ascii=ascii_only))
    assert same_as_twin(json_body([texts], len(texts), ensure_ascii=ascii_only, indent=1))
    assert same_as_twin(json_body([[text] for text in texts], len(texts), ensure_ascii=ascii_only))
    assert pack(json.dumps(texts).encode())[1] == bytes_form.pack(text.encode() for text in texts)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("[1]", "input 's': Unable to parse 'data': element 0: expected a string, got '1'"),
        ('["a",-1.5e3]', "input 's': Unable to parse 'data': element 1: expected a string, got '-1.5e3'"),
        ('["a",true]', "input 's': Unable to parse 'data': element 1: expected a string, got 'true'"),
        ('["a",null]', "input 's': Unable to parse 'data': element 1: expected a string, got 'null'"),
        (
            '[{"b64":"YQ=="}]',
            "input 's': Unable to parse 'data': element 0: expected a string, got '{\"b64\":\"YQ==\"}'",
        ),
        ('["a" "b"]', "input 's': Unable to parse 'data': element 1: expected ',' or ']', got '\"b\"'"),
        ('["a",]', "input 's': Unable to parse 'data': element 1: expected a string, got ''"),
        ('[,"a"]', "input 's': Unable to parse 'data': element 0: expected a string, got ''"),
        (
            '[["a"],"b",[]]',
            "unexpected number of string elements 2 for inference input 's' for model 'text', expecting 1",
        ),
        ("[]", "expected 1 string elements for inference input 's' for model 'text', got 0"),
        ("[[],[[]]]", "expected 1 string elements for inference input 's' for model 'text', got 0"),
        ('"a"', "Unable to parse 'data': expected an array, got '\"a\"'"),
    ],
)
def test_json_refused_with_this_text(data: str, text: str) -> None:
    body = json_body([], 1).replace(b'"data": []', b'"data": ' + data.encode())
    assert refusal(body) == text


@pytest.mark.parametrize(
    "bad", [b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\x"', b'"\xff"', b'"\xc3"', b'"\n"', b'"\\u12"']
)
def test_strings_that_are_no_text(bad: bytes) -> None:
    assert "invalid JSON" in refusal(json_body([], 1).replace(b'"data": []', b'"data": [' + bad + b"]"))


def test_a_shape_that_no_text_could_fill() -> None:
    assert "expected 1000000000 string elements" in refusal(json_body(["a"], 1_000_000_000))
    assert "expected 9223372036854775807 string" in refusal(json_body(["a"], 2**63 - 1))


def test_the_datatype_is_looked_at_first() -> None:
    body = json_body([1], 1).replace(b"BYTES", b"INT32")
    assert refusal(body) == "inference input 's' data-type is 'INT32', but model 'text' expects 'BYTES'"
    number = json.dumps({"inputs": [{"name": "n", "shape": [1], "datatype": "BYTES", "data": [7]}]}).encode()
    assert "expected 2 inputs but got 1" in refusal(number)


def test_every_cut_of_an_array_at_a_guard_page() -> None:
    """Whole, cut everywhere, with bytes behind: no byte outside is read, and only the whole one is an array."""
    text = '["a\\n\\u00e9", ["日本", "\\ud83d\\ude00\\"", ""], [], "0123456789abcdef"]'.encode()
    memory = GuardedMemory(len(text) + 1)
    try:
        for size in range(1, len(text)):
            with memory.at_end(text[:size]) as part, pytest.raises(InferRefused):
                pack(part)
        for place in (memory.at_begin, memory.at_end):
            with place(text) as part:
                count, form = pack(part)
                assert (count, bytes_form.unpack(form)) == (
                    5,
                    ["a\né".encode(), "日本".encode(), '😀"'.encode(), b"", b"0123456789abcdef"],
                )
        with memory.at_end(text + b"]") as part, pytest.raises(InferRefused):
            pack(part)
    finally:
        memory.close()


def test_json_mutations_agree_with_the_twin() -> None:
    generator = random.Random(5)
    whole = json_body(["a", 'q"\\', "é😀", ""], 4, ensure_ascii=True)
    accepted = 0
    for _ in range(3000):
        body = bytearray(whole)
        for _ in range(generator.randint(1, 3)):
            # Numbers are read later: only the strings are changed.
            at = generator.randrange(whole.index(b'"data"'), whole.index(b"}"))
            body[at : at + generator.randint(0, 2)] = generator.choice(
                [b"", b'"', b",", b"[", b"]", b"\\", b"\\u00e9", b"1"]
            )
        accepted += same_as_twin(bytes(body))
    assert accepted > 100


# ---- binary


@pytest.mark.parametrize(
    "elements",
    [[], [b""], [b"", b""], [b"a"], [b"\xff\x00\xfe"], [b"\0" * 5, b"x" * 70_000], [bytes([n]) for n in range(256)]],
)
def test_binary_tensors(elements: list[bytes]) -> None:
    contents = bytes_form.pack(elements)
    assert same_as_twin(*binary_body(contents, len(elements)))
    for count in (len(elements) - 1, len(elements) + 1):
        if count >= 0:
            assert "string elements" in refusal(*binary_body(contents, count))
    for more in (b"\0", b"\0\0\0", b"\1\0\0\0"):
        assert "incomplete string" in refusal(*binary_body(contents + more, len(elements)))


@pytest.mark.parametrize(
    ("contents", "count", "text"),
    [
        (b"\1", 1, "incomplete string length indicator for {0}, expecting 4 bytes but only 1 bytes available"),
        (b"\2\0\0\0a", 1, "incomplete string data for {0}, expecting string of length 2 but only 1 bytes available"),
        (
            b"\xff\xff\xff\xffabc",
            1,
            "incomplete string data for {0}, expecting string of length 4294967295 but only 3 bytes available",
        ),
        (b"\0\0\0\0" * 3, 2, "unexpected number of string elements 3 for {0}, expecting 2"),
        (b"\0\0\0\0" * 3, 4, "expected 4 string elements for {0}, got 3"),
        (b"", 1, "expected 1 string elements for {0}, got 0"),
        (b"", 2**63 - 1, "expected 9223372036854775807 string elements for {0}, got 0"),
    ],
)
def test_binary_refused_with_this_text(contents: bytes, count: int, text: str) -> None:
    assert refusal(*binary_body(contents, count)) == text.format("inference input 's' for model 'text'")


def test_every_cut_of_a_binary_tensor_at_a_guard_page() -> None:
    contents = bytes_form.pack([b"ab", b"", b"\xff" * 5, b"x"])
    memory = GuardedMemory(4096)
    try:
        for size in range(len(contents) + 1):
            body, json_bytes = binary_body(contents[:size], 4)
            with memory.at_end(body) as part:
                if size == len(contents):
                    assert read(part, json_bytes).inputs["s"][2] == contents
                else:
                    with pytest.raises(InferRefused):
                        index(part, SPEC, json_bytes)
    finally:
        memory.close()


def test_a_million_empty_elements_are_one_pass() -> None:
    """Four bytes each: no limit but the body's, and no memory but its."""
    assert same_as_twin(*binary_body(bytes(4_000_000), 1_000_000))


# ---- a body that is one element


@pytest.mark.parametrize("dims", [[1], [-1], [-1, 1], [1, 1], []])
@pytest.mark.parametrize("body", [b"a", b"\xff\0", b"\4\0\0\0abcd"])
def test_raw_body_is_the_element(dims: list[int], body: bytes) -> None:
    spec = Spec("raw", "1", False, 1, [("s", "BYTES", dims)], OUTPUTS)
    found = raw_index(body, spec)
    assert found["inputs"] == [
        {
            "datatype": "BYTES",
            "shape": [1] * len(dims),
            "element_count": 1,
            "byte_count": 4 + len(body),
            "json_data": None,
            "bytes": None,
            "shared": None,
        }
    ]
    assert found["outputs"] == [(0, True)]
