"""server/batching/sharing.py: who goes next, and that nobody starves nobody."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from server.batching.sharing import LOAN_NS, Offer, Sharing, decide

STRESS = int(os.environ.get("HEADRACE_STRESS") or 0)
MS = 1_000_000


@pytest.mark.parametrize(
    ("offers", "lane"),
    [
        ([Offer(3, 5, 1)], 3),
        ([Offer(0, 9, 1), Offer(1, 5, 1)], 1),
        ([Offer(1, 5, 1), Offer(0, 5, 1)], 0),
        # No deadline is at risk: both are kept whoever goes first.
        ([Offer(0, 9, 10, 500), Offer(1, 5, 10, 300)], 1),
        # Behind the run of the other it would be late.
        ([Offer(0, 9, 10, 115), Offer(1, 5, 10)], 0),
        ([Offer(0, 9, 10, 118), Offer(1, 5, 10, 115)], 1),
        ([Offer(0, 9, 10, 115), Offer(1, 5, 10, 118)], 0),
        # It is late already: it loses nothing by waiting.
        ([Offer(0, 9, 10, 105), Offer(1, 5, 10)], 1),
        ([Offer(0, 9, 10, 90), Offer(1, 5, 10)], 1),
        # It has had its loan.
        ([Offer(0, 5 + LOAN_NS, 10, 115), Offer(1, 5, 10)], 0),
        ([Offer(0, 6 + LOAN_NS, 10, 115), Offer(1, 5, 10)], 1),
        # Alone nothing is at risk.
        ([Offer(0, 5, 10, 110)], 0),
    ],
)
def test_who_goes_next(offers: list[Offer], lane: int) -> None:
    assert decide(offers, 100) == lane


def test_a_pause_saves_nothing() -> None:
    sharing = Sharing(2)
    for _ in range(100):
        lane, charged_ns = sharing.take([(0, 0)], 0)
        sharing.ran(lane, charged_ns, 10)
    turns = []
    for _ in range(6):
        lane, charged_ns = sharing.take([(0, 0), (1, 0)], 0)
        sharing.ran(lane, charged_ns, 10)
        turns.append(lane)
    assert turns.count(1) in (3, 4)


def test_two_instances_choose_two_lanes() -> None:
    sharing = Sharing(2)
    for lane in (0, 1):
        sharing.ran(lane, 0, 10)
    first, _ = sharing.take([(0, 0), (1, 0)], 0)
    second, charged_ns = sharing.take([(0, 0), (1, 0)], 0)
    assert {first, second} == {0, 1}
    sharing.back(second, charged_ns)
    assert sharing.take([(0, 0), (1, 0)], 0)[0] == second


def simulate(seed: int) -> None:
    """Lanes with runs of any length and deadlines of any kind, some always busy, some now and then; one instance.

    Of two lanes that are busy all the time neither has more than a loan and a run of each more than the other.
    """
    rng = random.Random(seed)
    count = rng.randint(2, 6)
    run_ns = [rng.choice((MS // 10, MS, 5 * MS, 40 * MS)) for _ in range(count)]
    patience: list[Callable[[], int]] = [
        rng.choice((lambda: 0, lambda: rng.randint(1, 80 * MS), lambda i=index: run_ns[i] + MS // 20))
        for index in range(count)
    ]
    is_busy = [True, True, *(rng.random() < 0.5 for _ in range(count - 2))]
    sharing = Sharing(count)
    had_ns, longest_ns, now_ns = [0] * count, [0] * count, 0
    for _ in range(150):
        due = []
        for lane in range(count):
            if is_busy[lane] or rng.random() < 0.3:
                patience_ns = patience[lane]()
                due.append((lane, now_ns + patience_ns if patience_ns else 0))
        lane, charged_ns = sharing.take(due, now_ns)
        took_ns = int(run_ns[lane] * rng.uniform(0.5, 1.5))
        sharing.ran(lane, charged_ns, took_ns)
        now_ns += took_ns
        had_ns[lane] += took_ns
        longest_ns[lane] = max(longest_ns[lane], took_ns)
        for a in range(count):
            for b in range(count):
                if is_busy[a] and is_busy[b]:
                    assert had_ns[a] - had_ns[b] <= LOAN_NS + longest_ns[a] + longest_ns[b], (seed, had_ns)
    assert sum(had_ns) == now_ns


@pytest.mark.parametrize("part", range(20))
def test_nobody_starves(part: int) -> None:
    for seed in range(part * 1000, part * 1000 + (500 * STRESS or 3)):
        simulate(seed)
