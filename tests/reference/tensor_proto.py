"""tensorflow.serving.PredictRequest by the protobuf library: slow and obvious; see infer_wire."""

from __future__ import annotations

import math
from typing import Any

from server.protocol import messages
from tests.reference import bytes_form, infer_wire
from tests.reference.infer_json import Model, Refused, check_binary
from tests.reference.infer_wire import Request, check_rows, check_shape, parse
from tests.reference.numbers import WIDTH_BYTES

REQUEST = messages.message_class("tensorflow.serving.PredictRequest")
RESPONSE = messages.message_class("tensorflow.serving.PredictResponse")
TENSOR = messages.message_class("tensorflow.TensorProto")

#: TensorFlow's number -> (datatype, field of the elements)
TYPES = {
    1: ("FP32", "float_val"),
    2: ("FP64", "double_val"),
    3: ("INT32", "int_val"),
    4: ("UINT8", "int_val"),
    5: ("INT16", "int_val"),
    6: ("INT8", "int_val"),
    7: ("BYTES", "string_val"),
    9: ("INT64", "int64_val"),
    10: ("BOOL", "bool_val"),
    14: ("BF16", "half_val"),
    17: ("UINT16", "int_val"),
    19: ("FP16", "half_val"),
    22: ("UINT32", "uint32_val"),
    23: ("UINT64", "uint64_val"),
}
NUMBERS = {datatype: number for number, (datatype, _) in TYPES.items()}
VALUE_FIELDS = [field.name for field in TENSOR.DESCRIPTOR.fields if field.name.endswith("_val")]


def read_values(tensor: Any, datatype: str, field: str, count: int) -> bytes:
    """The elements of the *_val field: the last stands for all that are missing, zeros where there is none."""
    if count == 0 and not getattr(tensor, field):
        return b""
    for other in VALUE_FIELDS:
        if other != field and len(getattr(tensor, other)) and not len(getattr(tensor, field)):
            raise Refused("another field")
    values = list(getattr(tensor, field))
    if len(values) > count:
        raise Refused("too many")
    if datatype == "BYTES":
        elements = [*values, *[values[-1] if values else b""] * (count - len(values) if count < 1 << 25 else 0)]
        if len(values) < count and (count >= 1 << 25 or len(bytes_form.pack(elements)) > 64 << 20):
            raise Refused("filled")
        return bytes_form.pack(elements)
    if len(values) < count and count * WIDTH_BYTES[datatype] > 64 << 20:
        raise Refused("filled")
    packed = infer_wire.pack(values, "UINT16" if field == "half_val" else datatype)
    width = WIDTH_BYTES[datatype]
    missing = count - len(values)
    return packed + (packed[-width:] if packed else bytes(width)) * missing


def read_request(body: bytes, model: Model) -> Request:
    message = parse(REQUEST, body)
    request = Request()
    if message.model_spec.signature_name not in ("", "serving_default"):
        raise Refused("signature")
    wanted = {want[0]: want for want in model.inputs}
    for name, tensor in message.inputs.items():
        if name not in wanted or tensor.dtype not in TYPES:
            raise Refused("input")
        datatype, field = TYPES[tensor.dtype]
        dims = [dim.size for dim in tensor.tensor_shape.dim]
        check_shape(wanted[name], datatype, dims)
        if datatype == "BYTES" and tensor.tensor_content and math.prod(dims):
            raise Refused("tensor_content")
        contents = (datatype != "BYTES" and tensor.tensor_content) or read_values(
            tensor, datatype, field, math.prod(dims)
        )
        check_binary(datatype, dims, contents)
        request.inputs[name] = (dims, contents)
    names = [name for name, _, _ in model.outputs]
    for name in message.output_filter:
        if name not in names or names.index(name) in request.outputs:
            raise Refused("output")
        request.outputs.append(names.index(name))
    request.outputs = request.outputs or list(range(len(names)))
    check_rows(request, model)
    return request


def read_model(body: bytes) -> dict[str, Any] | None:
    message = parse(REQUEST, body)
    if not message.HasField("model_spec"):
        return None
    spec = message.model_spec
    return {
        "name": spec.name.encode(),
        "version": spec.version.value if spec.WhichOneof("version_choice") == "version" else None,
        "label": spec.version_label.encode(),
        "signature": spec.signature_name.encode(),
    }
