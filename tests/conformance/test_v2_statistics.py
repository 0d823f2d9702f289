"""Counters after known traffic over two workers: statistics and metrics tell the same, exactly."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.conformance.conftest import CAPACITY_ROWS
from tests.conformance.v2_client import Client, Tensor, encode
from tests.support import exposition
from tests.support.server import Server

pytestmark = pytest.mark.slow

STAGES = ("queue", "compute_input", "compute_infer", "compute_output")
Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def statistics(server: Server, model: str) -> dict[str, Any]:
    (found,) = server.get(f"/v2/models/{model}/stats").json()["model_stats"]
    return dict(found)


def page(server: Server) -> Values:
    answer = server.get("/metrics", port=server.metrics_port)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return exposition.values(exposition.parse(answer.body))


def images(rows: int) -> Tensor:
    return Tensor("image", "FP32", np.ones((rows, 64), np.float32))


class Traffic:
    """Known requests to one model over many connections, so that both workers get some."""

    sizes = (1, 1, 2, 5, 64, 65, 200)
    clients = 12

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def good(self) -> int:
        return self.clients * len(self.sizes)

    @property
    def bad(self) -> int:
        return self.clients * 3

    @property
    def rows(self) -> int:
        return self.clients * sum(self.sizes)

    def send(self) -> None:
        with ThreadPoolExecutor(self.clients) as pool:
            list(pool.map(self._one, range(self.clients)))

    def _one(self, _: int) -> None:
        with Client(self._server.host, self._server.port) as client:
            for rows in self.sizes:
                client.infer("digits", [images(rows)])
            for body, headers in (
                encode([images(0)]),
                encode([Tensor("image", "FP64", np.ones((1, 64)))]),
                (b"{", {}),
            ):
                assert client.post("digits", body, headers).status == 400
            # Not an inference of this model, so in none of its counters.
            assert client.send("GET", "/v2/models/digits/infer").status == 405
            assert client.post("nobody", b"{}").status == 404


def test_statistics_and_metrics_after_known_traffic(server: Server) -> None:
    traffic = Traffic(server)
    before, page_before = statistics(server, "digits"), page(server)
    traffic.send()
    after, page_after = statistics(server, "digits"), page(server)

    def moved(*keys: str) -> int:
        old, new = before, after
        for key in keys:
            old, new = old[key], new[key]
        return new - old  # type: ignore[operator, no-any-return]

    assert moved("inference_count") == traffic.rows
    assert moved("inference_stats", "success", "count") == traffic.good
    assert moved("inference_stats", "fail", "count") == traffic.bad
    for stage in STAGES:
        assert moved("inference_stats", stage, "count") == traffic.good, stage
        assert moved("inference_stats", stage, "ns") > 0, stage
    total_ns = moved("inference_stats", "success", "ns")
    assert total_ns >= moved("inference_stats", "queue", "ns") + moved("inference_stats", "compute_infer", "ns")
    assert after["last_inference"] > before["last_inference"]

    old = {one["batch_size"]: one["compute_infer"] for one in before["batch_stats"]}
    runs = {
        one["batch_size"]: one["compute_infer"]["count"] - old.get(one["batch_size"], {"count": 0})["count"]
        for one in after["batch_stats"]
    }
    assert sum(runs.values()) == moved("execution_count")
    # 5 requests fit in a slab each, of the others one has two parts and one has four.
    assert moved("execution_count") <= traffic.clients * (5 + 2 + 4)
    assert moved("execution_count") * CAPACITY_ROWS >= traffic.rows
    assert sum(size * count for size, count in runs.items()) >= traffic.rows
    assert max(runs) <= CAPACITY_ROWS

    def value(name: str, **labels: str) -> float:
        key = (f"headrace_{name}", frozenset({"model": "digits", "version": "1", **labels}.items()))
        return page_after[key] - page_before[key]

    route = {"method": "infer"}
    assert value("requests_total", code="200", **route) == traffic.good
    assert value("requests_total", code="400", **route) == traffic.bad
    assert value("request_failures_total", reason="invalid") == traffic.bad
    assert value("inferences_total") == traffic.rows
    assert value("executions_total") == moved("execution_count")
    assert value("batch_size_count") == moved("execution_count")
    assert value("batch_size_sum") == traffic.rows
    assert value("request_duration_seconds_count") == traffic.good
    for stage in ("queue", "execute"):
        assert value("stage_duration_seconds_count", stage=stage) == traffic.good


def test_batch_sizes_of_requests_one_after_the_other(server: Server, client: Client) -> None:
    before = {one["batch_size"]: one["compute_infer"]["count"] for one in statistics(server, "probe")["batch_stats"]}
    for rows in (1, 1, 2, 3, 4, 8, 16, 64, 64):
        client.infer("probe", [Tensor("x", "FP32", np.zeros((rows, 1), np.float32))])
    after = {one["batch_size"]: one["compute_infer"]["count"] for one in statistics(server, "probe")["batch_stats"]}
    runs = {size: count - before.get(size, 0) for size, count in after.items() if count != before.get(size, 0)}
    assert runs == {1: 2, 2: 1, 3: 1, 4: 1, 8: 1, 16: 1, 64: 2}


def test_models_that_run_one_request_at_a_time_are_counted_too(server: Server, client: Client) -> None:
    before = statistics(server, "fixed")
    for _ in range(3):
        client.infer("fixed", [Tensor("x", "FP32", np.zeros((4, 3), np.float32))])
    after = statistics(server, "fixed")
    assert after["execution_count"] - before["execution_count"] == 3
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 3


def test_rows_of_any_shape_are_counted(server: Server, client: Client) -> None:
    before = statistics(server, "dynamic")
    for shape in ((1, 1), (7, 3), (2, 0)):
        client.infer("dynamic", [Tensor("x", "FP32", np.zeros(shape, np.float32))])
    after = statistics(server, "dynamic")
    assert after["execution_count"] - before["execution_count"] == 3
    assert after["inference_count"] - before["inference_count"] == 10
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 3


def test_a_model_that_refuses_is_a_failure_and_no_inference(server: Server, client: Client) -> None:
    before, page_before = statistics(server, "fails"), page(server)
    for index, status in ((3, 200), (99, 400), (4, 200), (-99, 400)):
        body, headers = encode([Tensor("index", "INT64", np.array([[index]]))])
        assert client.post("fails", body, headers).status == status
    after, page_after = statistics(server, "fails"), page(server)
    assert after["inference_count"] - before["inference_count"] == 2
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 2
    assert after["inference_stats"]["fail"]["count"] - before["inference_stats"]["fail"]["count"] == 2
    key = (
        "headrace_requests_total",
        frozenset({"model": "fails", "version": "1", "method": "infer", "code": "400"}.items()),
    )
    assert page_after[key] - page_before[key] == 2


def test_the_document_for_all_models_is_that_of_each(server: Server) -> None:
    everything = {one["name"]: one for one in server.get("/v2/models/stats").json()["model_stats"]}
    assert {"digits", "fixed", "every_dtype"} <= set(everything)
    for name, version in (("digits", "1"), ("fixed", "7")):
        (one,) = server.get(f"/v2/models/{name}/versions/{version}/stats").json()["model_stats"]
        assert one == everything[name]
        for key in ("cache_hit", "cache_miss"):
            assert one["inference_stats"][key] == {"count": 0, "ns": 0}


def test_both_workers_report_the_same(server: Server) -> None:
    """The kernel spreads connections over the workers: whichever is asked, the counters are those of all."""
    documents = {server.get("/v2/models/digits/stats").body for _ in range(20)}
    assert len(documents) == 1


def test_openmetrics_for_who_asks_for_it(server: Server) -> None:
    answer = server.request(
        "GET", "/metrics", None, {"Accept": "application/openmetrics-text"}, port=server.metrics_port
    )
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = exposition.parse(answer.body, openmetrics=True)
    assert families["headrace_requests"].kind == "counter"


def test_promtool_finds_nothing_to_say(server: Server) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine")
    body = server.get("/metrics", port=server.metrics_port).body
    done = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
