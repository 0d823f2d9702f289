"""The JSON documents of the KServe V2 REST protocol that are not inference: metadata, health, configuration, errors.

Each function returns the document as bytes, keys in Triton's order. Sources: open-inference-protocol
`specification/protocol/inference_rest.md`; Triton `src/http_server.cc`, `model_config.proto` for the configuration.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from server.alike import did_you_mean
from server.protocol.assignment import Assignment
from server.protocol.datatypes import BY_NAME
from server.protocol.served import READY, ServedModel, ServerInfo, TensorInfo

# The specification's text has `live` in the body of ready, KServe's client reads `ready`: both keys serve both.
LIVE_BODY = b'{"live":true}'
READY_BODY = b'{"live":true,"ready":true}'
NOT_FOUND = "Not Found: there is no such path here; GET /openapi.json of the HTTP port lists those there are"

_BACKENDS = {"onnxruntime_onnx": "onnxruntime"}


def dumps(document: object) -> bytes:
    """Compact UTF-8 JSON; text that is not valid Unicode comes out with question marks."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def error_body(text: str) -> bytes:
    """The body of every error of the V2 and TensorFlow Serving protocols."""
    return dumps({"error": text})


def not_ready_body(reason: str) -> bytes:
    """The server's readiness when it is not: `reason` says what is missing."""
    return dumps({"live": True, "ready": False, "error": reason})


def server_metadata(info: ServerInfo) -> bytes:
    """GET /v2."""
    return dumps({"name": info.name, "version": info.version, "extensions": list(info.extensions)})


def model_ready(model: ServedModel) -> bytes:
    """GET /v2/models/M/ready; with the reason where it is not."""
    document: dict[str, object] = {"name": model.name, "ready": model.state() == READY}
    if model.state() != READY:
        document["error"] = not_ready_text(model)
    return dumps(document)


def not_ready_text(model: ServedModel) -> str:
    """Triton's text, which its clients match, then the state and the reason."""
    text = f"Request for unknown model: '{model.name}' version {model.version} is not at ready state"
    reason = model.reason()
    return f"{text} ({model.state()}{': ' + reason if reason else ''})"


def unknown_model_text(
    name: str, version: str | None, known: Sequence[ServedModel], repository: Sequence[ServedModel] = ()
) -> str:
    """Triton's text, then what would have been found: the name's versions, or the names most like it; `repository` has
    those besides that could be loaded.
    """
    versions = sorted({model.version for model in known if model.name == name}, key=lambda text: (len(text), text))
    if version is not None:
        text = f"Request for unknown model: '{name}' version {version} is not found"
        if versions:
            return f"{text}; versions of '{name}': {', '.join(versions)}"
    else:
        text = f"Request for unknown model: '{name}' is not found"
        if any(model.name == name for model in repository):
            return f"{text}; it is not loaded: POST /v2/repository/models/{name}/load"
    return text + did_you_mean(name, {model.name for model in known})


def model_metadata(model: ServedModel, versions: Sequence[str]) -> bytes:
    """GET /v2/models/M[/versions/V]: `versions` are those that the path stands for."""
    return dumps(
        {
            "name": model.name,
            "versions": list(versions),
            "platform": model.platform,
            "inputs": [_metadata_tensor(tensor) for tensor in model.inputs],
            "outputs": [_metadata_tensor(tensor) for tensor in model.outputs],
        }
    )


def _metadata_tensor(tensor: TensorInfo) -> dict[str, object]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def model_config(model: ServedModel) -> bytes:
    """GET /v2/models/M/config: Triton's ModelConfig as its JSON printer writes it, defaults included."""
    return dumps(config_document(model))


def config_document(model: ServedModel) -> dict[str, object]:
    """What the server found out about a model and what its config.pbtxt says, in Triton's words and order."""
    batched = model.batched
    document: dict[str, object] = {
        "name": model.name,
        "platform": model.platform,
        "backend": _BACKENDS.get(model.platform, ""),
        "runtime": "",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": model.max_batch if batched else 0,
        "input": [
            {
                "name": tensor.name,
                "data_type": BY_NAME[tensor.datatype].config,
                "format": "FORMAT_NONE",
                **_config_dims(tensor, batched),
                "is_shape_tensor": False,
                "allow_ragged_batch": False,
                "optional": False,
                "is_non_linear_format_io": False,
            }
            for tensor in model.inputs
        ],
        "output": [
            {
                "name": tensor.name,
                "data_type": BY_NAME[tensor.datatype].config,
                **_config_dims(tensor, batched),
                "label_filename": "",
                "is_shape_tensor": False,
                "is_non_linear_format_io": False,
            }
            for tensor in model.outputs
        ],
        "batch_input": [],
        "batch_output": [],
        "optimization": {
            "priority": "PRIORITY_DEFAULT",
            "input_pinned_memory": {"enable": False},
            "output_pinned_memory": {"enable": False},
            "gather_kernel_buffer_threshold": 0,
            "eager_batching": False,
        },
    }
    if batched:
        document["dynamic_batching"] = {
            "preferred_batch_size": [model.max_batch],
            "max_queue_delay_microseconds": model.max_queue_delay_us,
            "preserve_ordering": False,
            "priority_levels": 0,
            "default_priority_level": 0,
            "priority_queue_policy": {},
        }
    placed = model.placed()
    document["instance_group"] = [
        _instance_group(f"{model.name}_{index}" if placed.others else model.name, one, one.instances or model.instances)
        for index, one in enumerate(placed.every)
    ]
    document |= {
        "default_model_filename": "model.onnx",
        "cc_model_filenames": {},
        "metric_tags": {},
        "parameters": _config_parameters(model),
        "model_warmup": [],
        "model_transaction_policy": {"decoupled": False},
        "response_cache": {"enable": False},
    }
    return {**document, **model.configured}


def _instance_group(name: str, placed: Assignment, count: int) -> dict[str, object]:
    kind, _, index = placed.device.partition(":")
    is_gpu = kind in ("cuda", "tensorrt")
    return {
        "name": name,
        "kind": "KIND_GPU" if is_gpu else "KIND_CPU",
        "count": count,
        "gpus": [int(index)] if is_gpu else [],
        "secondary_devices": [],
        "profile": [],
        "passive": False,
        "host_policy": "",
    }


def _config_dims(tensor: TensorInfo, batched: bool) -> dict[str, object]:
    """`dims` has no batch axis and, as Triton wants it, is never empty: a scalar per row is [1] reshaped to []."""
    dims = list(tensor.shape[1:] if batched else tensor.shape)
    return {"dims": dims} if dims else {"dims": [1], "reshape": {"shape": []}}


def _config_parameters(model: ServedModel) -> dict[str, object]:
    return {"batching_reason": {"string_value": model.batching_reason}} if model.batching_reason else {}
