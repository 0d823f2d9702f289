"""Models of strings through a whole server: NVIDIA's Python client, JSON of our own, TensorFlow Serving's REST."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conformance.triton_jobs import Job, Reply, Request
from tests.conformance.v2_client import Array, Tensor
from tests.reference import bytes_form
from tests.reference import infer_wire as wire_twin
from tests.support import http2_frames as h2
from tests.support import onnx_writer
from tests.support.server import Answer, Server, running

pytestmark = pytest.mark.slow

MODELS = {
    "text": onnx_writer.identity("BYTES", [-1, -1]),
    "upper": onnx_writer.upper_case(),
    "words": onnx_writer.word_numbers(),
    "one": onnx_writer.identity("BYTES", [1]),
    "classes": onnx_writer.classifier(4, 5),
    "flat": onnx_writer.identity("FP32", [3, 2]),
    "files": onnx_writer.identities([("a", "BYTES", [-1]), ("b_bytes", "BYTES", [-1])]),
    "back": onnx_writer.identities([("raw", "BYTES", [-1])]).replace(b"raw_out", b"r_bytes"),
}
TEXTS = ["", "a", "é", "日本語 \U0001f600", "x" * 15, "x" * 16, 'quote " back \\ line \n', "a\0b\0", "]}[,"]
NO_TEXT = [b"\xff", b"\xc3", b"\0", b"\xed\xa0\x80", bytes(range(256)), b"\xff" * 100, b""]
MEGABYTE = [b"\xfe\0" * 500_000, b"short", "é".encode() * 500_000]


@pytest.fixture(scope="module")
def strings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = onnx_writer.write_repository(tmp_path_factory.mktemp("strings"), MODELS)
    with running(root, "--workers", "1") as server:
        yield server


def objects(elements: Sequence[str | bytes], shape: Sequence[int]) -> Array:
    made = np.empty(len(elements), object)
    made[:] = [one.encode() if isinstance(one, str) else one for one in elements]
    return made.reshape(shape)


def triton(server: Server, *requests: Request) -> list[Reply]:
    job = Job()
    job.infer(requests)
    (replies,) = job.run(server)
    return list(replies)


def post(server: Server, path: str, document: Any, behind: bytes = b"") -> Answer:
    head = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))} if behind else {}
    return server.request("POST", path, head + behind, headers)


def text_input(data: Any, shape: Sequence[int], name: str = "x") -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": list(shape), "data": data}


# ---- NVIDIA's client


@pytest.mark.parametrize("binary_out", [False, True], ids=["json out", "binary out"])
@pytest.mark.parametrize("binary_in", [False, True], ids=["json in", "binary in"])
def test_text_comes_back(strings: Server, binary_in: bool, binary_out: bool) -> None:
    requests = [
        Request("text", [Tensor("x", "BYTES", array, binary_in)], [("y", binary_out)])
        for array in (objects(TEXTS, [3, 3]), objects(TEXTS[:8], [8, 1]), objects(TEXTS[:1], [1, 1]))
    ]
    for request, reply in zip(requests, triton(strings, *requests), strict=True):
        assert reply.error is None, reply
        assert reply.outputs["y"].tolist() == request.tensors[0].array.tolist()


def test_any_bytes_come_back(strings: Server) -> None:
    """What is no UTF-8, in lengths on both sides of a short string's, and a megabyte at a time."""
    arrays = [objects(NO_TEXT, [7, 1]), objects(NO_TEXT * 40, [40, 7]), objects(MEGABYTE, [1, 3])]
    replies = triton(strings, *(Request("text", [Tensor("x", "BYTES", array)], [("y", True)]) for array in arrays))
    for array, reply in zip(arrays, replies, strict=True):
        assert reply.error is None, reply
        assert reply.outputs["y"].tolist() == array.tolist()


def test_operators_on_strings(strings: Server) -> None:
    words = objects(["dog", "?", "bird"], [3, 1])
    scale = np.array([[2], [3], [5]], np.int64)
    upper, numbers = triton(
        strings,
        Request("upper", [Tensor("text", "BYTES", objects(["abc", "XyZ"], [2]))], [("upper", False)]),
        Request("words", [Tensor("word", "BYTES", words, False), Tensor("scale", "INT64", scale)]),
    )
    assert upper.outputs["upper"].tolist() == [b"ABC", b"XYZ"]
    assert numbers.outputs["number"].tolist() == [[2], [-3], [10]]
    assert numbers.outputs["again"].tolist() == [[b"dog"], [b"?"], [b"bird"]]


def test_bytes_that_are_no_text_are_not_json(strings: Server) -> None:
    array = objects([b"good", b"\xff"], [2, 1])
    (reply,) = triton(strings, Request("text", [Tensor("x", "BYTES", array)], [("y", False)]))
    assert reply.status == "400"
    assert reply.error is not None
    assert (
        "output 'y': element 1 is not UTF-8, which JSON cannot carry: ask for the output as binary data" in reply.error
    )


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_classes(strings: Server, binary: bool) -> None:
    images = np.random.default_rng(3).standard_normal((3, 4), np.float32)
    tensors = [Tensor("image", "FP32", images)]
    flat = [Tensor("x", "FP32", np.array([[3, 1], [2, 6], [5, 4]], np.float32))]
    scores, best, every, unbatched = triton(
        strings,
        Request("classes", tensors, [("probabilities", True)]),
        Request("classes", tensors, [("probabilities", binary)], classes=2),
        Request("classes", tensors, [("probabilities", binary)], classes=99),
        Request("flat", flat, [("y", binary)], classes=3),
    )
    rows = scores.outputs["probabilities"]
    expected = [[f"{row[i]:f}:{i}".encode() for i in np.argsort(-row)] for row in rows]
    assert best.response["outputs"][0]["datatype"] == "BYTES"
    assert best.outputs["probabilities"].tolist() == [row[:2] for row in expected]
    assert every.outputs["probabilities"].tolist() == expected
    assert unbatched.outputs["y"].tolist() == [b"6.000000:3", b"5.000000:4", b"4.000000:5"]


# ---- gRPC, with messages of the protobuf library and frames by hand


def grpc_infer(server: Server, message: Any) -> Any:
    """One ModelInfer call that must succeed; for replies within the first window."""
    call = h2.call(1, b"/inference.GRPCInferenceService/ModelInfer", message.SerializeToString())
    received = b""
    with socket.create_connection((server.host, server.port), timeout=10) as connection:
        connection.sendall(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0) + call)
        while True:
            part = connection.recv(1 << 16)
            assert part, f"closed after {received!r}"
            received += part
            frames = [frame for frame in h2.split_frames(received) if frame.stream == 1]
            if any(frame.flags & h2.END_STREAM for frame in frames):
                break
    data = b"".join(frame.payload for frame in frames if frame.kind == h2.DATA)
    assert data, frames
    return wire_twin.RESPONSE.FromString(data[5:])


@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
def test_any_bytes_come_back_over_grpc(strings: Server, raw: bool) -> None:
    message = wire_twin.REQUEST(model_name="text")
    tensor = message.inputs.add(name="x", datatype="BYTES", shape=[7, 1])
    if raw:
        message.raw_input_contents.append(bytes_form.pack(NO_TEXT))
    else:
        tensor.contents.bytes_contents.extend(NO_TEXT)
    reply = grpc_infer(strings, message)
    assert (reply.outputs[0].datatype, list(reply.outputs[0].shape)) == ("BYTES", [7, 1])
    assert list(reply.raw_output_contents) == [bytes_form.pack(NO_TEXT)]


def test_classes_over_grpc(strings: Server) -> None:
    message = wire_twin.REQUEST(model_name="flat")
    message.inputs.add(name="x", datatype="FP32", shape=[3, 2]).contents.fp32_contents.extend([3, 1, 2, 6, 5, 4])
    message.outputs.add(name="y").parameters["classification"].int64_param = 2
    reply = grpc_infer(strings, message)
    assert (reply.outputs[0].datatype, list(reply.outputs[0].shape)) == ("BYTES", [2])
    assert list(reply.raw_output_contents) == [bytes_form.pack([b"6.000000:3", b"5.000000:4"])]


# ---- what clients do not send


def test_a_raw_body_is_one_string(strings: Server) -> None:
    answer = strings.request("POST", "/v2/models/one/infer", b"raw \xff", {"Inference-Header-Content-Length": "0"})
    json_bytes = int(answer.headers["inference-header-content-length"])
    assert (answer.status, answer.body[json_bytes:]) == (200, b"\5\0\0\0raw \xff")


def test_metadata_and_configuration(strings: Server) -> None:
    assert strings.get("/v2/models/text").json()["inputs"] == [{"name": "x", "datatype": "BYTES", "shape": [-1, -1]}]
    config = strings.get("/v2/models/text/config").json()
    assert (config["max_batch_size"], config["input"][0]["data_type"]) == (0, "TYPE_STRING")


HOSTILE = {
    "length beyond the body": bytes_form.pack([b"a"]) + b"\xff\xff\xff\xff" + bytes(1 << 20),
    "one element too many": bytes_form.pack([b"a" * (1 << 20), b"b", b"c"]),
    "one too few": bytes_form.pack([b"a" * (1 << 20)]),
    "cut": bytes_form.pack([b"a", b"b" * (1 << 20)])[:-1],
}


def test_refusals_cost_no_memory(strings: Server) -> None:
    """Megabytes that are refused, again and again, are given back."""
    tensor = {"name": "x", "datatype": "BYTES", "shape": [2, 1]}
    text = json.dumps({"inputs": [text_input(["a" * (1 << 20), 5], [2, 1])]}).encode()
    predict = json.dumps({"instances": [["é" * (1 << 19)], [{"b64": "!"}]]}).encode()

    def refuse_all() -> None:
        for contents in HOSTILE.values():
            document = {"inputs": [{**tensor, "parameters": {"binary_data_size": len(contents)}}]}
            assert post(strings, "/v2/models/text/infer", document, contents).status == 400
        assert post(strings, "/v2/models/text/infer", text).status == 400
        assert post(strings, "/v1/models/text:predict", predict).status == 400

    def resident_kib() -> int:
        pids = [*strings.pids("worker"), *strings.pids("executor")]
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4 for pid in pids)

    for _ in range(5):
        refuse_all()
    before = resident_kib()
    for _ in range(40):
        refuse_all()
    assert resident_kib() - before < 4096


# ---- TensorFlow Serving


def b64(raw: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(raw).decode()}


@pytest.mark.parametrize(
    ("model", "body", "answer"),
    [
        ("text", {"instances": [["a", "é"], [b64(b"b"), "c"]]}, {"predictions": [["a", "é"], ["b", "c"]]}),
        ("text", {"inputs": [["a"], ["b"]]}, {"outputs": [["a"], ["b"]]}),
        ("upper", {"instances": ["ab", b64(b"cd")]}, {"predictions": ["AB", "CD"]}),
        ("upper", {"instances": [b64(b"ab"), "cd"]}, {"predictions": ["AB", "CD"]}),
        ("upper", {"inputs": {"text": ["ab"]}}, {"outputs": ["AB"]}),
        ("back", {"instances": [b64(b"\xff\0"), "a"]}, {"predictions": [b64(b"\xff\0"), b64(b"a")]}),
        (
            "words",
            {"instances": [{"word": ["cat"], "scale": [4]}, {"word": [b64(b"dog")], "scale": [5]}]},
            {"predictions": [{"number": [0], "again": ["cat"]}, {"number": [5], "again": ["dog"]}]},
        ),
        (
            "files",
            {"inputs": {"a": [b64(b"1")], "b_bytes": ["2", "3"]}},
            {"outputs": {"a_out": ["1"], "b_bytes_out": ["2", "3"]}},
        ),
    ],
)
def test_predict(strings: Server, model: str, body: Any, answer: Any) -> None:
    got = post(strings, f"/v1/models/{model}:predict", body)
    assert (got.status, got.json()) == (200, answer)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"instances": [1]}, "JSON Value: 1 Type: Number is not of expected type: string"),
        ({"instances": [{"b64": "a"}]}, 'JSON Value: {"b64": "a"} not formatted correctly for base64 data'),
        ({"instances": ["a", {"b64": "YQ==", "c": 1}]}, "Expecting value/list but got object at item 1 of input list"),
        ({"inputs": ["a", ["b"]]}, "Encountered list at unexpected level: 1 expected < 1"),
        ({"instances": [b64(b"\xff")]}, "only outputs whose names end in _bytes are sent as base64"),
    ],
)
def test_predict_refused(strings: Server, body: Any, text: str) -> None:
    got = post(
        strings, "/v1/models/upper:predict" if b"_bytes" not in text.encode() else "/v1/models/one:predict", body
    )
    assert got.status == 400
    assert text in got.json()["error"]
