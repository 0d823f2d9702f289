"""statistics.py: the V2 statistics document, and what perf_analyzer does with two of them."""

from __future__ import annotations

import json
from typing import Any

from server.observe import statistics
from server.observe.snapshot import Block, Snapshot, merge
from tests.support import counters

GOLDEN = {
    "name": "digits",
    "version": "1",
    "last_inference": 1_700_000_000_002,
    "inference_count": 7,
    "execution_count": 3,
    "inference_stats": {
        "success": {"count": 3, "ns": 14_000},
        "fail": {"count": 6, "ns": 60},
        "queue": {"count": 3, "ns": 3_500},
        "compute_input": {"count": 3, "ns": 300},
        "compute_infer": {"count": 3, "ns": 7_000},
        "compute_output": {"count": 3, "ns": 300},
        "cache_hit": {"count": 0, "ns": 0},
        "cache_miss": {"count": 0, "ns": 0},
    },
    "response_stats": {},
    "batch_stats": [
        {
            "batch_size": 1,
            "compute_input": {"count": 2, "ns": 0},
            "compute_infer": {"count": 2, "ns": 2_000},
            "compute_output": {"count": 2, "ns": 0},
        },
        {
            "batch_size": 5,
            "compute_input": {"count": 1, "ns": 0},
            "compute_infer": {"count": 1, "ns": 5_000},
            "compute_output": {"count": 1, "ns": 0},
        },
    ],
    "memory_usage": [],
}


def entry(blocks: list[Block]) -> dict[str, Any]:
    document = json.loads(statistics.document([counters.digits()], Snapshot(merge(blocks))))
    assert list(document) == ["model_stats"]
    found: dict[str, Any] = document["model_stats"][0]
    return found


def test_golden() -> None:
    digits = counters.digits()
    blocks = [
        counters.worker_block(digits, [2_000, 4_000], (1, 1, 1, 0, 0, 0)),
        counters.worker_block(digits, [8_000], (0, 0, 0, 1, 1, 1)),
        counters.executor_block(digits, [1, 5, 1]),
    ]
    assert entry(blocks) == GOLDEN
    assert list(entry(blocks)) == list(GOLDEN)


def test_a_model_never_asked_has_every_key_at_zero() -> None:
    zero = entry([])
    assert list(zero) == list(GOLDEN)
    assert list(zero["inference_stats"]) == list(GOLDEN["inference_stats"])  # type: ignore[call-overload]
    assert all(one == {"count": 0, "ns": 0} for one in zero["inference_stats"].values())
    assert (zero["inference_count"], zero["execution_count"], zero["last_inference"]) == (0, 0, 0)


def test_memory_is_that_of_the_executor() -> None:
    digits = counters.digits()
    key = (digits.name, digits.version)
    document = json.loads(statistics.document([digits], Snapshot({}, executor_bytes={key: 4096})))
    assert document["model_stats"][0]["memory_usage"] == [{"type": "CPU", "id": 0, "byte_size": 4096}]


def test_without_run_times_by_size_there_are_no_batch_statistics() -> None:
    block = counters.executor_block(counters.digits(), [1, 2])._replace(batch_size_ns=())
    assert entry([block])["batch_stats"] == []


def test_counts_that_perf_analyzer_compares_are_equal() -> None:
    stats = entry([counters.worker_block(counters.digits(), [1000] * 17)])["inference_stats"]
    names = ("queue", "compute_input", "compute_infer", "compute_output", "success")
    assert {stats[name]["count"] for name in names} == {17}
