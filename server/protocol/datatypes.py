"""The tensor data types: one table of their names, codes and sizes in every notation that meets this server.

`code` is the number used below the Cython line (server/_fast/infer_spec.pxd) and in shared memory; it never changes.
Sources: KServe V2 `inference_rest.md` (names), Triton `model_config.proto` (TYPE_*), ONNX `onnx.proto` TensorProto
(element types). BF16 has no numpy type: its arrays carry the bits as uint16.
"""

from __future__ import annotations

from typing import NamedTuple


class Datatype(NamedTuple):
    """One element type; `size_bytes` is 0 for BYTES, whose elements vary; all names are ASCII."""

    name: str
    code: int
    size_bytes: int
    numpy: str
    config: str
    onnx: int
    onnxruntime: str


DATATYPES = (
    Datatype("BOOL", 1, 1, "bool", "TYPE_BOOL", 9, "tensor(bool)"),
    Datatype("UINT8", 2, 1, "uint8", "TYPE_UINT8", 2, "tensor(uint8)"),
    Datatype("UINT16", 3, 2, "uint16", "TYPE_UINT16", 4, "tensor(uint16)"),
    Datatype("UINT32", 4, 4, "uint32", "TYPE_UINT32", 12, "tensor(uint32)"),
    Datatype("UINT64", 5, 8, "uint64", "TYPE_UINT64", 13, "tensor(uint64)"),
    Datatype("INT8", 6, 1, "int8", "TYPE_INT8", 3, "tensor(int8)"),
    Datatype("INT16", 7, 2, "int16", "TYPE_INT16", 5, "tensor(int16)"),
    Datatype("INT32", 8, 4, "int32", "TYPE_INT32", 6, "tensor(int32)"),
    Datatype("INT64", 9, 8, "int64", "TYPE_INT64", 7, "tensor(int64)"),
    Datatype("FP16", 10, 2, "float16", "TYPE_FP16", 10, "tensor(float16)"),
    Datatype("FP32", 11, 4, "float32", "TYPE_FP32", 1, "tensor(float)"),
    Datatype("FP64", 12, 8, "float64", "TYPE_FP64", 11, "tensor(double)"),
    Datatype("BYTES", 13, 0, "object", "TYPE_STRING", 8, "tensor(string)"),
    Datatype("BF16", 14, 2, "uint16", "TYPE_BF16", 16, "tensor(bfloat16)"),
)

BY_NAME = {datatype.name: datatype for datatype in DATATYPES}
BY_CODE = {datatype.code: datatype for datatype in DATATYPES}
BY_ONNX = {datatype.onnx: datatype for datatype in DATATYPES}
BY_ONNXRUNTIME = {datatype.onnxruntime: datatype for datatype in DATATYPES}
