"""The .npy reader against NumPy itself, and files that are refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from server.cli_npy import ArrayError, decode

NAMES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}


def saved(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_every_type_and_order(name: str, order: str, layout: str) -> None:
    values = np.arange(-6, 18).astype(name).reshape(2, 3, 4)
    array = np.array(values.astype(values.dtype.newbyteorder(order)), order=layout)
    found = decode(saved(array))
    assert (found.dtype, found.shape) == (NAMES[name], (2, 3, 4))
    assert found.values == values.ravel().tolist()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version(version: tuple[int, int]) -> None:
    assert decode(saved(np.array([1, 2]), version)).values == [1, 2]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1, 1, 1, 1)])
def test_odd_shapes(shape: tuple[int, ...]) -> None:
    found = decode(saved(np.zeros(shape, np.float32)))
    assert (found.shape, len(found.values)) == (shape, int(np.prod(shape)))


def header(text: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode() + data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "signature"),
        (b"PK\3\4" + bytes(50), "signature"),
        (b"\x93NUMPY\1\0\xff\xff", "header is damaged"),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff", "header is damaged"),
        (b"\x93NUMPY\2\0\1", "signature"),
        (b"\x93NUMPY\x09\0\1\0 ", "header is damaged"),
        (header("{"), "header is damaged"),
        (header("__import__('os').abort()"), "header is damaged"),
        (header("[1]"), "header is damaged"),
        (header("(" * 3000), "header is damaged"),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"), "expected numbers or booleans"),
        (header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}"), "expected numbers or booleans"),
        (header("{'descr': '<U4', 'fortran_order': False, 'shape': (1,)}"), "expected numbers or booleans"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': 1}"), "expected a shape"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"), "expected a shape"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", bytes(4)), "expected 8 bytes"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9)}"), "expected 359999999964 bytes"),
    ],
)
def test_refusals(data: bytes, said: str) -> None:
    with pytest.raises(ArrayError, match=said):
        decode(data)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ArrayError, match="expected numbers"):
        decode(path.read_bytes())
