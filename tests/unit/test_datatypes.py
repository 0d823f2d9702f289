"""datatypes.py: one table, without gaps, in agreement with numpy."""

from __future__ import annotations

import numpy
import pytest

from server.protocol import datatypes
from server.protocol.datatypes import DATATYPES, Datatype


def test_codes_are_the_fixed_ones() -> None:
    names = (
        *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
        *("FP16", "FP32", "FP64", "BYTES", "BF16"),
    )
    assert {one.name: one.code for one in DATATYPES} == {name: code for code, name in enumerate(names, 1)}


def test_each_notation_names_a_type_once() -> None:
    for index in (datatypes.BY_NAME, datatypes.BY_CODE, datatypes.BY_ONNX, datatypes.BY_ONNXRUNTIME):
        assert len(index) == len(DATATYPES)
    assert len({one.config for one in DATATYPES}) == len(DATATYPES)


@pytest.mark.parametrize("datatype", [one for one in DATATYPES if one.size_bytes], ids=lambda one: one.name)
def test_sizes_are_those_of_numpy(datatype: Datatype) -> None:
    assert numpy.dtype(datatype.numpy).itemsize == datatype.size_bytes


def test_element_types_of_onnx() -> None:
    # TensorProto.DataType in onnx.proto.
    expected = {"FP32": 1, "UINT8": 2, "INT8": 3, "UINT16": 4, "INT16": 5, "INT32": 6, "INT64": 7, "BYTES": 8}
    expected |= {"BOOL": 9, "FP16": 10, "FP64": 11, "UINT32": 12, "UINT64": 13, "BF16": 16}
    assert {one.name: one.onnx for one in DATATYPES} == expected
