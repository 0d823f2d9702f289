"""snapshot.py: the buckets' bounds, and sums over processes."""

from __future__ import annotations

import math
import random

import pytest

from server.observe import snapshot
from server.observe.snapshot import (
    BATCH_SIZE_BOUNDS_ROWS,
    BATCH_SIZE_COUNT,
    BUCKET_COUNT,
    Block,
    batch_size_index,
    bucket_bounds_ns,
    bucket_index,
    executed_rows,
    from_counters,
    merge,
)
from tests.support import counters


def test_bounds_are_whole_powers_of_the_eighth_root_of_two() -> None:
    bounds = bucket_bounds_ns()
    assert len(bounds) == BUCKET_COUNT
    assert bounds[::8] == [1000 << octave for octave in range(28)]
    for k, bound in enumerate(bounds):
        # bound <= 1000 * 2^(k/8) < bound + 1, in whole numbers
        assert bound**8 <= 1000**8 << k < (bound + 1) ** 8


@pytest.mark.parametrize(
    ("duration_ns", "index"),
    [
        (0, 0),
        (1, 0),
        (1000, 0),
        (1001, 1),
        (2000, 8),
        (2001, 9),
        (1 << 60, 216),
        (10**9, 160),
        (bucket_bounds_ns()[215] + 1, 216),
    ],
)
def test_bucket_index(duration_ns: int, index: int) -> None:
    assert bucket_index(duration_ns) == index


def test_bucket_index_is_the_formula_away_from_bounds() -> None:
    random.seed(1)
    for _ in range(1000):
        duration_ns = int(1000 * 2 ** random.uniform(0, 26.8))
        exponent = 8 * math.log2(duration_ns / 1000)
        if abs(exponent - round(exponent)) > 1e-6:
            assert bucket_index(duration_ns) == max(0, math.ceil(exponent))


def test_batch_size_counters() -> None:
    assert len(BATCH_SIZE_BOUNDS_ROWS) == BATCH_SIZE_COUNT
    assert [batch_size_index(size) for size in (1, 2, 127, 128, 129, 256, 257)] == [0, 1, 126, 127, 128, 128, 129]
    assert batch_size_index(32768) == batch_size_index(10**9) == BATCH_SIZE_COUNT - 1


@pytest.mark.parametrize(
    ("sizes_rows", "expected_rows"), [([], 0), ([1, 2, 128], 131), ([300], 300), ([129, 4], 133), ([70_000], 70_000)]
)
def test_executed_rows(sizes_rows: list[int], expected_rows: int) -> None:
    block = counters.executor_block(counters.digits(), sizes_rows)
    assert executed_rows(block) == expected_rows
    # Rows of failed runs are in the executor's counters only.
    exact = sum(size for size in sizes_rows if size <= 128)
    assert executed_rows(block._replace(rows_count=0)) >= exact


def test_from_counters() -> None:
    block = counters.worker_block(counters.digits(), [1000, 5000], (1, 2, 3, 4, 5, 6))._replace(
        exec_count=9, rows_count=8, busy_ns=7, batch_sizes=counters.batch_sizes([3, 4]), batch_size_ns=[0] * 136
    )
    raw = {
        "success_count": 2,
        "failure_counts": (1, 2, 3, 4, 5, 6),
        "row_count": 8,
        "parse_ns": 200,
        "reply_ns": 200,
        "last_inference_ms": block.last_inference_ms,
        "execution_count": 9,
        "busy_ns": 7,
        "inflight_count": 1,
        "failure_ns": 12,
        "late_count": 0,
        "outlived_count": 0,
        "predicted_count": 0,
        "request_sum_ns": 6000,
        "request_counts": block.request.buckets,
        "queue_sum_ns": 1500,
        "queue_counts": block.queue.buckets,
        "execute_sum_ns": 3000,
        "execute_counts": block.execute.buckets,
        "batch_counts": block.batch_sizes,
        "batch_ns": block.batch_size_ns,
    }
    assert from_counters("digits", "1", raw) == block._replace(failure_ns=12, queue_depth_rows=0)


def test_merge_equals_counting_all_in_one_process() -> None:
    random.seed(2)
    digits, vad = counters.digits(), counters.vad()
    durations = [[random.randrange(10**10) for _ in range(50)] for _ in range(4)]
    sizes = [[random.randrange(1, 300) for _ in range(20)] for _ in range(2)]
    blocks = [counters.worker_block(digits, one, (1, 2, 3, 4, 5, 6)) for one in durations]
    blocks += [counters.executor_block(digits, one) for one in sizes]
    blocks += [counters.worker_block(vad, [5000])]
    random.shuffle(blocks)
    merged = merge(blocks)
    assert set(merged) == {("digits", "1"), ("vad", "3")}
    all_durations = [one for part in durations for one in part]
    oracle = counters.worker_block(digits, all_durations)
    executed = counters.executor_block(digits, sizes[0] + sizes[1])
    assert merged["digits", "1"] == oracle._replace(
        failure_counts=[4, 8, 12, 16, 20, 24],
        failure_ns=4 * 10 * 21,
        exec_count=40,
        rows_count=executed.rows_count,
        busy_ns=executed.busy_ns,
        batch_sizes=executed.batch_sizes,
        batch_size_ns=executed.batch_size_ns,
        last_inference_ms=1_700_000_000_050,
        inflight_count=4,
        queue_depth_rows=8,
        late_count=executed.late_count * 2,
        outlived_count=executed.outlived_count * 2,
        predicted_wait_ns=executed.predicted_wait_ns,
        overloaded=True,
        batch_costs=executed.batch_costs,
    )
    assert merged["vad", "3"] == counters.worker_block(vad, [5000])


def test_empty_blocks_add_nothing() -> None:
    block = counters.worker_block(counters.digits(), [1, 2, 3])
    empty = Block("digits", "1")
    assert merge([empty, block, empty])["digits", "1"] == block._replace(failure_counts=[0] * 6)
    assert merge([]) == {}
    assert snapshot.merge([empty, empty])["digits", "1"]._replace(failure_counts=empty.failure_counts) == empty
