"""Has tritonclient, in an environment and a process of its own, make calls; see tritonclient_driver.py."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.conformance.v2_client import Array, Tensor
from tests.reference import bytes_form
from tests.support import clients
from tests.support.server import Server

DRIVER = Path(__file__).with_name("tritonclient_driver.py")
GRPC_DRIVER = Path(__file__).with_name("tritonclient_grpc_driver.py")
TIMEOUT_S = 60


class Request(NamedTuple):
    """One infer call; `options` are keyword arguments of InferenceServerClient.infer."""

    model: str
    tensors: Sequence[Tensor]
    outputs: Sequence[tuple[str, bool]] | None = None
    options: Mapping[str, Any] = {}
    #: Classes of each output that are asked for instead of its values.
    classes: int = 0


class Reply(NamedTuple):
    """What the client gave back: the response document without data and the arrays, or the exception's text, status."""

    response: dict[str, Any]
    outputs: dict[str, Array]
    error: str | None
    status: str | None


class Job:
    """Collects steps, runs them in one process."""

    def __init__(self, driver: Path = DRIVER) -> None:
        self._driver = driver
        self._steps: list[dict[str, Any]] = []
        self._arrays: dict[str, Array] = {}

    def call(self, method: str, **arguments: Any) -> None:
        """A method of InferenceServerClient other than infer."""
        self._steps.append({"call": method, "arguments": arguments})

    def infer(self, requests: Sequence[Request], mode: str = "sync", concurrency: int = 1, **client: Any) -> None:
        """Infer calls; `mode`: see the driver, `client`: options of the client's constructor or of its stream."""
        described = [self._describe(request) for request in requests]
        self._steps.append({"infer": mode, "concurrency": concurrency, "client": client, "requests": described})

    def _describe(self, request: Request) -> dict[str, Any]:
        inputs = []
        for tensor in request.tensors:
            key = f"input{len(self._arrays)}"
            shape = list(tensor.array.shape)
            if tensor.datatype == "BYTES":
                form = bytes_form.pack(tensor.array.ravel().tolist())
                self._arrays[key] = np.frombuffer(form, np.uint8)
            else:
                self._arrays[key] = tensor.array
            inputs.append(
                {
                    "name": tensor.name,
                    "datatype": tensor.datatype,
                    "shape": shape,
                    "array": key,
                    "binary": tensor.binary,
                }
            )
        outputs = None
        if request.outputs is not None:
            outputs = [{"name": name, "binary": binary} for name, binary in request.outputs]
        return {
            "model": request.model,
            "inputs": inputs,
            "outputs": outputs,
            "options": dict(request.options),
            "classes": request.classes,
        }

    def run(self, server: Server) -> list[Any]:
        """Per step: list[Reply] for infer steps, {"value": ...} or {"error", "status"} for calls."""
        with tempfile.TemporaryDirectory(prefix="headrace-triton-") as name:
            folder = Path(name)
            job = {"url": f"{server.host}:{server.port}", "steps": self._steps}
            (folder / "job.json").write_text(json.dumps(job))
            np.savez(folder / "inputs.npz", **self._arrays)
            command = [clients.python("tritonclient"), "-W", "error", str(self._driver), name]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
            assert done.returncode == 0, f"{done.stdout}{done.stderr}"
            with np.load(folder / "outputs.npz") as stored:
                arrays = dict(stored)
            results = json.loads((folder / "results.json").read_text())
        return [_replies(one["replies"], arrays) if "replies" in one else one for one in results]


def _objects(form: Array, shape: Sequence[int]) -> Array:
    """An object array of bytes."""
    elements = bytes_form.unpack(form.tobytes())
    assert elements is not None
    made = np.empty(len(elements), object)
    made[:] = elements
    return made.reshape(shape)


def _replies(results: Sequence[dict[str, Any]], arrays: Mapping[str, Array]) -> list[Reply]:
    replies = []
    for one in results:
        outputs = {name: arrays[key] for name, key in one.get("outputs", {}).items()}
        for output in one.get("response", {}).get("outputs", []):
            if output["datatype"] == "BYTES":
                outputs[output["name"]] = _objects(outputs[output["name"]], output["shape"])
        replies.append(Reply(one.get("response", {}), outputs, one.get("error"), one.get("status")))
    return replies
