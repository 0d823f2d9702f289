"""Models that others trained and exported, served unchanged and compared with ONNX Runtime in this process.

magika (what kind of file is this?) is batched; silero-vad (is this speech?) has a state whose batch axis is the second
and a scalar input, so it runs one request at a time, and its clients carry the state from call to call.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.conformance.onnx_reference import Reference, same_bits
from tests.conformance.v2_client import Array, Client, Tensor, decode, encode
from tests.support import clients, onnx_writer
from tests.support.server import Server, running

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "magika": "magika/models/*/model.onnx",
    "silero_vad": "silero_vad/data/silero_vad.onnx",
    "silero_half": "silero_vad/data/silero_vad_half.onnx",
    "silero_sequence": "silero_vad/data/silero_vad_16k_sequence.onnx",
}
CAPACITY_ROWS = 16
#: Samples of a call and of the call before it that go with them, by sampling rate.
WINDOW = {16000: (512, 64), 8000: (256, 32)}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {name: clients.package_file("models", pattern).read_bytes() for name, pattern in FILES.items()}


@pytest.fixture(scope="module")
def models(files: dict[str, bytes]) -> dict[str, Reference]:
    return {name: Reference(file) for name, file in files.items()}


@pytest.fixture(scope="module")
def served(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = onnx_writer.write_repository(tmp_path_factory.mktemp("real"), files)
    with running(root, "--workers", "2", "--max-batch-size", str(CAPACITY_ROWS)) as server:
        yield server


@pytest.fixture
def client(served: Server) -> Iterator[Client]:
    with Client(served.host, served.port) as connected:
        yield connected


def features(content: bytes) -> Array:
    """magika's input: the first and the last 1024 bytes without white space around them, 256 where there are fewer."""
    first, last = content[:4096].lstrip()[:1024], content[-4096:].rstrip()[-1024:]
    row = np.full(2048, 256, np.int32)
    row[: len(first)] = np.frombuffer(first, np.uint8)
    row[2048 - len(last) :] = np.frombuffer(last, np.uint8)
    return row


def random_files(rows: int, seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 257, (rows, 2048), dtype=np.int32)


def test_what_they_are_served_as(client: Client, served: Server) -> None:
    assert client.get("/v2/models/magika/config")["max_batch_size"] == CAPACITY_ROWS
    assert client.get("/v2/models/magika")["inputs"] == [{"name": "bytes", "datatype": "INT32", "shape": [-1, 2048]}]
    for name in ("silero_vad", "silero_half", "silero_sequence"):
        assert client.get(f"/v2/models/{name}/config")["max_batch_size"] == 0
    assert client.get("/v2/models/silero_vad")["inputs"] == [
        {"name": "input", "datatype": "FP32", "shape": [-1, -1]},
        {"name": "state", "datatype": "FP32", "shape": [2, -1, 128]},
        {"name": "sr", "datatype": "INT64", "shape": []},
    ]
    assert "one at a time" in served.output()


def test_magika_knows_the_files_of_this_repository(client: Client) -> None:
    config = json.loads(clients.package_file("models", "magika/models/*/config.min.json").read_text())
    names = {"samples/7.png": "png", "server/config.py": "python", "pyproject.toml": "toml", "LICENSE": "txt"}
    rows = np.stack([features((ROOT / name).read_bytes()) for name in names])
    reply = client.infer("magika", [Tensor("bytes", "INT32", rows)])
    best = reply.outputs["target_label"].argmax(axis=1)
    assert [config["target_labels_space"][at] for at in best] == list(names.values())


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize("rows", [1, 2, 5, 16, 40])
def test_magika_alone_has_the_bits_of_the_same_batch(
    client: Client, models: dict[str, Reference], rows: int, binary: bool
) -> None:
    content = random_files(rows, seed=rows)
    reply = client.infer(
        "magika", [Tensor("bytes", "INT32", content, binary)], parameters={"binary_data_output": binary}
    )
    expected = models["magika"].run_parts({"bytes": content}, CAPACITY_ROWS)
    assert same_bits(reply.outputs["target_label"], expected["target_label"])


def test_magika_with_clients_of_different_batch_sizes(served: Server, models: dict[str, Reference]) -> None:
    """Which rows share a run is not known here, so the last bits of a product may differ; whose rows they are, not."""

    def one(seed: int) -> list[tuple[Array, Array]]:
        answers = []
        with Client(served.host, served.port, timeout_s=60) as client:
            for at, rows in enumerate((17, 1, 3, 2, 1)[seed % 3 :]):
                content = random_files(rows, seed=1000 * seed + at)
                reply = client.infer("magika", [Tensor("bytes", "INT32", content)], outputs=[("target_label", True)])
                answers.append((content, reply.outputs["target_label"]))
        return answers

    with ThreadPoolExecutor(6) as pool:
        for content, found in (pair for answers in pool.map(one, range(6)) for pair in answers):
            expected = models["magika"].run({"bytes": content})["target_label"]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


# -- silero


def sound(samples: int, seed: int, rate: int) -> Array:
    """A voice-like sound: harmonics of a gliding tone, loud and quiet in turn, over noise."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(samples) / rate
    phase = 2 * np.pi * np.cumsum(110 + 30 * np.sin(2 * np.pi * 3 * time_s)) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 20))
    envelope = np.clip(np.sin(2 * np.pi * 2.5 * time_s + seed), 0, 1)
    return (0.2 * voice * envelope + 0.01 * rng.standard_normal(samples)).astype(np.float32)


def windows(sounds: Array, rate: int) -> Iterator[Array]:
    """The inputs of consecutive calls: [streams, context + window]."""
    size, context = WINDOW[rate]
    padded = np.pad(sounds, ((0, 0), (context, 0)))
    for at in range(0, sounds.shape[1], size):
        yield padded[:, at : at + context + size]


def stream(client: Client, reference: Reference, sounds: Array, rate: int, *, binary: bool) -> None:
    """Feeds sounds to the server, the state going round; every answer and state has the bits of the reference."""
    count = len(sounds)
    state = expected_state = np.zeros((2, count, 128), np.float32)
    sampling = np.array(rate)
    for window in windows(sounds, rate):
        tensors = [
            Tensor("sr", "INT64", sampling, binary),
            Tensor("input", "FP32", window, binary),
            Tensor("state", "FP32", state, binary),
        ]
        reply = client.infer("silero_vad", tensors, parameters={"binary_data_output": binary})
        expected = reference.run({"input": window, "state": expected_state, "sr": sampling})
        assert same_bits(reply.outputs["output"], expected["output"])
        assert same_bits(reply.outputs["stateN"], expected["stateN"])
        assert reply.outputs["output"].shape == (count, 1)
        state, expected_state = reply.outputs["stateN"], expected["stateN"]


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize(("count", "rate"), [(1, 16000), (1, 8000), (3, 16000)])
def test_silero_streams(client: Client, models: dict[str, Reference], count: int, rate: int, binary: bool) -> None:
    size, _ = WINDOW[rate]
    sounds = np.stack([sound(20 * size, seed, rate) for seed in range(count)])
    stream(client, models["silero_vad"], sounds, rate, binary=binary)


def test_silero_streams_side_by_side_do_not_mix(served: Server, models: dict[str, Reference]) -> None:
    def one(seed: int) -> None:
        rate, count = (16000, 8000)[seed % 2], 1 + seed % 3
        sounds = np.stack([sound(20 * WINDOW[rate][0], 100 * seed + at, rate) for at in range(count)])
        with Client(served.host, served.port, timeout_s=60) as client:
            stream(client, models["silero_vad"], sounds, rate, binary=seed % 4 > 0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))


def test_silero_half_and_the_sequence_model(client: Client, models: dict[str, Reference]) -> None:
    for columns in (1, 2):
        feeds = {
            "input": sound(576 * columns, 7, 16000).reshape(columns, 576),
            "state": np.random.default_rng(1).standard_normal((2, columns, 128), np.float32),
        }
        reply = client.infer("silero_half", [Tensor(name, "FP32", array) for name, array in feeds.items()])
        for name, expected in models["silero_half"].run(feeds).items():
            assert same_bits(reply.outputs[name], expected), name
    for length in (1, 9, 50):
        feeds = {"input": sound(576 * length, 8, 16000).reshape(length, 576)}
        feeds |= {name: np.zeros((1, 1, 128), np.float32) for name in ("h", "c")}
        reply = client.infer("silero_sequence", [Tensor(name, "FP32", array) for name, array in feeds.items()])
        for name, expected in models["silero_sequence"].run(feeds).items():
            assert same_bits(reply.outputs[name], expected), name


def test_silero_refuses_what_does_not_fit_and_goes_on(client: Client, models: dict[str, Reference]) -> None:
    """A state for two streams with the sound of one, a sampling rate that is none: the model's word counts."""
    body_of_two = np.zeros((2, 2, 128), np.float32)
    window = sound(576, 3, 16000).reshape(1, 576)
    rate = np.array(16000)
    for state, sampling in ((body_of_two, rate), (body_of_two[:, :1], np.array(-1))):
        tensors = [
            Tensor("input", "FP32", window),
            Tensor("state", "FP32", state),
            Tensor("sr", "INT64", sampling),
        ]
        expected: dict[str, Array] | None = None
        with contextlib.suppress(Exception):  # ONNX Runtime raises classes of its own
            expected = models["silero_vad"].run({"input": window, "state": state, "sr": sampling})
        answer = client.post("silero_vad", *encode(tensors, parameters={"binary_data_output": True}))
        if expected is None:
            assert answer.status == 400, answer
            assert len(answer.json()["error"]) > 20 and "/" not in answer.json()["error"], answer
        else:
            assert same_bits(decode(answer).outputs["output"], expected["output"])
    stream(client, models["silero_vad"], sound(1024, 1, 16000)[None], 16000, binary=True)
