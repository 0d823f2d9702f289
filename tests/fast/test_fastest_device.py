"""Which device a model gets for what it measures and what others do there: puppet sessions on a fake clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from server.executor import fastest_device as module
from server.executor.backend import LoadError, ModelError, Run
from server.executor.fastest_device import Chosen, completed, fastest_device, some_sizes
from server.executor.rows_warm_up import Sample
from server.executor.runner import TensorSpec
from server.models.live_load import device_of, idle, without
from server.models.placement import Model, Snapshot
from server.models.providers import Place

SPECS = [TensorSpec("x", 11, (-1, 4))]
SIZES = (1, 8, 64)
IDLE = idle(processor_count=4)


class Devices:
    """Sessions whose runs take curves[device](rows) nanoseconds of this clock; a curve that is a text does not load."""

    def __init__(self, **curves: Any) -> None:
        self.curves = curves
        self.now_ns = 0
        self.ran: list[tuple[str, int]] = []

    def load(self, device: str) -> Any:
        device = device.partition(":")[0]
        if isinstance(self.curves[device], str):
            raise LoadError(self.curves[device])
        return _Session(self, device)

    def measure(self, live: Snapshot) -> Chosen:
        devices = [Place(device).label for device in self.curves]
        told = without(live, "m", 1)
        return fastest_device(
            self.load, devices, SIZES, SPECS, SPECS, "m", told, threads=4, instances=1, clock=lambda: self.now_ns
        )

    def choose(self, live: Snapshot = IDLE) -> str:
        return self.measure(live).device


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
        (lambda rows: 2_000 + 10 * rows, lambda rows: 20_000, "cuda:0"),
        # Hardly faster is not worth what it brings along.
        (lambda rows: 950 * rows, lambda rows: 990 * rows, "cpu"),
        (lambda rows: 9_000 * rows, lambda rows: 400 * rows, "openvino:CPU"),
        ("no driver", lambda rows: 400 * rows, "openvino:CPU"),
        ("no driver", "no package", "cpu"),
        # What it does not run does not count.
        (lambda rows: 400 * rows if rows < 64 else -1, lambda rows: 700 * rows, "cuda:0"),
    ],
)
def test_who_is_chosen(cuda: Any, openvino: Any, chosen: str) -> None:
    assert Devices(cpu=lambda rows: 1_000 * rows, cuda=cuda, openvino=openvino).choose() == chosen


def test_a_slow_device_is_measured_no_longer_than_its_budget() -> None:
    devices = Devices(cpu=lambda rows: 1_000 * rows, cuda=lambda rows: module.BUDGET_NS)
    assert devices.choose() == "cpu"
    assert devices.ran.count(("cuda", 1)) == 1 and ("cuda", 8) not in devices.ran


def test_a_device_that_others_keep_busy_is_left_to_them() -> None:
    devices = Devices(cpu=lambda rows: 1_000 * rows, cuda=lambda rows: 700 * rows)
    cells = ((1, 1_000_000), (64, 1_500_000))
    busy = Model("other:1", ("cuda:0",), {"cuda:0": cells}, rows_per_s=20_000)
    there = Snapshot([*IDLE.devices, device_of("cuda:0", 4)], [busy])
    assert devices.choose() == "cuda:0" and devices.choose(there) == "cpu"
    assert devices.choose(there._replace(models=[busy._replace(rows_per_s=20)])) == "cuda:0"
    # Its own predecessor goes.
    assert devices.choose(there._replace(models=[busy._replace(name="m:1")])) == "cuda:0"


def test_what_was_measured_is_told() -> None:
    devices = Devices(cpu=lambda rows: 1_000 * rows, cuda="no driver", openvino=lambda rows: 3_000)
    assert devices.measure(IDLE).run_ns == {
        "cpu": [(1, 1_000), (8, 8_000), (64, 64_000)],
        "openvino:CPU": [(1, 3_000), (8, 3_000), (64, 3_000)],
    }


def test_sizes_without_time_are_those_of_the_warm_up() -> None:
    slow = Chosen("openvino:CPU", {"cpu": [(1, 5), (8, 6)], "openvino:CPU": [(1, 3)]})
    samples = [Sample(rows, 2 * rows, 0, 1) for rows in (1, 2, 4, 8, 16)]
    found = {"cpu": [(1, 5), (8, 6)], "openvino:CPU": [(1, 3), (8, 16)]}
    assert completed(slow, SIZES, samples) == found
    assert completed(Chosen("cpu", {}), SIZES, samples) == {}


def test_three_sizes_at_most() -> None:
    assert some_sizes([1, 2, 4, 8, 16, 32, 64]) == [1, 8, 64]
    assert some_sizes([1, 2]) == [1, 2] and some_sizes([1]) == [1]
