"""The C rule of admission against server.batching.admission, and what it sees of a lane."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server._fast import admission as fast
from server._fast.lane_admission import request_timeout
from server._fast.layout import Arena
from server._fast.ring import Ring
from server.batching.admission import Action, Lane, Pressure, decide, margin_ns, retry_after_s
from tests.reference.request_timeout import CENTURY_NS, INVALID, timeout_ns

TIMES = st.one_of(st.integers(0, 400), st.integers(0, 200_000_000_000))


@settings(max_examples=400, deadline=None)
@given(TIMES, TIMES, TIMES, st.integers(0, 2), TIMES, TIMES, TIMES)
def test_the_rule_is_the_reference(
    left: int, work: int, open_ns: int, waiting: int, now: int, deadline: int, margin: int
) -> None:
    said = fast.decide(left, work, open_ns, waiting, now, deadline, margin)
    assert said == decide(Lane(left, work, open_ns, waiting), now, deadline, margin)


@given(TIMES, TIMES, st.integers(0, 20))
def test_the_margin_is_the_reference(budget: int, lag: int, level: int) -> None:
    assert fast.margin(budget, lag, level) == margin_ns(budget, lag, level)


@given(TIMES, st.integers(0, 65535))
def test_retry_after_is_the_reference_and_bounded(wait: int, random: int) -> None:
    assert fast.retry_after_s(wait, random) == retry_after_s(wait, random)
    assert 1 <= retry_after_s(wait, random) <= 30


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 150)), max_size=60))
def test_the_pressure_is_the_reference(answers: list[tuple[int, int]]) -> None:
    pressure, now, levels, told = Pressure(), 1, [], []
    for took_ms, elapsed_ms in answers:
        now += elapsed_ms * 1_000_000
        told.append((took_ms * 1_000_000, 100_000_000, now))
        pressure.answered(*told[-1])
        levels.append(pressure.level)
    assert fast.levels(told) == levels


def make_ring(slab_count: int = 3, instances: int = 1, level_count: int = 0) -> Ring:
    tensor = (11, 4, [-1, 2])
    return Ring(
        Arena.create(
            inputs=[tensor],
            outputs=[tensor],
            rows_mode=True,
            row_capacity=4,
            slab_count=slab_count,
            owner_count=1,
            instance_count=instances,
            levels=[(slab_count, 0, 0, False, False)] * level_count or None,
        )
    )


def test_a_lane_that_never_ran_costs_nothing_and_its_rows_are_counted() -> None:
    ring = make_ring()
    assert fast.look(ring.arena, 1, 0) == (0, 0, 0, 0)
    for rows, deadline_ns in ((3, 900), (1, 700), (2, 0)):
        claim = ring.claim(0, rows)
        assert claim is not None
        ring.publish(0, claim, 10, deadline_ns)
    # The earliest deadline of the open slabs; rows without one do not hide it.
    assert fast.look(ring.arena, 1, 10) == (0, 0, 700, 6)


def test_rows_of_lower_levels_do_not_stand_before_a_request() -> None:
    ring = make_ring(level_count=3)
    for level, rows, deadline_ns in ((0, 1, 900), (1, 2, 700), (2, 3, 800)):
        claim = ring.claim(0, rows, level=level)
        assert claim is not None
        ring.publish(0, claim, 10, deadline_ns)
    seen = [fast.look(ring.arena, 1, 10, level) for level in range(3)]
    assert seen == [(0, 0, 900, 1), (0, 0, 700, 3), (0, 0, 800, 6)]
    assert fast.look(ring.arena, 1, 10) == seen[-1]


@pytest.mark.parametrize("left_ns", [0, 10])
def test_who_hurries_four_times_as_much_does_not_shut_the_lane(left_ns: int) -> None:
    lane = Lane(left_ns, 100, 1050)
    assert decide(lane, 1000, 1200, 0) == Action.PREDICTED_LATE
    assert decide(lane, 1000, 1201, 0) == Action.ADMIT


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        (b"1", 10**9),
        (b"0.25", 250_000_000),
        (b"1.5s", 1_500_000_000),
        (b"250ms", 250_000_000),
        (b"800us", 800_000),
        (b"0.0000000019", 1),
        (b"0", 0),
        (b"999999999999999s", CENTURY_NS),
        (b"1 s", INVALID),
        (b"s", INVALID),
        (b"1.us", INVALID),
        (b"1ns", INVALID),
    ],
)
def test_request_timeouts(text: bytes, expected_ns: int) -> None:
    assert request_timeout(text) == timeout_ns(text) == expected_ns


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.from_regex(rb"[0-9]{1,17}(\.[0-9]{0,17})?(s|ms|us|m|)", fullmatch=True), st.binary(max_size=6)))
def test_request_timeouts_are_the_reference(text: bytes) -> None:
    assert request_timeout(text) == timeout_ns(text)
