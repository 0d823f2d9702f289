"""Tensors whose batch axis is not the first, and inputs that all rows of a batch share: silero-vad, which carries its
state from call to call, answers many callers at once as ONNX Runtime answers each of them alone.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.conformance.onnx_reference import Reference
from tests.conformance.test_padding import DATATYPES, batches, by_grpc, by_rest, parameter
from tests.conformance.v2_client import Array, Client, Tensor, encode
from tests.support import clients, triton_repository
from tests.support.faults import metric, stopped, wait_until
from tests.support.onnx_writer import Graph
from tests.support.server import Server, running

pytestmark = pytest.mark.slow

CAPACITY_ROWS = 16
VOICE = {
    "voice": "silero_vad/data/silero_vad.onnx",
    "ifless": "silero_vad/data/silero_vad_op18_ifless.onnx",
    "rateless": "silero_vad/data/silero_vad_half.onnx",
}
STATES = parameter("batch_axis_state", "1") + parameter("batch_axis_stateN", "1")
SAME_RATE = parameter("same_sr", "true")


def scaled() -> bytes:
    """`x` FP32 [2, -1, 3] with the batch axis in the middle, `last` INT64 [-1, -1] with it behind, `by` FP32 [2]
    -> `y` [2, -1, 3] = x * by[0] + by[1], `again` [-1, -1] = last.
    """
    graph = Graph("scaled")
    graph.input("x", "FP32", [2, -1, 3])
    graph.input("last", "INT64", [-1, -1])
    graph.input("by", "FP32", [2])
    for name, index in (("at_0", 0), ("at_1", 1)):
        graph.constant(name, "INT64", [], struct.pack("<q", index))
    graph.node("Gather", ["by", "at_0"], ["factor"])
    graph.node("Gather", ["by", "at_1"], ["offset"])
    graph.node("Mul", ["x", "factor"], ["product"])
    graph.node("Add", ["product", "offset"], ["y"])
    graph.node("Identity", ["last"], ["again"])
    graph.output("y", "FP32", [2, -1, 3])
    graph.output("again", "INT64", [-1, -1])
    return graph.model()


SCALED = (
    parameter("batch_axis_x", "1") + parameter("batch_axis_y", "1") + parameter("batch_axis_last", "1")
    + parameter("batch_axis_again", "1") + parameter("same_by", "true")
)  # fmt: skip
CONFIGS = {"voice": STATES + SAME_RATE, "ifless": STATES + SAME_RATE, "rateless": STATES, "scaled": SCALED}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    read = {name: clients.package_file("models", path).read_bytes() for name, path in VOICE.items()}
    return read | {"scaled": scaled()}


@pytest.fixture(scope="module")
def references(files: dict[str, bytes]) -> dict[str, Reference]:
    return {name: Reference(content) for name, content in files.items()}


@pytest.fixture(scope="module")
def served(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("axes")
    for name, content in files.items():
        triton_repository.put(root, name, content, CONFIGS[name])
    with running(root, "--workers", "1", "--max-batch-size", str(CAPACITY_ROWS)) as server:
        yield server


def sound(rows: int, seed: int, rate: int = 16000, samples: int = 576) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        "input": (0.1 * rng.standard_normal((rows, samples))).astype(np.float32),
        "state": (0.1 * rng.standard_normal((2, rows, 128))).astype(np.float32),
        "sr": np.array(rate, np.int64),
    }


def feeds_of(name: str, rows: int, seed: int, rate: int = 16000) -> dict[str, Array]:
    feeds = sound(rows, seed, rate, 576 if rate == 16000 else 288)
    if name == "rateless":
        del feeds["sr"]
    return feeds


def numbers(rows: int, seed: int, by: tuple[float, float] = (2.0, 1.0), width: int = 4) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.standard_normal((2, rows, 3), np.float32),
        "last": rng.integers(0, 99, (width, rows)),
        "by": np.array(by, np.float32),
    }


def check(found: dict[str, Array], expected: dict[str, Array], tolerance: float = 1e-4) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape
        np.testing.assert_allclose(found[name], array, rtol=tolerance, atol=1e-5)


def at_once(
    server: Server, references: dict[str, Reference], name: str, requests: list[dict[str, Array]]
) -> Counter[int]:
    """Sends requests that all wait before the first of them is run; the batches that they made."""

    def one(number: int) -> None:
        feeds = requests[number]
        check(by_rest(server, name, feeds, number % 3 > 0), references[name].run(feeds))

    before = batches(server, name)
    rows = sum(feeds["x" if name == "scaled" else "state"].shape[1] for feeds in requests)
    pids = [pid for pid, command in server.processes().items() if command == f"headrace-e{sorted(CONFIGS).index(name)}"]
    with ThreadPoolExecutor(len(requests)) as pool:
        with stopped(pids[0]):
            answers = [pool.submit(one, number) for number in range(len(requests))]
            wait_until(lambda: metric(server, "headrace_queue_depth", model=name) == rows, "all in flight")
        for answer in answers:
            answer.result()
    return batches(server, name) - before


def test_clients_see_the_models_order(served: Server) -> None:
    found = served.get("/v2/models/voice").json()
    assert {tensor["name"]: tensor["shape"] for tensor in found["inputs"] + found["outputs"]} == {
        "input": [-1, -1], "state": [2, -1, 128], "sr": [], "output": [-1, 1], "stateN": [-1, -1, -1],
    }  # fmt: skip
    assert served.get("/v2/models/voice/config").json()["max_batch_size"] == CAPACITY_ROWS
    assert "'state' counts rows on axis 1" in served.output()


@pytest.mark.parametrize("name", VOICE)
def test_callers_share_a_batch(served: Server, references: dict[str, Reference], name: str) -> None:
    requests = [feeds_of(name, 1 + number % 3, seed=number) for number in range(7)]
    assert at_once(served, references, name, requests) == {13: 1}


def test_only_equal_values_share_a_batch(served: Server, references: dict[str, Reference]) -> None:
    """The rate decides what the model does; one number of samples is right for both."""
    requests = [feeds_of("voice", 1, seed=number, rate=(16000, 8000)[number % 2]) for number in range(8)]
    assert at_once(served, references, "voice", requests) == {4: 2}
    values = [(2.0, 1.0), (2.0, -1.0), (0.0, 1.0)]
    requests = [numbers(1, number, values[number % 3]) for number in range(9)]
    assert at_once(served, references, "scaled", requests) == {3: 3}


def test_state_is_carried_over_many_steps_by_many_callers(served: Server, references: dict[str, Reference]) -> None:
    before = batches(served, "voice")

    def caller(seed: int) -> None:
        feeds = sound(1, seed)
        state = np.zeros((2, 1, 128), np.float32)
        own = state
        for step in range(25):
            feeds = sound(1, seed * 100 + step)
            way = by_grpc if seed % 3 == 0 else by_rest
            found = way(served, "voice", feeds | {"state": state}, seed % 2 == 0 or seed % 3 == 0)
            expected = references["voice"].run(feeds | {"state": own})
            check(found, expected, tolerance=1e-3)
            state, own = found["stateN"], expected["stateN"]

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(caller, range(10)))
    made = batches(served, "voice") - before
    assert sum(rows * count for rows, count in made.items()) == 250 and made.total() < 250


def test_one_caller_alone_gets_the_models_own_bits(served: Server, references: dict[str, Reference]) -> None:
    for seed in range(3):
        feeds = sound(1, seed)
        found, expected = by_rest(served, "voice", feeds, True), references["voice"].run(feeds)
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("rows", [1, 3, CAPACITY_ROWS + 5])
@pytest.mark.parametrize("binary", [False, True])
def test_rows_of_a_request_may_make_several_batches(
    served: Server, references: dict[str, Reference], rows: int, binary: bool
) -> None:
    for feeds in (numbers(rows, 1), numbers(rows, 2, width=0)):
        check(by_rest(served, "scaled", feeds, binary), references["scaled"].run(feeds))


def test_a_mixture(served: Server, references: dict[str, Reference]) -> None:
    requests = [numbers(1 + number % 4, number) for number in range(6)]
    assert at_once(served, references, "scaled", requests) == {13: 1}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"state": np.zeros((2, 2, 128), np.float32)}, "batch size does not match other inputs"),
        ({"state": np.zeros((1, 2, 128), np.float32)}, "batch size does not match other inputs"),
        ({"state": np.zeros((3, 1, 128), np.float32)}, "Expected [2,-1,128], got [3,1,128]"),
        ({"state": np.zeros((2, 128), np.float32)}, "Expected [2,-1,128], got [2,128]"),
        ({"sr": np.array([16000])}, "Expected [], got [1]"),
        ({"input": np.zeros((0, 576), np.float32), "state": np.zeros((2, 0, 128), np.float32)}, "must be >= 1"),
    ],
)
def test_what_does_not_fit_is_refused(served: Server, change: dict[str, Array], text: str) -> None:
    feeds = sound(1, 1) | change
    body, headers = encode([Tensor(key, DATATYPES[str(array.dtype)], array) for key, array in feeds.items()])
    with Client(served.host, served.port) as client:
        answer = client.post("voice", body, headers)
    assert answer.status == 400 and text in answer.json()["error"]


def test_a_value_that_cannot_be_read(served: Server) -> None:
    document = {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [2, 1, 3], "data": [0.0] * 6},
            {"name": "last", "datatype": "INT64", "shape": [1, 1], "data": [1]},
            {"name": "by", "datatype": "FP32", "shape": [2], "data": ["a", 2]},
        ]
    }
    answer = served.post("/v2/models/scaled/infer", document)
    assert answer.status == 400 and "'by'" in answer.json()["error"]
