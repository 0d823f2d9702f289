"""NVIDIA's Python client for gRPC, unmodified: answers bit for bit those of ONNX Runtime, streams, control calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from tests.conformance import zoo
from tests.conformance.onnx_reference import Reference, extremes, same_bits
from tests.conformance.triton_jobs import GRPC_DRIVER, Job, Reply, Request
from tests.conformance.v2_client import Array, Tensor
from tests.support import onnx_writer
from tests.support.onnx_writer import FIXED_WIDTH_TYPES
from tests.support.server import Server, running

pytestmark = pytest.mark.slow
References = dict[str, Reference]
MODES = ("sync", "async", "aio", "stream", "aio_stream")
#: What ModelInferRequest has no typed contents for.
RAW_ONLY = ("FP16", "BF16")
INVALID_ARGUMENT, NOT_FOUND = "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND"
DEADLINE_EXCEEDED, UNIMPLEMENTED = "StatusCode.DEADLINE_EXCEEDED", "StatusCode.UNIMPLEMENTED"
UNKNOWN_MODEL = "Request for unknown model: 'nobody' is not found"
TEXTS = [b"", b"a", "日本語".encode(), b"\0\xff" * 5000, b"line\n", b"x" * 15]


def every(rows: int, names: Sequence[str] = FIXED_WIDTH_TYPES, seed: int = 0) -> list[Tensor]:
    """Extremes of datatypes, an input of the model of each."""
    shape = (rows, zoo.EVERY_DTYPE_WIDTH)
    return [Tensor(name.lower(), name, extremes(name, shape[0] * shape[1], seed).reshape(shape)) for name in names]


def image(rows: int = 1, seed: int = 0) -> Request:
    images = np.random.default_rng(seed).integers(0, 16, (rows, 64)).astype(np.float32)
    return Request("digits", [Tensor("image", "FP32", images)])


def infer(server: Server, requests: Sequence[Request], mode: str = "sync", **client: Any) -> list[Reply]:
    job = Job(GRPC_DRIVER)
    job.infer(requests, mode, **client)
    (replies,) = job.run(server)
    return list(replies)


def check(reply: Reply, expected: dict[str, Array]) -> None:
    assert reply.error is None, reply
    assert reply.outputs, "no outputs"
    for name, found in reply.outputs.items():
        assert same_bits(found, expected[name]), f"{name}: expected {expected[name]}, got {found}"


def feeds(request: Request) -> dict[str, Array]:
    return {tensor.name: tensor.array for tensor in request.tensors}


# -- bit for bit


@pytest.mark.parametrize("mode", MODES)
def test_every_datatype_in_raw_contents(server: Server, references: References, mode: str) -> None:
    requests = [Request("every_dtype", every(rows, seed=rows)) for rows in (1, 5, 64, 150)]
    listed = [(f"{name.lower()}_out", True) for name in reversed(FIXED_WIDTH_TYPES)]
    requests.append(requests[1]._replace(outputs=listed))
    replies = infer(server, requests, mode)
    for request, reply in zip(requests, replies, strict=True):
        expected = references["every_dtype"].run_parts(feeds(request), 64)
        for name, array in feeds(request).items():
            assert same_bits(expected[f"{name}_out"], array), f"{name}: the reference is no identity"
        check(reply, expected)
        assert len(reply.outputs) == len(FIXED_WIDTH_TYPES)
    assert [one["name"] for one in replies[-1].response["outputs"]] == [name for name, _ in listed]


def test_every_datatype_in_typed_contents(server: Server, tmp_path: Any) -> None:
    names = [name for name in FIXED_WIDTH_TYPES if name not in RAW_ONLY]
    models = {
        "typed": onnx_writer.identities([(name.lower(), name, [-1, zoo.EVERY_DTYPE_WIDTH]) for name in names]),
        "text": onnx_writer.identity("BYTES", [-1, 3]),
    }
    sent = [Request("typed", every(rows, names, seed=rows)) for rows in (1, 5, 70)]
    reference = Reference(models["typed"])
    array = np.empty((2, 3), object)
    array[:] = np.array(TEXTS, object).reshape(2, 3)
    strings = Request("text", [Tensor("x", "BYTES", array)])
    with running(onnx_writer.write_repository(tmp_path, models), "--workers", "1", "--max-batch-size", "64") as other:
        *replies, text = infer(other, [*sent, strings], "typed")
        repeated = [(mode, reply) for mode in MODES for reply in infer(other, [strings], mode)]
    for request, reply in zip(sent, replies, strict=True):
        check(reply, reference.run_parts(feeds(request), 64))
        assert len(reply.outputs) == len(names)
    for mode, reply in [("typed", text), *repeated]:
        assert reply.error is None, (mode, reply)
        assert reply.outputs["y"].ravel().tolist() == TEXTS, mode


def test_five_hundred_at_once_each_get_their_own(server: Server, references: References) -> None:
    requests = []
    for at in range(500):
        rows = 1 + at % 4
        both = np.arange(2 * rows * 16, dtype=np.float32).reshape(2, rows, 16) + 1000 * at
        requests.append(Request("add_sub", [Tensor(f"INPUT{i}", "FP32", both[i]) for i in range(2)]))
    for mode in ("async", "aio", "stream"):
        for request, reply in zip(requests, infer(server, requests, mode), strict=True):
            check(reply, references["add_sub"].run(feeds(request)))


# -- streams


@pytest.mark.parametrize("mode", ["stream", "aio_stream"])
def test_a_stream_keeps_the_order_and_survives_errors(server: Server, references: References, mode: str) -> None:
    requests = [image(1 + at % 7, seed=at)._replace(options={"request_id": f"number {at}"}) for at in range(100)]
    bad = {
        20: (image()._replace(model="nobody"), UNKNOWN_MODEL),
        40: (Request("digits", [Tensor("image", "FP32", np.zeros((1, 63), np.float32))]), "unexpected shape"),
        99: (image()._replace(outputs=[("nothing", True)]), "unexpected inference output 'nothing'"),
    }
    for at, (request, _) in bad.items():
        requests[at] = request
    for at, (request, reply) in enumerate(zip(requests, infer(server, requests, mode), strict=True)):
        if at in bad:
            assert reply.error is not None and reply.error.startswith(bad[at][1]), reply
            assert reply.status == "stream"
        else:
            assert reply.response["id"] == f"number {at}"
            assert reply.outputs["label"].tolist() == references["digits"].run(feeds(request))["label"].tolist()


@pytest.mark.parametrize("mode", ["stream", "aio_stream"])
def test_triton_grpc_error_ends_the_stream_with_a_status(server: Server, mode: str) -> None:
    requests = [image(), image()._replace(model="nobody")]
    replies = infer(server, requests, mode, headers={"triton_grpc_error": "true"})
    assert replies[0].error is None
    assert (replies[1].status, replies[1].error) == (NOT_FOUND, UNKNOWN_MODEL)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("mode", MODES)
def test_compression(server: Server, mode: str, algorithm: str) -> None:
    x = np.random.default_rng(1).integers(0, 3, (5, zoo.WIDE_WIDTH)).astype(np.float32)
    request = Request("wide", [Tensor("x", "FP32", x)])
    asked = {"compression_algorithm": algorithm}
    if "stream" in mode:
        replies = infer(server, [request, request], mode, **asked)
    else:
        replies = infer(server, [request._replace(options=asked)], mode)
    for reply in replies:
        check(reply, {"y": x})


# -- limits and refusals


@pytest.mark.parametrize("mode", ["sync", "async", "aio"])
def test_client_timeout(server: Server, mode: str) -> None:
    early = image()._replace(options={"client_timeout": 0.000001})
    in_time = image()._replace(options={"client_timeout": 20.0})
    late, answered = infer(server, [early, in_time], mode)
    assert late.status == DEADLINE_EXCEEDED, late
    assert answered.error is None


def test_stream_timeout_and_cancelled_calls(server: Server) -> None:
    *_, late = infer(server, [image()], "stream", stream_timeout=0.2)
    assert late.status == DEADLINE_EXCEEDED, late
    for reply in infer(server, [image()] * 20, "cancel"):
        assert reply.error is None or reply.status == "StatusCode.CANCELLED", reply


def test_errors_as_the_client_shows_them(server: Server) -> None:
    ones = np.ones((2, 16), np.float32)
    short = Request("digits", [Tensor("image", "FP32", np.zeros((1, 63), np.float32))])
    wide = Request("digits", [Tensor("image", "FP64", np.zeros((1, 64)))])
    cases = [
        (image()._replace(model="nobody"), NOT_FOUND, UNKNOWN_MODEL),
        (image()._replace(options={"model_version": "2"}), NOT_FOUND, "Request for unknown model: 'digits' version 2"),
        (image()._replace(options={"model_version": "x"}), NOT_FOUND, "Request for unknown model: 'digits' version x"),
        (image()._replace(model=""), NOT_FOUND, "Request for unknown model: '' is not found"),
        (image()._replace(model="digits/ready"), NOT_FOUND, "Request for unknown model: 'digits/ready' is not found"),
        (
            short,
            INVALID_ARGUMENT,
            "unexpected shape for input 'image' for model 'digits'. Expected [-1,64], got [1,63]",
        ),
        (wide, INVALID_ARGUMENT, "inference input 'image' data-type is 'FP64', but model 'digits' expects 'FP32'"),
        (image()._replace(outputs=[("nothing", True)]), INVALID_ARGUMENT, "unexpected inference output 'nothing'"),
        (Request("add_sub", [Tensor("INPUT0", "FP32", ones)]), INVALID_ARGUMENT, "expected 2 inputs but got 1 inputs"),
        (image()._replace(options={"sequence_id": 5}), UNIMPLEMENTED, "'sequence_id' is not supported"),
    ]
    for mode in ("sync", "async", "aio"):
        replies = infer(server, [request for request, _, _ in cases], mode)
        for reply, (_, status, text) in zip(replies, cases, strict=True):
            assert reply.status == status, reply
            assert reply.error is not None and reply.error.startswith(text), reply


def test_identity_version_and_parameters(server: Server) -> None:
    requests = [
        image()._replace(options={"request_id": "ü – 中文", "model_version": "1"}),
        image()._replace(options={"parameters": {"text": "a", "number": 7, "flag": True}, "priority": 3}),
        image()._replace(options={"headers": {"x-request-id": "abc"}, "timeout": 20_000_000}),
    ]
    named, *others = infer(server, requests)
    assert [one.error for one in (named, *others)] == [None] * 3
    assert named.response["id"] == "ü – 中文"
    assert (named.response["model_name"], named.response["model_version"]) == ("digits", "1")


# -- control


@pytest.mark.parametrize("aio", [False, True], ids=["sync", "aio"])
def test_health_metadata_configuration_statistics(server: Server, aio: bool) -> None:
    job = Job(GRPC_DRIVER)
    extra = {"aio": True} if aio else {}
    job.call("is_server_live", **extra)
    job.call("is_server_ready", **extra)
    job.call("is_model_ready", model_name="digits", **extra)
    job.call("is_model_ready", model_name="digits", model_version="1", **extra)
    job.call("get_server_metadata", **extra)
    job.call("get_model_metadata", model_name="fixed", model_version="7", **extra)
    job.call("get_model_config", model_name="digits", **extra)
    job.call("get_inference_statistics", model_name="digits", **extra)
    job.infer([image(3)] * 5)
    job.call("get_inference_statistics", model_name="digits", **extra)
    job.call("get_model_metadata", model_name="nobody", **extra)
    results = job.run(server)
    *control, _, after, unknown = results
    assert unknown == {"error": UNKNOWN_MODEL, "status": NOT_FOUND}
    values = [one["value"] for one in control]
    assert values[:4] == [True] * 4
    about, fixed, config, before = values[4:]
    assert about["name"] == "headrace" and {"statistics", "model_configuration"} <= set(about["extensions"])
    assert (fixed["versions"], fixed["inputs"][0]["shape"]) == (["7"], ["4", "3"])
    assert config["config"]["max_batch_size"] == 64
    assert config["config"]["input"][0]["data_type"] == "TYPE_FP32"
    counts = [int(one["model_stats"][0]["inference_count"]) for one in (before, after["value"])]
    assert counts[1] - counts[0] == 15


@pytest.fixture
def explicit(tmp_path: Any) -> Iterator[Server]:
    models = {"digits": zoo.models()["digits"], "add_sub": onnx_writer.add_sub()}
    root = onnx_writer.write_repository(tmp_path, models)
    with running(root, "--workers", "2", "--model-control-mode", "explicit", "--load-model", "digits") as server:
        yield server


@pytest.mark.parametrize("aio", [False, True], ids=["sync", "aio"])
def test_repository_index_load_unload(explicit: Server, aio: bool) -> None:
    job = Job(GRPC_DRIVER)
    extra = {"aio": True} if aio else {}
    ones = np.ones((1, 16), np.float32)
    add = Request("add_sub", [Tensor("INPUT0", "FP32", ones), Tensor("INPUT1", "FP32", ones)])
    job.infer([add])
    job.call("load_model", model_name="add_sub", **extra)
    job.call("get_model_repository_index", **extra)
    job.infer([add])
    job.call("unload_model", model_name="add_sub", **extra)
    job.call("get_model_repository_index", **extra)
    job.infer([add])
    job.call("load_model", model_name="nobody", **extra)
    (early,), load, both, (served,), unload, one, (late,), unknown = job.run(explicit)
    assert load == unload == {"value": None}
    assert early.error is not None and late.error is not None
    assert served.outputs["OUTPUT0"].tolist() == (ones + ones).tolist()
    states = [{m["name"]: m["state"] for m in index["value"]["models"]} for index in (both, one)]
    assert states[0] == {"add_sub": "READY", "digits": "READY"}
    assert states[1]["digits"] == "READY" and states[1].get("add_sub") != "READY"
    assert "failed to load 'nobody'" in unknown["error"]
