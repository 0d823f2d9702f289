"""What one wants to know of ONNX Runtime before it serves, asked in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from server.executor import onnx_backend
from server.executor.backend import LoadError
from server.models.model_config import SessionSettings


def device_problem(device: str) -> str:
    """Why nothing can run on a device of --device; empty if nothing is known to be in the way."""
    return onnx_backend.device_problem(device)


def nodes(path: Path, settings: SessionSettings, device: str) -> dict[str, Any]:
    """Loads a model: the device that runs it, (provider, operator) of each node of the optimised graph, and why an
    accelerator does not run it; or `error`.
    """
    try:
        backend = onnx_backend.OnnxBackend(path, intra_op_threads=1, settings=settings, device=device)
    except LoadError as error:
        return {"error": str(error)}
    placed = backend.assignment
    return {"device": placed.device, "nodes": backend.nodes(), "fallback": placed.fallback}
