"""The executor's side of a lane, as far as no model is needed."""

from __future__ import annotations

import os

import pytest

from server._fast.lane_executor import LaneExecutor
from server._fast.layout import Arena, Control
from server._fast.ring import Ring
from server.config import OPTIONS

FAILURE_TEXT_BYTES = 250
FP32 = 11


@pytest.mark.parametrize(
    "text", ["é" * 200, "x" + "é" * 200, "…" * 90, "x…" * 90, "\U0001f600" * 70, "x" * 300, "kurz"]
)
def test_a_reason_is_cut_between_characters(text: str) -> None:
    """It becomes part of a JSON reply, which is UTF-8."""
    tensor = (FP32, 4, [-1, 1])
    arena = Arena.create(
        inputs=[tensor], outputs=[tensor], rows_mode=True, row_capacity=1, slab_count=3, owner_count=1, instance_count=1
    )
    ring = Ring(arena)
    claim = ring.claim(0)
    assert claim is not None
    ring.publish(0, claim)
    bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        lane = LaneExecutor(arena, Control.create(1, 0), 0, bell, [bell])
        assert lane.next_batch() == (0, 1, 1, 0)
        lane.fail(0, 5, text)
    finally:
        os.close(bell)
    memory = bytes(arena.buffer(0, arena.size))
    at = memory.index(text.encode()[:4])
    size = int.from_bytes(memory[at - 6 : at - 2], "little")
    assert text.startswith(memory[at : at + size].decode())
    assert size == len(text.encode()) or FAILURE_TEXT_BYTES - 3 <= size <= FAILURE_TEXT_BYTES


def test_the_command_line_takes_as_many_processes_as_an_arena_has_room_for() -> None:
    """More would be a crash at start instead of a sentence."""
    parse = {option.name: option.parse for option in OPTIONS}
    tensor = (FP32, 4, [-1, 1])

    def create(workers: int, instances: int) -> Arena:
        return Arena.create(
            inputs=[tensor], outputs=[tensor], rows_mode=True, row_capacity=1, slab_count=3, owner_count=workers,
            instance_count=instances,
        )  # fmt: skip

    workers, instances = 62, 32
    create(int(parse["workers"](str(workers))), int(parse["instances"](str(instances))))
    for name, most in (("workers", workers), ("instances", instances)):
        with pytest.raises(ValueError, match=f"from 1 to {most}"):
            parse[name](str(most + 1))
    for counts in ((workers + 1, instances), (workers, instances + 1)):
        with pytest.raises(ValueError, match="at most"):
            create(*counts)
