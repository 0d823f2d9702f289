"""The cut of a batch for a latency target, in C against its reference, and what an executor does with it."""

from __future__ import annotations

import os
from time import monotonic_ns

from hypothesis import given, settings
from hypothesis import strategies as st

from server._fast import cost_table, slo_cut
from server._fast.lane_executor import LaneExecutor
from server._fast.layout import Arena, Control
from server._fast.ring import Ring
from server.batching.cost import CostTable
from server.batching.slo_policy import BUSY_ONE, BusyMeter, rows_to_run

TENSOR = (11, 4, [-1, 1])
CAPACITY = 32
NOW_NS = 10**9


def make_arena(slo_ns: int) -> Arena:
    return Arena.create(
        inputs=[TENSOR], outputs=[TENSOR], rows_mode=True, row_capacity=CAPACITY, slab_count=3, owner_count=1,
        instance_count=1, slo_ns=slo_ns,
    )  # fmt: skip


def learnt(arena: Arena, fixed_ns: int, row_ns: int) -> CostTable:
    table = CostTable(CAPACITY)
    for cell in table.cells:
        for learn in (table.learn, lambda *given: cost_table.learn(arena, *given)):
            learn(cell.rows, fixed_ns + row_ns * cell.rows, (fixed_ns + row_ns) // 20, 5, 0)
    return table


@settings(max_examples=400, deadline=None)
@given(
    slo_ns=st.sampled_from([0, 10, 5_000, 20_000, 10**7]),
    fixed_ns=st.sampled_from([1, 500, 4_000]),
    row_ns=st.sampled_from([1, 300, 1_000]),
    claims=st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 20_000), st.sampled_from("rrrrcf")), min_size=1, max_size=CAPACITY
    ),
    busy=st.integers(0, BUSY_ONE),
    is_known=st.booleans(),
)
def test_the_cut_is_that_of_the_rule(
    slo_ns: int, fixed_ns: int, row_ns: int, claims: list[tuple[int, int, str]], busy: int, is_known: bool
) -> None:
    arena = make_arena(slo_ns)
    ring = Ring(arena)
    table = learnt(arena, fixed_ns, row_ns) if is_known else CostTable(CAPACITY)
    waits: list[tuple[int, int]] = []
    for rows, wait_ns, fate in claims:
        claim = ring.claim(0, rows)
        if claim is None or claim[0] > 0:
            break
        if fate != "f":
            ring.publish(0, claim, NOW_NS - wait_ns)
        if fate == "c":
            ring.cancel(0, claim)
        elif fate == "r":
            waits.append((wait_ns, rows))
    batch = ring.seal(0, NOW_NS)
    assert isinstance(batch, dict)
    expected, total = rows_to_run(waits, table, slo_ns, busy), sum(rows for _, rows in waits)
    found = slo_cut.rows_of(arena, batch, busy, NOW_NS)
    assert (found or total) == expected
    if found:
        taken = ring.take(0, {**batch, "row_limit": found}, NOW_NS, partial=True)
        assert taken is not None
        assert taken["live_count"] == found


@given(runs=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), max_size=60), later_ns=st.integers(0, 3000))
def test_the_meter_is_the_reference_s(runs: list[tuple[int, int]], later_ns: int) -> None:
    meter, now_ns, times = BusyMeter(), 1, []
    for idle_ns, busy_ns in runs:
        times.append((now_ns + idle_ns, now_ns + idle_ns + busy_ns))
        now_ns = times[-1][1]
        meter.add(*times[-1])
    assert slo_cut.busy_of(times, now_ns + later_ns) == meter.busy(now_ns + later_ns)


def test_the_executor_runs_the_front_first_and_the_rest_next() -> None:
    """A burst of twenty rows at a second each, of which eight are in time."""
    arena = make_arena(8_500_000_000)
    learnt(arena, 1, 1_000_000_000)
    ring = Ring(arena)
    for _ in range(20):
        claim = ring.claim(0)
        assert claim is not None
        ring.publish(0, claim, monotonic_ns())
    bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        lane = LaneExecutor(arena, Control.create(1, 0), 0, bell, [bell])
        batch = lane.next_batch()
        assert batch is not None
        slab, rows, live_count, _ = batch
        assert (slab, rows) == (0, 20)
        # The clock is real: fewer are in time the longer it took to get here.
        assert 0 < live_count <= 8
        assert lane.live_rows() == list(range(live_count))
        lane.complete(lane.run_begins(), live_count)
        seen = live_count
        while seen < 20:
            batch = lane.next_batch()
            assert batch is not None
            assert lane.live_rows() == list(range(seen, seen + batch[2]))
            seen += batch[2]
            lane.complete(lane.run_begins(), batch[2])
    finally:
        os.close(bell)
