"""How much is asked of a model and how busy it is, and the processors, from counters that only rise. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Counters(NamedTuple):
    """Of one lane, all processes together. `refused_count`: requests for which there was no room or no time."""

    rows_count: int = 0
    answered_count: int = 0
    refused_count: int = 0
    busy_ns: int = 0


class Demand(NamedTuple):
    """`busy`: runs in progress, on the average."""

    rows_per_s: float = 0.0
    busy: float = 0.0


def others(busy_ns: int, own_busy: float, passed_ns: int, usable_count: int, lane_count: int) -> float:
    """Processors that other programs take from models. busy_ns: of all `usable_count` processors together, in the time
    that has passed; own_busy: those on which models computed meanwhile, on the average; lane_count: those that models
    may have, which are fewer where a quota says so: what others do beside these is no loss.
    """
    if passed_ns <= 0:
        return 0.0
    free_count = usable_count - max(0.0, busy_ns / passed_ns - own_busy)
    return min(float(lane_count), max(0.0, lane_count - free_count))


def demand(before: Counters, after: Counters, passed_ns: int) -> Demand:
    """What came between two moments; refused requests are taken to have had as many rows as the others."""
    if passed_ns <= 0:
        return Demand()
    rows, answered, refused, busy_ns = (new - old for new, old in zip(after, before, strict=True))
    rows_per_request = rows / answered if answered > 0 else 1.0
    return Demand((rows + refused * rows_per_request) * 1e9 / passed_ns, busy_ns / passed_ns)
