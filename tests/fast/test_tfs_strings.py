"""Strings of predict bodies against the twin: plain, base64, rows and columns; what is refused."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest

from server._fast.infer_spec import InferRefused, Spec
from server._fast.tfs_json_index import index
from tests.reference import bytes_form
from tests.reference import tfs_json as reference
from tests.reference.infer_json import Model, Refused, Tensor
from tests.support.guard_page import GuardedMemory


class Served:
    """A model to both readers."""

    def __init__(self, inputs: list[Tensor]) -> None:
        outputs: list[Tensor] = [("y", "FP32", [-1])]
        self.spec = Spec("m", "1", False, 1, inputs, outputs)
        self.model = Model("m", "1", False, inputs, outputs)


ONE = Served([("s", "BYTES", [-1])])
GRID = Served([("s", "BYTES", [-1, 2])])
SCALAR = Served([("s", "BYTES", [])])
PAIR = Served([("s", "BYTES", [-1]), ("n", "INT64", [-1])])
TWO = Served([("s", "BYTES", [-1, -1]), ("b64", "BYTES", [-1])])
DEEP = Served([("s", "BYTES", [-1] * 8)])


def b64(raw: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(raw).decode()}


def same_as_twin(body: bytes, served: Served) -> bool:
    try:
        expected = reference.read_predict(body, served.model)
    except Refused:
        with pytest.raises(InferRefused):
            index(body, served.spec)
        return False
    found = index(body, served.spec)
    predict = reference.Predict(found["form"], found["rows"])
    for (name, datatype, _), tensor in zip(served.model.inputs, found["inputs"], strict=True):
        if datatype == "BYTES":
            assert len(tensor["bytes"]) == tensor["byte_count"]
            predict.inputs[name] = (tensor["shape"], tensor["bytes"])
        else:
            predict.inputs[name] = expected.inputs[name]
            assert tensor["shape"] == expected.inputs[name][0]
    assert predict == expected
    return True


ACCEPTED: list[tuple[Served, Any]] = [
    (ONE, {"instances": ["a", "é", ""]}),
    (ONE, {"instances": [b64(b"\xff\0"), "a", b64(b"")]}),
    (ONE, {"instances": ["a", b64(b"b")]}),
    (ONE, {"instances": [{"s": "a"}, {"s": b64(b"bb")}, {"s": ""}]}),
    (ONE, {"inputs": ["a", b64(b"b")]}),
    (ONE, {"inputs": {"s": ["a"]}}),
    (ONE, {"inputs": []}),
    (ONE, {"instances": [["a", "b"]]}),
    (ONE, {"inputs": ['\u0000\n"\\' * 1000]}),
    (GRID, {"instances": [["a", "b"], [b64(b"c"), "d"]]}),
    (GRID, {"instances": [{"s": ["a", "b"]}, {"s": [b64(b"c"), "d"]}]}),
    (SCALAR, {"inputs": "a"}),
    (SCALAR, {"inputs": b64(b"\xff")}),
    (SCALAR, {"inputs": {"s": b64(b"\xff")}}),
    (SCALAR, {"instances": ["a"]}),
    (SCALAR, {"instances": [b64(b"a")]}),
    (PAIR, {"instances": [{"s": "long" * 100, "n": 1}, {"n": 2, "s": b64(b"x")}]}),
    (PAIR, {"inputs": {"n": [1, 2, 3], "s": ["a"]}}),
    (PAIR, {"inputs": {"s": [b64(b"a" * 5000)], "n": [1]}}),
    (TWO, {"inputs": {"b64": ["a"], "s": [["b"]]}}),
    (TWO, {"instances": [{"b64": "a", "s": ["x", "y"]}, {"s": ["z", ""], "b64": b64(b"q")}]}),
    (DEEP, {"inputs": [[[[[[[["a", "b"]]]]]]]]}),
]


@pytest.mark.parametrize(("served", "document"), ACCEPTED, ids=range(len(ACCEPTED)))
def test_accepted_as_the_twin(served: Served, document: Any) -> None:
    for body in (json.dumps(document), json.dumps(document, ensure_ascii=False, separators=(",", ":"))):
        assert same_as_twin(body.encode(), served)


REFUSED: list[tuple[Served, Any, str]] = [
    (ONE, {"instances": [1]}, "JSON Value: 1 Type: Number is not of expected type: string"),
    (ONE, {"instances": ["a", True]}, "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "),
    (ONE, {"inputs": [None]}, "JSON Value: null Type: Null is not of expected type: string"),
    (ONE, {"inputs": [{"b64": 1}]}, 'JSON Value: {"b64": 1} not formatted correctly for base64 data'),
    (ONE, {"inputs": [{"b64": "YQ==", "c": 1}]}, "not formatted correctly for base64 data"),
    (ONE, {"inputs": [{}]}, "JSON Value: {} not formatted correctly for base64 data"),
    (ONE, {"inputs": ["a", ["b"]]}, "Encountered list at unexpected level: 1 expected < 1"),
    (ONE, {"instances": ["a", ["b"]]}, "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "),
    (GRID, {"instances": [["a", "b"], ["c"]]}, "Expecting tensor size: 2 but got: 1"),
    (GRID, {"inputs": [["a", "b"], ["c"]]}, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
    (ONE, {"instances": ["a", {"s": "b"}]}, "Expecting value/list but got object at item 1 of input list"),
    (ONE, {"instances": [{"s": "a"}, "b"]}, "Expecting object but got list at item 1 of input list"),
    (ONE, {"instances": [{"s": 1}]}, "key: s of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: 1 Type: Number"),
    (PAIR, {"instances": [b64(b"a")]}, "instances is a plain list, but expecting list of objects as multiple input"),
    (DEEP, {"inputs": [[[[[[[[["a"]]]]]]]]]}, "Encountered list at unexpected level: 8 expected < 8"),
    (PAIR, {"inputs": b64(b"a")}, "inputs is a plain value/list, but expecting an object as multiple input"),
]  # fmt: skip


@pytest.mark.parametrize(("served", "document", "text"), REFUSED, ids=range(len(REFUSED)))
def test_refused_with_this_text(served: Served, document: Any, text: str) -> None:
    body = json.dumps(document).encode()
    assert not same_as_twin(body, served)
    with pytest.raises(InferRefused) as caught:
        index(body, served.spec)
    assert text in caught.value.text
    assert caught.value.code == 1


@pytest.mark.parametrize(
    "text",
    ["", "YQ==", "YQ", "YWI=", "YWI", "YWJj", "Y Q\n=\t=", "+/+/", "YR==", "Y", "YQ=", "YQ===", "=", "====", "YQ==YQ==",
     "-_-_", "YWJ", "é", "YW Jj\r\n\fZA", "YWJj=", "\0"],
)  # fmt: skip
def test_base64_is_read_as_leniently_as_by_the_twin(text: str) -> None:
    same_as_twin(json.dumps({"inputs": [{"b64": text}]}).encode(), ONE)
    same_as_twin(json.dumps({"inputs": [{"b64": text}]}).replace("/", "\\/").encode(), ONE)


def test_base64_of_every_length() -> None:
    generator = random.Random(1)
    for size in range(70):
        raw = generator.randbytes(size)
        (tensor,) = index(json.dumps({"inputs": [b64(raw)]}).encode(), ONE.spec)["inputs"]
        assert tensor["bytes"] == bytes_form.pack([raw])


def test_every_cut_at_a_guard_page() -> None:
    """Bytes behind the object are not looked at, so no part is a whole body."""
    for document in ({"instances": ["a\n", b64(b"\xff"), "é"]}, {"instances": [{"s": "a"}, {"s": b64(b"bc")}]}):
        whole = json.dumps(document, ensure_ascii=False).encode()
        memory = GuardedMemory(len(whole))
        try:
            for size in range(1, len(whole)):
                with memory.at_end(whole[:size]) as part, pytest.raises(InferRefused):
                    index(part, ONE.spec)
            with memory.at_end(whole) as part:
                assert index(part, ONE.spec)["rows"] == 1
        finally:
            memory.close()


def test_mutations_agree_with_the_twin() -> None:
    generator = random.Random(3)
    accepted = 0
    pieces = [b"", b'"', b",", b"[", b"]", b"{", b"}", b"\\", b"1", b'{"b64":"YQ=="}', b"b64", b"=", b"\\u00e9"]
    for _ in range(4000):
        served, document = generator.choice(ACCEPTED[:8] + ACCEPTED[9:])
        if any(datatype != "BYTES" for _, datatype, _ in served.model.inputs):
            continue
        body = bytearray(json.dumps(document).encode())
        for _ in range(generator.randint(1, 2)):
            at = generator.randrange(len(body))
            body[at : at + generator.randint(0, 2)] = generator.choice(pieces)
        accepted += same_as_twin(bytes(body), served)
    assert accepted > 100
