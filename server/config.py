"""The settings of `headrace serve`: one table of options, one frozen object of values.

Each option is a flag, an environment variable and a default; the flag wins over the variable, the variable over the
default. The command line's parser and its help are made from the same table, so no setting exists in one place only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from server import hostinfo, option_values
from server.errors import ConfigurationError
from server.option_values import (
    EXPLICIT,
    NONE,
    OFF,
    POLL,
    SAME,
    Value,
    milliseconds,
    one_of,
    port,
    seconds,
    switch,
    whole,
    words,
)

ENV_PREFIX = "HEADRACE_"
MAX_WORKERS_BY_DEFAULT = 4
DEFAULT_HTTP_PORT = 8000
DEFAULT_GRPC_PORT = 8001
DEFAULT_METRICS_PORT = 8002

_PORT_OR_OFF = port(off=OFF)


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: `parse` turns the text of a flag or variable into a value or raises ValueError with what was
    expected.

    `default` None: worked out in `load`; `shown_default` says how. A bool default makes a switch: --x and --no-x, 1 or
    0 in the environment. A tuple default makes a list: the flag may come several times, and commas separate.
    """

    name: str
    metavar: str
    parse: Callable[[str], Value]
    default: Value | None
    group: str
    help: str
    shown_default: str = ""

    @property
    def flag(self) -> str:
        return "--" + self.name.removesuffix("_s").replace("_", "-")

    @property
    def variable(self) -> str:
        return ENV_PREFIX + self.name.removesuffix("_s").upper()

    @property
    def is_switch(self) -> bool:
        return isinstance(self.default, bool)

    @property
    def is_list(self) -> bool:
        return isinstance(self.default, tuple)


OPTIONS: tuple[Option, ...] = (
    Option(
        "host", "ADDRESS", option_values.host, "127.0.0.1", "addresses", "address to listen on; 0.0.0.0 for every one"
    ),
    Option(
        "port",
        "PORT",
        port(),
        None,
        "addresses",
        "one port for everything, GET /metrics included, in place of the three below; 0 takes any free one",
        "three ports",
    ),
    Option(
        "http_port",
        "PORT",
        _PORT_OR_OFF,
        None,
        "addresses",
        "port of the inference API; 0 takes any free one, off opens none",
        "8000",
    ),
    Option(
        "grpc_port",
        "PORT",
        _PORT_OR_OFF,
        None,
        "addresses",
        "a second port for clients that expect gRPC on its own; every port speaks HTTP/1.1, HTTP/2 and gRPC",
        "8001; none if the HTTP port is 0",
    ),
    Option(
        "rest_api_port",
        "PORT",
        whole(0, 65535),
        0,
        "addresses",
        "a further port, for clients that expect TensorFlow Serving's REST API (8501); 0 opens none",
    ),
    Option(
        "tfs_grpc_port",
        "PORT",
        whole(0, 65535),
        0,
        "addresses",
        "a further port, for clients that expect TensorFlow Serving's gRPC (8500); 0 opens none",
    ),
    Option(
        "uds",
        "PATH",
        words(option_values.socket_path),
        (),
        "addresses",
        "a Unix-domain socket that speaks all that a port does, for this user and group (mode 0660); may be repeated",
        "none",
    ),
    Option(
        "metrics_port",
        "PORT",
        port(off=OFF, same=SAME),
        None,
        "addresses",
        "port of GET /metrics; 0 takes any free one, same answers it on the inference ports, off nowhere",
        "8002; same with --port",
    ),
    Option(
        "grpc_host",
        "ADDRESS",
        option_values.host,
        None,
        "addresses",
        "address of the gRPC ports, if another",
        "that of --host",
    ),
    Option(
        "metrics_host",
        "ADDRESS",
        option_values.host,
        None,
        "addresses",
        "address of the metrics port, if another",
        "that of --host",
    ),
    Option(
        "workers",
        "N",
        whole(1, 62),
        None,
        "processes",
        "processes that accept connections",
        f"one per usable core, at most {MAX_WORKERS_BY_DEFAULT}",
    ),
    Option(
        "device",
        "DEVICE",
        option_values.device,
        option_values.AUTO,
        "processes",
        "what runs models whose configuration names no accelerator: cpu, cuda[:N], tensorrt[:N] or "
        "openvino[:CPU|GPU|NPU]; auto takes CUDA where it works, else the CPU, and says so; strict takes it or ends "
        "with status 69; fastest gives each model the CPU, CUDA or OpenVINO, by what its runs take there and by the "
        "load, and moves it when that changes; with a "
        "list, such as cuda:0,cuda:1 or openvino,cpu, each model has --instances on each of them",
    ),
    Option(
        "executors",
        "HOW",
        one_of("auto", "per-model", "shared"),
        "auto",
        "processes",
        "processes that run models: per-model is one for each model version, shared one for all models of a device, "
        "which share it by deadline, then evenly; auto is per-model on the CPU and shared on GPUs",
    ),
    Option("instances", "N", whole(1, 32), 1, "processes", "batches of one model that run at the same time"),
    Option(
        "intra_op_threads",
        "N",
        whole(1, 1024),
        None,
        "processes",
        "most threads that ONNX Runtime uses for one batch",
        "usable cores / instances; container limits count",
    ),
    Option(
        "compute_cores",
        "N",
        whole(0, 1024),
        None,
        "processes",
        "cores that the threads of all models are shared out of, each model getting at least one; 0 shares nothing out",
        "whole usable cores; 0 with --intra-op-threads",
    ),
    Option(
        "max_batch_size", "ROWS", whole(1, 4095), 64, "batching", "most rows in one batch; larger requests are split"
    ),
    Option(
        "max_queue_delay_us",
        "US",
        whole(0, 10_000_000),
        0,
        "batching",
        "longest wait for a fuller batch, in microseconds; 0 runs what is there",
    ),
    Option(
        "slo_p99_ms",
        "MS",
        milliseconds(3_600_000.0),
        0.0,
        "batching",
        "latency that 99 of 100 requests shall keep, in milliseconds: batches are cut to hold it; 0 is no target",
    ),
    Option(
        "queue_rows",
        "ROWS",
        whole(1, 1 << 20),
        1024,
        "batching",
        "rows of one model that may wait or run; above it requests get 503 with Retry-After",
    ),
    Option(
        "default_timeout_ms",
        "MS",
        whole(0, 86_400_000),
        0,
        "batching",
        "time limit of requests that say none, for models without a default of their own; 0 is none",
    ),
    Option("max_body_bytes", "BYTES", whole(1, 1 << 31), 64 << 20, "limits", "largest request body; above it 413"),
    Option("head_timeout_s", "S", seconds(3600.0), 5.0, "limits", "time for a client to send a request's head"),
    Option(
        "idle_timeout_s", "S", seconds(86400.0), 60.0, "limits", "time a connection may stay open without a request"
    ),
    Option(
        "send_timeout_s", "S", seconds(86400.0), 30.0, "limits", "time a client may take nothing of a waiting answer"
    ),
    Option(
        "max_connection_age_s",
        "S",
        seconds(30 * 86400.0, low=1.0),
        0.0,
        "limits",
        "HTTP/2 and gRPC connections older than this are told to reconnect, which spreads clients; 0 is never",
    ),
    Option(
        "max_connection_age_grace_s",
        "S",
        seconds(86400.0, low=1.0),
        0.0,
        "limits",
        "time that calls in flight on such a connection have to end before it is cut; 0 is no limit",
    ),
    Option(
        "max_concurrent_streams",
        "N",
        whole(1, 1000),
        100,
        "limits",
        "requests in flight on one HTTP/2 or gRPC connection; a client keeps further ones until others have ended",
    ),
    Option(
        "min_ping_interval_s",
        "S",
        seconds(86400.0),
        10.0,
        "limits",
        "a client without open calls that pings more often than this is sent away (gRPC keep-alive); 0 lets it",
    ),
    Option(
        "model_control_mode",
        "MODE",
        one_of(NONE, POLL, EXPLICIT),
        NONE,
        "models",
        "none: all models at start; poll: also follow changes on disk; explicit: load and unload on request",
    ),
    Option(
        "repository_poll_secs",
        "S",
        whole(1, 86400),
        15,
        "models",
        "seconds from one look at the disk to the next, with --model-control-mode poll",
    ),
    Option(
        "load_model",
        "NAME",
        words(option_values.model_name),
        (),
        "models",
        "a model to load at start, with --model-control-mode explicit; * is all; may be repeated",
        "none",
    ),
    Option(
        "allow_client_shm",
        "",
        switch,
        False,
        "protocols",
        "let clients on this host pass tensors in system shared memory",
    ),
    Option(
        "cors",
        "ORIGINS",
        words(option_values.origin),
        (),
        "protocols",
        "origins whose pages may call this server from a browser; * is any; may be repeated",
        "none",
    ),
    Option(
        "enable_serialization_as_tensor_content",
        "",
        switch,
        False,
        "protocols",
        "TensorFlow Serving's gRPC replies carry tensors as bytes in tensor_content instead of typed fields",
    ),
    Option(
        "kserve_v1_status",
        "",
        switch,
        True,
        "protocols",
        "GET /v1/models/NAME has KServe V1's name and ready beside TensorFlow Serving's fields",
    ),
    Option(
        "drain_delay_s",
        "S",
        seconds(3600.0),
        None,
        "shutdown",
        "after SIGTERM: time with readiness at 503 while requests are still accepted",
        "0 on a terminal, 5 otherwise",
    ),
    Option(
        "drain_timeout_s", "S", seconds(86400.0), 30.0, "shutdown", "after that: longest wait for requests in flight"
    ),
    Option(
        "stuck_after_s",
        "S",
        seconds(86400.0, low=2.0),
        5.0,
        "processes",
        "a process that stands still for so long is replaced, a model run only after ten times its p99; 0 is never",
    ),
    Option(
        "reload_without_room",
        "WHAT",
        one_of("refuse", "unload-first"),
        "refuse",
        "models",
        "a version for which there is no memory beside the one that serves: refuse it, or end that one first",
    ),
    Option(
        "load_timeout_s",
        "S",
        seconds(30 * 86400.0, low=1.0),
        1800.0,
        "models",
        "time that a model may take to load, warm-up and golden checks included; then it is refused; 0 is no limit",
    ),
    Option(
        "log_format",
        "FORMAT",
        one_of("auto", "text", "json"),
        "auto",
        "output",
        "auto, text or json; auto is text on a terminal and JSON lines otherwise",
    ),
    Option("log_level", "LEVEL", one_of("debug", "info", "warning", "error"), "info", "output", "least level logged"),
    Option("server_name", "NAME", option_values.server_name, "headrace", "output", "name in GET /v2"),
)
BY_NAME = {option.name: option for option in OPTIONS}


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which versions of a model are served: the `count` highest, all, or those listed in `versions`."""

    kind: Literal["latest", "all", "specific"] = "latest"
    count: int = 1
    versions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSource:
    """One place with models. With a name `path` holds that one model, as a file, NAME/model.onnx or
    NAME/VERSION/model.onnx whatever the directory is called; without, whatever `headrace serve PATH` takes.
    """

    path: Path
    name: str | None = None
    versions: VersionPolicy = VersionPolicy()
    #: Label -> version, in pairs.
    labels: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """Everything `serve` is told; `path` None without `sources` is the demo model. Times in config are seconds or
    microseconds by suffix. A port is OFF (none), 0 (any free one), or its number; metrics_port may also be SAME, and
    grpc_port 0 means none besides the HTTP port.
    """

    path: Path | None = None
    sources: tuple[ModelSource, ...] = ()
    host: str = "127.0.0.1"
    port: int = OFF
    http_port: int = 8000
    grpc_port: int = 8001
    rest_api_port: int = 0
    tfs_grpc_port: int = 0
    uds: tuple[str, ...] = ()
    metrics_port: int = 8002
    grpc_host: str = ""
    metrics_host: str = ""
    workers: int = 1
    device: str = option_values.AUTO
    executors: str = "auto"
    instances: int = 1
    intra_op_threads: int = 1
    compute_cores: int = 0
    max_batch_size: int = 64
    max_queue_delay_us: int = 0
    slo_p99_ms: float = 0.0
    queue_rows: int = 1024
    default_timeout_ms: int = 0
    max_body_bytes: int = 64 << 20
    head_timeout_s: float = 5.0
    idle_timeout_s: float = 60.0
    send_timeout_s: float = 30.0
    max_connection_age_s: float = 0.0
    max_connection_age_grace_s: float = 0.0
    max_concurrent_streams: int = 100
    min_ping_interval_s: float = 10.0
    model_control_mode: str = NONE
    repository_poll_secs: int = 15
    load_model: tuple[str, ...] = ()
    allow_client_shm: bool = False
    cors: tuple[str, ...] = ()
    enable_serialization_as_tensor_content: bool = False
    kserve_v1_status: bool = True
    drain_delay_s: float = 0.0
    drain_timeout_s: float = 30.0
    stuck_after_s: float = 5.0
    reload_without_room: str = "refuse"
    load_timeout_s: float = 1800.0
    log_format: str = "auto"
    log_level: str = "info"
    server_name: str = "headrace"

    @property
    def is_demo(self) -> bool:
        return self.path is None and not self.sources


def load(
    flags: Mapping[str, Value | None],
    *,
    path: Path | None = None,
    sources: tuple[ModelSource, ...] = (),
    environ: Mapping[str, str] | None = None,
    usable_cores: int | None = None,
    on_terminal: bool = False,
) -> ServeConfig:
    """The settings from parsed flags (None: not given), the environment and the machine.

    Raises ConfigurationError that names the variable, if one has a bad value or is not known: a misspelt variable
    that is ignored in silence is the hardest setting to find.
    """
    environ = os.environ if environ is None else environ
    # HEADRACE_PORT=tcp://10.0.0.1:8000 is what Kubernetes sets for a Service named headrace.
    values: dict[str, Any] = {}
    for option in OPTIONS:
        given = flags.get(option.name)
        text = environ.get(option.variable, "")
        if given is not None:
            values[option.name] = given
        elif text and not (option.name == "port" and "://" in text):
            try:
                values[option.name] = option.parse(text)
            except ValueError as error:
                raise ConfigurationError(str(error), key=option.variable) from None
    _set_ports(values)
    for option in OPTIONS:
        if option.default is not None:
            values.setdefault(option.name, option.default)
    host = hostinfo.processors() if usable_cores is None else hostinfo.Processors(usable_cores, None)
    values.setdefault("workers", max(1, min(MAX_WORKERS_BY_DEFAULT, host.usable_count)))
    values.setdefault("compute_cores", 0 if "intra_op_threads" in values else host.compute_count)
    values.setdefault(
        "intra_op_threads", max(1, (values["compute_cores"] or host.compute_count) // values["instances"])
    )
    values.setdefault("drain_delay_s", 0.0 if on_terminal else 5.0)
    for name in ("grpc_host", "metrics_host"):
        values.setdefault(name, values["host"])
    result = ServeConfig(path=path, sources=sources, **values)
    if result.load_model and result.model_control_mode != EXPLICIT:
        raise ConfigurationError("expected --model-control-mode explicit beside it", key="--load-model")
    return result


def _set_ports(values: dict[str, Any]) -> None:
    """What is not said about ports follows from what is; raises ConfigurationError for what contradicts itself."""
    one = values.setdefault("port", OFF)
    if one != OFF:
        for name in ("http_port", "grpc_port"):
            if values.setdefault(name, one) != one:
                raise ConfigurationError(
                    f"expected one port for everything, got {one} and {values[name]}; give one of the two options",
                    key=f"--port, {BY_NAME[name].flag}",
                )
        values.setdefault("metrics_port", SAME)
    values.setdefault("http_port", DEFAULT_HTTP_PORT)
    values.setdefault("grpc_port", DEFAULT_GRPC_PORT if values["http_port"] else 0)
    values.setdefault("metrics_port", DEFAULT_METRICS_PORT)
    inference = ("http_port", "grpc_port", "rest_api_port", "tfs_grpc_port")
    for name in inference:
        if values.get(name, 0) == values["metrics_port"] > 0:
            if values["metrics_port"] == one:
                values["metrics_port"] = SAME
                break
            raise ConfigurationError(
                f"expected two different ports, got {values[name]} for both; --metrics-port same answers GET /metrics "
                f"on the inference ports",
                key=f"{BY_NAME[name].flag}, --metrics-port",
            )
    if values["http_port"] == OFF and not any(values.get(name, 0) > 0 for name in inference) and not values.get("uds"):
        raise ConfigurationError("expected at least one port or --uds to serve on", key="--http-port")


def is_on_terminal() -> bool:
    """Whether people started this by hand: then nobody needs time to look away before it stops. One stream is enough,
    the others may go to files.
    """
    return any(os.isatty(stream) for stream in (0, 1, 2))


def misspelt(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Variables that look like a misspelt setting, each with the setting it resembles.

    They are worth a warning and not an error: Kubernetes sets HEADRACE_PORT and the like by itself for a Service
    named headrace.
    """
    known = [option.variable for option in OPTIONS]
    suspects = sorted(name for name in environ if name.startswith(ENV_PREFIX) and name not in known)
    if not suspects:
        return []
    # Dear to import, and hardly ever needed.
    import difflib

    near = ((name, difflib.get_close_matches(name, known, 1, cutoff=0.9)) for name in suspects)
    return [(name, matches[0]) for name, matches in near if matches]
