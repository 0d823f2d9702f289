"""Which device a model is measured to be fastest on: puppet sessions on a fake clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from server.executor import fastest_device as module
from server.executor.backend import LoadError, ModelError, Run
from server.executor.fastest_device import fastest_device, some_sizes
from server.executor.runner import TensorSpec

SPECS = [TensorSpec("x", 11, (-1, 4))]
SIZES = (1, 8, 64)


class Devices:
    """Sessions whose runs take curves[device](rows) nanoseconds of this clock; a curve that is a text does not load."""

    def __init__(self, **curves: Any) -> None:
        self.curves = curves
        self.now_ns = 0
        self.ran: list[tuple[str, int]] = []

    def load(self, device: str) -> Any:
        if isinstance(self.curves[device], str):
            raise LoadError(self.curves[device])
        return _Session(self, device)

    def choose(self) -> str:
        return fastest_device(self.load, list(self.curves), SIZES, SPECS, SPECS, "m", lambda: self.now_ns)


class _Session:
    def __init__(self, devices: Devices, device: str) -> None:
        self.devices, self.device = devices, device

    def prepare(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Run:
        rows = inputs[0].dims[0]
        assert [tensor.dims for tensor in (*inputs, *outputs)] == [(rows, 4)] * 2

        def run() -> None:
            ns = self.devices.curves[self.device](rows)
            if ns < 0:
                raise ModelError("no zeros of so many rows")
            self.devices.ran.append((self.device, rows))
            self.devices.now_ns += ns

        return run


@pytest.mark.parametrize(
    ("cuda", "openvino", "chosen"),
    [
        # Large batches gain more than small ones lose.
        (lambda rows: 2_000 + 10 * rows, lambda rows: 20_000, "cuda"),
        # Hardly faster is not worth what it brings along.
        (lambda rows: 950 * rows, lambda rows: 990 * rows, "cpu"),
        (lambda rows: 9_000 * rows, lambda rows: 400 * rows, "openvino"),
        ("no driver", lambda rows: 400 * rows, "openvino"),
        ("no driver", "no package", "cpu"),
        # What it does not run does not count.
        (lambda rows: 400 * rows if rows < 64 else -1, lambda rows: 700 * rows, "cuda"),
    ],
)
def test_who_is_chosen(cuda: Any, openvino: Any, chosen: str) -> None:
    assert Devices(cpu=lambda rows: 1_000 * rows, cuda=cuda, openvino=openvino).choose() == chosen


def test_a_slow_device_is_measured_no_longer_than_its_budget() -> None:
    devices = Devices(cpu=lambda rows: 1_000 * rows, cuda=lambda rows: module.BUDGET_NS)
    assert devices.choose() == "cpu"
    assert devices.ran.count(("cuda", 1)) == 1 and ("cuda", 8) not in devices.ran


def test_three_sizes_at_most() -> None:
    assert some_sizes([1, 2, 4, 8, 16, 32, 64]) == [1, 8, 64]
    assert some_sizes([1, 2]) == [1, 2] and some_sizes([1]) == [1]
