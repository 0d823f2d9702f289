"""Priorities and queue policies of config.pbtxt, as they show while an executor stands still for a moment."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from server.protocol import messages
from tests.support import http2_frames as h2
from tests.support import onnx_writer, triton_repository
from tests.support.faults import metric, stopped, wait_until
from tests.support.h2_peer import H2Peer
from tests.support.server import Server, running

LEVELS = """
max_batch_size: 1
dynamic_batching {
  priority_levels: 3
  default_priority_level: 2
  priority_queue_policy { key: 3 value { max_queue_size: 2 } }
}
"""
DELAY = """
max_batch_size: 1
dynamic_batching {
  default_queue_policy {
    timeout_action: DELAY default_timeout_microseconds: 60000000 allow_timeout_override: true max_queue_size: 5
  }
}
"""
#: No batch axis: one request at a time.
SINGLE = """
max_batch_size: 0
dynamic_batching { priority_levels: 2 default_priority_level: 2 }
"""
ORDERED = """
max_batch_size: 3
dynamic_batching { preserve_ordering: true }
"""
TEXTS = {"levels": LEVELS, "ordered": ORDERED, "postpones": DELAY, "single": SINGLE}
SERVICE = "/inference.GRPCInferenceService/ModelInfer"


class Asked(NamedTuple):
    """A request that was sent; its connection."""

    name: str
    link: socket.socket

    def answer(self) -> tuple[int, Any]:
        with self.link, self.link.makefile("rb") as lines:
            status = int(lines.readline().split()[1])
            length = 0
            while (line := lines.readline().strip().lower()) != b"":
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            return status, json.loads(lines.read(length))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("models")
    for name, text in TEXTS.items():
        triton_repository.put(folder, name, onnx_writer.identity(), text)
    with running(folder, "--workers", "1", "--log-format", "json") as started:
        tracing = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "log_frequency": "0"}
        assert started.post("/v2/trace/setting", tracing).status == 200
        yield started


def executor_of(server: Server, model: str) -> int:
    return server.pids("executor")[sorted(TEXTS).index(model)]


def ask(server: Server, model: str, name: str, **parameters: int) -> Asked:
    """Sends a request and waits until the server has it: queued, or refused."""
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0] * 4}
    body = json.dumps({"id": name, "inputs": [tensor], "parameters": parameters}).encode()
    link = server.connect()
    before = seen(server)
    link.sendall(
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    wait_until(lambda: seen(server) > before, "the request arrived")
    return Asked(name, link)


def seen(server: Server) -> float:
    return metric(server, "headrace_inflight_requests") + metric(server, "headrace_rejected_total")


def run_order(server: Server, names: Sequence[str]) -> list[str]:
    """The requests in the order in which their batches began."""
    found: dict[str, int] = {}

    def all_traced() -> bool:
        for line in server.log().splitlines():
            record = json.loads(line) if line.startswith("{") else {}
            if record.get("event") == "trace" and record["request_id"] in names:
                found[record["request_id"]] = record["timestamps"]["COMPUTE_START"]
        return len(found) == len(names)

    wait_until(all_traced, "a trace of every request")
    return sorted(found, key=lambda name: found[name])


@pytest.mark.parametrize(
    ("model", "asked", "expected"),
    [
        ("levels", [("a", 3), ("b", 2), ("c", 0), ("d", 9), ("e", 1), ("f", 3), ("g", 1)], "egbcdaf"),
        ("single", [("A", 0), ("B", 2), ("C", 1), ("D", 1)], "CDAB"),
    ],
)
def test_requests_run_by_priority(server: Server, model: str, asked: list[tuple[str, int]], expected: str) -> None:
    with stopped(executor_of(server, model)):
        sent = [ask(server, model, name, priority=priority) for name, priority in asked]
    assert [one.answer()[0] for one in sent] == [200] * len(asked)
    assert "".join(run_order(server, [name for name, _ in asked])) == expected


def test_a_level_refuses_when_its_queue_is_full_and_others_do_not(server: Server) -> None:
    with stopped(executor_of(server, "levels")):
        sent = [ask(server, "levels", f"full-{index}", priority=3) for index in range(3)]
        sent += [ask(server, "levels", f"free-{index}", priority=1) for index in range(3)]
        status, answer = sent.pop(2).answer()
        assert status == 503 and "Exceeds maximum queue size" in answer["error"]
    assert [one.answer()[0] for one in sent] == [200] * 5


def test_late_requests_are_served_behind_the_others(server: Server) -> None:
    with stopped(executor_of(server, "postpones")):
        late = ask(server, "postpones", "late", timeout=1000)
        sent = [late, ask(server, "postpones", "patient"), ask(server, "postpones", "later", timeout=1000)]
        time.sleep(0.01)
    assert [one.answer()[0] for one in sent] == [200] * 3
    assert run_order(server, [one.name for one in sent]) == ["patient", "late", "later"]


def test_the_queue_is_as_long_as_the_configuration_says(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(stopped(executor_of(server, "postpones")))
        sent = [ask(server, "postpones", f"long-{index}") for index in range(7)]
        assert [one.answer()[0] for one in sent[5:]] == [503, 503]
    assert [one.answer()[0] for one in sent[:5]] == [200] * 5


def grpc_message(model: str, rows: int, name: str = "", priority: int = 0) -> bytes:
    found = messages.method(SERVICE)
    assert found is not None
    request = found.request(model_name=model, id=name, raw_input_contents=[bytes(16 * rows)])
    request.inputs.add(name="x", shape=[rows, 4], datatype="FP32")
    if priority:
        request.parameters["priority"].uint64_param = priority
    return bytes(request.SerializeToString())


def test_priorities_over_grpc(server: Server) -> None:
    with H2Peer(server.host, server.port) as peer:
        with stopped(executor_of(server, "levels")):
            for index, priority in enumerate((3, 0, 1)):
                before = seen(server)
                message = grpc_message("levels", 1, f"grpc-{priority}", priority)
                peer.send(h2.call(1 + 2 * index, SERVICE.encode(), message))
                wait_until(lambda before=before: seen(server) > before, "the request arrived")
        for stream in (1, 3, 5):
            peer.wait(h2.HEADERS, stream, h2.END_STREAM)
            assert peer.field(stream, b"grpc-status") == b"0"
    names = [f"grpc-{priority}" for priority in (3, 0, 1)]
    assert run_order(server, names) == ["grpc-1", "grpc-0", "grpc-3"]


def test_answers_keep_the_order_of_their_requests(server: Server) -> None:
    """The fourth fits into the batch of the second, so it runs before the third. The first is cancelled meanwhile."""
    streams = {1: 3, 3: 2, 5: 3, 7: 1}
    with H2Peer(server.host, server.port) as peer:
        with stopped(executor_of(server, "ordered")):
            for stream, rows in streams.items():
                before = seen(server)
                peer.send(h2.call(stream, SERVICE.encode(), grpc_message("ordered", rows)))
                wait_until(lambda before=before: seen(server) > before, "the request arrived")
            before = seen(server)
            peer.send(h2.frame(h2.RST_STREAM, 0, 1, b"\0\0\0\x08"))
            wait_until(lambda: seen(server) < before, "the first one is cancelled")
        for stream in list(streams)[1:]:
            peer.wait(h2.HEADERS, stream, h2.END_STREAM)
            assert peer.field(stream, b"grpc-status") == b"0"
        ends = [one.stream for one in peer.frames if one.kind == h2.HEADERS and one.flags & h2.END_STREAM]
    assert ends == [3, 5, 7]


def test_the_configuration_in_force_says_so_and_can_be_loaded(server: Server, tmp_path: Path) -> None:
    document = server.get("/v2/models/levels/config").json()["dynamic_batching"]
    assert (document["priority_levels"], document["default_priority_level"]) == (3, 2)
    assert document["priority_queue_policy"]["3"]["max_queue_size"] == 2
    assert server.get("/v2/models/postpones/config").json()["dynamic_batching"]["default_queue_policy"] == {
        "timeout_action": "DELAY",
        "default_timeout_microseconds": 60000000,
        "allow_timeout_override": True,
        "max_queue_size": 5,
    }
    assert server.get("/v2/models/single/config").json()["dynamic_batching"]["priority_levels"] == 2
