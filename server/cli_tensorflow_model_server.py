"""The command line of tensorflow_model_server: every flag that it knows, and what it is here.

The list is that of TensorFlow Serving's model_servers/main.cc.
"""

from __future__ import annotations

from server.cli_drop_in import Flag, Given, Program, Settings, UsageError, ignored, mapped, refused, run, set_value
from server.config import ModelSource
from server.option_values import SAME

__all__ = ["PROGRAM", "run"]

DEFAULT_GRPC_PORT = 8500

_FORMAT = "models are ONNX files"
_NO_TENSORFLOW = "models run in ONNX Runtime"
_NO_TPU = "models run on the processor"
_NO_TLS = "headrace speaks no TLS; put a proxy in front and leave the flag out"
_THREADS = "HEADRACE_WORKERS says how many processes accept connections"
_LOADS = "models load at the same time, each in its own process"
_ONCE = "a model that cannot be loaded is tried again when its files change"
_WARM = "there are no warm-up requests beside a model"

FLAGS: tuple[Flag, ...] = (
    mapped("help", "bare", "this text"),
    mapped("version", "bool", "prints the version"),
    # addresses
    mapped("port", "whole", "--grpc-port; 8500 if not given, 0 is off"),
    mapped("grpc_socket_path", "text", "--uds"),
    mapped("rest_api_port", "whole", "--http-port; off if not given or 0"),
    mapped("rest_api_enable_cors_support", "bool", "--cors '*'"),
    mapped("grpc_channel_arguments", "text", "max_connection_age_ms and a few others; the rest has no effect"),
    ignored("rest_api_num_threads", "whole", _THREADS),
    ignored("rest_api_timeout_in_ms", "whole", "a request waits as long as its client does; the queue is bounded"),
    ignored("grpc_max_threads", "whole", _THREADS),
    ignored("enable_grpc_healthcheck_service", "bool", "grpc.health.v1 is always served", "true"),
    mapped(
        "enable_serialization_as_tensor_content",
        "bool",
        "--enable-serialization-as-tensor-content",
        "enable_serialization_as_tensor_content",
    ),
    refused("use_alts_credentials", "bool", _NO_TLS, "false"),
    refused("ssl_config_file", "text", _NO_TLS, ""),
    # models
    mapped("model_name", "text", "the model's name; default if not given"),
    mapped("model_base_path", "text", "the directory with VERSION/model.onnx"),
    mapped("model_config_file", "text", "names, base paths and versions of several models"),
    mapped("file_system_poll_wait_seconds", "whole", "--model-control-mode poll and --repository-poll-secs; 0 is none"),
    ignored(
        "model_config_file_poll_wait_seconds",
        "whole",
        "the file is read once; HandleReloadConfigRequest changes the models",
        "0",
    ),
    ignored(
        "allow_version_labels_for_unavailable_models",
        "bool",
        "a label may always name a version that is not there",
        "true",
    ),
    ignored("num_load_threads", "whole", _LOADS),
    ignored("num_unload_threads", "whole", _LOADS),
    ignored("max_num_load_retries", "whole", _ONCE),
    ignored("load_retry_interval_micros", "whole", _ONCE),
    ignored("flush_filesystem_caches", "bool", "files are mapped, the system frees their pages by itself"),
    ignored("enable_model_warmup", "bool", _WARM, "false"),
    ignored("num_request_iterations_for_warmup", "whole", _WARM, "0"),
    # batching
    ignored("enable_batching", "bool", "requests that wait at the same time are always batched", "true"),
    mapped("batching_parameters_file", "text", "--max-batch-size, --max-queue-delay-us, --queue-rows, --instances"),
    ignored("enable_per_model_batching_parameters", "bool", "batching is set for all models together", "false"),
    # running
    mapped("tensorflow_intra_op_parallelism", "whole", "--intra-op-threads; 0 is automatic"),
    mapped("tensorflow_session_parallelism", "whole", "--intra-op-threads; 0 is automatic"),
    ignored("tensorflow_inter_op_parallelism", "whole", "operators of a batch run one after the other", "0"),
    ignored("tensorflow_session_config_file", "text", _NO_TENSORFLOW, ""),
    ignored("platform_config_file", "text", _NO_TENSORFLOW, ""),
    ignored("per_process_gpu_memory_fraction", "decimal", _NO_TPU),
    ignored("saved_model_tags", "text", _FORMAT),
    ignored("remove_unused_fields_from_bundle_metagraph", "bool", _FORMAT),
    ignored("prefer_tflite_model", "bool", _FORMAT, "false"),
    ignored("num_tflite_pools", "whole", _FORMAT),
    ignored("num_tflite_interpreters_per_pool", "whole", _FORMAT),
    ignored("enable_signature_method_name_check", "bool", _FORMAT, "false"),
    ignored("xla_cpu_compilation_enabled", "bool", _NO_TENSORFLOW, "false"),
    ignored("xla_gpu_compilation_enabled", "bool", _NO_TENSORFLOW, "false"),
    ignored("enable_profiler", "bool", "there is no profiler service", "false"),
    ignored("thread_pool_factory_config_file", "text", _NO_TENSORFLOW, ""),
    ignored("mixed_precision", "text", _NO_TENSORFLOW, ""),
    ignored("skip_initialize_tpu", "bool", _NO_TPU, "true"),
    # metrics
    ignored("monitoring_config_file", "text", "GET /metrics is answered on every port", ""),
)

#: Argument of grpc_channel_arguments -> the option it becomes, and how many of its units are one of the option's.
_CHANNEL_ARGUMENTS = {
    "grpc.max_connection_age_ms": ("max_connection_age_s", 1000),
    "grpc.max_connection_age_grace_ms": ("max_connection_age_grace_s", 1000),
    "grpc.max_concurrent_streams": ("max_concurrent_streams", 1),
    "grpc.max_receive_message_length": ("max_body_bytes", 1),
    "grpc.http2.min_ping_interval_without_data_ms": ("min_ping_interval_s", 1000),
    "grpc.http2.min_recv_ping_interval_without_data_ms": ("min_ping_interval_s", 1000),
}


def _translate(given: Given, settings: Settings) -> None:
    # Dear to import in part (protobuf), so not before the command line is known to be ours.
    from server import cli_tfs_files

    port, rest_port = given.number("port", DEFAULT_GRPC_PORT), given.number("rest_api_port", 0)
    socket_path = given.last("grpc_socket_path")
    if port == 0 and not socket_path:
        raise UsageError("--port: expected a port or --grpc_socket_path")
    if port == rest_port:
        settings.notices.append(f"--rest_api_port: {port} is that of --port too; it speaks both")
    set_value(settings, "grpc_port", "port", str(port) if port else "off")
    set_value(settings, "http_port", "rest_api_port", str(rest_port) if rest_port else "off")
    if socket_path:
        set_value(settings, "uds", "grpc_socket_path", socket_path)
    if given.is_true("rest_api_enable_cors_support"):
        settings.flags["cors"] = ("*",)
    _models(given, settings)
    poll_seconds = given.number("file_system_poll_wait_seconds", 1)
    if poll_seconds > 0:
        settings.flags["model_control_mode"] = "poll"
        settings.clamp("repository_poll_secs", "--file_system_poll_wait_seconds", poll_seconds, 1, 86400)
    if path := given.last("batching_parameters_file"):
        if not given.is_true("enable_batching"):
            raise UsageError("--batching_parameters_file: expected --enable_batching beside it")
        cli_tfs_files.read_batching(path, settings)
    for flag in ("tensorflow_session_parallelism", "tensorflow_intra_op_parallelism"):
        if given.number(flag, 0):
            set_value(settings, "intra_op_threads", flag, given.last(flag))
    if arguments := given.last("grpc_channel_arguments"):
        _channel_arguments(arguments, settings)


def _models(given: Given, settings: Settings) -> None:
    from server import cli_tfs_files

    if path := given.last("model_config_file"):
        settings.sources = cli_tfs_files.read_models(path)
        for flag in ("model_name", "model_base_path"):
            if given.all(flag):
                settings.notices.append(f"--{flag} has no effect: --model_config_file names the models")
    elif path := given.last("model_base_path"):
        base = cli_tfs_files.local(path, "--model_base_path")
        settings.sources = (ModelSource(base, given.last("model_name", "default")),)
    else:
        raise UsageError("expected --model_base_path PATH or --model_config_file FILE")


def _channel_arguments(text: str, settings: Settings) -> None:
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in _CHANNEL_ARGUMENTS:
            settings.notices.append(f"{name} in --grpc_channel_arguments has no effect: it is not known here")
            continue
        setting, divisor = _CHANNEL_ARGUMENTS[name]
        try:
            number = int(value)
        except ValueError:
            raise UsageError(f"--grpc_channel_arguments: {name}: expected a whole number, got {value!r}") from None
        if divisor == 1:
            set_value(settings, setting, "grpc_channel_arguments", str(number))
        else:
            set_value(settings, setting, "grpc_channel_arguments", str(max(1.0, number / divisor) if number else 0))


PROGRAM = Program(
    "tensorflow_model_server",
    "TensorFlow Serving's model server",
    FLAGS,
    {"host": "0.0.0.0", "metrics_port": SAME, "kserve_v1_status": False},
    _translate,
)
