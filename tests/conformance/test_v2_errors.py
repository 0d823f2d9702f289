"""Every refusal of the V2 protocol over HTTP: status and text, and the connection goes on with the next request."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.conformance.v2_client import BINARY_LENGTH, Client, Tensor, decode, encode
from tests.support.onnx_writer import FIXED_WIDTH_TYPES
from tests.support.server import Server

pytestmark = pytest.mark.slow

ROW = [0.5] * 64
WIDE = list(range(16))
ANY = {"name": "image", "shape": [1, 64], "datatype": "FP32", "data": ROW}
IMAGE = Tensor("image", "FP32", np.full((1, 64), 0.5, np.float32))


def image(**changes: Any) -> dict[str, Any]:
    """A request with one input that is right but for the changes; None drops a member."""
    return {"inputs": [{key: value for key, value in {**ANY, **changes}.items() if value is not None}]}


def sums(*names: str, rows: tuple[int, ...] = (1, 1)) -> dict[str, Any]:
    """A request to add_sub with these inputs."""
    return {
        "inputs": [
            {"name": name, "shape": [count, 16], "datatype": "FP32", "data": WIDE * count}
            for name, count in zip(names, rows, strict=False)
        ]
    }


def one(datatype: str, data: list[Any]) -> dict[str, Any]:
    """A request to every_dtype in which one input has other data than zeros."""
    names = [name.lower() for name in FIXED_WIDTH_TYPES]
    return {
        "inputs": [
            {
                "name": name,
                "shape": [1, 8],
                "datatype": name.upper(),
                "data": data if name.upper() == datatype else [False] * 8 if name == "bool" else [0] * 8,
            }
            for name in names
        ]
    }


def still_serves(client: Client) -> None:
    """A good request on the same connection: the refused one was consumed to its last byte."""
    reply = client.infer("digits", [IMAGE])
    assert reply.outputs["probabilities"].shape == (1, 10)


SHAPE = "unexpected shape for input 'image' for model 'digits'. Expected [-1,64], got "
SOURCE = (
    "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
    "'shared_memory_region' in 'parameters'. But"
)
TRITON = "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified."

#: model, request, status, how the text begins
DOCUMENTS: list[tuple[str, Any, int, str]] = [
    ("digits", image(shape=[1, 63], data=ROW[:63]), 400, SHAPE + "[1,63]"),
    ("digits", image(shape=[64]), 400, SHAPE + "[64]"),
    ("digits", image(shape=[1, 64, 1]), 400, SHAPE + "[1,64,1]"),
    ("digits", image(shape=[1] * 9), 400, SHAPE + "[1,1,1,1,1,1,1,1,...]"),
    ("digits", image(shape=[]), 400, "input 'image' has no shape but model requires batch dimension for 'digits'"),
    ("digits", image(shape=[-1, 64]), 400, "Unable to parse 'shape'"),
    ("digits", image(shape=[1.5, 64]), 400, "Unable to parse 'shape'"),
    ("digits", image(shape=["1", 64]), 400, "Unable to parse 'shape'"),
    ("digits", image(shape=[2**63, 64]), 400, "Unable to parse 'shape'"),
    ("digits", image(shape=64), 400, "Unable to parse 'shape'"),
    ("digits", image(shape=[0, 64], data=[]), 400, "inference request batch-size must be >= 1 for 'digits'"),
    ("digits", image(shape=[2**40, 64]), 400, ""),
    ("digits", image(shape=[2**62, 64]), 400, "invalid shape for input 'image'"),
    ("dynamic", image(name="x", shape=[2**32, 2**32]), 400, "invalid shape for input 'x'"),
    ("dynamic", image(name="x", shape=[2**20, 2**20]), 400, "input 'x': Unable to parse 'data': Shape"),
    (
        "digits",
        image(datatype="FP64"),
        400,
        "inference input 'image' data-type is 'FP64', but model 'digits' expects 'FP32'",
    ),
    (
        "digits",
        image(datatype="FP8"),
        400,
        "inference input 'image' data-type is 'FP8', but model 'digits' expects 'FP32'",
    ),
    ("digits", image(datatype="BYTES"), 400, "inference input 'image' data-type is 'BYTES', but model"),
    ("digits", image(datatype="fp32"), 400, "inference input 'image' data-type is 'fp32', but model"),
    ("digits", image(datatype=""), 400, "inference input 'image' data-type is '', but model"),
    ("digits", image(datatype=11), 400, "Unable to parse 'datatype'"),
    ("digits", image(datatype=None), 400, "Unable to parse 'datatype'"),
    ("digits", image(shape=None), 400, "Unable to parse 'shape'"),
    ("digits", image(name=None), 400, "Unable to parse 'name'"),
    ("digits", image(name=5), 400, "Unable to parse 'name'"),
    ("digits", image(name="picture"), 400, "unexpected inference input 'picture' for model 'digits'"),
    ("digits", image(data=None), 400, SOURCE + " no field is set"),
    ("digits", image(parameters={"binary_data_size": 256}), 400, SOURCE + " set 'data' 'binary_data_size'"),
    (
        "digits",
        image(data=None, parameters={"shared_memory_region": "a", "shared_memory_byte_size": 256}),
        400,
        "Unable to find shared memory region: 'a'",
    ),
    ("digits", image(data=ROW[:-1]), 400, "input 'image': Unable to parse 'data': Shape does not match true shape"),
    ("digits", image(data=[*ROW, 1]), 400, "input 'image': Unable to parse 'data': Shape does not match true shape"),
    ("digits", image(data=[]), 400, "input 'image': Unable to parse 'data': Shape does not match true shape"),
    ("digits", image(data={"0": 1}), 400, "Unable to parse 'data'"),
    ("digits", image(data="abc"), 400, "Unable to parse 'data'"),
    ("digits", image(data=[*ROW[:-1], "1"]), 400, "input 'image': "),
    ("digits", image(data=[*ROW[:-1], None]), 400, "input 'image': "),
    ("digits", image(data=[*ROW[:-1], True]), 400, "input 'image': "),
    ("digits", image(data=[*ROW[:-1], {}]), 400, "input 'image': "),
    ("digits", {"inputs": []}, 400, "expected 1 inputs but got 0 inputs for model 'digits'"),
    ("digits", {}, 400, "Unable to parse 'inputs'"),
    ("digits", {"inputs": {}}, 400, "Unable to parse 'inputs'"),
    ("digits", {"inputs": [5]}, 400, "Unable to parse 'inputs'"),
    ("digits", {"inputs": [ANY, ANY]}, 400, "input 'image' already exists in request"),
    ("digits", {"inputs": [ANY, {**ANY, "name": "other"}]}, 400, "unexpected inference input 'other'"),
    (
        "add_sub",
        sums("INPUT0"),
        400,
        (
            "expected 2 inputs but got 1 inputs for model 'add_sub'. Got input(s) ['INPUT0'], but missing required "
            "input(s) ['INPUT1']. Please provide all required input(s)."
        ),
    ),
    (
        "add_sub",
        sums("INPUT0", "INPUT1", rows=(2, 1)),
        400,
        "input 'INPUT1' batch size does not match other inputs for 'add_sub'",
    ),
    (
        "fixed",
        {"inputs": [{**ANY, "name": "x"}]},
        400,
        "unexpected shape for input 'x' for model 'fixed'. Expected [4,3], got [1,64]",
    ),
    (
        "digits",
        {**image(), "outputs": [{"name": "label"}, {"name": "label"}]},
        400,
        "output 'label' already exists in request",
    ),
    (
        "digits",
        {**image(), "outputs": [{"name": "other"}]},
        400,
        "unexpected inference output 'other' for model 'digits'",
    ),
    ("digits", {**image(), "outputs": [{}]}, 400, "Unable to parse 'name'"),
    ("digits", {**image(), "outputs": ["label"]}, 400, "Unable to parse 'outputs'"),
    ("digits", {**image(), "outputs": 1}, 400, "Unable to parse 'outputs'"),
    (
        "digits",
        {**image(), "outputs": [{"name": "label", "parameters": {"classification": -1}}]},
        400,
        "Unable to parse 'classification': expected a non-negative integer",
    ),
    (
        "digits",
        {**image(), "outputs": [{"name": "label", "parameters": {"classification": 3, "shared_memory_region": "a"}}]},
        400,
        "output 'label': 'classification' cannot be combined with 'shared_memory_region'",
    ),
    (
        "every_dtype",
        {"outputs": [{"name": "fp16_out", "parameters": {"classification": 3}}], "inputs": []},
        400,
        "class result not available for output due to unsupported type 'FP16'",
    ),
    (
        "digits",
        {**image(), "outputs": [{"name": "label", "parameters": {"shared_memory_region": "a"}}]},
        400,
        "'shared_memory_byte_size' must be given with 'shared_memory_region' for 'label'",
    ),
    (
        "digits",
        {**image(), "outputs": [{"name": "label", "parameters": {"binary_data": 1}}]},
        400,
        "Unable to parse 'binary_data'",
    ),
    ("digits", {**image(), "id": 5}, 400, "Unable to parse 'id'"),
    ("digits", {**image(), "parameters": []}, 400, "Unable to parse 'parameters'"),
    ("digits", {**image(), "parameters": {"timeout": "1"}}, 400, "Unable to parse 'timeout'"),
    ("digits", {**image(), "parameters": {"timeout": -1}}, 400, "Unable to parse 'timeout'"),
    ("digits", {**image(), "parameters": {"priority": 2**64}}, 400, "Unable to parse 'priority'"),
    ("digits", {**image(), "parameters": {"binary_data_output": "yes"}}, 400, "Unable to parse 'binary_data_output'"),
    ("digits", {**image(), "parameters": {"triton_x": 1}}, 400, TRITON),
    ("digits", {**image(), "parameters": {"other": {"a": 1}}}, 400, "parameter 'other' has invalid type"),
    ("digits", {**image(), "parameters": {"other": [1]}}, 400, "parameter 'other' has invalid type"),
    ("digits", {**image(), "parameters": {"sequence_id": 7}}, 501, "'sequence_id' is not supported"),
    ("digits", {**image(), "parameters": {"sequence_id": "a"}}, 501, "'sequence_id' is not supported"),
    ("every_dtype", one("INT8", [128] * 8), 400, "input 'int8': "),
    ("every_dtype", one("INT8", [-129] * 8), 400, "input 'int8': "),
    ("every_dtype", one("UINT8", [256] * 8), 400, "input 'uint8': "),
    ("every_dtype", one("UINT16", [-1] * 8), 400, "input 'uint16': "),
    ("every_dtype", one("INT32", [2**31] * 8), 400, "input 'int32': "),
    ("every_dtype", one("INT64", [2**63] * 8), 400, "input 'int64': "),
    ("every_dtype", one("UINT64", [2**64] * 8), 400, "input 'uint64': "),
    ("every_dtype", one("UINT64", [-1] * 8), 400, "input 'uint64': "),
    ("every_dtype", one("INT32", [1.5] * 8), 400, "input 'int32': "),
    ("every_dtype", one("INT32", [float("nan")] * 8), 400, "input 'int32': "),
    ("every_dtype", one("INT32", ["1"] * 8), 400, "input 'int32': "),
    ("every_dtype", one("BOOL", [2] * 8), 400, "input 'bool': "),
    ("every_dtype", one("BOOL", ["true"] * 8), 400, "input 'bool': "),
    ("every_dtype", one("FP32", [[0] * 4, [0] * 3]), 400, "input 'fp32': "),
]


@pytest.mark.parametrize(
    ("model", "document", "status", "text"), DOCUMENTS, ids=[f"{at}-{row[3][:50]}" for at, row in enumerate(DOCUMENTS)]
)
def test_documents(client: Client, model: str, document: Any, status: int, text: str) -> None:
    answer = client.post(model, json.dumps(document).encode())
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].startswith(text), answer
    assert answer.status == status, answer
    still_serves(client)


BODIES = [
    b"",
    b" ",
    b"null",
    b"[]",
    b"5",
    b'{"inputs":[]',
    b'{"inputs":[]}x',
    b'{"inputs":[],}',
    b'{"inputs":[],"inputs":[]}',
    b'{"inputs":[],"a":1,"a":2}',
    b'{"inputs":[{"name":"image","name":"image","shape":[1,64],"datatype":"FP32","data":[]}]}',
    b'{"inputs":[],"a":' + b"[" * 100 + b"]" * 100 + b"}",
    b'{"inputs":[],"a":"\xff"}',
    b"\xef\xbb\xbf{}",
    b"{'inputs':[]}",
    b'{"inputs":[],"a":tru}',
    b'{"inputs":[],"a":01}',
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: ascii(body[:30]))
def test_bodies_that_are_not_a_request(client: Client, body: bytes) -> None:
    answer = client.post("digits", body, {"Content-Type": "application/json"})
    assert answer.status == 400, answer
    assert len(answer.json()["error"]) > 10
    still_serves(client)


PATHS = [
    ("POST", "/v2/models/nobody/infer", 404, "Request for unknown model: 'nobody' is not found"),
    (
        "POST",
        "/v2/models/digit/infer",
        404,
        "Request for unknown model: 'digit' is not found; did you mean 'digits'?",
    ),
    (
        "POST",
        "/v2/models/digits/versions/2/infer",
        404,
        "Request for unknown model: 'digits' version 2 is not found; versions of 'digits': 1",
    ),
    (
        "POST",
        "/v2/models/fixed/versions/1/infer",
        404,
        "Request for unknown model: 'fixed' version 1 is not found; versions of 'fixed': 7",
    ),
    ("POST", "/v2/models/digits/versions/01/infer", 404, "Request for unknown model: 'digits' version 01 is not found"),
    ("POST", "/v2/models/digits/versions/x/infer", 404, "Not Found"),
    ("POST", "/v2/models/digits/versions//infer", 404, "Not Found"),
    ("POST", "/v2/models/digits/infer/", 404, "Not Found"),
    ("POST", "/v2/models//infer", 404, "Not Found"),
    ("POST", "/v2/models/%64igits/infer", 404, "Request for unknown model: '%64igits' is not found"),
    (
        "POST",
        "/v2/models/DIGITS/infer",
        404,
        "Request for unknown model: 'DIGITS' is not found; did you mean 'digits'?",
    ),
    ("GET", "/v2/models/digits/infer", 405, "Method Not Allowed"),
    ("PUT", "/v2/models/digits/infer", 405, "Method Not Allowed"),
    ("POST", "/v2/models/digits", 405, "Method Not Allowed"),
    ("POST", "/v2/health/ready", 405, "Method Not Allowed"),
    ("POST", "/v2", 405, "Method Not Allowed"),
    ("GET", "/v2/models/nobody", 404, "Request for unknown model: 'nobody' is not found"),
    ("GET", "/v2/models/nobody/ready", 404, "Request for unknown model: 'nobody' is not found"),
    ("GET", "/v2/models/nobody/config", 404, "Request for unknown model: 'nobody' is not found"),
    ("GET", "/v2/models/nobody/stats", 404, "Request for unknown model: 'nobody' is not found"),
    ("GET", "/v2/models/digits/versions/9/stats", 404, "Request for unknown model: 'digits' version 9 is not found"),
    ("GET", "/v3", 404, "Not Found"),
    ("GET", "/v2/", 404, "Not Found"),
    ("GET", "/metrics", 404, "Not Found"),
    ("POST", "/v2/models/digits/generate", 501, "the generate extension is not supported"),
    ("POST", "/v2/repository/mine/index", 501, "'repository_name' specification is not supported"),
    ("POST", "/v2/logging", 400, "failed to parse the request JSON buffer"),
    ("GET", "/v2/models/nobody/trace/setting", 404, "Request for unknown model: 'nobody' is not found"),
    ("GET", "/v2/systemsharedmemory/region/none/status", 404, "Unable to find system shared memory region: 'none'"),
    (
        "POST",
        "/v2/cudasharedmemory/region/a/register",
        400,
        "failed to register CUDA shared memory region: 'a', GPUs not supported",
    ),
    ("GET", "/v2/cudasharedmemory/region/a/status", 404, "Unable to find cuda shared memory region: 'a'"),
]


@pytest.mark.parametrize(("method", "path", "status", "text"), PATHS, ids=[f"{row[0]} {row[1]}" for row in PATHS])
def test_paths(client: Client, method: str, path: str, status: int, text: str) -> None:
    body, headers = encode([IMAGE])
    answer = client.send(method, path, body if method in ("POST", "PUT") else None, headers)
    assert (answer.status, answer.json()["error"][: len(text)]) == (status, text)
    assert ("allow" in answer.headers) == (status == 405)
    still_serves(client)


def test_the_query_is_not_looked_at(client: Client) -> None:
    body, headers = encode([IMAGE])
    answer = client.send("POST", "/v2/models/digits/infer?a=b&c=/infer", body, headers)
    assert decode(answer).outputs["label"].shape == (1,)


# -- the binary tensor data extension

FOUR = Tensor("image", "FP32", np.zeros((1, 64), np.float32))


def test_a_body_too_short_for_its_sections(client: Client) -> None:
    body, headers = encode([FOUR])
    answer = client.post("digits", body[:-4], headers)
    assert answer.status == 400
    assert answer.json()["error"] == (
        "unexpected size for input 'image', expecting 4 additional bytes for model 'digits'"
    )
    still_serves(client)


def test_a_body_with_bytes_behind_its_sections(client: Client) -> None:
    body, headers = encode([FOUR])
    answer = client.post("digits", body + b"abc", headers)
    assert answer.status == 400
    assert answer.json()["error"].startswith("unexpected additional input data for model 'digits'")
    still_serves(client)


@pytest.mark.parametrize("size", [252, 260, 0, 1])
def test_a_section_of_another_size_than_the_shape(client: Client, size: int) -> None:
    document = image(data=None, parameters={"binary_data_size": size})
    head = json.dumps(document).encode()
    answer = client.post("digits", head + bytes(size), {BINARY_LENGTH: str(len(head))})
    assert answer.status == 400
    assert answer.json()["error"].startswith(
        f"input byte size mismatch for input 'image' for model 'digits'. Expected 256, got {size}"
    )
    still_serves(client)


@pytest.mark.parametrize("size", [-1, 1.5, "256", 2**63, 2**64, True])
def test_a_binary_data_size_that_is_no_size(client: Client, size: Any) -> None:
    document = image(data=None, parameters={"binary_data_size": size})
    head = json.dumps(document).encode()
    answer = client.post("digits", head + bytes(256), {BINARY_LENGTH: str(len(head))})
    assert answer.status == 400
    assert answer.json()["error"].startswith("Unable to parse 'binary_data_size'")
    still_serves(client)


def test_sections_without_the_header_field_are_not_json(client: Client) -> None:
    body, _ = encode([FOUR])
    answer = client.post("digits", body)
    assert answer.status == 400
    still_serves(client)


@pytest.mark.parametrize("length", ["-1", "abc", "1e2", "2147483648", "99999999999999999999", "+5", "", "0x10", "5 5"])
def test_an_inference_header_length_that_is_none(client: Client, length: str) -> None:
    body, _ = encode([FOUR])
    answer = client.post("digits", body, {BINARY_LENGTH: length})
    assert answer.status == 400, answer
    assert "error" in answer.json()
    still_serves(client) if answer.headers.get("connection") != "close" else None


def test_an_inference_header_length_beyond_the_body(client: Client) -> None:
    body, _ = encode([FOUR])
    answer = client.post("digits", body, {BINARY_LENGTH: str(len(body) + 1)})
    assert answer.status == 400, answer
    still_serves(client)


@pytest.mark.parametrize("shift", [-1, 1])
def test_an_inference_header_length_that_cuts_elsewhere(client: Client, shift: int) -> None:
    body, headers = encode([FOUR])
    answer = client.post("digits", body, {BINARY_LENGTH: str(int(headers[BINARY_LENGTH]) + shift)})
    assert answer.status == 400, answer
    still_serves(client)


def test_an_inference_header_length_of_the_whole_body(client: Client) -> None:
    body = json.dumps(image()).encode()
    assert decode(client.post("digits", body, {BINARY_LENGTH: str(len(body))})).answer.status == 200


def test_a_bool_is_zero_or_one(client: Client) -> None:
    document = one("BOOL", [])
    for tensor in document["inputs"]:
        if tensor["name"] == "bool":
            del tensor["data"]
            tensor["parameters"] = {"binary_data_size": 8}
    head = json.dumps(document).encode()
    for byte, status in ((0, 200), (1, 200), (2, 400), (255, 400)):
        answer = client.post("every_dtype", head + bytes([0] * 7 + [byte]), {BINARY_LENGTH: str(len(head))})
        assert answer.status == status, answer
    assert "BOOL elements are bytes 0 or 1" in answer.json()["error"]
    still_serves(client)


# -- raw requests: the body is the tensor


def test_a_raw_request_is_one_row_and_answered_in_binary(client: Client) -> None:
    reply = decode(client.post("digits", IMAGE.array.tobytes(), {BINARY_LENGTH: "0"}))
    expected = client.infer("digits", [IMAGE], parameters={"binary_data_output": True})
    assert reply.answer.headers["content-type"] == "application/octet-stream"
    assert reply.document == expected.document
    assert reply.answer.body == expected.answer.body


RAW = [
    ("digits", bytes(255), "input byte size mismatch for input 'image' for model 'digits'. Expected 256, got 255"),
    ("digits", bytes(512), "input byte size mismatch for input 'image' for model 'digits'. Expected 256, got 512"),
    ("digits", b"", "input byte size mismatch for input 'image' for model 'digits'. Expected 256, got 0"),
    (
        "add_sub",
        bytes(128),
        "Raw request must only have 1 input (found 1) to be deduced but got 2 inputs in 'add_sub' model configuration",
    ),
    (
        "volume",
        bytes(64),
        "The shape of the raw input 'x' can not be deduced because there are more than one variable-sized dimension",
    ),
    ("nonzero", bytes(7), "input byte size mismatch for input 'x' for model 'nonzero'. Expected 4, got 7"),
]


@pytest.mark.parametrize(("model", "body", "text"), RAW, ids=[f"{row[0]}-{len(row[1])}" for row in RAW])
def test_raw_requests_that_cannot_be(client: Client, model: str, body: bytes, text: str) -> None:
    answer = client.post(model, body, {BINARY_LENGTH: "0"})
    assert (answer.status, answer.json()["error"]) == (400, text)
    still_serves(client)


def test_a_raw_request_is_one_row(client: Client) -> None:
    values = np.array([[1, 2, 3]], np.float32)
    reply = decode(client.post("dynamic", values.tobytes(), {BINARY_LENGTH: "0"}))
    assert reply.outputs["y"].tolist() == values.tolist()


def test_a_raw_request_deduces_one_free_dimension(client: Client) -> None:
    values = np.array([0, 1, 0, 2, 3], np.float32)
    reply = decode(client.post("nonzero", values.tobytes(), {BINARY_LENGTH: "0"}))
    assert reply.outputs["places"].tolist() == [[1, 3, 4]]


# -- what is not the body

MEDIA = [
    (None, 200),
    ("application/json", 200),
    ("Application/JSON; charset=utf-8", 200),
    ("application/octet-stream", 200),
]
MEDIA += [
    ("application/x-www-form-urlencoded", 200),
    ("application/vnd.x+json", 200),
    ("text/plain", 415),
    ("image/png", 415),
]


@pytest.mark.parametrize(("media_type", "status"), MEDIA)
def test_media_types(client: Client, media_type: str | None, status: int) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    answer = client.post("digits", json.dumps(image()).encode(), headers)
    assert answer.status == status, answer
    still_serves(client)


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br", "compress"])
def test_content_codings(client: Client, coding: str) -> None:
    answer = client.post("digits", json.dumps(image()).encode(), {"Content-Encoding": coding})
    assert answer.status == 415, answer
    assert answer.headers["accept-encoding"] == "gzip, deflate"
    still_serves(client)


def test_identity_is_no_coding(client: Client) -> None:
    assert client.post("digits", json.dumps(image()).encode(), {"Content-Encoding": "identity"}).status == 200


@pytest.mark.parametrize(
    "path", ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/digits", "/v2/models/digits/config", "/nothing"]
)
def test_head_is_get_without_the_body(server: Server, client: Client, path: str) -> None:
    full, head = client.send("GET", path), client.send("HEAD", path)
    assert head.status == full.status
    assert head.body == b""
    assert head.headers["content-length"] == str(len(full.body)) == full.headers["content-length"]
    assert head.headers["content-type"] == full.headers["content-type"]
    still_serves(client)


def test_head_of_an_inference_is_not_allowed(client: Client) -> None:
    answer = client.send("HEAD", "/v2/models/digits/infer")
    assert (answer.status, answer.body, answer.headers["allow"]) == (405, b"", "POST")
    still_serves(client)
