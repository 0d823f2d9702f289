"""TensorFlow Serving's predict requests and replies by the standard library's json: slow, recursive, obvious.

`read_predict` accepts what server._fast.tfs_json_index and infer_json_fill together accept, and gives the same
tensors; why something is refused is left to the tables of the tests.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.reference import bytes_form, numbers
from tests.reference.infer_json import MAX_UNKNOWN_KEYS, Model, Number, Object, Refused, Tensor, check

MAX_RANK = 8


@dataclass
class Predict:
    form: str
    rows: int = 1
    inputs: dict[str, tuple[list[int], bytes]] = field(default_factory=dict)


def parse_first(body: bytes) -> object:
    """The first JSON value; bytes behind it are not looked at."""
    text = body.decode("utf-8", "surrogateescape").lstrip(" \t\r\n")
    decoder = json.JSONDecoder(
        object_pairs_hook=Object, parse_int=Number, parse_float=Number, parse_constant=Number, strict=True
    )
    try:
        value, _ = decoder.raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise Refused(str(error)) from error
    check(value, 0)
    return value


def members(value: object, known: set[str]) -> dict[str, object]:
    if not isinstance(value, Object):
        raise Refused("no object")
    keys = [key for key, _ in value]
    if len(set(keys)) < len(keys) or len(set(keys) - known) > MAX_UNKNOWN_KEYS:
        raise Refused("keys")
    return dict(value)


def is_list(value: object) -> bool:
    return isinstance(value, list) and not isinstance(value, Object)


def is_b64(value: object) -> bool:
    return isinstance(value, Object) and len(value) == 1 and value[0][0] == "b64" and is_text(value[0][1])


def is_text(value: object) -> bool:
    return isinstance(value, str) and not isinstance(value, Number)


def element(value: object) -> bytes:
    """One string, plain or as base64."""
    if is_text(value):
        return str(value).encode()
    if not is_b64(value):
        raise Refused("no string")
    assert isinstance(value, Object)
    digits = re.sub(r"[ \t\n\v\f\r]", "", str(value[0][1]))
    bare = digits.rstrip("=")
    padding = len(digits) - len(bare)
    if not re.fullmatch(r"[A-Za-z0-9+/]*", bare) or len(bare) % 4 == 1:
        raise Refused("base64")
    if padding and (padding > 2 or len(digits) % 4):
        raise Refused("padding")
    return base64.b64decode(bare + "=" * (-len(bare) % 4))


def tensor(value: object, datatype: str) -> tuple[list[int], bytes]:
    """Shape and contents of a dense value: all lists of a level are equally long, all scalars equally deep."""
    if is_list(value):
        assert isinstance(value, list)
        parts = [tensor(member, datatype) for member in value]
        if any(dims != parts[0][0] for dims, _ in parts):
            raise Refused("ragged")
        dims = [len(parts), *(parts[0][0] if parts else [])]
        return dims, b"".join(contents for _, contents in parts)
    if datatype == "BYTES":
        return [], bytes_form.pack([element(value)])
    if isinstance(value, bool) and datatype == "BOOL":
        return [], bytes([value])
    if not isinstance(value, Number) or datatype == "BOOL":
        raise Refused("type")
    try:
        return [], numbers.read(value, datatype)
    except numbers.Refused as error:
        raise Refused(str(error)) from error


def takes_strings(model: Model) -> bool:
    return any(datatype == "BYTES" for _, datatype, _ in model.inputs)


def read_instances(value: object, model: Model) -> dict[str, tuple[list[int], bytes]]:
    if not is_list(value) or not value:
        raise Refused("instances")
    assert isinstance(value, list)
    if not isinstance(value[0], Object) or (is_b64(value[0]) and takes_strings(model)):
        if len(model.inputs) > 1:
            raise Refused("plain list")
        name, datatype, _ = model.inputs[0]
        return {name: tensor(value, datatype)}
    names = {name for name, _, _ in model.inputs}
    rows = [members(instance, names) for instance in value]
    if any(set(row) != names for row in rows):
        raise Refused("keys")
    found = {}
    for name, datatype, _ in model.inputs:
        dims, contents = tensor([row[name] for row in rows], datatype)
        if len(dims) > MAX_RANK:
            raise Refused("rank")
        found[name] = (dims, contents)
    return found


def read_inputs(value: object, model: Model) -> dict[str, tuple[list[int], bytes]]:
    if not isinstance(value, Object) or (is_b64(value) and takes_strings(model)):
        if len(model.inputs) > 1:
            raise Refused("plain value")
        name, datatype, _ = model.inputs[0]
        return {name: tensor(value, datatype)}
    names = {name for name, _, _ in model.inputs}
    columns = members(value, names)
    if not names <= set(columns):
        raise Refused("missing")
    return {name: tensor(columns[name], datatype) for name, datatype, _ in model.inputs}


def fits(dims: list[int], want: Tensor) -> bool:
    return len(dims) == len(want[2]) and all(w in (-1, dim) for w, dim in zip(want[2], dims, strict=True))


def read_predict(body: bytes, model: Model) -> Predict:
    document = members(parse_first(body), {"signature_name", "instances", "inputs"})
    signature = document.get("signature_name", "")
    if not isinstance(signature, str) or isinstance(signature, Number) or signature not in ("", "serving_default"):
        raise Refused("signature")
    if ("instances" in document) == ("inputs" in document):
        raise Refused("one of the two")
    if "inputs" in document:
        predict = Predict("column", inputs=read_inputs(document["inputs"], model))
    else:
        predict = Predict("row", inputs=read_instances(document["instances"], model))
        stacked = all(fits(predict.inputs[want[0]][0], want) for want in model.inputs)
        inner = all(fits(predict.inputs[want[0]][0][1:], want) for want in model.inputs)
        if not model.batched and not stacked and inner:
            if any(dims[0] != 1 for dims, _ in predict.inputs.values()):
                raise Refused("no batch axis")
            predict.form = "row_single"
            predict.inputs = {name: (dims[1:], contents) for name, (dims, contents) in predict.inputs.items()}
    if not all(fits(predict.inputs[want[0]][0], want) for want in model.inputs):
        raise Refused("shape")
    if model.batched:
        rows = {dims[0] for dims, _ in predict.inputs.values()}
        if len(rows) != 1 or 0 in rows:
            raise Refused("rows")
        predict.rows = rows.pop()
    return predict


# ---- replies


def nested(dims: list[int], contents: bytes, datatype: str, name: str) -> object:
    if datatype == "BYTES":
        return nested_strings(dims, iter(bytes_form.unpack(contents) or []), name.endswith("_bytes"))
    width = numbers.WIDTH_BYTES[datatype]
    if not dims:
        return numbers.value(contents, datatype)
    size = math.prod(dims[1:]) * width
    return [nested(dims[1:], contents[at * size : (at + 1) * size], datatype, name) for at in range(dims[0])]


def nested_strings(dims: list[int], elements: Iterator[bytes], as_base64: bool) -> object:
    if dims:
        return [nested_strings(dims[1:], elements, as_base64) for _ in range(dims[0])]
    if as_base64:
        return {"b64": base64.b64encode(next(elements)).decode()}
    try:
        return next(elements).decode()
    except UnicodeDecodeError as error:
        raise Refused("UTF-8") from error


def reply_document(model: Model, form: str, tensors: list[tuple[int, list[int], bytes]]) -> dict[str, object]:
    whole = {
        model.outputs[index][0]: nested(dims, contents, model.outputs[index][1], model.outputs[index][0])
        for index, dims, contents in tensors
    }
    bare = next(iter(whole.values())) if len(whole) == 1 else whole
    if form == "column":
        return {"outputs": bare}
    if form == "row_single":
        return {"predictions": [bare]}
    if any(not dims or dims[0] < 1 or dims[0] != tensors[0][1][0] for _, dims, _ in tensors):
        raise Refused("rows")
    if len(whole) == 1:
        return {"predictions": bare}
    columns: dict[str, list[object]] = {name: value for name, value in whole.items() if isinstance(value, list)}
    rows = range(tensors[0][1][0])
    return {"predictions": [{name: column[row] for name, column in columns.items()} for row in rows]}
