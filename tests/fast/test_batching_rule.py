"""ring_due against the published rule: random lanes, a fake clock, the same decision."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from server._fast import cost_table
from server._fast.layout import Arena
from server._fast.ring import Ring
from server.batching.cost import CostTable
from server.batching.plan import Full, Join, Open, Plan, RunSlab, Slab, Sleep, WaitUntil, decide
from server.batching.plan import claim as where
from server.batching.slo_policy import run_by_ns

FP32 = (11, 4, [-1, 2])
NEVER_NS = (1 << 64) - 1


#: Bytes of inputs in a slab of shaped rows: one of 48 floats, three of one float.
SHAPED_BYTES = 192


#: Of each priority level: late requests let others pass, else they are refused.
DELAYS = (True, False, True)


def make_ring(plan: Plan, shaped: bool = False, slo_ns: int = 0) -> Ring:
    tensor = (11, 4, [-1, -1]) if shaped else FP32
    return Ring(
        Arena.create(
            slo_ns=slo_ns,
            inputs=[tensor],
            outputs=[tensor],
            rows_mode=not shaped,
            shaped=shaped,
            input_bytes=SHAPED_BYTES,
            output_bytes=SHAPED_BYTES,
            row_capacity=plan.row_capacity,
            slab_count=5,
            owner_count=1,
            instance_count=1,
            max_queue_delay_ns=plan.max_queue_delay_ns,
            preferred_rows=plan.preferred_rows,
            levels=[(5, 0, 0, delays, False) for delays in DELAYS],
        )
    )


@settings(max_examples=200, deadline=None)
@given(
    plan=st.builds(
        Plan,
        row_capacity=st.integers(1, 8),
        max_queue_delay_ns=st.sampled_from([0, 100, 500]),
        preferred_rows=st.integers(0, 9),
        newest_first=st.booleans(),
    ),
    steps=st.lists(
        st.tuples(
            st.integers(1, 8),
            st.integers(0, 300),
            st.booleans(),
            st.sampled_from([1, 20, 48]),
            st.integers(0, len(DELAYS) - 1),
            st.sampled_from([0, 100, 400]),
            st.sampled_from([0, 100, 700, 2000, 2000]),
        ),
        max_size=12,
    ),
    shaped=st.booleans(),
    slo_ns=st.sampled_from([0, 200, 400]),
    is_levelled=st.booleans(),
)
def test_the_ring_follows_the_rule(
    plan: Plan, steps: list[tuple[int, int, bool, int, int, int, int]], shaped: bool, slo_ns: int, is_levelled: bool
) -> None:
    ring = make_ring(plan, shaped, slo_ns)
    ring.arena.newest_first = plan.newest_first
    cost = CostTable(plan.row_capacity)
    if slo_ns:
        cost.learn(1, 90, 3, 1, 0)
        cost_table.learn(ring.arena, 1, 90, 3, 1, 0)
    now_ns = 1000
    slabs: dict[int, Slab] = {}
    hint = -1
    for rows, elapsed_ns, executor_looks, length, level, patience_ns, timeout_ns in steps:
        now_ns += elapsed_ns
        level = level if is_levelled else 0
        capacity = min(plan.row_capacity, {1: 3, 20: 1, 48: 1}[length]) if shaped else plan.row_capacity
        rows = min(rows, capacity)
        claim = ring.claim(0, rows, [(length,)] if shaped else None, now_ns=now_ns, level=level)
        if not shaped and not is_levelled:
            place = where(
                list(slabs.values()), plan, rows, ring.free_slabs() + (claim is not None and not claim[1]), hint
            )
            assert place == (Full() if claim is None else Join(claim[0]) if claim[1] else Open())
            hint = claim[0] if claim is not None else hint
        if claim is not None:
            index, first_row, _, generation = claim
            stale_ns = now_ns + patience_ns if patience_ns else NEVER_NS
            ring.stale_after(index, stale_ns)
            deadline_ns = timeout_ns and now_ns + timeout_ns
            ring.publish(0, claim, now_ns, deadline_ns)
            if first_row == 0:
                slabs[index] = Slab(
                    index,
                    generation,
                    rows,
                    now_ns,
                    capacity=capacity,
                    level=level,
                    stale_ns=stale_ns,
                    delays=DELAYS[level],
                    deadline_ns=deadline_ns,
                    undated=not deadline_ns,
                )
            else:
                before = slabs[index]
                slabs[index] = before._replace(
                    rows=before.rows + rows,
                    stale_ns=max(before.stale_ns, stale_ns),
                    deadline_ns=min(filter(None, (before.deadline_ns, deadline_ns)), default=0),
                    undated=before.undated or not deadline_ns,
                )
        if not executor_looks:
            continue
        seen = [slab._replace(run_by_ns=run_by_ns(slab.opened_ns, slab.rows, cost, slo_ns)) for slab in slabs.values()]
        expected = decide(seen, plan, now_ns)
        sealed = ring.seal(0, now_ns)
        match expected:
            case Sleep():
                assert sealed is None
            case WaitUntil(at_ns):
                assert sealed == at_ns
            case RunSlab(index):
                assert sealed["slab"] == index
                assert sealed["row_count"] == slabs.pop(index).rows


def test_a_slab_left_behind_goes_first_whatever_the_delay() -> None:
    ring = make_ring(Plan(4, max_queue_delay_ns=1000))
    claim = ring.claim(0, 4, now_ns=0)
    ring.publish(0, claim)
    assert ring.seal(0, now_ns=0)["slab"] == claim[0]
    assert ring.recover_executor() == 1
    later = ring.claim(0, 4, now_ns=5)
    ring.publish(0, later)
    assert ring.seal(0, now_ns=5)["slab"] == claim[0]
    assert decide([Slab(1, 2, 4), Slab(0, 1, 1, 5, left_behind=True)], Plan(4, 1000), 5) == RunSlab(0)


def test_while_the_queue_stands_the_newest_goes_first_until_the_oldest_would_wait_too_long() -> None:
    ring = make_ring(Plan(2))
    ring.arena.newest_first = True
    slabs = []
    for deadline_ns in (900, 950, 980):
        claim = ring.claim(0, 2)
        assert claim is not None
        ring.publish(0, claim, 0, deadline_ns)
        slabs.append(claim[0])
    assert ring.seal(0, now_ns=500)["slab"] == slabs[2]
    # Its clients have given up: it only holds memory.
    assert ring.seal(0, now_ns=900)["slab"] == slabs[0]
