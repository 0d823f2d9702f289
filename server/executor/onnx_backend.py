"""ONNX Runtime behind the Backend protocol: the only module that imports onnxruntime."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

from server.executor.backend import LoadError, ModelError, ProducedTensor, Run, TensorBuffer
from server.protocol.datatypes import BY_CODE

#: Datatype code -> onnx.TensorProto.DataType, the number that IOBinding takes for every fixed-width type.
_ELEMENT_TYPES: dict[int, int] = {code: datatype.onnx for code, datatype in BY_CODE.items()}
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:/[^\s:'\"/]+)+/?(?::\d+)?")
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_MAX_TEXT = 240


def client_text(error: BaseException) -> str:
    """ONNX Runtime's message without paths and source locations, at most 240 characters."""
    text = _PREFIX.sub("", str(error))
    text = " ".join(_PATH.sub("", text).split())
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


class OnnxBackend:
    """One InferenceSession; Run is thread-safe, so all instances of a process share it and its weights."""

    def __init__(self, path: Path, *, intra_op_threads: int) -> None:
        """Loads `path`. Raises LoadError. Threads never spin: an idle model costs nothing."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = intra_op_threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.add_session_config_entry("session.set_denormal_as_zero", "0")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise LoadError(client_text(error)) from error
        self._raw: Any = self._session._sess
        self._run_options = ort.RunOptions()

    @property
    def device(self) -> str:
        return "cpu"

    def prepare(self, inputs: Sequence[TensorBuffer], outputs: Sequence[TensorBuffer]) -> Run:
        binding = self._session.io_binding()
        for tensor in inputs:
            self._bind_input(binding, tensor)
        for tensor in outputs:
            binding.bind_output(
                tensor.name, "cpu", 0, _ELEMENT_TYPES[tensor.datatype], list(tensor.dims), tensor.address
            )
        raw_run, raw_binding, run_options = self._raw.run_with_iobinding, binding._iobinding, self._run_options

        def run(_keep: object = binding) -> None:
            # The wrapper's run_with_iobinding adds checks for other providers: a third of the call at batch size one.
            try:
                raw_run(raw_binding, run_options)
            except Exception as error:
                raise ModelError(client_text(error)) from error

        return run

    def run(self, inputs: Sequence[TensorBuffer], output_names: Sequence[str]) -> list[ProducedTensor]:
        binding = self._session.io_binding()
        for tensor in inputs:
            self._bind_input(binding, tensor)
        for name in output_names:
            binding.bind_output(name, "cpu")
        try:
            self._session.run_with_iobinding(binding, self._run_options)
        except Exception as error:
            raise ModelError(client_text(error)) from error
        values = binding.get_outputs()
        return [ProducedTensor(tuple(v.shape()), v.data_ptr(), v.tensor_size_in_bytes(), v) for v in values]

    @staticmethod
    def _bind_input(binding: Any, tensor: TensorBuffer) -> None:
        binding.bind_input(tensor.name, "cpu", 0, _ELEMENT_TYPES[tensor.datatype], list(tensor.dims), tensor.address)
