"""The arithmetic of the measurements: paired ratios, their interval, floors, verdicts. No I/O."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Mapping, Sequence

#: Order of the two subjects inside one block: drift that is linear in time cancels.
BLOCK_ORDER = "ABBA"
STRETCH, MUST, MISSED, NO_TARGET = "stretch", "must", "MISSED", ""


def pair_ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Ratio of each pair of neighbours; both lists are in the order of measurement, one entry per pair."""
    if len(numerators) != len(denominators):
        raise ValueError(f"pairs need as many A as B, got {len(numerators)} and {len(denominators)}")
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def median_interval(values: Sequence[float], *, resamples: int = 2000, seed: int = 1) -> tuple[float, float]:
    """95 % bootstrap interval of the median; with fewer than 3 values their extremes."""
    if not values:
        raise ValueError("no values to take an interval of")
    if len(values) < 3:
        return min(values), max(values)
    rng = random.Random(seed)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(resamples))
    return medians[int(0.025 * resamples)], medians[int(0.975 * resamples)]


def efficiency(sock_us: float, ort_us_per_batch: float, mean_batch: float, measured_us: float) -> float:
    """eta = (c_sock + c_ort(B) / B) / measured CPU-µs per request."""
    if measured_us <= 0 or mean_batch <= 0:
        raise ValueError(f"measured {measured_us} µs at a mean batch of {mean_batch}: both must be above 0")
    return (sock_us + ort_us_per_batch / mean_batch) / measured_us


def interpolate(table: Mapping[int, float], at: float) -> float:
    """Linear between the two neighbours of `at`; outside the table its nearest entry."""
    keys = sorted(table)
    if not keys:
        raise ValueError("the table is empty")
    if at <= keys[0]:
        return table[keys[0]]
    for low, high in itertools.pairwise(keys):
        if at <= high:
            return table[low] + (table[high] - table[low]) * (at - low) / (high - low)
    return table[keys[-1]]


def verdict(value: float, must: float | None, stretch: float | None, *, higher_is_better: bool) -> str:
    """Which of the two targets the value reaches; equality reaches it."""
    if must is None:
        return NO_TARGET
    sign = 1 if higher_is_better else -1
    if stretch is not None and sign * value >= sign * stretch:
        return STRETCH
    return MUST if sign * value >= sign * must else MISSED


def per_request_us(cpu_ns: int, request_count: int) -> float:
    if request_count <= 0:
        raise ValueError("no request was answered")
    return cpu_ns / request_count / 1e3


def steal_fraction(before: Sequence[int], after: Sequence[int]) -> float:
    """Share of the time between two readings of a `cpu` line of /proc/stat that the hypervisor took (8th figure)."""
    deltas = [b - a for a, b in zip(before, after, strict=True)]
    total = sum(deltas[:8])  # guest time, the figures after it, is part of user time already
    return deltas[7] / total if total > 0 else 0.0


def keep_quiet_pairs(steals: Sequence[tuple[float, float]], limit: float = 0.01) -> list[int]:
    """Indices of the pairs in which neither side lost more than `limit` to steal; all of them if none is left."""
    quiet = [index for index, pair in enumerate(steals) if max(pair) <= limit]
    return quiet or list(range(len(steals)))
