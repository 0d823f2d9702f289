"""server/_fast/infer_json_index against a twin over the standard library, and the texts of its refusals."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import pytest

from server._fast.infer_json_fill import fill
from server._fast.infer_json_index import index
from server._fast.infer_spec import InferRefused, Spec
from tests.reference import infer_json as reference
from tests.support.guard_page import GuardedMemory

INVALID_ARGUMENT, UNIMPLEMENTED = 1, 4
INPUTS = [("image", "FP32", [-1, 3]), ("mask", "BOOL", [-1])]
OUTPUTS = [("probabilities", "FP32", [-1, 10]), ("label", "INT64", [-1]), ("flag", "BOOL", [-1])]
SPEC = Spec("digits", "1", True, 64, INPUTS, OUTPUTS)
MODEL = reference.Model("digits", "1", True, INPUTS, OUTPUTS)
LONE = Spec("lone", "1", False, 1, [("x", "INT32", [2, -1])], [("y", "INT32", [2, -1])])
LONE_MODEL = reference.Model("lone", "1", False, [("x", "INT32", [2, -1])], [("y", "INT32", [2, -1])])

IMAGE: dict[str, Any] = {"name": "image", "shape": [2, 3], "datatype": "FP32", "data": [[1, 2, 3], [4, 5, 6.5]]}
MASK: dict[str, Any] = {"name": "mask", "shape": [2], "datatype": "BOOL", "data": [True, 0]}
X: dict[str, Any] = {"name": "x", "shape": [2, 1], "datatype": "INT32", "data": [7, -7]}
SHARED = {"shared_memory_region": "r", "shared_memory_byte_size": 2}
FLOATS = struct.pack("<6f", 1, 2, 3, 4, 5, 6.5)


def read(body: bytes | memoryview, spec: Spec, json_bytes: int = -1) -> reference.Request:
    """Index and fill, as the twin answers."""
    found = index(body, spec, json_bytes)
    request = reference.Request(timeout_us=found["timeout_us"], priority=found["priority"], rows=found["rows"])
    request.outputs = found["outputs"]
    if found["id"] is not None:
        request.id = json.loads(b'"' + found["id"] + b'"')
    inputs = INPUTS if spec is SPEC else LONE_MODEL.inputs
    for (name, datatype, _), tensor in zip(inputs, found["inputs"], strict=True):
        assert tensor["datatype"] == datatype
        if tensor["bytes"] is None:
            at, size = tensor["json_data"]
            (contents,) = fill(body[at : at + size], datatype, [tensor["element_count"]])
        else:
            at, size = tensor["bytes"]
            contents = bytes(body[at : at + size])
        assert len(contents) == tensor["byte_count"]
        request.inputs[name] = (datatype, tensor["shape"], contents)
    return request


def same_as_twin(body: bytes, spec: Spec = SPEC, json_bytes: int = -1) -> bool:
    """Compares; whether both accept."""
    model = MODEL if spec is SPEC else LONE_MODEL
    try:
        expected = reference.read_request(body, model, json_bytes)
    except reference.Refused:
        with pytest.raises(InferRefused):
            read(body, spec, json_bytes)
        return False
    assert read(body, spec, json_bytes) == expected, body
    return True


def refusal(document: object, spec: Spec = SPEC) -> InferRefused:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    assert not same_as_twin(body, spec)
    with pytest.raises(InferRefused) as caught:
        read(body, spec)
    return caught.value


ACCEPTED: list[dict[str, Any]] = [
    {"inputs": [IMAGE, MASK]},
    {"inputs": [MASK, IMAGE], "id": "a"},
    {"id": "", "inputs": [IMAGE, MASK], "outputs": []},
    {"id": None, "inputs": [IMAGE, MASK], "outputs": None, "parameters": None},
    {"id": 'é"\\\n😀\x7f', "inputs": [IMAGE, MASK]},
    {"inputs": [IMAGE, MASK], "outputs": [{"name": "label"}]},
    {"inputs": [IMAGE, MASK], "outputs": [{"name": "label"}, {"name": "probabilities"}]},
    {"inputs": [IMAGE, MASK], "parameters": {"binary_data_output": True}},
    {"parameters": {"binary_data_output": True}, "inputs": [IMAGE, MASK], "outputs": [{"name": "label"}]},
    {
        "outputs": [{"name": "label", "parameters": {"binary_data": False}}, {"name": "probabilities"}],
        "inputs": [IMAGE, MASK],
        "parameters": {"binary_data_output": True},
    },
    {"inputs": [IMAGE, MASK], "outputs": [{"parameters": {"binary_data": True, "other": [1]}, "name": "label"}]},
    {"inputs": [IMAGE, MASK], "outputs": [{"name": "label", "parameters": {"classification": 0}}]},
    {"inputs": [IMAGE, MASK], "outputs": [{"name": "label", "parameters": None, "unknown": {"a": [None]}}]},
    {"inputs": [IMAGE, MASK], "parameters": {"timeout": 2**63 - 1, "priority": 2**64 - 1}},
    {"inputs": [IMAGE, MASK], "parameters": {"sequence_id": 0, "sequence_start": True, "sequence_end": False}},
    {"inputs": [IMAGE, MASK], "parameters": {"sequence_id": "", "timeout": None}},
    {"inputs": [IMAGE, MASK], "parameters": {"a": "x", "b": 1, "c": 1.5, "d": True, "e": -1, "f": None}},
    {"inputs": [IMAGE, MASK], "parameters": {"triton_enable_empty_final_response": True}},
    {"unknown": {"inputs": [[{"deep": [1, "]"]}]]}, "inputs": [{**IMAGE, "extra": "["}, {"x": [{}], **MASK}], "z": []},
    {"inputs": [{**IMAGE, "parameters": {"content_type": "np", "x": {"a": 1}}}, {**MASK, "parameters": None}]},
    {"inputs": [{**IMAGE, "shape": [1, 3], "data": [0, 0, 0]}, {**MASK, "shape": [1], "data": [[[False]]]}]},
]


@pytest.mark.parametrize("document", ACCEPTED, ids=range(len(ACCEPTED)))
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n\t", " :\r\n")], ids=["tight", "usual", "wide"])
@pytest.mark.parametrize("ascii_only", [True, False], ids=["escaped", "utf8"])
def test_accepted_as_by_the_twin(document: dict[str, Any], separators: tuple[str, str], ascii_only: bool) -> None:
    text = json.dumps(document, separators=separators, ensure_ascii=ascii_only).encode()
    for body in (text, b" \n" + text + b"\t\r\n "):
        assert same_as_twin(body)


def test_answer_in_full() -> None:
    request = read(json.dumps({"id": "q", "inputs": [MASK, IMAGE], "outputs": [{"name": "label"}]}).encode(), SPEC)
    assert request == reference.Request(
        id="q",
        inputs={"image": ("FP32", [2, 3], FLOATS), "mask": ("BOOL", [2], b"\1\0")},
        outputs=[(1, False)],
        rows=2,
    )


def test_unbatched_model_takes_free_and_empty_dimensions() -> None:
    for columns in (0, 1, 5):
        data = list(range(2 * columns))
        document = {"inputs": [{**X, "shape": [2, columns], "data": data}]}
        assert same_as_twin(json.dumps(document).encode(), LONE)


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


def test_names_and_keys_may_be_escaped() -> None:
    text = json.dumps(ACCEPTED[13])
    for word in ("inputs", "name", "shape", "datatype", "data", "parameters", "image", "mask", "timeout", "priority"):
        text = text.replace(f'"{word}"', f'"{escaped(word)}"')
    assert same_as_twin(text.encode())


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "é", "😀", "tab\t", "nul\0", "a/b", "\x7f"])
def test_model_names_beyond_ascii(name: str) -> None:
    spec = Spec(name, "1", False, 1, [(name, "INT8", [1])], [(name, "INT8", [1])])
    document = {"inputs": [{"name": name, "shape": [1], "datatype": "INT8", "data": [1]}], "outputs": [{"name": name}]}
    for ascii_only in (True, False):
        assert index(json.dumps(document, ensure_ascii=ascii_only).encode(), spec)["outputs"] == [(0, False)]
    document["inputs"][0]["name"] = name + "x"
    with pytest.raises(InferRefused) as caught:
        index(json.dumps(document).encode(), spec)
    if "\0" not in name:
        assert caught.value.text == f"unexpected inference input '{name}x' for model '{name}'; its inputs: '{name}'"


def without(tensor: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in tensor.items() if name != key}


REFUSED: list[tuple[object, int, str]] = [
    ({}, INVALID_ARGUMENT, "Unable to parse 'inputs': the request has none"),
    ([], INVALID_ARGUMENT, "invalid JSON: expected an object at byte 0, got '['"),
    (b"", INVALID_ARGUMENT, "invalid JSON: expected an object at byte 0, got the end"),
    (b"\xef\xbb\xbf{}", INVALID_ARGUMENT, "invalid JSON: expected an object at byte 0, got byte 0xef"),
    (b"{'inputs':[]}", INVALID_ARGUMENT, "invalid JSON: expected a key in quotes at byte 1, got '''"),
    ({"inputs": {}}, INVALID_ARGUMENT, "Unable to parse 'inputs': expected an array, got '{'"),
    ({"inputs": None}, INVALID_ARGUMENT, "Unable to parse 'inputs': expected an array, got 'null'"),
    ({"inputs": [1]}, INVALID_ARGUMENT, "Unable to parse 'inputs': expected an object, got '1'"),
    (
        {"inputs": []},
        INVALID_ARGUMENT,
        (
            "expected 2 inputs but got 0 inputs for model 'digits'. Got input(s) [], but missing required input(s) "
            "['image','mask']. Please provide all required input(s)."
        ),
    ),
    (
        {"inputs": [MASK]},
        INVALID_ARGUMENT,
        (
            "expected 2 inputs but got 1 inputs for model 'digits'. Got input(s) ['mask'], but missing required "
            "input(s) ['image']. Please provide all required input(s)."
        ),
    ),
    ({"inputs": [{**MASK, "name": "x"}]}, INVALID_ARGUMENT, "unexpected inference input 'x' for model 'digits'"),
    ({"inputs": [MASK, MASK]}, INVALID_ARGUMENT, "input 'mask' already exists in request"),
    ({"inputs": [without(MASK, "name")]}, INVALID_ARGUMENT, "Unable to parse 'name': an input has none"),
    ({"inputs": [{**MASK, "name": 1}]}, INVALID_ARGUMENT, "Unable to parse 'name': expected a string, got '1'"),
    ({"inputs": [without(MASK, "shape")]}, INVALID_ARGUMENT, "Unable to parse 'shape': input 'mask' has none"),
    ({"inputs": [without(MASK, "datatype")]}, INVALID_ARGUMENT, "Unable to parse 'datatype': input 'mask' has none"),
    (
        {"inputs": [without(MASK, "data")]},
        INVALID_ARGUMENT,
        (
            "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
            "'shared_memory_region' in 'parameters'. But no field is set"
        ),
    ),
    (
        {"inputs": [{**MASK, "parameters": {"binary_data_size": 2, "shared_memory_region": "r"}}]},
        INVALID_ARGUMENT,
        (
            "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
            "'shared_memory_region' in 'parameters'. But set 'data' 'binary_data_size' 'shared_memory_region'"
        ),
    ),
    (
        {"inputs": [{**without(MASK, "data"), "parameters": {"shared_memory_region": "r"}}]},
        INVALID_ARGUMENT,
        "'shared_memory_byte_size' must be given with 'shared_memory_region' for 'mask'",
    ),
    (
        {"inputs": [{**without(MASK, "data"), "parameters": {"shared_memory_region": 1}}]},
        INVALID_ARGUMENT,
        "Unable to parse 'shared_memory_region': expected a string, got '1'",
    ),
    (
        {"inputs": [{**without(MASK, "data"), "parameters": {**SHARED, "shared_memory_byte_size": 2**64}}]},
        INVALID_ARGUMENT,
        (
            "Unable to parse 'shared_memory_byte_size': expected a non-negative integer in range, "
            "got '18446744073709551616'"
        ),
    ),
    (
        {"inputs": [{**without(MASK, "data"), "parameters": {**SHARED, "shared_memory_offset": -1}}]},
        INVALID_ARGUMENT,
        "Unable to parse 'shared_memory_offset': expected a non-negative integer, got '-1'",
    ),
    (
        {"inputs": [IMAGE, {**without(MASK, "data"), "parameters": {**SHARED, "shared_memory_byte_size": 2**64 - 1}}]},
        INVALID_ARGUMENT,
        "input byte size mismatch for input 'mask' for model 'digits'. Expected 2, got 18446744073709551615",
    ),
    (
        {"inputs": [{**MASK, "datatype": "INT8"}, IMAGE]},
        INVALID_ARGUMENT,
        "inference input 'mask' data-type is 'INT8', but model 'digits' expects 'BOOL'",
    ),
    (
        {"inputs": [{**MASK, "datatype": "bool"}, IMAGE]},
        INVALID_ARGUMENT,
        "inference input 'mask' data-type is 'bool', but model 'digits' expects 'BOOL'",
    ),
    (
        {"inputs": [{**IMAGE, "shape": [2, 4]}, MASK]},
        INVALID_ARGUMENT,
        "unexpected shape for input 'image' for model 'digits'. Expected [-1,3], got [2,4]",
    ),
    (
        {"inputs": [{**IMAGE, "shape": [2]}, MASK]},
        INVALID_ARGUMENT,
        "unexpected shape for input 'image' for model 'digits'. Expected [-1,3], got [2]",
    ),
    (
        {"inputs": [{**IMAGE, "shape": [2, 3, *[1] * 62]}, MASK]},
        INVALID_ARGUMENT,
        "unexpected shape for input 'image' for model 'digits'. Expected [-1,3], got [2,3,1,1,1,1,1,1,...]",
    ),
    (
        {"inputs": [{**IMAGE, "shape": []}, MASK]},
        INVALID_ARGUMENT,
        "input 'image' has no shape but model requires batch dimension for 'digits'",
    ),
    (
        {"inputs": [IMAGE, {**MASK, "shape": [3], "data": [0, 0, 0]}]},
        INVALID_ARGUMENT,
        "input 'mask' batch size does not match other inputs for 'digits'",
    ),
    (
        {"inputs": [{**IMAGE, "shape": [0, 3], "data": []}, {**MASK, "shape": [0], "data": []}]},
        INVALID_ARGUMENT,
        "inference request batch-size must be >= 1 for 'digits'",
    ),
    (
        {"inputs": [{**IMAGE, "shape": [2**62, 3]}, {**MASK, "shape": [2**62]}]},
        INVALID_ARGUMENT,
        (
            "invalid shape for input 'image': shape [4611686018427387904,3] causes total element count to exceed "
            "maximum size of 9223372036854775807"
        ),
    ),
    (
        {"inputs": [{**IMAGE, "shape": [10**9, 3]}, {**MASK, "shape": [10**9]}]},
        INVALID_ARGUMENT,
        (
            "input 'image': Unable to parse 'data': Shape does not match true shape of 'data' field: the shape asks "
            "for 3000000000 elements"
        ),
    ),
    (
        {"inputs": [{**IMAGE, "shape": [-1, 3]}, MASK]},
        INVALID_ARGUMENT,
        "Unable to parse 'shape': expected a non-negative integer, got '-1'",
    ),
    (
        {"inputs": [{**IMAGE, "shape": [2**63, 3]}, MASK]},
        INVALID_ARGUMENT,
        "Unable to parse 'shape': expected a non-negative integer in range, got '9223372036854775808'",
    ),
    (
        {"inputs": [{**IMAGE, "shape": [2.0, 3]}, MASK]},
        INVALID_ARGUMENT,
        "Unable to parse 'shape': expected a non-negative integer, got '2.0'",
    ),
    (
        {"inputs": [{**IMAGE, "shape": 6}, MASK]},
        INVALID_ARGUMENT,
        "Unable to parse 'shape': expected an array, got '6'",
    ),
    ({"inputs": [{**MASK, "data": 1}]}, INVALID_ARGUMENT, "Unable to parse 'data': expected an array, got '1'"),
    (
        {"inputs": [IMAGE, MASK], "outputs": [{"name": "y"}]},
        INVALID_ARGUMENT,
        "unexpected inference output 'y' for model 'digits'",
    ),
    (
        {"inputs": [IMAGE, MASK], "outputs": [{"name": "label"}, {"name": "label"}]},
        INVALID_ARGUMENT,
        "output 'label' already exists in request",
    ),
    ({"inputs": [IMAGE, MASK], "outputs": [{}]}, INVALID_ARGUMENT, "Unable to parse 'name': an output has none"),
    (
        {"inputs": [IMAGE, MASK], "outputs": [{"name": "flag", "parameters": {"classification": 3}}]},
        INVALID_ARGUMENT,
        "class result not available for output due to unsupported type 'BOOL'",
    ),
    (
        {"inputs": [IMAGE, MASK], "outputs": [{"name": "label", "parameters": {"shared_memory_region": "r"}}]},
        INVALID_ARGUMENT,
        "'shared_memory_byte_size' must be given with 'shared_memory_region' for 'label'",
    ),
    (
        {"inputs": [IMAGE, MASK], "outputs": [{"name": "label", "parameters": {**SHARED, "binary_data": True}}]},
        INVALID_ARGUMENT,
        "output 'label': 'binary_data' cannot be combined with 'shared_memory_region'",
    ),
    (
        {"inputs": [IMAGE, MASK], "outputs": [{"name": "label", "parameters": {**SHARED, "classification": 1}}]},
        INVALID_ARGUMENT,
        "output 'label': 'classification' cannot be combined with 'shared_memory_region'",
    ),
    (
        {"inputs": [IMAGE, MASK], "outputs": [{"name": "label", "parameters": {"binary_data": 1}}]},
        INVALID_ARGUMENT,
        "Unable to parse 'binary_data': expected true or false, got '1'",
    ),
    ({"inputs": [IMAGE, MASK], "id": 7}, INVALID_ARGUMENT, "Unable to parse 'id': expected a string, got '7'"),
    (
        {"inputs": [IMAGE, MASK], "parameters": {"timeout": -1}},
        INVALID_ARGUMENT,
        "Unable to parse 'timeout': expected a non-negative integer, got '-1'",
    ),
    (
        {"inputs": [IMAGE, MASK], "parameters": {"timeout": 2**63}},
        INVALID_ARGUMENT,
        "Unable to parse 'timeout': expected a non-negative integer in range, got '9223372036854775808'",
    ),
    (
        {"inputs": [IMAGE, MASK], "parameters": {"priority": "high"}},
        INVALID_ARGUMENT,
        "Unable to parse 'priority': expected a non-negative integer, got '\"high\"'",
    ),
    (
        {"inputs": [IMAGE, MASK], "parameters": {"sequence_id": 5}},
        UNIMPLEMENTED,
        "'sequence_id' is not supported: this server keeps no state between requests",
    ),
    (
        {"inputs": [IMAGE, MASK], "parameters": {"sequence_id": "s"}},
        UNIMPLEMENTED,
        "'sequence_id' is not supported: this server keeps no state between requests",
    ),
    (
        {"inputs": [IMAGE, MASK], "parameters": {"triton_x": 1}},
        INVALID_ARGUMENT,
        "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.",
    ),
    (
        {"inputs": [IMAGE, MASK], "parameters": {"x": [1]}},
        INVALID_ARGUMENT,
        "parameter 'x' has invalid type. It should be either 'int', 'bool', 'double' or 'string'.",
    ),
    (
        {"inputs": [IMAGE, MASK], "parameters": []},
        INVALID_ARGUMENT,
        "Unable to parse 'parameters': expected an object, got '['",
    ),
    (b'{"id":"a","id":"b"}', INVALID_ARGUMENT, "invalid JSON: the key 'id' stands twice in one object"),
    (b'{"x":1,"\\u0078":2}', INVALID_ARGUMENT, "invalid JSON: the key 'x' stands twice in one object"),
    (b'{"parameters":{"a":1,"a":1}}', INVALID_ARGUMENT, "invalid JSON: the key 'a' stands twice in one object"),
    (b'{"inputs":[{"name":"a","n\\u0061me":"b"}]}', INVALID_ARGUMENT, "the key 'name' stands twice in one object"),
    (b'{"inputs":[{"data":[],"data":[]}]}', INVALID_ARGUMENT, "the key 'data' stands twice in one object"),
    (
        {f"key{number}": number for number in range(65)},
        INVALID_ARGUMENT,
        "one object has more than 64 keys that this server does not know",
    ),
    (b'{"inputs":[]} x', INVALID_ARGUMENT, "invalid JSON: expected the end at byte 14, got 'x'"),
    (b'{"inputs":[]}{}', INVALID_ARGUMENT, "invalid JSON: expected the end at byte 13, got '{'"),
    (b'{"inputs":[]}\0', INVALID_ARGUMENT, "invalid JSON: expected the end at byte 13, got byte 0x00"),
    (b'{"id":"\\ud800"}', INVALID_ARGUMENT, "expected a valid escape, surrogates in pairs at byte 7, got '\\'"),
    (b'{"id":"\xff"}', INVALID_ARGUMENT, "expected UTF-8 without control characters at byte 7, got byte 0xff"),
    (b'{"id":"\n"}', INVALID_ARGUMENT, "expected UTF-8 without control characters at byte 7, got byte 0x0a"),
    (b'{"x":' + b"[" * 100, INVALID_ARGUMENT, "expected at most 100 levels of nesting at byte 104, got '['"),
    (b'{"x":' + b'{"x":' * 100, INVALID_ARGUMENT, "expected at most 100 levels of nesting at byte 500, got '{'"),
    (
        b'{"inputs":[{"data":' + b"[" * 98,
        INVALID_ARGUMENT,
        "expected at most 100 levels of nesting at byte 116, got '['",
    ),
]


@pytest.mark.parametrize(("document", "code", "text"), REFUSED, ids=range(len(REFUSED)))
def test_refused_with_this_text(document: object, code: int, text: str) -> None:
    error = refusal(document)
    assert text in error.text
    assert error.code == code


def test_long_names_are_cut_in_the_text() -> None:
    error = refusal({"inputs": [{**MASK, "name": "é" * 10_000}]})
    assert error.text.startswith(f"unexpected inference input '{'é' * 64}' for model 'digits'; its inputs: ")


def test_of_many_names_some_are_shown() -> None:
    names = [f"number_{i}" for i in range(40)]
    spec = Spec("wide", "1", False, 1, [(name, "INT8", [1]) for name in names], [("y", "INT8", [1])])
    document = {"inputs": [{"name": "number", "shape": [1], "datatype": "INT8", "data": [1]}]}
    with pytest.raises(InferRefused) as caught:
        index(json.dumps(document).encode(), spec)
    shown = ", ".join(f"'{name}'" for name in names[:11])
    assert caught.value.text == f"unexpected inference input 'number' for model 'wide'; its inputs: {shown} and 29 more"


def test_million_keys_and_members_end_early() -> None:
    """Each would be quadratic or deep if it were read to the end."""
    mask = json.dumps(MASK).encode()
    for body in (
        b"{" + b",".join(b'"%d":0' % number for number in range(1_000_000)) + b"}",
        b'{"inputs":[],"outputs":[' + b",".join([b'{"name":"label"}'] * 1_000_000) + b"]}",
        b'{"inputs":[' + b",".join([mask] * 100_000) + b"]}",
        b'{"inputs":[{"shape":[' + b"1," * 1_000_000 + b"x]}]}",
    ):
        with pytest.raises(InferRefused):
            index(body, SPEC)


BASE = json.dumps({"id": "é\\", "x": {"a": [1, "b"]}, **ACCEPTED[9]}, ensure_ascii=False).encode()


def test_every_prefix_is_refused_and_read_within_bounds() -> None:
    """Against an unmapped page; behind the JSON part there may be anything."""
    memory = GuardedMemory(len(BASE) + 64)
    try:
        for size in range(len(BASE)):
            with memory.at_end(BASE[:size]) as view, pytest.raises(InferRefused):
                index(view, SPEC)
        with memory.at_end(BASE) as view:
            assert read(view, SPEC) == read(BASE, SPEC)
    finally:
        memory.close()
    for behind in (b"}", b"]", b'"', b"\0", b"0"):
        assert not same_as_twin(BASE + behind)
        assert not same_as_twin(BASE + behind, json_bytes=len(BASE))


def mutated(generator: random.Random, body: bytes) -> bytes:
    pieces = [b"", b'"', b"[", b"]", b"{", b"}", b",", b":", b"0", b"-", b"\\", b" ", b"\xc3", b"1e9", b"null", b"true"]
    for _ in range(generator.choice([1, 1, 1, 2, 4])):
        at = generator.randrange(len(body))
        if generator.random() < 0.3:
            to = generator.randrange(len(body))
            body = body[:at] + body[to : to + generator.randrange(30)] + body[at:]
        else:
            body = body[:at] + generator.choice(pieces) + body[at + generator.choice([0, 1, 1, 9]) :]
    return body


def test_mutations_are_judged_as_by_the_twin() -> None:
    generator = random.Random(23)
    bodies = [json.dumps(document).encode() for document in ACCEPTED]
    accepted = sum(same_as_twin(mutated(generator, generator.choice(bodies))) for _ in range(3000))
    assert accepted > 100


@pytest.mark.parametrize("piece", [b"null", b"[]", b"{}", b'""', b"0", b"true", b"-1", b'"image"', b"[[]]", b'{"a":1}'])
def test_every_value_replaced(piece: bytes) -> None:
    """Every value of a request, one at a time, is replaced by `piece`."""

    def variants(value: object) -> list[object]:
        found: list[object] = ["\0"]
        if isinstance(value, dict):
            found += [{**value, key: variant} for key, member in value.items() for variant in variants(member)]
        elif isinstance(value, list):
            found += [
                [*value[:at], variant, *value[at + 1 :]]
                for at, member in enumerate(value)
                for variant in variants(member)
            ]
        return found

    for document in (ACCEPTED[9], ACCEPTED[13], ACCEPTED[19]):
        for variant in variants(document):
            same_as_twin(json.dumps(variant).encode().replace(b'"\\u0000"', piece))
