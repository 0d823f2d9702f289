"""Batches of rows of equal shape, on a puppet of a model: what runs together, what is answered, what finds no room."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest

from server._fast.lane_executor import LaneExecutor
from server._fast.layout import Arena, Control
from server._fast.ring import Ring
from server.executor.backend import ModelError, ProducedTensor, Run, TensorBuffer
from server.executor.runner import TensorSpec
from server.executor.shaped_runner import ShapedRunner, try_rows

UINT8 = 2
MODEL_FAILED = 5
Claim = tuple[int, int, int, int]
Dims = tuple[int, ...]
#: What a model makes of an input's dims and bytes.
Rule = Callable[[Dims, bytes], tuple[Dims, bytes]]


def echo(dims: Dims, data: bytes) -> tuple[Dims, bytes]:
    return dims, data


def time_first(dims: Dims, data: bytes) -> tuple[Dims, bytes]:
    rows, steps = dims
    return (steps, rows), bytes(data[row * steps + step] for step in range(steps) for row in range(rows))


def flat(dims: Dims, data: bytes) -> tuple[Dims, bytes]:
    return (math.prod(dims),), data


def as_long_as_the_largest(dims: Dims, data: bytes) -> tuple[Dims, bytes]:
    """A row's size depends on the values of its neighbours."""
    longest = max(data, default=0)
    return (dims[0], longest), bytes(dims[0] * longest)


def refuses_99(dims: Dims, data: bytes) -> tuple[Dims, bytes]:
    if 99 in data:
        raise ModelError("99 is not in the table")
    return dims, data


def tenfold(dims: Dims, data: bytes) -> tuple[Dims, bytes]:
    return (dims[0], dims[1] * 10), bytes(value for value in data for _ in range(10))


class Puppet:
    """A Backend that keeps the dims it was run with."""

    device = "cpu"

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.ran: list[Dims] = []

    def prepare(self, inputs: Sequence[TensorBuffer], outputs: Sequence[TensorBuffer]) -> Run:
        raise AssertionError("nothing is bound beforehand")

    def run(self, inputs: Sequence[TensorBuffer], output_names: Sequence[str]) -> list[ProducedTensor]:
        (tensor,) = inputs
        self.ran.append(tensor.dims)
        dims, data = self.rule(tensor.dims, ctypes.string_at(tensor.address, math.prod(tensor.dims)))
        memory = ctypes.create_string_buffer(data, max(len(data), 1))
        return [ProducedTensor(dims, ctypes.addressof(memory), len(data), memory)]


class Lane:
    """A lane whose worker is the test and whose model is a puppet."""

    def __init__(self, rule: Rule, bell: int, input_bytes: int, output_bytes: int) -> None:
        self.arena = Arena.create(
            inputs=[(UINT8, 1, (-1, -1))], outputs=[(UINT8, 1, (-1, -1))], rows_mode=False, shaped=True,
            row_capacity=8, slab_count=3, owner_count=1, instance_count=1, input_bytes=input_bytes,
            output_bytes=output_bytes,
        )  # fmt: skip
        self.ring = Ring(self.arena)
        self.bell = bell
        self.puppet = Puppet(rule)
        self.control = Control.create(1, 0)

    def ask(self, *rows: bytes) -> Claim:
        """A request with these rows, published."""
        claim = self.ring.claim(0, len(rows), [(len(rows[0]),)])
        assert claim is not None
        slab, first_row, _, _ = claim
        offset, row_bytes, _ = self.arena.shape(slab, 0)
        data = self.arena.slab_buffer(slab)
        for row, content in enumerate(rows, start=first_row):
            data[offset + row * row_bytes : offset + (row + 1) * row_bytes] = content
        self.ring.publish(0, claim)
        return claim

    def run(self, batches: int = 1) -> None:
        """An executor's life of so many batches; the next one begins with what it left."""
        spec = [TensorSpec("t", UINT8, (-1, -1))]
        executor = FewBatches(LaneExecutor(self.arena, self.control, 0, self.bell, [self.bell]), batches)
        ShapedRunner(cast(LaneExecutor, executor), self.arena, self.puppet, spec, spec).serve()

    def answer(self, claim: Claim) -> tuple[Dims, bytes] | int | None:
        """The dims and bytes of a finished request's output, its failure code, or None; finished rows are released."""
        slab, first_row, row_count, _ = claim
        code = self.ring.finished(0, claim)
        if code is None or code:
            return code
        data = self.arena.slab_buffer(slab)
        outputs = [self.arena.output(slab, row, 0) for row in range(first_row, first_row + row_count)]
        offset, size, dims, is_whole = outputs[0]
        if is_whole:
            found = dims, bytes(data[offset : offset + size])
        else:
            assert {(one[1], one[2][1:], one[3]) for one in outputs} == {(size, dims[1:], False)}
            found = (row_count, *dims[1:]), b"".join(bytes(data[at : at + size]) for at, *_ in outputs)
        self.ring.release(0, claim)
        return found


class FewBatches:
    """A LaneExecutor that shuts down after some batches."""

    def __init__(self, executor: LaneExecutor, batches: int) -> None:
        self._executor = executor
        self._left = batches

    def next_batch(self) -> tuple[int, int, int, int] | None:
        self._left -= 1
        return self._executor.next_batch() if self._left >= 0 else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)


@pytest.fixture
def bell() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


@pytest.fixture
def lane(bell: int) -> Callable[..., Lane]:
    def new(rule: Rule, input_bytes: int = 1024, output_bytes: int = 1024) -> Lane:
        return Lane(rule, bell, input_bytes, output_bytes)

    return new


def test_rows_of_equal_shape_run_together_once_one_of_them_has_run_alone(lane: Callable[..., Lane]) -> None:
    here = lane(echo)
    rows = [b"abcd", b"ef", b"ghij", b"kl", b"mnop"]
    for _ in range(2):
        claims = [here.ask(row) for row in rows]
        here.run(2)
        assert [here.answer(claim) for claim in claims] == [((1, len(row)), row) for row in rows]
    # A new executor knows nothing of what the last one saw.
    assert here.puppet.ran == [(1, 4), (3, 4), (1, 2), (2, 2)] * 2
    assert not here.arena.apart
    assert here.ring.free_slabs() == 3


def test_one_executor_asks_once_for_each_shape(lane: Callable[..., Lane]) -> None:
    here = lane(echo)
    more = [b"ab", b"cd"]

    def asks_more(dims: Dims, data: bytes) -> tuple[Dims, bytes]:
        if dims == (2, 2) and more:
            here.ask(more.pop())
            here.ask(more.pop())
        return dims, data

    here.puppet.rule = asks_more
    claims = [here.ask(b"xy"), here.ask(b"z1")]
    here.run(2)
    assert here.answer(claims[0]) == ((1, 2), b"xy")
    assert here.puppet.ran == [(1, 2), (2, 2), (2, 2)]


@pytest.mark.parametrize("rule", [time_first, flat, as_long_as_the_largest])
def test_outputs_that_do_not_follow_the_batch_axis_are_those_of_each_request(
    lane: Callable[..., Lane], rule: Rule
) -> None:
    """With time first there are as many steps here as rows: the number of rows alone would prove nothing."""
    here = lane(rule)
    requests = [[b"\1\2"], [b"\5\0"], [b"\3\3", b"\1\7"]]
    for _ in range(2):
        claims = [here.ask(*rows) for rows in requests]
        here.run()
        assert [here.answer(claim) for claim in claims] == [rule((len(rows), 2), b"".join(rows)) for rows in requests]
        assert here.arena.apart


def test_only_the_refused_request_fails(lane: Callable[..., Lane]) -> None:
    here = lane(refuses_99)
    requests = [[b"\1"], [b"\2", b"\x63"], [b"\3"], [b"\x63"], [b"\4", b"\5"]]
    claims = [here.ask(*rows) for rows in requests]
    here.run()
    assert [here.answer(claim) for claim in claims] == [
        MODEL_FAILED if b"\x63" in rows else ((len(rows), 1), b"".join(rows)) for rows in requests
    ]
    assert not here.arena.apart


def test_requests_given_up_leave_gaps(lane: Callable[..., Lane]) -> None:
    here = lane(echo)
    requests = [[b"ab"], [b"cd", b"ef"], [b"gh"], [b"ij"], [b"kl", b"mn"]]
    claims = [here.ask(*rows) for rows in requests]
    for gone in (1, 3):
        here.ring.cancel(0, claims[gone])
    here.run()
    for kept in (0, 2, 4):
        assert here.answer(claims[kept]) == ((len(requests[kept]), 2), b"".join(requests[kept]))
    assert here.puppet.ran[-1] == (4, 2)
    assert here.ring.free_slabs() == 3


def test_outputs_wait_for_room_until_others_were_read(lane: Callable[..., Lane]) -> None:
    """Seven rows, room for the outputs of two; a request's rows are answered together."""
    here = lane(tenfold, output_bytes=256)
    requests = [[b"abcdefghij"], [b"klmnopqrst"], [b"01234567890"[:10], b"AAAAAAAAAA"], [b"BBBBBBBBBB"]]
    claims = [here.ask(*rows) for rows in requests]
    answers: list[tuple[Dims, bytes] | int | None] = [None] * 4
    for done in (2, 3, 4):
        here.run()
        if done < 4:
            assert here.ring.seal(0) is None, "due while its outputs are not read"
        for index in range(4):
            answers[index] = answers[index] or here.answer(claims[index])
        assert answers.count(None) == 4 - done
    assert answers == [tenfold((len(rows), 10), b"".join(rows)) for rows in requests]
    assert here.ring.free_slabs() == 3


def test_outputs_that_never_have_room_fail_and_others_do_not(lane: Callable[..., Lane]) -> None:
    here = lane(tenfold, output_bytes=256)
    claims = [here.ask(b"x" * 10, b"y" * 10), here.ask(b"a" * 10, b"b" * 10, b"c" * 10), here.ask(b"z" * 10)]
    here.run()
    assert here.answer(claims[0]) == tenfold((2, 10), b"x" * 10 + b"y" * 10)
    here.run()
    assert [here.answer(claim) for claim in claims[1:]] == [MODEL_FAILED, tenfold((1, 10), b"z" * 10)]
    assert b"300 bytes, 256 of 256 are left for the outputs of a request: send a smaller input" in bytes(
        here.arena.buffer(0, here.arena.size)
    )


class Killed(BaseException):
    """The executor's process ends here."""


def kills(dims: Dims, data: bytes) -> tuple[Dims, bytes]:
    if b"!" in data:
        raise Killed
    return dims, data


def test_an_executor_dies_three_times_of_poison_among_mates(lane: Callable[..., Lane]) -> None:
    here = lane(kills)
    requests = [[b"ab"], [b"cd", b"ef"], [b"g!"], [b"ij"]]
    claims = [here.ask(*rows) for rows in requests]
    deaths = 0
    while here.answer(claims[2]) is None:
        try:
            here.run()
        except Killed:
            deaths += 1
            here.ring.recover_executor()
    assert deaths == 3
    for mate in (0, 1, 3):
        assert here.answer(claims[mate]) == ((len(requests[mate]), 2), b"".join(requests[mate]))
    # It is refused from now on, others are not.
    assert here.ring.finished(0, claims[2]) == 8


@pytest.mark.parametrize("rule", [echo, time_first, flat])
@pytest.mark.parametrize("output_bytes", [128, 1024])
def test_rows_are_run_alone_after_a_death(lane: Callable[..., Lane], rule: Rule, output_bytes: int) -> None:
    """Also where two outputs at a time find room, and where a request's rows give no outputs of their own."""
    here = lane(rule, output_bytes=output_bytes)
    requests = [[b"abc"], [b"cde", b"fgh"], [b"ijk"]]
    claims = [here.ask(*rows) for rows in requests]
    here.ring.take(0, here.ring.seal(0))
    here.ring.recover_executor()
    answers: list[tuple[Dims, bytes] | int | None] = [None] * 3
    for _ in range(4):
        if None in answers:
            here.run()
            answers = [one or here.answer(claim) for one, claim in zip(answers, claims, strict=True)]
    assert answers == [rule((len(rows), 3), b"".join(rows)) for rows in requests]
    assert here.ring.free_slabs() == 3


@pytest.mark.parametrize(
    ("rule", "follows"),
    [(echo, True), (tenfold, True), (time_first, False), (lambda dims, data: ((1, 1), b"x"), False)],
)
def test_what_a_warm_up_shows(rule: Rule, follows: bool) -> None:
    spec = [TensorSpec("t", UINT8, (-1, -1))]
    assert try_rows(Puppet(rule), spec, spec) == follows
