"""Large bodies that are received straight into the rows they are for: slow clients, broken ones, many at once."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults import metric, private_bytes, reset, wait_until
from tests.support.onnx_writer import Graph, write_repository
from tests.support.server import Answer, Server, running
from tests.support.wire import Wire, infer, post

pytestmark = pytest.mark.slow

#: FP32 values of a row: 2 MiB.
WIDTH = 1 << 19
SLABS = 8


def sums() -> bytes:
    """`x` FP32 [-1, WIDTH] -> `y` FP32 [-1, 1], the sum of a row: wrong when any value is."""
    graph = Graph("sums")
    graph.input("x", "FP32", [-1, WIDTH])
    graph.constant("ones", "FP32", [WIDTH, 1], struct.pack("<f", 1.0) * WIDTH)
    graph.node("MatMul", ["x", "ones"], ["y"])
    graph.output("y", "FP32", [-1, 1])
    return graph.model()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("models"), {"sums": sums()})


def start(models: Path) -> contextlib.AbstractContextManager[Server]:
    return running(models, "--workers", "1", "--max-batch-size", "4", "--queue-rows", str(4 * SLABS))


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    with start(models) as server:
        yield server


def row(seed: int) -> bytes:
    """Small whole numbers, so that their sum is exact in FP32."""
    return b"".join(struct.pack("<f", (seed * 31 + at * 7) % 5) for at in range(64)) * (WIDTH // 64)


def total(data: bytes) -> list[float]:
    values = struct.unpack(f"<{len(data) // 4}f", data)
    return [sum(values[at : at + WIDTH]) for at in range(0, len(values), WIDTH)]


def binary(data: bytes, *lines: bytes) -> bytes:
    """A request with one binary input of as many rows as there are."""
    rows = len(data) // 4 // WIDTH
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, WIDTH], "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return post("/v2/models/sums/infer", head + data, b"Inference-Header-Content-Length: %d" % len(head), *lines)


def answered(answer: Answer) -> list[float]:
    assert answer.status == 200, answer.body
    return list(json.loads(answer.body)["outputs"][0]["data"])


def all_rows_free(server: Server) -> None:
    wait_until(lambda: metric(server, "headrace_queue_depth") == 0, "no row waiting")
    with Wire(server.host, server.port) as wire:
        # As many rows as all slabs hold together: one that is kept would be missed.
        data = row(1) * 4
        for _ in range(SLABS):
            wire.send(binary(data))
        for _ in range(SLABS):
            assert answered(wire.answer()) == total(data)


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 9])
def test_large_bodies_are_answered(server: Server, rows: int) -> None:
    """Of less than a slab, of a whole one, and of several."""
    data = b"".join(row(seed) for seed in range(rows))
    with Wire(server.host, server.port) as wire:
        for _ in range(3):
            assert answered(wire.send(binary(data)).answer()) == total(data)


def test_raw_bodies_are_answered(server: Server) -> None:
    data = row(3)
    request = post("/v2/models/sums/infer", data, b"Inference-Header-Content-Length: 0")
    with Wire(server.host, server.port) as wire:
        assert wire.send(request).answer().status == 200


def test_requests_behind_a_large_one_keep_their_order(server: Server) -> None:
    small = infer("sums", "x", "FP32", [1, WIDTH + 1], [1])
    with Wire(server.host, server.port) as wire:
        wire.send(binary(row(1)) + small + binary(row(2)) + binary(row(3)))
        assert answered(wire.answer()) == total(row(1))
        refused = wire.answer()
        assert refused.status == 400 and b"unexpected shape" in refused.body, refused.body
        assert [answered(wire.answer()) for _ in range(2)] == [total(row(2)), total(row(3))]


def test_a_body_that_stops_half_way_makes_room_in_the_rows(models: Path) -> None:
    request = binary(row(4))
    cut = len(request) // 4 * 3
    with start(models) as server, Wire(server.host, server.port) as slow:
        worker = server.pids("worker")[0]
        # Of a server that has freed no memory yet which it might give back meanwhile.
        before = private_bytes(worker)
        slow.send(request[:cut])
        wait_until(lambda: private_bytes(worker) > before + cut // 2, "what has come of the body in private memory")
        all_rows_free(server)
        assert answered(slow.send(request[cut:]).answer()) == total(row(4))


@pytest.mark.parametrize("how", ["reset", "closed", "half closed"])
def test_a_body_that_never_ends_holds_nothing(server: Server, how: str) -> None:
    request = binary(row(5))
    for _ in range(2 * SLABS):
        with Wire(server.host, server.port) as wire:
            wire.send(request[: len(request) // 2])
            if how == "reset":
                reset(wire.socket)
            elif how == "half closed":
                wire.half_close().end()
    wait_until(lambda: metric(server, "headrace_connections") == 1, "all connections closed")
    all_rows_free(server)


def test_many_large_bodies_at_once(server: Server) -> None:
    wrong: list[object] = []

    def client(seed: int) -> None:
        data = row(seed) * (1 + seed % 3)
        with Wire(server.host, server.port, timeout_s=30) as wire:
            for _ in range(6):
                answer = wire.send(binary(data)).answer()
                if answer.status != 503 and answered(answer) != total(data):
                    wrong.append((seed, answer))

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    all_rows_free(server)


def test_rows_of_a_worker_that_is_killed_are_free_again(models: Path) -> None:
    request = binary(row(6))
    with start(models) as server:
        wires = [Wire(server.host, server.port) for _ in range(SLABS)]
        for wire in wires:
            wire.send(request[: len(request) // 2])
        victim = server.pids("worker")[0]
        os.kill(victim, signal.SIGKILL)
        server.wait_replaced("worker", victim)
        for wire in wires:
            wire.socket.close()
        all_rows_free(server)


def test_a_model_that_is_replaced_while_a_body_comes(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "models", {"sums": sums()})
    request = binary(row(7))
    with (
        running(repository, "--workers", "1", "--model-control-mode", "explicit", "--load-model", "*") as server,
        Wire(server.host, server.port) as wire,
    ):
        wire.send(request[: len(request) // 2])
        shutil.move(repository / "sums" / "1", repository / "sums" / "2")
        assert server.post("/v2/repository/models/sums/load", {}).status == 200
        answer = wire.send(request[len(request) // 2 :]).answer()
        assert answered(answer) == total(row(7))
        assert json.loads(answer.body)["model_version"] == "2"
