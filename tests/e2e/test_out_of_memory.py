"""Memory ends while a model runs, by a real limit on its executor: nobody but the one that does not fit is refused."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.reference import infer_wire as wire_twin
from tests.support import exposition
from tests.support import http2_frames as h2
from tests.support.h2_peer import H2Peer
from tests.support.memory import MIB, greedy, limit, wide
from tests.support.onnx_writer import write_repository
from tests.support.server import Answer, Server, executable, running, running_command
from tests.support.wire import Wire, post

pytestmark = pytest.mark.slow

#: Elements of a row's largest tensor: a row takes two megabytes while it runs.
ELEMENTS = 1 << 18
#: A row with so many needs eight gigabytes.
TOO_MANY = 1 << 30
CLIENTS = 64
RESOURCE_EXHAUSTED = b"8"
INFER = b"/inference.GRPCInferenceService/ModelInfer"


def request(model: str, *elements: int) -> bytes:
    """One row for each number."""
    inputs: list[dict[str, Any]] = [
        {"name": "x", "datatype": "FP32", "shape": [len(elements), 1], "data": [0.5] * len(elements)}
    ]
    if model == "greedy":
        inputs.append(
            {"name": "elements", "datatype": "INT64", "shape": [len(elements), 1], "data": [*elements]},
        )
    return post(f"/v2/models/{model}/infer", json.dumps({"inputs": inputs}).encode())


def grpc_request(*elements: int) -> bytes:
    message = wire_twin.REQUEST(model_name="greedy")
    message.inputs.add(name="x", datatype="FP32", shape=[len(elements), 1]).contents.fp32_contents.extend([0.5])
    message.inputs.add(name="elements", datatype="INT64", shape=[len(elements), 1]).contents.int64_contents.extend(
        elements
    )
    return h2.message(bytes(message.SerializeToString()))


def burst(server: Server, sent: list[bytes]) -> list[Answer]:
    """Each on a connection of its own, all of them before the first answer is read."""
    wires = [Wire(server.host, server.port, timeout_s=30) for _ in sent]
    for wire, data in zip(wires, sent, strict=True):
        wire.send(data)
    answers = [wire.answer() for wire in wires]
    for wire in wires:
        wire.socket.close()
    return answers


def is_right(answer: Answer) -> bool:
    if answer.status != 200:
        return False
    values = answer.json()["outputs"][0]["data"]
    return bool(values) and all(math.isclose(value, math.tanh(0.5), abs_tol=1e-6) for value in values)


def metric(server: Server, name: str, model: str) -> float:
    page = exposition.values(exposition.parse(server.get("/metrics", port=server.metrics_port).body))
    return page[f"headrace_{name}", frozenset({("model", model), ("version", "1")})]


def test_a_burst_that_does_not_fit_is_answered_and_the_cap_goes_when_memory_is_back(tmp_path: Path) -> None:
    """The limit is on the executor that runs; its warm-up, with zeros, needed nothing."""
    with running(write_repository(tmp_path, {"greedy": greedy()}), "--workers", "1") as server:
        (executor,) = server.pids("executor")
        assert metric(server, "batch_cap_rows", "greedy") == 0
        limit(executor, 110 * MIB)
        # A slab full of rows, which surely run together.
        (answer,) = burst(server, [request("greedy", *[ELEMENTS] * CLIENTS)])
        assert is_right(answer) and len(answer.json()["outputs"][0]["data"]) == CLIENTS
        assert 0 < metric(server, "batch_cap_rows", "greedy") < CLIENTS
        assert metric(server, "memory_splits_total", "greedy") > 0
        for rows in (1, 1, 7, CLIENTS):
            sent = [request("greedy", *[ELEMENTS] * rows)] * (CLIENTS // rows)
            assert all(map(is_right, burst(server, sent)))
        assert metric(server, "memory_refusals_total", "greedy") == 0

        # One that does not fit alone, in the middle of others.
        sent = [request("greedy", ELEMENTS)] * CLIENTS
        sent[CLIENTS // 2] = request("greedy", TOO_MANY)
        answers = burst(server, sent)
        refused = answers.pop(CLIENTS // 2)
        assert all(map(is_right, answers))
        assert refused.status == 503 and refused.headers["retry-after"]
        text = refused.json()["error"]
        assert text.startswith("out of memory: one row of this request does not fit, even by itself"), text
        assert text.endswith("send less, try later, or give the server more memory"), text
        assert metric(server, "memory_refusals_total", "greedy") == 1
        with H2Peer(server.host, server.port, timeout_s=30) as peer:
            for stream, elements, status in ((1, TOO_MANY, RESOURCE_EXHAUSTED), (3, ELEMENTS, b"0")):
                peer.send(h2.headers(stream, h2.grpc_fields(INFER)))
                peer.send(h2.frame(h2.DATA, h2.END_STREAM, stream, grpc_request(elements))).answer(stream)
                assert peer.field(stream, b"grpc-status") == status, peer.fields
        assert server.pids("executor") == [executor]

        limit(executor, None)
        deadline_ns = time.monotonic_ns() + 30 * 10**9
        while metric(server, "batch_cap_rows", "greedy"):
            assert time.monotonic_ns() < deadline_ns, server.log()
            assert all(map(is_right, burst(server, [request("greedy", *[1] * CLIENTS)])))
        assert all(map(is_right, burst(server, [request("greedy", ELEMENTS)] * CLIENTS)))
        assert '"event":"batch_cap_lowered"' in server.log() and '"event":"batch_cap_raised"' in server.log()


def test_an_executor_that_starts_again_waits_for_memory(tmp_path: Path) -> None:
    """One row takes more than the supervisor leaves to its children; the model is not given up for that."""
    root = write_repository(tmp_path, {"wide": wide(1 << 24)})
    with running(root, "--workers", "1", "--max-batch-size", "1") as server:
        (executor,) = server.pids("executor")
        limit(server.pids("supervisor")[0], 100 * MIB)
        os.kill(executor, signal.SIGKILL)
        server.wait_log('"event":"load_out_of_memory"')
        limit(server.pids("supervisor")[0], None)
        server.wait_replaced("executor", executor)
        assert all(map(is_right, burst(server, [request("wide", 1)] * 2)))


def test_a_warm_up_whose_largest_batch_does_not_fit_begins_with_a_smaller_one(tmp_path: Path) -> None:
    """So does a model next to it that needs little: it is not touched."""
    root = write_repository(tmp_path / "models", {"wide": wide(1 << 20), "small": wide(16)})
    limited = ["sh", "-c", f'ulimit -S -d {300 * MIB // 1024}; exec "$@"', "sh"]
    command = [*limited, *executable(), "serve", str(root), "--http-port", "0", "--metrics-port", "0"]
    with running_command(tmp_path, *command) as server:
        assert 0 < metric(server, "batch_cap_rows", "wide") < CLIENTS
        assert all(map(is_right, burst(server, [request("wide", 1)] * CLIENTS)))
        assert all(map(is_right, burst(server, [request("small", 1)] * CLIENTS)))
        assert metric(server, "memory_refusals_total", "wide") == 0
        assert metric(server, "batch_cap_rows", "small") == metric(server, "memory_splits_total", "small") == 0
