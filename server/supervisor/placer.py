"""Moves models of `--device fastest` with the load: it looks at what is asked of whom, and does what is decided.

What to do is server.models.placement.decide's, when to do it server.supervisor.move_policy's. A move is a reload on
other devices (server.supervisor.moves): one at a time, and only of a model with which nothing else happens. The
executors of models that are loaded meanwhile are told what the last look has seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from server import hostinfo, log
from server._fast import cost_table, stats
from server.config import ServeConfig
from server.errors import FAILURE_REASONS
from server.models.answer_time import Cells, Estimate
from server.models.live_load import device_of, name_of, unit_of
from server.models.memory_policy import expected_bytes
from server.models.placement import Model, Put, Snapshot
from server.option_values import CPU
from server.protocol.assignment import from_text
from server.supervisor.demand import Counters, Demand, demand, others
from server.supervisor.lanes import MODEL_READY, Lane
from server.supervisor.lifecycle import Lifecycle
from server.supervisor.loop import Loop
from server.supervisor.move_policy import LOOK_NS, MovePolicy
from server.supervisor.moves import place_key, processors_of

#: Whether a move has ended is looked at so often.
MOVING_NS = 500_000_000
#: What other programs are called in snapshots: no model has such a name.
OTHERS = "other programs"
_REFUSED = [FAILURE_REASONS.index(reason) for reason in ("REJECTED", "TIMEOUT")]


class _Moving(NamedTuple):
    """A move that has begun: the model as it was, and the lane that is to go."""

    put: Put
    model: Model
    lane: Lane


class Placer:
    """Of a server with `--device fastest`; others need none."""

    def __init__(self, config: ServeConfig, loop: Loop, models: Lifecycle, is_serving: Callable[[], bool]) -> None:
        self._processor_count = processors_of(config)
        self._loop = loop
        self._models = models
        self._is_serving = is_serving
        self._policy = MovePolicy()
        #: By number of a lane: when it was looked at last, and its counters then.
        self._seen: dict[int, tuple[int, Counters]] = {}
        self._moving: _Moving | None = None
        #: When it was looked at last, and for how long the processors had been busy then.
        self._host_seen = (0, 0)

    def start(self) -> None:
        """Looks from now on."""
        self._loop.after(LOOK_NS, self._look)

    def _look(self) -> None:
        if not self._is_serving():
            return
        self._loop.after(LOOK_NS, self._look)
        now_ns = time.monotonic_ns()
        snapshot = self.snapshot(now_ns)
        self._models.moves.snapshot = snapshot
        self._note_failures(now_ns)
        if self._moving is None and (put := self._policy.look(now_ns, snapshot)) is not None:
            self._move(now_ns, put, next(model for model in snapshot.models if model.name == put.model))

    # -- what there is

    def _ready(self) -> dict[str, Lane]:
        """By the names that they have in snapshots."""
        return {
            name_of(lane.name, lane.version): lane
            for lane in self._models.served()
            if lane.arena.model_state == MODEL_READY
        }

    def snapshot(self, now_ns: int) -> Snapshot:
        """The world since the last look."""
        ready = self._ready()
        before, self._seen = self._seen, {}
        models = []
        for name, lane in ready.items():
            counters = _counters(lane)
            seen_ns, old = before.get(lane.number, (now_ns, counters))
            self._seen[lane.number] = now_ns, counters
            models.append(self._model(name, lane, demand(old, counters, now_ns - seen_ns)))
        models.append(self._others(now_ns, models))
        memory = hostinfo.memory()
        free_bytes = memory.available_bytes if memory else None
        names = dict.fromkeys([CPU, *(on for model in models for on in (*model.run_ns, *model.devices))])
        return Snapshot([device_of(name, self._processor_count, free_bytes) for name in names], models)

    def _others(self, now_ns: int, models: Sequence[Model]) -> Model:
        """What other programs take of the processors, the server's workers among them: a model that nobody asks."""
        (seen_ns, old_ns), busy_ns = self._host_seen, hostinfo.busy_ns() or 0
        self._host_seen = now_ns, busy_ns
        own = sum(
            model.busy / len(model.devices) * min(model.threads, self._processor_count)
            for model in models
            for device in model.devices
            if unit_of(device) == CPU
        )
        usable_count = hostinfo.processors().affinity_count
        busy = others(busy_ns - old_ns, own, now_ns - seen_ns, usable_count, self._processor_count) if old_ns else 0.0
        return Model(OTHERS, (CPU,), {}, busy=busy, is_movable=False)

    def _model(self, name: str, lane: Lane, asked: Demand) -> Model:
        devices = tuple(one.device for one in from_text(lane.arena.placed).every)
        run_ns = self._models.moves.run_ns(lane)
        is_movable = len(run_ns) > 1 and self._models.may_move(lane)
        if not run_ns and len(devices) == 1:
            run_ns = _own_run_ns(lane, devices[0])
        return Model(
            name,
            devices,
            run_ns,
            *asked,
            threads=lane.settings.intra_op_threads,
            instances=max(1, lane.settings.instances // max(1, len(devices))),
            memory_bytes=expected_bytes(lane.found, lane.settings),
            is_movable=is_movable,
        )

    # -- what is done

    def _move(self, now_ns: int, put: Put, model: Model) -> None:
        lane = self._ready()[put.model]
        if reason := self._models.move(lane, put.devices):
            log.warning("move_failed", reason, model=lane.name, version=lane.version, device=", ".join(put.devices))
            self._policy.on_failed(now_ns, put.model)
            return
        self._moving = _Moving(put, model, lane)
        self._loop.after(MOVING_NS, self._watch)

    def _watch(self) -> None:
        """Whether the new lane serves, or there will be none."""
        if self._moving is None or not self._is_serving():
            return
        put, model, old = self._moving
        now_ns = time.monotonic_ns()
        if self._note_failures(now_ns):
            return
        key = (old.name, old.version, (old.found.files, put.devices))
        new = next((one for one in self._models.served() if (one.name, one.version, place_key(one)) == key), None)
        if new is not None and not (new.was_ready and old.is_retired):
            self._loop.after(MOVING_NS, self._watch)
            return
        self._moving = None
        if new is None:
            # Somebody else has changed or unloaded the model meanwhile.
            return
        self._policy.on_moved(now_ns, put.model)
        log.info(
            "model_moved",
            _reason(put),
            model=new.name,
            version=new.version,
            device=", ".join(put.devices),
            from_device=", ".join(model.devices),
            rows_per_s=round(model.rows_per_s, 1),
        )

    def _note_failures(self, now_ns: int) -> bool:
        """Whether the move was among those that failed; why is in the log."""
        failures, self._models.moves.failures = self._models.moves.failures, []
        names = [name_of(*failure) for failure in failures]
        for name in names:
            self._policy.on_failed(now_ns, name)
        if self._moving is None or self._moving.put.model not in names:
            return False
        self._moving = None
        return True


def _reason(put: Put) -> str:
    """With the figures that decided."""
    return f"a request: {_takes(put.there)}; where it was: {_takes(put.here)}"


def _takes(estimate: Estimate | None) -> str:
    if estimate is None:
        return "unknown"
    if estimate.pressure > 1:
        return f"without end, as {estimate.pressure:.3g} times what it can run is asked for"
    return f"about {estimate.ns / 1e6:.3g} ms"


def _counters(lane: Lane) -> Counters:
    blocks = [stats.read_block(lane.arena, index) for index in range(lane.arena.owner_count + 1)]
    return Counters(
        sum(block["row_count"] for block in blocks),
        sum(block["success_count"] for block in blocks),
        sum(block["failure_counts"][reason] for block in blocks for reason in _REFUSED),
        sum(block["busy_ns"] for block in blocks),
    )


def _own_run_ns(lane: Lane, device: str) -> dict[str, Cells]:
    """Of a model that was not measured elsewhere: what its runs take where it is; {}: it has not run."""
    cells = [(rows, mean_ns) for rows, mean_ns, _, runs in cost_table.cells(lane.arena) if runs and mean_ns]
    return {device: cells} if cells else {}
