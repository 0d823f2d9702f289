"""The JSON documents of TensorFlow Serving's REST API and of KServe V1 that are not predictions.

Each function returns the document as bytes. Sources: TensorFlow Serving `api_rest.md`, `get_model_status_impl.cc`,
`get_model_metadata_impl.cc`, `classifier.cc`; KServe `python/kserve` (V1). One answer serves both protocols where their
readers look at different keys. A model has one signature, `serving_default`, of the predict method.
"""

from __future__ import annotations

from collections.abc import Sequence

from server.protocol.served import LOADING, READY, UNAVAILABLE, ServedModel, TensorInfo
from server.protocol.v2 import dumps

SIGNATURE = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"
#: GET / of KServe V1.
ALIVE_BODY = b'{"status":"alive"}'

#: Canonical status name -> HTTP status, as TensorFlow Serving's `http_server.cc` maps them; others are 500.
HTTP_STATUS = {
    "OK": 200,
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
}

#: KServe V2 datatype -> tensorflow.DataType (`tensorflow/core/framework/types.proto`).
DATA_TYPES = {
    "BOOL": "DT_BOOL",
    "UINT8": "DT_UINT8",
    "UINT16": "DT_UINT16",
    "UINT32": "DT_UINT32",
    "UINT64": "DT_UINT64",
    "INT8": "DT_INT8",
    "INT16": "DT_INT16",
    "INT32": "DT_INT32",
    "INT64": "DT_INT64",
    "FP16": "DT_HALF",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
    "BYTES": "DT_STRING",
    "BF16": "DT_BFLOAT16",
}

_STATES = {READY: "AVAILABLE", LOADING: "LOADING", UNAVAILABLE: "END"}


def model_status(models: Sequence[ServedModel], *, kserve: bool = True) -> bytes:
    """GET /v1/models/M: the versions asked for, all of one name, the newest first; at least one.

    `kserve` adds KServe V1's `name` and `ready` (True when one of the versions is); a TensorFlow Serving client ignores
    them unless it compares whole documents.
    """
    newest_first = sorted(models, key=lambda model: int(model.version), reverse=True)
    document: dict[str, object] = {}
    if kserve:
        document = {"name": models[0].name, "ready": any(model.state() == READY for model in models)}
    document["model_version_status"] = [_version_status(model) for model in newest_first]
    return dumps(document)


def _version_status(model: ServedModel) -> dict[str, object]:
    state = model.state()
    status = {"error_code": "OK", "error_message": ""}
    if state == UNAVAILABLE:
        status = {"error_code": "UNAVAILABLE", "error_message": model.reason()}
    return {"version": model.version, "state": _STATES[state], "status": status}


def model_list(models: Sequence[ServedModel]) -> bytes:
    """GET /v1/models of KServe V1; TensorFlow Serving has no answer but an error."""
    return dumps({"models": sorted({model.name for model in models})})


def metadata(model: ServedModel) -> bytes:
    """GET /v1/models/M/metadata: the one signature, as TensorFlow Serving prints a SignatureDef."""
    signature = {
        "inputs": {tensor.name: _tensor_info(tensor) for tensor in model.inputs},
        "outputs": {tensor.name: _tensor_info(tensor) for tensor in model.outputs},
        "method_name": PREDICT_METHOD,
    }
    return dumps(
        {
            "model_spec": {"name": model.name, "signature_name": "", "version": model.version},
            "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
        }
    )


def _tensor_info(tensor: TensorInfo) -> dict[str, object]:
    """64-bit integers are text in protobuf's JSON; ":0" is TensorFlow's first output of a node."""
    return {
        "dtype": DATA_TYPES[tensor.datatype],
        "tensor_shape": {"dim": [{"size": str(size), "name": ""} for size in tensor.shape], "unknown_rank": False},
        "name": f"{tensor.name}:0",
    }


# ---- texts that clients match


def unknown_servable_text(name: str, version: str | None) -> str:
    """Of every call but status, for a model or version that is not there or not loaded."""
    return f"Servable not found for request: {f'Latest({name})' if version is None else f'Specific({name}, {version})'}"


def unknown_status_text(name: str, version: str | None) -> str:
    """Of status."""
    return f"Could not find {'any versions' if version is None else f'version {version}'} of model {name}"


def unknown_label_text(label: str) -> str:
    """No model has labels here: they are set by TensorFlow Serving's model_config_file."""
    return f"Unrecognized servable version label: {label}"


def not_ready_text(model: ServedModel, version: str | None) -> str:
    """TensorFlow Serving's text for a model that is not loaded, then the state and why."""
    reason = model.reason()
    return f"{unknown_servable_text(model.name, version)} ({model.state()}{': ' + reason if reason else ''})"


def method_text(kind: str) -> str:
    """`kind` is classify or regress: the signature has the predict method."""
    noun = "classification" if kind == "classify" else "regression"
    return f"Expected {noun} signature method_name to be tensorflow/serving/{kind}. Was: {PREDICT_METHOD}"
