"""A model on several devices: what the warm-up of each has shown, told to their turns and to the lane's cost table.

The turns (device_turns) have a table for each device. The lane's own, which admission and the latency target go by, is
that of a batch wherever it runs: while every instance is busy the devices share the batches out by their speed, which
makes the mean the harmonic one. Every run keeps both up to date.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from server._fast.device_turns import DeviceTurns
from server._fast.layout import Arena
from server.executor.rows_warm_up import Sample
from server.models.providers import Place

#: The fastest comes first: of sleeping instances the first is woken.
_NOT_MEASURED_NS = 1 << 62


def by_speed(measured: Mapping[Place, Sequence[Sample]]) -> list[Place]:
    """The devices, those that answer one row sooner first; else in their order."""
    return sorted(measured, key=lambda place: measured[place][0].ns if measured[place] else _NOT_MEASURED_NS)


def turns_of(
    arena: Arena, places: Sequence[Place], bells: Sequence[int], measured: Mapping[Place, Sequence[Sample]], now_ns: int
) -> DeviceTurns:
    """Of instances at these places, whose bells they are."""
    order = list(dict.fromkeys(places))
    turns = DeviceTurns(arena, [order.index(place) for place in places], list(bells))
    for device, place in enumerate(order):
        for sample in measured[place]:
            turns.learn(device, *sample, now_ns)
    return turns


class _Share(NamedTuple):
    rate: float
    sample: Sample


def together(places: Sequence[Place], measured: Mapping[Place, Sequence[Sample]]) -> list[Sample]:
    """Of each size that ran somewhere: what a batch takes, wherever an instance runs it."""
    shares: dict[int, list[_Share]] = {}
    for place in places:
        for sample in measured[place]:
            shares.setdefault(sample.rows, []).append(_Share(1 / max(1, sample.ns), sample))
    found = []
    for rows, parts in sorted(shares.items()):
        rate = sum(part.rate for part in parts)
        ns = round(len(parts) / rate)
        deviation_ns = sum(part.rate / rate * (abs(part.sample.ns - ns) + part.sample.deviation_ns) for part in parts)
        found.append(Sample(rows, ns, round(deviation_ns), max(part.sample.run_count for part in parts)))
    return found
