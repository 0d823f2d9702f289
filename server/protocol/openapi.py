"""GET /openapi.json: what this server serves at this moment, as an OpenAPI 3.1 document.

Routes come from the route table, inference calls from the models: each has its own, with the names, datatypes and
shapes of its tensors. Left out are the port for metrics and routes whose extension the server does not have. Source:
OpenAPI Specification 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from server.protocol import openapi_schemas as schemas
from server.protocol import routes
from server.protocol.openapi_schemas import Schema
from server.protocol.served import SYSTEM_SHARED_MEMORY, ServedModel, ServerInfo

JSON = "application/json"
BINARY = "application/octet-stream"
_UNKNOWN_MODEL = {"404": "No such model or version."}
_NOT_READY = {"503": "Not ready; Retry-After says when to try again, where that helps."}
_BODY = {"400": "The body does not fit.", "413": "The body is over the limit.", "415": "Unknown media type or coding."}
_TFS_PATH = {"400": "A path that is not of this API.", **_UNKNOWN_MODEL}
_CHANGE = {"500": "The change failed.", "501": "The server is started without this.", **_NOT_READY, **_BODY}
_INFER = {
    "500": "The model failed on this request.",
    "501": "A feature of the protocol that this server does not have.",
    "504": "The request's own deadline passed.",
    **_UNKNOWN_MODEL,
    **_NOT_READY,
    **_BODY,
}


#: Of a call that always has an answer.
_NO_ERRORS: dict[str, str] = {}


class Operation(NamedTuple):
    """What a handler does: `answer` is the schema of a 200 (None: an empty body), `errors` why by status."""

    tag: str
    summary: str
    answer: Schema | None
    errors: dict[str, str] = _NO_ERRORS
    body: Schema | None = None


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_OPERATIONS = {
    "kserve_alive": Operation("health", "Whether the server lives (KServe V1)", _ref("Alive")),
    "server_metadata": Operation("health", "Name, version and extensions", _ref("ServerMetadata")),
    "server_live": Operation("health", "Whether the server lives", _ref("Live")),
    "server_ready": Operation("health", "Whether the server takes work", _ref("Ready"), _NOT_READY),
    "statistics": Operation("statistics", "Statistics of all models", _ref("Statistics")),
    "model_statistics": Operation("statistics", "Statistics of a model", _ref("Statistics"), _UNKNOWN_MODEL),
    "model_metadata": Operation("models", "Inputs and outputs", _ref("Model"), {**_UNKNOWN_MODEL, **_NOT_READY}),
    "model_ready": Operation(
        "models", "Whether a model takes work", _ref("ModelReady"), {**_UNKNOWN_MODEL, **_NOT_READY}
    ),
    "model_config": Operation("models", "Configuration", _ref("ModelConfig"), {**_UNKNOWN_MODEL, **_NOT_READY}),
    "trace_setting": Operation("trace", "Trace settings", _ref("TraceSettings"), _UNKNOWN_MODEL),
    "set_trace": Operation(
        "trace", "Change trace settings", _ref("TraceSettings"), {**_UNKNOWN_MODEL, **_CHANGE}, _ref("TraceChanges")
    ),
    "log_settings": Operation("logging", "What is logged", _ref("LogSettings")),
    "set_log": Operation("logging", "Change what is logged", _ref("LogSettings"), _CHANGE, _ref("LogChanges")),
    "repository_index": Operation("repository", "All models", _ref("Index"), _BODY, _ref("IndexWanted")),
    "repository_load": Operation("repository", "Load", None, {**_UNKNOWN_MODEL, **_CHANGE}, _ref("Parameters")),
    "repository_unload": Operation("repository", "Unload", None, {**_UNKNOWN_MODEL, **_CHANGE}, _ref("Parameters")),
    "memory_status": Operation("shared memory", "Registered regions", _ref("Regions"), {"404": "No such region."}),
    "memory_register": Operation("shared memory", "Register a region", None, _CHANGE, _ref("Region")),
    "memory_unregister": Operation("shared memory", "Unregister regions", None, _CHANGE),
    "openapi": Operation("health", "This document", {"type": "object"}),
}
#: TensorFlow Serving and KServe V1; their paths are a grammar, not rows of the route table.
_TFS = {
    "/v1/models": Operation("tensorflow serving", "All models", _ref("ModelList")),
    "/v1/models/{model}": Operation("tensorflow serving", "States", _ref("Status"), _TFS_PATH),
    "/v1/models/{model}/versions/{version}": Operation(
        "tensorflow serving", "State of a version", _ref("Status"), _TFS_PATH
    ),
    "/v1/models/{model}/metadata": Operation(
        "tensorflow serving", "Signature", _ref("Metadata"), {**_TFS_PATH, **_NOT_READY}
    ),
    "/v1/models/{model}/versions/{version}/metadata": Operation(
        "tensorflow serving", "Signature of a version", _ref("Metadata"), {**_TFS_PATH, **_NOT_READY}
    ),
}


def document(info: ServerInfo, models: Sequence[ServedModel]) -> dict[str, Any]:
    """The whole document; `models` are all versions that are to serve."""
    paths: dict[str, dict[str, Any]] = {}
    parameters = _path_parameters(models)
    for route in routes.ROUTES:
        operation = _OPERATIONS.get(route.handler)
        if route.handler.startswith("memory_") and SYSTEM_SHARED_MEMORY not in info.extensions:
            operation = None
        if route.port == routes.HTTP_PORT and operation is not None:
            _add(paths, route.pattern, route.methods[0].lower(), _described(operation), parameters)
    for pattern, operation in _TFS.items():
        _add(paths, pattern, "get", _described(operation), parameters)
    described = [model for model in models if model.outputs]
    components = dict(schemas.COMMON)
    for model in described:
        components |= schemas.of_model(model)
        for version in ("", model.version) if model is _default(model, described) else (model.version,):
            middle = f"/versions/{version}" if version else ""
            _add(paths, f"/v2/models/{model.name}{middle}/infer", "post", _infer(model), parameters)
            _add(paths, f"/v1/models/{model.name}{middle}:predict", "post", _predict(model), parameters)
    return {
        "openapi": "3.1.0",
        "info": {"title": info.name, "version": info.version},
        "paths": paths,
        "components": {"schemas": components},
    }


def _default(model: ServedModel, models: Sequence[ServedModel]) -> ServedModel:
    """The version whose tensors a path without a version is described with: the highest."""
    return max((one for one in models if one.name == model.name), key=lambda one: int(one.version))


def _add(
    paths: dict[str, dict[str, Any]], pattern: str, method: str, operation: dict[str, Any], parameters: Schema
) -> None:
    path = paths.setdefault(pattern, {})
    if used := [parameters[part] for part in parameters if part in pattern]:
        path["parameters"] = used
    # The path as it is: with other letters for its slashes, two models could come to the same.
    path[method] = {"operationId": f"{method}{pattern}", **operation}


def _path_parameters(models: Sequence[ServedModel]) -> Schema:
    """By what they are in a pattern."""
    names = sorted({model.name for model in models})
    versions = sorted({model.version for model in models}, key=int)
    rows = (
        ("model", {"type": "string", "minLength": 1, **({"examples": names} if names else {})}),
        ("version", {"type": "string", "pattern": "^[0-9]+$", **({"examples": versions} if versions else {})}),
        ("region", {"type": "string", "minLength": 1}),
    )
    return {f"{{{name}}}": {"name": name, "in": "path", "required": True, "schema": schema} for name, schema in rows}


def _content(schema: Schema, *types: str) -> Schema:
    return {kind: {"schema": schema if kind == JSON else {}} for kind in types or (JSON,)}


def _errors(errors: dict[str, str]) -> Schema:
    answers: Schema = {}
    for status, text in sorted(errors.items()):
        answers[status] = {"description": text, "content": _content(_ref("Error"))}
        if status == "503":
            answers[status]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return answers


def _described(operation: Operation) -> dict[str, Any]:
    done: Schema = {"description": "Done."}
    if operation.answer is not None:
        done["content"] = _content(operation.answer)
    found: dict[str, Any] = {"tags": [operation.tag], "summary": operation.summary}
    if operation.body is not None:
        found["requestBody"] = {"content": _content(operation.body)}
    return {**found, "responses": {"200": done, **_errors(operation.errors)}}


def _infer(model: ServedModel) -> dict[str, Any]:
    name = schemas.model_key(model)
    length = {"type": "integer", "minimum": 0}
    content = _content(_ref(f"{name}.request"), JSON, BINARY)
    if (example := schemas.example(model)) is not None:
        content[JSON]["example"] = example
    return {
        "tags": ["inference"],
        "summary": f"Infer with {model.name}",
        "parameters": [
            {
                "name": "Inference-Header-Content-Length",
                "in": "header",
                "description": "Bytes of the JSON part; what follows are tensors, in the order of the inputs. "
                "0: the whole body is the tensor of the one input.",
                "schema": length,
            }
        ],
        # Not required: a raw request may be of no bytes.
        "requestBody": {"content": content},
        "responses": {
            "200": {
                "description": "The outputs.",
                "headers": {"Inference-Header-Content-Length": {"schema": length}},
                "content": _content(_ref(f"{name}.response"), JSON, BINARY),
            },
            **_errors(_INFER),
        },
    }


def _predict(model: ServedModel) -> dict[str, Any]:
    return {
        "tags": ["tensorflow serving"],
        "summary": f"Predict with {model.name}",
        "requestBody": {"required": True, "content": _content(_ref("Predict"))},
        "responses": {
            "200": {"description": "The outputs.", "content": _content(_ref("Prediction"))},
            **_errors(_INFER),
        },
    }
