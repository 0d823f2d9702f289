"""server/protocol/tfs and tfs_control: status, metadata, lists and errors of TensorFlow Serving and KServe V1."""

from __future__ import annotations

import json

import pytest

from server import errors
from server.protocol import tfs, tfs_control, tfs_routes
from server.protocol.datatypes import DATATYPES
from server.protocol.served import LOADING, READY, STATES, UNAVAILABLE, ServedModel, StaticCatalog, TensorInfo

INPUTS = [TensorInfo("image", "FP32", [-1, 28, 28])]
OUTPUTS = [TensorInfo("p", "FP32", [-1, 10]), TensorInfo("label", "INT64", [-1])]


def model(name: str, version: str, state: str = READY, reason: str = "", *, described: bool = True) -> ServedModel:
    return ServedModel(
        name,
        version,
        INPUTS if described else [],
        OUTPUTS if described else [],
        batched=True,
        max_batch=8,
        state=lambda: state,
        reason=lambda: reason,
    )


CATALOG = StaticCatalog(
    [
        model("digits", "1"),
        model("digits", "2"),
        model("digits", "10", LOADING),
        model("slow", "1", LOADING),
        model("broken", "1", UNAVAILABLE, "the file is no ONNX model", described=False),
    ]
)


def answer(method: str, path: str, *, kserve: bool = True) -> object:
    match = tfs_routes.parse(method, path)
    assert match is not None
    return json.loads(tfs_control.answer(match, CATALOG, kserve=kserve))


def available(version: str) -> dict[str, object]:
    return {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


LOADING_10 = {"version": "10", "state": "LOADING", "status": {"error_code": "OK", "error_message": ""}}


def test_status_of_all_versions_newest_first() -> None:
    versions = [LOADING_10, available("2"), available("1")]
    assert answer("GET", "/v1/models/digits") == {"name": "digits", "ready": True, "model_version_status": versions}
    assert answer("GET", "/v1/models/digits", kserve=False) == {"model_version_status": versions}


def test_status_of_one_version() -> None:
    assert answer("GET", "/V1/models/digits/versions/02") == {
        "name": "digits",
        "ready": True,
        "model_version_status": [available("2")],
    }
    assert answer("GET", "/v1/models/digits/versions/10") == {
        "name": "digits",
        "ready": False,
        "model_version_status": [LOADING_10],
    }
    assert answer("GET", "/v1/models/broken", kserve=False) == {
        "model_version_status": [
            {
                "version": "1",
                "state": "END",
                "status": {"error_code": "UNAVAILABLE", "error_message": "the file is no ONNX model"},
            }
        ]
    }


def test_version_0_is_the_default_unless_there_is_one() -> None:
    """OpenVINO Model Server's clients put it into every path."""
    for path in ("/v1/models/digits", "/v1/models/digits/metadata"):
        versioned = path.replace("digits", "digits/versions/0")
        assert answer("GET", versioned) == answer("GET", path)
    catalog = StaticCatalog([model("m", "0"), model("m", "3")])
    match = tfs_routes.parse("GET", "/v1/models/m/versions/0")
    assert match is not None
    assert json.loads(tfs_control.answer(match, catalog, kserve=False)) == {"model_version_status": [available("0")]}


def test_list_of_models() -> None:
    assert answer("GET", "/v1/models") == {"models": ["broken", "digits", "slow"]}


def test_metadata() -> None:
    dims = [{"size": "-1", "name": ""}, {"size": "28", "name": ""}, {"size": "28", "name": ""}]
    document = {
        "model_spec": {"name": "digits", "signature_name": "", "version": "2"},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "serving_default": {
                        "inputs": {
                            "image": {
                                "dtype": "DT_FLOAT",
                                "tensor_shape": {"dim": dims, "unknown_rank": False},
                                "name": "image:0",
                            }
                        },
                        "outputs": {
                            "p": {
                                "dtype": "DT_FLOAT",
                                "tensor_shape": {
                                    "dim": [{"size": "-1", "name": ""}, {"size": "10", "name": ""}],
                                    "unknown_rank": False,
                                },
                                "name": "p:0",
                            },
                            "label": {
                                "dtype": "DT_INT64",
                                "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
                                "name": "label:0",
                            },
                        },
                        "method_name": "tensorflow/serving/predict",
                    }
                }
            }
        },
    }
    assert answer("GET", "/v1/models/digits/metadata") == document
    assert answer("GET", "/v1/models/digits/versions/2/metadata") == document


@pytest.mark.parametrize(
    ("method", "path", "cls", "text"),
    [
        ("GET", "/v1/models/x", errors.UnknownModelError, "Could not find any versions of model x"),
        ("GET", "/v1/models/digits/versions/9", errors.UnknownModelError, "Could not find version 9 of model digits"),
        ("GET", "/v1/models/x/metadata", errors.UnknownModelError, "Servable not found for request: Latest(x)"),
        ("POST", "/v1/models/x:predict", errors.UnknownModelError, "Servable not found for request: Latest(x)"),
        (
            "POST",
            "/v1/models/digits/versions/9:predict",
            errors.UnknownModelError,
            "Servable not found for request: Specific(digits, 9)",
        ),
        (
            "POST",
            "/v1/models/slow:predict",
            errors.ModelNotReadyError,
            "Servable not found for request: Latest(slow) (LOADING)",
        ),
        (
            "GET",
            "/v1/models/broken/metadata",
            errors.ModelNotReadyError,
            "Servable not found for request: Latest(broken) (UNAVAILABLE: the file is no ONNX model)",
        ),
        (
            "POST",
            "/v1/models/digits:predict",
            errors.ModelNotReadyError,
            "model 'digits' version 2 became ready only now: send the request again",
        ),
        (
            "POST",
            "/v1/models/digits/labels/stable:predict",
            errors.InvalidArgumentError,
            "Unrecognized servable version label: stable",
        ),
        (
            "POST",
            "/v1/models/digits:classify",
            errors.InvalidArgumentError,
            (
                "Expected classification signature method_name to be tensorflow/serving/classify. Was: "
                "tensorflow/serving/predict"
            ),
        ),
        (
            "POST",
            "/v1/models/digits:regress",
            errors.InvalidArgumentError,
            (
                "Expected regression signature method_name to be tensorflow/serving/regress. Was: "
                "tensorflow/serving/predict"
            ),
        ),
        (
            "POST",
            "/v1/models/digits:explain",
            errors.InvalidArgumentError,
            "Malformed request: POST /v1/models/digits:explain",
        ),
    ],
)
def test_errors(method: str, path: str, cls: type[errors.HeadraceError], text: str) -> None:
    with pytest.raises(cls) as caught:
        answer(method, path)
    assert caught.value.text == text


def test_tables_are_complete() -> None:
    assert set(tfs.DATA_TYPES) == {datatype.name for datatype in DATATYPES}
    assert set(tfs._STATES) == set(STATES)
    # google.rpc.Code has seventeen names.
    assert len(tfs.HTTP_STATUS) == 17
    for code, cls in errors.INFER_ERRORS.items():
        name = {1: "INVALID_ARGUMENT", 2: "NOT_FOUND", 3: "UNAVAILABLE", 4: "UNIMPLEMENTED", 5: "INTERNAL"}.get(code)
        if name:
            assert errors.outcome(cls).http_status == tfs.HTTP_STATUS[name]


@pytest.mark.parametrize(("name", "retry_after_s"), [("slow", 7), ("broken", None)])
def test_waiting_is_advised_where_it_helps(name: str, retry_after_s: int | None) -> None:
    match = tfs_routes.parse("POST", f"/v1/models/{name}:predict")
    assert match is not None
    with pytest.raises(errors.ModelNotReadyError) as caught:
        tfs_control.answer(match, CATALOG, retry_after_s=7)
    assert caught.value.retry_after_s == retry_after_s
