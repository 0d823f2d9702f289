"""A reader of NumPy's .npy files with the standard library: dtype, shape, and the elements in C order.

Source: numpy.lib.format, versions 1.0 to 3.0. Object arrays (pickles) and structured types are refused; nothing is
evaluated.
"""

from __future__ import annotations

import ast
import math
import struct
from dataclasses import dataclass

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 10_000

#: Kind and size -> (struct's code, V2 datatype).
_TYPES = {
    "b1": ("?", "BOOL"),
    "u1": ("B", "UINT8"),
    "u2": ("H", "UINT16"),
    "u4": ("I", "UINT32"),
    "u8": ("Q", "UINT64"),
    "i1": ("b", "INT8"),
    "i2": ("h", "INT16"),
    "i4": ("i", "INT32"),
    "i8": ("q", "INT64"),
    "f2": ("e", "FP16"),
    "f4": ("f", "FP32"),
    "f8": ("d", "FP64"),
}


class ArrayError(ValueError):
    """The file is no .npy array, or one of a kind that is not read."""


@dataclass(frozen=True, slots=True)
class Array:
    """Elements in C order, whatever the file's order and endianness are."""

    dtype: str
    shape: tuple[int, ...]
    values: list[bool | int | float]


def decode(data: bytes) -> Array:
    """The array in a .npy file; raises ArrayError."""
    header, start = _header(data)
    descr, shape, fortran = header.get("descr"), header.get("shape"), header.get("fortran_order")
    if not isinstance(descr, str) or len(descr) < 3 or descr[1:] not in _TYPES or descr[0] not in "<>|=":
        raise ArrayError(f"expected numbers or booleans of a fixed width, the file has {descr!r}")
    if not isinstance(shape, tuple) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ArrayError(f"expected a shape, the file has {shape!r}")
    code, dtype = _TYPES[descr[1:]]
    count = math.prod(shape)
    order = ">" if descr[0] == ">" else "<"
    size_bytes = count * struct.calcsize(order + code)
    if len(data) - start != size_bytes:
        raise ArrayError(f"expected {size_bytes} bytes for shape {list(shape)}, the file has {len(data) - start}")
    values: list[bool | int | float] = list(struct.unpack_from(f"{order}{count}{code}", data, start))
    return Array(dtype, shape, _to_c_order(values, shape) if fortran and len(shape) > 1 else values)


def _header(data: bytes) -> tuple[dict[str, object], int]:
    if not data.startswith(MAGIC) or len(data) < 10:
        raise ArrayError("expected a .npy file: it does not begin with NumPy's signature")
    length_at, form = (8, "<H") if data[6] == 1 else (8, "<I")
    start = length_at + struct.calcsize(form)
    length = struct.unpack_from(form, data, length_at)[0] if len(data) >= start else MAX_HEADER_BYTES + 1
    if data[6] not in (1, 2, 3) or length > MAX_HEADER_BYTES or start + length > len(data):
        raise ArrayError("the file's header is damaged")
    try:
        header = ast.literal_eval(data[start : start + length].decode("utf-8").strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ArrayError("the file's header is damaged") from None
    if not isinstance(header, dict):
        raise ArrayError("the file's header is damaged")
    return header, start + length


def _to_c_order(values: list[bool | int | float], shape: tuple[int, ...]) -> list[bool | int | float]:
    strides = [math.prod(shape[:axis]) for axis in range(len(shape))]
    offsets = [0]
    for size, stride in zip(shape, strides, strict=True):
        offsets = [offset + index * stride for offset in offsets for index in range(size)]
    return [values[offset] for offset in offsets]
