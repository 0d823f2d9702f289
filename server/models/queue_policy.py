"""How a model's requests queue: priority levels and their policies, as config.pbtxt says and as its lane gets them.

Sources: Triton's model_config.proto (ModelQueuePolicy, ModelDynamicBatching), its checks in model_config_utils.cc.
Pure functions; what cannot be followed is told to `refuse`, which raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from server.models.lane_plan import ARENA_BUDGET_BYTES, MAX_SINGLE_SLABS, MAX_SLABS, LanePlan

#: An arena's table has room for so many.
MAX_LEVELS = 32
#: Slabs of requests that run one at a time take memory as those come; together the levels get no more than this.
MAX_VARIABLE_SLABS = 256
MAX_TIMEOUT_US = 1 << 50

Refuse = Callable[[str, str], NoReturn]


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """max_rows: None as long as the server's queue; timeout_us: 0 for none; delays: late requests go behind the others
    instead of being refused; allow_override: a request's own timeout counts where it is shorter.
    """

    max_rows: int | None = None
    timeout_us: int = 0
    delays: bool = False
    allow_override: bool = False


DEFAULT_POLICY = QueuePolicy()


@dataclass(frozen=True, slots=True)
class Queues:
    """level_count 0: no priorities; default_level: 1 is the first. own: policies of single levels, in pairs."""

    default: QueuePolicy = DEFAULT_POLICY
    level_count: int = 0
    default_level: int = 0
    own: tuple[tuple[int, QueuePolicy], ...] = ()

    def levels(self) -> tuple[QueuePolicy, ...]:
        """The policy of each level, one at least."""
        own = dict(self.own)
        return tuple(own.get(level, self.default) for level in range(1, max(self.level_count, 1) + 1))


DEFAULT_QUEUES = Queues()


class LevelSettings(NamedTuple):
    """What a lane's arena gets of one level. slab_count: slabs that its rows may hold; max_rows 0: no other bound."""

    slab_count: int
    max_rows: int
    timeout_ns: int
    delays: bool
    allow_override: bool


def queues_of(batching: Any, refuse: Refuse) -> Queues:
    """Reads a ModelDynamicBatching message; None for what says nothing."""
    if batching is None:
        return DEFAULT_QUEUES
    place = "dynamic_batching"
    level_count = int(batching.priority_levels)
    default_level = int(batching.default_priority_level)
    if level_count > MAX_LEVELS:
        refuse(f"{place}.priority_levels", f"expected at most {MAX_LEVELS}, got {level_count}")
    if level_count and not 1 <= default_level <= level_count:
        refuse(f"{place}.default_priority_level", f"expected a level from 1 to {level_count}, got {default_level}")
    if not level_count and default_level:
        refuse(f"{place}.default_priority_level", f"expected priority_levels beside it, got {default_level} alone")
    own = []
    for level in sorted(batching.priority_queue_policy):
        here = f"{place}.priority_queue_policy{{{level}}}"
        if not 1 <= level <= level_count:
            refuse(here, f"expected a level from 1 to {level_count} (priority_levels), got {level}")
        own.append((int(level), _policy(batching.priority_queue_policy[level], here, refuse)))
    default = _policy(batching.default_queue_policy, f"{place}.default_queue_policy", refuse)
    queues = Queues(default, level_count, default_level, tuple(own))
    if batching.preserve_ordering:
        if level_count > 1:
            refuse(f"{place}.priority_levels", f"expected one level beside preserve_ordering, got {level_count}")
        for policy in queues.levels():
            if policy.delays and policy.timeout_us:
                refuse(place, "expected timeout_action REJECT beside preserve_ordering, got DELAY")
    return queues


def _policy(policy: Any, place: str, refuse: Refuse) -> QueuePolicy:
    number = policy.timeout_action
    actions = policy.DESCRIPTOR.fields_by_name["timeout_action"].enum_type.values_by_number
    if number not in actions:
        refuse(f"{place}.timeout_action", f"expected REJECT or DELAY, got {number}")
    if policy.default_timeout_microseconds > MAX_TIMEOUT_US:
        refuse(f"{place}.default_timeout_microseconds", "expected less than a century")
    return QueuePolicy(
        int(policy.max_queue_size) or None,
        int(policy.default_timeout_microseconds),
        actions[number].name == "DELAY",
        bool(policy.allow_timeout_override),
    )


def level_settings(
    queues: Queues, plan: LanePlan, *, queue_rows: int, instances: int, slab_bytes: int
) -> tuple[LevelSettings, ...]:
    """The levels of a lane that is planned for one of them: each gets slabs of its own for its queue, its running
    batches and the one that fills, so that a flood of one level cannot take the room of another.

    queue_rows: of a level that says nothing. slab_bytes: what a slab takes in rows mode.
    """
    policies = queues.levels()
    slabs = _slab_counts([policy.max_rows or queue_rows for policy in policies], plan, instances, slab_bytes)
    return tuple(
        LevelSettings(count, policy.max_rows or 0, policy.timeout_us * 1000, policy.delays, policy.allow_override)
        for count, policy in zip(slabs, policies, strict=True)
    )


def _slab_counts(rows: Sequence[int], plan: LanePlan, instances: int, slab_bytes: int) -> list[int]:
    if len(rows) == 1:
        return [plan.slab_count]
    if plan.rows_mode:
        waiting = [-(-count // plan.row_capacity) for count in rows]
        most = min(MAX_SLABS, ARENA_BUDGET_BYTES // max(1, slab_bytes))
    else:
        waiting = [min(count, MAX_SINGLE_SLABS) for count in rows]
        most = MAX_VARIABLE_SLABS
    wanted = [count + instances + 1 for count in waiting]
    if sum(wanted) <= most:
        return wanted
    # Two: one that runs and one that fills.
    return [max(2, count * most // sum(wanted)) for count in wanted]
