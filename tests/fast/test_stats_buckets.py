"""stats: the bucket functions of the hot path against the exact bounds that the metrics are written from."""

from __future__ import annotations

import os
import random

from server._fast import stats
from server.observe.snapshot import (
    BATCH_SIZE_BOUNDS_ROWS,
    BATCH_SIZE_COUNT,
    BUCKET_COUNT,
    batch_size_index,
    bucket_bounds_ns,
    bucket_index,
)

DRAWS = int(os.environ.get("HEADRACE_STRESS") or 1) * 10_000


def test_durations_at_every_bound() -> None:
    for bound_ns in bucket_bounds_ns():
        for duration_ns in (bound_ns - 1, bound_ns, bound_ns + 1):
            assert stats.bucket_of(duration_ns) == bucket_index(duration_ns), duration_ns


def test_durations_of_any_size() -> None:
    random.seed(4)
    for _ in range(DRAWS):
        duration_ns = int(2 ** random.uniform(0, 63))
        assert stats.bucket_of(duration_ns) == bucket_index(duration_ns), duration_ns
    assert stats.bucket_of(0) == 0
    assert stats.bucket_of(2**63) == BUCKET_COUNT - 1


def test_batch_sizes() -> None:
    for bound_rows in BATCH_SIZE_BOUNDS_ROWS:
        for size_rows in (bound_rows, bound_rows + 1):
            assert stats.batch_bucket_of(size_rows) == batch_size_index(size_rows), size_rows
    assert stats.batch_bucket_of(2**40) == BATCH_SIZE_COUNT - 1
