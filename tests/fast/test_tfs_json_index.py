"""server/_fast/tfs_json_index against a twin over the standard library, and TensorFlow Serving's texts."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import pytest

from server._fast.infer_json_fill import fill
from server._fast.infer_spec import InferRefused, Spec
from server._fast.tfs_json_index import explain, index, path_name_is, predict_path
from tests.reference import numbers
from tests.reference import tfs_json as reference
from tests.reference.infer_json import Model, Refused, Tensor
from tests.support.guard_page import GuardedMemory

INVALID_ARGUMENT, UNIMPLEMENTED = 1, 4


class Served:
    """A model to both readers."""

    def __init__(self, name: str, batched: bool, inputs: list[Tensor]) -> None:
        outputs: list[Tensor] = [("y", "FP32", [-1])]
        self.spec = Spec(name, "1", batched, 64 if batched else 1, inputs, outputs)
        self.model = Model(name, "1", batched, inputs, outputs)


IMAGE = Served("image", True, [("x", "FP32", [-1, 3])])
FREE = Served("free", True, [("x", "FP32", [-1, -1, -1])])
LABEL = Served("label", True, [("k", "INT64", [-1])])
PAIR = Served("pair", True, [("image", "FP32", [-1, 2]), ("mask", "BOOL", [-1]), ("k", "INT8", [-1, -1])])
FLAGS = Served("flags", True, [("b", "BOOL", [-1, 2])])
LONE = Served("lone", False, [("x", "INT32", [2, -1])])
SCALAR = Served("scalar", False, [("x", "FP64", []), ("n", "UINT8", [])])
DEEP = Served("deep", False, [("x", "INT8", [-1] * 8)])
MODELS = [IMAGE, FREE, LABEL, PAIR, FLAGS, LONE, SCALAR, DEEP]


def read(body: bytes | memoryview, served: Served) -> reference.Predict:
    """Index and fill, as the twin answers."""
    found = index(body, served.spec)
    predict = reference.Predict(found["form"], found["rows"])
    for (name, datatype, _), tensor in zip(served.model.inputs, found["inputs"], strict=True):
        assert tensor["datatype"] == datatype
        contents = tensor["bytes"]
        if contents is None:
            at, size = tensor["json_data"]
            (contents,) = fill(body[at : at + size], datatype, [tensor["element_count"]])
        assert len(contents) == tensor["byte_count"]
        predict.inputs[name] = (tensor["shape"], contents)
    return predict


def same_as_twin(body: bytes, served: Served) -> bool:
    """Compares; whether both accept. What cannot be read has a text that begins as TensorFlow Serving's do."""
    try:
        expected = reference.read_predict(body, served.model)
    except Refused:
        with pytest.raises(InferRefused) as caught:
            read(body, served)
        if "Unable to parse 'data'" in caught.value.text:
            assert explain(body, served.spec)
        return False
    assert read(body, served) == expected, body
    assert explain(body, served.spec) == ""
    return True


def refusal(body: bytes, served: Served) -> tuple[int, str]:
    assert not same_as_twin(body, served)
    try:
        index(body, served.spec)
    except InferRefused as error:
        return error.code, error.text
    return INVALID_ARGUMENT, explain(body, served.spec)


def pair(image: object, mask: object, k: object) -> dict[str, object]:
    return {"image": image, "mask": mask, "k": k}


ACCEPTED: list[tuple[Served, Any]] = [
    (IMAGE, {"instances": [[1.0, 2.0, 3.0]]}),
    (IMAGE, {"instances": [[1, -2, 3e2], [0.1, float("nan"), float("-inf")]]}),
    (IMAGE, {"inputs": [[1, 2, 3]], "signature_name": "serving_default"}),
    (IMAGE, {"signature_name": "", "inputs": {"x": [[1, 2, 3], [4, 5, 6]]}}),
    (IMAGE, {"instances": [{"x": [1, 2, 3]}, {"x": [4, 5, 6]}]}),
    (IMAGE, {"other": [{"instances": ["},:{", {}]}], "instances": [[1, 2, 3]], "z": None}),
    (IMAGE, {"inputs": {"other": {"x": []}, "x": [[1, 2, 3]]}}),
    (FREE, {"instances": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]}),
    (FREE, {"instances": [[[]], [[]]]}),
    (FREE, {"inputs": [[[1] * 40] * 3] * 2}),
    (FREE, {"instances": [{"x": [[], []]}, {"x": [[], []]}]}),
    (LABEL, {"instances": [2**63 - 1, -(2**63), 0]}),
    (LABEL, {"instances": [{"k": 1}, {"k": -1}]}),
    (PAIR, {"instances": [pair([1, 2], True, [1, 2]), pair([3, 4.5], False, [-128, 127])]}),
    (PAIR, {"instances": [pair([1, 2], True, [])]}),
    (PAIR, {"inputs": pair([[1, 2], [3, 4]], [True, False], [[1], [2]])}),
    (FLAGS, {"instances": [[True, False], [False, False]]}),
    (LONE, {"inputs": [[1, 2], [3, 4]]}),
    (LONE, {"instances": [[1], [2]]}),
    (LONE, {"instances": [[[1, 2], [3, 4]]]}),
    (LONE, {"instances": [{"x": [[1, 2], [3, 4]]}]}),
    (SCALAR, {"inputs": {"x": 1.5, "n": 255}}),
    (SCALAR, {"instances": [{"n": 0, "x": -0.0}]}),
    (DEEP, {"inputs": [[[[[[[[1]]]]]], [[[[[[2]]]]]]]]}),
]


@pytest.mark.parametrize(("served", "document"), ACCEPTED, ids=range(len(ACCEPTED)))
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n\t", " :\r\n")], ids=["tight", "usual", "wide"])
def test_accepted_as_by_the_twin(served: Served, document: dict[str, Any], separators: tuple[str, str]) -> None:
    """Alone, between white space, and with anything behind it."""
    text = json.dumps(document, separators=separators).encode()
    for body in (text, b" \r\n" + text + b"\t", text + b"}", text + b'{"x"', text + b"\xff\0"):
        assert same_as_twin(body, served)
    for body in (text.replace(b"[", b"[ ").replace(b"]", b" ]"), text.replace(b"[", b"[\n\n").replace(b"]", b"\t]")):
        assert same_as_twin(body, served)


def test_answer_in_full() -> None:
    body = b'{"instances":[{"mask":true,"k":[1],"image":[1,2]},{"k":[2],"image":[3,4.5],"mask":false}]}'
    assert read(body, PAIR) == reference.Predict(
        "row", 2, {"image": ([2, 2], struct.pack("<4f", 1, 2, 3, 4.5)), "mask": ([2], b"\1\0"), "k": ([2, 1], b"\1\2")}
    )
    lone = index(b'{"instances":[[[7],[8]]]}', LONE.spec)
    assert (lone["form"], lone["rows"], lone["inputs"][0]["shape"]) == ("row_single", 1, [2, 1])
    assert index(b'{"instances": [[1, 2, 3]]}', IMAGE.spec)["inputs"][0]["json_data"] == (14, 11)


def test_keys_may_be_escaped() -> None:
    body = b'{"\\u0069nstances":[{"\\u0078":[1,2,3]}],"signature\\u005fname":"serving\\u005fdefault"}'
    assert same_as_twin(body, IMAGE)


ELEMENT = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: "
REFUSED: list[tuple[Served, bytes, str]] = [
    (IMAGE, b"", "JSON Parse error: The document is empty"),
    (IMAGE, b" \n", "JSON Parse error: The document is empty at offset: 2"),
    (IMAGE, b"x", "JSON Parse error: Expected a value, got 'x' at offset: 0"),
    (IMAGE, b"[1]", "JSON Value: [1] Is not object"),
    (IMAGE, b"{}", "Missing 'inputs' or 'instances' key"),
    (IMAGE, b'{"x":1}', "Missing 'inputs' or 'instances' key"),
    (IMAGE, b'{"x":1', "JSON Parse error: Expected ',' or '}', got the end at offset: 6"),
    (IMAGE, b'{"x":[}', "JSON Parse error: Expected a value, got '}' at offset: 6"),
    (IMAGE, b'{"instances":[]}', "JSON Value: {\"instances\":[]} No values in 'instances' array"),
    (IMAGE, b'{"instances":3}', "JSON Value: {\"instances\":3} Excepting 'instances' to be an list/array"),
    (
        IMAGE,
        b'{"instances":[[1,2,3]],"inputs":[[1,2,3]]}',
        (
            'JSON Value: {"instances":[[1,2,3]],"inputs":[[1,2,3]]} Not formatted correctly expecting only one of '
            "'inputs' or 'instances' keys to exist "
        ),
    ),
    (
        IMAGE,
        b'{"inputs":[[1,2,3]],"instances":[[1,2,3]],"padding":"' + b"x" * 99 + b'"}',
        (
            'JSON Value: {"inputs":[[1,2,3]],"instances":[[1,2,3]],"padding":"xxxxxxxxxxx... Not formatted correctly '
            "expecting only one of 'inputs' or 'instances' keys to exist "
        ),
    ),
    (
        IMAGE,
        b'{"signature_name":1}',
        "JSON Value: {\"signature_name\":1} not formatted correctly. 'signature_name' key must be a string value.",
    ),
    (IMAGE, b'{"signature_name":"other"}', 'Serving signature name: "other" not found in signature def'),
    (IMAGE, b'{"instances":[[1,2,3]],"instances":1}', "invalid JSON: the key 'instances' stands twice in one object"),
    (IMAGE, b'{"instances":[[1,2,3],[4,5]]}', ELEMENT.format(1) + "Expecting tensor size: 3 but got: 2"),
    (IMAGE, b'{"instances":[[1,2,3],4]}', ELEMENT.format(1) + "Expecting tensor size: 3 but got: 1"),
    (FREE, b'{"instances":[[[1,2]],[[1],[2]]]}', ELEMENT.format(1) + "Expecting shape [1,2] but got: [2,1]"),
    (
        FREE,
        b'{"instances":[[[1,2],[3]]]}',
        ELEMENT.format(0) + "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
    ),
    (
        FREE,
        b'{"inputs":[[[1,2]],[[3,4],[5,6]]]}',
        "Encountered list at unexpected size: 2 at level: 1 expected size: 1",
    ),
    (
        IMAGE,
        b'{"instances":[[1,[2],3]]}',
        ELEMENT.format(0) + "Encountered list at unexpected level: 1 expected < 1",
    ),
    (
        IMAGE,
        b'{"instances":[[[1],2,3]]}',
        ELEMENT.format(0) + "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
    ),
    (
        IMAGE,
        b'{"instances":[[1,2,"3"]]}',
        ELEMENT.format(0) + 'JSON Value: "3" Type: String is not of expected type: float',
    ),
    (
        IMAGE,
        b'{"instances":[[1,2,null]]}',
        ELEMENT.format(0) + "JSON Value: null Type: Null is not of expected type: float",
    ),
    (
        IMAGE,
        b'{"instances":[[1,2,true]]}',
        ELEMENT.format(0) + "JSON Value: true Type: True is not of expected type: float",
    ),
    (
        IMAGE,
        b'{"instances":[[1,2,{"b64":"AAAA"}]]}',
        ELEMENT.format(0) + 'JSON Value: {"b64":"AAAA"} Type: Object is not of expected type: float',
    ),
    (
        IMAGE,
        b'{"instances":[{"b64":"AAAA"}]}',
        ELEMENT.format(0) + 'JSON Value: {"b64":"AAAA"} Type: Object is not of expected type: float',
    ),
    (
        IMAGE,
        b'{"inputs":{"b64":"AAAA"}}',
        'JSON Value: {"b64":"AAAA"} Type: Object is not of expected type: float',
    ),
    (
        IMAGE,
        b'{"instances":[[1,2,1e39]]}',
        ELEMENT.format(0) + "Cannot convert JSON value: 1e39 to float without loss of precision.",
    ),
    (
        LABEL,
        b'{"instances":[1,2.0]}',
        ELEMENT.format(1) + "JSON Value: 2.0 Type: Number is not of expected type: int64",
    ),
    (LABEL, b'{"instances":[NaN]}', ELEMENT.format(0) + "JSON Value: NaN Type: Number is not of expected type: int64"),
    (LABEL, b'{"instances":[true]}', ELEMENT.format(0) + "JSON Value: true Type: True is not of expected type: int64"),
    (
        LABEL,
        b'{"inputs":[9223372036854775808]}',
        "JSON Value: 9223372036854775808 Type: Number is not of expected type: int64",
    ),
    (
        FLAGS,
        b'{"instances":[[true,1]]}',
        ELEMENT.format(0) + "JSON Value: 1 Type: Number is not of expected type: bool",
    ),
    (FLAGS, b'{"inputs":[[0,true]]}', "JSON Value: 0 Type: Number is not of expected type: bool"),
    (IMAGE, b'{"instances":[[1 2,3,4]]}', "JSON Parse error: Expected ',' or ']', got '2' at offset: 17"),
    (IMAGE, b'{"instances":[[1,2,03]]}', "JSON Parse error: Expected a value, got '0' at offset: 19"),
    (IMAGE, b'{"instances":[[1,2,]]}', "JSON Parse error: Expected a value, got ']' at offset: 19"),
    (IMAGE, b'{"instances":[[1,2,3]}', "JSON Parse error: Expected ']', got the end at offset: 22"),
    (
        IMAGE,
        b'{"instances":[[1,2,3],{"x":[1,2,3]}]}',
        "Expecting value/list but got object at item 1 of input list",
    ),
    (IMAGE, b'{"instances":[{"x":[1,2,3]},[1,2,3]]}', "Expecting object but got list at item 1 of input list"),
    (
        IMAGE,
        b'{"instances":[[1,2]]}',
        "unexpected shape for input 'x' for model 'image'. Expected [-1,3], got [1,2]",
    ),
    (IMAGE, b'{"inputs":4}', "input 'x' has no shape but model requires batch dimension for 'image'"),
    (IMAGE, b'{"inputs":[]}', "inference request batch-size must be >= 1 for 'image'"),
    (IMAGE, b'{"inputs":{"y":[[1,2,3]]}}', "Missing named input: x in 'inputs' object."),
    (IMAGE, b'{"inputs":{"x":[[1,2,3]],"x":1}}', "JSON Parse error: the key 'x' stands twice in one object"),
    (
        PAIR,
        b'{"instances":[[1,2]]}',
        (
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        ),
    ),
    (
        PAIR,
        b'{"inputs":[[1,2]]}',
        (
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map"
        ),
    ),
    (
        PAIR,
        b'{"instances":[{"image":[1,2],"mask":true}]}',
        (
            'Failed to process element: 0 of \'instances\' list. JSON object: {"image":[1,2],"mask":true} must only '
            "have keys: image,k,mask"
        ),
    ),
    (
        PAIR,
        b'{"instances":[{"image":[1,2],"mask":true,"k":[],"q":[]}]}',
        (
            "Failed to process element: 0 of 'instances' list. JSON object: "
            '{"image":[1,2],"mask":true,"k":[],"q":[]} must only have keys: image,k,mask'
        ),
    ),
    (
        PAIR,
        b'{"instances":[{"image":[1,2],"mask":1,"k":[]}]}',
        (
            "Failed to process element: 0 key: mask of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: 1 "
            "Type: Number is not of expected type: bool"
        ),
    ),
    (
        PAIR,
        b'{"instances":[{"image":[1,2],"mask":true,"k":[]},{"image":[1,2],"mask":[true],"k":[]}]}',
        (
            "Failed to process element: 1 key: mask of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [] "
            "but got: [1]"
        ),
    ),
    (
        PAIR,
        b'{"instances":[{"image":[1,2],"mask":true,"k":[1]},{"image":[1,2],"mask":true,"k":[1.5]}]}',
        (
            "Failed to process element: 1 key: k of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: 1.5 Type: "
            "Number is not of expected type: int8"
        ),
    ),
    (
        PAIR,
        b'{"instances":[{"image":[1,2],"image":[1,2],"mask":true}]}',
        "JSON Parse error: the key 'image' stands twice in one object",
    ),
    (PAIR, b'{"instances":[{"image":[1,2],"mask"}]}', "JSON Parse error: Expected ':', got '}' at offset: 35"),
    (
        PAIR,
        b'{"inputs":{"image":[[1,2]],"mask":[true,true],"k":[[],[]]}}',
        "input 'mask' batch size does not match other inputs for 'pair'",
    ),
    (
        LONE,
        b'{"instances":[[[1],[2]],[[3],[4]]]}',
        "model 'lone' has no batch axis: expected 1 element in 'instances', got 2; send them one at a time",
    ),
    (
        LONE,
        b'{"instances":[[[1],[2],[3]]]}',
        "unexpected shape for input 'x' for model 'lone'. Expected [2,-1], got [1,3,1]",
    ),
    (
        SCALAR,
        b'{"inputs":{"x":"1","n":1}}',
        'JSON Value: "1" Type: String is not of expected type: double',
    ),
    (SCALAR, b'{"inputs":{"x":1,"n":256}}', "JSON Value: 256 Type: Number is not of expected type: uint8"),
    (DEEP, b'{"inputs":[[[[[[[[[1]]]]]]]]]}', "Expected [-1,-1,-1,-1,-1,-1,-1,-1], got [1,1,1,1,1,1,1,1,...]"),
    (
        IMAGE,
        b'{"inputs":' + b"[" * 100,
        "JSON Parse error: Expected at most 100 levels of nesting, got '[' at offset: 109",
    ),
]


@pytest.mark.parametrize(("served", "body", "text"), REFUSED, ids=range(len(REFUSED)))
def test_refused_with_this_text(served: Served, body: bytes, text: str) -> None:
    code, got = refusal(body, served) if body else refusal_of_nothing(served)
    assert got == text or (text.startswith("Expected [") and got.endswith(text))
    assert code == INVALID_ARGUMENT


def refusal_of_nothing(served: Served) -> tuple[int, str]:
    with pytest.raises(InferRefused) as caught:
        index(b"", served.spec)
    return caught.value.code, caught.value.text


def test_a_model_without_inputs() -> None:
    with pytest.raises(InferRefused, match=r"^Failed to get input map for signature: DEFAULT$"):
        index(b'{"inputs":{}}', Spec("none", "1", False, 1, [], [("y", "INT8", [1])]))


@pytest.mark.parametrize("datatype", numbers.DATATYPES)
@pytest.mark.parametrize(
    "token", ["0", "-0", "1", "1.0", "1e0", "true", "false", "null", '"1"', "NaN", "-Infinity", "-1"]
)
def test_typing_of_every_datatype(datatype: str, token: str) -> None:
    """As a list, as a scalar, and gathered from objects."""
    served = Served("m", False, [("x", datatype, [1])])
    scalar = Served("m", False, [("x", datatype, [])])
    answers = {
        same_as_twin(f'{{"inputs":[{token}]}}'.encode(), served),
        same_as_twin(f'{{"inputs":{token}}}'.encode(), scalar),
        same_as_twin(f'{{"instances":[{{"x":{token}}}]}}'.encode(), scalar),
        same_as_twin(f'{{"instances":[{{"x":[{token}]}}]}}'.encode(), served),
    }
    assert len(answers) == 1
    if datatype == "BOOL":
        assert answers == {token in ("true", "false")}
    elif datatype in numbers.INTEGERS:
        assert answers == {token in ("0", "-0", "1") or (token == "-1" and not datatype.startswith("U"))}
    else:
        assert answers == {token not in ("true", "false", "null", '"1"')}


def test_every_length_of_a_row() -> None:
    """Separators and brackets at every place in the scanner's blocks of sixteen."""
    for width in range(1, 40):
        for pad in ("", " ", "   "):
            row = "[" + f"{pad},".join("7" * (1 + k % 3) for k in range(width)) + pad + "]"
            found = index(f'{{"inputs":[{row},{row}]}}'.encode(), Served("m", True, [("x", "INT16", [-1, -1])]).spec)
            assert found["inputs"][0]["shape"] == [2, width]
            short = "[" + row.partition(",")[2] if width > 1 else "[]"
            assert not same_as_twin(
                f'{{"inputs":[{row},{short}]}}'.encode(), Served("m", True, [("x", "INT16", [-1, -1])])
            )


BASE = json.dumps(
    {"é": [1, {"b": "]"}], "instances": [pair([1, 2.5], True, [1, 2]), pair([3, 4], False, [3, 4])]}
).encode()
LISTS = json.dumps({"inputs": [[[1.5, 2, 3]] * 2] * 3, "signature_name": "serving_default"}).encode()


@pytest.mark.parametrize(("body", "served"), [(BASE, PAIR), (LISTS, FREE)], ids=["objects", "lists"])
def test_every_prefix_is_refused_and_read_within_bounds(body: bytes, served: Served) -> None:
    """Against an unmapped page."""
    memory = GuardedMemory(len(body))
    try:
        for size in range(len(body)):
            with memory.at_end(body[:size]) as view, pytest.raises(InferRefused):
                index(view, served.spec)
        with memory.at_end(body) as view:
            assert read(view, served) == read(body, served)
            assert explain(view, served.spec) == ""
        for at in range(len(body)):
            with memory.at_end(body[:at] + b"[" + body[at + 1 :]) as view:
                try:
                    index(view, served.spec)
                    explain(view, served.spec)
                except InferRefused:
                    pass
    finally:
        memory.close()


def mutated(generator: random.Random, body: bytes) -> bytes:
    pieces = [b"", b'"', b"[", b"]", b"{", b"}", b",", b":", b"0", b"-", b"[]", b" ", b"\xc3", b"1e9", b"null", b"true"]
    for _ in range(generator.choice([1, 1, 1, 2, 4])):
        at = generator.randrange(len(body) + 1)
        if generator.random() < 0.3:
            to = generator.randrange(len(body) + 1)
            body = body[:at] + body[to : to + generator.randrange(30)] + body[at:]
        else:
            body = body[:at] + generator.choice(pieces) + body[at + generator.choice([0, 1, 1, 9]) :]
    return body


def test_mutations_are_judged_as_by_the_twin() -> None:
    generator = random.Random(29)
    accepted = 0
    for _ in range(4000):
        served, document = generator.choice(ACCEPTED)
        body = mutated(generator, json.dumps(document).encode())
        if body:
            accepted += same_as_twin(body, served)
    assert accepted > 200


def test_hostile_bodies_end_early() -> None:
    """Each would be quadratic or large if it were read to the end, or trusted."""
    for body in (
        b'{"instances":[' + b"{}," * 300_000 + b"{}]}",
        b"{" + b",".join(b'"%d":0' % number for number in range(300_000)) + b"}",
        b'{"inputs":{' + b",".join(b'"%d":0' % number for number in range(300_000)) + b"}}",
        b'{"instances":[' + b"[]," * 500_000 + b"[[]]]}",
        b'{"inputs":[' + b'"",' * 500_000 + b"1]}",
    ):
        with pytest.raises(InferRefused):
            index(body, IMAGE.spec)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"/v1/models/mnist:predict", (b"mnist", b"", b"")),
        (b"/V1/MODELS/Mnist/Versions/3:Predict", (b"Mnist", b"3", b"")),
        (b"/v1/models/m/versions/007:predict", (b"m", b"7", b"")),
        (b"/v1/models/m/versions/000:predict", (b"m", b"0", b"")),
        (b"/v1/models/m/labels/stable%20one:predict", (b"m", b"", b"stable%20one")),
        (b"/v1/models/versions/versions/1:predict", (b"versions", b"1", b"")),
        (b"/v1/models/%2F:predict", (b"%2F", b"", b"")),
        (b"/v1/models/m:predict/", None),
        (b"/v1/models/m:predicts", None),
        (b"/v1/models/m:classify", None),
        (b"/v1/models/m/versions/:predict", None),
        (b"/v1/models/m/versions/1a:predict", None),
        (b"/v1/models/m/versions/1/labels/a:predict", None),
        (b"/v1/models/m/labels/:predict", None),
        (b"/v1/models/:predict", None),
        (b"/v1/models/a/b:predict", None),
        (b"/v1/models/a:b:predict", None),
        (b"/v2/models/m:predict", None),
        (b"/v1/models", None),
        (b"", None),
    ],
)
def test_predict_path(path: bytes, found: tuple[bytes, bytes, bytes] | None) -> None:
    assert predict_path(path) == found


@pytest.mark.parametrize(
    ("raw", "plain", "same"),
    [
        (b"mnist", b"mnist", True),
        (b"mnist", b"Mnist", False),
        (b"a%20b", b"a b", True),
        (b"%C3%a9", "é".encode(), True),
        (b"a%2", b"a%2", True),
        (b"a%zz", b"a%zz", True),
        (b"a%41", b"aA", True),
        (b"a%41", b"a", False),
        (b"a", b"aA", False),
        (b"%%41", b"%A", True),
        (b"a+b", b"a b", False),
        (b"%25", b"%", True),
    ],
)
def test_names_in_paths_are_percent_decoded(raw: bytes, plain: bytes, same: bool) -> None:
    assert path_name_is(raw, plain) is same
