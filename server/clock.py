"""Monotonic time in integer nanoseconds, and a clock that tests move by hand.

CLOCK_MONOTONIC is one clock for all processes of a host, so times taken in one process may be compared in another. The
wall clock appears only in logs and in `last_inference` of the statistics.
"""

from __future__ import annotations

import time

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


class Clock:
    """The system's clocks."""

    __slots__ = ()

    def now_ns(self) -> int:
        """Monotonic time; only differences mean anything."""
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01T00:00:00Z; may jump."""
        return time.time_ns()


class FakeClock(Clock):
    """Stands still until `advance`; for tests."""

    __slots__ = ("_now_ns", "_wall_ns")

    def __init__(self, now_ns: int = 0, wall_ns: int = 0) -> None:
        self._now_ns = now_ns
        self._wall_ns = wall_ns

    def now_ns(self) -> int:
        return self._now_ns

    def wall_ns(self) -> int:
        return self._wall_ns

    def advance(self, delta_ns: int) -> None:
        """Move both clocks on by delta_ns >= 0."""
        if delta_ns < 0:
            raise ValueError(f"a monotonic clock does not go back: expected delta_ns >= 0, got {delta_ns}")
        self._now_ns += delta_ns
        self._wall_ns += delta_ns

    def jump_wall(self, delta_ns: int) -> None:
        """Move the wall clock alone, as a time server or an administrator does."""
        self._wall_ns += delta_ns
