"""Several instances of one model in one executor: they share the session, never an answer."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from server.executor.backend import TensorBuffer
from server.executor.onnx_backend import OnnxBackend
from server.protocol.datatypes import BY_NAME
from tests.conformance.onnx_reference import same_bits
from tests.conformance.v2_client import Array, Client, Tensor
from tests.support import onnx_writer
from tests.support.server import Server, running

pytestmark = pytest.mark.slow
MODELS = {"dynamic": onnx_writer.identity("FP32", [-1, -1]), "rows": onnx_writer.identity("FP32", [-1, 64])}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = onnx_writer.write_repository(tmp_path_factory.mktemp("instances"), MODELS)
    with running(root, "--workers", "2", "--instances", "3") as server:
        yield server


@pytest.mark.parametrize(("model", "widths"), [("dynamic", (1, 1000, 100_000)), ("rows", (64,))])
def test_answers_are_for_their_own_inputs(served: Server, model: str, widths: tuple[int, ...]) -> None:
    def one(seed: int) -> None:
        with Client(served.host, served.port) as client:
            for at in range(30):
                x = np.full((1 + seed, widths[at % len(widths)]), 1000 * seed + at, np.float32)
                reply = client.infer(model, [Tensor("x", "FP32", x)], parameters={"binary_data_output": True})
                assert same_bits(reply.outputs["y"], x)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))


def test_an_output_outlives_the_next_run_of_the_same_backend(tmp_path: Path) -> None:
    """Instances run on threads of their own: one may copy its outputs while another's run begins and ends."""
    file = tmp_path / "model.onnx"
    file.write_bytes(MODELS["dynamic"])
    backend = OnnxBackend(file, intra_op_threads=1)

    def run(value: float) -> tuple[Array, object]:
        x = np.full((100, 1000), value, np.float32)
        (produced,) = backend.run([TensorBuffer("x", BY_NAME["FP32"].code, x.shape, x.ctypes.data)], ["y"])
        assert produced.size_bytes == 4 * math.prod(produced.dims)
        memory = (ctypes.c_char * produced.size_bytes).from_address(produced.address)
        return np.frombuffer(memory, np.float32), produced

    first, keep = run(1)
    others = [run(value) for value in (2, 3, 4)]
    assert np.all(first == 1), keep
    for value, (array, _) in zip((2, 3, 4), others, strict=True):
        assert np.all(array == value)
