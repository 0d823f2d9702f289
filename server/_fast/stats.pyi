"""Statistics blocks of an arena, read out as plain numbers."""

from typing import Any

from server._fast.layout import Arena

def read_block(arena: Arena, index: int) -> dict[str, Any]:
    """One block: index is a worker slot, or owner_count for the executor. IndexError outside.

    Counts are integers, durations integer nanoseconds; *_counts of durations have 217 buckets (upper bound of bucket
    k is 2^(k/8) microseconds), batch_counts and batch_ns 136 (1..128 rows exactly, then doubling bounds).
    """

def bucket_of(value_ns: int) -> int:
    """The histogram bucket of a duration."""

def batch_bucket_of(rows: int) -> int:
    """The batch-size bucket of a number of rows."""
