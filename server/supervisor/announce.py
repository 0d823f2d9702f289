"""The start-up table on stdout, made of what the supervisor knows."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import time
from collections.abc import Mapping, Sequence

from server import __version__
from server.config import ServeConfig
from server.demo import files as demo_files
from server.models.onnx_file import TensorInfo
from server.models.repository import ModelVersion
from server.option_values import SAME
from server.protocol.assignment import from_text
from server.supervisor.banner import Address, Banner, BannerModel, Tensor, render
from server.supervisor.lanes import MODEL_READY, Lane

EVERY_INTERFACE = ("0.0.0.0", "::", "")


def ready(
    config: ServeConfig,
    lanes: Sequence[Lane],
    found: Sequence[ModelVersion],
    ports: Mapping[str, int],
    started_ns: int,
) -> None:
    """Prints the banner; `ports` as listeners.bound has them, `started_ns` is when the server began to start."""
    models = [_served(config, lane, started_ns) for lane in lanes]
    models += [
        BannerModel(version.name, version.version, why=version.error, status="UNAVAILABLE")
        for version in found
        if version.error is not None
    ]
    banner = Banner(
        version=__version__,
        runtime=f"onnxruntime {_runtime_version()}",
        models=tuple(models),
        addresses=addresses(config, ports),
        worker_count=config.workers,
        ready_s=(time.monotonic_ns() - started_ns) / 1e9,
        notes=(*exposure(addresses(config, ports)), *_shared(lanes), *_fallbacks(lanes)),
    )
    try:
        sys.stdout.write(render(banner, colour=sys.stdout.isatty()))
        sys.stdout.flush()
    except OSError:
        # Nobody reads it, which is no reason not to serve; what is buffered must not fail again at every later flush.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def addresses(config: ServeConfig, ports: Mapping[str, int]) -> tuple[Address, ...]:
    """Where the server is reached; the first is shown as the inference API's, whatever it was opened for."""
    hosts = {"grpc": config.grpc_host, "tfs_grpc": config.grpc_host, "metrics": config.metrics_host}
    found = [
        Address(name, path=name.removeprefix("uds:"))
        if name.startswith("uds:")
        else Address(name.replace("_", "-"), hosts.get(name) or config.host, port)
        for name, port in ports.items()
    ]
    first = next(address for address in found if address.name != "metrics")
    found = [first._replace(name="http"), *(address for address in found if address is not first)]
    names = [address.name for address in found]
    if "grpc" not in names and not first.path:
        found.insert(1, first._replace(name="grpc"))
    if config.metrics_port == SAME and not first.path:
        found.insert(2, first._replace(name="metrics"))
    return tuple(found)


def exposure(found: Sequence[Address]) -> tuple[str, ...]:
    """What other hosts can reach: the addresses are shown as a client on this one writes them."""
    names = [address.name for address in found if not address.path and address.host in EVERY_INTERFACE]
    return (f"{', '.join(names)}: on every interface of this host, without TLS or authentication",) if names else ()


def _served(config: ServeConfig, lane: Lane, started_ns: int) -> BannerModel:
    is_ready = lane.arena.model_state == MODEL_READY
    return BannerModel(
        lane.name,
        lane.version,
        device=from_text(lane.arena.placed).devices,
        inputs=_tensors(lane.seen.inputs),
        outputs=_tensors(lane.seen.outputs),
        batched=lane.batched,
        max_batch_size=lane.plan.row_capacity,
        max_queue_delay_us=lane.settings.max_queue_delay_us,
        why=lane.batching_reason if is_ready else lane.arena.model_reason,
        status="READY" if is_ready else "UNAVAILABLE",
        load_ms=(lane.arena.ready_ns - started_ns) / 1e6 if is_ready else None,
        example=demo_files.example_request() if config.is_demo else None,
    )


def _shared(lanes: Sequence[Lane]) -> tuple[str, ...]:
    """Which models run in one process."""
    groups: dict[str, list[str]] = {}
    for lane in lanes:
        if lane.group is not None:
            groups.setdefault(lane.group, []).append(lane.name)
    return tuple(f"one executor for all models on {group}: {', '.join(names)}" for group, names in groups.items())


def _fallbacks(lanes: Sequence[Lane]) -> tuple[str, ...]:
    """Why models run on the CPU that were expected elsewhere, each reason once."""
    reasons = dict.fromkeys(one.fallback for lane in lanes for one in from_text(lane.arena.placed).every)
    return tuple(f"the CPU runs models, not an accelerator: {reason}" for reason in reasons if reason)


def _tensors(tensors: Sequence[TensorInfo]) -> tuple[Tensor, ...]:
    return tuple(Tensor(tensor.name, tensor.dtype, tuple(tensor.dims)) for tensor in tensors)


def _runtime_version() -> str:
    for name in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "?"
