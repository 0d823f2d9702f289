"""The lock-free batch queue; its Python face is server._fast.ring."""

#: Failpoints are 1 .. FAILPOINT_COUNT - 1.
FAILPOINT_COUNT: int

def arm_failpoint(point: int, hits: int = 1) -> bool:
    """Debug builds: the process dies by SIGKILL at the `hits`-th passing of `point`. False where it is compiled out."""
