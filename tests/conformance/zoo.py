"""The models of the conformance tests: one of each kind that the protocol treats differently.

Written by tests.support.onnx_writer, so that what a test compares with is plain: identities, sums, shapes.
"""

from __future__ import annotations

from pathlib import Path

from server.demo import files
from tests.support import onnx_writer
from tests.support.onnx_writer import FIXED_WIDTH_TYPES, Graph

#: Rows of `every_dtype`: elements per row of each of its tensors.
EVERY_DTYPE_WIDTH = 8
#: Elements per row of `wide`: a row of 32 KiB spans several TCP segments.
WIDE_WIDTH = 8192
#: The inputs of `several`: name, datatype, dims.
SEVERAL = (
    ("image", "UINT8", [-1, 2, 3]),
    ("rank one", "INT64", [-1]),
    ('quoted "ä"', "FP32", [-1, 5]),
    ("flag", "BOOL", [-1, 1, 1]),
)


def every_dtype() -> bytes:
    """One input per fixed-width datatype, named like it in lower case, each copied to NAME_out."""
    return onnx_writer.identities([(name.lower(), name, [-1, EVERY_DTYPE_WIDTH]) for name in FIXED_WIDTH_TYPES])


def nonzero() -> bytes:
    """`x` FP32 [-1] -> `places` INT64 [1, -1]: as many as the values make it."""
    graph = Graph("nonzero")
    graph.input("x", "FP32", [-1])
    graph.node("NonZero", ["x"], ["places"])
    graph.output("places", "INT64", [1, -1])
    return graph.model()


def fill() -> bytes:
    """`shape` INT64 [-1] -> `zeros` FP32 of that shape, whose rank is not in the file: the request sets its size."""
    graph = Graph("fill")
    graph.input("shape", "INT64", [-1])
    graph.node("ConstantOfShape", ["shape"], ["zeros"])
    graph.output("zeros", "FP32", None)
    return graph.model()


def models() -> dict[str, bytes]:
    """Name -> file."""
    return {
        "digits": (files.MODEL / "1" / "model.onnx").read_bytes(),
        "mnist": onnx_writer.mlp(3, 4, 2),
        "every_dtype": every_dtype(),
        "several": onnx_writer.identities(SEVERAL),
        "add_sub": onnx_writer.add_sub(),
        "fails": onnx_writer.fails_on_index(),
        "probe": onnx_writer.batch_probe(),
        "wide": onnx_writer.identity("FP32", [-1, WIDE_WIDTH]),
        "fixed": onnx_writer.fixed_batch(),
        "time_major": onnx_writer.batch_not_first(),
        "dynamic": onnx_writer.identity("FP32", [-1, -1]),
        "volume": onnx_writer.identity("FP32", [-1, -1, -1]),
        "nonzero": nonzero(),
        "fill": fill(),
    }


def field_models() -> dict[str, bytes]:
    """Name -> file of what clients of other projects are tested with; `types` has each datatype that they all know."""
    tensors = [(name.lower(), name, [-1, EVERY_DTYPE_WIDTH]) for name in onnx_writer.ELEMENT_TYPES if name != "BF16"]
    return {
        "mnist": onnx_writer.mlp(3, 4, 2),
        "types": onnx_writer.identities(tensors),
        "typed": onnx_writer.identities([one for one in tensors if one[1] != "FP16"]),
        "wide": onnx_writer.identity("FP32", [-1, WIDE_WIDTH]),
    }


def write(root: Path) -> Path:
    """Lays them out as a model repository; `fixed` has versions 1 and 7, of which the latest is served."""
    onnx_writer.write_repository(root, {"fixed": onnx_writer.fixed_batch(1, 1)})
    onnx_writer.write_repository(root, {"fixed": models()["fixed"]}, version=7)
    return onnx_writer.write_repository(root, {name: file for name, file in models().items() if name != "fixed"})
