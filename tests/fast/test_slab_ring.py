"""The ring against its obvious model: tables of single transitions, then random operations."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from server._fast.layout import Arena
from server._fast.ring import Ring
from tests.reference import slab_ring as model

FP32 = 11
LANE_OFFSET_BYTES = 256
GENERATION_LIMIT = 1 << 30
STRESS = int(os.environ.get("HEADRACE_STRESS") or 0)


#: Room for the inputs of a shaped slab: three rows of up to 64 bytes, one of up to 192.
SHAPED_BYTES = 192
#: Dims of a row: those that the arenas in rows mode have, an empty one, such that fit twice and once.
SHAPES = [((2,),), ((3,),), ((0,),), ((20,),), ((40,),)]


def new_shaped_ring(
    slab_count: int = 3,
    row_capacity: int = 4,
    delay_ns: int = 0,
    preferred_rows: int = 0,
    levels: Levels | None = None,
) -> Ring:
    arena = Arena.create(
        inputs=[(FP32, 4, (-1, -1))],
        outputs=[(FP32, 4, (-1, 2))],
        rows_mode=False,
        shaped=True,
        row_capacity=row_capacity,
        slab_count=slab_count,
        owner_count=62,
        instance_count=4,
        input_bytes=SHAPED_BYTES,
        output_bytes=SHAPED_BYTES,
        max_queue_delay_ns=delay_ns,
        preferred_rows=preferred_rows,
        levels=levels,
    )
    return Ring(arena)


#: Slabs that a level may hold, most rows that wait, timeout, whether it delays, whether a shorter one counts.
Levels = list[tuple[int, int, int, bool, bool]]


def new_ring(
    slab_count: int = 3,
    row_capacity: int = 4,
    delay_ns: int = 0,
    preferred_rows: int = 0,
    levels: Levels | None = None,
    default_level: int = 1,
) -> Ring:
    arena = Arena.create(
        inputs=[(FP32, 4, (-1, 2))],
        outputs=[(FP32, 4, (-1, 2))],
        rows_mode=True,
        row_capacity=row_capacity,
        slab_count=slab_count,
        owner_count=62,
        instance_count=4,
        max_queue_delay_ns=delay_ns,
        preferred_rows=preferred_rows,
        levels=levels,
        default_level=default_level,
    )
    return Ring(arena)


def run_batch(ring: Ring, instance: int = 0, now_ns: int = 0) -> int:
    """Seals, takes and completes the slab that is due; returns the owners to wake."""
    batch = ring.take(instance, ring.seal(instance, now_ns), now_ns)
    take_alone(ring, batch)
    return ring.complete(instance, batch)


def take_alone(ring: Ring, batch: dict[str, int]) -> None:
    """Takes every row of a slab that an executor died with."""
    for row in range(batch["row_count"] if batch["attempts"] >= model.ALONE_ATTEMPTS else 0):
        ring.take_alone(batch, row)


def states(ring: Ring, claim: tuple[int, int, int, int]) -> list[int]:
    slab, first_row, row_count, _ = claim
    return [ring.row(slab, row)[0] for row in range(first_row, first_row + row_count)]


# What one owner's row can be when something happens to it, and how it is brought there.
def put(ring: Ring, state: int) -> SimpleNamespace:
    """A ring with one row of owner 7 in `state`; the batch that has it, if any."""
    claim = ring.claim(7)
    batch = None
    if state >= model.ROW_READY:
        ring.publish(7, claim, 0, 5 if state == model.ROW_FAILED else 0)
    if state >= model.ROW_RUNNING:
        batch = ring.take(0, ring.seal(0), 9 if state == model.ROW_FAILED else 0)
    if state in (model.ROW_DONE, model.ROW_FAILED):
        ring.complete(0, batch)
    assert states(ring, claim) == [state]
    return SimpleNamespace(claim=claim, batch=batch)


HELD = [model.ROW_FILLING, model.ROW_READY, model.ROW_RUNNING, model.ROW_DONE, model.ROW_FAILED]


@pytest.mark.parametrize("state", HELD)
def test_cancel_leaves_nothing_to_the_owner(state: int) -> None:
    ring = new_ring()
    at = put(ring, state)
    spared = ring.cancel(7, at.claim)
    assert spared == (state in (model.ROW_FILLING, model.ROW_READY))
    assert states(ring, at.claim) == [model.CANCEL[state]]
    if at.batch is None:
        assert run_batch(ring) == 0
    elif state == model.ROW_RUNNING:
        assert ring.complete(0, at.batch) == 0
    assert ring.free_slabs() == 3


@pytest.mark.parametrize("state", HELD)
def test_reaping_takes_every_row_of_the_dead(state: int) -> None:
    ring = new_ring()
    at = put(ring, state)
    assert ring.reap_owner(6) == 0
    assert ring.reap_owner(7) == 1
    assert states(ring, at.claim) == [model.ABANDON[state]]
    assert ring.reap_owner(7) == 0
    if at.batch is None:
        assert run_batch(ring) == 0
    elif state == model.ROW_RUNNING:
        assert ring.complete(0, at.batch) == 0
    assert ring.free_slabs() == 3


@pytest.mark.parametrize(
    ("state", "after", "answered"),
    [
        (model.ROW_FILLING, model.ROW_FILLING, False),
        (model.ROW_READY, model.ROW_READY, True),
        (model.ROW_RUNNING, model.ROW_READY, True),
        (model.ROW_DONE, model.ROW_DONE, False),
        (model.ROW_FAILED, model.ROW_FAILED, False),
    ],
)
def test_recovery_makes_unfinished_rows_due_again(state: int, after: int, answered: bool) -> None:
    ring = new_ring()
    at = put(ring, state)
    in_flight = state == model.ROW_RUNNING
    assert ring.recover_executor() == in_flight
    assert states(ring, at.claim) == [after]
    assert ring.slab(0)[4] == in_flight
    if answered:
        assert run_batch(ring) == 1 << 7
        assert ring.finished(7, at.claim) == 0
        assert ring.release(7, at.claim)
        assert ring.free_slabs() == 3


@pytest.mark.parametrize("given_up", [Ring.cancel, lambda ring, owner, claim: ring.reap_owner(owner)])
def test_recovery_does_not_run_a_row_again_that_its_owner_gave_up(given_up: Callable[..., int]) -> None:
    ring = new_ring()
    at = put(ring, model.ROW_RUNNING)
    given_up(ring, 7, at.claim)
    assert states(ring, at.claim) == [model.ROW_ORPHAN]
    ring.recover_executor()
    assert states(ring, at.claim) == [model.ROW_ABANDONED]
    batch = ring.take(0, ring.seal(0))
    assert batch["live_count"] == 0
    assert ring.complete(0, batch) == 0
    assert ring.free_slabs() == 3


def test_a_recovered_slab_goes_first_and_is_not_joined() -> None:
    ring = new_ring(delay_ns=1000, preferred_rows=4)
    first = ring.claim(1)
    ring.publish(1, first)
    ring.seal(0, 1000)
    assert ring.recover_executor() == 1
    second = ring.claim(2, now_ns=1000)
    assert second[0] != first[0]
    ring.publish(2, second)
    assert ring.seal(3, 1000)["slab"] == first[0]
    assert ring.slab(first[0])[:2] == (model.SEALED, 3)
    assert ring.seal(3, 1500) == 2000


def test_rows_finished_before_the_death_are_answered_once() -> None:
    ring = new_ring()
    claims = [ring.claim(owner) for owner in (1, 2, 3)]
    for owner, claim in zip((1, 2, 3), claims, strict=True):
        ring.publish(owner, claim)
    batch = ring.take(0, ring.seal(0))
    ring.finish_row(0, 0)
    assert ring.finished(1, claims[0]) == 0
    assert not ring.release(1, claims[0])
    ring.recover_executor()
    assert [ring.row(0, row)[0] for row in range(3)] == [model.ROW_FREE, model.ROW_READY, model.ROW_READY]
    batch = ring.take(2, ring.seal(2))
    assert (batch["live_count"], batch["attempts"]) == (2, 1)
    take_alone(ring, batch)
    assert ring.complete(2, batch) == 0b1100
    assert not ring.release(2, claims[1])
    assert ring.release(3, claims[2])


def test_the_guilty_row_fails_after_it_killed_two_executors_alone() -> None:
    ring = new_ring()
    claims = [ring.claim(owner) for owner in range(3)]
    for owner, claim in enumerate(claims):
        ring.publish(owner, claim)
    deaths = 0
    answered = None
    while answered is None:
        batch = ring.take(0, ring.seal(0))
        assert batch["attempts"] == deaths
        died = batch["attempts"] < model.ALONE_ATTEMPTS
        for row in range(batch["row_count"] if not died else 0):
            taken = ring.take_alone(batch, row)
            if taken == 1 and row == 1:
                died = True
                break
            if taken == 1:
                ring.finish_row(0, row)
        if died:
            deaths += 1
            ring.recover_executor()
        else:
            answered = ring.complete(0, batch)
    assert deaths == 3
    assert [ring.finished(owner, claim) for owner, claim in enumerate(claims)] == [0, model.FAILURE_POISON, 0]
    assert [ring.release(owner, claim) for owner, claim in enumerate(claims)] == [False, False, True]


def test_rows_past_their_deadline_fail_before_they_run() -> None:
    ring = new_ring()
    late, early, never = ring.claim(1), ring.claim(2), ring.claim(3)
    ring.publish(1, late, 0, 50)
    ring.publish(2, early, 0, 51)
    ring.publish(3, never, 0, 0)
    batch = ring.take(0, ring.seal(0, 50), 50)
    assert batch["live_count"] == 2
    assert ring.finished(1, late) == model.FAILURE_DEADLINE
    ring.finish_row(0, 1, 5)
    ring.complete(0, batch)
    assert (ring.finished(2, early), ring.finished(3, never)) == (5, 0)


def test_a_claim_of_several_rows_is_finished_when_all_are() -> None:
    ring = new_ring()
    claim = ring.claim(1, 3)
    ring.publish(1, claim)
    batch = ring.take(0, ring.seal(0))
    ring.finish_row(0, 0)
    ring.finish_row(0, 1, 5)
    assert ring.finished(1, claim) is None
    ring.complete(0, batch)
    assert ring.finished(1, claim) == 5


@pytest.mark.parametrize("row_count", [0, 5, 4096])
def test_a_claim_that_fits_no_slab_is_refused(row_count: int) -> None:
    with pytest.raises(ValueError, match=f"{row_count} rows: a slab holds 1 to 4"):
        new_ring().claim(0, row_count)


def test_full_ring_is_a_return_code_and_room_comes_back() -> None:
    ring = new_ring(slab_count=2, row_capacity=2)
    claims = [ring.claim(0) for _ in range(4)]
    assert [claim[:2] for claim in claims] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert ring.claim(0) is None
    assert not ring.has_room()
    for claim in claims[:2]:
        ring.publish(0, claim)
    assert run_batch(ring) == 1
    assert ring.claim(0) is None
    assert not ring.release(0, claims[0])
    assert ring.release(0, claims[1])
    assert ring.has_room()
    assert ring.claim(0)[:2] == (0, 0)


def test_rows_share_a_slab_with_rows_of_their_shape_only() -> None:
    ring = new_shaped_ring()
    assert ring.claim(0, shapes=[(1,)])[:2] == (0, 0)
    assert ring.claim(0, shapes=[(2,)])[:2] == (1, 0)
    assert ring.claim(0, shapes=[(1,)])[:2] == (0, 1)
    assert ring.claim(0, shapes=[(3,)])[:2] == (2, 0)
    assert ring.claim(0, shapes=[(4,)]) is None
    assert ring.arena.shape(1, 0) == (0, 8, (3, 2))


def test_equal_hashes_do_not_make_shapes_equal() -> None:
    ring = new_shaped_ring()
    assert ring.claim(0, shapes=[(5,)], signature=9)[:2] == (0, 0)
    assert ring.claim(0, shapes=[(6,)], signature=9)[:2] == (1, 0)
    assert ring.claim(0, shapes=[(5,)], signature=9)[:2] == (0, 1)
    assert ring.claim(0, shapes=[(5,)], signature=8)[:2] == (2, 0)


def test_shapes_of_every_input_count_and_lie_where_they_are_said_to() -> None:
    arena = Arena.create(
        inputs=[(FP32, 4, (-1, -1, 3)), (1, 1, (-1,)), (FP32, 4, (-1, 2, -1))],
        outputs=[(FP32, 4, (-1, 2))],
        rows_mode=False,
        shaped=True,
        row_capacity=8,
        slab_count=4,
        owner_count=1,
        instance_count=1,
        input_bytes=1024,
        output_bytes=64,
    )
    ring = Ring(arena)
    first = ring.claim(0, 2, shapes=[(5, 3), (), (2, 4)])
    # 60, 1 and 32 bytes a row, each row padded to 64: five rows fit.
    assert [arena.shape(0, tensor) for tensor in range(3)] == [
        (0, 60, (5, 5, 3)), (320, 1, (5,)), (384, 32, (5, 2, 4))
    ]  # fmt: skip
    assert ring.claim(0, 3, shapes=[(5, 3), (), (2, 4)])[:2] == (first[0], 2)
    assert ring.claim(0, shapes=[(5, 3), (), (2, 4)])[:2] == (1, 0)
    assert ring.claim(0, shapes=[(5, 3), (), (2, 5)])[:2] == (2, 0)
    assert ring.claim(0, shapes=[(4, 3), (), (2, 4)])[:2] == (3, 0)
    with pytest.raises(ValueError, match="6 rows: a slab holds 1 to 5"):
        ring.claim(0, 6, shapes=[(5, 3), (), (2, 4)])
    for too_large in ((300, 3), (1 << 62, 3), (1 << 40, 1 << 40)):
        with pytest.raises(ValueError, match="do not fit"):
            ring.claim(0, shapes=[too_large, (), (1, 1)])
    assert ring.claim(0, shapes=[(0, 3), (), (0, 1 << 62)]) is None


def test_rows_without_room_for_their_outputs_wait_until_the_others_are_read() -> None:
    ring = new_shaped_ring()
    claims = [ring.claim(owner, shapes=[(1,)]) for owner in (1, 2)]
    for owner, claim in zip((1, 2), claims, strict=True):
        ring.publish(owner, claim)
    batch = ring.take(0, ring.seal(0))
    ring.crowd(0)
    ring.put_back(0, 1)
    assert ring.complete(0, batch) == 1 << 1
    assert ring.slab(0)[:2] == (model.SEALED, model.ANY_INSTANCE)
    assert ring.seal(0) is None
    assert not ring.release(1, claims[0])
    batch = ring.take(0, ring.seal(0))
    assert (batch["live_count"], batch["attempts"]) == (1, 0)
    assert ring.complete(0, batch) == 1 << 2
    assert ring.release(2, claims[1])


def test_a_row_that_is_put_back_was_not_tried() -> None:
    ring = new_shaped_ring()
    ring.publish(1, ring.claim(1, shapes=[(1,)]))
    ring.take(0, ring.seal(0))
    ring.recover_executor()
    for _ in range(5):
        batch = ring.take(0, ring.seal(0))
        assert ring.take_alone(batch, 0) == 1
        ring.put_back(0, 0)
        assert ring.complete(0, batch) == 0
    assert ring.row(0, 0)[:3] == (model.ROW_READY, 1, 0)


def test_seal_waits_for_delay_or_preferred_rows() -> None:
    ring = new_ring(delay_ns=100, preferred_rows=2)
    ring.publish(1, ring.claim(1, now_ns=1000))
    assert ring.seal(0, 1099) == 1100
    assert ring.seal(0, 1100)["row_count"] == 1
    ring.publish(1, ring.claim(1, 2, now_ns=2000))
    assert ring.seal(0, 2000)["row_count"] == 2
    assert ring.seal(0, 2000) is None


def test_an_unpublished_row_holds_the_batch_until_its_owner_speaks_or_dies() -> None:
    ring = new_ring()
    ready, filling = ring.claim(1), ring.claim(2)
    ring.publish(1, ready)
    batch = ring.seal(0)
    assert ring.take(0, batch) is None
    assert ring.reap_owner(2) == 1
    batch = ring.take(0, batch)
    assert (batch["row_count"], batch["live_count"]) == (2, 1)
    assert states(ring, filling) == [model.ROW_ABANDONED]
    assert ring.complete(0, batch) == 1 << 1


def test_rows_that_are_there_need_not_wait_for_one_that_is_not() -> None:
    ring = new_ring()
    ready, filling = ring.claim(1), ring.claim(2)
    ring.publish(1, ready)
    batch = ring.take(0, ring.seal(0), partial=True)
    assert (batch["row_count"], batch["live_count"]) == (2, 1)
    assert states(ring, filling) == [model.ROW_FILLING]
    assert ring.complete(0, batch) == 1 << 1
    assert ring.finished(1, ready) == 0
    assert not ring.release(1, ready)
    # Nothing can run until the row is published, and nothing else is to do.
    assert ring.seal(0) is None
    ring.publish(2, filling)
    batch = ring.take(0, ring.seal(0))
    assert batch["live_count"] == 1
    assert ring.complete(0, batch) == 1 << 2
    assert ring.finished(2, filling) == 0
    assert ring.release(2, filling)


def test_rows_above_the_limit_are_left_for_a_later_pass_request_by_request() -> None:
    ring = new_ring(row_capacity=8)
    claims = [ring.claim(owner, rows) for owner, rows in ((1, 2), (2, 3), (3, 1), (4, 2))]
    for owner, claim in enumerate(claims, 1):
        ring.publish(owner, claim)
    passes = []
    while isinstance(batch := ring.seal(0), dict):
        batch = ring.take(0, {**batch, "row_limit": 4})
        rows = [row for row in range(8) if ring.row(0, row)[0] == model.ROW_RUNNING]
        assert batch["live_count"] == len(rows)
        passes.append((rows, ring.complete(0, batch)))
    # Owner 2 would make five rows of the first pass; owner 3 alone would fit, but not overtake.
    assert passes == [([0, 1], 0b10), ([2, 3, 4, 5], 0b1110), ([6, 7], 0b11110)]
    assert [ring.release(owner, claim) for owner, claim in enumerate(claims, 1)] == [False] * 3 + [True]


def test_a_request_of_more_rows_than_the_limit_runs_as_a_whole() -> None:
    ring = new_ring()
    claim = ring.claim(1, 4)
    ring.publish(1, claim)
    batch = ring.take(0, {**ring.seal(0), "row_limit": 2})
    assert batch["live_count"] == 4


def test_the_oldest_slab_goes_first_when_generations_wrap() -> None:
    ring = new_ring(slab_count=8, row_capacity=1)
    ring.arena.buffer(LANE_OFFSET_BYTES, 4)[:] = (GENERATION_LIMIT - 4).to_bytes(4, "little")
    claims = [ring.claim(0) for _ in range(8)]
    generations = [claim[3] for claim in claims]
    assert generations == [GENERATION_LIMIT - k for k in (3, 2, 1)] + [1, 2, 3, 4, 5]
    order = []
    for claim in claims:
        ring.publish(0, claim)
        order.append(ring.seal(0)["generation"])
    assert order == generations


def test_stale_claims_change_nothing() -> None:
    ring = new_ring()
    stale = ring.claim(1)
    ring.publish(1, stale)
    run_batch(ring)
    ring.release(1, stale)
    fresh = ring.claim(1)
    assert fresh[:3] == stale[:3]
    assert ring.cancel(1, stale) == 0
    ring.publish(1, stale)
    assert ring.cancel(2, fresh) == 0
    assert states(ring, fresh) == [model.ROW_FILLING]


def test_a_reserved_slab_is_nobody_elses_until_it_is_opened() -> None:
    ring = new_ring()
    reserved = ring.reserve(5)
    assert ring.seal(0) is None, "nothing is due"
    other = ring.claim(6)
    assert other[0] != reserved[0]
    assert run_batch_of(ring, other) == [6]
    claim = ring.open_reserved(5, reserved, 2)
    assert states(ring, claim) == [model.ROW_FILLING] * 2
    ring.publish(5, claim)
    joined = ring.claim(6)
    assert joined[0] == claim[0], "an opened slab is joined like any other"
    ring.publish(6, joined)
    assert run_batch(ring) == 1 << 5 | 1 << 6
    ring.give_up_reserved(5, reserved)
    assert ring.finished(5, claim) == 0, "what was opened is not given up"
    ring.release(5, claim)
    ring.release(6, joined)
    assert ring.free_slabs() == 3


def run_batch_of(ring: Ring, claim: tuple[int, int, int, int]) -> list[int]:
    """Runs and releases one published claim; the owners that were to be woken."""
    ring.publish(6, claim)
    owners = run_batch(ring)
    ring.release(6, claim)
    return [owner for owner in range(62) if owners >> owner & 1]


def test_slabs_are_reserved_while_half_of_them_is_free_and_nothing_waits() -> None:
    ring = new_ring(slab_count=4)
    first, second = ring.reserve(5), ring.reserve(5)
    third = ring.reserve(6)
    assert None not in (first, second, third)
    assert ring.reserve(6) is None, "three of four are taken"
    ring.give_up_reserved(5, first)
    ring.give_up_reserved(5, second)
    waiting = ring.claim(7)
    assert ring.reserve(5) is None, "a batch is in the making: better join it"
    ring.cancel(7, waiting)
    run_batch(ring)
    assert ring.reserve(5) is not None


def test_a_reserved_slab_of_the_dead_is_free_again() -> None:
    ring = new_ring()
    ring.reserve(5)
    ring.reserve(6)
    assert ring.free_slabs() == 1
    ring.reap_owner(5)
    assert ring.free_slabs() == 2


def test_pages_of_a_large_request_go_back_only_when_the_slab_is_opened_again() -> None:
    size_bytes = 2 << 20
    arena = Arena.create(
        inputs=[(FP32, 4, (-1, -1))],
        outputs=[(FP32, 4, (-1, -1))],
        rows_mode=False,
        row_capacity=1,
        slab_count=1,
        owner_count=1,
        instance_count=1,
        input_bytes=size_bytes,
        output_bytes=4096,
    )
    ring = Ring(arena)
    data = arena.slab_buffer(0)
    for used_bytes, left in [(size_bytes, 0), (4096, 0xAA)]:
        claim = ring.claim(0)
        data[:4096] = b"\xaa" * 4096
        arena.set_shape(0, 0, 0, used_bytes, (1, used_bytes // 4))
        arena.set_shape(0, 1, size_bytes, 4, (1, 1))
        ring.publish(0, claim)
        run_batch(ring)
        assert ring.release(0, claim)
        assert data[0] == 0xAA, "a slab that nobody owns must not be touched"
        claim = ring.claim(0)
        assert data[0] == left
        ring.cancel(0, claim)
        run_batch(ring)


class RingMachine(RuleBasedStateMachine):
    """Three workers and two instances do anything in any order; ring and model must agree after every step."""

    OWNERS = (0, 1, 61)
    INSTANCES = (0, 3)

    @initialize(
        slab_count=st.integers(1, 4),
        row_capacity=st.integers(1, 5),
        delay_ns=st.sampled_from([0, 0, 50]),
        preferred_rows=st.integers(0, 6),
        shaped=st.booleans(),
        all_hashes_equal=st.booleans(),
        level_slabs=st.sampled_from([(), (), (1, 3), (2, 2, 2)]),
        delays=st.booleans(),
    )
    def start(
        self,
        slab_count: int,
        row_capacity: int,
        delay_ns: int,
        preferred_rows: int,
        shaped: bool,
        all_hashes_equal: bool,
        level_slabs: tuple[int, ...],
        delays: bool,
    ) -> None:
        new = new_shaped_ring if shaped else new_ring
        self.shaped, self.all_hashes_equal = shaped, all_hashes_equal
        self.level_slabs, self.delays = level_slabs or (slab_count,), delays
        levels: Levels = [(slabs, 0, 0, delays, False) for slabs in self.level_slabs]
        self.ring = new(slab_count, row_capacity, delay_ns, preferred_rows, levels)
        self.model = model.SlabRing(
            slab_count, row_capacity, delay_ns, preferred_rows, SHAPED_BYTES, 4, level_slabs, delays
        )
        self.now_ns = 1
        self.filling: list[tuple[int, model.Claim]] = []
        self.waiting: list[tuple[int, model.Claim]] = []
        self.sealed: list[tuple[int, model.Batch]] = []
        self.running: list[tuple[int, model.Batch]] = []
        self.generations = [0] * slab_count

    @rule(
        owner=st.sampled_from(OWNERS),
        row_count=st.integers(1, 5),
        shape=st.sampled_from(SHAPES + SHAPES[:1] * 3),
        level=st.integers(0, 2),
        patience_ns=st.sampled_from([None, 0, 30]),
    )
    def claim(self, owner: int, row_count: int, shape: tuple[tuple[int]], level: int, patience_ns: int | None) -> None:
        shapes = shape if self.shaped else None
        signature = 1 if shapes and self.all_hashes_equal else None
        row_count = min(row_count, self.model.capacity(shapes))
        level %= len(self.level_slabs)
        claim = self.ring.claim(owner, row_count, shapes, self.now_ns, signature, level)
        assert claim == self.model.claim(owner, row_count, shapes, self.now_ns, level)
        if claim is not None:
            if self.delays or len(self.level_slabs) > 1:
                for ring in (self.ring, self.model):
                    ring.stale_after(claim[0], 0 if patience_ns is None else self.now_ns + patience_ns)
            self.filling.append((owner, claim))
            if shapes is not None:
                _, row_bytes, dims = self.ring.arena.shape(claim[0], 0)
                assert (row_bytes, dims) == (4 * shapes[0][0], (self.model.capacity(shapes), *shapes[0]))

    @precondition(lambda self: self.filling)
    @rule(pick=st.integers(0, 63), patience_ns=st.sampled_from([None, 0, 30]))
    def publish(self, pick: int, patience_ns: int | None) -> None:
        owner, claim = self.filling.pop(pick % len(self.filling))
        deadline_ns = 0 if patience_ns is None else self.now_ns + patience_ns
        self.ring.publish(owner, claim, self.now_ns, deadline_ns)
        self.model.publish(claim, deadline_ns)
        self.waiting.append((owner, claim))

    @precondition(lambda self: self.filling or self.waiting)
    @rule(pick=st.integers(0, 63))
    def cancel(self, pick: int) -> None:
        held = self.filling if pick % 2 and self.filling else self.waiting or self.filling
        owner, claim = held.pop(pick // 2 % len(held))
        assert self.ring.cancel(owner, claim) == self.model.cancel(claim)

    @precondition(lambda self: any(self.model.finished(claim) is not None for _, claim in self.waiting))
    @rule(pick=st.integers(0, 63))
    def release(self, pick: int) -> None:
        done = [held for held in self.waiting if self.model.finished(held[1]) is not None]
        owner, claim = done[pick % len(done)]
        self.waiting.remove((owner, claim))
        assert self.ring.release(owner, claim) == self.model.release(claim)

    @rule(instance=st.sampled_from(INSTANCES))
    def seal(self, instance: int) -> None:
        batch = self.ring.seal(instance, self.now_ns)
        assert batch == self.model.seal(instance, self.now_ns)
        if isinstance(batch, dict):
            self.sealed.append((instance, batch))

    @precondition(lambda self: self.sealed)
    @rule(pick=st.integers(0, 63), partial=st.booleans(), row_limit=st.sampled_from([0, 0, 1, 2, 3]))
    def take(self, pick: int, partial: bool = False, row_limit: int = 0) -> None:
        index = pick % len(self.sealed)
        instance, batch = self.sealed[index]
        batch["row_limit"] = row_limit
        taken = self.ring.take(instance, batch, self.now_ns, partial)
        assert taken == self.model.take(batch, self.now_ns, partial)
        if taken is not None:
            self.sealed.pop(index)
            self.running.append((instance, taken))

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 63), row=st.integers(0, 4))
    def take_alone(self, pick: int, row: int) -> None:
        _, batch = self.running[pick % len(self.running)]
        if batch["attempts"] >= model.ALONE_ATTEMPTS:
            row %= batch["row_count"]
            assert self.ring.take_alone(batch, row) == self.model.take_alone(batch, row)

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 63), row=st.integers(0, 4), code=st.sampled_from([0, 5, 200]))
    def finish_row(self, pick: int, row: int, code: int) -> None:
        _, batch = self.running[pick % len(self.running)]
        slab, row = batch["slab"], row % batch["row_count"]
        if batch["attempts"] < model.ALONE_ATTEMPTS or self.model.slabs[slab].rows[row].state != model.ROW_READY:
            self.ring.finish_row(slab, row, code)
            self.model.finish_row(slab, row, code)

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 63), row=st.integers(0, 4))
    def put_back(self, pick: int, row: int) -> None:
        _, batch = self.running[pick % len(self.running)]
        slab, row = batch["slab"], row % batch["row_count"]
        if self.shaped:
            for ring in (self.ring, self.model):
                ring.crowd(slab)
                ring.put_back(slab, row)

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 63))
    def complete(self, pick: int) -> None:
        self._complete(*self.running.pop(pick % len(self.running)))

    def _complete(self, instance: int, batch: model.Batch) -> None:
        for row in range(batch["row_count"] if batch["attempts"] >= model.ALONE_ATTEMPTS else 0):
            assert self.ring.take_alone(batch, row) == self.model.take_alone(batch, row)
        assert self.ring.complete(instance, batch) == self.model.complete(batch)

    @rule(owner=st.sampled_from(OWNERS))
    def worker_dies(self, owner: int) -> None:
        self.filling = [held for held in self.filling if held[0] != owner]
        self.waiting = [held for held in self.waiting if held[0] != owner]
        assert self.ring.reap_owner(owner) == self.model.reap_owner(owner)

    @rule()
    def executor_dies(self) -> None:
        self.sealed, self.running = [], []
        assert self.ring.recover_executor() == self.model.recover_executor()

    @rule(step_ns=st.integers(1, 60))
    def time_passes(self, step_ns: int) -> None:
        self.now_ns += step_ns

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "ring"):
            return
        ring, twin = self.ring, self.model
        assert ring.row_counts() == twin.row_counts()
        assert ring.free_slabs() == twin.free_slabs()
        assert ring.has_room() == twin.has_room()
        for index, slab in enumerate(twin.slabs):
            assert ring.slab(index) == twin.slab(index)
            assert slab.generation >= self.generations[index]
            self.generations[index] = slab.generation
            for row, expected in enumerate(slab.rows):
                seen = ring.row(index, row)
                assert seen == (expected.state, expected.owner, expected.attempts, expected.code, slab.generation)

    @invariant()
    def rows_have_one_owner(self) -> None:
        if not hasattr(self, "ring"):
            return
        held = set()
        for owner, (slab, first_row, row_count, generation) in self.filling + self.waiting:
            for row in range(first_row, first_row + row_count):
                assert (slab, row) not in held
                held.add((slab, row))
                state, row_owner, _, _, row_generation = self.ring.row(slab, row)
                assert (row_owner, row_generation) == (owner, generation)
                assert state in HELD
        for owner, claim in self.waiting:
            assert self.ring.finished(owner, claim) == self.model.finished(claim)

    def teardown(self) -> None:
        """Drains: everything published is answered, everything claimed comes back."""
        if not hasattr(self, "ring"):
            return
        while self.filling:
            self.publish(0, None)
        self.now_ns += 1000
        while self.sealed:
            self.take(0)
        while self.running:
            self.complete(0)
        while self._run_due() or self._release_finished():
            pass
        assert not self.waiting
        self.agree()
        assert self.ring.free_slabs() == len(self.model.slabs)

    def _run_due(self) -> bool:
        batch = self.ring.seal(0, self.now_ns)
        assert batch == self.model.seal(0, self.now_ns)
        if not isinstance(batch, dict):
            return False
        taken = self.ring.take(0, batch, self.now_ns)
        assert taken == self.model.take(batch, self.now_ns)
        self._complete(0, taken)
        return True

    def _release_finished(self) -> bool:
        finished = [held for held in self.waiting if self.ring.finished(*held) is not None]
        for owner, claim in finished:
            assert self.ring.release(owner, claim) == self.model.release(claim)
            self.waiting.remove((owner, claim))
        return bool(finished)


TestRing = RingMachine.TestCase
TestRing.settings = settings(
    max_examples=2000 * STRESS or 60,
    stateful_step_count=120 if STRESS else 50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
