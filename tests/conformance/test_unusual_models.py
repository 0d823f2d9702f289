"""Models at the edges: what cannot be served says so without harm to the others, what is served is right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conformance.onnx_reference import Reference, same_bits
from tests.conformance.v2_client import Array, Client, Tensor, encode
from tests.support import onnx_writer
from tests.support.onnx_writer import Graph
from tests.support.server import Server, running

pytestmark = pytest.mark.slow


def no_inputs() -> bytes:
    graph = Graph("no_inputs")
    graph.integers("c", [1, 2, 3])
    graph.node("Identity", ["c"], ["y"])
    graph.output("y", "INT64", [3])
    return graph.model()


def sums_the_batch() -> bytes:
    """Declares as many rows as come in, and gives one."""
    graph = Graph("sums_the_batch")
    graph.input("x", "FP32", [-1, 4])
    graph.node("ReduceSum", ["x"], ["y"], keepdims=1)
    graph.output("y", "FP32", [-1, 1])
    return graph.model()


def default_weights() -> bytes:
    """`w` is an input with a value of its own, as old exporters wrote all weights."""
    graph = Graph("default_weights")
    graph.input("x", "FP32", [-1, 2])
    graph.input("w", "FP32", [2])
    graph.constant("w", "FP32", [2], np.array([1, 2], np.float32).tobytes())
    graph.node("Add", ["x", "w"], ["y"])
    graph.output("y", "FP32", [-1, 2])
    return graph.model()


def handed_through() -> bytes:
    """The input is an output too."""
    graph = Graph("handed_through")
    graph.input("x", "FP32", [-1, 2])
    graph.output("x", "FP32", [-1, 2])
    graph.node("Add", ["x", "x"], ["y"])
    graph.output("y", "FP32", [-1, 2])
    return graph.model()


def constant_output() -> bytes:
    graph = Graph("constant_output")
    graph.input("x", "FP32", [-1, 2])
    graph.constant("c", "FP32", [3], np.array([1, 2, 3], np.float32).tobytes())
    graph.node("Add", ["x", "x"], ["y"])
    graph.output("y", "FP32", [-1, 2])
    graph.output("c", "FP32", [3])
    return graph.model()


def no_operation() -> bytes:
    """Outputs that an optimizer may turn into one another or into the input."""
    graph = Graph("no_operation")
    graph.input("x", "FP32", [-1, 2])
    graph.integers("shape", [-1, 2])
    graph.node("Add", ["x", "x"], ["twice"])
    graph.node("Identity", ["twice"], ["again"])
    graph.node("Identity", ["x"], ["same"])
    graph.node("Dropout", ["x"], ["kept"])
    graph.node("Reshape", ["x", "shape"], ["shaped"])
    for name in ("again", "same", "kept", "shaped", "twice"):
        graph.output(name, "FP32", [-1, 2])
    return graph.model()


SERVED = {
    "default_weights": default_weights(),
    "handed_through": handed_through(),
    "constant_output": constant_output(),
    "no_operation": no_operation(),
    "empty_rows": onnx_writer.identity("FP32", [-1, 0]),
    "one_axis": onnx_writer.identity("FP32", [-1]),
    "stats": onnx_writer.identity("FP32", [-1, 2]),
    "a.b-c_d": onnx_writer.identity("FP32", [-1, 2]),
}
#: Name -> file and a part of the reason.
REFUSED = {
    "no_inputs": (no_inputs(), "the model has no inputs"),
    "sums_the_batch": (sums_the_batch(), "its outputs do not follow the batch axis"),
    "no_onnx": (b"\x08\x08garbage", "not a readable ONNX file"),
    "empty": (b"", "is empty"),
    "nine_axes": (onnx_writer.identity("FP32", [-1, *[1] * 8]), "at most 8"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = {**SERVED, **{name: file for name, (file, _) in REFUSED.items()}}
    return onnx_writer.write_repository(tmp_path_factory.mktemp("unusual"), models)


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[Server]:
    with running(root, "--workers", "1") as server:
        yield server


@pytest.fixture
def client(served: Server) -> Iterator[Client]:
    with Client(served.host, served.port) as connected:
        yield connected


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("name", SERVED)
def test_served_models_are_right(client: Client, name: str, rows: int) -> None:
    shape = {"one_axis": (rows,), "empty_rows": (rows, 0)}.get(name, (rows, 2))
    x: Array = np.random.default_rng(rows).standard_normal(shape, np.float32)
    expected = Reference(SERVED[name]).run({"x": x})
    for _ in range(2):
        for binary in (False, True):
            reply = client.infer(name, [Tensor("x", "FP32", x)], parameters={"binary_data_output": binary})
            assert set(reply.outputs) == set(expected)
            for output, array in expected.items():
                assert same_bits(reply.outputs[output], array), output


@pytest.mark.parametrize("name", REFUSED)
def test_refused_models_say_why_and_not_where(client: Client, root: Path, name: str) -> None:
    _, reason = REFUSED[name]
    body, headers = encode([Tensor("x", "FP32", np.zeros((1, 2), np.float32))])
    for answer in (
        client.send("GET", f"/v2/models/{name}/ready"),
        client.send("POST", f"/v2/models/{name}/infer", body, headers),
        client.send("POST", f"/v2/models/{name}/versions/1/infer", body, headers),
    ):
        assert answer.status == 503, answer
        text = answer.json()["error"]
        assert f"Request for unknown model: '{name}' version 1 is not at ready state" in text
        assert reason in text
        assert str(root) not in text and "/" not in text, text


def test_readiness_of_the_server_follows_its_models(client: Client, served: Server) -> None:
    """It became ready, so models that can never be served do not keep the others from serving."""
    assert client.send("GET", "/v2/health/ready").status == 200
    for name in SERVED:
        assert client.get(f"/v2/models/{name}/ready")["ready"] is True
    assert {one["name"] for one in client.get("/v2/models/stats")["model_stats"]} == {*SERVED, *REFUSED}
    for name, (_, reason) in REFUSED.items():
        assert name in served.output() and reason in served.output()
