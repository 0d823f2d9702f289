"""What padding costs and when it pays: pure functions, no clock, no I/O.

The rule in words. A length goes up to the next multiple that the configuration gives, so near lengths wait in one
slab: it is where they meet. A request finds no open slab of its own shape, but one for longer rows: it joins that one
if the elements which it wastes there cost no more than the run that it saves; of several it takes the one that wastes
least. When the slab's turn comes, its requests are run in as many runs as cost least together, each as long as its
longest row, so rows are padded only where a run more would cost more. What a run costs before its first element, in
elements, is learnt from the runs (RunCost); before that is known only equal lengths run together.

`waste` and `best` are the reference for shapes_waste and join_longer in server/_fast.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

#: dims of one row of each input, without the batch axis.
RowDims = tuple[tuple[int, ...], ...]
#: Of one request: the length of each group of padded axes.
Lengths = tuple[int, ...]
#: Of so many different lengths at most the best way is sought at once.
MOST_LENGTHS = 48
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


def cheapest_runs(
    requests: Sequence[tuple[Lengths, int]], row_elements: Callable[[Lengths], int], overhead_elements: int
) -> list[list[int]]:
    """Which requests, of these lengths and rows, run together so that all runs cost least: their indexes.

    row_elements: of a row with such lengths. Exact for one length in a request (what is sorted by length is cut into
    runs), near to it for several. O(distinct lengths squared), in pieces of MOST_LENGTHS.
    """
    alike: dict[Lengths, list[int]] = {}
    for index, (lengths, _) in enumerate(requests):
        alike.setdefault(lengths, []).append(index)
    if len(alike) == 1 or not overhead_elements:
        return list(alike.values())
    ordered = sorted(alike, key=lambda lengths: (row_elements(lengths), lengths))
    rows = [sum(requests[index][1] for index in alike[lengths]) for lengths in ordered]
    runs: list[list[int]] = []
    for start in range(0, len(ordered), MOST_LENGTHS):
        piece = ordered[start : start + MOST_LENGTHS]
        for first, end in _cut(piece, rows[start : start + MOST_LENGTHS], row_elements, overhead_elements):
            runs.append(sorted(index for lengths in piece[first:end] for index in alike[lengths]))
    return runs


def _cut(
    ordered: Sequence[Lengths], rows: Sequence[int], row_elements: Callable[[Lengths], int], overhead_elements: int
) -> list[tuple[int, int]]:
    """Where a sorted sequence is cut into runs [first, end) that cost least."""
    #: of the first `end`: the least cost, and where the last run begins
    least: list[tuple[int, int]] = [(0, 0)]
    for end in range(1, len(ordered) + 1):
        longest, count, found = ordered[end - 1], 0, (math.inf, 0)
        size = row_elements(longest)
        for first in range(end - 1, -1, -1):
            count += rows[first]
            if len(longest) > 1 and any(map(operator.gt, ordered[first], longest)):
                longest = tuple(map(max, ordered[first], longest))
                size = row_elements(longest)
            cost = least[first][0] + overhead_elements + count * size
            if cost < found[0]:
                found = cost, first
        least.append((int(found[0]), found[1]))
    runs, end = [], len(ordered)
    while end:
        runs.append((least[end][1], end))
        end = least[end][1]
    return runs[::-1]


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
