"""A server that cannot keep up: full queues, deadlines, clients that leave. The executor is held still meanwhile."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.conformance.onnx_reference import same_bits
from tests.conformance.v2_client import Array, Tensor, decode, encode
from tests.support import onnx_writer
from tests.support.faults import stopped
from tests.support.server import Answer, Server, running

pytestmark = pytest.mark.slow

QUEUE_ROWS = 12
CAPACITY_ROWS = 4


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = {"mlp": onnx_writer.identity("FP32", [-1, 4]), "single": onnx_writer.identity("FP32", [-1, -1])}
    root = onnx_writer.write_repository(tmp_path_factory.mktemp("capacity"), models)
    flags = ("--max-batch-size", str(CAPACITY_ROWS), "--queue-rows", str(QUEUE_ROWS))
    with running(root, "--workers", "2", *flags) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_held(served: Server) -> Iterator[None]:
    """After each test: no request in flight, no row waiting, no process replaced."""
    yield
    deadline = time.monotonic() + 5
    while True:
        page = served.get("/metrics", port=served.metrics_port).body.decode()
        names = ("headrace_inflight_requests{", "headrace_queue_depth{", "headrace_worker_restarts_total{")
        held = [line for line in page.splitlines() if line.startswith(names) and not line.endswith(" 0")]
        if not held:
            return
        assert time.monotonic() < deadline, f"{held}\n{served.log()}"
        time.sleep(0.01)


@contextlib.contextmanager
def still_executors(server: Server) -> Iterator[None]:
    """No model runs in the block."""
    with contextlib.ExitStack() as stack:
        for pid in server.pids("executor"):
            stack.enter_context(stopped(pid))
        yield


class Pending:
    """A request that was sent and whose answer is read later."""

    def __init__(self, server: Server, model: str, x: Array, **options: Any) -> None:
        self.x = x
        body, headers = encode([Tensor("x", "FP32", x)], **options)
        lines = [f"POST /v2/models/{model}/infer HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.socket = server.connect()
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def answered(self, wait_s: float) -> bool:
        self.socket.settimeout(wait_s)
        with contextlib.suppress(TimeoutError):
            return len(self.socket.recv(1, socket.MSG_PEEK)) == 1
        return False

    def answer(self) -> Answer:
        self.socket.settimeout(10)
        with self.socket, self.socket.makefile("rb") as file:
            status = int(file.readline().split()[1])
            fields = {}
            while (line := file.readline()) != b"\r\n":
                name, _, value = line.decode().partition(":")
                fields[name.lower()] = value.strip()
            return Answer(status, fields, file.read(int(fields["content-length"])))

    def reset(self) -> None:
        """Leaves with an RST: a FIN alone only says that no more requests come."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def rows(count: int, value: float) -> Array:
    return np.full((count, 4), value, np.float32)


def failures(server: Server, model: str = "mlp") -> dict[str, int]:
    prefix = f'headrace_request_failures_total{{model="{model}",version="1",reason="'
    page = server.get("/metrics", port=server.metrics_port).body.decode()
    found = [line.removeprefix(prefix).split('"} ') for line in page.splitlines() if line.startswith(prefix)]
    return {reason: int(count) for reason, count in found}


def moved(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}


def executions(server: Server, model: str = "mlp") -> int:
    return int(server.get(f"/v2/models/{model}/stats").json()["model_stats"][0]["execution_count"])


@pytest.mark.parametrize("model", ["mlp", "single"])
def test_a_full_queue_answers_503_at_once_and_what_was_accepted_later(served: Server, model: str) -> None:
    before = failures(served, model)
    refused = []
    with still_executors(served):
        waiting = []
        for at in range(200):
            request = Pending(served, model, rows(1, at))
            if request.answered(0.03):
                refused.append(request)
            else:
                waiting.append(request)
            if len(refused) == 5:
                break
        assert len(refused) == 5, f"{len(waiting)} requests wait, none was refused"
        for request in refused:
            answer = request.answer()
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"].startswith("Exceeds maximum queue size")
        assert len(waiting) >= QUEUE_ROWS
        assert moved(before, failures(served, model)) == {"rejected": 5}
        # Health and metadata are not queued behind models.
        assert served.get("/v2/health/ready").status == 200
        assert served.get(f"/v2/models/{model}").status == 200
    for request in waiting:
        assert same_bits(decode(request.answer()).outputs["y"], request.x)
    assert moved(before, failures(served, model)) == {"rejected": 5}


def test_a_request_with_more_rows_than_are_free_is_refused_as_a_whole(served: Server) -> None:
    before = failures(served)
    with still_executors(served):
        waiting = [Pending(served, "mlp", rows(CAPACITY_ROWS, 1))]
        while not waiting[-1].answered(0.03):
            waiting.append(Pending(served, "mlp", rows(2 * CAPACITY_ROWS, len(waiting))))
            assert len(waiting) < 30
        assert waiting.pop().answer().status == 503
        refused_before = moved(before, failures(served))
        # What is left is too little for many rows and enough for none of them to be lost.
        many = Pending(served, "mlp", rows(3 * CAPACITY_ROWS, 7)).answer()
        assert many.status == 503
        assert moved(before, failures(served))["rejected"] == refused_before["rejected"] + 1
    for request in waiting:
        assert same_bits(decode(request.answer()).outputs["y"], request.x)


@pytest.mark.parametrize("model", ["mlp", "single"])
def test_a_deadline_that_passes_in_the_queue_is_504_and_nothing_runs(served: Server, model: str) -> None:
    before, ran = failures(served, model), executions(served, model)
    with still_executors(served):
        late = [Pending(served, model, rows(1, at), parameters={"timeout": 20_000}) for at in range(3)]
        time.sleep(0.045)
    for request in late:
        answer = request.answer()
        assert answer.status == 504, answer
        assert answer.json()["error"].startswith("Request timeout expired")
    assert moved(before, failures(served, model)) == {"timeout": 3}
    assert executions(served, model) == ran
    patient = Pending(served, model, rows(1, 5), parameters={"timeout": 20_000_000})
    assert same_bits(decode(patient.answer()).outputs["y"], patient.x)


def test_a_late_request_does_not_take_its_batch_mates_with_it(served: Server) -> None:
    with still_executors(served):
        late = Pending(served, "mlp", rows(1, 1), parameters={"timeout": 10_000})
        patient = [Pending(served, "mlp", rows(1, 2 + at)) for at in range(3)]
        time.sleep(0.03)
    assert late.answer().status == 504
    for request in patient:
        assert same_bits(decode(request.answer()).outputs["y"], request.x)


@pytest.mark.parametrize("model", ["mlp", "single"])
def test_clients_that_reset_their_connection_take_their_rows_with_them(served: Server, model: str) -> None:
    before, ran = failures(served, model), executions(served, model)
    with still_executors(served):
        gone = [Pending(served, model, rows(1, at)) for at in range(3)]
        assert not gone[-1].answered(0.03)
        for request in gone:
            request.reset()
        deadline = time.monotonic() + 5
        while moved(before, failures(served, model)) != {"canceled": 3}:
            assert time.monotonic() < deadline, failures(served, model)
            time.sleep(0.005)
    after = Pending(served, model, rows(1, 9))
    assert same_bits(decode(after.answer()).outputs["y"], after.x)
    assert executions(served, model) == ran + 1


def test_a_client_that_only_stops_sending_is_answered(served: Server) -> None:
    with still_executors(served):
        request = Pending(served, "mlp", rows(2, 3))
        request.socket.shutdown(socket.SHUT_WR)
        assert not request.answered(0.03)
    assert same_bits(decode(request.answer()).outputs["y"], request.x)


def test_one_client_of_a_batch_leaves_and_the_others_are_answered(served: Server) -> None:
    before = failures(served)
    with still_executors(served):
        requests = [Pending(served, "mlp", rows(1, at)) for at in range(10)]
        assert not requests[-1].answered(0.03)
        for request in requests[::3]:
            request.reset()
        deadline = time.monotonic() + 5
        while moved(before, failures(served)) != {"canceled": 4}:
            assert time.monotonic() < deadline, failures(served)
            time.sleep(0.005)
    for at, request in enumerate(requests):
        if at % 3:
            assert same_bits(decode(request.answer()).outputs["y"], request.x)
