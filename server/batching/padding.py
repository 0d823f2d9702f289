"""What padding costs and when it pays: pure functions, no clock, no I/O.

The rule in words. A length goes up to the next multiple that the configuration gives, so near lengths wait in one
slab. A request finds no open slab of its own shape, but one for longer rows: it joins that one if the elements which it
wastes there cost no more than the run that it saves; of several it takes the one that wastes least. What a run costs
before its first element, in elements, is learnt from the runs (RunCost); before that is known nothing joins.
When a batch runs, its rows are only as long as the longest of them needs: to the next multiple where lengths differ,
and exactly as they came where all are equal, unless the model itself needs the multiple.

`waste` and `best` are the reference for shapes_waste and join_longer in server/_fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

#: dims of one row of each input, without the batch axis.
RowDims = tuple[tuple[int, ...], ...]
#: A bucket's best time is forgotten by this part at each of its runs: a machine does not stay as it was.
FORGETTING = 1.02
MOST_OVERHEAD_ELEMENTS = 1 << 40


class PaddedAxis(NamedTuple):
    """One axis of an input that may grow; `axis` counts the batch axis as 0."""

    tensor: int
    axis: int
    multiple: int
    max: int


def rounded(length: int, multiple: int, longest: int) -> int:
    """The length of a row that comes with this one. Empty ones, and those over the longest, stay as they are."""
    if not 0 < length < longest:
        return length
    return min(-(-length // multiple) * multiple, longest)


def elements(dims: RowDims) -> int:
    """Of one row of all inputs."""
    return sum(math.prod(one) for one in dims)


def waste(own: RowDims, slab: RowDims, axes: Sequence[PaddedAxis]) -> int | None:
    """How many elements more a row has in a slab for longer rows; None if it may not be there."""
    for tensor, (mine, there) in enumerate(zip(own, slab, strict=True)):
        for axis, (size, to) in enumerate(zip(mine, there, strict=True), start=1):
            limits = [one.max for one in axes if (one.tensor, one.axis) == (tensor, axis)]
            if size != to and not (limits and 0 < size <= to <= limits[0]):
                return None
    return elements(slab) - elements(own)


def best(
    own: RowDims, slabs: Sequence[RowDims], axes: Sequence[PaddedAxis], row_count: int, overhead_elements: int
) -> int | None:
    """Which of the slabs that are open for longer rows, and have room, so many rows join; None: they open their own."""
    found: tuple[int, int] | None = None
    for index, slab in enumerate(slabs):
        wasted = waste(own, slab, axes)
        if wasted and wasted <= overhead_elements // row_count and (found is None or wasted < found[0]):
            found = wasted, index
    return None if found is None else found[1]


def run_length(lengths: Sequence[int], multiple: int, longest: int, *, may_be_exact: bool) -> int:
    """The length that rows which came with these lengths run with."""
    most = max(lengths)
    if may_be_exact and min(lengths) == most:
        return most
    return rounded(most, multiple, longest)


class RunCost:
    """What a run costs before its first element, learnt from runs of different sizes.

    The best time of each power of two of elements is kept, since a time is only ever too long; a straight line through
    them is the cost. Several threads may call.
    """

    def __init__(self) -> None:
        #: power of two -> (elements, ns) of the best run
        self._best: dict[int, tuple[int, float]] = {}

    def observe(self, run_elements: int, duration_ns: int) -> None:
        """A run with so many elements, padding included."""
        if run_elements <= 0 or duration_ns <= 0:
            return
        power = run_elements.bit_length()
        known = self._best.get(power)
        if known is not None and known[1] * FORGETTING / known[0] < duration_ns / run_elements:
            self._best[power] = known[0], known[1] * FORGETTING
        else:
            self._best[power] = run_elements, float(duration_ns)

    def overhead_elements(self) -> int:
        """So many elements cost what a run costs without any; 0 while it is not known."""
        best_runs = list(self._best.values())
        if len(best_runs) < 2:
            return 0
        # The error that counts is a part of the time: a line by least squares, weighted by 1 / time squared.
        weights = [1 / ns**2 for _, ns in best_runs]
        total = sum(weights)
        mean_x = sum(weight * x for weight, (x, _) in zip(weights, best_runs, strict=True)) / total
        mean_y = sum(weight * y for weight, (_, y) in zip(weights, best_runs, strict=True)) / total
        spread = covariance = 0.0
        for weight, (x, y) in zip(weights, best_runs, strict=True):
            spread += weight * (x - mean_x) ** 2
            covariance += weight * (x - mean_x) * (y - mean_y)
        if spread <= 0 or covariance <= 0:
            # More elements cost nothing that shows.
            return max(x for x, _ in best_runs)
        slope = covariance / spread
        return max(0, min(int(mean_y / slope - mean_x), MOST_OVERHEAD_ELEMENTS))
