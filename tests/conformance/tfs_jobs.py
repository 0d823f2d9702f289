"""Has TensorFlow Serving's client, in an environment and a process of its own, make calls; see tfs_driver.py."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from server.protocol.datatypes import BY_NAME
from tests.conformance.v2_client import Array
from tests.reference.tensor_proto import NUMBERS
from tests.support import clients
from tests.support.server import Server

DRIVER = Path(__file__).with_name("tfs_driver.py")
TIMEOUT_S = 60
DATATYPES = {number: name for name, number in NUMBERS.items()}


class Predict(NamedTuple):
    """One Predict call: `inputs` name -> (datatype, array), all in one of the driver's forms."""

    model: str
    inputs: Mapping[str, tuple[str, Array]]
    form: str = "tensorflow"
    output_filter: Sequence[str] = ()
    #: More of the ModelSpec, as JSON: version, version_label, signature_name.
    spec: Mapping[str, Any] = {}
    timeout_s: float = 10.0


class Reply(NamedTuple):
    """What the client gave back: outputs with their datatypes and forms and the ModelSpec, or the error."""

    outputs: dict[str, Array]
    datatypes: dict[str, str]
    forms: set[str]
    model_spec: dict[str, Any]
    code: str | None
    text: str | None


class Job:
    """Collects steps, runs them in one process."""

    def __init__(self) -> None:
        self._steps: list[dict[str, Any]] = []
        self._arrays: dict[str, Array] = {}

    def call(self, method: str, **request: Any) -> None:
        """A method other than Predict; `request`: the message as JSON."""
        self._steps.append({"call": method, "request": request})

    def raw(self, path: str, data: bytes) -> None:
        """Any method with these bytes as its message."""
        self._steps.append({"raw": path, "bytes": data.hex()})

    def predict(self, requests: Sequence[Predict], *, at_once: bool = False, compression: int = 0) -> None:
        """One after the other, or all `at_once`; compression: 1 deflate, 2 gzip."""
        described = [self._describe(request) for request in requests]
        self._steps.append({"predict": described, "at_once": at_once, "compression": compression})

    def cancel(self, requests: Sequence[Predict]) -> None:
        """Sends all, then cancels all."""
        self._steps.append({"cancel": [self._describe(request) for request in requests]})

    def _describe(self, request: Predict) -> dict[str, Any]:
        inputs = {}
        for name, (datatype, array) in request.inputs.items():
            key = f"input{len(self._arrays)}"
            self._arrays[key] = np.asarray(array, np.dtype(BY_NAME[datatype].numpy))
            inputs[name] = {"dtype": NUMBERS[datatype], "array": key, "form": request.form}
        return {
            "model_spec": {"name": request.model, **request.spec},
            "inputs": inputs,
            "output_filter": list(request.output_filter),
            "timeout_s": request.timeout_s,
        }

    def run(self, server: Server) -> list[Any]:
        """Per step: list[Reply] for predictions, else the driver's result."""
        with tempfile.TemporaryDirectory(prefix="headrace-tfs-") as name:
            folder = Path(name)
            protos = str(clients.package_file("tfsprotos", "tensorflow/core").parent.parent)
            job = {"url": f"{server.host}:{server.port}", "protos": protos, "steps": self._steps}
            (folder / "job.json").write_text(json.dumps(job))
            np.savez(folder / "inputs.npz", **self._arrays)
            command = [clients.python("tfsclient"), "-W", "error", str(DRIVER), name]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
            assert done.returncode == 0, f"{done.stdout}{done.stderr}"
            with np.load(folder / "outputs.npz") as stored:
                arrays = dict(stored)
            results = json.loads((folder / "results.json").read_text())
        return [[_reply(reply, arrays) for reply in one["replies"]] if "replies" in one else one for one in results]


def _reply(result: Mapping[str, Any], arrays: Mapping[str, Array]) -> Reply:
    outputs = result.get("outputs", {})
    return Reply(
        {name: arrays[one["array"]] for name, one in outputs.items()},
        {name: DATATYPES[one["dtype"]] for name, one in outputs.items()},
        {one["form"] for one in outputs.values()},
        result.get("model_spec", {}),
        result.get("code"),
        result.get("text"),
    )
