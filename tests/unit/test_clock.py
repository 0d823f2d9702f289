"""clock.py: integer nanoseconds that only go forward, and a clock that goes when told."""

from __future__ import annotations

import pytest

from server.clock import Clock, FakeClock


def test_the_real_clock_is_monotonic_whole_nanoseconds() -> None:
    clock = Clock()
    times = [clock.now_ns() for _ in range(100)]
    assert times == sorted(times)
    assert all(type(one) is int for one in times)
    assert clock.wall_ns() > 1_700_000_000 * 10**9


def test_the_fake_clock_moves_only_when_told() -> None:
    clock = FakeClock(now_ns=5, wall_ns=100)
    assert (clock.now_ns(), clock.now_ns(), clock.wall_ns()) == (5, 5, 100)
    clock.advance(7)
    assert (clock.now_ns(), clock.wall_ns()) == (12, 107)
    clock.jump_wall(-50)
    assert (clock.now_ns(), clock.wall_ns()) == (12, 57)
    with pytest.raises(ValueError, match="got -1"):
        clock.advance(-1)
