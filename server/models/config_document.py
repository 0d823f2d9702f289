"""A version's configuration in the words of Triton's ModelConfig: for GET .../config, and as a config.pbtxt.

Both say what is in force, what was inferred included; a server that reads the text does as before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from server.config import VersionPolicy
from server.models.lane_settings import LaneSettings
from server.models.model_config import DEFAULT_SESSION, MAX_SIZE, NO_CONFIG, ModelConfig, SessionSettings, TensorConfig
from server.models.onnx_file import TensorInfo
from server.models.queue_policy import DEFAULT_POLICY, DEFAULT_QUEUES, QueuePolicy
from server.models.repository import ModelVersion
from server.option_values import CPU
from server.protocol.datatypes import BY_NAME

_ACCELERATORS = {
    "TensorrtExecutionProvider": ("gpu", "tensorrt"),
    "CUDAExecutionProvider": ("gpu", "cuda"),
    "OpenVINOExecutionProvider": ("cpu", "openvino"),
}


def max_batch_size(version: ModelVersion, settings: LaneSettings) -> int:
    """The most rows of a request's batch axis that run at once; 0 if requests have none."""
    assert version.batching is not None and version.fitted is not None
    if version.batching.batched:
        return settings.plan.row_capacity
    return version.fitted.max_batch_size or 0


def configured(version: ModelVersion, settings: LaneSettings) -> dict[str, Any]:
    """The members of v2.config_document that a configuration has a say in; {} of a model without one."""
    config, fitted = version.config, version.fitted
    if config == NO_CONFIG or fitted is None or version.model is None:
        return {}
    rows = max_batch_size(version, settings)
    document: dict[str, Any] = {"max_batch_size": rows}
    sides = (
        ("input", config.inputs, version.model.inputs, fitted.inputs),
        ("output", config.outputs, version.model.outputs, fitted.outputs),
    )
    for kind, said, own, seen in sides:
        known = {tensor.name: tensor for tensor in said}
        document[kind] = [
            _tensor(kind, known.get(shown.name), tensor, shown, rows > 0)
            for tensor, shown in zip(own, seen, strict=True)
        ]
    if config.version_policy is not None:
        document["version_policy"] = _version_policy(config.version_policy)
    if rows or config.queues != DEFAULT_QUEUES:
        preferred = [settings.preferred_rows or rows] if rows else []
        document["dynamic_batching"] = _dynamic_batching(config, settings, rows, preferred)
    if config.parameters:
        document["parameters"] = {key: {"string_value": value} for key, value in config.parameters}
    if config.warm_ups:
        document["model_warmup"] = _warm_ups(config)
    if config.session != DEFAULT_SESSION:
        document["optimization"] = _optimization(config.session) | {
            "priority": "PRIORITY_DEFAULT",
            "input_pinned_memory": {"enable": False},
            "output_pinned_memory": {"enable": False},
            "gather_kernel_buffer_threshold": 0,
            "eager_batching": False,
        }
    return document


def text_of(version: ModelVersion, settings: LaneSettings) -> str:
    """The configuration as a config.pbtxt."""
    config, fitted = version.config, version.fitted
    assert fitted is not None and version.model is not None
    rows = max_batch_size(version, settings)
    document: dict[str, Any] = {"name": version.name, "backend": "onnxruntime", "max_batch_size": rows}
    sides = (
        ("input", config.inputs, version.model.inputs, fitted.inputs),
        ("output", config.outputs, version.model.outputs, fitted.outputs),
    )
    for kind, said, own, seen in sides:
        known = {tensor.name: tensor for tensor in said}
        document[kind] = [
            _for_text(_tensor(kind, known.get(shown.name), tensor, shown, rows > 0), tensor, shown, rows > 0)
            for tensor, shown in zip(own, seen, strict=True)
        ]
    if config.version_policy is not None:
        document["version_policy"] = _version_policy(config.version_policy)
    if rows or config.queues != DEFAULT_QUEUES:
        batching = _dynamic_batching(config, settings, rows, list(config.preferred_batch_sizes))
        own = batching["priority_queue_policy"].items()
        batching["priority_queue_policy"] = [{"key": int(level), "value": policy} for level, policy in own]
        document["dynamic_batching"] = batching
    document["instance_group"] = _instance_groups(config, settings)
    parameters = dict(config.parameters) | {"intra_op_thread_count": str(settings.intra_op_threads)}
    document["parameters"] = [
        {"key": key, "value": {"string_value": value}} for key, value in sorted(parameters.items())
    ]
    if config.session != DEFAULT_SESSION:
        document["optimization"] = _for_accelerators(_optimization(config.session))
    document["model_warmup"] = [
        sample | {"inputs": [{"key": key, "value": value} for key, value in sample["inputs"].items()]}
        for sample in _warm_ups(config)
    ]
    return "".join(f"{line}\n" for line in _lines(document, ""))


def _instance_groups(config: ModelConfig, settings: LaneSettings) -> list[dict[str, Any]]:
    if not config.places:
        # On each of the server's devices, which may be several.
        count = settings.instances // max(1, len(set(settings.places)))
        return [{"count": count, "kind": _Word("KIND_CPU" if config.on_cpu else "KIND_AUTO")}]
    groups: list[dict[str, Any]] = []
    for place in dict.fromkeys(config.places):
        kind, _, index = place.device.partition(":")
        group = {"count": config.places.count(place), "kind": _Word("KIND_CPU" if kind == CPU else "KIND_GPU")}
        groups.append(group | ({"gpus": [int(index)]} if kind != CPU else {}))
    return groups


class _Word(str):
    """The name of an enumeration's value: text without quotes."""


def _tensor(
    kind: str, said: TensorConfig | None, own: TensorInfo, shown: TensorInfo, is_batched: bool
) -> dict[str, Any]:
    dims = shown.dims[int(is_batched) :]
    shape: dict[str, Any] = {"dims": dims} if dims else {"dims": [1], "reshape": {"shape": []}}
    if own != shown:
        shape = {"dims": dims, "reshape": {"shape": own.dims[int(is_batched) :]}}
    found: dict[str, Any] = {"name": own.name, "data_type": _Word(BY_NAME[own.dtype].config)}
    if kind == "input":
        found |= {"format": _Word(said.format if said else "FORMAT_NONE"), **shape, "is_shape_tensor": False}
        found |= {"allow_ragged_batch": False, "optional": False, "is_non_linear_format_io": False}
    else:
        found |= {**shape, "label_filename": said.label_file if said else "", "is_shape_tensor": False}
        found |= {"is_non_linear_format_io": False}
    return found


def _for_text(found: dict[str, Any], own: TensorInfo, shown: TensorInfo, is_batched: bool) -> dict[str, Any]:
    """Without dims where the notation has none: those of a scalar, of an unknown rank, and sizes of no element."""
    dims = shown.dims[int(is_batched) :]
    if own == shown and (not dims or any(size == 0 or size > MAX_SIZE for size in dims)):
        return {key: value for key, value in found.items() if key not in ("dims", "reshape")}
    return found


def _version_policy(policy: VersionPolicy) -> dict[str, Any]:
    if policy.kind == "all":
        return {"all": {}}
    if policy.kind == "latest":
        return {"latest": {"num_versions": policy.count}}
    return {"specific": {"versions": list(policy.versions)}}


def _dynamic_batching(config: ModelConfig, settings: LaneSettings, rows: int, preferred: list[int]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "preferred_batch_size": preferred,
        # The server's delay is one for batches.
        "max_queue_delay_microseconds": settings.max_queue_delay_us if rows else 0,
        "preserve_ordering": config.preserve_ordering,
        "priority_levels": config.queues.level_count,
        "default_priority_level": config.queues.default_level,
        "priority_queue_policy": {str(level): _queue_policy(policy) for level, policy in config.queues.own},
    }
    if config.queues.default != DEFAULT_POLICY:
        document["default_queue_policy"] = _queue_policy(config.queues.default)
    return document


def _queue_policy(policy: QueuePolicy) -> dict[str, Any]:
    return {
        "timeout_action": _Word("DELAY" if policy.delays else "REJECT"),
        "default_timeout_microseconds": policy.timeout_us,
        "allow_timeout_override": policy.allow_override,
        "max_queue_size": policy.max_rows or 0,
    }


def _warm_ups(config: ModelConfig) -> list[dict[str, Any]]:
    return [
        {
            "name": sample.name,
            "batch_size": sample.batch_rows,
            "inputs": {
                tensor.name: {
                    "data_type": _Word(BY_NAME[tensor.datatype].config),
                    "dims": list(tensor.dims),
                    "random_data" if tensor.is_random else "zero_data": True,
                }
                for tensor in sample.inputs
            },
            "count": sample.count,
        }
        for sample in config.warm_ups
    ]


def _for_accelerators(optimization: dict[str, Any]) -> dict[str, Any]:
    """Maps as protobuf's text format has them."""
    accelerators = {
        kind: [
            {"name": one["name"], "parameters": [{"key": k, "value": v} for k, v in one["parameters"].items()]}
            for one in group
        ]
        for kind, group in optimization.get("execution_accelerators", {}).items()
    }
    return optimization | ({"execution_accelerators": accelerators} if accelerators else {})


def _optimization(session: SessionSettings) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if session.graph_level:
        document["graph"] = {"level": session.graph_level}
    accelerators: dict[str, list[dict[str, Any]]] = {}
    for provider in session.providers:
        kind, name = _ACCELERATORS[provider.name]
        entry = {"name": name, "parameters": dict(provider.options)}
        accelerators.setdefault(f"{kind}_execution_accelerator", []).append(entry)
    if accelerators:
        document["execution_accelerators"] = accelerators
    return document


def _lines(document: Mapping[str, Any], indent: str) -> Iterator[str]:
    """A message in protobuf's text format; members of no effect are left out."""
    for key, value in document.items():
        if value is False or (value in ("", [], {}, "FORMAT_NONE") and key not in ("all", "shape")):
            continue
        if value == 0 and key != "max_batch_size":
            continue
        if isinstance(value, Mapping):
            yield from _message(key, value, indent)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if value and isinstance(value[0], Mapping):
                for item in value:
                    yield from _message(key, item, indent)
            else:
                yield f"{indent}{key}: [ {', '.join(map(str, value))} ]" if value else f"{indent}{key}: [ ]"
        else:
            yield f"{indent}{key}: {_scalar(value)}"


def _message(key: str, value: Mapping[str, Any], indent: str) -> Iterator[str]:
    yield f"{indent}{key} {{"
    yield from _lines(value, indent + "  ")
    yield f"{indent}}}"


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and not isinstance(value, _Word):
        # The escapes of JSON are among those of the text format, but for those of characters beyond ASCII.
        return json.dumps(value, ensure_ascii=False)
    return str(value)
