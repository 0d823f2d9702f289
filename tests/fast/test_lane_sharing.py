"""The sharing of an executor by its lanes, in C, against server.batching.sharing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server._fast.lane_sharing import Sharing
from server.batching import sharing as reference

LANES = 5
TIMES = st.sampled_from([0, 1, 7, 90, 1000, 30_000_000, 99_999_999, 100_000_000, 250_000_000])
DUE = st.lists(st.tuples(st.integers(0, LANES - 1), TIMES), min_size=1, max_size=LANES, unique_by=lambda one: one[0])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(DUE, TIMES, TIMES, st.sampled_from(["ran", "ran", "ran", "back", "clear"])), max_size=30))
def test_both_choose_alike(steps: list[tuple[list[tuple[int, int]], int, int, str]]) -> None:
    own, twin = Sharing(LANES), reference.Sharing(LANES)
    now_ns = 1
    for due, elapsed_ns, ns, what in steps:
        now_ns += elapsed_ns
        offered = [(lane, patience_ns and now_ns + patience_ns) for lane, patience_ns in due]
        lane, charged_ns = taken = own.take(offered, now_ns)
        assert taken == twin.take(offered, now_ns)
        if what == "back":
            own.back(lane, charged_ns)
            twin.back(lane, charged_ns)
        else:
            own.ran(lane, charged_ns, ns)
            twin.ran(lane, charged_ns, ns)
        if what == "clear":
            own.clear(lane)
            twin.clear(lane)
        assert [own.served_ns(index) for index in range(LANES)] == twin.served_ns


@pytest.mark.parametrize("count", [0, 257])
def test_so_many_lanes_share_a_process(count: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 256"):
        Sharing(count)


def test_a_lane_that_is_not_there() -> None:
    own = Sharing(2)
    for call in (lambda: own.ran(2, 0, 0), lambda: own.take([(2, 0)], 0), lambda: own.clear(2)):
        with pytest.raises(IndexError):
            call()
