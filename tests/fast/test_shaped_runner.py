"""Batches of rows of equal shape, on a puppet of a model: what runs together, what is answered, what finds no room."""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from server._fast.lane_executor import LaneExecutor
from server._fast.layout import Arena, Control
from server._fast.ring import Claim, Ring
from server.executor.backend import ModelError, ProducedTensor, Run, TensorBuffer
from server.executor.runner import TensorSpec
from server.executor.shaped_runner import ShapedRunner, try_rows

UINT8 = 2
MODEL_FAILED = 5
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

    def run(self) -> None:
        """An executor's life: everything that is due."""
        executor = LaneExecutor(self.arena, self.control, 0, self.bell, [self.bell])
        spec = [TensorSpec("t", UINT8, (-1, -1))]
        runner = ShapedRunner(executor, self.arena, self.puppet, spec, spec)
        thread = threading.Thread(target=runner.serve)
        while any(self.ring.slab(slab)[0] in (1, 2, 3, 4) for slab in range(3)) and self._is_due():
            thread = threading.Thread(target=runner.serve)
            thread.start()
            while self._is_due():
                os.sched_yield()
            self.stop(thread)
        assert not thread.is_alive()

    def _is_due(self) -> bool:
        return self.ring.row_counts()[2] + self.ring.row_counts()[3] > 0

    def stop(self, thread: threading.Thread) -> None:
        raise NotImplementedError
