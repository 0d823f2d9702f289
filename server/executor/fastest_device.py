"""`--device fastest`: a model's batches are run on every device that is there, before one of them gets the model.

What counts is the time of a batch at a few sizes (server.models.placement.fastest is the rule); the CPU stays where
another device is hardly faster. Zeros are run, in scratch memory. Costs a load and at most BUDGET_NS for each device,
once, when the model is loaded.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from time import monotonic_ns

from server import log
from server.executor.backend import REFUSALS, Backend, LoadError
from server.executor.rows_warm_up import run_times_ns
from server.executor.runner import TensorSpec, zeros
from server.models.placement import fastest
from server.option_values import CPU

#: Larger sizes are left out when a device has taken this long.
BUDGET_NS = 1_000_000_000


def fastest_device(
    load: Callable[[str], Backend],
    devices: Sequence[str],
    sizes: Sequence[int],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    name: str,
    clock: Callable[[], int] = monotonic_ns,
) -> str:
    """Of `devices`, as --device names them, the one on which the model's batches take least time. load: a session
    there; sizes: rows, ascending.
    """
    measured: dict[str, list[tuple[int, int]]] = {}
    for device in devices:
        try:
            measured[device] = _measure(load(device), sizes, inputs, outputs, clock)
        except LoadError as error:
            log.info("device_not_measured", model=name, device=device, reason=str(error))
    chosen = fastest(measured, CPU)
    times = {device: {rows: round(ns / 1000, 1) for rows, ns in cells} for device, cells in measured.items()}
    log.info("device_measured", model=name, device=chosen, rows_us=times)
    return chosen


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
