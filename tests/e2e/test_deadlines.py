"""Deadlines by every protocol: the answer comes at the deadline, whatever the executor does, and nothing runs late."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator

import pytest

from tests.reference import infer_wire, tensor_proto
from tests.support import http2_frames as h2
from tests.support.faults import metric, reset, stopped, wait_until
from tests.support.h2_peer import H2Peer
from tests.support.hostile_models import endless
from tests.support.onnx_writer import identity, write_repository
from tests.support.server import Server, running
from tests.support.wire import Wire, infer, post

pytestmark = pytest.mark.slow

#: Model `echo` has no default, `hasty` has one of its own, which requests may shorten.
HASTY_CONFIG = """
max_batch_size: 64
dynamic_batching {
  default_queue_policy { default_timeout_microseconds: 40000 allow_timeout_override: true }
}
"""
V2_PATH, V1_PATH = "/v2/models/echo/infer", "/v1/models/echo:predict"
V2_BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}).encode()
V1_BODY = b'{"instances": [[1, 2]]}'
HEADER = b"X-Request-Timeout: 30ms"
UNARY = b"/inference.GRPCInferenceService/ModelInfer"
PREDICT = b"/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = identity("FP32", (-1, 2))
    root = write_repository(tmp_path_factory.mktemp("models"), {"echo": model, "hasty": model, "endless": endless()})
    (root / "hasty" / "config.pbtxt").write_text(HASTY_CONFIG)
    with running(root, "--workers", "1") as server:
        yield server


def executor_of(server: Server, model: str) -> int:
    """Executors are numbered in the order of their models' names."""
    return server.pids("executor")[["echo", "endless", "hasty"].index(model)]


def executions(server: Server, model: str) -> float:
    return metric(server, "headrace_executions_total", model=model)


def v2_message() -> bytes:
    request = infer_wire.REQUEST(model_name="echo")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(struct.pack("<2f", 1, 2))
    return bytes(request.SerializeToString())


def tfs_message() -> bytes:
    request = tensor_proto.REQUEST()
    request.model_spec.name = "echo"
    request.inputs["x"].dtype = 1
    request.inputs["x"].tensor_shape.dim.add(size=1)
    request.inputs["x"].tensor_shape.dim.add(size=2)
    request.inputs["x"].tensor_content = struct.pack("<2f", 1, 2)
    return bytes(request.SerializeToString())


def rest_status(server: Server, request: bytes) -> int:
    with Wire(server.host, server.port) as wire:
        answer = wire.send(request).answer()
        return answer.status


def h2_rest(path: str, body: bytes, *more: tuple[bytes, bytes]) -> bytes:
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"a"), *more]
    return h2.headers(1, fields) + h2.frame(h2.DATA, h2.END_STREAM, 1, body)


def h2_status(server: Server, data: bytes) -> int:
    with H2Peer(server.host, server.port) as peer:
        peer.send(data)
        peer.wait(h2.HEADERS, 1)
        return int(peer.field(1, b":status") or 0)


def grpc_status(server: Server, path: bytes, message: bytes, timeout: bytes = b"30m") -> int:
    with H2Peer(server.host, server.port) as peer:
        frames = h2.headers(1, h2.grpc_fields(path, (b"grpc-timeout", timeout)))
        peer.send(frames + h2.frame(h2.DATA, h2.END_STREAM, 1, h2.message(message)))
        peer.wait(h2.HEADERS, 1, h2.END_STREAM)
        return int(peer.field(1, b"grpc-status") or -1)


WAYS: dict[str, tuple[str, Callable[[Server], int], int]] = {
    "header, V2": ("echo", lambda s: rest_status(s, post(V2_PATH, V2_BODY, HEADER)), 504),
    "header, V1": ("echo", lambda s: rest_status(s, post(V1_PATH, V1_BODY, HEADER)), 504),
    "header in seconds": ("echo", lambda s: rest_status(s, post(V2_PATH, V2_BODY, b"X-Request-Timeout: 0.03")), 504),
    "header, V2 over HTTP/2": (
        "echo",
        lambda s: h2_status(s, h2_rest(V2_PATH, V2_BODY, (b"x-request-timeout", b"30000us"))),
        504,
    ),
    "header, V1 over HTTP/2": (
        "echo",
        lambda s: h2_status(s, h2_rest(V1_PATH, V1_BODY, (b"x-request-timeout", b"0.03s"))),
        504,
    ),
    "parameter timeout": (
        "echo",
        lambda s: rest_status(
            s, post(V2_PATH, json.dumps({**json.loads(V2_BODY), "parameters": {"timeout": 30_000}}).encode())
        ),
        504,
    ),
    "grpc-timeout, V2": ("echo", lambda s: grpc_status(s, UNARY, v2_message()), 4),
    "grpc-timeout, TensorFlow Serving": ("echo", lambda s: grpc_status(s, PREDICT, tfs_message()), 4),
    "the model's default": ("hasty", lambda s: rest_status(s, infer("hasty", "x", "FP32", [1, 2], [1, 2])), 504),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_answer_comes_at_the_deadline_while_the_executor_stands_still(server: Server, way: str) -> None:
    model, ask, expected = WAYS[way]
    before = executions(server, model)
    with stopped(executor_of(server, model)):
        assert ask(server) == expected
        assert metric(server, "headrace_inflight_requests", model=model) == 0
    # The row was given up before it could run.
    wait_until(lambda: metric(server, "headrace_queue_depth", model=model) == 0, "no row waits")
    assert executions(server, model) == before
    assert rest_status(server, infer("echo", "x", "FP32", [1, 2], [1, 2])) == 200


def test_the_servers_default_is_for_requests_that_say_none(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = write_repository(tmp_path_factory.mktemp("default"), {"echo": identity("FP32", (-1, 2))})
    with running(root, "--workers", "1", "--default-timeout-ms", "30") as hurried:
        with stopped(hurried.pids("executor")[0]), Wire(hurried.host, hurried.port) as patient:
            assert rest_status(hurried, post(V2_PATH, V2_BODY)) == 504
            patient.send(post(V2_PATH, V2_BODY, b"X-Request-Timeout: 20"))
            # The patient one has been read by the time that another, sent later, has expired.
            assert rest_status(hurried, post(V2_PATH, V2_BODY)) == 504
            assert metric(hurried, "headrace_inflight_requests", model="echo") == 1
            patient.silent(0.02)
        assert rest_status(hurried, post(V2_PATH, V2_BODY)) == 200


def test_a_running_request_is_answered_at_its_deadline_too(server: Server) -> None:
    rounds = 3_000_000
    request = infer("endless", "x", "INT64", [1, 1], [rounds])
    status = rest_status(server, request.replace(b"\r\nHost", b"\r\nX-Request-Timeout: 50ms\r\nHost", 1))
    assert status == 504
    assert metric(server, "headrace_inflight_requests", model="endless") == 0


@pytest.mark.parametrize(
    "text", [b"", b"soon", b"-1", b"1 ms", b"1m", b"1e3", b"0x10", b".5", b"1.", b"1,5", b"9" * 16]
)
def test_a_header_that_cannot_be_read_is_400_and_says_what_was_expected(server: Server, text: bytes) -> None:
    with Wire(server.host, server.port) as wire:
        answer = wire.send(post(V2_PATH, V2_BODY, b"X-Request-Timeout: " + text)).answer()
        assert answer.status == 400
        assert "expected a number of seconds" in answer.json()["error"]
        assert wire.send(post(V2_PATH, V2_BODY, b"X-Request-Timeout: 9.5")).answer().status == 200
    assert h2_status(server, h2_rest(V2_PATH, V2_BODY, (b"x-request-timeout", text))) == 400


@pytest.mark.parametrize("text", [b"0", b"0.0", b"0us"])
def test_a_deadline_that_has_passed_claims_no_row(server: Server, text: bytes) -> None:
    before = executions(server, "echo")
    assert rest_status(server, post(V2_PATH, V2_BODY, b"X-Request-Timeout: " + text)) == 504
    assert grpc_status(server, UNARY, v2_message(), b"0n") == 4
    assert executions(server, "echo") == before


def test_clients_that_leave_while_they_wait_never_run(server: Server) -> None:
    before = executions(server, "echo")

    def inflight() -> float:
        return metric(server, "headrace_inflight_requests", model="echo")

    canceled = metric(server, "headrace_request_failures_total", model="echo", reason="canceled")
    with stopped(executor_of(server, "echo")):
        with H2Peer(server.host, server.port) as peer:
            for stream in (1, 3):
                peer.send(h2.call(stream, UNARY, v2_message()))
            peer.send(h2.frame(h2.RST_STREAM, 0, 1, struct.pack(">I", 8)))
            peer.ping()
            assert inflight() == 1
            wire = Wire(server.host, server.port)
            wire.send(post(V2_PATH, V2_BODY))
            wait_until(lambda: inflight() == 2, "the third waits")
            # A FIN only says that no more requests come.
            reset(peer.socket)
            reset(wire.socket)
        wait_until(lambda: inflight() == 0, "nobody waits")
        assert metric(server, "headrace_request_failures_total", model="echo", reason="canceled") == canceled + 3
    wait_until(lambda: metric(server, "headrace_queue_depth", model="echo") == 0, "no row waits")
    assert executions(server, "echo") == before


def test_nothing_began_after_its_deadline(server: Server) -> None:
    assert metric(server, "headrace_late_executions_total") == 0
