"""Repositories as Triton's public examples lay them out: config.pbtxt acts, tritonclient is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conformance.triton_jobs import Job, Request
from tests.conformance.v2_client import Tensor
from tests.support import onnx_writer, triton_repository
from tests.support.faults import wait_until
from tests.support.server import Server, running


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return triton_repository.write(tmp_path_factory.mktemp("triton"))


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    arguments = ("--model-control-mode", "poll", "--repository-poll-secs", "1", "--workers", "1")
    with running(repository, *arguments) as started:
        yield started


def index(server: Server) -> dict[tuple[str, str], tuple[str, str]]:
    rows = server.post("/v2/repository/index", {}).json()
    return {(row["name"], row["version"]): (row["state"], row["reason"]) for row in rows}


def config(server: Server, name: str) -> dict[str, object]:
    document = server.get(f"/v2/models/{name}/config").json()
    assert isinstance(document, dict)
    return document


def test_the_models_answer_tritonclient(server: Server) -> None:
    image = np.stack([np.full((8, 8), channel, np.float32) for channel in (0.5, 3, 2)])
    left, right = np.arange(32, dtype=np.float32).reshape(2, 16), np.ones((2, 16), np.float32)
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    job = Job()
    job.infer(
        [
            Request("densenet_onnx", [Tensor("data_0", "FP32", image)]),
            Request("densenet_onnx", [Tensor("data_0", "FP32", image)], outputs=[("fc6_1", False)], classes=2),
            Request("simple", [Tensor("INPUT0", "FP32", left), Tensor("INPUT1", "FP32", right)]),
            Request("batched", [Tensor("x", "FP32", rows)]),
            Request("scalars", [Tensor("x", "FP32", rows[:, :1])]),
        ]
    )
    density, classes, simple, batched, scalars = job.run(server)[0]
    assert density.outputs["fc6_1"].tolist() == [0.5, 3, 2]
    assert classes.outputs["fc6_1"].tolist() == [b"3.000000:1:GREEN", b"2.000000:2:BLUE"]
    assert (simple.outputs["OUTPUT0"] == left + right).all() and (simple.outputs["OUTPUT1"] == left - right).all()
    assert (batched.outputs["y"] == rows).all()
    assert (scalars.outputs["y"] == rows[:, :1]).all()


def test_a_broken_configuration_is_its_models_trouble_alone(server: Server) -> None:
    states = index(server)
    assert states["broken", "1"] == (
        "UNAVAILABLE",
        "config.pbtxt line 3: ensemble_scheduling: not supported: ensembles are not served",
    )
    assert {key for key, (state, _) in states.items() if state == "READY"} == {
        ("batched", "1"),
        ("densenet_onnx", "1"),
        ("plain", "1"),
        ("scalars", "1"),
        ("simple", "1"),
        ("strings", "1"),
        ("strings", "3"),
    }


def test_the_configuration_in_force_is_told(server: Server) -> None:
    found = config(server, "batched")
    assert found["max_batch_size"] == 32
    batching = found["dynamic_batching"]
    assert isinstance(batching, dict)
    assert batching["max_queue_delay_microseconds"] == 100
    assert batching["default_queue_policy"] == {
        "timeout_action": "REJECT",
        "default_timeout_microseconds": 5000000,
        "allow_timeout_override": True,
        "max_queue_size": 128,
    }
    assert isinstance(found["instance_group"], list) and found["instance_group"][0]["count"] == 2
    assert found["parameters"] == {
        "execution_mode": {"string_value": "0"},
        "intra_op_thread_count": {"string_value": "1"},
    }
    density = config(server, "densenet_onnx")["output"]
    assert isinstance(density, list)
    assert (density[0]["dims"], density[0]["reshape"]) == ([3], {"shape": [1, 3, 1, 1]})
    assert density[0]["label_filename"] == "densenet_labels.txt"
    text = json.dumps(config(server, "strings"))
    assert '"max_batch_size": 8' in text and '"dims": [-1]' in text and '"all": {}' in text


def test_grpc_tells_the_same(server: Server) -> None:
    grpc = pytest.importorskip("grpc")
    from server.protocol import messages

    request = messages.message_class("inference.ModelConfigRequest")(name="batched")
    reply_class = messages.message_class("inference.ModelConfigResponse")
    with grpc.insecure_channel(f"{server.host}:{server.port}") as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelConfig",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply_class.FromString,
        )
        found = call(request, timeout=10).config
    assert (found.max_batch_size, found.instance_group[0].count) == (32, 2)
    assert found.dynamic_batching.default_queue_policy.max_queue_size == 128
    assert (found.model_warmup[0].name, found.optimization.graph.level) == ("largest", 1)


def test_a_changed_configuration_reloads_its_model(server: Server, repository: Path) -> None:
    """Last: it changes the repository."""
    (repository / "plain" / "config.pbtxt").write_text("max_batch_size: 5\n")
    wait_until(lambda: config(server, "plain")["max_batch_size"] == 5, "the new configuration")
    (repository / "plain" / "config.pbtxt").write_text("max_batch_size: 6\nresponse_cache { enable: true }\n")
    (repository / "broken" / "config.pbtxt").write_text("max_batch_size: 4\n")
    wait_until(lambda: index(server)["broken", "1"][0] == "READY", "the mended model to load")
    # One that cannot be followed never replaces one that serves.
    row = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
    assert server.post("/v2/models/plain/infer", row).json()["outputs"][0]["data"] == [1, 2, 3, 4]
    assert config(server, "plain")["max_batch_size"] == 5


@pytest.fixture(scope="module")
def explicit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("explicit")
    triton_repository.put(root, "plain", onnx_writer.identity(), "max_batch_size: 3")
    with running(root, "--model-control-mode", "explicit", "--load-model", "plain", "--workers", "1") as started:
        yield started


def load(server: Server, config: object) -> tuple[int, str]:
    parameters = {} if config is None else {"config": json.dumps(config)}
    answer = server.post("/v2/repository/models/plain/load", {"parameters": parameters})
    return answer.status, answer.body.decode()


def batching(**fields: object) -> dict[str, object]:
    return {"max_batch_size": 8, "dynamic_batching": fields}


def infer(server: Server, row_count: int, **parameters: int) -> tuple[int, str]:
    tensor = {"name": "x", "shape": [row_count, 4], "datatype": "FP32", "data": [1.0] * 4 * row_count}
    answer = server.post("/v2/models/plain/infer", {"inputs": [tensor], "parameters": parameters})
    return answer.status, answer.body.decode()


def test_a_load_request_brings_a_configuration(explicit: Server) -> None:
    assert load(explicit, batching(max_queue_delay_microseconds=1)) == (200, "")
    assert config(explicit, "plain")["max_batch_size"] == 8


def test_preferred_sizes_and_full_batches_end_the_wait(explicit: Server) -> None:
    """The wait is as long as the client's patience."""
    patient = batching(preferred_batch_size=[6, 4], max_queue_delay_microseconds=10_000_000)
    assert load(explicit, patient) == (200, "")
    assert [infer(explicit, rows)[0] for rows in (4, 5, 8)] == [200, 200, 200]


@pytest.mark.parametrize("has_override", [True, False])
def test_timeouts(explicit: Server, has_override: bool) -> None:
    """A row that waits for 0.3 s for others has no 1 ms, and has a minute."""

    def policy(timeout_us: int) -> dict[str, object]:
        policy = {"default_timeout_microseconds": timeout_us, "allow_timeout_override": has_override}
        return batching(max_queue_delay_microseconds=300_000, default_queue_policy=policy)

    assert load(explicit, policy(1000)) == (200, "")
    status, text = infer(explicit, 1)
    assert status in (503, 504) and "deadline" in text
    assert load(explicit, policy(60_000_000)) == (200, "")
    assert infer(explicit, 1)[0] == 200
    assert (infer(explicit, 1, timeout=1000)[0] == 200) == (not has_override)


def test_what_cannot_be_followed_leaves_what_serves(explicit: Server) -> None:
    assert load(explicit, None) == (200, "")
    status, text = load(explicit, {"sequence_batching": {}})
    assert status == 400 and "config: sequence_batching: not supported" in text
    status, text = load(explicit, {"max_batch": 3})
    assert status == 400 and "max_batch" in text
    assert load(explicit, [1])[0] == 400
    assert config(explicit, "plain")["max_batch_size"] == 3
    # What the server answers is a configuration that it takes.
    assert load(explicit, {**config(explicit, "plain"), "max_batch_size": 5}) == (200, "")
    assert config(explicit, "plain")["max_batch_size"] == 5


def test_a_provider_that_is_not_there_is_named(explicit: Server) -> None:
    accelerators = {"gpu_execution_accelerator": [{"name": "tensorrt"}]}
    status, text = load(explicit, {"optimization": {"execution_accelerators": accelerators}})
    assert status == 400 and "expected: TensorrtExecutionProvider for tensorrt:0" in text


def test_a_warm_up_that_fails_keeps_the_model_from_loading(tmp_path: Path) -> None:
    """Random indexes lie outside its table."""
    sample = 'inputs { key: "index" value { data_type: TYPE_INT64 dims: [ 1 ] random_data: true } }'
    warm_up = f'model_warmup {{ name: "w" {sample} }}'
    triton_repository.put(tmp_path, "refuses", onnx_writer.fails_on_index(), warm_up)
    triton_repository.put(tmp_path, "plain", onnx_writer.identity(), None)
    with running(tmp_path, "--workers", "1", "--model-control-mode", "explicit", "--load-model", "plain") as server:
        answer = server.post("/v2/repository/models/refuses/load", {})
        assert answer.status == 400 and "model_warmup 'w'" in answer.body.decode()


def test_a_model_that_is_too_large_is_its_own_trouble(tmp_path: Path) -> None:
    dims = ", ".join(["2000000000"] * 3)
    batched = f'max_batch_size: 4 input {{ name: "x" dims: [ {dims} ] }} output {{ name: "y" dims: [ {dims} ] }}'
    single = batched.replace("max_batch_size: 4", "max_batch_size: 0").replace("dims: [", "dims: [ 1,")
    triton_repository.put(tmp_path, "large", onnx_writer.identity(dims=(-1, -1, -1, -1)), batched)
    triton_repository.put(tmp_path, "single", onnx_writer.identity(dims=(-1, -1, -1, -1)), single)
    triton_repository.put(tmp_path, "plain", onnx_writer.identity(), None)
    with running(tmp_path, "--workers", "1") as server:
        states = index(server)
        assert states["plain", "1"][0] == "READY"
        state, reason = states["large", "1"]
        assert state == "UNAVAILABLE" and "MiB of memory beside what runs" in reason
        # What a request of it takes is not known beforehand, so nothing says no until its room is asked for.
        state, reason = states["single", "1"]
        assert state == "UNAVAILABLE" and "no memory or descriptors for it" in reason
