"""ONNX Runtime in this process, the oracle of the conformance tests: same file, same batch size, same bits."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from server.protocol.datatypes import BY_NAME, BY_ONNXRUNTIME

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

Array = np.ndarray[Any, Any]


class Reference:
    """One session. BF16 tensors are arrays of their bits (uint16) on both sides."""

    def __init__(self, model: bytes | Path) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self._session = ort.InferenceSession(model if isinstance(model, bytes) else str(model), options)
        self.inputs = {tensor.name: BY_ONNXRUNTIME[tensor.type].name for tensor in self._session.get_inputs()}
        self.outputs = {tensor.name: BY_ONNXRUNTIME[tensor.type].name for tensor in self._session.get_outputs()}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name, at the batch size of the feeds."""
        binding = self._session.io_binding()
        arrays = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        for name, array in arrays.items():
            onnx = BY_NAME[self.inputs[name]].onnx
            # ascontiguousarray makes a scalar one of rank one: the shape is the feed's own.
            binding.bind_input(name, "cpu", 0, onnx, list(np.shape(feeds[name])), array.ctypes.data)
        for name in self.outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        found = {}
        for (name, datatype), value in zip(self.outputs.items(), binding.get_outputs(), strict=True):
            raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes()) if all(value.shape()) else b""
            found[name] = np.frombuffer(raw, np.dtype(BY_NAME[datatype].numpy)).reshape(value.shape())
        return found

    def run_parts(self, feeds: Mapping[str, Array], capacity_rows: int) -> dict[str, Array]:
        """The same in runs of at most so many rows: how a request is run that has more rows than a slab."""
        rows = len(next(iter(feeds.values())))
        starts = range(0, rows, capacity_rows)
        parts = [self.run({k: v[at : at + capacity_rows] for k, v in feeds.items()}) for at in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}


def same_bits(found: Array, expected: Array) -> bool:
    """Shape and every bit: NaN payloads and signs of zero count."""
    return found.shape == expected.shape and found.tobytes() == expected.tobytes()


def extremes(datatype: str, count: int, seed: int = 0) -> Array:
    """Random bits behind the ends of a datatype's range, zeros, infinities, subnormals and NaN payloads."""
    rng = np.random.default_rng(seed)
    numpy_type = np.dtype(BY_NAME[datatype].numpy)
    if datatype == "BOOL":
        return np.resize(np.array([True, False, True, True]), count)
    raw = rng.integers(0, 256, count * numpy_type.itemsize, dtype=np.uint8).view(numpy_type)
    corners = _corners(datatype, numpy_type)
    raw[: len(corners)] = corners[:count]
    return raw


def _corners(datatype: str, numpy_type: np.dtype[Any]) -> Array:
    if numpy_type.kind in "iu" and datatype != "BF16":
        info = np.iinfo(numpy_type)
        return np.array([info.min, info.max, 0, 1, info.max - 1, info.min + 1], numpy_type)
    bits: dict[str, Sequence[int]] = {
        # zero, -zero, least subnormal, greatest, least normal, infinities, quiet and signalling NaN with payloads
        "FP16": (0, 0x8000, 1, 0x7BFF, 0x0400, 0x7C00, 0xFC00, 0x7E00, 0xFE37, 0x7D01),
        "BF16": (0, 0x8000, 1, 0x7F7F, 0x0080, 0x7F80, 0xFF80, 0x7FC0, 0xFFC3, 0x7FA5),
        "FP32": (0, 1 << 31, 1, 0x7F7FFFFF, 0x00800000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC12345, 0x7FA54321),
        "FP64": (
            0,
            1 << 63,
            1,
            0x7FEFFFFFFFFFFFFF,
            1 << 52,
            0x7FF0000000000000,
            0xFFF0000000000000,
            0x7FF8000000000000,
            0xFFF8000000012345,
            0x7FF4000000054321,
        ),
    }
    unsigned = np.dtype(f"uint{numpy_type.itemsize * 8}")
    return np.array(bits[datatype], unsigned).view(numpy_type)


def without_payloads(datatype: str, array: Array) -> Array:
    """NaN bits replaced by the one NaN that JSON has a word for."""
    if datatype == "BF16":
        is_nan = (array & 0x7FFF) > 0x7F80
        return np.where(is_nan, np.uint16(0x7FC0), array)
    if array.dtype.kind != "f":
        return array
    return np.where(np.isnan(array), array.dtype.type("nan"), array)
