"""TensorFlow Serving's REST API and KServe V1 on a real server: predictions, paths, documents, errors."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.conformance.conftest import CAPACITY_ROWS
from tests.conformance.onnx_reference import Reference, same_bits
from tests.conformance.v2_client import Array, Client, Tensor
from tests.support import http2_frames as h2
from tests.support.server import Server

pytestmark = pytest.mark.slow
References = dict[str, Reference]
#: (path, body) -> status and body of the answer.
Post = Callable[[str, bytes], tuple[int, bytes]]

#: Bytes of one HTTP/2 frame unless the peer allows more.
MAX_FRAME_BYTES = 16384
#: HPACK's static table: the status fields that are one byte.
STATUSES = {0x88: 200, 0x8C: 400, 0x8D: 404, 0x8E: 500}


def post_http2(server: Server, path: str, body: bytes) -> tuple[int, bytes]:
    """One request on an HTTP/2 connection of its own."""
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"a")]
    request = h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0) + h2.headers(1, fields, end=not body)
    if body:
        parts = [body[at : at + MAX_FRAME_BYTES] for at in range(0, len(body), MAX_FRAME_BYTES)]
        request += b"".join(h2.frame(h2.DATA, 0, 1, part) for part in parts[:-1])
        request += h2.frame(h2.DATA, h2.END_STREAM, 1, parts[-1])
    received = b""
    with socket.create_connection((server.host, server.port), timeout=10) as connection:
        connection.sendall(request)
        while True:
            frames = [one for one in h2.split_frames(received) if one.stream == 1]
            if any(one.flags & h2.END_STREAM for one in frames):
                break
            more = connection.recv(65536)
            assert more, f"expected an answer, the connection ended after {received!r}"
            received += more
    (head,) = (one for one in frames if one.kind == h2.HEADERS)
    return STATUSES.get(head.payload[0], 0), b"".join(one.payload for one in frames if one.kind == h2.DATA)


@pytest.fixture(params=["http/1.1", "http/2"])
def post(request: pytest.FixtureRequest, server: Server) -> Post:
    """Both must answer alike."""

    def post_http1(path: str, body: bytes) -> tuple[int, bytes]:
        answer = server.request("POST", path, body)
        assert answer.headers["content-type"] == "application/json"
        return answer.status, answer.body

    return post_http1 if request.param == "http/1.1" else lambda path, body: post_http2(server, path, body)


def predict(post: Post, model: str, document: Any) -> Any:
    status, body = post(f"/v1/models/{model}:predict", json.dumps(document).encode())
    assert status == 200, body
    return json.loads(body)


# -- predictions

SEVERAL = {"image": [[1, 2, 3], [4, 5, 6]], "rank one": -7, 'quoted "ä"': [0.5, 1, 2, 3, 1e30], "flag": [[True]]}

GOLDEN = [
    ("dynamic", {"instances": [[1.0, 2.5], [-3, 0.1]]}, {"predictions": [[1.0, 2.5], [-3.0, 0.1]]}),
    ("dynamic", {"inputs": [[1.0, 2.5]]}, {"outputs": [[1.0, 2.5]]}),
    ("dynamic", {"inputs": {"x": [[1.0, 2.5]]}}, {"outputs": [[1.0, 2.5]]}),
    ("dynamic", {"signature_name": "serving_default", "instances": [{"x": [4]}]}, {"predictions": [[4.0]]}),
    ("probe", {"instances": [[0], [0]]}, {"predictions": [[2], [2]]}),
    ("fails", {"instances": [{"index": [3]}, {"index": [1]}]}, {"predictions": [[30.0], [10.0]]}),
    (
        "several",
        {"instances": [SEVERAL, SEVERAL]},
        {"predictions": [{f"{name}_out": value for name, value in SEVERAL.items()}] * 2},
    ),
    (
        "several",
        {"inputs": {name: [value] for name, value in SEVERAL.items()}},
        {"outputs": {f"{name}_out": [value] for name, value in SEVERAL.items()}},
    ),
    (
        "time_major",
        {"inputs": {"state": [[[1, 2, 3]], [[4, 5, 6]]], "rate": 9}},
        {"outputs": {"next_state": [[[1, 2, 3]], [[4, 5, 6]]], "same_rate": 9}},
    ),
]


@pytest.mark.parametrize(("model", "document", "expected"), GOLDEN)
def test_rows_and_columns(post: Post, model: str, document: Any, expected: Any) -> None:
    assert predict(post, model, document) == expected


def test_the_request_that_articles_begin_with(post: Post, references: References) -> None:
    found = predict(post, "mnist", {"instances": [[1.0, 2.0, 3.0]]})
    assert list(found) == ["predictions"]
    expected = references["mnist"].run({"x": np.array([[1, 2, 3]], np.float32)})["y"]
    assert same_bits(np.array(found["predictions"], np.float32), expected)


@pytest.mark.parametrize("rows", [1, 7, CAPACITY_ROWS + 1, 150])
def test_digits_as_onnx_runtime_in_this_process(post: Post, references: References, rows: int) -> None:
    images = np.random.default_rng(rows).integers(0, 16, (rows, 64)).astype(np.float32)
    expected = references["digits"].run_parts({"image": images}, CAPACITY_ROWS)
    by_row = predict(post, "digits", {"instances": images.tolist()})["predictions"]
    by_column = predict(post, "digits", {"inputs": images.tolist()})["outputs"]
    assert set(by_column) == set(expected)
    for name, array in expected.items():
        for found in ([row[name] for row in by_row], by_column[name]):
            assert same_bits(np.array(found, array.dtype), array), name


def test_floats_have_a_point_and_no_number_is_lost(post: Post) -> None:
    status, body = post("/v1/models/dynamic:predict", b'{"instances": [[1, 1e30, NaN, Infinity, -Infinity]]}')
    assert status == 200
    text = body.decode()
    for word in ("1.0", "1e+30", "NaN", "Infinity", "-Infinity"):
        assert word in text.replace("[", " ").replace(",", " ").replace("]", " ").split(), text


def test_both_protocols_on_one_connection(client: Client, references: References) -> None:
    """What one request speaks does not stick to the connection."""
    x = np.array([[1, 2, 3]], np.float32)
    expected: Array = references["mnist"].run({"x": x})["y"]
    for _ in range(3):
        reply = client.infer("mnist", [Tensor("x", "FP32", x)])
        assert same_bits(reply.outputs["y"], expected)
        answer = client.send("POST", "/v1/models/mnist:predict", b'{"instances": [[1, 2, 3]]}')
        assert same_bits(np.array(answer.json()["predictions"], np.float32), expected)


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "application/octet-stream", "nonsense"])
def test_the_media_type_is_not_looked_at(client: Client, media_type: str) -> None:
    answer = client.send(
        "POST", "/v1/models/mnist:predict", b'{"instances": [[1, 2, 3]]}', {"Content-Type": media_type}
    )
    assert answer.status == 200


# -- paths


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/fixed:predict",
        "/v1/models/fixed/versions/7:predict",
        "/v1/models/fixed/versions/007:predict",
        "/v1/models/fixed/versions/0:predict",
        "/V1/Models/fixed:Predict",
        "/v1/MODELS/fixed/VERSIONS/7:PREDICT",
        "/v1/models/f%69xed:predict",
        "/v1/models/fixed:predict?a=b",
    ],
)
def test_paths_of_one_model(post: Post, path: str) -> None:
    status, body = post(path, json.dumps({"instances": [[1, 2, 3]] * 4}).encode())
    assert (status, json.loads(body)) == (200, {"predictions": [[2.0, 4.0, 6.0]] * 4})


PATHS_REFUSED = [
    ("/v1/models/none:predict", 404, "Servable not found for request: Latest(none)"),
    ("/v1/models/Fixed:predict", 404, "Servable not found for request: Latest(Fixed)"),
    ("/v1/models/fixed/versions/1:predict", 404, "Servable not found for request: Specific(fixed, 1)"),
    ("/v1/models/fixed/labels/stable:predict", 400, "Unrecognized servable version label: stable"),
    ("/v1/models/fixed/versions/x:predict", 400, "Malformed request: POST /v1/models/fixed/versions/x:predict"),
    ("/v1/models/fixed:explain", 400, "Malformed request: POST /v1/models/fixed:explain"),
    ("/v1/models/fixed", 400, "Malformed request: POST /v1/models/fixed"),
]


@pytest.mark.parametrize(("path", "status", "text"), PATHS_REFUSED)
def test_paths_that_lead_nowhere(post: Post, path: str, status: int, text: str) -> None:
    found, body = post(path, b'{"instances": [[1, 2, 3]]}')
    assert (found, json.loads(body)) == (status, {"error": text})


def test_classify_and_regress_are_not_this_signature(post: Post) -> None:
    for kind, noun in (("classify", "classification"), ("regress", "regression")):
        status, body = post(f"/v1/models/mnist:{kind}", b'{"examples": [{}]}')
        assert status == 400
        assert json.loads(body)["error"].startswith(f"Expected {noun} signature method_name to be ")


# -- bodies that are refused

ELEMENT = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: "
BODIES_REFUSED = [
    ("", "JSON Parse error: The document is empty"),
    ("{}", "Missing 'inputs' or 'instances' key"),
    ('{"x": 1}', "Missing 'inputs' or 'instances' key"),
    ("[1]", "JSON Value: [1] Is not object"),
    ('{"instances":[]}', "JSON Value: {\"instances\":[]} No values in 'instances' array"),
    ('{"instances":3}', "JSON Value: {\"instances\":3} Excepting 'instances' to be an list/array"),
    (
        '{"instances":[[1,2,3]],"inputs":[[1,2,3]]}',
        (
            'JSON Value: {"instances":[[1,2,3]],"inputs":[[1,2,3]]} Not formatted correctly expecting only one of '
            "'inputs' or 'instances' keys to exist "
        ),
    ),
    ('{"instances":[[1,2,3],[4,5]]}', ELEMENT.format(1) + "Expecting tensor size: 3 but got: 2"),
    (
        '{"instances":[[1,2,3],[4,5,"6"]]}',
        ELEMENT.format(1) + 'JSON Value: "6" Type: String is not of expected type: float',
    ),
    ('{"inputs":{"y":[[1,2,3]]}}', "Missing named input: x in 'inputs' object."),
    ('{"signature_name":"other"}', 'Serving signature name: "other" not found in signature def'),
]


@pytest.mark.parametrize(("body", "text"), BODIES_REFUSED)
def test_refused_bodies(post: Post, body: str, text: str) -> None:
    status, answer = post("/v1/models/mnist:predict", body.encode())
    assert (status, json.loads(answer)) == (400, {"error": text})


def test_a_refused_body_leaves_the_connection_alone(client: Client) -> None:
    for body, _ in BODIES_REFUSED:
        assert client.send("POST", "/v1/models/mnist:predict", body.encode()).status == 400
        assert client.send("POST", "/v1/models/mnist:predict", b'{"instances": [[1, 2, 3]]}').status == 200


def test_a_failing_run_is_an_error_of_this_request(post: Post) -> None:
    status, body = post("/v1/models/fails:predict", b'{"instances": [[99]]}')
    assert status != 200
    assert list(json.loads(body)) == ["error"]


def test_integers_are_not_read_from_floats(post: Post) -> None:
    status, body = post("/v1/models/fails:predict", b'{"instances": [[1.0]]}')
    assert status == 400
    assert "is not of expected type: int64" in json.loads(body)["error"]


# -- documents

AVAILABLE = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


@pytest.mark.parametrize("path", ["/v1/models/fixed", "/v1/models/fixed/versions/7", "/V1/MODELS/fixed"])
def test_status_is_readiness_too(client: Client, path: str) -> None:
    """`ready` is what KServe's client reads, the rest is TensorFlow Serving's."""
    assert client.get(path) == {
        "name": "fixed",
        "ready": True,
        "model_version_status": [{"version": "7", **AVAILABLE}],
    }


def test_kserve_list_and_alive(client: Client, references: References) -> None:
    assert client.get("/v1/models") == {"models": sorted(references)}
    assert client.get("/") == {"status": "alive"}


def test_metadata_is_the_signature(client: Client) -> None:
    def tensor(name: str, width: int) -> dict[str, Any]:
        dims = [{"size": "-1", "name": ""}, {"size": str(width), "name": ""}]
        shape = {"dim": dims, "unknown_rank": False}
        return {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": f"{name}:0"}

    signature = {
        "inputs": {"x": tensor("x", 3)},
        "outputs": {"y": tensor("y", 2)},
        "method_name": "tensorflow/serving/predict",
    }
    assert client.get("/v1/models/mnist/metadata") == {
        "model_spec": {"name": "mnist", "signature_name": "", "version": "1"},
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    }


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v1/models/none", 404, "Could not find any versions of model none"),
        ("/v1/models/fixed/versions/1", 404, "Could not find version 1 of model fixed"),
        ("/v1/models/none/metadata", 404, "Servable not found for request: Latest(none)"),
        ("/v1/models/fixed:predict", 400, "Malformed request: GET /v1/models/fixed:predict"),
    ],
)
def test_documents_of_nothing(client: Client, path: str, status: int, text: str) -> None:
    answer = client.send("GET", path)
    assert (answer.status, answer.json()) == (status, {"error": text})


def test_the_metrics_port_has_none_of_it(server: Server) -> None:
    for path in ("/", "/v1/models", "/v1/models/mnist"):
        assert server.get(path, port=server.metrics_port).status == 404
