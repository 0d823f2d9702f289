"""What is logged and traced, changed while the server serves: in every process, at once, and in those that follow."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from server.demo import files
from server.protocol import messages
from tests.support import http2_frames as h2
from tests.support.h2_peer import H2Peer
from tests.support.server import Answer, Server, running

pytestmark = pytest.mark.slow

SERVICE = "/inference.GRPCInferenceService"
TIMES = (
    "REQUEST_START",
    "QUEUE_START",
    "COMPUTE_START",
    "COMPUTE_INPUT_END",
    "COMPUTE_OUTPUT_START",
    "COMPUTE_END",
    "REQUEST_END",
)
IMAGE = json.loads(files.EXAMPLE.read_bytes())["inputs"]
LOG_START = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "ISO8601",
}
TRACE_START = {
    "trace_file": "",
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_mode": "triton",
}
ALL = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1"}


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Server]:
    with running("--workers", "2", "--log-format", "json") as server:
        yield server


@pytest.fixture
def server(two_workers: Server) -> Iterator[Server]:
    yield two_workers
    reset = dict.fromkeys(TRACE_START)
    assert two_workers.post("/v2/models/digits/trace/setting", reset).status == 200
    assert two_workers.post("/v2/trace/setting", reset).json() == TRACE_START
    assert two_workers.post("/v2/logging", LOG_START).json() == LOG_START


def lines(server: Server, event: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    return [record for record in records if record["event"] == event]


def traces(server: Server, prefix: str) -> list[dict[str, Any]]:
    return [one for one in lines(server, "trace") if one["request_id"].startswith(prefix)]


def infer(server: Server, identity: str, **headers: str) -> Answer:
    body = json.dumps({"id": identity, "inputs": IMAGE}).encode()
    answer = server.request("POST", "/v2/models/digits/infer", body, headers)
    assert answer.status == 200, answer
    return answer


def call(server: Server, method: str, **fields: Any) -> tuple[int, Any]:
    """A gRPC call: status and reply."""
    path = f"{SERVICE}/{method}"
    found = messages.method(path)
    assert found is not None
    with H2Peer(server.host, server.port) as peer:
        peer.send(h2.call(1, path.encode(), found.request(**fields).SerializeToString()))
        peer.wait(h2.HEADERS, 1, h2.END_STREAM)
        status = peer.field(1, b"grpc-status")
        assert status is not None
        return int(status), found.reply.FromString(peer.body(1)[5:])


def test_every_request_is_traced_whoever_serves_it(server: Server) -> None:
    assert server.post("/v2/trace/setting", ALL).json() == {**TRACE_START, **ALL}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: infer(server, f"every-{index}"), range(24)))
    found = traces(server, "every-")
    assert sorted(one["request_id"] for one in found) == sorted(f"every-{index}" for index in range(24))
    for one in found:
        assert (one["model_name"], one["model_version"], one["protocol"], one["is_error"]) == (
            "digits",
            "1",
            "http",
            False,
        )
        times = [one["timestamps"][name] for name in TIMES]
        assert times == sorted(times) and list(one["timestamps"]) == list(TIMES)
        assert 0 < times[-1] - times[0] < 10e9


def test_one_of_n_and_at_most_so_many_over_all_workers(server: Server) -> None:
    server.post("/v2/trace/setting", {**ALL, "trace_rate": "3", "trace_count": "4"})
    for index in range(9):
        infer(server, f"rate-{index}")
    assert [one["request_id"] for one in traces(server, "rate-")] == ["rate-0", "rate-3", "rate-6"]
    assert server.get("/v2/trace/setting").json()["trace_count"] == "1"
    server.post("/v2/trace/setting", {"trace_rate": 1})
    for index in range(5):
        infer(server, f"last-{index}")
    assert [one["request_id"] for one in traces(server, "last-")] == ["last-0"]


def test_a_model_has_its_own_settings_until_they_are_null(server: Server) -> None:
    path = "/v2/models/digits/trace/setting"
    assert server.post(path, {"trace_level": ["TIMESTAMPS"], "trace_rate": "1"}).json() == {**TRACE_START, **ALL}
    assert server.get("/v2/trace/setting").json() == TRACE_START
    infer(server, "own-0")
    server.post("/v2/trace/setting", {**ALL, "trace_count": "0"})
    # It follows the server in what it does not set.
    assert server.get(path).json()["trace_count"] == "0"
    infer(server, "own-1")
    server.post(path, {"trace_count": 1})
    infer(server, "own-2")
    assert server.post(path, dict.fromkeys(ALL)).json() == {**TRACE_START, **ALL, "trace_count": "0"}
    assert [one["request_id"] for one in traces(server, "own-")] == ["own-0", "own-2"]
    assert server.get("/v2/models/nobody/trace/setting").status == 404
    assert server.post("/v2/models/nobody/trace/setting", {}).status == 404


def test_lines_may_be_written_in_groups(server: Server) -> None:
    server.post("/v2/trace/setting", {**ALL, "log_frequency": "100"})
    for index in range(3):
        infer(server, f"group-{index}")
    assert traces(server, "group-") == []
    server.post("/v2/trace/setting", {"trace_level": ["OFF"]})
    assert sorted(one["request_id"] for one in traces(server, "group-")) == ["group-0", "group-1", "group-2"]


def test_grpc_settings_and_the_protocol_of_a_trace(server: Server) -> None:
    status, reply = call(server, "TraceSetting")
    assert (status, {name: list(one.value) for name, one in reply.settings.items()}) == (
        0,
        {name: value if isinstance(value, list) else [value] for name, value in TRACE_START.items()},
    )
    status, reply = call(
        server, "TraceSetting", settings={"trace_level": {"value": ["TIMESTAMPS"]}, "trace_rate": {"value": ["1"]}}
    )
    assert (status, list(reply.settings["trace_rate"].value)) == (0, ["1"])
    (image,) = IMAGE
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 64], "contents": {"fp32_contents": image["data"]}}
    assert call(server, "ModelInfer", model_name="digits", id="grpc-0", inputs=[tensor])[0] == 0
    assert [one["protocol"] for one in traces(server, "grpc-")] == ["grpc"]
    assert call(server, "TraceSetting", settings={"trace_rate": {"value": ["x"]}})[0] == 3
    assert call(server, "TraceSetting", model_name="nobody")[0] == 5
    assert list(call(server, "TraceSetting", settings={"trace_rate": {}})[1].settings["trace_rate"].value) == ["1000"]
    status, reply = call(server, "LogSettings", settings={"log_verbose_level": {"uint32_param": 2}})
    assert (status, reply.settings["log_verbose_level"].uint32_param) == (0, 2)
    assert reply.settings["log_info"].bool_param and reply.settings["log_format"].string_param == "ISO8601"
    assert call(server, "LogSettings", settings={"log_file": {"string_param": "/tmp/x"}})[0] == 3
    assert server.get("/v2/logging").json()["log_verbose_level"] == 2


def test_levels_act_in_every_process_at_once(server: Server) -> None:
    """The supervisor says that trace settings changed, but not without log_info; traces come all the same."""
    changes = len(lines(server, "trace_settings_changed"))
    assert server.post("/v2/logging", {"log_info": False}).json() == {**LOG_START, "log_info": False}
    server.post("/v2/trace/setting", ALL)
    infer(server, "quiet-0")
    assert len(lines(server, "trace_settings_changed")) == changes
    assert len(traces(server, "quiet-")) == 1
    server.post("/v2/logging", {"log_info": True})
    server.post("/v2/trace/setting", {"trace_rate": 2})
    assert len(lines(server, "trace_settings_changed")) == changes + 1


def test_processes_that_follow_a_death_have_the_present_settings() -> None:
    with running("--workers", "1", "--log-format", "json") as server:
        server.post("/v2/trace/setting", {**ALL, "trace_count": "5"})
        server.post("/v2/logging", {"log_error": False, "log_verbose_level": 4})
        infer(server, "before")
        (worker,) = server.pids("worker")
        os.kill(worker, signal.SIGKILL)
        server.wait_replaced("worker", worker)
        deadline_ns = time.monotonic_ns() + 5_000_000_000
        while server.get("/v2/health/ready").status != 200:
            assert time.monotonic_ns() < deadline_ns
        infer(server, "after")
        assert [one["request_id"] for one in lines(server, "trace")] == ["before", "after"]
        assert server.get("/v2/trace/setting").json()["trace_count"] == "3"
        assert server.get("/v2/logging").json() == {**LOG_START, "log_error": False, "log_verbose_level": 4}
        # The supervisor would have said that the worker died.
        assert lines(server, "worker_died") == []
