"""Which execution providers a session gets, and why one that was asked for cannot be had.

ONNX Runtime falls back to the CPU with a line in its log when a provider's library cannot be loaded. Here that is an
error with the name of what is missing, unless the user left the choice to the server. It takes the onnxruntime module
as an argument: onnx_backend.py is the one place that imports it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from server.build_info import is_executable
from server.executor.backend import LoadError
from server.models.providers import CPU_PROVIDER, CUDA, GPU_SIGNS, OPENVINO, TENSORRT, Provider, of_device
from server.option_values import AUTO, STRICT

#: Of the provider: its shared library beside ONNX Runtime's, the package that has it, and what else it needs.
_LIBRARIES = {
    CUDA: "libonnxruntime_providers_cuda.so",
    TENSORRT: "libonnxruntime_providers_tensorrt.so",
    OPENVINO: "libonnxruntime_providers_openvino.so",
}
_PACKAGES = {CUDA: "onnxruntime-gpu", TENSORRT: "onnxruntime-gpu", OPENVINO: "onnxruntime-ep-openvino"}
#: What an executable with the provider is built with: it takes in no plug-ins.
_RUNTIMES = {**_PACKAGES, OPENVINO: "onnxruntime-openvino"}
#: The beginning of a library's name -> what it is part of, what to do, and a package that has it.
_SOURCES = (
    (
        "libcuda.so",
        "the NVIDIA driver",
        "install it on the host, and run containers with --gpus or the NVIDIA runtime",
        "",
    ),
    ("libcudnn", "cuDNN", "the distribution's package of cuDNN 9", "onnxruntime-gpu[cuda,cudnn]"),
    ("libcu", "the CUDA toolkit", "the distribution's package", "onnxruntime-gpu[cuda,cudnn]"),
    ("libnv", "TensorRT", "the distribution's package", "tensorrt"),
    ("libopenvino", "OpenVINO", "its libraries in a folder of LD_LIBRARY_PATH", "onnxruntime-ep-openvino"),
    ("", "the package that has it", "", ""),
)
#: Providers that need CUDA: libraries that the provider's opens by name in time, so that it can be loaded without.
_OPENED_LATER = {CUDA: ("libcudnn.so.9",), TENSORRT: ()}
#: OpenVINO's numbers for the values of its option `precision`.
_OPENVINO_PRECISIONS = {"FP32": "f32", "FP16": "f16", "BF16": "bf16"}
_MISSING = re.compile(r"(\S+\.so[.\d]*): cannot open shared object file")
#: Runs of equal size need no larger pool; out of memory then means that memory is out.
_DEFAULT_OPTIONS = {CUDA: (("arena_extend_strategy", "kSameAsRequested"),)}
#: What a model that wants no accelerator says.
_ELSE = "--device cpu (KIND_CPU where config.pbtxt names the device)"


class Choice(NamedTuple):
    """What a session gets. builtin: for InferenceSession(providers=...); plugins: (devices, options) for
    add_provider_for_devices; wanted: those that must run; fallback: why it is only the CPU although it might not be.
    """

    builtin: tuple[tuple[str, dict[str, str]], ...] = ()
    plugins: tuple[tuple[Sequence[Any], dict[str, str]], ...] = ()
    wanted: tuple[Provider, ...] = ()
    fallback: str = ""


def choose(ort: Any, configured: Sequence[Provider], device: str, signs: Iterable[Path] = GPU_SIGNS) -> Choice:
    """Providers of a model: what its configuration names, else what --device says. Raises LoadError."""
    if configured or device not in (AUTO, STRICT):
        return _all_of(ort, tuple(configured) or of_device(device))
    gpu = of_device("cuda")
    why = problem(ort, gpu[0])
    if not why:
        return _all_of(ort, gpu)
    if device == STRICT:
        raise LoadError(f"no accelerator works here: {why}")
    # Without a GPU, and without a build for one, the CPU is what everybody expects.
    is_expected = CUDA not in ort.get_available_providers() and not any(sign.exists() for sign in signs)
    return Choice(fallback="" if is_expected else why)


def _all_of(ort: Any, providers: tuple[Provider, ...]) -> Choice:
    builtin: list[tuple[str, dict[str, str]]] = []
    plugins: list[tuple[Sequence[Any], dict[str, str]]] = []
    for provider in providers:
        why = problem(ort, provider)
        if why:
            raise LoadError(why)
        options = {**dict(_DEFAULT_OPTIONS.get(provider.name, ())), **dict(provider.options)}
        if provider.name in ort.get_available_providers():
            builtin.append((provider.name, options))
        else:
            device_type = options.pop("device_type", "CPU")
            plugins.append((_plugin_devices(ort, device_type), options))
    return Choice(tuple(builtin), tuple(plugins), providers)


def problem(ort: Any, provider: Provider) -> str:
    """Why the provider cannot be had here, and what to do; empty if nothing is known to be in its way."""
    there = ort.get_available_providers()
    if provider.name not in there:
        if provider.name == OPENVINO and _has_plugin():
            return _plugin_problem(ort, dict(provider.options).get("device_type", "CPU"))
        found, fix = "", f"pip install {_PACKAGES[provider.name]}"
        if is_executable():
            found, runtime = "this executable, which carries ", _RUNTIMES[provider.name]
            fix = f"run headrace from a Python environment with {runtime}, or build the executable in one"
        return (
            f"expected: {provider.name} for {provider.device}; found: {found}ONNX Runtime {ort.__version__} with "
            f"{', '.join(there)}; fix: {fix}, or {_ELSE}"
        )
    folder = Path(ort.__file__).parent / "capi"
    library = folder / _LIBRARIES[provider.name]
    if not library.exists():
        return ""
    packages = ["NVIDIA's packages"] if provider.name in _OPENED_LATER and _preloaded(ort) else []
    later = (Path(name) for name in _OPENED_LATER.get(provider.name, ()))
    missing = next(filter(None, map(missing_library, (library, *later))), "")
    if not missing:
        return ""
    paths = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    searched = [str(folder), *paths, *packages, "the system's libraries"]
    return (
        f"expected: {missing} for {provider.device}; found: none in {', '.join(searched)}; fix: it is part of "
        f"{_source(missing)}; or {_ELSE}"
    )


def _source(missing: str) -> str:
    """Where a library comes from."""
    whole, fix, package = next(of for start, *of in _SOURCES if missing.startswith(start))
    if package and not is_executable():
        fix = f"pip install {package}, or {fix}"
    return f"{whole}: {fix}" if fix else whole


def _preloaded(ort: Any) -> bool:
    """Loads the libraries of CUDA and cuDNN that are packages of this environment, where no search path leads to;
    whether this ONNX Runtime knows how.
    """
    if not hasattr(ort, "preload_dlls"):
        return False
    # What is missing it prints; the caller looks for it by itself.
    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls()
    return True


def missing_library(library: Path) -> str:
    """The name of the shared library that this one needs and that is nowhere; empty if it can be loaded. A name alone
    is searched for.

    A library that ONNX Runtime loads first, and that has symbols of this one, is not missing.
    """
    try:
        ctypes.CDLL(str(library), mode=os.RTLD_LAZY | os.RTLD_LOCAL)
    except OSError as error:
        # In the executable ctypes is wrapped, and the linker's words stand in the cause.
        found = _MISSING.search(str(error.__cause__ or error))
        return found[1] if found else ""
    return ""


def _has_plugin() -> bool:
    return importlib.util.find_spec("onnxruntime_ep_openvino") is not None


def _plugin_devices(ort: Any, device_type: str) -> list[Any]:
    """The OpenVINO plug-in's devices of this type; it is registered by the first call."""
    devices = [device for device in ort.get_ep_devices() if device.ep_name == OPENVINO]
    if not devices:
        plugin = importlib.import_module("onnxruntime_ep_openvino")
        ort.register_execution_provider_library("openvino", plugin.get_library_path())
        devices = [device for device in ort.get_ep_devices() if device.ep_name == OPENVINO]
    return [device for device in devices if device.device.type.name == device_type.partition(".")[0]][:1]


def _plugin_problem(ort: Any, device_type: str) -> str:
    try:
        if _plugin_devices(ort, device_type):
            return ""
    except Exception as error:
        return f"expected: OpenVINO's plug-in; found: {error}; fix: pip install --force-reinstall {_PACKAGES[OPENVINO]}"
    return (
        f"expected: a device of OpenVINO's plug-in for openvino:{device_type}; found: none, it offers Intel's devices "
        "only; fix: the package onnxruntime-openvino in place of onnxruntime runs on any x86-64 processor, or "
        f"{_ELSE}"
    )


def with_threads(choice: Choice, threads: int) -> Choice:
    """The choice with what OpenVINO is to be told of threads, of which it has its own, and of precision."""
    kind = next((dict(one.options).get("device_type", "CPU") for one in choice.wanted if one.name == OPENVINO), "")
    return choice._replace(
        builtin=tuple(
            (name, openvino_options(given, kind, threads) if name == OPENVINO else given)
            for name, given in choice.builtin
        ),
        plugins=tuple((devices, openvino_options(given, kind, threads)) for devices, given in choice.plugins),
    )


def openvino_options(given: Mapping[str, str], device_type: str, threads: int) -> dict[str, str]:
    """Options with a `load_config` for the CPU: the plug-in takes threads and precision nowhere else. Full precision
    unless another is configured, since OpenVINO takes BF16 where the processor has it. What is configured stays.
    """
    options = dict(given)
    if "CPU" not in device_type.upper():
        return options
    try:
        config = json.loads(options.get("load_config") or "{}")
        cpu = config.setdefault("CPU", {})
        cpu.setdefault("INFERENCE_NUM_THREADS", options.get("num_of_threads", str(threads)))
    except (ValueError, AttributeError):
        # The name of a file, which says everything itself.
        return options
    precision = options.get("precision", "FP32").upper()
    if precision in _OPENVINO_PRECISIONS:
        cpu.setdefault("INFERENCE_PRECISION_HINT", _OPENVINO_PRECISIONS[precision])
    options.pop("num_of_threads", None)
    return {**options, "load_config": json.dumps(config)}


def verify(choice: Choice, running: Sequence[str]) -> None:
    """Raises LoadError if the session does without a provider that it was to have."""
    for provider in choice.wanted:
        if provider.name not in running:
            raise LoadError(
                f"expected: {provider.name} for {provider.device}; found: a session with {', '.join(running)}; fix: "
                f"the reason is in ONNX Runtime's lines on stderr; or {_ELSE}"
            )


def device_of(choice: Choice, nodes: dict[str, int]) -> str:
    """What runs the model, for people. nodes: of the graph, by provider, if that is known."""
    for provider in choice.wanted:
        if not nodes or provider.name in nodes:
            return provider.device
    return CPU_PROVIDER.removesuffix("ExecutionProvider").lower()
