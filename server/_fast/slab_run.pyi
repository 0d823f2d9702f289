"""The executor's half of the lock-free batch queue."""

def arm_failpoint(point: int, hits: int = 1) -> bool:
    """Of the failpoints that this module passes: see slab_ring.arm_failpoint."""
