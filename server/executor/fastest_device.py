"""`--device fastest`: a model's batches are run on every device that is there, before one of them gets the model.

What counts is the time of a batch at a few sizes, and what others ask of the devices at the moment
(server.models.placement.decide is the rule); the CPU keeps a model that is answered hardly sooner elsewhere. Zeros are
run, in scratch memory. Costs a load and at most BUDGET_NS for each device, once, when the model is loaded.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import NamedTuple

from server import log
from server.executor.backend import REFUSALS, Backend, LoadError
from server.executor.rows_warm_up import Sample, run_times_ns
from server.executor.runner import TensorSpec, zeros
from server.models.answer_time import Cells
from server.models.live_load import measured
from server.models.placement import Put, Snapshot, decide
from server.option_values import CPU

#: Larger sizes are left out when a device has taken this long.
BUDGET_NS = 1_000_000_000


class Chosen(NamedTuple):
    """The device that a model gets, and what its runs take on each: (rows, ns)."""

    device: str
    run_ns: dict[str, Cells]


def fastest_device(
    load: Callable[[str], Backend],
    devices: Sequence[str],
    sizes: Sequence[int],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    name: str,
    live: Snapshot,
    *,
    threads: int,
    instances: int,
    clock: Callable[[], int] = monotonic_ns,
) -> Chosen:
    """Of `devices`, by the names that people read, the one for a model. load: a session there; sizes: rows, ascending;
    live: of server.models.live_load.without, the model being the last.
    """
    run_ns: dict[str, Cells] = {}
    for device in devices:
        try:
            if cells := _measure(load(device), sizes, inputs, outputs, clock):
                run_ns[device] = cells
        except LoadError as error:
            log.info("device_not_measured", model=name, device=device, reason=str(error))
    action = decide(measured(live, run_ns, threads, instances))
    chosen = action.devices[0] if isinstance(action, Put) else CPU
    times = {device: {rows: round(ns / 1000, 1) for rows, ns in cells} for device, cells in run_ns.items()}
    asked = {one.name: round(one.rows_per_s, 1) for one in live.models if one.rows_per_s}
    log.info("device_measured", model=name, device=chosen, rows_us=times, rows_per_s=asked)
    return Chosen(chosen, run_ns)


def completed(chosen: Chosen, sizes: Sequence[int], warm_up: Sequence[Sample]) -> dict[str, Cells]:
    """What was measured, and on the device that the model has got also the sizes that there was no time for: its
    warm-up has run them since.
    """
    if chosen.device not in chosen.run_ns:
        return chosen.run_ns
    cells = {sample.rows: sample.ns for sample in warm_up if sample.rows in sizes} | dict(chosen.run_ns[chosen.device])
    return {**chosen.run_ns, chosen.device: sorted(cells.items())}


def some_sizes(sizes: Sequence[int]) -> list[int]:
    """The smallest, one in the middle, the largest."""
    return sorted({sizes[0], sizes[len(sizes) // 2], sizes[-1]})


def _measure(
    backend: Backend,
    sizes: Sequence[int],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    clock: Callable[[], int],
) -> list[tuple[int, int]]:
    """(rows, ns) of the sizes that run; a device that refuses zeros of some size says nothing of that size."""
    until_ns = clock() + BUDGET_NS
    cells: list[tuple[int, int]] = []
    for rows in sizes:
        memory: list[ctypes.Array[ctypes.c_char]] = []
        try:
            run = backend.prepare(
                [zeros(spec, rows, memory) for spec in inputs], [zeros(spec, rows, memory) for spec in outputs]
            )
            times_ns = run_times_ns(run, until_ns, clock)
        except REFUSALS:
            continue
        cells.append((rows, max(1, min(times_ns))))
        if clock() >= until_ns:
            break
    return cells
