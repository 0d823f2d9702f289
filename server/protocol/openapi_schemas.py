"""The schemas of the OpenAPI document: those of every server, and those of a model's inference calls."""

from __future__ import annotations

import math
from typing import Any

from server.protocol.served import STATES, ServedModel, TensorInfo
from server.protocol.trace_settings import OFF, TIMESTAMPS

Schema = dict[str, Any]

#: Of an input in an example.
MAX_EXAMPLE_ELEMENTS = 1024

_TEXT: Schema = {"type": "string"}
_YES_NO: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_SHAPE: Schema = {"type": "array", "items": {"type": "integer"}}


def _object(properties: dict[str, Schema], *required: str) -> Schema:
    """Of these members, of which all are there unless the required ones are named."""
    return {"type": "object", "properties": properties, "required": list(required or properties)}


def _optional(properties: dict[str, Schema], **more: Any) -> Schema:
    """An object in which each of these members may be left out."""
    return {"type": "object", "properties": properties, **more}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _number_or_text(least: int) -> Schema:
    """A whole number, which Triton's clients send in quotes."""
    number = {"type": "integer", "minimum": least, "maximum": (1 << 31) - 1}
    return _or_null(
        {"anyOf": [number, {"type": "string", "pattern": "^[0-9]{1,9}$" if least < 1 else "^[1-9][0-9]{0,8}$"}]}
    )


_TENSOR = _object({"name": _TEXT, "datatype": _TEXT, "shape": _SHAPE})
_DURATION = _object({"count": _COUNT, "ns": _COUNT})
_STAGES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
_BATCH = {"batch_size": _COUNT, **dict.fromkeys(("compute_input", "compute_infer", "compute_output"), _DURATION)}
_LEVELS = {"enum": [OFF, TIMESTAMPS]}
_LOG = {
    "log_file": {"const": ""},
    "log_info": _YES_NO,
    "log_warning": _YES_NO,
    "log_error": _YES_NO,
    "log_verbose_level": {"type": "integer", "minimum": 0, "maximum": (1 << 24) - 1},
    "log_format": {"const": "ISO8601"},
}
_STATISTICS = {
    "name": _TEXT,
    "version": _TEXT,
    "last_inference": _COUNT,
    "inference_count": _COUNT,
    "execution_count": _COUNT,
    "inference_stats": _object(dict.fromkeys(_STAGES, _DURATION)),
    "response_stats": {"type": "object"},
    "batch_stats": _list(_object(_BATCH)),
    "memory_usage": _list({"type": "object"}),
}
_REGION = {"key": {"type": "string", "pattern": "^/?[^/]{1,254}$"}, "offset": _COUNT, "byte_size": _COUNT}
_VERSION_STATUS = _object({"version": _TEXT, "state": _TEXT, "status": {"type": "object"}})

#: What every server's document has.
COMMON: dict[str, Schema] = {
    "Error": _object({"error": _TEXT}),
    "Alive": _object({"status": _TEXT}),
    "Live": _object({"live": _YES_NO}),
    "Ready": _object({"live": _YES_NO, "ready": _YES_NO}),
    "ServerMetadata": _object({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}),
    "Model": _object(
        {
            "name": _TEXT,
            "versions": _list(_TEXT),
            "platform": _TEXT,
            "inputs": _list(_TENSOR),
            "outputs": _list(_TENSOR),
        }
    ),
    "ModelReady": _object({"name": _TEXT, "ready": _YES_NO}),
    "ModelConfig": _object({"name": _TEXT, "platform": _TEXT, "max_batch_size": _COUNT}),
    "Statistics": _object({"model_stats": _list(_object(_STATISTICS))}),
    "LogSettings": _object(_LOG),
    "LogChanges": _optional({name: _or_null(schema) for name, schema in _LOG.items()}, additionalProperties=False),
    "TraceSettings": _object(
        {
            "trace_file": {"const": ""},
            "trace_level": _list(_LEVELS),
            "trace_rate": _TEXT,
            "trace_count": _TEXT,
            "log_frequency": _TEXT,
            "trace_mode": {"const": "triton"},
        }
    ),
    "TraceChanges": _optional(
        {
            "trace_file": _or_null({"const": ""}),
            "trace_level": _or_null({"anyOf": [_LEVELS, {**_list(_LEVELS), "minItems": 1, "maxItems": 1}]}),
            "trace_rate": _number_or_text(1),
            "trace_count": _number_or_text(-1),
            "log_frequency": _number_or_text(0),
            "trace_mode": _or_null({"const": "triton"}),
        },
        additionalProperties=False,
    ),
    "Index": _list(_object({"name": _TEXT, "version": _TEXT, "state": {"enum": [*STATES]}, "reason": _TEXT})),
    "IndexWanted": _optional({"ready": _YES_NO}),
    "Parameters": _optional({"parameters": {"type": "object"}}),
    "Regions": _list(_object({"name": _TEXT, **_REGION})),
    "Region": _object(_REGION, "key", "byte_size"),
    "ModelList": {"type": "object"},
    "Status": _optional({"model_version_status": _list(_VERSION_STATUS)}),
    "Metadata": _object({"model_spec": {"type": "object"}, "metadata": {"type": "object"}}),
    "Predict": {
        **_optional({"signature_name": _TEXT, "instances": {"type": "array"}, "inputs": {"not": {"type": "null"}}}),
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    },
    "Prediction": _optional({"predictions": {"type": "array"}, "outputs": {}}),
}

#: What an element of `data` is; a tensor's data is flat or nested like its shape.
_ELEMENTS: dict[str, Schema] = {"BOOL": _YES_NO, "BYTES": _TEXT}


def _element(datatype: str) -> Schema:
    if datatype in _ELEMENTS:
        return _ELEMENTS[datatype]
    kind = datatype.rstrip("0123456789")
    if kind not in ("INT", "UINT"):
        return {"type": "number"}
    bits = int(datatype[len(kind) :])
    if kind == "UINT":
        return {"type": "integer", "minimum": 0, "maximum": 2**bits - 1}
    return {"type": "integer", "minimum": -(2 ** (bits - 1)), "maximum": 2 ** (bits - 1) - 1}


def _dims(tensor: TensorInfo) -> Schema:
    """A shape: a free axis takes any length."""
    axes = [{"const": length} if length >= 0 else _COUNT for length in tensor.shape]
    if not axes:
        return {"type": "array", "maxItems": 0}
    return {"type": "array", "prefixItems": axes, "items": False, "minItems": len(axes), "maxItems": len(axes)}


def model_key(model: ServedModel) -> str:
    """The first part of the names of a model's schemas."""
    return f"{model.name}.{model.version}"


def of_model(model: ServedModel) -> dict[str, Schema]:
    """The request and the response of a model's inference calls."""
    inputs = [_input(tensor) for tensor in model.inputs]
    names = [tensor.name for tensor in model.outputs]
    wanted = _optional({"name": {"enum": names}, "parameters": {"type": "object"}}, required=["name"])
    request = _optional(
        {
            "id": _TEXT,
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": {"anyOf": inputs}, "minItems": len(inputs), "maxItems": len(inputs)},
            "outputs": _list(wanted),
        },
        required=["inputs"],
    )
    if not inputs:
        request["properties"]["inputs"] = {"type": "array", "maxItems": 0}
    response = _object(
        {
            "id": _TEXT,
            "model_name": {"const": model.name},
            "model_version": _TEXT,
            "outputs": _list({"anyOf": [_output(tensor) for tensor in model.outputs]}),
        },
        "model_name",
        "model_version",
        "outputs",
    )
    key = model_key(model)
    return {f"{key}.request": request, f"{key}.response": response}


def _input(tensor: TensorInfo) -> Schema:
    """With `data`, or with parameters that say where the data lies."""
    data = {"type": "array", "items": {"anyOf": [_element(tensor.datatype), {"type": "array"}]}}
    common = {"name": {"const": tensor.name}, "datatype": {"const": tensor.datatype}, "shape": _dims(tensor)}
    elsewhere = [
        _object({"binary_data_size": _COUNT}),
        _object({"shared_memory_region": _TEXT, "shared_memory_byte_size": _COUNT}),
    ]
    return {
        "anyOf": [
            _object({**common, "data": data}),
            _object({**common, "parameters": {"anyOf": elsewhere}}),
        ]
    }


def _output(tensor: TensorInfo) -> Schema:
    return _object(
        {
            "name": {"const": tensor.name},
            "datatype": {"enum": [tensor.datatype, "BYTES"]},
            "shape": _SHAPE,
            "parameters": {"type": "object"},
            "data": {"type": "array"},
        },
        "name",
        "datatype",
        "shape",
    )


def example(model: ServedModel) -> Schema | None:
    """A request of zeros, free axes being 1; None for a model whose inputs are too large to show."""
    inputs = []
    for tensor in model.inputs:
        shape = [max(length, 1) if length else 0 for length in tensor.shape]
        if math.prod(shape) > MAX_EXAMPLE_ELEMENTS:
            return None
        zero: object = {"BOOL": False, "BYTES": ""}.get(tensor.datatype, 0)
        inputs.append(
            {"name": tensor.name, "datatype": tensor.datatype, "shape": shape, "data": [zero] * math.prod(shape)}
        )
    return {"inputs": inputs}
