"""When a dead child is started again."""

from __future__ import annotations

import pytest

from server.supervisor.restart_policy import FIRST_DELAY_NS, MAX_DELAY_NS, STABLE_NS, restart_delay_ns

EARLY, STABLE = STABLE_NS - 1, STABLE_NS


@pytest.mark.parametrize(
    ("served_ns", "delay_ns"),
    [
        ([STABLE], 0),
        ([EARLY], 0),
        ([STABLE, EARLY], 0),
        ([EARLY, EARLY], FIRST_DELAY_NS),
        ([0, 0, 0], 2 * FIRST_DELAY_NS),
        ([EARLY, EARLY, EARLY, STABLE], 0),
        ([EARLY, EARLY, EARLY, STABLE, EARLY], 0),
        ([0] * 10, 256 * FIRST_DELAY_NS),
        ([0] * 11, MAX_DELAY_NS),
        ([0] * 32, MAX_DELAY_NS),
    ],
)
def test_delay(served_ns: list[int], delay_ns: int) -> None:
    assert restart_delay_ns(served_ns) == delay_ns


def test_a_child_killed_every_two_seconds_is_replaced_at_once_each_time() -> None:
    lives = [1_700_000_000] * 32
    assert all(restart_delay_ns(lives[:count]) == 0 for count in range(1, 33))


def test_a_crash_loop_starts_a_dozen_children_in_its_first_minute() -> None:
    now_ns, starts = 0, 0
    while now_ns < 60_000_000_000:
        starts += 1
        now_ns += restart_delay_ns([0] * min(starts, 32))
    assert starts <= 12
