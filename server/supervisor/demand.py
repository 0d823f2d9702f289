"""How much is asked of a model and how busy it is, from counters that only rise. Pure."""

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


def demand(before: Counters, after: Counters, passed_ns: int) -> Demand:
    """What came between two moments; refused requests are taken to have had as many rows as the others."""
    if passed_ns <= 0:
        return Demand()
    rows, answered, refused, busy_ns = (new - old for new, old in zip(after, before, strict=True))
    rows_per_request = rows / answered if answered > 0 else 1.0
    return Demand((rows + refused * rows_per_request) * 1e9 / passed_ns, busy_ns / passed_ns)
