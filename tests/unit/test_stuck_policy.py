"""Which processes count as stuck, by a clock that the tests move."""

from __future__ import annotations

from collections.abc import Hashable

import pytest

from server.observe.snapshot import BUCKET_COUNT, bucket_bounds_ns, bucket_index
from server.supervisor.stuck_policy import Mark, Stuck, StuckPolicy, run_limit_ns

MS = 1_000_000
SECOND = 1000 * MS
FLOOR = 5 * SECOND
A, B = ("executor", 0), ("worker", 0)


class Watch:
    """A policy that is asked every second."""

    def __init__(self) -> None:
        self.policy = StuckPolicy(SECOND)
        self.now_ns = 1000 * SECOND
        self.limits = 0

    def after(self, seconds: float, *marks: tuple[str, Hashable], pid: int = 1, limit_ns: int = FLOOR) -> list[str]:
        """Who is stuck in one of the looks of this time, in which all marks stay as they are."""
        found: list[str] = []

        def limit(mark: Mark) -> int:
            self.limits += 1
            return limit_ns

        for _ in range(int(seconds)):
            self.now_ns += SECOND
            wanted = [Mark((process, 0), "", pid, value) for process, value in marks]
            found += [stuck.process[0] for stuck in self.policy.look(self.now_ns, wanted, FLOOR, limit)]
        return found


def test_one_that_does_not_get_on_is_found_a_period_after_its_limit() -> None:
    watch = Watch()
    for second in range(5):
        assert watch.after(1, ("a", 7), ("b", second)) == []
    assert watch.after(1, ("a", 7), ("b", 5)) == []  # five seconds: not longer than the limit
    assert watch.after(1, ("a", 7), ("b", 6)) == ["a"]


def test_one_that_gets_on_is_never_found() -> None:
    watch = Watch()
    for second in range(100):
        assert watch.after(3, ("a", second)) == []


def test_a_longer_limit_is_asked_for_only_when_the_floor_is_passed() -> None:
    watch = Watch()
    assert watch.after(6, ("a", 7), ("b", None), limit_ns=20 * SECOND) == []
    assert watch.limits == 0
    for second in range(15):
        assert watch.after(1, ("a", 7), ("b", second), limit_ns=20 * SECOND) == []
    assert watch.limits == 15
    assert watch.after(1, ("a", 7), ("b", 99), limit_ns=20 * SECOND) == ["a"]


def test_a_successor_begins_anew() -> None:
    watch = Watch()
    for second in range(6):
        assert watch.after(1, ("a", 7), ("b", second)) == []
    assert watch.after(1, ("a", 7), ("b", 6), pid=2) == []
    for second in range(5):
        assert watch.after(1, ("a", 7), ("b", 10 + second), pid=2) == []
    assert watch.after(1, ("a", 7), ("b", 20), pid=2) == ["a"]


def test_a_mark_that_was_gone_begins_anew() -> None:
    """A batch that ended: the next in the same slab is another."""
    watch = Watch()
    for second in range(20):
        marks = (("a", 7), ("b", second)) if second % 5 else (("b", second),)
        assert watch.after(1, *marks) == []


def test_a_supervisor_that_stood_still_itself_judges_nobody() -> None:
    watch = Watch()
    watch.after(3, ("a", 7), ("b", 1))
    watch.now_ns += 3600 * SECOND
    # Two periods have passed for it at most.
    assert watch.after(1, ("a", 7), ("b", 2)) == []
    assert watch.after(1, ("a", 8), ("b", 3)) == []


def test_when_all_are_late_they_get_one_more_chance() -> None:
    watch = Watch()
    assert watch.after(7, ("a", 7), ("b", 7)) == []
    # None of them took it.
    assert watch.after(5, ("a", 7), ("b", 7)) == []
    assert watch.after(1, ("a", 7), ("b", 7)) == ["a", "b"]


def test_the_chance_comes_back_with_the_first_that_gets_on() -> None:
    watch = Watch()
    assert watch.after(7, ("a", 7), ("b", 7)) == []
    assert watch.after(1, ("a", 8), ("b", 7)) == []
    assert watch.after(7, ("a", 8), ("b", 8)) == []


def test_a_chance_is_not_for_one_of_two() -> None:
    watch = Watch()
    assert watch.after(6, ("a", 7), ("b", 7)) == []
    assert watch.after(1, ("a", 7), ("b", 8)) == ["a"]


def test_one_alone_has_no_excuse() -> None:
    assert Watch().after(7, ("a", 7)) == ["a"]


def test_a_process_is_named_once_for_its_oldest_mark() -> None:
    policy = StuckPolicy(SECOND)
    for second in range(8):
        marks = [Mark(A, 1, 1, "x"), Mark(A, 2, 1, "x" if second else "w"), Mark(B, 0, 1, second)]
        found = policy.look((10 + second) * SECOND, marks, FLOOR, lambda mark: FLOOR)
    assert found == [Stuck(A, 1, 7 * SECOND, FLOOR)]


def counts(*durations_ns: int) -> list[int]:
    buckets = [0] * BUCKET_COUNT
    for duration_ns in durations_ns:
        buckets[bucket_index(duration_ns)] += 1
    return buckets


@pytest.mark.parametrize(
    ("durations_ns", "limit_ns"),
    [
        ([], 12 * FLOOR),
        ([MS] * 19, 12 * FLOOR),
        ([MS] * 20, FLOOR),
        ([2 * SECOND] * 20, 10 * bucket_bounds_ns()[bucket_index(2 * SECOND)]),
        # One of a hundred does not count, two do.
        ([MS] * 99 + [2 * SECOND], FLOOR),
        ([MS] * 98 + [2 * SECOND] * 2, 10 * bucket_bounds_ns()[bucket_index(2 * SECOND)]),
    ],
)
def test_how_long_a_run_may_take(durations_ns: list[int], limit_ns: int) -> None:
    assert run_limit_ns(FLOOR, counts(*durations_ns)) == limit_ns
