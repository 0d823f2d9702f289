"""Execution providers by the names that people use: what a device or an accelerator means to ONNX Runtime.

Names of accelerators and their parameters are Triton's (optimization.execution_accelerators), those of devices are
`--device`'s. Whether a provider is there, and works, only the executor knows (server/executor/providers.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from server.option_values import CPU

CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
CPU_PROVIDER = "CPUExecutionProvider"
#: name of an accelerator -> execution provider
GPU_ACCELERATORS = {"tensorrt": TENSORRT, "cuda": CUDA}
CPU_ACCELERATORS = {"openvino": OPENVINO}
ACCELERATORS = {**GPU_ACCELERATORS, **CPU_ACCELERATORS}
#: Whether this host has an NVIDIA GPU, whatever is installed.
GPU_SIGNS = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"))
#: Triton's names of TensorRT's parameters, where they are not ONNX Runtime's.
_TENSORRT_NAMES = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "max_cached_engines": "trt_max_partition_iterations",
    "minimum_segment_size": "trt_min_subgraph_size",
}
_PRECISIONS = {"FP32": {}, "FP16": {"trt_fp16_enable": "1"}, "INT8": {"trt_int8_enable": "1"}}


class Provider(NamedTuple):
    """An execution provider and its options, in ONNX Runtime's names."""

    name: str
    options: tuple[tuple[str, str], ...] = ()

    @property
    def device(self) -> str:
        """For people: `cuda:0`, `openvino:CPU`."""
        options = dict(self.options)
        short = next((short for short, name in ACCELERATORS.items() if name == self.name), CPU)
        if self.name == OPENVINO:
            return f"{short}:{options.get('device_type', 'CPU')}"
        return CPU if short == CPU else f"{short}:{options.get('device_id', '0')}"


class Place(NamedTuple):
    """Where an instance runs: a device as --device names it, or in its place the providers that a configuration
    names, the first being what it is called by.
    """

    device: str
    providers: tuple[Provider, ...] = ()

    @property
    def wanted(self) -> tuple[Provider, ...]:
        return self.providers or of_device(self.device)

    @property
    def label(self) -> str:
        """For people, before a session is there: `auto`, `cuda:1`, `openvino:CPU`."""
        return self.wanted[0].device if self.wanted else self.device

    @property
    def is_processor(self) -> bool:
        """Whether batches are computed by the host's processors."""
        return self.label in (CPU, "openvino:CPU")


def of_device(text: str) -> tuple[Provider, ...]:
    """What a device other than auto and strict stands for; nothing for the CPU. TensorRT leaves to CUDA what it cannot
    run.
    """
    kind, _, where = text.partition(":")
    if kind.lower() == "openvino":
        return (Provider(OPENVINO, (("device_type", where.upper() or "CPU"),)),)
    index = (("device_id", where or "0"),)
    return {"cuda": (Provider(CUDA, index),), "tensorrt": (Provider(TENSORRT, index), Provider(CUDA, index))}.get(
        kind.lower(), ()
    )


def of_accelerator(name: str, parameters: Mapping[str, str]) -> Provider:
    """An accelerator of config.pbtxt. ValueError for a parameter's value that is none."""
    if name != "tensorrt":
        return Provider(ACCELERATORS[name], tuple(sorted(parameters.items())))
    options: dict[str, str] = {}
    for key, value in parameters.items():
        if key == "precision_mode":
            if value.upper() not in _PRECISIONS:
                raise ValueError(f"precision_mode: expected {', '.join(_PRECISIONS)}, got {value!r}")
            options |= _PRECISIONS[value.upper()]
        else:
            options[_TENSORRT_NAMES.get(key, key)] = value
    return Provider(TENSORRT, tuple(sorted(options.items())))
