"""Models with free dimensions besides the batch axis: requests of equal shape share a batch, and every answer is what
ONNX Runtime gives for that request alone.

The text recogniser and its two companions of rapidocr are what people bring: images of any width, 18,710 numbers for
each few of their columns.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.conformance.onnx_reference import Reference
from tests.conformance.v2_client import Array, Client, Tensor, encode
from tests.support import clients, onnx_writer
from tests.support.faults import metric, stopped, wait_until
from tests.support.onnx_writer import Graph
from tests.support.server import Server, running

pytestmark = pytest.mark.slow

CAPACITY_ROWS = 16
OCR = {
    "recogniser": "rapidocr/models/PP-OCRv6_rec_small.onnx",
    "detector": "rapidocr/models/PP-OCRv6_det_small.onnx",
    "turner": "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
}
#: Image shapes of one row that the tests send to each.
IMAGES = {"recogniser": [(3, 48, 64), (3, 48, 96)], "detector": [(3, 64, 96)], "turner": [(3, 48, 192), (3, 32, 64)]}


def time_first() -> bytes:
    """`x` FP32 [-1, -1, 4] -> `y`, its first two axes exchanged: as many rows as there are steps."""
    graph = Graph("time_first")
    graph.input("x", "FP32", [-1, -1, 4])
    graph.node("Transpose", ["x"], ["y"], perm=[1, 0, 2])
    graph.output("y", "FP32", [-1, -1, 4])
    return graph.model()


def flattened() -> bytes:
    """`x` FP32 [-1, -1, 4] -> `y` FP32 [rows * steps, 4]."""
    graph = Graph("flattened")
    graph.input("x", "FP32", [-1, -1, 4])
    graph.integers("shape", [-1, 4])
    graph.node("Reshape", ["x", "shape"], ["y"])
    graph.output("y", "FP32", [-1, 4])
    return graph.model()


SYNTHETIC = {
    "mlp": onnx_writer.variable_mlp(),
    "echo": onnx_writer.identities([("a", "FP32", [-1, -1]), ("b", "INT64", [-1]), ("c", "UINT8", [-1, 2, -1])]),
    "time_first": time_first(),
    "flattened": flattened(),
}
References = dict[str, Reference]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return SYNTHETIC | {name: clients.package_file("models", file).read_bytes() for name, file in OCR.items()}


@pytest.fixture(scope="module")
def references(files: dict[str, bytes]) -> References:
    return {name: Reference(file) for name, file in files.items()}


@pytest.fixture(scope="module")
def served(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = onnx_writer.write_repository(tmp_path_factory.mktemp("shapes"), files)
    # One worker: while it tells how many rows wait it fills none, so those that it counts can be run.
    with running(root, "--workers", "1", "--max-batch-size", str(CAPACITY_ROWS)) as server:
        yield server


def executor(server: Server, name: str) -> int:
    """The process that runs this model: executors are numbered in the order of names."""
    names = sorted([*SYNTHETIC, *OCR])
    (pid,) = [pid for pid, command in server.processes().items() if command == f"headrace-e{names.index(name)}"]
    return pid


def ask(client: Client, references: References, name: str, feeds: dict[str, Array], *, binary: bool = True) -> None:
    """Sends a request and compares the answer with the model's own for it."""
    datatypes = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}
    tensors = [Tensor(key, datatypes[str(array.dtype)], array, binary) for key, array in feeds.items()]
    reply = client.infer(name, tensors, parameters={"binary_data_output": binary})
    expected = references[name].run(feeds)
    assert set(reply.outputs) == set(expected)
    for output, array in expected.items():
        assert reply.outputs[output].shape == array.shape
        # Which rows share a product is not known here, so its last bits may differ; whose they are may not.
        np.testing.assert_allclose(reply.outputs[output], array, rtol=1e-3, atol=1e-5)


def batches(server: Server, name: str) -> Counter[int]:
    """How often a batch of so many rows ran."""
    (found,) = server.get(f"/v2/models/{name}/stats").json()["model_stats"]
    return Counter({entry["batch_size"]: int(entry["compute_infer"]["count"]) for entry in found["batch_stats"]})


def at_once(
    server: Server, references: References, name: str, requests: list[dict[str, Array]], *, kill: bool = False
) -> Counter[int]:
    """Sends requests that all wait before the first of them is run; the batches that they made."""

    def one(number: int) -> None:
        with Client(server.host, server.port, timeout_s=60) as client:
            ask(client, references, name, requests[number], binary=number % 3 > 0)

    before = batches(server, name)
    rows = sum(len(next(iter(feeds.values()))) for feeds in requests)
    with ThreadPoolExecutor(len(requests)) as pool:
        with stopped(pid := executor(server, name)):
            answers = [pool.submit(one, number) for number in range(len(requests))]
            wait_until(lambda: metric(server, "headrace_queue_depth", model=name) == rows, "all in flight")
            if kill:
                os.kill(pid, signal.SIGKILL)
        for answer in answers:
            answer.result()
    return batches(server, name) - before


def steps(rows: int, count: int, seed: int, width: int = 16) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).standard_normal((rows, count, width), np.float32)}


def test_what_they_are_served_as(served: Server) -> None:
    for name in (*SYNTHETIC, *OCR):
        assert served.get(f"/v2/models/{name}/config").json()["max_batch_size"] == CAPACITY_ROWS
    assert served.get("/v2/models/mlp").json()["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, -1, 16]}]
    assert served.get("/v2/models/recogniser").json()["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": [-1, 3, 48, -1]}
    ]
    assert "only rows of equal shape run together" in served.output()


def test_requests_of_equal_shape_share_a_batch(served: Server, references: References) -> None:
    """Three shapes in turn: three batches, whatever the order. Requests need not have equally many rows."""
    requests = [steps(1 + (number >= 9), (5, 2, 9)[number % 3], seed=number) for number in range(12)]
    assert at_once(served, references, "mlp", requests) == {5: 3}


def test_rows_of_a_request_that_do_not_fit_make_more_batches(served: Server, references: References) -> None:
    requests = [steps(40, 3, seed=1), steps(4, 3, seed=2)]
    assert at_once(served, references, "mlp", requests) in ({16: 2, 8: 1, 4: 1}, {16: 2, 12: 1})


def test_all_inputs_shapes_count(served: Server, references: References) -> None:
    rng = np.random.default_rng(5)

    def feeds(wide: int, deep: int) -> dict[str, Array]:
        return {
            "a": rng.standard_normal((1, wide), np.float32),
            "b": rng.integers(-9, 9, 1),
            "c": rng.integers(0, 255, (1, 2, deep), np.uint8),
        }

    shapes = [(3, 4), (3, 5), (4, 4), (0, 4), (3, 0), (0, 0)]
    requests = [feeds(*shapes[number % len(shapes)]) for number in range(18)]
    assert at_once(served, references, "echo", requests) == {3: len(shapes)}


def test_mixed_shapes_from_many_clients(served: Server, references: References) -> None:
    before = {name: batches(served, name) for name in SYNTHETIC}

    def one(seed: int) -> None:
        rng = np.random.default_rng(seed)
        with Client(served.host, served.port) as client:
            for number in range(30):
                name = ("mlp", "mlp", "time_first", "flattened")[number % 4]
                feeds = steps(int(rng.choice([1, 1, 1, 2, 3, 16])), int(rng.choice([1, 2, 3, 16])), seed * 100 + number,
                              16 if name == "mlp" else 4)  # fmt: skip
                ask(client, references, name, feeds, binary=bool(number % 3))

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(one, range(12)))
    made = batches(served, "mlp") - before["mlp"]
    assert sum(rows * count for rows, count in made.items()) > made.total()


@pytest.mark.parametrize("name", ["time_first", "flattened"])
def test_outputs_that_do_not_follow_the_batch_axis_are_right_all_the_same(
    served: Server, references: References, name: str
) -> None:
    """Two rows of two steps: with as many steps as rows only the order of the axes tells."""
    requests = [steps(1 + number % 3, 2, seed=number, width=4) for number in range(9)]
    assert at_once(served, references, name, requests) == {1: 3, 2: 3, 3: 3}
    assert "requests are run one at a time" in served.log()
    rows = CAPACITY_ROWS + 1
    body, headers = encode([Tensor("x", "FP32", np.zeros((rows, 2, 4), np.float32))])
    with Client(served.host, served.port) as client:
        answer = client.post(name, body, headers)
    assert answer.status == 400
    assert answer.json()["error"] == (
        f"output 'y' of model '{name}' does not follow the batch axis, and the {rows} rows of this request do not fit "
        f"into one batch: send at most {CAPACITY_ROWS} rows at a time"
    )


def test_a_shape_that_is_not_the_models_is_refused(served: Server) -> None:
    with Client(served.host, served.port) as client:
        for shape in ((1, 5, 17), (1, 16), (0, 5, 16)):
            body, headers = encode([Tensor("x", "FP32", np.zeros(shape, np.float32))])
            assert client.post("mlp", body, headers).status == 400


def test_rows_of_the_rest_protocol(served: Server, references: References) -> None:
    feeds = steps(3, 4, seed=8)
    answer = served.post("/v1/models/mlp:predict", {"instances": feeds["x"].tolist()})
    assert answer.status == 200, answer
    expected = references["mlp"].run(feeds)
    found: list[dict[str, Any]] = answer.json()["predictions"]
    for name, array in expected.items():
        np.testing.assert_allclose([row[name] for row in found], array, rtol=1e-3, atol=1e-5)


def test_an_executor_that_is_killed_leaves_every_request_to_the_next(served: Server, references: References) -> None:
    requests = [steps(1 + number % 2, (5, 2, 9)[number % 3], seed=number) for number in range(12)]
    at_once(served, references, "mlp", requests, kill=True)


@pytest.mark.parametrize("name", OCR)
def test_models_that_read_text(served: Server, references: References, name: str) -> None:
    """Equal shapes run together, if the executor's first look says that they may."""
    images = [
        {"x": np.random.default_rng(number).standard_normal((1, *IMAGES[name][number % len(IMAGES[name])]), np.float32)}
        for number in range(6)
    ]
    made = at_once(served, references, name, images)
    assert made == {6 // len(IMAGES[name]): len(IMAGES[name])}
