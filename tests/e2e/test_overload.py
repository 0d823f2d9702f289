"""Several times more than the model can do: each request gets one right answer, nothing runs late, nothing remains."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import http2_frames as h2
from tests.support import oracle
from tests.support.faults import metric, stopped, wait_until
from tests.support.h2_peer import H2Peer
from tests.support.onnx_writer import write_repository
from tests.support.server import Server, running
from tests.support.wire import Wire, post

pytestmark = pytest.mark.slow

#: A request of so many rows takes the model some milliseconds.
ROWS = 16
CONNECTIONS, REQUESTS = 32, 25
DEADLINE = b"40ms"
#: A request that says no priority is of the second level.
LEVELS = "max_batch_size: 64\ndynamic_batching { priority_levels: 2 default_priority_level: 2 }"
UNARY = b"/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = write_repository(tmp_path_factory.mktemp("models"), {"slow": oracle.model(busy_width=768)})
    with running(root, "--workers", "2", "--intra-op-threads", "1") as server:
        yield server


def question(serial: int, rows: int = ROWS) -> oracle.Question:
    return oracle.Question(serial, "slow", rows)


def with_deadline(request: bytes, deadline: bytes = DEADLINE) -> bytes:
    return request.replace(b"\r\nHost", b"\r\nX-Request-Timeout: " + deadline + b"\r\nHost", 1)


async def converse(server: Server, first: int, tally: Counter[str], wrong: list[str]) -> None:
    """One client that asks again as soon as it is answered: its answers are counted by status."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    for serial in range(first, first + REQUESTS):
        writer.write(with_deadline(question(serial).encoded()))
        lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        status = int(lines[0].split()[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
        body = await reader.readexactly(int(headers[b"content-length"]))
        tally[str(status)] += 1
        if status == 200:
            wrong += filter(None, [question(serial).complaint(status, headers, body)])
        elif status == 503 and not 1 <= int(headers.get(b"retry-after", b"0")) <= 30:
            wrong.append(f"503 with Retry-After {headers.get(b'retry-after')!r}")
    writer.close()


async def crowd(server: Server) -> tuple[Counter[str], list[str]]:
    tally: Counter[str] = Counter()
    wrong: list[str] = []
    clients = (converse(server, 1 + index * REQUESTS, tally, wrong) for index in range(CONNECTIONS))
    await asyncio.wait_for(asyncio.gather(*clients), 60)
    return tally, wrong


def test_overload_by_closed_loop_clients(server: Server) -> None:
    # Costs as they are here, not as they were at warm-up.
    with Wire(server.host, server.port) as wire:
        for serial in range(5):
            assert wire.send(question(10**6 + serial).encoded()).answer().status == 200
    tally, wrong = asyncio.run(crowd(server))
    assert wrong == []
    assert sum(tally.values()) == CONNECTIONS * REQUESTS
    assert set(tally) <= {"200", "503", "504"}
    assert tally["200"] > 0
    assert tally["503"] > 0, f"32 clients at once were no overload: {tally}"
    # Hardly anybody is let in to be told later that it was in vain.
    assert tally["504"] <= sum(tally.values()) // 4, tally
    assert metric(server, "headrace_late_executions_total") == 0
    assert metric(server, "headrace_rejected_total", reason="predicted_late") > 0
    # Nothing of it remains.
    wait_until(lambda: metric(server, "headrace_queue_depth") == 0, "no row waits")
    assert metric(server, "headrace_inflight_requests") == 0
    wait_until(lambda: metric(server, "headrace_predicted_wait_seconds") < 0.02, "the lane is free")
    assert metric(server, "headrace_overloaded") == 0
    assert server.get("/v2/health/ready").status == 200
    with Wire(server.host, server.port) as wire:
        answer = wire.send(with_deadline(question(5, 1).encoded(), b"2s")).answer()
        assert answer.status == 200


def test_a_head_is_enough_for_a_refusal(server: Server) -> None:
    """The body never comes: what it would have said does not matter. Over HTTP/2 too, and for gRPC a time to wait."""
    (executor,) = server.pids("executor")
    with stopped(executor):
        filling = [Wire(server.host, server.port) for _ in range(12)]
        for serial, wire in enumerate(filling):
            wire.send(question(2 * 10**6 + serial, 64).encoded())
        wait_until(lambda: metric(server, "headrace_queue_depth") > 600, "much waits")
        wait_until(lambda: metric(server, "headrace_predicted_wait_seconds") > 0.02, "it takes its time")
        head, _, _ = with_deadline(post("/v2/models/slow/infer", b"x" * 4096), b"20ms").partition(b"\r\n\r\n")
        with Wire(server.host, server.port) as wire:
            status, headers = wire.send(head + b"\r\n\r\n").head()
            assert status == 503
            assert 1 <= int(headers["retry-after"]) <= 30
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/v2/models/slow/infer"),
            (b":authority", b"a"),
            (b"x-request-timeout", b"20ms"),
        ]
        with H2Peer(server.host, server.port) as peer:
            peer.send(h2.headers(1, fields))
            peer.wait(h2.HEADERS, 1)
            assert peer.field(1, b":status") == b"503"
            assert 1 <= int(peer.field(1, b"retry-after") or 0) <= 30
            # The name of the model is the first field of the message; the rest is never read.
            message = b"\x0a\x04slow" + b"\x2a\x00"
            fields = h2.grpc_fields(UNARY, (b"grpc-timeout", b"20m"))
            peer.send(h2.headers(3, fields) + h2.frame(h2.DATA, h2.END_STREAM, 3, h2.message(message)))
            peer.wait(h2.HEADERS, 3, h2.END_STREAM)
            assert peer.field(3, b"grpc-status") == b"14"
            assert int(peer.field(3, b"grpc-retry-pushback-ms") or 0) >= 1000
        # Who says no deadline may wait.
        with Wire(server.host, server.port) as wire:
            wire.send(question(3 * 10**6, 1).encoded())
            wire.silent(0.02)
    answers = [wire.answer().status for wire in filling]
    for wire in filling:
        wire.socket.close()
    assert set(answers) <= {200, 503}
    assert metric(server, "headrace_late_executions_total") == 0


def test_a_request_is_refused_for_what_waits_at_its_own_level(tmp_path: Path) -> None:
    """Its level stands in the body: the head alone cannot tell."""

    def asked(priority: int) -> bytes:
        tensor = {"name": "x", "shape": [1, 2], "datatype": "INT64", "data": [1, 2]}
        body = json.dumps({"inputs": [tensor], "parameters": {"priority": priority}}).encode()
        return with_deadline(post("/v2/models/slow/infer", body), b"40ms")

    root = write_repository(tmp_path, {"slow": oracle.model(busy_width=768)})
    (root / "slow" / "config.pbtxt").write_text(LEVELS)
    with running(root, "--workers", "1", "--intra-op-threads", "1") as server:
        with stopped(server.pids("executor")[0]):
            filling = [Wire(server.host, server.port) for _ in range(12)]
            for serial, wire in enumerate(filling):
                wire.send(question(1 + serial, 64).encoded())
            wait_until(lambda: metric(server, "headrace_predicted_wait_seconds") > 0.05, "it takes its time")
            with Wire(server.host, server.port) as wire:
                assert wire.send(asked(2)).answer().status == 503
                # What waits at the second level does not stand before it; but nobody runs it.
                assert wire.send(asked(1)).answer().status == 504
            assert metric(server, "headrace_rejected_total", reason="predicted_late") == 1
        assert [wire.answer().status for wire in filling] == [200] * 12
        for wire in filling:
            wire.socket.close()
