"""Served models and counter blocks with contents that are easy to recompute, for the tests of observe and handlers."""

from __future__ import annotations

from collections.abc import Sequence

from server.observe.snapshot import (
    BATCH_SIZE_COUNT,
    BUCKET_COUNT,
    Block,
    Histogram,
    batch_size_index,
    bucket_index,
)
from server.protocol.served import READY, ServedModel, TensorInfo


def digits(version: str = "1", *, name: str = "digits", state: str = READY, reason: str = "") -> ServedModel:
    """The demo model's shape: batched, one output with no axis but the batch's."""
    return ServedModel(
        name,
        version,
        [TensorInfo("image", "FP32", (-1, 64))],
        [TensorInfo("probabilities", "FP32", (-1, 10)), TensorInfo("label", "INT64", (-1,))],
        batched=True,
        max_batch=64,
        batching_reason="the first axis of every input and output is free",
        state=lambda: state,
        reason=lambda: reason,
        instances=2,
        max_queue_delay_us=500,
    )


def vad() -> ServedModel:
    """A model without a batch axis and with a scalar input."""
    return ServedModel(
        "vad",
        "3",
        [TensorInfo("input", "FP32", (-1, 512)), TensorInfo("sr", "INT64", ())],
        [TensorInfo("output", "FP32", (-1, 1))],
        batched=False,
        max_batch=0,
        batching_reason="input 'sr' has no axis",
    )


def histogram(durations_ns: Sequence[int]) -> Histogram:
    """What counting these durations one by one leaves behind."""
    buckets = [0] * BUCKET_COUNT
    for duration_ns in durations_ns:
        buckets[bucket_index(duration_ns)] += 1
    return Histogram(sum(durations_ns), buckets)


def batch_sizes(sizes_rows: Sequence[int]) -> list[int]:
    """The counters after runs of these sizes."""
    counts = [0] * BATCH_SIZE_COUNT
    for size_rows in sizes_rows:
        counts[batch_size_index(size_rows)] += 1
    return counts


def worker_block(model: ServedModel, durations_ns: Sequence[int], failures: Sequence[int] = (0,) * 6) -> Block:
    """A worker's counters: each request waits a quarter of its time, runs a half, 100 ns each to parse and reply."""
    return Block(
        model.name,
        model.version,
        success_count=len(durations_ns),
        failure_counts=tuple(failures),
        failure_ns=10 * sum(failures),
        request=histogram(durations_ns),
        queue=histogram([one // 4 for one in durations_ns]),
        execute=histogram([one // 2 for one in durations_ns]),
        parse_ns=100 * len(durations_ns),
        reply_ns=100 * len(durations_ns),
        last_inference_ms=1_700_000_000_000 + len(durations_ns),
        inflight_count=1,
        predicted_count=failures[0] * 3 // 5,
        queue_depth_rows=2,
    )


def executor_block(model: ServedModel, sizes_rows: Sequence[int]) -> Block:
    """An executor's counters: each run takes 1 us a row."""
    sizes_ns = [0] * BATCH_SIZE_COUNT
    for size_rows in sizes_rows:
        sizes_ns[batch_size_index(size_rows)] += 1000 * size_rows
    return Block(
        model.name,
        model.version,
        exec_count=len(sizes_rows),
        rows_count=sum(sizes_rows),
        busy_ns=1000 * sum(sizes_rows),
        batch_sizes=batch_sizes(sizes_rows),
        batch_size_ns=sizes_ns,
        late_count=1,
        outlived_count=9,
        predicted_wait_ns=250_000_000,
        overloaded=True,
        batch_costs=[(rows, 1000 * rows, 1250 * rows) for rows in (1, 2, 4, 64)],
    )
