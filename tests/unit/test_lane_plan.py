"""How much shared memory a lane gets."""

from __future__ import annotations

import pytest

from server.models.lane_plan import (
    MAX_SINGLE_SLABS,
    VARIABLE_INPUT_BYTES,
    VARIABLE_OUTPUT_BYTES,
    LanePlan,
    Shape,
    plan,
)

FIXED = Shape(4, (-1, 64))
VARIABLE = Shape(4, (-1, -1, 16))


def planned(*shapes: Shape, batched: bool = True, shaped: bool = False, queue_rows: int = 1024) -> LanePlan:
    return plan(
        shapes[:1], shapes[1:], batched=batched, shaped=shaped, max_batch_size=32, queue_rows=queue_rows, instances=2,
        max_body_bytes=1 << 30,
    )  # fmt: skip


def test_a_slab_of_rows_has_no_room_but_for_its_rows() -> None:
    assert planned(FIXED, FIXED) == LanePlan(True, 32, 1024 // 32 + 2 + 1, 0, 0)


@pytest.mark.parametrize("shapes", [(VARIABLE, FIXED), (VARIABLE, VARIABLE), (FIXED, VARIABLE)])
def test_rows_of_any_shape_have_as_many_slabs_as_requests_by_themselves(shapes: tuple[Shape, Shape]) -> None:
    together = planned(*shapes, shaped=True)
    alone = planned(*shapes, batched=False)
    assert together == LanePlan(
        False, 32, MAX_SINGLE_SLABS + 2 + 1, VARIABLE_INPUT_BYTES, VARIABLE_OUTPUT_BYTES, shaped=True
    )
    assert alone == together._replace(row_capacity=1, shaped=False)


def test_a_short_queue_is_short_for_any_shape() -> None:
    assert planned(VARIABLE, VARIABLE, shaped=True, queue_rows=8).slab_count == 8 + 2 + 1
    assert planned(VARIABLE, VARIABLE, shaped=True, queue_rows=8).row_capacity == 8
