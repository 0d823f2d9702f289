"""ONNX Runtime behind the Backend protocol: the only module that imports onnxruntime."""

from __future__ import annotations

import array
import ctypes
import math
import os
import re
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

from server._fast.string_tensor import assign, is_known_layout, pack
from server.executor import providers
from server.executor.backend import (
    DeviceLostError,
    LoadError,
    ModelError,
    OutOfMemoryError,
    ProducedTensor,
    Run,
    TensorBuffer,
)
from server.executor.piped import piped
from server.executor.run_failures import Failure, failure_of
from server.models.model_config import DEFAULT_SESSION, SessionSettings
from server.models.providers import CPU_PROVIDER, CUDA, TENSORRT, of_device
from server.option_values import AUTO, CPU
from server.protocol.assignment import Assignment
from server.protocol.datatypes import BY_CODE, BY_NAME

#: Datatype code -> onnx.TensorProto.DataType, the number that IOBinding takes for every fixed-width type.
_ELEMENT_TYPES: dict[int, int] = {code: datatype.onnx for code, datatype in BY_CODE.items()}
_PATH = re.compile(r"(?:\b[A-Za-z]:)?(?:/[^\s:'\"/]+)+/?(?::\d+)?")
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
#: The C++ function that an error comes from.
_SIGNATURE = re.compile(r"(?:\bconst )?(?:[\w:]+[*&]? )?\bonnxruntime::[\w:~<>]+\([^()]*\)(?: const)?:? ")
#: What CUDA's errors say of the host.
_WHERE = re.compile(r" ?; (?:GPU|hostname|file|line|expr)=[^;]*")
#: In bytes too, with the sign for what is left out: an arena has room for 240.
_MAX_TEXT = 236
_BYTES = BY_NAME["BYTES"]
_INT64 = BY_NAME["INT64"]
#: No BYTES tensor is longer: a slab has room for less.
_MAX_BYTES = 1 << 40
#: An ONNX file: `shape` INT64 -> Expand of the string "abc" -> `strings`. ONNX Runtime's Python face makes no empty
#: tensor of strings by itself.
STRINGS_MODEL = bytes.fromhex(
    "0808120b6f6e6e785f7772697465723a6d0a280a04746578740a0573686170651207737472696e67731a08457870616e645f302206457870"
    "616e641207737472696e67732a0d100832036162634204746578745a180a057368617065120f0a0d080712090a0712056261746368620f0a"
    "07737472696e677312040a02080842040a001011"
)
STRINGS_TEXT = b"abc"


def client_text(error: BaseException) -> str:
    """ONNX Runtime's message without paths, source locations and signatures; of a long one the begin and the end, which
    says what would be right.
    """
    text = _WHERE.sub("", _PREFIX.sub("", str(error)))
    text = _SIGNATURE.sub("", " ".join(_PATH.sub("", text).split()))
    if len(text) <= _MAX_TEXT:
        return text
    return f"{text[: _MAX_TEXT // 2].rstrip()} … {text[3 - _MAX_TEXT // 2 :].lstrip()}"


def run_error(error: Exception) -> ModelError | DeviceLostError:
    """What a runner is told of an exception of ONNX Runtime."""
    kinds: dict[Failure, type[ModelError | DeviceLostError]] = {
        Failure.OUT_OF_MEMORY: OutOfMemoryError,
        Failure.DEVICE_LOST: DeviceLostError,
    }
    return kinds.get(failure_of(error), ModelError)(client_text(error))


class OnnxBackend:
    """One InferenceSession; Run is thread-safe, so all instances of a process share it and its weights."""

    def __init__(
        self,
        path: Path,
        *,
        intra_op_threads: int,
        settings: SessionSettings = DEFAULT_SESSION,
        device: str = AUTO,
        is_whole: bool = False,
    ) -> None:
        """Loads `path` on `device` (--device), unless its settings name providers. Raises LoadError. Threads never
        spin: an idle model costs nothing. is_whole: no part of the model is in other files.
        """
        options = _session_options(settings)
        options.intra_op_num_threads = intra_op_threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.add_session_config_entry("session.set_denormal_as_zero", "0")
        # By whom each node runs, once it is loaded.
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        self._choice = providers.choose(ort, settings.providers, device)
        try:
            # Other providers may want to know where the model lies.
            with piped(path) if is_whole and not self._choice.wanted else nullcontext(path) as source:
                self._session = _session(source, options, self._choice, intra_op_threads)
        except Exception as error:
            raise LoadError(client_text(error)) from error
        providers.verify(self._choice, self._session.get_providers())
        #: ONNX Runtime copies inputs to these devices when they are bound, not when the model runs.
        self._binds_again = any(provider.name in (CUDA, TENSORRT) for provider in self._choice.wanted)
        self._raw: Any = self._session._sess
        self._run_options = ort.RunOptions()
        #: For runs whose errors ONNX Runtime has written to stderr before.
        self._quietly = ort.RunOptions()
        self._quietly.log_severity_level = 4
        self._giving_back = _giving_back(self._choice, settings)
        tensors = [*self._session.get_inputs(), *self._session.get_outputs()]
        self._strings = _Strings() if any(t.type == _BYTES.onnxruntime for t in tensors) else None

    @property
    def device(self) -> str:
        return self.assignment.device

    @property
    def assignment(self) -> Assignment:
        """Who runs how many nodes of the optimised graph."""
        nodes: dict[str, int] = {}
        for provider, _ in self.nodes():
            nodes[provider] = nodes.get(provider, 0) + 1
        return Assignment(providers.device_of(self._choice, nodes), nodes, self._choice.fallback)

    def nodes(self) -> list[tuple[str, str]]:
        """(execution provider, operator) of each node of the optimised graph; empty where ONNX Runtime does not say."""
        if not hasattr(self._session, "get_provider_graph_assignment_info"):
            return []
        return [
            (group.ep_name, node.op_type)
            for group in self._session.get_provider_graph_assignment_info()
            for node in group.get_nodes()
        ]

    def prepare(self, inputs: Sequence[TensorBuffer], outputs: Sequence[TensorBuffer]) -> Run:
        if self._binds_again:
            return lambda: self._bound(inputs, outputs)()
        return self._bound(inputs, outputs)

    def _bound(self, inputs: Sequence[TensorBuffer], outputs: Sequence[TensorBuffer]) -> Run:
        binding = self._session.io_binding()
        try:
            for tensor in inputs:
                self._bind_input(binding, tensor)
            for tensor in outputs:
                binding.bind_output(
                    tensor.name, "cpu", 0, _ELEMENT_TYPES[tensor.datatype], list(tensor.dims), tensor.address
                )
        except Exception as error:
            # Inputs are copied to an accelerator when they are bound.
            raise run_error(error) from error
        raw_run, raw_binding, run_options = self._raw.run_with_iobinding, binding._iobinding, self._run_options

        def run(_keep: object = binding) -> None:
            # The wrapper's run_with_iobinding adds checks for other providers: a third of the call at batch size one.
            try:
                raw_run(raw_binding, run_options)
            except Exception as error:
                self._run_again(raw_binding, error)

        return run

    def _run_again(self, raw_binding: Any, error: Exception) -> None:
        """If memory ran out: once more without what ONNX Runtime's arenas keep for later, which may be as much again
        in pieces of other sizes. Raises ModelError or DeviceLostError.
        """
        failed = run_error(error)
        if not isinstance(failed, OutOfMemoryError):
            raise failed from error
        self._give_back(raw_binding)
        try:
            self._raw.run_with_iobinding(raw_binding, self._quietly)
        except Exception as again:
            self._give_back(raw_binding)
            raise run_error(again) from again

    def _give_back(self, raw_binding: Any) -> None:
        """Unused memory of the arenas goes back to the system or the device."""
        while options := self._giving_back:
            try:
                self._raw.run_with_iobinding(raw_binding, options[0])
            except Exception as error:
                if "arena based allocator" in str(error):
                    self._giving_back = options[1:]
                    continue
            # It was terminated, as was asked for.
            return

    def run(self, inputs: Sequence[TensorBuffer], output_names: Sequence[str]) -> list[ProducedTensor]:
        binding = self._session.io_binding()
        try:
            for tensor in inputs:
                if tensor.datatype == _BYTES.code and self._strings is not None:
                    binding.bind_ortvalue_input(tensor.name, self._strings.made_of(tensor))
                else:
                    self._bind_input(binding, tensor)
            for name in output_names:
                binding.bind_output(name, "cpu")
        except (ModelError, DeviceLostError):
            raise
        except Exception as error:
            raise run_error(error) from error
        try:
            self._raw.run_with_iobinding(binding._iobinding, self._run_options)
        except Exception as error:
            self._run_again(binding._iobinding, error)
        return [_produced(name, value) for name, value in zip(output_names, binding.get_outputs(), strict=True)]

    @staticmethod
    def _bind_input(binding: Any, tensor: TensorBuffer) -> None:
        binding.bind_input(tensor.name, "cpu", 0, _ELEMENT_TYPES[tensor.datatype], list(tensor.dims), tensor.address)


def _session_options(settings: SessionSettings) -> Any:
    options = ort.SessionOptions()
    options.inter_op_num_threads = settings.inter_op_threads
    modes = ort.ExecutionMode
    options.execution_mode = modes.ORT_PARALLEL if settings.is_parallel else modes.ORT_SEQUENTIAL
    if settings.mem_arena is not None:
        options.enable_cpu_mem_arena = settings.mem_arena
    if settings.mem_pattern is not None:
        options.enable_mem_pattern = settings.mem_pattern
    levels = ort.GraphOptimizationLevel
    # The numbers of Triton's optimization.graph.level.
    options.graph_optimization_level = {
        -1: levels.ORT_ENABLE_BASIC,
        1: levels.ORT_ENABLE_EXTENDED,
        2: levels.ORT_DISABLE_ALL,
    }.get(settings.graph_level, levels.ORT_ENABLE_ALL)
    for key, value in settings.entries:
        options.add_session_config_entry(key, value)
    return options


def _giving_back(choice: providers.Choice, settings: SessionSettings) -> tuple[Any, ...]:
    """Options of runs that end at once with their arenas shrunk: all arenas, or those of the host alone."""
    host = [] if settings.mem_arena is False else ["cpu:0"]
    devices = [
        f"gpu:{dict(provider.options).get('device_id', '0')}" for provider in choice.wanted if provider.name == CUDA
    ]
    made = []
    for arenas in [host + devices, host] if devices else [host]:
        if arenas:
            options = ort.RunOptions()
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", ";".join(arenas))
            options.terminate = True
            options.log_severity_level = 4
            made.append(options)
    return tuple(made)


def _session(path: Path, options: Any, choice: providers.Choice, threads: int) -> Any:
    choice = providers.with_threads(choice, threads)
    if not choice.plugins:
        return ort.InferenceSession(str(path), options, providers=[*choice.builtin, CPU_PROVIDER])
    for devices, given in choice.plugins:
        options.add_provider_for_devices(devices, given)
    return ort.InferenceSession(str(path), options)


def device_problem(device: str) -> str:
    """Why nothing can run on a device of --device; empty if nothing is known to be in the way."""
    try:
        providers.choose(ort, of_device(device), device)
    except LoadError as error:
        return str(error)
    return ""


def devices() -> list[str]:
    """What a model may be measured on, as --device names it. TensorRT is left out: it may build engines for minutes."""
    return [CPU, *(device for device in ("cuda", "openvino") if not device_problem(device))]


def _produced(name: str, value: Any) -> ProducedTensor:
    dims = tuple(value.shape())
    if value.data_type() != _BYTES.onnxruntime:
        return ProducedTensor(dims, value.data_ptr(), value.tensor_size_in_bytes(), value)
    try:
        form = pack(value.data_ptr(), math.prod(dims))
    except ValueError as error:
        raise ModelError(f"output '{name}' cannot be sent: {error}") from error
    except MemoryError as error:
        raise OutOfMemoryError(f"no memory for the strings of output '{name}'") from error
    if not form:
        return ProducedTensor(dims, 0, 0, form)
    memory = (ctypes.c_char * len(form)).from_buffer(form)
    return ProducedTensor(dims, ctypes.addressof(memory), len(form), memory)


class _Strings:
    """Makes tensors of strings, which ONNX Runtime takes as inputs and which hold any bytes."""

    def __init__(self) -> None:
        """Raises LoadError if this build of ONNX Runtime keeps strings in a way that is not known here."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        # A string takes 32 bytes, eight times what an empty one takes in a request: nothing of it is kept.
        options.enable_cpu_mem_arena = False
        self._session = ort.InferenceSession(STRINGS_MODEL, options, providers=["CPUExecutionProvider"])
        sample = self._tensor((2,))
        if not is_known_layout(sample.data_ptr(), STRINGS_TEXT):
            raise LoadError(
                f"models with strings are not served with ONNX Runtime {ort.__version__}: it was built with another "
                "C++ library; expected a build with libstdc++, as the wheels for Linux are"
            )

    def made_of(self, tensor: TensorBuffer) -> Any:
        """An OrtValue with the tensor's elements. Raises ModelError."""
        value = self._tensor(tensor.dims)
        try:
            assign(value.data_ptr(), math.prod(tensor.dims), tensor.address, _MAX_BYTES)
        except ValueError as error:
            raise ModelError(f"input '{tensor.name}' cannot be read: {error}") from error
        except MemoryError as error:
            raise OutOfMemoryError(f"no memory for the strings of input '{tensor.name}'") from error
        return value

    def _tensor(self, dims: Sequence[int]) -> Any:
        shape = array.array("q", [*dims, 0])
        binding = self._session.io_binding()
        binding.bind_input("shape", "cpu", 0, _INT64.onnx, [len(dims)], shape.buffer_info()[0])
        binding.bind_output("strings", "cpu")
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise run_error(error) from error
        return binding.get_outputs()[0]
