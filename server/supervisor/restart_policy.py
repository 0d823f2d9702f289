"""When a dead child is started again: a pure function of how it died before."""

from __future__ import annotations

from collections.abc import Sequence

#: A child that served this long is not in a crash loop.
STABLE_NS = 1_000_000_000
FIRST_DELAY_NS = 100_000_000
MAX_DELAY_NS = 30_000_000_000
#: Requests wait for a restart that comes sooner; they are refused where it takes longer, for others may serve them.
PATIENCE_NS = 1_000_000_000


def restart_delay_ns(served_ns: Sequence[int]) -> int:
    """How long to wait before the next start, given how long the last children served, newest last.

    A life counts from readiness, 0 for a child that was never ready: however long a model takes to load, dying of it is
    an early death. 0 after a stable life or a first early death; then 0.1 s doubling up to 30 s for each further early
    death in a row.
    """
    early = 0
    for life_ns in reversed(served_ns):
        if life_ns >= STABLE_NS:
            break
        early += 1
    if early <= 1:
        return 0
    return int(min(MAX_DELAY_NS, FIRST_DELAY_NS << min(early - 2, 16)))
