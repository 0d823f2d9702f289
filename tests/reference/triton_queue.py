"""Triton's queue of a model, as ModelQueuePolicy and ModelDynamicBatching document it, for batches of one request.

Levels from 1, the first one runs first. Each has a queue of its own: requests beyond max_queue_size are refused; a
request past its timeout is rejected, or, with DELAY, put behind the others of its level. Other than in Triton, which
looks at a level when its turn has come, the late ones of all levels are rejected when a batch is chosen. Which of those
that were put behind goes first is not documented; here they keep the order in which they came.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Policy(NamedTuple):
    """max_size 0: no bound; timeout 0: none."""

    max_size: int = 0
    timeout: int = 0
    delays: bool = False
    allow_override: bool = False


class Request(NamedTuple):
    """Names grow. expires 0: never."""

    name: int
    expires: int


@dataclass
class Level:
    policy: Policy
    queue: deque[Request] = field(default_factory=deque)
    delayed: deque[Request] = field(default_factory=deque)


class TritonQueue:
    """The queue of a model with these policies, one for each level."""

    def __init__(self, policies: Sequence[Policy], default_level: int) -> None:
        self.levels = [Level(policy) for policy in policies]
        self.default_level = default_level
        self.rejected: list[int] = []

    def level_of(self, priority: int) -> int:
        return priority if 1 <= priority <= len(self.levels) else self.default_level

    def enqueue(self, name: int, priority: int, timeout: int, now: int) -> bool:
        level = self.levels[self.level_of(priority) - 1]
        policy = level.policy
        if policy.max_size and len(level.queue) + len(level.delayed) >= policy.max_size:
            return False
        waits = policy.timeout
        if policy.allow_override and 0 < timeout < waits:
            waits = timeout
        level.queue.append(Request(name, now + waits if waits else 0))
        return True

    def dequeue(self, now: int) -> int | None:
        for level in self.levels:
            for late in [request for request in level.queue if 0 < request.expires < now]:
                level.queue.remove(late)
                if level.policy.delays:
                    insort(level.delayed, late)
                else:
                    self.rejected.append(late.name)
        for level in self.levels:
            for waiting in (level.queue, level.delayed):
                if waiting:
                    return waiting.popleft().name
        return None
