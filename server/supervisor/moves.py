"""Versions that `--device fastest` has moved to other devices, for server.supervisor.lifecycle: to it a version on
other devices is what a version with changed files is. A new lane is loaded beside the old one, which goes when the new
one is ready; one that cannot be loaded replaces nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from server import hostinfo, log
from server.config import ServeConfig
from server.models.answer_time import Cells
from server.models.live_load import idle, to_text, without
from server.models.placement import Snapshot
from server.models.repository import ModelVersion
from server.protocol.assignment import from_text
from server.supervisor.lanes import MODEL_FAILED, Lane

_Key = tuple[str, int, Hashable]


def place_key(lane: Lane) -> Hashable:
    """What tells a lane from others of its version."""
    return lane.found.files, lane.devices


def _key(version: ModelVersion) -> _Key:
    return version.name, version.version, version.files


def processors_of(config: ServeConfig) -> int:
    """Those that models compute with."""
    return config.compute_cores or hostinfo.processors().compute_count


class Moves:
    """By version and its files: other files are measured anew."""

    def __init__(self, config: ServeConfig) -> None:
        #: What is asked of the devices, as far as it was seen last.
        self.snapshot: Snapshot = idle(processors_of(config))
        #: Lanes that could not be loaded where they were to go, or not again: name and version.
        self.failures: list[tuple[str, int]] = []
        self._devices: dict[_Key, tuple[str, ...]] = {}
        self._run_ns: dict[_Key, dict[str, Cells]] = {}

    def devices_of(self, version: ModelVersion) -> tuple[str, ...]:
        """Where a version is to run; (): its executor chooses, or settings say."""
        return self._devices.get(_key(version), ())

    def wanted(self, version: ModelVersion) -> Hashable:
        """What place_key() is of the lane that the version is to have."""
        return version.files, self.devices_of(version)

    def set(self, version: ModelVersion, devices: tuple[str, ...]) -> None:
        """It is to run there from now on."""
        self._devices[_key(version)] = devices

    def drop(self, version: ModelVersion, lanes: Sequence[Lane], reason: str) -> bool:
        """It cannot run where it is to: it stays where a lane has it, or is placed anew. Whether it had been moved."""
        devices = self._devices.pop(_key(version), ())
        if not devices:
            return False
        log.warning("move_failed", reason, model=version.name, version=version.version, device=", ".join(devices))
        self.failures.append((version.name, version.version))
        for lane in lanes:
            if _key(lane.found) == _key(version) and lane.arena.model_state != MODEL_FAILED and lane.devices != devices:
                self._devices[_key(version)] = lane.devices
        return True

    def drop_failed(self, lanes: Sequence[Lane]) -> None:
        """The same of lanes that say so."""
        for lane in lanes:
            if lane.arena.model_state == MODEL_FAILED and lane.devices == self.devices_of(lane.found) != ():
                self.drop(lane.found, lanes, lane.arena.model_reason)

    def forget(self, lanes: Sequence[Lane]) -> None:
        """Versions that are not there any more, on these devices."""
        there = {(_key(lane.found), lane.devices) for lane in lanes}
        self._devices = {key: devices for key, devices in self._devices.items() if devices and (key, devices) in there}
        keys = {key for key, _ in there}
        self._run_ns = {key: run_ns for key, run_ns in self._run_ns.items() if key in keys}

    def run_ns(self, lane: Lane) -> dict[str, Cells]:
        """What runs of a ready lane's model take on each device, alone; {}: it was not measured."""
        if measured := from_text(lane.arena.placed).measured:
            self._run_ns[_key(lane.found)] = dict(measured)
        return self._run_ns.get(_key(lane.found), {})

    def live_for(self, version: ModelVersion) -> str:
        """What an executor that is to choose a device is told of the others."""
        return to_text(without(self.snapshot, version.name, version.version))
