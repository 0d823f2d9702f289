"""How much shared memory a model's lane gets: a pure function of its shapes and the queue's length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: A lane's slabs together stay below this unless two slabs of one request each need more.
ARENA_BUDGET_BYTES = 1 << 30
MIN_SLABS = 3
#: Requests that may wait for a model that is run one request at a time.
MAX_SINGLE_SLABS = 64
#: Address space, not memory: pages come when a request touches them.
VARIABLE_INPUT_BYTES = 64 << 20
VARIABLE_OUTPUT_BYTES = 64 << 20
MAX_ROWS = 4095
MAX_SLABS = 1024


class Shape(NamedTuple):
    """A tensor for the plan: bytes per element, 0 where they vary (strings), and dims, -1 for a free one, None for an
    unknown rank.
    """

    item_bytes: int
    dims: tuple[int, ...] | None


class LanePlan(NamedTuple):
    """The ring of one model version: a slab has row_capacity rows, in single mode (neither of the others) one request.

    shaped: rows that share a slab have equal shapes, and fewer fit if they are large.
    """

    rows_mode: bool
    row_capacity: int
    slab_count: int
    input_bytes: int
    output_bytes: int
    shaped: bool = False


def plan(
    inputs: Sequence[Shape],
    outputs: Sequence[Shape],
    *,
    batched: bool,
    shaped: bool = False,
    max_batch_size: int,
    queue_rows: int,
    instances: int,
    max_body_bytes: int,
) -> LanePlan:
    """The ring for a model.

    Slabs for the whole queue, one more for each instance that runs and one that fills; fewer rows, then fewer slabs,
    where the budget would be passed. With shaped rows every slab may be for another shape, so there are as many as for
    a model that is run one request at a time, and room in each for as much as one request may bring.
    """
    if batched and not shaped:
        row_bytes = sum(
            _padded(shape.item_bytes * _count(shape.dims[1:])) for shape in (*inputs, *outputs) if shape.dims
        )
        capacity = max(1, min(max_batch_size, MAX_ROWS, queue_rows))
        while capacity > 1 and row_bytes * capacity * MIN_SLABS > ARENA_BUDGET_BYTES:
            capacity //= 2
        slabs = -(-queue_rows // capacity) + instances + 1
        affordable = ARENA_BUDGET_BYTES // max(1, row_bytes * capacity)
        slabs = max(MIN_SLABS, min(slabs, affordable, MAX_SLABS))
        return LanePlan(True, capacity, slabs, 0, 0)
    input_bytes = _fixed(inputs, min(VARIABLE_INPUT_BYTES, max_body_bytes))
    output_bytes = _fixed(outputs, VARIABLE_OUTPUT_BYTES)
    slabs = max(MIN_SLABS, min(MAX_SINGLE_SLABS, queue_rows) + instances + 1)
    capacity = max(1, min(max_batch_size, MAX_ROWS, queue_rows)) if batched else 1
    return LanePlan(False, capacity, slabs, input_bytes, output_bytes, batched)


def _count(dims: Sequence[int]) -> int:
    count = 1
    for dim in dims:
        count *= dim
    return count


def _padded(size: int) -> int:
    return (size + 63) // 64 * 64


def _fixed(shapes: Sequence[Shape], variable: int) -> int:
    """Bytes for one request's tensors: exact where every size is fixed, else the room for variable ones."""
    if any(shape.item_bytes == 0 or shape.dims is None or -1 in shape.dims for shape in shapes):
        return variable
    return sum(_padded(max(1, shape.item_bytes * _count(shape.dims or ()))) for shape in shapes)
