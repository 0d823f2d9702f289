"""Rows of different lengths in one batch: a sentence encoder of MiniLM's form answers texts of any length as ONNX
Runtime does for each by itself, whatever protocol they come by and whatever they are padded to.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from server.protocol import messages
from tests.conformance.onnx_reference import Reference
from tests.conformance.v2_client import Array, Client, Tensor, encode
from tests.support import onnx_writer, transformer, triton_repository
from tests.support.faults import metric, stopped, wait_until
from tests.support.onnx_writer import Graph
from tests.support.server import Server, running
from tests.support.shared_objects import grpc_infer, place, register, shared_object, unregister

pytestmark = pytest.mark.slow

CAPACITY_ROWS = 16
HIDDEN = 64


def parameter(key: str, text: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{text}" }} }}\n'


def strided() -> bytes:
    """`x` FP32 [-1, 3, -1, -1] -> `y` FP32 [-1, 3, ceil(height / 2), ceil(width / 2)]: every second column and row."""
    graph = Graph("strided")
    graph.input("x", "FP32", [-1, 3, -1, -1])
    graph.integers("starts", [0, 0])
    graph.integers("ends", [1 << 40, 1 << 40])
    graph.integers("axes", [2, 3])
    graph.integers("steps", [2, 2])
    graph.node("Slice", ["x", "starts", "ends", "axes", "steps"], ["y"])
    graph.output("y", "FP32", [-1, 3, -1, -1])
    return graph.model()


PAD_TEXT = "axis=1 value=0 multiple=16 max=512"
ENCODER = transformer.sentence_encoder(hidden=HIDDEN)
#: name -> file, configuration
MODELS = {
    "encoder": (ENCODER, parameter("pad_input_ids", f"{PAD_TEXT} together=always")),
    "learner": (ENCODER, parameter("pad_input_ids", PAD_TEXT)),
    "image": (
        strided(),
        parameter("pad_x", "axis=2 multiple=8 value=-1 together=always; axis=3 multiple=16 value=-1")
        + parameter("cut_y", "axis=2 like=x:2 ratio=1/2; axis=3 like=x:3 ratio=1/2"),
    ),
    "kinds": (
        onnx_writer.identities([("a", "FP16", [-1, -1]), ("b", "BOOL", [-1, 2, -1]), ("c", "UINT8", [-1, 3])]),
        parameter("pad_a", "axis=1 multiple=4 value=-inf together=always")
        + parameter("pad_b", "axis=2 multiple=4 value=1")
        + parameter("cut_a_out", "axis=1 like=a")
        + parameter("cut_b_out", "axis=2 like=b"),
    ),
}
References = dict[str, Reference]


@pytest.fixture(scope="module")
def references() -> References:
    return {name: Reference(content) for name, (content, _) in MODELS.items()}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("padding")
    for name, (content, config) in MODELS.items():
        triton_repository.put(root, name, content, config)
    # One worker: while it tells how many rows wait it fills none, so those that it counts can be run.
    with running(root, "--workers", "1", "--max-batch-size", str(CAPACITY_ROWS), "--allow-client-shm") as server:
        yield server


def text(rows: int, length: int, seed: int, absent: int = 0) -> dict[str, Array]:
    """Texts of this length, the last `absent` tokens of which the client pads by itself."""
    mask = np.ones((rows, length), np.int64)
    mask[:, length - absent :] = 0
    return {"input_ids": np.random.default_rng(seed).integers(1, 256, (rows, length)), "attention_mask": mask}


def check(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)


DATATYPES = {"float32": "FP32", "float16": "FP16", "int64": "INT64", "bool": "BOOL", "uint8": "UINT8"}


def by_rest(server: Server, name: str, feeds: dict[str, Array], binary: bool) -> dict[str, Array]:
    tensors = [Tensor(key, DATATYPES[str(array.dtype)], array, binary) for key, array in feeds.items()]
    with Client(server.host, server.port, timeout_s=60) as client:
        return dict(client.infer(name, tensors, parameters={"binary_data_output": binary}).outputs)


def by_grpc(server: Server, name: str, feeds: dict[str, Array], raw: bool) -> dict[str, Array]:
    message = messages.message_class("inference.ModelInferRequest")()
    message.model_name = name
    for key, array in feeds.items():
        tensor = message.inputs.add(name=key, datatype=DATATYPES[str(array.dtype)], shape=array.shape)
        if raw:
            message.raw_input_contents.append(array.tobytes())
        else:
            tensor.contents.int64_contents.extend(array.ravel().tolist())
    reply = grpc_infer(server, message)
    return {
        output.name: np.frombuffer(content, np.float32).reshape(tuple(output.shape))
        for output, content in zip(reply.outputs, reply.raw_output_contents, strict=True)
    }


def by_tfs(server: Server, name: str, feeds: dict[str, Array], by_column: bool) -> dict[str, Array]:
    if by_column:
        document: Any = {"inputs": {key: array.tolist() for key, array in feeds.items()}}
    else:
        rows = len(feeds["input_ids"])
        document = {"instances": [{key: array[row].tolist() for key, array in feeds.items()} for row in range(rows)]}
    answer = server.post(f"/v1/models/{name}:predict", document)
    assert answer.status == 200, answer
    found = answer.json()
    if by_column:
        return {key: np.array(value) for key, value in found["outputs"].items()}
    return {key: np.array([row[key] for row in found["predictions"]]) for key in found["predictions"][0]}


WAYS = {
    "json": lambda server, name, feeds: by_rest(server, name, feeds, False),
    "binary": lambda server, name, feeds: by_rest(server, name, feeds, True),
    "grpc raw": lambda server, name, feeds: by_grpc(server, name, feeds, True),
    "grpc contents": lambda server, name, feeds: by_grpc(server, name, feeds, False),
    "rows": lambda server, name, feeds: by_tfs(server, name, feeds, False),
    "columns": lambda server, name, feeds: by_tfs(server, name, feeds, True),
}


def batches(server: Server, name: str) -> Counter[int]:
    (found,) = server.get(f"/v2/models/{name}/stats").json()["model_stats"]
    return Counter({entry["batch_size"]: int(entry["compute_infer"]["count"]) for entry in found["batch_stats"]})


def at_once(
    server: Server,
    references: References,
    name: str,
    requests: list[dict[str, Array]],
    ways: list[str],
    *,
    kill: bool = False,
) -> Counter[int]:
    """Sends requests that all wait before the first of them is run; the batches that they made."""

    def one(number: int) -> None:
        found = WAYS[ways[number % len(ways)]](server, name, requests[number])
        check(found, references[name].run(requests[number]))

    before = batches(server, name)
    rows = sum(len(next(iter(feeds.values()))) for feeds in requests)
    (pid,) = [
        pid for pid, command in server.processes().items() if command == f"headrace-e{sorted(MODELS).index(name)}"
    ]
    with ThreadPoolExecutor(len(requests)) as pool:
        with stopped(pid):
            answers = [pool.submit(one, number) for number in range(len(requests))]
            wait_until(lambda: metric(server, "headrace_queue_depth", model=name) == rows, "all in flight")
            if kill:
                os.kill(pid, signal.SIGKILL)
        for answer in answers:
            answer.result()
    return batches(server, name) - before


@pytest.mark.parametrize("way", WAYS)
def test_texts_of_one_bucket_run_together_and_get_their_own_lengths_back(
    served: Server, references: References, way: str
) -> None:
    requests = [text(1 + number % 2, 33 + number, seed=number, absent=number % 3) for number in range(8)]
    assert at_once(served, references, "encoder", requests, [way]) == {12: 1}


def test_all_protocols_share_a_batch(served: Server, references: References) -> None:
    requests = [text(1, 17 + 2 * number, seed=number) for number in range(6)]
    assert at_once(served, references, "encoder", requests, list(WAYS)) == {6: 1}


def test_shared_memory_is_read_into_padded_rows(served: Server, references: References) -> None:
    feeds = text(2, 21, seed=3)
    expected = references["encoder"].run(feeds)
    with shared_object(1 << 16) as memory:
        assert register(served, "texts", memory.key, 1 << 16).status == 200
        tensors, at = [], 0
        for key, array in feeds.items():
            memory.write(at, array.tobytes())
            tensors.append(
                {"name": key, "datatype": "INT64", "shape": array.shape, "parameters": place("texts", array.nbytes, at)}
            )
            at += array.nbytes
        size = expected["last_hidden_state"].nbytes
        outputs = [{"name": "last_hidden_state", "parameters": place("texts", size, at)}]
        answer = served.post("/v2/models/encoder/infer", {"inputs": tensors, "outputs": outputs})
        assert answer.status == 200, answer
        found = np.frombuffer(memory.read(at, size), np.float32).reshape(expected["last_hidden_state"].shape)
        np.testing.assert_allclose(found, expected["last_hidden_state"], rtol=1e-4, atol=1e-5)
        assert unregister(served).status == 200


def test_one_request_is_run_as_it_came(served: Server, references: References) -> None:
    """Bit for bit what ONNX Runtime answers: nothing of it was padded."""
    for length in (1, 15, 16, 37, 500, 512):
        feeds = text(1, length, seed=length)
        found, expected = by_rest(served, "learner", feeds, True), references["learner"].run(feeds)
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("model", ["encoder", "learner"])
def test_texts_of_all_lengths_from_many_clients(served: Server, references: References, model: str) -> None:
    names = list(WAYS)
    before = batches(served, model)

    def one(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for number in range(15):
            # The gRPC client here takes no more than 64 KiB of an answer.
            feeds = text(int(rng.choice([1, 1, 2])), int(rng.integers(1, 100)), seed * 100 + number)
            check(WAYS[names[int(rng.integers(len(names)))]](served, model, feeds), references[model].run(feeds))

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(one, range(12)))
    made = batches(served, model) - before
    assert sum(rows * count for rows, count in made.items()) > made.total()
    given = metric(served, "headrace_input_elements_total", model=model, kind="given")
    run = metric(served, "headrace_input_elements_total", model=model, kind="run")
    assert 0 < given <= run < 3 * given


def test_a_request_of_more_rows_than_a_batch(served: Server, references: References) -> None:
    requests = [text(40, 35, seed=1), text(3, 47, seed=2)]
    made = at_once(served, references, "encoder", requests, ["binary", "json"])
    assert sum(rows * count for rows, count in made.items()) == 43 and made[16] == 2


def test_an_executor_that_is_killed_leaves_every_request_to_the_next(served: Server, references: References) -> None:
    requests = [text(1 + number % 2, 33 + number, seed=number) for number in range(9)]
    at_once(served, references, "encoder", requests, list(WAYS), kill=True)


def test_lengths_that_disagree_are_refused(served: Server) -> None:
    feeds = text(1, 20, seed=1) | {"attention_mask": np.ones((1, 21), np.int64)}
    body, headers = encode([Tensor(key, "INT64", array) for key, array in feeds.items()])
    with Client(served.host, served.port) as client:
        answer = client.post("encoder", body, headers)
    assert answer.status == 400
    assert answer.json()["error"] == (
        "input 'attention_mask' of model 'encoder' has length 21 on axis 1, input 'input_ids' has length 20 on axis 1: "
        "expected equal lengths"
    )


def test_what_the_model_refuses_fails_alone(served: Server, references: References) -> None:
    """Words that are not in the table, amid others of the same bucket."""
    requests = [text(1, 49 + number, seed=number) for number in range(5)]
    bad = text(1, 55, seed=9) | {"input_ids": np.full((1, 55), 99_999)}
    body, headers = encode([Tensor(key, "INT64", array) for key, array in bad.items()])

    def refused() -> None:
        with Client(served.host, served.port) as client:
            assert client.post("encoder", body, headers).status == 400

    def answered(feeds: dict[str, Array]) -> None:
        check(by_rest(served, "encoder", feeds, True), references["encoder"].run(feeds))

    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(answered, feeds) for feeds in requests]
        answers.append(pool.submit(refused))
        for answer in answers:
            answer.result()


def test_images_of_any_height_and_width(served: Server, references: References) -> None:
    """Outputs are half as high and wide, rounded up; two axes are padded and cut."""
    rng = np.random.default_rng(4)
    sizes = [(9, 17), (16, 32), (10, 31), (15, 20)]
    requests = [{"x": rng.standard_normal((1, 3, *size), np.float32)} for size in sizes]
    assert at_once(served, references, "image", requests, ["json", "binary"]) == {4: 1}
    requests = [{"x": rng.standard_normal((2, 3, *size), np.float32)} for size in [(0, 5), (5, 0), (3, 3)]]
    for feeds in requests:
        check(by_rest(served, "image", feeds, True), references["image"].run(feeds))


@pytest.mark.parametrize("binary", [False, True])
def test_every_kind_of_element_is_padded(served: Server, references: References, binary: bool) -> None:
    rng = np.random.default_rng(6)
    requests = [
        {
            "a": rng.standard_normal((1, 1 + number % 4)).astype(np.float16),
            "b": rng.integers(0, 2, (1, 2, 1 + (number + 1) % 4)).astype(bool),
            "c": rng.integers(0, 255, (1, 3), np.uint8),
        }
        for number in range(6)
    ]
    ways = ["binary" if binary else "json"]
    assert at_once(served, references, "kinds", requests, ways) == {6: 1}


def test_the_configuration_says_so(served: Server) -> None:
    parameters = served.get("/v2/models/encoder/config").json()["parameters"]
    assert parameters["pad_input_ids"] == {"string_value": f"{PAD_TEXT} together=always"}
    assert json.dumps(parameters)
