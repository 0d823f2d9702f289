"""The model repository of Triton's own documentation, unmodified, asked by Triton's own client."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.conformance.triton_jobs import Job, Request
from tests.conformance.v2_client import Tensor
from tests.support import triton_examples
from tests.support.server import Server, executable, running_command

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Started as its documentation starts Triton; another model control mode would not change a thing."""
    folder = tmp_path_factory.mktemp("triton")
    root = triton_examples.write(folder / "model_repository")
    ports = ("--http-port=0", "--grpc-port=0", "--metrics-port=0")
    command = [*executable(), "serve", "--as", "tritonserver", f"--model-repository={root}", *ports]
    with running_command(folder, *command) as server:
        yield server


def numbers(values: np.ndarray) -> np.ndarray:
    return np.array([[str(value).encode() for value in row] for row in values], dtype=object)


def test_every_example_loads_or_says_which_field_keeps_it(server: Server) -> None:
    rows = {row["name"]: (row["state"], row["reason"]) for row in server.post("/v2/repository/index", {}).json()}
    refused = rows.pop("simple_sequence")
    assert refused == (
        "UNAVAILABLE",
        "config.pbtxt line 5: sequence_batching: not supported: requests with state are not served",
    )
    served = ("densenet_onnx", "simple", "simple_identity", "simple_int8", "simple_string")
    assert rows == dict.fromkeys(served, ("READY", ""))


def test_the_examples_answer(server: Server) -> None:
    image = np.zeros((3, 224, 224), np.float32)
    image[0] = 0.5
    left, right = np.arange(16, dtype=np.int32).reshape(1, 16), np.ones((1, 16), np.int32)
    words = np.array([[b"a", b"", b"\xc3\xa4", b"4"]], dtype=object)
    pair = [("INPUT0", left), ("INPUT1", right)]
    job = Job()
    job.infer(
        [
            Request("densenet_onnx", [Tensor("data_0", "FP32", image)], outputs=[("fc6_1", False)], classes=3),
            Request("simple", [Tensor(name, "INT32", values) for name, values in pair]),
            Request("simple_int8", [Tensor(name, "INT8", values.astype(np.int8)) for name, values in pair]),
            Request("simple_string", [Tensor(name, "BYTES", numbers(values)) for name, values in pair]),
            Request("simple_identity", [Tensor("INPUT0", "BYTES", words)]),
        ]
    )
    classes, simple, int8, string, identity = job.run(server)[0]
    assert classes.outputs["fc6_1"].tolist() == [
        f"{number / 2:.6f}:{number}:LABEL {number}".encode() for number in (999, 998, 997)
    ]
    for answer in (simple, int8):
        assert (answer.outputs["OUTPUT0"] == left + right).all()
        assert (answer.outputs["OUTPUT1"] == left - right).all()
    assert (string.outputs["OUTPUT0"] == numbers(left + right)).all()
    assert (string.outputs["OUTPUT1"] == numbers(left - right)).all()
    assert (identity.outputs["OUTPUT0"] == words).all()
