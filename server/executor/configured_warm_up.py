"""The runs that model_warmup of config.pbtxt asks for, before the model is ready."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Sequence

from server import log
from server.executor.backend import REFUSALS, Backend, LoadError, TensorBuffer, is_out_of_memory
from server.executor.batch_cap import BatchCap
from server.models.model_config import WarmUp, WarmUpInput
from server.protocol.datatypes import BY_NAME

#: A string in the V2 binary form is its length, four bytes, and its text.
_EMPTY_STRING_BYTES = 4


def run_warm_ups(
    backend: Backend, output_names: Sequence[str], warm_ups: Sequence[WarmUp], cap: BatchCap, *, is_batched: bool
) -> None:
    """Runs them in their order. is_batched: tensors have the batch axis in front of dims. Raises LoadError; but several
    rows for which memory runs out lower the executor's cap.
    """
    for sample in warm_ups:
        kept: list[ctypes.Array[ctypes.c_char]] = []
        rows = sample.batch_rows if is_batched else None
        try:
            inputs = [_buffer(tensor, rows, kept) for tensor in sample.inputs]
            for _ in range(sample.count):
                backend.run(inputs, output_names)
        except REFUSALS as error:
            if not is_out_of_memory(error) or rows is None or rows < 2:
                raise LoadError(f"model_warmup {sample.name!r}: {error or 'out of memory'}") from error
            cap.did_not_fit([rows])
            continue
        log.info("warmed_up", sample=sample.name, rows=sample.batch_rows, count=sample.count)


def _buffer(tensor: WarmUpInput, rows: int | None, kept: list[ctypes.Array[ctypes.c_char]]) -> TensorBuffer:
    dims = tensor.dims if rows is None else (rows, *tensor.dims)
    datatype = BY_NAME[tensor.datatype]
    size = math.prod(dims) * (datatype.size_bytes or _EMPTY_STRING_BYTES)
    memory = ctypes.create_string_buffer(size + 64)
    kept.append(memory)
    address = (ctypes.addressof(memory) + 63) // 64 * 64
    if tensor.is_random:
        # A bool has two values only.
        data = os.urandom(size) if tensor.datatype != "BOOL" else bytes(byte & 1 for byte in os.urandom(size))
        ctypes.memmove(address, data, size)
    return TensorBuffer(tensor.name, datatype.code, dims, address)
