"""Batches of padded rows, on a puppet of a model: how long they run, what is cut off, what cannot be."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
import pytest

from server._fast.lane_executor import LaneExecutor
from server._fast.layout import Arena, Control
from server._fast.ring import Ring
from server._fast.row_padding import spread
from server.executor.backend import ModelError, ProducedTensor, Run, TensorBuffer
from server.executor.padded_runner import padded_runner
from server.executor.runner import TensorSpec
from server.models.shape_rules import Cut, Pad, Padding
from tests.fast.test_shaped_runner import FewBatches

UINT8 = 2
MODEL_FAILED = 5
MULTIPLE, LONGEST = 4, 16
Claim = tuple[int, int, int, int]
Dims = tuple[int, ...]
PADDED = b"\xaa"


class Puppet:
    """Gives every step twice (`steps`), and how many steps are no padding (`count`)."""

    device = "cpu"

    def __init__(self) -> None:
        self.ran: list[Dims] = []
        self.factor = 2

    def prepare(self, inputs: Sequence[TensorBuffer], outputs: Sequence[TensorBuffer]) -> Run:
        raise AssertionError("nothing is bound beforehand")

    def run(self, inputs: Sequence[TensorBuffer], output_names: Sequence[str]) -> list[ProducedTensor]:
        (tensor,) = inputs
        self.ran.append(tensor.dims)
        data = ctypes.string_at(tensor.address, math.prod(tensor.dims))
        rows = np.frombuffer(data, np.uint8).reshape(tensor.dims)
        if (rows == 99).any():
            raise ModelError("99 is not in the table")
        made = [np.repeat(rows, self.factor, axis=1), (rows != PADDED[0]).sum(axis=(1, 2), dtype=np.uint8)]
        made = [np.ascontiguousarray(one) for one in made]
        return [ProducedTensor(one.shape, one.ctypes.data, one.nbytes, one) for one in made]


class Lane:
    """A lane whose worker is the test: `x` UINT8 [-1, steps, 2] -> `steps` [-1, 2 * steps, 2], `count` [-1]."""

    def __init__(self, bell: int, output_bytes: int, may_be_exact: bool) -> None:
        self.padding = Padding((Pad(0, 1, 0, MULTIPLE, LONGEST, PADDED, may_be_exact),), (Cut(0, 1, 0, 2, 1),))
        self.arena = Arena.create(
            inputs=[(UINT8, 1, (-1, -1, 2))], outputs=[(UINT8, 1, (-1, -1, 2)), (UINT8, 1, (-1,))], rows_mode=False,
            shaped=True, row_capacity=8, slab_count=3, owner_count=1, instance_count=1, input_bytes=1024,
            output_bytes=output_bytes, pads=[pad[:6] for pad in self.padding.pads],
        )  # fmt: skip
        self.ring = Ring(self.arena)
        self.bell = bell
        self.puppet = Puppet()
        self.control = Control.create(1, 0)

    def ask(self, *lengths: int, value: int = 0) -> Claim:
        """A request with as many rows, of equal length: row i has the value `value` + i."""
        (length,) = set(lengths)
        claim = self.ring.claim(0, len(lengths), [(length, 2)])
        assert claim is not None
        slab, first_row, row_count, _ = claim
        offset, row_bytes, dims = self.arena.shape(slab, 0)
        at = offset + first_row * row_bytes
        memory = self.arena.slab_buffer(slab)[at : at + row_count * row_bytes]
        given = b"".join(bytes([value + row]) * (2 * length) for row in range(row_count))
        memory[: len(given)] = given
        spread(memory, row_count, [length, 2], dims[1:], PADDED)
        self.ring.publish(0, claim)
        return claim

    def run(self, batches: int = 1) -> None:
        names = [TensorSpec(name, UINT8, dims) for name, dims in (("steps", (-1, -1, 2)), ("count", (-1,)))]
        executor = FewBatches(LaneExecutor(self.arena, self.control, 0, self.bell, [self.bell]), batches)
        runner = padded_runner(self.padding)
        inputs = [TensorSpec("x", UINT8, (-1, -1, 2))]
        runner(cast(LaneExecutor, executor), self.arena, self.puppet, inputs, names).serve()

    def answer(self, claim: Claim) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] | int | None:
        """The outputs of a finished request, its failure code, or None; finished rows are released."""
        slab, first_row, row_count, _ = claim
        code = self.ring.finished(0, claim)
        if code is None or code:
            return code
        data = self.arena.slab_buffer(slab)
        found = []
        for output in range(2):
            rows = [self.arena.output(slab, row, output) for row in range(first_row, first_row + row_count)]
            (dims,) = {row[2][1:] for row in rows}
            content = b"".join(bytes(data[at : at + size]) for at, size, _, _ in rows)
            found.append(np.frombuffer(content, np.uint8).reshape(row_count, *dims))
        self.ring.release(0, claim)
        return found

    def check(self, claim: Claim, length: int, value: int = 0) -> None:
        found = self.answer(claim)
        assert isinstance(found, list)
        rows = claim[2]
        np.testing.assert_array_equal(
            found[0], np.arange(value, value + rows)[:, None, None] * np.ones((1, 2 * length, 2), int)
        )
        assert found[1].tolist() == [2 * length] * rows


@pytest.fixture
def lane() -> Iterator[Callable[..., Lane]]:
    bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def new(output_bytes: int = 4096, may_be_exact: bool = True) -> Lane:
        return Lane(bell, output_bytes, may_be_exact)

    yield new
    os.close(bell)


def test_lengths_of_one_bucket_run_together_and_get_their_own_back(lane: Callable[..., Lane]) -> None:
    here = lane()
    here.arena.overhead_elements = 1000
    requests = [(5, 1), (8, 2), (6, 1), (5, 1)]
    claims = [here.ask(*[length] * rows, value=number) for number, (length, rows) in enumerate(requests)]
    here.run()
    for number, (claim, (length, _)) in enumerate(zip(claims, requests, strict=True)):
        here.check(claim, length, value=number)
    # One row by itself, which shows that outputs follow the batch axis, then all.
    assert here.puppet.ran == [(1, 8, 2), (5, 8, 2)]
    assert here.arena.element_counts == (2 * (5 + 2 * 8 + 6 + 5), 2 * 5 * 8)
    assert here.ring.free_slabs() == 3


@pytest.mark.parametrize(("may_be_exact", "length"), [(True, 5), (False, 8)])
def test_what_is_equally_long_runs_as_it_came(lane: Callable[..., Lane], may_be_exact: bool, length: int) -> None:
    here = lane(may_be_exact=may_be_exact)
    for rows in (1, 2):
        claim = here.ask(*[5] * rows, value=3)
        here.run()
        here.check(claim, 5, value=3)
    assert set(here.puppet.ran) == {(1, length, 2), (2, length, 2)}
    claims = [here.ask(5, value=number) for number in range(3)]
    here.run()
    for number, claim in enumerate(claims):
        here.check(claim, 5, value=number)
    assert here.puppet.ran[-1] == (3, length, 2)


def test_a_slab_for_longer_rows_is_no_reason_to_run_long(lane: Callable[..., Lane]) -> None:
    here = lane()
    here.arena.overhead_elements = 1000
    gone = here.ask(16)
    claims = [here.ask(3), here.ask(4), here.ask(7)]
    assert {claim[0] for claim in claims} == {gone[0]}
    here.ring.cancel(0, gone)
    here.run()
    for claim, length in zip(claims, (3, 4, 7), strict=True):
        here.check(claim, length)
    assert here.puppet.ran[-1] == (3, 7, 2)


def test_rows_are_padded_where_a_run_more_would_cost_more(lane: Callable[..., Lane]) -> None:
    """Twice as many elements as steps: with 6 elements a run, a row goes up by two steps but not by three."""
    here = lane()
    here.arena.overhead_elements = 6
    claims = [here.ask(length, value=number) for number, length in enumerate([5, 12, 7, 9])]
    assert [claim[0] for claim in claims] == [0, 1, 0, 1]
    here.run(2)
    for number, (claim, length) in enumerate(zip(claims, [5, 12, 7, 9], strict=True)):
        here.check(claim, length, value=number)
    assert here.puppet.ran == [(1, 7, 2), (2, 7, 2), (1, 9, 2), (1, 12, 2)]
    here.puppet.ran.clear()
    here.arena.overhead_elements = 3
    claims = [here.ask(length) for length in (5, 8, 7)]
    here.run()
    assert here.puppet.ran == [(1, 5, 2), (1, 8, 2), (2, 8, 2)]


def test_requests_given_up_leave_gaps(lane: Callable[..., Lane]) -> None:
    here = lane()
    claims = [here.ask(length, value=number) for number, length in enumerate([5, 8, 6, 7, 6])]
    for gone in (1, 3):
        here.ring.cancel(0, claims[gone])
    here.run()
    for kept, length in ((0, 5), (2, 6), (4, 6)):
        here.check(claims[kept], length, value=kept)


def test_longer_rows_than_any_bucket_share_with_their_equals(lane: Callable[..., Lane]) -> None:
    here = lane()
    claims = [here.ask(17), here.ask(17, value=1), here.ask(18)]
    assert [claim[0] for claim in claims] == [0, 0, 1]
    here.run(2)
    for claim, length, value in zip(claims, (17, 17, 18), (0, 1, 0), strict=True):
        here.check(claim, length, value=value)
    assert here.puppet.ran == [(1, 17, 2), (2, 17, 2), (1, 18, 2)]


def test_empty_rows_are_not_padded(lane: Callable[..., Lane]) -> None:
    here = lane()
    claims = [here.ask(0), here.ask(0)]
    here.run()
    for claim in claims:
        here.check(claim, 0)


def test_only_the_refused_request_fails(lane: Callable[..., Lane]) -> None:
    here = lane()
    claims = [here.ask(5), here.ask(6, value=99), here.ask(7, value=2), here.ask(8, 8, value=98)]
    here.run()
    here.check(claims[0], 5)
    here.check(claims[2], 7, value=2)
    assert [here.answer(claims[bad]) for bad in (1, 3)] == [MODEL_FAILED] * 2


def test_outputs_wait_until_there_is_room(lane: Callable[..., Lane]) -> None:
    """Three padded rows fit at a time, cut they take less."""
    here = lane(output_bytes=192)
    claims = [here.ask(5 + number % 3, value=number) for number in range(5)]
    for _ in range(5):
        here.run()
        done = [claim for claim in claims if here.ring.finished(0, claim) is not None]
        for claim in done:
            number = claim[1]
            here.check(claim, 5 + number % 3, value=number)
        claims = [claim for claim in claims if claim not in done]
        if not claims:
            break
    assert not claims and here.ring.free_slabs() == 3


def test_an_output_of_another_length_than_the_configuration_says_is_refused(lane: Callable[..., Lane]) -> None:
    here = lane()
    here.puppet.factor = 3
    claims = [here.ask(5), here.ask(6)]
    here.run()
    assert [here.answer(claim) for claim in claims] == [MODEL_FAILED] * 2


def test_a_slab_that_an_executor_died_with_is_run_row_by_row(lane: Callable[..., Lane]) -> None:
    here = lane()
    claims = [here.ask(5), here.ask(6, 6, value=7)]
    assert here.ring.take(0, here.ring.seal(0), 0) is not None
    here.ring.recover_executor()
    here.run()
    here.check(claims[0], 5)
    here.check(claims[1], 6, value=7)
    assert set(here.puppet.ran) == {(1, 5, 2), (1, 6, 2)}
