"""A model that refuses one row of a batch: that request gets the reason, its batch mates get their answers."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from tests.conformance.v2_client import Client, Reply, Tensor, decode, encode
from tests.support import onnx_writer
from tests.support.server import Answer, Server, running

pytestmark = pytest.mark.slow

BATCH_ROWS = 32
TABLE_SIZE = 16
#: On a busy host one of 32 clients may come after the batch has gone.
ATTEMPTS = 5
BAD = TABLE_SIZE


@pytest.fixture(scope="module", params=["1", "2"], ids=["1 worker", "2 workers"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Waits for full batches, so that concurrent requests share one."""
    models = {"fails": onnx_writer.fails_on_index(TABLE_SIZE)}
    root = onnx_writer.write_repository(tmp_path_factory.mktemp("fails"), models)
    flags = ("--max-batch-size", str(BATCH_ROWS), "--max-queue-delay-us", "400000")
    with running(root, "--workers", request.param, *flags) as server:
        yield server


def ask(server: Server, indices: Sequence[Sequence[int]]) -> list[Answer]:
    """One request per entry, each on a connection of its own, sent at the same moment; answers in order."""
    answers: list[Answer | None] = [None] * len(indices)
    barrier = threading.Barrier(len(indices))

    def one(at: int) -> None:
        body, headers = encode([Tensor("index", "INT64", np.array(indices[at], np.int64).reshape(-1, 1), at % 2 == 0)])
        with Client(server.host, server.port) as client:
            assert client.get("/v2/health/live") == {"live": True}
            barrier.wait(20)
            answers[at] = client.post("fails", body, headers)

    threads = [threading.Thread(target=one, args=(at,)) for at in range(len(indices))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return [answer for answer in answers if answer is not None]


def batches(server: Server) -> dict[int, int]:
    """Runs of the model so far by batch size; sizes are upper bounds of buckets."""
    document = server.get("/v2/models/fails/stats").json()["model_stats"][0]
    return {one["batch_size"]: one["compute_infer"]["count"] for one in document["batch_stats"]}


def check(answers: Sequence[Answer], indices: Sequence[Sequence[int]]) -> None:
    """Requests with a bad index: 400 with ONNX Runtime's reason and nothing of its host. The others: their values."""
    assert len(answers) == len(indices)
    for answer, asked in zip(answers, indices, strict=True):
        if any(index >= TABLE_SIZE for index in asked):
            assert answer.status == 400, answer
            check_reason(answer.json()["error"])
        else:
            assert answer.status == 200, answer
            reply: Reply = decode(answer)
            assert reply.outputs["value"].reshape(-1).tolist() == [10.0 * index for index in asked]


def check_reason(text: str) -> None:
    assert "idx=16 must be within the inclusive range [-16,15]" in text, text
    assert "Gather" in text, text
    assert not re.search(r"/|\\|\.cc|\.onnx|\.h:|onnxruntime::|0x[0-9a-f]{6}", text), text


def test_one_bad_row_in_a_batch_of_32_concurrent_requests(served: Server) -> None:
    for place in (0, 13, 31):
        indices = [[at % TABLE_SIZE] for at in range(BATCH_ROWS)]
        indices[place] = [BAD]
        before = batches(served)
        for _ in range(ATTEMPTS):
            answers = ask(served, indices)
            check(answers, indices)
            assert [answer.status for answer in answers].count(200) == BATCH_ROWS - 1
            after = batches(served)
            if after.get(BATCH_ROWS, 0) > before.get(BATCH_ROWS, 0):
                break
        assert after.get(BATCH_ROWS, 0) - before.get(BATCH_ROWS, 0) == 1, f"not one batch of 32: {before} -> {after}"


@pytest.mark.parametrize("bad", [(0, 1), (0, 31), (5, 6, 7, 20), tuple(range(0, 32, 2)), tuple(range(32))], ids=len)
def test_several_bad_rows(served: Server, bad: Sequence[int]) -> None:
    indices = [[BAD] if at in bad else [at % TABLE_SIZE] for at in range(BATCH_ROWS)]
    check(ask(served, indices), indices)


def test_requests_of_several_rows_fail_as_a_whole(served: Server) -> None:
    indices = [[1, 2, 3], [4, BAD, 5], [6], [7, 8], [BAD, BAD], [9, 10, 11, 12], [13, 14, 15, 0, 1, 2, 3, BAD]]
    check(ask(served, indices), indices)


@pytest.mark.parametrize("place", [0, 31, 32, 63, 64, 99])
def test_a_bad_row_in_a_request_that_is_split(served: Server, place: int) -> None:
    long = [at % TABLE_SIZE for at in range(100)]
    bad = list(long)
    bad[place] = BAD
    indices = [long, bad, [3]]
    check(ask(served, indices), indices)


def test_failures_are_counted_and_rows_are_given_back(served: Server) -> None:
    def counts() -> tuple[int, int, int]:
        one = served.get("/v2/models/fails/stats").json()["model_stats"][0]
        return (
            one["inference_stats"]["success"]["count"],
            one["inference_stats"]["fail"]["count"],
            one["inference_count"],
        )

    before = counts()
    indices = [[BAD] if at % 4 == 0 else [1, 2] for at in range(BATCH_ROWS)]
    check(ask(served, indices), indices)
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [24, 8, 48]
    page = served.get("/metrics", port=served.metrics_port).body.decode()
    for name in ("headrace_inflight_requests", "headrace_queue_depth"):
        assert f'{name}{{model="fails",version="1"}} 0\n' in page
    assert 'headrace_worker_restarts_total{role="executor",cause="died"} 0\n' in page
