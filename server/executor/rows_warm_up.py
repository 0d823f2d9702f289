"""The warm-up of a batched model: every batch size once, and the first entries of the cost table.

Zeros are run, in scratch memory. ONNX Runtime plans and allocates memory at the first run of a shape, so that run is
slow, and its time says little: as long as all of it stays short, each size runs a few times more, and those count.
Where memory runs out for a size, larger ones are left out, and requests come in batches that ran.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import NamedTuple

from server import log
from server._fast import cost_table
from server._fast.layout import Arena
from server.executor.backend import REFUSALS, Backend, LoadError, Run, is_out_of_memory
from server.executor.batch_cap import BatchCap
from server.executor.runner import TensorSpec, zeros

#: Runs of a size beyond the first end when the warm-up has taken this long.
REPEAT_BUDGET_NS = 200_000_000
REPEATS = 5


class Sample(NamedTuple):
    """What `run_count` runs of so many rows took."""

    rows: int
    ns: int
    deviation_ns: int
    run_count: int


def warm_up_rows(
    backend: Backend,
    arena: Arena,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    name: str,
    clock: Callable[[], int] = monotonic_ns,
    cap: BatchCap | None = None,
) -> list[Sample]:
    """Runs 1, 2, 4, ... rows and the capacity of a slab. Raises LoadError if rows cannot be joined, or one of them does
    not fit into memory. cap: of the executor.
    """
    samples: list[Sample] = []
    cap = cap or BatchCap(arena, name)
    begun_ns = clock()
    for rows in cost_table.sizes(arena):
        memory: list[ctypes.Array[ctypes.c_char]] = []
        try:
            run = backend.prepare(
                [zeros(spec, rows, memory) for spec in inputs], [zeros(spec, rows, memory) for spec in outputs]
            )
            times_ns = run_times_ns(run, begun_ns + REPEAT_BUDGET_NS, clock)
        except REFUSALS as error:
            if is_out_of_memory(error):
                if rows == 1:
                    raise LoadError(f"one row of zeros does not fit into memory: {error or 'out of memory'}") from error
                cap.did_not_fit([rows])
                break
            if rows == 2:
                raise LoadError(
                    f"its outputs do not follow the batch axis that its file declares: requests cannot be joined "
                    f"({error}); export it with a fixed first dimension"
                ) from error
            # Zeros need not be a valid input; shapes were checked all the same if another size went through.
            log.info("warm_up_refused", model=name, rows=rows, reason=str(error))
            continue
        middle_ns = _median_ns(times_ns)
        deviation_ns = sum(abs(one - middle_ns) for one in times_ns) // len(times_ns)
        if len(times_ns) == 1:
            # It shows nothing of how much they differ.
            deviation_ns = middle_ns // 8
        samples.append(Sample(rows, middle_ns, deviation_ns, len(times_ns)))
    return samples


def learn_samples(arena: Arena, samples: Sequence[Sample], name: str, now_ns: int) -> None:
    """Tells the lane's cost table; says so where one row alone takes longer than the latency target."""
    for sample in samples:
        cost_table.learn(arena, *sample, now_ns)
    if 0 < arena.slo_ns < cost_table.of(arena, 1):
        log.warning(
            "slo_out_of_reach",
            "one row alone takes longer than the latency target: expected a larger target or a faster model",
            model=name,
            slo_ms=arena.slo_ns / 1e6,
            row_ms=round(cost_table.of(arena, 1) / 1e6, 3),
        )


def run_times_ns(run: Run, until_ns: int, clock: Callable[[], int]) -> list[int]:
    """How long the repetitions took, or the first run if there was no time for any."""
    times_ns: list[int] = []
    while len(times_ns) <= REPEATS:
        started_ns = clock()
        run()
        ended_ns = clock()
        times_ns.append(ended_ns - started_ns)
        if ended_ns >= until_ns:
            break
    return times_ns[1:] or times_ns


def _median_ns(times_ns: Sequence[int]) -> int:
    """The one in the middle, or between the two. The module statistics would bring decimal and fractions along."""
    ordered = sorted(times_ns)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) // 2
