"""server/models/queue_policy.py: which slabs the priority levels of a lane get."""

from __future__ import annotations

import pytest

from server.models.lane_plan import LanePlan
from server.models.queue_policy import LevelSettings, QueuePolicy, Queues, level_settings

ROWS = LanePlan(True, 64, 18, 0, 0)
SINGLE = LanePlan(False, 1, 66, 1 << 20, 1 << 20)


def slabs(queues: Queues, plan: LanePlan = ROWS, slab_bytes: int = 1024) -> list[int]:
    settings = level_settings(queues, plan, queue_rows=1024, instances=1, slab_bytes=slab_bytes)
    return [level.slab_count for level in settings]


def test_without_priorities_there_is_one_level_of_all_slabs() -> None:
    policy = QueuePolicy(max_rows=100, timeout_us=5, delays=True, allow_override=True)
    assert level_settings(Queues(policy), ROWS, queue_rows=1024, instances=1, slab_bytes=1) == (
        LevelSettings(18, 100, 5000, True, True),
    )


def test_each_level_has_slabs_of_its_own() -> None:
    queues = Queues(level_count=3, default_level=1, own=((2, QueuePolicy(max_rows=65)),))
    assert slabs(queues) == [16 + 2, 2 + 2, 16 + 2]


@pytest.mark.parametrize(
    ("queues", "plan", "slab_bytes", "most"),
    [
        (Queues(level_count=32, default_level=1), ROWS, 64, 1024),
        (Queues(level_count=4, default_level=1), ROWS, 1 << 26, 16),
        (Queues(level_count=5, default_level=1), SINGLE, 1 << 21, 256),
    ],
)
def test_levels_share_what_memory_there_is(queues: Queues, plan: LanePlan, slab_bytes: int, most: int) -> None:
    found = slabs(queues, plan, slab_bytes)
    assert sum(found) <= most and len(set(found)) == 1 and found[0] >= 2


def test_a_level_has_room_for_a_batch_that_runs_and_one_that_fills() -> None:
    assert slabs(Queues(level_count=4, default_level=1), ROWS, 1 << 30) == [2, 2, 2, 2]
