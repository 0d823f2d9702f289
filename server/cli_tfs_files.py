"""The text protobuf files of tensorflow_model_server: which models to serve, and how to batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from server.cli_drop_in import Settings, UsageError
from server.config import ModelSource, VersionPolicy
from server.protocol import messages

MAX_BATCH_ROWS = 4095
MAX_INSTANCES = 32
MAX_QUEUE_ROWS = 1 << 20
MAX_DELAY_US = 10_000_000


def read_models(path: str) -> tuple[ModelSource, ...]:
    """--model_config_file: a ModelServerConfig with a model_config_list. Raises UsageError."""
    flag = "--model_config_file"
    config = _read(path, "tensorflow.serving.ModelServerConfig", flag)
    models = config.model_config_list.config
    if not models:
        raise UsageError(f"{flag}: expected a model_config_list with models in it, found none in {path}")
    sources = []
    names = set()
    for position, model in enumerate(models):
        if not model.name or not model.base_path:
            raise UsageError(f"{flag}: expected a name and a base_path, model {position + 1} of {path} has not both")
        if model.name in names:
            raise UsageError(f"{flag}: expected one model of each name, {model.name!r} is twice in {path}")
        names.add(model.name)
        labels = tuple(sorted(model.version_labels.items()))
        sources.append(ModelSource(local(model.base_path, flag), model.name, _policy(model, path), labels))
    return tuple(sources)


def local(path: str, flag: str) -> Path:
    """A path of this host; raises UsageError for an address of a store."""
    if "://" in path:
        raise UsageError(f"{flag}: expected a path of this host, got {path!r}; copy the model here first")
    return Path(path)


def _policy(model: Any, path: str) -> VersionPolicy:
    policy = model.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return VersionPolicy("all")
    if kind == "specific":
        if not policy.specific.versions:
            raise UsageError(f"--model_config_file: expected versions in specific of {model.name!r}, {path} has none")
        return VersionPolicy("specific", versions=tuple(policy.specific.versions))
    # 0 is TensorFlow Serving's default as well.
    return VersionPolicy("latest", count=policy.latest.num_versions or 1)


def read_batching(path: str, settings: Settings) -> None:
    """--batching_parameters_file: a BatchingParameters, into settings. Raises UsageError."""
    flag = "--batching_parameters_file"
    found = _read(path, "tensorflow.serving.BatchingParameters", flag)
    rows = 1000 if not found.HasField("max_batch_size") else found.max_batch_size.value
    if found.HasField("max_execution_batch_size") and found.enable_large_batch_splitting.value:
        rows = found.max_execution_batch_size.value
    if rows < 1:
        raise UsageError(f"{flag}: expected a max_batch_size of at least 1, got {rows}")
    settings.clamp("max_batch_size", "max_batch_size", rows, 1, MAX_BATCH_ROWS)
    if found.HasField("batch_timeout_micros"):
        settings.clamp("max_queue_delay_us", "batch_timeout_micros", found.batch_timeout_micros.value, 0, MAX_DELAY_US)
    if found.HasField("num_batch_threads"):
        settings.clamp("instances", "num_batch_threads", found.num_batch_threads.value, 1, MAX_INSTANCES)
    if found.HasField("max_enqueued_batches"):
        queue_rows = found.max_enqueued_batches.value * rows
        settings.clamp("queue_rows", "max_enqueued_batches * max_batch_size", queue_rows, 1, MAX_QUEUE_ROWS)
    sizes = list(found.allowed_batch_sizes)
    if sizes and (sizes != sorted(set(sizes)) or sizes[-1] != rows):
        raise UsageError(f"{flag}: expected rising allowed_batch_sizes that end with max_batch_size, got {sizes}")
    without_effect = {
        "allowed_batch_sizes": "a batch runs with the rows it has",
        "thread_pool_name": "instances are threads of the model's own process",
        "pad_variable_length_inputs": "inputs are not padded; those of one shape batch together",
    }
    for field, _ in found.ListFields():
        if field.name in without_effect:
            settings.notices.append(f"{field.name} in {flag} has no effect: {without_effect[field.name]}")


def _read(path: str, message: str, flag: str) -> Any:
    try:
        return messages.from_text(Path(path).read_text(encoding="utf-8"), message)
    except OSError as error:
        raise UsageError(f"{flag}: cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{flag}: {path}: expected the text of a {message.rpartition('.')[2]}; {error}") from None
