"""Tensors of golden checks as numpy arrays: out of V2 JSON, out of ONNX's TensorProto, into and out of a backend.

BF16 has no numpy type: its arrays are float32, exactly. BYTES are object arrays of bytes. The files may be hostile:
they are read with a bound, must be regular files inside the model's directory, and nothing of a file's content but
numbers, names and shapes goes into an error.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from server.executor.backend import ProducedTensor, TensorBuffer
from server.models.protobuf_reader import BYTES, FIXED32, FIXED64, VARINT, Field, ProtobufError, Reader, signed
from server.protocol.datatypes import BY_CODE, BY_NAME, BY_ONNX, Datatype

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

MAX_FILE_BYTES = 256 << 20
MAX_RANK = 64
#: TensorProto's typed fields: number -> how one element lies in a packed field.
_FLOAT, _INT32, _STRING, _INT64, _RAW, _DOUBLE, _UINT64 = 4, 5, 6, 7, 9, 10, 11
_TYPED = {
    _FLOAT: ("FP32",),
    _INT32: ("INT32", "INT16", "INT8", "UINT16", "UINT8", "BOOL", "FP16", "BF16"),
    _INT64: ("INT64",),
    _DOUBLE: ("FP64",),
    _UINT64: ("UINT32", "UINT64"),
}


class TensorError(ValueError):
    """The tensor is not what it should be; the text says how."""


def read_bounded(path: Path, folder: Path) -> bytes:
    """The content of a regular file that lies in `folder`. Raises TensorError or OSError."""
    if not path.resolve(strict=True).is_relative_to(folder.resolve()):
        raise TensorError("is a link that leads out of the model's directory")
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise TensorError("is not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise TensorError(f"has {status.st_size} bytes; expected at most {MAX_FILE_BYTES}")
        return file.read(MAX_FILE_BYTES)


def from_json(tensor: Any) -> tuple[str, Datatype, Array]:
    """Name, datatype and elements of one entry of `inputs` or `outputs`."""
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise TensorError("expected tensors with name, datatype, shape and data")
    name = tensor["name"]
    datatype = BY_NAME.get(tensor.get("datatype", ""))
    if datatype is None:
        raise TensorError(f"{name!r}: expected one of the V2 datatypes, got {str(tensor.get('datatype'))[:32]!r}")
    shape, data = tensor.get("shape"), tensor.get("data")
    if not isinstance(data, list):
        raise TensorError(f"{name!r}: expected its elements in `data`; ask for JSON, without binary data")
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_RANK
        or not all(isinstance(size, int) and 0 <= size < 1 << 62 for size in shape)
    ):
        raise TensorError(f"{name!r}: expected a shape of whole numbers")
    flat: list[Any] = []
    _flatten(data, flat, 0)
    count = _count(shape)
    if len(flat) != count:
        raise TensorError(f"{name!r}: expected {count} elements for shape {shape}, got {len(flat)}")
    return name, datatype, _array(flat, datatype, name).reshape(shape)


def from_proto(data: bytes) -> tuple[str, Datatype, Array]:
    """Name, datatype and elements of a TensorProto (onnx.proto3)."""
    reader = Reader(BytesIO(data), len(data))
    dims: list[int] = []
    name, code = "", 0
    raw: bytes | None = None
    strings: list[bytes] = []
    typed: list[Field] = []
    try:
        for item in reader.fields(0, len(data)):
            if item.number == 1:
                dims += _numbers(reader, item, "INT64")
            elif item.number == 2 and item.wire == VARINT:
                code = item.value
            elif item.number == 8 and item.wire == BYTES:
                name = reader.read(item.start, item.end).decode("utf-8", "replace")[:256]
            elif item.number == _RAW and item.wire == BYTES:
                raw = reader.read(item.start, item.end)
            elif item.number == _STRING and item.wire == BYTES:
                strings.append(reader.read(item.start, item.end))
            elif item.number in _TYPED:
                typed.append(item)
            elif item.number == 14 and item.value == 1:
                raise TensorError("keeps its elements in another file; expected them in the tensor")
        datatype = BY_ONNX.get(code)
        if datatype is None:
            raise TensorError(f"is no tensor of a type that is served (TensorProto.data_type {code})")
        if len(dims) > MAX_RANK or any(size < 0 for size in dims):
            raise TensorError("has a shape that no tensor has")
        flat = _elements(reader, datatype, raw, strings, typed)
    except ProtobufError as error:
        raise TensorError(f"is no TensorProto: it {error}") from None
    if flat.size != _count(dims):
        raise TensorError(f"has {flat.size} elements; expected {_count(dims)} for shape {dims}")
    return name, datatype, flat.reshape(dims)


def _elements(reader: Reader, datatype: Datatype, raw: bytes | None, strings: list[bytes], typed: list[Field]) -> Array:
    if datatype.name == "BYTES":
        return _objects(strings)
    if raw is not None:
        if len(raw) % datatype.size_bytes:
            raise TensorError(f"has {len(raw)} bytes of elements of {datatype.size_bytes} bytes each")
        return _decoded(raw, datatype)
    values: list[Any] = []
    for item in typed:
        if datatype.name not in _TYPED[item.number]:
            raise TensorError(f"keeps {datatype.name} in a field of another type")
        values += _numbers(reader, item, datatype.name)
    if datatype.name in ("FP16", "BF16"):
        # The bits, as numbers.
        return _decoded(b"".join(struct.pack("<H", value & 0xFFFF) for value in values), datatype)
    return _array([bool(value) for value in values] if datatype.name == "BOOL" else values, datatype, "tensor")


def _numbers(reader: Reader, item: Field, dtype: str) -> list[Any]:
    """The elements of one field, packed or not."""
    if item.number in (_FLOAT, _DOUBLE):
        if item.wire not in (BYTES, FIXED32, FIXED64):
            raise TensorError("is no TensorProto: it has numbers of a wrong form")
        data = reader.read(item.start, item.end)
        size, letter = (4, "f") if item.number == _FLOAT else (8, "d")
        if len(data) % size:
            raise TensorError("is no TensorProto: it has half a number")
        return list(struct.unpack(f"<{len(data) // size}{letter}", data))
    values: list[int] = []
    if item.wire == VARINT:
        values.append(item.value)
    else:
        data = reader.read(item.start, item.end)
        value = shift = 0
        for byte in data:
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                values.append(value)
                value = shift = 0
            elif shift > 63:
                raise TensorError("is no TensorProto: a number does not end")
    return values if dtype.startswith("U") else [signed(value & ((1 << 64) - 1)) for value in values]


def _flatten(data: list[Any], into: list[Any], depth: int) -> None:
    if depth > MAX_RANK:
        raise TensorError(f"expected data nested at most {MAX_RANK} deep")
    for item in data:
        if isinstance(item, list):
            _flatten(item, into, depth + 1)
        else:
            into.append(item)


def _array(flat: list[Any], datatype: Datatype, name: str) -> Array:
    """A flat array of elements as JSON has them."""
    wanted, text = bool, "true and false"
    if datatype.name == "BYTES":
        if not all(isinstance(item, str | bytes) for item in flat):
            raise TensorError(f"{name!r}: expected strings")
        return _objects([item.encode() if isinstance(item, str) else item for item in flat])
    kinds: tuple[type, ...] = (wanted,)
    if datatype.name.startswith(("INT", "UINT")):
        kinds, text = (int,), "whole numbers"
    elif datatype.name != "BOOL":
        kinds, text = (int, float), "numbers"
    if not all(type(item) in kinds for item in flat):
        raise TensorError(f"{name!r}: expected {text}")
    try:
        numbers = numpy.array(flat, numpy.float32 if datatype.name == "BF16" else datatype.numpy)
    except OverflowError:
        raise TensorError(f"{name!r}: expected numbers in the range of {datatype.name}") from None
    return _rounded(numbers) if datatype.name == "BF16" else numbers


def _objects(values: Sequence[bytes]) -> Array:
    array = numpy.empty(len(values), object)
    array[:] = values
    return array


def _rounded(numbers: Array) -> Array:
    """float32 with the values that BF16 has, to nearest even."""
    bits = numbers.view(numpy.uint32).astype(numpy.uint64)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    rounded = nearest.astype(numpy.uint32).view(numpy.float32)
    return numpy.where(numpy.isnan(numbers), numbers, rounded)


def _decoded(data: bytes, datatype: Datatype) -> Array:
    if datatype.name == "BF16":
        return (numpy.frombuffer(data, "<u2").astype(numpy.uint32) << 16).view(numpy.float32)
    return numpy.frombuffer(data, datatype.numpy)


def _count(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def buffer(name: str, datatype: Datatype, array: Array, keep: list[Any]) -> TensorBuffer:
    """What a backend takes; `keep` holds its memory."""
    if datatype.name == "BYTES":
        data = b"".join(struct.pack("<I", len(item)) + item for item in array.ravel())
    elif datatype.name == "BF16":
        data = (numpy.ascontiguousarray(array).view(numpy.uint32) >> 16).astype("<u2").tobytes()
    else:
        data = array.tobytes()
    memory = ctypes.create_string_buffer(len(data) + 64)
    address = (ctypes.addressof(memory) + 63) // 64 * 64
    ctypes.memmove(address, data, len(data))
    keep.append(memory)
    return TensorBuffer(name, datatype.code, array.shape, address)


def produced_array(produced: ProducedTensor, code: int) -> Array:
    """An output's elements, copied."""
    datatype = BY_CODE[code]
    data = ctypes.string_at(produced.address, produced.size_bytes) if produced.size_bytes else b""
    if datatype.name != "BYTES":
        return _decoded(data, datatype).reshape(produced.dims)
    values = []
    position = 0
    while position < len(data):
        (length,) = struct.unpack_from("<I", data, position)
        values.append(data[position + 4 : position + 4 + length])
        position += 4 + length
    return _objects(values).reshape(produced.dims)
