"""Half of the clients leave at random while the server is busy: their requests hardly run, all others are right."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest

from tests.support import oracle
from tests.support.faults import metric, reset, wait_until
from tests.support.onnx_writer import write_repository
from tests.support.server import Server, running
from tests.support.wire import Wire

pytestmark = pytest.mark.slow

CLIENTS, ROWS = 120, 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = write_repository(tmp_path_factory.mktemp("models"), {"slow": oracle.model(busy_width=512)})
    with running(root, "--workers", "1", "--max-batch-size", "16", "--intra-op-threads", "1") as server:
        yield server


def test_who_leaves_is_not_run_for(server: Server) -> None:
    rng = random.Random(5)
    # Alone in a worker that has not answered any of them: everybody is in the queue when the leaving begins.
    wires = [Wire(server.host, server.port) for _ in range(CLIENTS)]
    questions = [oracle.Question(serial + 1, "slow", ROWS) for serial in range(CLIENTS)]
    for wire, question in zip(wires, questions, strict=True):
        wire.send(question.encoded())
    leaving = set(rng.sample(range(CLIENTS), CLIENTS // 2))
    for index in leaving:
        reset(wires[index].socket)
    for index in set(range(CLIENTS)) - leaving:
        answer = wires[index].answer()
        headers = {name.encode(): value.encode() for name, value in answer.headers.items()}
        assert questions[index].complaint(answer.status, headers, answer.body) == ""
        wires[index].socket.shutdown(socket.SHUT_RDWR)
        wires[index].socket.close()
    wait_until(lambda: metric(server, "headrace_inflight_requests") == 0, "nobody waits")
    canceled = metric(server, "headrace_request_failures_total", reason="canceled")
    rows = metric(server, "headrace_inferences_total")
    # Each client that left was either answered before it did, or taken out of the queue.
    assert rows >= ROWS * CLIENTS // 2
    assert canceled + rows / ROWS == CLIENTS
    wait_until(lambda: metric(server, "headrace_queue_depth") == 0, "every row is free")
