"""inference.ModelInferRequest by the protobuf library: slow and obvious.

`read_request` accepts what server._fast.infer_wire and wire_fill together accept, and gives the same answer; why
something is refused is left to the tables of the tests.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from server.protocol import messages
from tests.reference import bytes_form
from tests.reference.infer_json import CLASSIFIED, MAX_INT64, Model, Refused, Tensor, check_binary
from tests.reference.numbers import INTEGERS

REQUEST = messages.message_class("inference.ModelInferRequest")
RESPONSE = messages.message_class("inference.ModelInferResponse")
STREAM_RESPONSE = messages.message_class("inference.ModelStreamInferResponse")

#: datatype -> field of InferTensorContents
CONTENTS_FIELD = {
    "BOOL": "bool_contents",
    **dict.fromkeys(["INT8", "INT16", "INT32"], "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(["UINT8", "UINT16", "UINT32"], "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
STRUCT_LETTER = {"BOOL": "?", "FP32": "f", "FP64": "d", **{name: row[0] for name, row in INTEGERS.items()}}


@dataclass
class Request:
    id: bytes | None = None
    inputs: dict[str, tuple[list[int], bytes]] = field(default_factory=dict)
    outputs: list[int] = field(default_factory=list)
    timeout_us: int = 0
    priority: int = 0
    rows: int = 1


def parse(message_class: Any, message: bytes) -> Any:
    try:
        return message_class.FromString(message)
    except DecodeError as error:
        raise Refused(str(error)) from error


def count_of(parameter: Any, most: int) -> int:
    kind = parameter.WhichOneof("parameter_choice")
    if kind not in ("int64_param", "uint64_param"):
        raise Refused(str(kind))
    value: int = getattr(parameter, kind)
    if not 0 <= value <= most:
        raise Refused("range")
    return value


def read_parameters(parameters: Any, request: Request) -> None:
    for key, parameter in parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        if key == "timeout":
            request.timeout_us = count_of(parameter, MAX_INT64)
        elif key == "priority":
            request.priority = count_of(parameter, 2**64 - 1)
        elif key in ("sequence_start", "sequence_end", "triton_enable_empty_final_response"):
            if kind != "bool_param":
                raise Refused(key)
        elif key == "sequence_id":
            if kind not in ("int64_param", "uint64_param", "string_param") or getattr(parameter, kind):
                raise Refused(key)
        elif key.startswith("triton_"):
            raise Refused(key)


def pack(values: list[Any], datatype: str) -> bytes:
    """Values of a repeated field as packed elements."""
    try:
        return struct.pack(f"<{len(values)}{STRUCT_LETTER[datatype]}", *values)
    except (struct.error, KeyError) as error:
        raise Refused(str(error)) from error


def quiet(contents: bytes) -> bytes:
    """FP32 elements with their NaNs quiet, as they come out of Python's floats."""
    bits = struct.unpack(f"<{len(contents) // 4}I", contents)
    return struct.pack(f"<{len(bits)}I", *(n | 1 << 22 if n & 0x7FFFFFFF > 0x7F800000 else n for n in bits))


def typed_contents(contents: Any, datatype: str) -> bytes:
    own = CONTENTS_FIELD.get(datatype)
    for name in set(CONTENTS_FIELD.values()):
        if name != own and len(getattr(contents, name)):
            raise Refused(name)
    if datatype == "BYTES":
        return bytes_form.pack(contents.bytes_contents)
    return pack(list(getattr(contents, own)), datatype) if own else b""


def check_shape(want: Tensor, datatype: str, dims: list[int]) -> None:
    if datatype != want[1] or len(dims) != len(want[2]):
        raise Refused("datatype or rank")
    if any(dim < 0 or wanted not in (-1, dim) for wanted, dim in zip(want[2], dims, strict=True)):
        raise Refused("shape")


def check_rows(request: Request, model: Model) -> None:
    if set(request.inputs) != {name for name, _, _ in model.inputs}:
        raise Refused("inputs")
    if model.batched and model.inputs:
        rows = {dims[0] for dims, _ in request.inputs.values()}
        if len(rows) != 1 or 0 in rows:
            raise Refused("rows")
        request.rows = rows.pop()


def read_outputs(message: Any, model: Model) -> list[int]:
    names = [name for name, _, _ in model.outputs]
    found: list[int] = []
    for output in message.outputs:
        if output.name not in names or names.index(output.name) in found:
            raise Refused("output")
        if "shared_memory_region" in output.parameters:
            raise Refused("shared memory")
        classification = output.parameters.get("classification")
        if classification is not None:
            kind = classification.WhichOneof("parameter_choice")
            datatype = model.outputs[names.index(output.name)][1]
            count = classification.int64_param
            if kind != "int64_param" or count < 0 or (count and datatype not in CLASSIFIED):
                raise Refused("classification")
        found.append(names.index(output.name))
    return found or list(range(len(names)))


def read_request(body: bytes, model: Model) -> Request:
    message = parse(REQUEST, body)
    request = Request(id=message.id.encode() or None)
    read_parameters(message.parameters, request)
    raw = list(message.raw_input_contents)
    if raw and len(raw) != len(message.inputs):
        raise Refused("raw count")
    wanted = {want[0]: want for want in model.inputs}
    for position, tensor in enumerate(message.inputs):
        if tensor.name not in wanted or tensor.name in request.inputs:
            raise Refused("input")
        if tensor.HasField("contents") == bool(raw) or "shared_memory_region" in tensor.parameters:
            raise Refused("source")
        dims = list(tensor.shape)
        check_shape(wanted[tensor.name], tensor.datatype, dims)
        contents = raw[position] if raw else typed_contents(tensor.contents, tensor.datatype)
        check_binary(tensor.datatype, dims, contents)
        request.inputs[tensor.name] = (dims, contents)
    request.outputs = read_outputs(message, model)
    check_rows(request, model)
    return request
