"""Tensors in clients' shared memory: what requests say about them, and what is copied out of a region."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from server._fast.client_region import ClientRegion
from server._fast.infer_json_index import index as json_index
from server._fast.infer_shared import read
from server._fast.infer_spec import InferRefused, Spec
from server._fast.infer_wire import index
from tests.reference import bytes_form
from tests.reference import infer_wire as reference
from tests.support.shared_objects import place, set_place
from tests.support.wire_mutation import field

INPUTS = [("image", "FP32", [-1, 3]), ("mask", "BOOL", [-1])]
OUTPUTS = [("probabilities", "FP32", [-1, 10]), ("label", "INT64", [-1])]
SPEC = Spec("digits", "1", True, 64, INPUTS, OUTPUTS)
TEXT = Spec("text", "1", False, 1, [("x", "BYTES", [-1])], [("y", "BYTES", [-1])])


# ---- JSON


@pytest.mark.parametrize("ascii_only", [True, False], ids=["escaped", "utf8"])
def test_tensors_of_a_json_request(ascii_only: bool) -> None:
    inputs = [
        {"name": "image", "shape": [2, 3], "datatype": "FP32", "parameters": place("ré", 24, 2**64 - 1)},
        {"name": "mask", "shape": [2], "datatype": "BOOL", "data": [True, 0]},
    ]
    outputs = [
        {"name": "label", "parameters": {**place("", 2**64 - 1), "binary_data": False}},
        {"name": "probabilities"},
    ]
    body = json.dumps({"inputs": inputs, "outputs": outputs}, ensure_ascii=ascii_only).encode()
    found = json_index(body, SPEC)
    (at, size), offset, byte_size = found["inputs"][0]["shared"]
    assert json.loads(b'"' + body[at : at + size] + b'"') == "ré"
    assert (offset, byte_size) == (2**64 - 1, 24)
    assert (found["inputs"][0]["byte_count"], found["inputs"][1]["shared"]) == (24, None)
    assert found["shared_outputs"][0][1:] == (0, 2**64 - 1)
    assert found["shared_outputs"][1] is None


def test_strings_take_what_the_request_says() -> None:
    document = {"inputs": [{"name": "x", "shape": [3], "datatype": "BYTES", "parameters": place("r", 77)}]}
    assert json_index(json.dumps(document).encode(), TEXT)["inputs"][0]["byte_count"] == 77


# ---- gRPC


def request() -> Any:
    message = reference.REQUEST(model_name="digits")
    message.inputs.add(name="image", datatype="FP32", shape=[2, 3])
    message.inputs.add(name="mask", datatype="BOOL", shape=[2])
    message.raw_input_contents.extend([bytes(range(24)), b"\1\0"])
    return message


def refusal(message: Any) -> InferRefused:
    with pytest.raises(InferRefused) as refused:
        index(message.SerializeToString(), SPEC)
    return refused.value


def shared_request(**inputs: tuple[str, int, int]) -> Any:
    """The request with inputs in shared memory, and raw contents for the others."""
    message = request()
    raw = dict(zip(("image", "mask"), message.raw_input_contents, strict=True))
    del message.raw_input_contents[:]
    for tensor in message.inputs:
        if tensor.name in inputs:
            set_place(tensor, *inputs[tensor.name])
        else:
            message.raw_input_contents.append(raw[tensor.name])
    return message


@pytest.mark.parametrize(
    "places", [{"image": ("r", 24, 0)}, {"mask": ("", 2, 2**62)}, {"image": ("é", 24, 8), "mask": ("r", 2, 0)}]
)
def test_inputs_in_shared_memory(places: dict[str, tuple[str, int, int]]) -> None:
    """Raw contents belong to the inputs that are not in shared memory, in their order."""
    message = shared_request(**places)
    body = message.SerializeToString()
    found = index(body, SPEC)
    for tensor, given in zip(message.inputs, found["inputs"], strict=True):
        if tensor.name in places:
            region, size, offset = places[tensor.name]
            assert (given["shared"], given["bytes"]) == ((region.encode(), offset, size), None)
        else:
            start, size = given["bytes"]
            assert given["shared"] is None
            assert body[start : start + size] == message.raw_input_contents[0]


def test_outputs_in_shared_memory() -> None:
    message = request()
    set_place(message.outputs.add(name="label"), "r", 100, 4)
    message.outputs.add(name="probabilities")
    assert index(message.SerializeToString(), SPEC)["shared_outputs"] == [(b"r", 4, 100), None]


def test_the_last_of_equal_keys_counts() -> None:
    """A map's entry that comes twice."""
    message, later = shared_request(image=("a", 1, 1)), shared_request(image=("b", 24, 2)).inputs[0]
    for name in ("name", "datatype", "shape"):
        later.ClearField(name)
    twice = message.inputs[0].SerializeToString() + later.SerializeToString()
    mask = message.inputs[1].SerializeToString()
    del message.inputs[:]
    body = field(5, twice) + field(5, mask) + message.SerializeToString()
    assert index(body, SPEC)["inputs"][0]["shared"] == (b"b", 2, 24)


def test_refusals_of_shared_memory() -> None:
    message = shared_request(image=("r", 24, 0))
    message.raw_input_contents.append(bytes(24))
    assert "unexpected additional input data for model 'digits'" in refusal(message).text
    message = shared_request(image=("r", 24, 0))
    message.inputs[0].contents.fp32_contents.append(1)
    assert refusal(message).text == (
        "unexpected 'content' provided when using shared memory for input tensor 'image' for model 'digits'"
    )
    for key, value, text in (
        ("shared_memory_byte_size", 23, "Expected 24, got 23"),
        ("shared_memory_byte_size", -1, "invalid value for 'shared_memory_byte_size'"),
        ("shared_memory_offset", -1, "invalid value for 'shared_memory_offset'"),
    ):
        message = shared_request(image=("r", 24, 0))
        message.inputs[0].parameters[key].int64_param = value
        assert text in refusal(message).text
    message.inputs[0].parameters["shared_memory_region"].int64_param = 1
    assert refusal(message).text == "invalid value type for 'shared_memory_region' parameter, expected string_param."
    message = shared_request(image=("r", 24, 0))
    del message.inputs[0].parameters["shared_memory_byte_size"]
    assert refusal(message).text == "'shared_memory_byte_size' must be given with 'shared_memory_region' for 'image'"
    message = request()
    set_place(message.outputs.add(name="label"), "r", 8)
    message.outputs[0].parameters["classification"].int64_param = 1
    assert "'classification' cannot be combined with 'shared_memory_region'" in refusal(message).text


# ---- regions


@contextlib.contextmanager
def some_region() -> Iterator[tuple[ClientRegion, int]]:
    """1000 bytes at 10 of an object, and the object's descriptor."""
    fd = os.memfd_create("region")
    os.truncate(fd, 1010)
    yield ClientRegion(os.dup(fd), b"r", 10, 1000), fd
    os.close(fd)


def refused(region: ClientRegion, *arguments: Any) -> str:
    with pytest.raises(InferRefused) as error:
        read(region, *arguments)
    return str(error.value)


def test_bytes_are_copied_from_the_regions_offset() -> None:
    with some_region() as region:
        os.pwrite(region[1], b"abcdefgh", 14)
        assert read(region[0], 4, 8, "INT32", 2) == b"abcdefgh"
        assert read(region[0], 0, 0, "INT32", 0) == b""
        os.truncate(region[1], 15)
        assert "its object has become shorter" in refused(region[0], 4, 8, "INT32", 2)


def test_flags_are_checked_on_the_copy() -> None:
    with some_region() as region:
        os.pwrite(region[1], b"\1\0\2", 10)
        assert read(region[0], 0, 2, "BOOL", 2) == b"\1\0"
        assert "BOOL elements are bytes 0 or 1" in refused(region[0], 0, 3, "BOOL", 3)


ELEMENTS = bytes_form.pack([b"a", b"", b"xyz"])
STRINGS = [
    (ELEMENTS, 3, None),
    (b"", 0, None),
    (ELEMENTS, 2, "expected 2 string elements in shared memory region 'r', got at least 3"),
    (ELEMENTS, 4, "expected 4 string elements in shared memory region 'r', got 3"),
    (ELEMENTS[:-1], 3, "incomplete string in shared memory region 'r' at byte 9 of 15"),
    (ELEMENTS + b"\1\0", 3, "incomplete string in shared memory region 'r' at byte 16 of 18"),
    (b"\xff\xff\xff\xff", 1, "incomplete string in shared memory region 'r' at byte 0 of 4"),
    (b"", 1, "expected 1 string elements in shared memory region 'r', got 0"),
]


@pytest.mark.parametrize(("data", "count", "text"), STRINGS, ids=range(len(STRINGS)))
def test_strings_are_checked_on_the_copy(data: bytes, count: int, text: str | None) -> None:
    with some_region() as region:
        os.pwrite(region[1], data, 10)
        if text is None:
            assert read(region[0], 0, len(data), "BYTES", count) == data
        else:
            assert refused(region[0], 0, len(data), "BYTES", count) == text


def test_memory_that_changes_while_it_is_read() -> None:
    """Whatever another thread writes meanwhile: the copy is whole, or it is refused."""
    with some_region() as region:
        stop = threading.Event()
        r = random.Random(7)
        data = bytes_form.pack([b"ab" * 20] * 20)
        pieces = [
            data,
            *(data[:at] + r.randbytes(2) + data[at + 2 :] for at in range(0, 100, 7)),
            r.randbytes(len(data)),
        ]

        def write() -> None:
            while not stop.is_set():
                os.pwrite(region[1], r.choice(pieces), 10)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(10000):
                try:
                    copied = read(region[0], 0, len(data), "BYTES", 20)
                except InferRefused as error:
                    assert "shared memory region 'r'" in str(error)
                else:
                    elements = bytes_form.unpack(copied)
                    assert elements is not None
                    assert len(elements) == 20
        finally:
            stop.set()
            writer.join()
