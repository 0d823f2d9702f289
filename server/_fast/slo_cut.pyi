"""The cut of a batch for a latency target, for tests; the reference is server.batching.slo_policy."""

from collections.abc import Sequence

from server._fast.layout import Arena
from server._fast.ring import Batch

def rows_of(arena: Arena, sealed: Batch, busy: int, now_ns: int) -> int:
    """How many rows of a sealed slab run now, 0 for all; busy is in 1/1024."""

def busy_of(runs: Sequence[tuple[int, int]], now_ns: int) -> int:
    """The share of the last 16 to 32 (start, end) in which something ran, in 1/1024."""
