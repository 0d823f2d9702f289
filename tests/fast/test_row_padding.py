"""Rows moved apart in place against numpy, and which slab padded rows claim against the rule in Python."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server._fast.layout import Arena
from server._fast.ring import Ring
from server._fast.row_padding import spread
from server.batching.padding import PaddedAxis, best, rounded
from tests.support.guard_page import GuardedMemory

FP32, INT64 = 11, 9
SIZES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=0, max_size=4)


@given(SIZES, st.integers(1, 4), st.sampled_from([1, 2, 4, 8]), st.binary(min_size=8, max_size=8), st.booleans())
def test_rows_get_their_padding(sizes: list[tuple[int, int]], rows: int, item: int, value: bytes, zero: bool) -> None:
    """Empty axes never grow."""
    old = [size for size, _ in sizes]
    new = [size + (more if all(old) else 0) for size, more in sizes]
    element = bytes(item) if zero else value[:item]
    numbers = np.arange(rows * math.prod(old), dtype=f"u{item}").reshape(rows, *old)
    expected = np.full((rows, *new), np.frombuffer(element, f"u{item}")[0], f"u{item}")
    expected[tuple(slice(size) for size in (rows, *old))] = numbers
    memory = bytearray(b"\xee" * expected.nbytes)
    memory[: numbers.nbytes] = numbers.tobytes()
    spread(memory, rows, old, new, element)
    assert bytes(memory) == expected.tobytes()


def test_nothing_is_touched_behind_the_last_row() -> None:
    guarded = GuardedMemory(4096)
    for place in (guarded.at_end, guarded.at_begin):
        with place(bytes(range(24)) + bytes(72 - 24)) as memory:
            spread(memory, 2, [3, 4], [6, 6], b"\xff")
            assert bytes(memory[30:36]) == b"\xff" * 6 and bytes(memory[36:42]) == bytes(range(12, 16)) + b"\xff" * 2
    guarded.close()


@pytest.mark.parametrize(
    ("old", "new", "size"), [([2], [1], 8), ([1], [2], 9), ([1, 1], [2], 8), ([1] * 8, [1] * 8, 4)]
)
def test_what_is_no_padding_is_refused(old: list[int], new: list[int], size: int) -> None:
    with pytest.raises(ValueError, match=r"cannot become|expected \d+ bytes"):
        spread(bytearray(size), 1, old, new, bytes(4))


def padded_arena(overhead: int, row_capacity: int = 4, slab_count: int = 6) -> Arena:
    """Two inputs whose first free axes go together."""
    value = bytes(8)
    arena = Arena.create(
        inputs=[(FP32, 4, (-1, -1)), (INT64, 8, (-1, -1, -1))], outputs=[(FP32, 4, (-1, -1))], rows_mode=False,
        shaped=True, row_capacity=row_capacity, slab_count=slab_count, owner_count=2, instance_count=1,
        input_bytes=1 << 16, output_bytes=1 << 16, pads=[(0, 1, 0, 8, 32, value), (1, 1, 0, 8, 32, value)],
    )  # fmt: skip
    arena.overhead_elements = overhead
    return arena


def test_near_lengths_share_a_slab_and_keep_their_own() -> None:
    arena = padded_arena(0)
    ring = Ring(arena)
    lengths = [9, 16, 12, 17]
    claims = [ring.claim(0, 1, [(length,), (length, 3)]) for length in lengths]
    assert [claim[:2] for claim in claims if claim] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert [arena.extents(claim[0], claim[1]) for claim in claims if claim] == [(length,) for length in lengths]
    assert arena.shape(0, 0)[2] == (4, 16) and arena.shape(0, 1)[2] == (4, 16, 3)
    with pytest.raises(ValueError, match="lengths of one group differ"):
        ring.claim(0, 1, [(9,), (10, 3)])


@pytest.mark.parametrize("seed", range(20))
def test_rows_join_the_slab_that_the_rule_names(seed: int) -> None:
    rng = random.Random(seed)
    overhead = rng.choice([0, 30, 200, 5000])
    arena = padded_arena(overhead)
    ring = Ring(arena)
    axes = [PaddedAxis(0, 1, 8, 32), PaddedAxis(1, 1, 8, 32)]
    #: slab -> its row shapes, and the rows that are taken.
    opened: dict[int, tuple[tuple[tuple[int, ...], ...], int]] = {}
    for _ in range(30):
        length, width, rows = rng.choice([0, 3, 8, 11, 20, 32, 33, 40]), rng.choice([1, 2]), rng.choice([1, 1, 2])
        own = (rounded(length, 8, 32),), (rounded(length, 8, 32), width)
        room = {slab: shapes for slab, (shapes, taken) in opened.items() if taken + rows <= 4}
        same = [slab for slab, shapes in room.items() if shapes == own]
        longer = list(room)
        index = best(own, list(room.values()), axes, rows, overhead)
        expected = same or ([longer[index]] if index is not None else [])
        claim = ring.claim(0, rows, [(length,), (length, width)])
        if claim is None:
            assert not expected and len(opened) == 6
            continue
        slab = claim[0]
        if expected:
            assert slab in expected
        else:
            assert slab not in opened
            opened[slab] = own, 0
        assert arena.extents(slab, claim[1]) == (length,)
        opened[slab] = opened[slab][0], opened[slab][1] + rows


def test_counts_of_elements() -> None:
    arena = padded_arena(7)
    assert arena.overhead_elements == 7 and arena.element_counts == (0, 0)
    arena.count_elements(3, 5)
    arena.count_elements(1, 1)
    assert arena.element_counts == (4, 6)
    plain = Arena.create(
        inputs=[(FP32, 4, (-1, 2))], outputs=[], rows_mode=True, row_capacity=1, slab_count=1, owner_count=1,
        instance_count=1,
    )  # fmt: skip
    assert (plain.overhead_elements, plain.element_counts) == (0, (0, 0))


@pytest.mark.parametrize("pads", [[(0, 1, 0, 8, 32, b"\0")] * 17])
def test_more_rules_than_there_is_room_for(pads: list[tuple[int, int, int, int, int, bytes]]) -> None:
    with pytest.raises(ValueError, match="17 rules of padding"):
        Arena.create(
            inputs=[(FP32, 4, (-1, -1))], outputs=[], rows_mode=False, shaped=True, row_capacity=1, slab_count=1,
            owner_count=1, instance_count=1, input_bytes=64, output_bytes=64, pads=pads,
        )  # fmt: skip
