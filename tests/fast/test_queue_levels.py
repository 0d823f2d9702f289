"""Priority levels in the ring: whose turn it is, who waits how long, what a level may hold; against Triton's rules."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server._fast.ring import Ring
from tests.fast.test_slab_ring import Levels, new_ring, run_batch
from tests.reference.slab_ring import Claim
from tests.reference.triton_queue import Policy, TritonQueue

PLAIN = (9, 0, 0, False, False)
CENTURY_US = 3155760000000000


def put(ring: Ring, level: int, row_count: int = 1) -> Claim:
    claim = ring.claim(0, row_count, level=level)
    assert claim is not None
    ring.publish(0, claim)
    return claim


def order(ring: Ring, now_ns: int = 0) -> list[int]:
    """Slabs in the order in which they run."""
    found = []
    while isinstance(batch := ring.seal(0, now_ns), dict):
        found.append(batch["slab"])
        taken = ring.take(0, batch, now_ns)
        assert taken is not None
        ring.complete(0, taken)
    return found


@pytest.mark.parametrize(
    ("levels", "default", "priority", "level"),
    [(3, 2, 1, 0), (3, 2, 3, 2), (3, 2, 0, 1), (3, 2, 4, 1), (3, 1, 2**64 - 1, 0), (1, 1, 1, 0), (1, 1, 7, 0)],
)
def test_a_priority_that_is_no_level_is_the_default(levels: int, default: int, priority: int, level: int) -> None:
    assert new_ring(levels=[PLAIN] * levels, default_level=default).level_of(priority) == level


@pytest.mark.parametrize(
    ("default_us", "override", "timeout_us", "waits_us"),
    [
        (0, False, 0, 0),
        (0, False, 5, 5),
        (0, True, 5, 5),
        (9, False, 0, 9),
        (9, False, 5, 9),
        (9, True, 5, 5),
        (9, True, 12, 9),
        (0, False, CENTURY_US, 0),
        (0, False, CENTURY_US - 1, CENTURY_US // 2),
        (CENTURY_US // 3, True, 7, 7),
    ],
)
@pytest.mark.parametrize("delays", [False, True])
def test_timeouts(default_us: int, override: bool, timeout_us: int, waits_us: int, delays: bool) -> None:
    ring = new_ring(levels=[(3, 0, default_us * 1000, delays, override)])
    at_ns = 100 + waits_us * 1000 if waits_us else 0
    assert ring.level_times(0, timeout_us, 100) == ((0, at_ns) if delays else (at_ns, 0))


def test_lower_numbers_run_first_and_equal_ones_in_their_order() -> None:
    ring = new_ring(9, 1, levels=[PLAIN] * 3)
    claims = [put(ring, level) for level in (2, 1, 2, 0, 1, 0)]
    assert [slab for slab, *_ in claims] == [0, 1, 2, 3, 4, 5]
    assert order(ring) == [3, 5, 1, 4, 0, 2]


def test_levels_share_no_batch() -> None:
    ring = new_ring(9, 4, levels=[PLAIN] * 2)
    assert [put(ring, level)[0] for level in (0, 1, 0, 1, 0)] == [0, 1, 0, 1, 0]
    assert ring.seal(0)["row_count"] == 3


def test_a_higher_level_that_comes_later_passes_a_slab_that_was_left_behind() -> None:
    ring = new_ring(9, 1, levels=[PLAIN] * 2)
    low = put(ring, 1)
    ring.seal(0)
    assert ring.recover_executor() == 1
    high = put(ring, 0)
    assert order(ring) == [high[0], low[0]]


def test_a_flood_of_one_level_leaves_the_others_their_slabs() -> None:
    ring = new_ring(5, 2, levels=[(2, 0, 0, False, False), (3, 0, 0, False, False)])
    while ring.claim(0, level=1):
        pass
    assert ring.free_slabs() == 2 and ring.has_room()
    assert [ring.claim(1, 2, level=0) is not None for _ in range(3)] == [True, True, False]
    assert not ring.has_room()


def test_so_many_rows_of_a_level_wait_and_those_that_run_do_not_count() -> None:
    ring = new_ring(8, 4, levels=[(4, 3, 0, False, False), (4, 0, 0, False, False)])
    put(ring, 1, 4)
    put(ring, 0, 2)
    assert not ring.level_is_full(0)
    put(ring, 0)
    assert ring.level_is_full(0) and not ring.level_is_full(1)
    assert ring.seal(0)["row_count"] == 3
    assert not ring.level_is_full(0)
    ring.recover_executor()
    assert ring.level_is_full(0)


def test_a_bounded_queue_without_levels_is_refused_from_the_head() -> None:
    ring = new_ring(8, 4, levels=[(8, 2, 0, False, False)])
    assert ring.has_room()
    put(ring, 0, 2)
    assert not ring.has_room()
    run_batch(ring)
    assert ring.has_room()


def test_a_batch_is_late_when_all_of_its_rows_are() -> None:
    ring = new_ring(9, 2, levels=[(9, 0, 0, True, False)])
    mixed, late, fresh, patient = ([put(ring, 0), put(ring, 0)] for _ in range(4))
    for claims, stale_ns in ((mixed, (10, 90)), (late, (20, 10)), (fresh, (80, 70)), (patient, (10, 0))):
        for claim, at_ns in zip(claims, stale_ns, strict=True):
            ring.stale_after(claim[0], at_ns)
    assert order(ring, 20) == [mixed[0][0], fresh[0][0], patient[0][0], late[0][0]]


def test_late_requests_of_a_higher_level_still_go_before_a_lower_one() -> None:
    ring = new_ring(9, 1, levels=[(9, 0, 0, True, False)] * 2)
    low, late, fresh = put(ring, 1), put(ring, 0), put(ring, 0)
    for claim, at_ns in ((low, 0), (late, 10), (fresh, 0)):
        ring.stale_after(claim[0], at_ns)
    assert order(ring, 20) == [fresh[0], late[0], low[0]]


def test_late_requests_that_are_refused_do_not_wait_for_higher_levels() -> None:
    ring = new_ring(9, 1, levels=[(9, 0, 0, False, False)] * 2)
    high, late, low = put(ring, 0), put(ring, 1), put(ring, 1)
    for claim, at_ns in ((high, 0), (late, 10), (low, 30)):
        ring.stale_after(claim[0], at_ns)
    assert order(ring, 20) == [late[0], high[0], low[0]]


POLICIES = st.builds(
    Policy,
    max_size=st.sampled_from([0, 0, 1, 3]),
    timeout=st.sampled_from([0, 50, 200]),
    delays=st.booleans(),
    allow_override=st.booleans(),
)
ENQUEUE = st.tuples(st.just("put"), st.integers(0, 5), st.sampled_from([0, 30, 100, 400]))
DEQUEUE = st.tuples(st.just("take"), st.just(0), st.just(0))


@settings(max_examples=400, deadline=None)
@given(
    policies=st.lists(POLICIES, min_size=1, max_size=4),
    default=st.integers(1, 4),
    steps=st.lists(st.tuples(st.one_of(ENQUEUE, DEQUEUE), st.integers(0, 60)), max_size=40),
)
@example(  # the second is late before the first
    policies=[Policy(timeout=200, delays=True, allow_override=True)],
    default=1,
    steps=[(("put", 0, 0), 0), (("put", 0, 30), 60), (("put", 0, 0), 0), (("take", 0, 0), 60), (("put", 0, 0), 30)]
    + [(("take", 0, 0), 60)] * 3,
)
@example(  # a late one behind one that is not, and no other level
    policies=[Policy(timeout=50, allow_override=True)],
    default=1,
    steps=[(("put", 0, 0), 0), (("put", 0, 30), 0), (("take", 0, 0), 30)],
)
def test_requests_are_served_in_tritons_order(
    policies: list[Policy], default: int, steps: list[tuple[tuple[str, int, int], int]]
) -> None:
    """One request in a batch. A request's own timeout is left out where the level has none: here it counts."""
    default = min(default, len(policies))
    triton = TritonQueue(policies, default)
    levels: Levels = [
        (50, policy.max_size, policy.timeout * 1000, policy.delays, policy.allow_override) for policy in policies
    ]
    ring = new_ring(len(levels) * 50, 1, levels=levels, default_level=default)
    # Off the grid of timeouts: whether a request is late in the very instant is nobody's business.
    now_ns, names, rejected = 1000, {}, []

    def take() -> int | None:
        while isinstance(batch := ring.seal(0, now_ns), dict):
            taken = ring.take(0, batch, now_ns)
            assert taken is not None
            name, claim = names.pop(taken["slab"])
            ring.complete(0, taken)
            assert ring.release(0, claim)
            if taken["live_count"]:
                return name
            rejected.append(name)
        return None

    for name, ((what, priority, timeout), elapsed) in enumerate(steps):
        now_ns += elapsed * 1000 + 1
        if what == "take":
            assert take() == triton.dequeue(now_ns / 1000)
            assert sorted(rejected) == sorted(triton.rejected)
            continue
        level = ring.level_of(priority)
        assert level == triton.level_of(priority) - 1
        timeout = timeout if policies[level].timeout else 0
        accepted = triton.enqueue(name, priority, timeout, now_ns / 1000)
        assert accepted == (not ring.level_is_full(level))
        if accepted:
            claim = ring.claim(0, level=level)
            assert claim is not None
            names[claim[0]] = name, claim
            deadline_ns, stale_ns = ring.level_times(level, timeout, now_ns)
            ring.stale_after(claim[0], stale_ns or deadline_ns)
            ring.publish(0, claim, 0, deadline_ns)
