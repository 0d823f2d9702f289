"""What every model asks of every device at the moment, as the supervisor hands it to the executor of a model that is to
be placed: a Snapshot of server.models.placement as text. Pure.

Devices have the names that people read (`cpu`, `cuda:0`, `openvino:CPU`). Both ends are of the same build, so nothing
is checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from server.models.answer_time import Cells
from server.models.placement import Device, Model, Snapshot
from server.models.providers import Place
from server.option_values import CPU


def unit_of(device: str) -> str:
    """The hardware that a device is a way to use."""
    kind, _, where = device.partition(":")
    if Place(device).is_processor:
        return CPU
    return f"gpu{where or '0'}" if kind in ("cuda", "tensorrt") else device


def idle(processor_count: int) -> Snapshot:
    """A host that nobody asks for anything."""
    return Snapshot([device_of(CPU, processor_count)], ())


def device_of(name: str, processor_count: int, free_bytes: int | None = None) -> Device:
    """free_bytes: of the host. What a GPU has left only its driver knows, which the supervisor does not load."""
    if unit_of(name) == CPU:
        return Device(name, CPU, processor_count, free_bytes)
    return Device(name, unit_of(name))


def name_of(model: str, version: int) -> str:
    """What a version is called in a snapshot."""
    return f"{model}:{version}"


def without(snapshot: Snapshot, model: str, version: int) -> Snapshot:
    """As a new process of a version finds it: those that serve the model now go when it is there, and what is asked of
    them is asked of it. It comes last, without a place.
    """
    own = [one for one in snapshot.models if one.name.partition(":")[0] == model]
    rows_per_s = max((one.rows_per_s for one in own), default=0.0)
    others = [one for one in snapshot.models if one not in own]
    return snapshot._replace(models=(*others, Model(name_of(model, version), (), {}, rows_per_s)))


def measured(snapshot: Snapshot, run_ns: Mapping[str, Cells], threads: int, instances: int) -> Snapshot:
    """What without() gave, with what the model's runs take on each device, those in the order of preference. That they
    were measured shows that there is room.
    """
    *others, model = snapshot.models
    there = {device.name: device for device in snapshot.devices}
    devices = [there.get(name, device_of(name, there[CPU].lanes)) for name in run_ns]
    devices += [device for device in snapshot.devices if device.name not in run_ns]
    found = model._replace(run_ns=run_ns, threads=threads, instances=instances)
    return Snapshot([device._replace(free_bytes=None) for device in devices], (*others, found))


def to_text(snapshot: Snapshot) -> str:
    return json.dumps(
        {
            "devices": [list(device) for device in snapshot.devices],
            "models": [[*model[:2], _lists(model.run_ns.items()), *model[3:]] for model in snapshot.models],
        },
        separators=(",", ":"),
    )


def _lists(run_ns: Iterable[tuple[str, Cells]]) -> dict[str, list[list[int]]]:
    return {device: [list(cell) for cell in cells] for device, cells in run_ns}


def from_text(text: str) -> Snapshot:
    """What to_text() was given."""
    document = json.loads(text)
    return Snapshot(
        [Device(*device) for device in document["devices"]],
        [
            Model(name, tuple(devices), {on: tuple(map(tuple, cells)) for on, cells in run_ns.items()}, *others)
            for name, devices, run_ns, *others in document["models"]
        ],
    )
