"""Statistics as perf_analyzer reads them: two snapshots, their difference, and its arithmetic on that.

Follows `inference_profiler.cc` (ServerSideStats, SummarizeServerStats) of triton-inference-server/perf_analyzer.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest

from server.protocol import messages
from tests.conformance.v2_client import Client, Tensor, encode
from tests.support import http2_frames as h2
from tests.support.h2_peer import H2Peer
from tests.support.server import Server

pytestmark = pytest.mark.slow

SIZES = (1, 1, 2, 5, 64, 65, 1)
CLIENTS = 8
STAGES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")


class Difference(NamedTuple):
    """What happened between two snapshots of a model."""

    inferences: int
    executions: int
    counts: dict[str, int]
    ns: dict[str, int]


def statistics(server: Server, model: str) -> dict[str, Any]:
    (found,) = server.get(f"/v2/models/{model}/stats").json()["model_stats"]
    return dict(found)


def grpc_statistics(server: Server, model: str) -> Any:
    path = "/inference.GRPCInferenceService/ModelStatistics"
    method = messages.method(path)
    assert method is not None
    with H2Peer(server.host, server.port) as peer:
        peer.send(h2.call(1, path.encode(), method.request(name=model).SerializeToString()))
        peer.wait(h2.HEADERS, 1, h2.END_STREAM)
        (found,) = method.reply.FromString(peer.body(1)[5:]).model_stats
        return found


def difference(before: dict[str, Any], after: dict[str, Any]) -> Difference:
    old, new = before["inference_stats"], after["inference_stats"]
    return Difference(
        after["inference_count"] - before["inference_count"],
        after["execution_count"] - before["execution_count"],
        {stage: new[stage]["count"] - old[stage]["count"] for stage in STAGES},
        {stage: new[stage]["ns"] - old[stage]["ns"] for stage in STAGES},
    )


def send(server: Server) -> None:
    """Good requests of some sizes, and some whose contents do not fit, over several connections."""

    def one(_: int) -> None:
        with Client(server.host, server.port) as client:
            for rows in SIZES:
                client.infer("digits", [Tensor("image", "FP32", np.ones((rows, 64), np.float32))])
                assert client.post("digits", b'{"inputs":[{"name":"image"}]}').status == 400

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(one, range(CLIENTS)))


def test_the_difference_of_two_snapshots(server: Server) -> None:
    before = statistics(server, "digits")
    send(server)
    after = statistics(server, "digits")
    moved = difference(before, after)
    good = CLIENTS * len(SIZES)
    assert moved.counts == {
        **dict.fromkeys(STAGES, good),
        "fail": good,
        "cache_hit": 0,
        "cache_miss": 0,
    }
    assert moved.inferences == CLIENTS * sum(SIZES)
    assert 0 < moved.executions <= CLIENTS * (len(SIZES) + 1)
    assert after["last_inference"] >= before["last_inference"]
    # perf_analyzer's averages; what no stage accounts for is its "overhead", which it prints as 0 where it is negative.
    staged_ns = sum(moved.ns[stage] for stage in ("queue", "compute_input", "compute_infer", "compute_output"))
    overhead_ns = moved.ns["success"] - staged_ns
    assert 0 <= overhead_ns < moved.ns["success"] / 2
    assert all(moved.ns[stage] > 0 for stage in ("queue", "compute_input", "compute_infer", "compute_output"))


def test_batches_add_up_to_executions(server: Server) -> None:
    before = statistics(server, "digits")
    send(server)
    after = statistics(server, "digits")
    moved = difference(before, after)
    old = {one["batch_size"]: one for one in before["batch_stats"]}
    none = {stage: {"count": 0, "ns": 0} for stage in ("compute_input", "compute_infer", "compute_output")}
    rows = executions = ns = 0
    for batch in after["batch_stats"]:
        earlier = old.get(batch["batch_size"], none)
        counts = {stage: batch[stage]["count"] - earlier[stage]["count"] for stage in none}
        assert len(set(counts.values())) == 1, batch
        executions += counts["compute_infer"]
        rows += batch["batch_size"] * counts["compute_infer"]
        ns += batch["compute_infer"]["ns"] - earlier["compute_infer"]["ns"]
    assert (executions, rows) == (moved.executions, moved.inferences)
    # An execution's time is that of every request in it; of the two that a request of 65 rows has, one counts.
    assert 0 < ns <= moved.ns["compute_infer"] * 2


def test_grpc_says_the_same(server: Server) -> None:
    send(server)
    rest, message = statistics(server, "digits"), grpc_statistics(server, "digits")
    for name in ("name", "version", "last_inference", "inference_count", "execution_count"):
        assert getattr(message, name) == rest[name]
    for stage in STAGES:
        duration = getattr(message.inference_stats, stage)
        assert {"count": duration.count, "ns": duration.ns} == rest["inference_stats"][stage], stage
    assert [(one.batch_size, one.compute_infer.count, one.compute_infer.ns) for one in message.batch_stats] == [
        (one["batch_size"], one["compute_infer"]["count"], one["compute_infer"]["ns"]) for one in rest["batch_stats"]
    ]
    assert rest["inference_stats"]["fail"]["count"] > 0


def test_a_failed_run_has_its_time_among_the_failures(server: Server, client: Client) -> None:
    before = statistics(server, "fails")
    body, headers = encode([Tensor("index", "INT64", np.array([[99]]))])
    assert client.post("fails", body, headers).status == 400
    moved = difference(before, statistics(server, "fails"))
    assert moved.ns.pop("fail") > 0
    assert moved.counts.pop("fail") == 1
    # What the stages of a failure took is in none of them: perf_analyzer divides each by the successes.
    assert not any(moved.ns.values()) and not any(moved.counts.values())
