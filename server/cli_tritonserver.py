"""The command line of tritonserver: every flag that it knows, and what it is here.

The list is that of Triton's src/command_line_parser.cc.
"""

from __future__ import annotations

from pathlib import Path

from server import option_values
from server.cli_drop_in import (
    Flag,
    Given,
    Program,
    Settings,
    UsageError,
    ignored,
    mapped,
    refused,
    run,
    set_value,
)
from server.config import ModelSource
from server.option_values import OFF

__all__ = ["PROGRAM", "run"]

_FILE = "the model file says what the model takes and gives"
_THREADS = "HEADRACE_WORKERS says how many processes accept connections"
_NO_GPU = "models run on the processor"
_NO_TLS = "headrace speaks no TLS; put a proxy in front and leave the flag out"
_NO_TRACE = "traces are asked for while the server runs, at /v2/trace/setting, and go to the log"
_NO_CACHE = "there is no response cache"
_NO_RATE = "there is no rate limiter; HEADRACE_QUEUE_ROWS bounds what waits"
_NO_PINGS = "the server sends no keep-alive pings"
_NO_FORWARD = "no backend reads request headers"
_NO_ACCESS = "headrace cannot restrict single protocols; put a proxy in front and leave the flag out"
_SHARED = "workers share a port, two servers do not"
_NO_BACKENDS = "ONNX Runtime is built in"
_SAGEMAKER = "Amazon SageMaker's API is not served"
_VERTEX = "Vertex AI's API is not served"

FLAGS: tuple[Flag, ...] = (
    mapped("help", "bare", "this text"),
    mapped("version", "bare", "prints the version"),
    mapped("id", "text", "--server-name; triton if not given", "server_name"),
    mapped("model-repository", "text", "PATH; may be repeated"),
    mapped("model-store", "text", "the same as --model-repository"),
    mapped("exit-timeout-secs", "whole", "--drain-timeout", "drain_timeout_s"),
    ignored("exit-on-error", "bool", "models that load are served, the others are listed with their reason", "false"),
    ignored("disable-auto-complete-config", "bare", _FILE),
    ignored("strict-model-config", "bool", _FILE, "false"),
    ignored("strict-readiness", "bool", "ready means that no model is still loading and one can be asked", "true"),
    # models
    mapped("model-control-mode", "text", "--model-control-mode", "model_control_mode"),
    mapped("repository-poll-secs", "whole", "--repository-poll-secs", "repository_poll_secs"),
    mapped("load-model", "text", "--load-model; may be repeated", "load_model"),
    ignored("model-config-name", "text", _FILE),
    ignored("model-load-thread-count", "whole", "models load at the same time, each in its own process"),
    ignored("model-load-retry-count", "whole", "a model that cannot be loaded is not tried again", "0"),
    refused("model-namespacing", "bool", "two models cannot share a name", "false"),
    ignored("enable-peer-access", "bool", _NO_GPU),
    # HTTP
    mapped("allow-http", "bool", "false: --http-port off"),
    mapped("http-port", "whole", "--http-port", "http_port"),
    mapped("http-address", "text", "--host; 0.0.0.0 if not given", "host"),
    mapped("http-max-input-size", "whole", "--max-body-bytes, for gRPC too", "max_body_bytes"),
    ignored("reuse-http-port", "bool", _SHARED, "false"),
    ignored("http-thread-count", "whole", _THREADS),
    ignored("http-header-forward-pattern", "text", _NO_FORWARD),
    refused("http-restricted-api", "text", _NO_ACCESS),
    # gRPC
    mapped("allow-grpc", "bool", "false: no gRPC port; the HTTP port still speaks gRPC"),
    mapped("grpc-port", "whole", "--grpc-port", "grpc_port"),
    mapped("grpc-address", "text", "--grpc-host; 0.0.0.0 if not given", "grpc_host"),
    mapped("grpc-max-connection-age", "whole", "--max-connection-age, in milliseconds from 1000"),
    mapped("grpc-max-connection-age-grace", "whole", "--max-connection-age-grace, in milliseconds from 1000"),
    mapped(
        "grpc-http2-min-recv-ping-interval-without-data",
        "whole",
        "--min-ping-interval, in milliseconds",
    ),
    ignored("reuse-grpc-port", "bool", _SHARED, "false"),
    ignored("grpc-header-forward-pattern", "text", _NO_FORWARD),
    ignored("grpc-infer-thread-count", "whole", _THREADS),
    ignored("grpc-infer-allocation-pool-size", "whole", "requests are read into shared memory, not into objects"),
    ignored("grpc-max-response-pool-size", "whole", "replies are written from shared memory, not from objects"),
    ignored("grpc-infer-response-compression-level", "text", "replies are compressed when the client asks", "none"),
    ignored("grpc-keepalive-time", "whole", _NO_PINGS),
    ignored("grpc-keepalive-timeout", "whole", _NO_PINGS),
    ignored("grpc-keepalive-permit-without-calls", "bool", _NO_PINGS, "false"),
    ignored("grpc-http2-max-pings-without-data", "whole", _NO_PINGS),
    ignored("grpc-http2-max-ping-strikes", "whole", "a client is sent away after two strikes", "2"),
    refused("grpc-use-ssl", "bool", _NO_TLS, "false"),
    refused("grpc-use-ssl-mutual", "bool", _NO_TLS, "false"),
    ignored("grpc-server-cert", "text", "there is no TLS"),
    ignored("grpc-server-key", "text", "there is no TLS"),
    ignored("grpc-root-cert", "text", "there is no TLS"),
    refused("grpc-restricted-protocol", "text", _NO_ACCESS),
    # logs
    mapped("log-verbose", "text", "1 and more, or true: --log-level debug"),
    mapped("log-info", "bool", "false: --log-level warning"),
    mapped("log-warning", "bool", "false: --log-level error"),
    ignored("log-error", "bool", "errors are always logged", "true"),
    mapped("log-format", "text", "default, ISO8601: --log-format text"),
    ignored("log-file", "text", "the log goes to stderr"),
    # metrics
    mapped("allow-metrics", "bool", "false: --metrics-port off"),
    mapped("metrics-port", "whole", "--metrics-port", "metrics_port"),
    mapped("metrics-address", "text", "--metrics-host; that of --http-address if not given", "metrics_host"),
    ignored("allow-gpu-metrics", "bool", _NO_GPU, "false"),
    ignored("allow-cpu-metrics", "bool", "GET /metrics has those of headrace's processes", "true"),
    ignored("metrics-interval-ms", "decimal", "metrics are read when they are asked for"),
    ignored("metrics-config", "text", "GET /metrics has headrace's own metrics, histograms among them"),
    # shared memory, devices
    mapped("allow-client-shm", "bool", "--allow-client-shm", "allow_client_shm"),
    ignored("pinned-memory-pool-byte-size", "whole", _NO_GPU),
    ignored("cuda-memory-pool-byte-size", "text", _NO_GPU),
    ignored("cuda-virtual-address-size", "text", _NO_GPU),
    ignored("min-supported-compute-capability", "decimal", _NO_GPU),
    ignored("model-load-gpu-limit", "text", _NO_GPU),
    ignored("buffer-manager-thread-count", "whole", "tensors are written where the model reads them"),
    ignored("host-policy", "text", "processes are not bound to processors; use taskset or a cpuset"),
    # backends, agents, caches
    mapped("backend-config", "text", "[onnxruntime,]default-max-batch-size=N: --max-batch-size; others have no effect"),
    ignored("backend-directory", "text", _NO_BACKENDS),
    ignored("repoagent-directory", "text", "there are no repository agents"),
    ignored("cache-config", "text", _NO_CACHE),
    ignored("cache-directory", "text", _NO_CACHE),
    ignored("response-cache-byte-size", "whole", _NO_CACHE, "0"),
    ignored("rate-limit", "text", _NO_RATE, "off"),
    ignored("rate-limit-resource", "text", _NO_RATE),
    # tracing
    ignored("trace-config", "text", _NO_TRACE, "level=off"),
    ignored("trace-file", "text", _NO_TRACE),
    ignored("trace-level", "text", _NO_TRACE, "off"),
    ignored("trace-rate", "whole", _NO_TRACE),
    ignored("trace-count", "whole", _NO_TRACE),
    ignored("trace-log-frequency", "whole", _NO_TRACE),
    # clouds
    refused("allow-sagemaker", "bool", _SAGEMAKER, "false"),
    ignored("sagemaker-port", "whole", _SAGEMAKER),
    ignored("sagemaker-safe-port-range", "text", _SAGEMAKER),
    ignored("sagemaker-thread-count", "whole", _SAGEMAKER),
    refused("allow-vertex-ai", "bool", _VERTEX, "false"),
    ignored("vertex-ai-port", "whole", _VERTEX),
    ignored("vertex-ai-thread-count", "whole", _VERTEX),
    ignored("vertex-ai-default-model", "text", _VERTEX),
)


def _translate(given: Given, settings: Settings) -> None:
    paths = dict.fromkeys(given.all("model-repository") + given.all("model-store"))
    if not paths:
        raise UsageError("expected --model-repository PATH")
    settings.sources = tuple(ModelSource(_local(path)) for path in paths)
    for flag, setting in (("allow-http", "http_port"), ("allow-grpc", "grpc_port"), ("allow-metrics", "metrics_port")):
        if not given.is_true(flag, default=True):
            settings.flags[setting] = OFF
    for flag, setting in (
        ("grpc-max-connection-age", "max_connection_age_s"),
        ("grpc-max-connection-age-grace", "max_connection_age_grace_s"),
    ):
        if given.all(flag):
            milliseconds = given.number(flag, 0)
            set_value(settings, setting, flag, str(max(1.0, milliseconds / 1000) if milliseconds > 0 else 0))
    interval = "grpc-http2-min-recv-ping-interval-without-data"
    if given.all(interval):
        set_value(settings, "min_ping_interval_s", interval, str(given.number(interval, 0) / 1000))
    _log(given, settings)
    for text in given.all("backend-config"):
        _backend(text, settings)


def _log(given: Given, settings: Settings) -> None:
    verbose = given.last("log-verbose", "0").lower()
    if verbose in ("true", "on") or (verbose.isdigit() and int(verbose) > 0):
        settings.flags["log_level"] = "debug"
    elif not (verbose in ("false", "off") or verbose.isdigit()):
        raise UsageError(f"--log-verbose: expected a number, true or false, got {verbose!r}")
    elif not given.is_true("log-warning", default=True):
        settings.flags["log_level"] = "error"
    elif not given.is_true("log-info", default=True):
        settings.flags["log_level"] = "warning"
    form = given.last("log-format")
    if form in ("default", "ISO8601"):
        settings.flags["log_format"] = "text"
    elif form:
        raise UsageError(f"--log-format: expected default or ISO8601, got {form!r}")


def _backend(text: str, settings: Settings) -> None:
    """BACKEND,SETTING=VALUE, or SETTING=VALUE for all backends."""
    setting, equals, value = text.partition("=")
    backend, _, name = setting.rpartition(",")
    if not equals:
        raise UsageError(f"--backend-config: expected [BACKEND,]SETTING=VALUE, got {text!r}")
    if name == "default-max-batch-size" and backend in ("", "onnxruntime"):
        # 0 is Triton's "no batching".
        number = option_values.whole(0, 1 << 31)
        try:
            settings.clamp("max_batch_size", "--backend-config default-max-batch-size", number(value) or 1, 1, 4095)
        except ValueError as error:
            raise UsageError(f"--backend-config: default-max-batch-size: {error}") from None
    else:
        why = _NO_BACKENDS if backend in ("", "onnxruntime") else f"there is no backend {backend}"
        settings.notices.append(f"--backend-config {setting} has no effect: {why}")


def _local(path: str) -> Path:
    if "://" in path:
        raise UsageError(f"--model-repository: expected a directory of this host, got {path!r}; copy it here first")
    return Path(path)


PROGRAM = Program(
    "tritonserver",
    "NVIDIA Triton Inference Server",
    FLAGS,
    {"server_name": "triton", "host": "0.0.0.0", "http_port": 8000, "grpc_port": 8001, "metrics_port": 8002},
    _translate,
)
