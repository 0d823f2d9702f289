"""The models that a worker serves, as they come and go: lanes for requests, a catalogue for everything else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from server._fast.frontend import Frontend
from server._fast.infer_call import LaneClient
from server._fast.infer_spec import Spec
from server._fast.layout import Arena
from server._fast.ring import Ring
from server.channel import Document
from server.config import ServeConfig
from server.protocol.assignment import from_text
from server.protocol.served import LOADING, READY, UNAVAILABLE, ServedModel, TensorInfo

#: Index is the model state of the arena.
_STATES = (LOADING, READY, LOADING, UNAVAILABLE, LOADING)
_RESTARTING = 2
_FAILED = 3
_HELD = 4


class ServedLane(NamedTuple):
    """One lane in this process. `number` is the supervisor's name for it."""

    number: int
    is_initial: bool
    arena: Arena
    bells: Sequence[int]
    ring: Ring
    client: LaneClient
    model: ServedModel


class Models:
    """A Catalog (server.protocol.served) over lanes and over versions that have none. One event loop thread."""

    def __init__(self, frontend: Frontend, slot: int, config: ServeConfig) -> None:
        self._frontend = frontend
        self._slot = slot
        self._config = config
        #: By number, without those that are retired.
        self.lanes: dict[int, ServedLane] = {}
        self._retired: list[ServedLane] = []
        self._others: list[ServedModel] = []
        self._unloaded: list[ServedModel] = []
        self._labels: dict[tuple[str, str], str] = {}

    # -- what the supervisor says

    def add(self, document: Document, arena: Arena, bells: Sequence[int]) -> None:
        """A lane that requests can reach from now on, as soon as its model is ready. `bells` are this process's."""
        inputs = [TensorInfo(*tensor) for tensor in document["inputs"]]
        outputs = [TensorInfo(*tensor) for tensor in document["outputs"]]
        spec = Spec(
            document["name"],
            document["version"],
            document["batched"],
            document["row_capacity"],
            inputs,
            outputs,
            document["labels"] or None,
            document["batch_axes"],
        )
        client = LaneClient(arena, spec, self._slot, list(bells), self._frontend)
        client.is_ordered = document["preserve_ordering"]
        client.fallback_timeout_us = 1000 * self._config.default_timeout_ms
        model = ServedModel(
            document["name"],
            document["version"],
            inputs,
            outputs,
            batched=document["batched"],
            max_batch=document["row_capacity"] if document["batched"] else 0,
            batching_reason=document["batching_reason"],
            state=lambda: _STATES[arena.model_state],
            reason=lambda: arena.model_reason,
            placed=lambda: from_text(arena.placed),
            instances=document["instances"],
            max_queue_delay_us=document["max_queue_delay_us"],
            configured=document["configured"],
        )
        number = document["lane"]
        self.lanes[number] = ServedLane(number, document["is_initial"], arena, list(bells), Ring(arena), client, model)
        self._frontend.add_lane(client)

    def retire(self, number: int) -> None:
        """No new request reaches the lane; the front end says when the last is answered."""
        lane = self.lanes.pop(number)
        self._retired.append(lane)
        self._frontend.retire_lane(lane.client)

    def drained(self, client: LaneClient) -> int:
        """Gives back what a retired lane held here; its number."""
        lane = next(lane for lane in self._retired if lane.client is client)
        self._retired.remove(lane)
        for bell in lane.bells:
            os.close(bell)
        return lane.number

    def set_others(self, rows: Sequence[Sequence[Any]]) -> None:
        """Versions without a lane: name, version, reason, and whether clients may ask for them."""
        self._others = [_without_lane(name, version, reason) for name, version, reason, is_known in rows if is_known]
        self._unloaded = [
            _without_lane(name, version, reason) for name, version, reason, is_known in rows if not is_known
        ]

    def set_labels(self, rows: Sequence[Sequence[str]]) -> None:
        """All version labels: model, label, version."""
        self._labels = {(name, label): version for name, label, version in rows}
        self._frontend.labels = {
            (name.encode(), label.encode()): version.encode() for (name, label), version in self._labels.items()
        }

    # -- the catalogue

    def models(self) -> Sequence[ServedModel]:
        """Every version of every model that is to serve; of a version with two lanes the one that answers."""
        best: dict[tuple[str, str], ServedLane] = {}
        for lane in self.lanes.values():
            key = (lane.model.name, lane.model.version)
            if key not in best or _rank(lane) > _rank(best[key]):
                best[key] = lane
        found = [lane.model for lane in best.values()]
        found += [model for model in self._others if (model.name, model.version) not in best]
        return sorted(found, key=lambda model: (model.name, int(model.version)))

    def find(self, name: str, version: str | None) -> ServedModel | None:
        """The version asked for; without one the highest ready one, else the highest."""
        found = [model for model in self.models() if model.name == name and version in (None, model.version)]
        return max(found, key=lambda model: (model.state() == READY, int(model.version)), default=None)

    def repository(self) -> Sequence[ServedModel]:
        """models(), and what the repository holds besides."""
        return [*self.models(), *self._unloaded]

    def refusals(self) -> dict[tuple[str, str], str]:
        """(name, version) -> why its files, as they are now, are not served; those before them may be."""
        found = {(model.name, model.version): model.reason() for model in self._others}
        for lane in self.lanes.values():
            if lane.arena.model_state == _FAILED:
                found[lane.model.name, lane.model.version] = lane.arena.model_reason
        return found

    def labelled(self, name: str, label: str) -> str | None:
        """The version that a label stands for."""
        return self._labels.get((name, label))

    def waiting_for(self) -> list[str]:
        """Names of models that this server does not serve at the moment, but will: readiness waits for them.

        A model that comes while the server runs makes it no less ready.
        """
        ready = {lane.model.name for lane in self.lanes.values() if lane.model.state() == READY}
        return sorted(
            {
                lane.model.name
                for lane in self.lanes.values()
                if lane.model.name not in ready
                and lane.model.state() == LOADING
                and (lane.is_initial or lane.arena.model_state in (_RESTARTING, _HELD))
            }
        )


def _rank(lane: ServedLane) -> tuple[bool, int]:
    return lane.model.state() == READY, lane.number


def _without_lane(name: str, version: str, reason: str) -> ServedModel:
    return ServedModel(
        name,
        version,
        (),
        (),
        batched=False,
        max_batch=0,
        state=lambda: UNAVAILABLE,
        reason=lambda: reason,
    )
