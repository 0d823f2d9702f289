"""KServe V2 infer requests and replies by the standard library's json: slow, recursive, obvious.

`read_request` accepts what server._fast.infer_json_index and infer_json_fill together accept, and gives the same
answer; why something is refused is left to the tables of the tests.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from tests.reference import bytes_form, numbers

MAX_DEPTH = 100
MAX_UNKNOWN_KEYS = 64
MAX_INT64 = 2**63 - 1
#: Datatypes of outputs that have classes.
CLASSIFIED = {*numbers.INTEGERS, "FP32", "FP64"} - {"BOOL"}

Tensor = tuple[str, str, list[int]]


class Refused(ValueError):
    """The request is not served."""


class Object(list[tuple[str, object]]):
    """An object's members in order, duplicates kept."""


class Number(str):
    """A number that keeps its text."""


@dataclass
class Model:
    name: str
    version: str
    batched: bool
    inputs: list[Tensor]
    outputs: list[Tensor]


@dataclass
class Request:
    id: str | None = None
    inputs: dict[str, tuple[str, list[int], bytes]] = field(default_factory=dict)
    outputs: list[tuple[int, bool]] = field(default_factory=list)
    timeout_us: int = 0
    priority: int = 0
    rows: int = 1


def parse(text: bytes) -> object:
    """One JSON value; Refused for everything that is not UTF-8, not JSON, too deep, or holds half a surrogate pair."""
    try:
        value = json.loads(
            text.decode("utf-8", "strict"),
            object_pairs_hook=Object,
            parse_int=Number,
            parse_float=Number,
            parse_constant=Number,
        )
    except (ValueError, RecursionError) as error:
        raise Refused(str(error)) from error
    check(value, 0)
    return value


def check(value: object, depth: int) -> None:
    if isinstance(value, (Object, list)):
        if depth == MAX_DEPTH:
            raise Refused("depth")
        for member in value:
            key, member = member if isinstance(value, Object) else ("", member)
            check(key, depth + 1)
            check(member, depth + 1)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Refused("surrogate") from error


def members(value: object, known: set[str]) -> dict[str, object]:
    if not isinstance(value, Object):
        raise Refused("no object")
    keys = [key for key, _ in value]
    if len(set(keys)) < len(keys) or len(set(keys) - known) > MAX_UNKNOWN_KEYS:
        raise Refused("keys")
    return dict(value)


def count_of(value: object, most: int) -> int:
    if not isinstance(value, Number) or not value.isdecimal() or int(value) > most:
        raise Refused("no count")
    return int(value)


def bool_of(value: object) -> bool:
    if not isinstance(value, bool):
        raise Refused("no bool")
    return value


def text_of(value: object) -> str:
    if not isinstance(value, str) or isinstance(value, Number):
        raise Refused("no string")
    return value


def list_of(value: object) -> list[object]:
    if not isinstance(value, list) or isinstance(value, Object):
        raise Refused("no array")
    return value


def read_parameters(value: object, request: Request) -> bool:
    """The default for binary outputs."""
    binary = False
    for key, parameter in members(value, set()).items():
        if key == "triton_enable_empty_final_response":
            bool_of(parameter)
        elif key.startswith("triton_") or isinstance(parameter, list):
            raise Refused(key)
        elif parameter is None:
            continue
        elif key == "binary_data_output":
            binary = bool_of(parameter)
        elif key == "timeout":
            request.timeout_us = count_of(parameter, MAX_INT64)
        elif key == "priority":
            request.priority = count_of(parameter, 2**64 - 1)
        elif key in ("sequence_start", "sequence_end"):
            bool_of(parameter)
        elif key == "sequence_id" and not (isinstance(parameter, str) and not isinstance(parameter, Number)):
            if count_of(parameter, 2**64 - 1):
                raise Refused(key)
        elif key == "sequence_id" and parameter:
            raise Refused(key)
    return binary


def tensor_parameters(tensor: dict[str, object]) -> dict[str, object]:
    value = tensor.get("parameters")
    if value is None:
        return {}
    return {key: member for key, member in members(value, set()).items() if member is not None}


def flatten(value: object) -> list[str]:
    if isinstance(value, list) and not isinstance(value, Object):
        return [text for member in value for text in flatten(member)]
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, Number):
        return [value]
    raise Refused("no number")


def strings(value: object) -> list[bytes]:
    if isinstance(value, list) and not isinstance(value, Object):
        return [text for member in value for text in strings(member)]
    return [text_of(value).encode()]


def read_contents(want: Tensor, dims: list[int], data: object) -> bytes:
    if want[1] == "BYTES":
        elements = strings(data)
        if len(elements) != math.prod(dims):
            raise Refused("element count")
        return bytes_form.pack(elements)
    texts = flatten(data)
    if len(texts) != math.prod(dims):
        raise Refused("element count")
    try:
        return b"".join(numbers.read(text, want[1]) for text in texts)
    except numbers.Refused as error:
        raise Refused(str(error)) from error


def check_binary(datatype: str, dims: list[int], contents: bytes) -> None:
    if datatype == "BYTES":
        elements = bytes_form.unpack(contents)
        if elements is None or len(elements) != math.prod(dims):
            raise Refused("elements")
        return
    if len(contents) != math.prod(dims) * numbers.WIDTH_BYTES[datatype]:
        raise Refused("size")
    if datatype == "BOOL" and contents.strip(b"\0\1"):
        raise Refused("bool")


def read_input(value: object, model: Model, request: Request, sections: bytearray) -> None:
    tensor = members(value, {"name", "shape", "datatype", "data", "parameters"})
    parameters = tensor_parameters(tensor)
    if ("data" in tensor) + ("binary_data_size" in parameters) != 1 or "shared_memory_region" in parameters:
        raise Refused("source")
    name, datatype = text_of(tensor.get("name")), text_of(tensor.get("datatype"))
    dims = [count_of(dim, MAX_INT64) for dim in list_of(tensor.get("shape"))]
    want = next((want for want in model.inputs if want[0] == name), None)
    if want is None or name in request.inputs or datatype != want[1] or len(dims) != len(want[2]):
        raise Refused("name, datatype or rank")
    if any(wanted not in (-1, dim) for wanted, dim in zip(want[2], dims, strict=True)):
        raise Refused("shape")
    if "data" in tensor:
        contents = read_contents(want, dims, list_of(tensor["data"]))
    else:
        size = count_of(parameters["binary_data_size"], MAX_INT64)
        contents = bytes(sections[:size])
        del sections[:size]
        if len(contents) < size:
            raise Refused("size")
        check_binary(datatype, dims, contents)
    request.inputs[name] = (datatype, dims, contents)


def read_outputs(value: object, model: Model, default: bool) -> list[tuple[int, bool]]:
    names = [name for name, _, _ in model.outputs]
    found: list[tuple[int, bool]] = []
    for member in list_of(value):
        tensor = members(member, {"name", "parameters"})
        parameters = tensor_parameters(tensor)
        name = text_of(tensor.get("name"))
        if name not in names or names.index(name) in [index for index, _ in found]:
            raise Refused("name")
        classes = count_of(parameters.get("classification", Number(0)), 2**64 - 1)
        datatype = model.outputs[names.index(name)][1]
        if "shared_memory_region" in parameters or (classes and datatype not in CLASSIFIED):
            raise Refused("unsupported")
        found.append((names.index(name), bool_of(parameters.get("binary_data", default))))
    return found or [(index, default) for index in range(len(names))]


def read_request(body: bytes, model: Model, json_bytes: int = -1) -> Request:
    if json_bytes < 0:
        json_bytes = len(body)
    if json_bytes > len(body):
        raise Refused("header length")
    document = members(parse(body[:json_bytes]), {"id", "inputs", "outputs", "parameters"})
    sections = bytearray(body[json_bytes:])
    request = Request()
    if document.get("id") is not None:
        request.id = text_of(document["id"])
    default = document.get("parameters") is not None and read_parameters(document["parameters"], request)
    for member in list_of(document.get("inputs")):
        read_input(member, model, request, sections)
    outputs = document.get("outputs")
    request.outputs = read_outputs([] if outputs is None else outputs, model, default)
    if sections or len(request.inputs) != len(model.inputs):
        raise Refused("left over or missing")
    if model.batched and model.inputs:
        rows = {dims[0] for _, dims, _ in request.inputs.values()}
        if len(rows) != 1 or 0 in rows:
            raise Refused("rows")
        request.rows = rows.pop()
    return request


def reply_document(
    model: Model, request_id: str | None, tensors: list[tuple[int, list[int], bool, bytes]]
) -> tuple[dict[str, object], bytes]:
    """The JSON part as Python objects in Triton's key order, and the binary sections."""
    document: dict[str, object] = {"id": request_id} if request_id else {}
    document |= {"model_name": model.name, "model_version": model.version}
    outputs = []
    sections = b""
    for index, shape, binary, contents in tensors:
        name, datatype, _ = model.outputs[index]
        output: dict[str, object] = {"name": name, "datatype": datatype, "shape": shape}
        if binary:
            output["parameters"] = {"binary_data_size": len(contents)}
            sections += contents
        elif datatype == "BYTES":
            try:
                output["data"] = [element.decode() for element in bytes_form.unpack(contents) or []]
            except UnicodeDecodeError as error:
                raise Refused("UTF-8") from error
        else:
            width = numbers.WIDTH_BYTES[datatype]
            output["data"] = [
                numbers.value(contents[at : at + width], datatype) for at in range(0, len(contents), width)
            ]
        outputs.append(output)
    document["outputs"] = outputs
    return document, sections
