"""The settings of `headrace serve`: one table of options, one frozen object of values.

Each option is a flag, an environment variable and a default; the flag wins over the variable, the variable over the
default. The command line's parser and its help are made from the same table, so no setting exists in one place only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from server import hostinfo
from server.errors import ConfigurationError

ENV_PREFIX = "HEADRACE_"
MAX_WORKERS_BY_DEFAULT = 4
DEFAULT_GRPC_PORT = 8001

Value = int | float | str


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: `parse` turns the text of a flag or variable into a value or raises ValueError with what was
    expected.

    `default` None: worked out from the machine in `load`; `shown_default` says how.
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


def whole(low: int, high: int) -> Callable[[str], int]:
    """A parser for a whole number between two bounds, both included."""

    def parse(text: str) -> int:
        digits = text.strip()
        if digits.isascii() and digits.isdigit() and len(digits) <= 19 and low <= int(digits) <= high:
            return int(digits)
        raise ValueError(f"expected a whole number from {low} to {high}, got {text!r}")

    return parse


def seconds(high: float) -> Callable[[str], float]:
    """A parser for a time in seconds, from 0; a fraction is allowed."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if 0.0 <= value <= high:
            return value
        raise ValueError(f"expected seconds from 0 to {high:g}, got {text!r}")

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser for a word out of a few."""

    def parse(text: str) -> str:
        if text in choices:
            return text
        raise ValueError(f"expected one of {', '.join(choices)}, got {text!r}")

    return parse


def _host(text: str) -> str:
    if text and text.isprintable() and not any(char in text for char in " /@?#"):
        return text
    raise ValueError(f"expected a host name or an address without a port, got {text!r}")


def _server_name(text: str) -> str:
    if 1 <= len(text) <= 128 and text.isascii() and text.isprintable():
        return text
    raise ValueError(f"expected 1 to 128 printable ASCII characters, got {text!r}")


_PORT = whole(0, 65535)

OPTIONS: tuple[Option, ...] = (
    Option("host", "ADDRESS", _host, "127.0.0.1", "addresses", "address to listen on; 0.0.0.0 for every interface"),
    Option("http_port", "PORT", _PORT, 8000, "addresses", "port of the inference API; 0 takes any free one"),
    Option(
        "grpc_port",
        "PORT",
        _PORT,
        None,
        "addresses",
        "a second port for clients that expect gRPC on its own; every port speaks HTTP/1.1, HTTP/2 and gRPC",
        "8001; the HTTP port if that is 0",
    ),
    Option("metrics_port", "PORT", _PORT, 8002, "addresses", "port of GET /metrics; 0 takes any free one"),
    Option(
        "workers",
        "N",
        whole(1, 62),
        None,
        "processes",
        "processes that accept connections",
        f"one per usable core, at most {MAX_WORKERS_BY_DEFAULT}",
    ),
    Option("instances", "N", whole(1, 32), 1, "processes", "batches of one model that run at the same time"),
    Option(
        "intra_op_threads",
        "N",
        whole(1, 1024),
        None,
        "processes",
        "threads that ONNX Runtime uses for one batch",
        "usable cores / instances; container limits count",
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
        "queue_rows",
        "ROWS",
        whole(1, 1 << 20),
        1024,
        "batching",
        "rows of one model that may wait or run; above it requests get 503 with Retry-After",
    ),
    Option("max_body_bytes", "BYTES", whole(1, 1 << 31), 64 << 20, "limits", "largest request body; above it 413"),
    Option("head_timeout_s", "S", seconds(3600.0), 5.0, "limits", "time for a client to send a request's head"),
    Option(
        "idle_timeout_s", "S", seconds(86400.0), 60.0, "limits", "time a connection may stay open without a request"
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
        "log_format",
        "FORMAT",
        one_of("auto", "text", "json"),
        "auto",
        "output",
        "auto, text or json; auto is text on a terminal and JSON lines otherwise",
    ),
    Option("log_level", "LEVEL", one_of("debug", "info", "warning", "error"), "info", "output", "least level logged"),
    Option("server_name", "NAME", _server_name, "headrace", "output", "name in GET /v2"),
)
BY_NAME = {option.name: option for option in OPTIONS}


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """Everything `serve` is told; `path` None is the demo model. Times in config are seconds or microseconds by
    suffix.
    """

    path: Path | None = None
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    workers: int = 1
    instances: int = 1
    intra_op_threads: int = 1
    max_batch_size: int = 64
    max_queue_delay_us: int = 0
    queue_rows: int = 1024
    max_body_bytes: int = 64 << 20
    head_timeout_s: float = 5.0
    idle_timeout_s: float = 60.0
    drain_delay_s: float = 0.0
    drain_timeout_s: float = 30.0
    log_format: str = "auto"
    log_level: str = "info"
    server_name: str = "headrace"


def load(
    flags: Mapping[str, Value | None],
    *,
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    usable_cores: int | None = None,
    on_terminal: bool = False,
) -> ServeConfig:
    """The settings from parsed flags (None: not given), the environment and the machine.

    Raises ConfigurationError that names the variable, if one has a bad value or is not known: a misspelt variable
    that is ignored in silence is the hardest setting to find.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Value] = {}
    for option in OPTIONS:
        given = flags.get(option.name)
        text = environ.get(option.variable, "")
        if given is not None:
            values[option.name] = given
        elif text:
            try:
                values[option.name] = option.parse(text)
            except ValueError as error:
                raise ConfigurationError(str(error), key=option.variable) from None
        elif option.default is not None:
            values[option.name] = option.default
    cores = hostinfo.processors().usable_count if usable_cores is None else usable_cores
    values.setdefault("workers", max(1, min(MAX_WORKERS_BY_DEFAULT, cores)))
    values.setdefault("intra_op_threads", max(1, cores // int(values["instances"])))
    values.setdefault("drain_delay_s", 0.0 if on_terminal else 5.0)
    values.setdefault("grpc_port", DEFAULT_GRPC_PORT if values["http_port"] else 0)
    for name in ("http_port", "grpc_port"):
        if values[name] == values["metrics_port"] != 0:
            flag = BY_NAME[name].flag
            raise ConfigurationError(
                f"expected two different ports, got {values[name]} for both", key=f"{flag}, --metrics-port"
            )
    return ServeConfig(path=path, **values)  # type: ignore[arg-type]


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
