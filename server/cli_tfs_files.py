"""The text protobuf files of tensorflow_model_server: which models to serve, and how to batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from server.cli_drop_in import Settings, UsageError
from server.config import ModelSource
from server.errors import InvalidArgumentError
from server.protocol import messages, tfs_config

MAX_BATCH_ROWS = 4095
MAX_INSTANCES = 32
MAX_QUEUE_ROWS = 1 << 20
MAX_DELAY_US = 10_000_000


def read_models(path: str) -> tuple[ModelSource, ...]:
    """--model_config_file: a ModelServerConfig with a model_config_list. Raises UsageError."""
    flag = "--model_config_file"
    config = _read(path, "tensorflow.serving.ModelServerConfig", flag)
    try:
        return tfs_config.sources_of(config)
    except InvalidArgumentError as error:
        raise UsageError(f"{flag}: {path}: {error.text}") from None


def local(path: str, flag: str) -> Path:
    """A path of this host; raises UsageError for an address of a store."""
    try:
        return tfs_config.local(path)
    except InvalidArgumentError as error:
        raise UsageError(f"{flag}: {error.text}") from None


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
