"""The table that `headrace serve` prints when it is ready: what is served, how, where, and a line to try it with.

A pure function of plain data: no clock, no I/O. Every text that comes from a model file or a path is escaped, so none
of it can drive a terminal. The lines "http http://HOST:PORT" and "metrics http://HOST:PORT/metrics" are read by
scripts; keep their form.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from server.log import escape

#: V2 datatype -> the short form people write in tables.
SHORT_DTYPES = {
    "BOOL": "bool",
    "BYTES": "bytes",
    "UINT8": "u8",
    "UINT16": "u16",
    "UINT32": "u32",
    "UINT64": "u64",
    "INT8": "i8",
    "INT16": "i16",
    "INT32": "i32",
    "INT64": "i64",
    "FP16": "f16",
    "BF16": "bf16",
    "FP32": "f32",
    "FP64": "f64",
}
#: More tensors than this are counted, not listed.
MAX_LISTED_TENSORS = 3
#: A longer body is no line to paste; `headrace infer NAME --random` is shown instead.
MAX_BODY_CHARS = 600
#: A free axis that is not the batch axis gets this many elements in the example.
FREE_AXIS_EXAMPLE = 8

_HEADINGS = ("model", "version", "device", "inputs", "outputs", "batching", "status")
_ADDRESS_GAP = " " * 8
Painter = Callable[[str, str], str]
_BOLD, _DIM, _GREEN, _RED, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output: V2 datatype, and shape with -1 for every free dimension, the batch axis included."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BannerModel:
    """One row: a model version. `status` is READY, LOADING or UNAVAILABLE; `load_ms` is shown beside READY.

    `why` is the reason of the batching verdict, or of the state if the model is UNAVAILABLE. `example` is a request
    body to show instead of zeros; only short ones are shown.
    """

    name: str
    version: int
    device: str = "cpu"
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    batched: bool = False
    max_batch_size: int = 1
    max_queue_delay_us: int = 0
    why: str = ""
    status: str = "READY"
    load_ms: float | None = None
    example: str | None = None


class Address(NamedTuple):
    """Where clients connect: the host as configured and the port as bound, or the path of a Unix-domain socket."""

    name: str
    host: str = ""
    port: int = 0
    path: str = ""


@dataclass(frozen=True, slots=True)
class Banner:
    """Everything the table shows. The first address, named http, is the one to try; "metrics" is the scraper's."""

    version: str
    runtime: str
    models: tuple[BannerModel, ...]
    addresses: tuple[Address, ...]
    worker_count: int = 1
    ready_s: float = 0.0
    notes: tuple[str, ...] = field(default=())


def render(banner: Banner, *, colour: bool) -> str:
    """The banner as lines of text with a newline at the end."""
    paint = _painter(colour)
    first = banner.addresses[0]
    head = f"{paint(_BOLD, 'headrace ' + banner.version)}  ·  {escape(banner.runtime)}  ·  telemetry off"
    rows = [list(_HEADINGS), *(_row(model) for model in banner.models)]
    table = align(rows)
    lines = [head, paint(_DIM, table[0])]
    for line, model in zip(table[1:], banner.models, strict=True):
        lines.append(_painted_status(line, model.status, paint))
    lines += [paint(_DIM, line) for line in _reasons(banner.models)]
    lines += _address_lines(banner.addresses)
    lines.append(f"ready    in {banner.ready_s:.2f} s with {_count(banner.worker_count, 'worker')}; stop with Ctrl-C")
    lines += [f"note     {escape(note)}" for note in banner.notes]
    ready = [model for model in banner.models if model.status == "READY" and model.inputs]
    if ready:
        lines.append(f"try it   {escape(try_line(ready[0], first))}")
    return "\n".join(lines) + "\n"


def url(host: str, port: int) -> str:
    """Address for a client on this machine: a wildcard host is reached by the loopback address."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _address_lines(addresses: Sequence[Address]) -> list[str]:
    """The three that most clients use, then all others."""
    first, *rest = addresses
    usual = [address for address in rest if address.name in ("grpc", "metrics")]
    others = [address for address in rest if address not in usual]
    lines = [_ADDRESS_GAP.join([f"{first.name:<7}  {_where(first)}", *map(_named, usual)])]
    return lines + (["also     " + _ADDRESS_GAP.join(map(_named, others))] if others else [])


def _named(address: Address) -> str:
    return _where(address) if address.path else f"{address.name}  {_where(address)}"


def _where(address: Address) -> str:
    if address.path:
        return f"unix:{escape(address.path)}"
    shown = url(address.host, address.port)
    if address.name.endswith("grpc"):
        return shown.removeprefix("http://")
    return f"{shown}/metrics" if address.name == "metrics" else shown


def try_line(model: BannerModel, address: Address) -> str:
    """A shell command that asks the model once."""
    http = "http://localhost" if address.path else url(address.host, address.port)
    body = model.example or example_body(model.inputs)
    target = shlex.quote(f"{http}/v2/models/{model.name}/infer")
    if address.path:
        small = body if body is not None and len(body) <= MAX_BODY_CHARS else "@request.json"
        return f"curl -s --unix-socket {shlex.quote(address.path)} {target} -d {shlex.quote(small)}"
    if body is None or len(body) > MAX_BODY_CHARS:
        return f"headrace infer {shlex.quote(model.name)} --random --url {shlex.quote(http)}"
    return f"curl -s {target} -d {shlex.quote(body)}"


def example_body(inputs: Sequence[Tensor], limit_chars: int = MAX_BODY_CHARS) -> str | None:
    """A V2 request with zeros of the right shape, in one line; None if it would be longer than the limit."""
    parts = []
    for tensor in inputs:
        shape = example_shape(tensor.shape)
        count = math.prod(shape)
        zero = {"BOOL": "false", "BYTES": '""'}.get(tensor.dtype, "0")
        if count * (len(zero) + 1) > limit_chars:
            return None
        shown_shape = ",".join(map(str, shape))
        data = ",".join([zero] * count)
        parts.append(
            f'{{"name":{_json_string(tensor.name)},"shape":[{shown_shape}],"datatype":"{tensor.dtype}","data":[{data}]}}'
        )
    body = f'{{"inputs":[{",".join(parts)}]}}'
    return body if len(body) <= limit_chars else None


def example_shape(shape: Sequence[int], row_count: int = 1) -> list[int]:
    """The shape with a number for every free dimension: `row_count` for the first, FREE_AXIS_EXAMPLE for the others."""
    return [size if size >= 0 else FREE_AXIS_EXAMPLE if axis else row_count for axis, size in enumerate(shape)]


def align(rows: Sequence[Sequence[str]], gap: str = "  ") -> list[str]:
    """Lines with the cells of each column under one another; the last column is not padded."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    widths[-1:] = [0]
    return [gap.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def tensor_text(tensors: Sequence[Tensor]) -> str:
    """`image f32[-1,64], mask bool[-1]`; many tensors are cut short."""
    listed = [
        f"{escape(tensor.name)} {SHORT_DTYPES.get(tensor.dtype, tensor.dtype)}[{','.join(map(str, tensor.shape))}]"
        for tensor in tensors[:MAX_LISTED_TENSORS]
    ]
    rest = len(tensors) - len(listed)
    return ", ".join(listed) + (f", +{rest} more" if rest else "") or "-"


def _row(model: BannerModel) -> list[str]:
    status = model.status
    if status == "READY" and model.load_ms is not None:
        status = f"READY ({model.load_ms:.0f} ms)"
    inputs, outputs = tensor_text(model.inputs), tensor_text(model.outputs)
    return [escape(model.name), str(model.version), escape(model.device), inputs, outputs, _batching(model), status]


def _batching(model: BannerModel) -> str:
    if not model.inputs:
        return "-"
    if not model.batched:
        return "one at a time"
    return f"auto ≤{model.max_batch_size}, {_delay(model.max_queue_delay_us)}"


def _delay(delay_us: int) -> str:
    if delay_us == 0:
        return "no wait"
    return f"{delay_us / 1000:g} ms" if delay_us >= 1000 else f"{delay_us} µs"


def _reasons(models: Sequence[BannerModel]) -> list[str]:
    """One line for each different reason, with the models that it holds for."""
    names: dict[str, list[str]] = {}
    for model in models:
        if model.why:
            names.setdefault(model.why, []).append(escape(model.name))
    return [f"why      {', '.join(sharing)}: {escape(why)}" for why, sharing in names.items()]


def _painted_status(line: str, status: str, paint: Painter) -> str:
    """The status is the last column, so its text is the end of the line."""
    cut = line.rindex(status)
    return line[:cut] + paint(_GREEN if status == "READY" else _RED if status == "UNAVAILABLE" else "", line[cut:])


def _painter(colour: bool) -> Painter:
    def paint(code: str, text: str) -> str:
        return f"{code}{text}{_RESET}" if colour and code else text

    return paint


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _json_string(text: str) -> str:
    return json.dumps(text)
