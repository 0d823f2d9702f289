"""The worker process: one event loop on one listener per port, until the server stops or its supervisor has gone."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import socket
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import uvloop

from server import __version__, log
from server._fast import stats
from server._fast.frontend import Frontend
from server._fast.http1_connection import Http1Connection
from server._fast.http2_connection import Http2Connection
from server._fast.infer_call import LaneClient
from server._fast.infer_spec import Spec
from server._fast.layout import Arena, Control
from server._fast.ring import Ring
from server.config import ServeConfig
from server.observe import procfs, snapshot
from server.protocol.served import LOADING, READY, UNAVAILABLE, ServedModel, ServerInfo, StaticCatalog, TensorInfo
from server.worker.grpc_handlers import GrpcHandlers
from server.worker.handlers import Handlers
from server.worker.listening import RESERVED_COUNT, Listening, connection_limit

#: Index is the model state of the arena.
_STATES = (LOADING, READY, LOADING, UNAVAILABLE)
#: Partial requests of all connections of a worker together.
MAX_HELD_BYTES = 1 << 30
TICK_S = 1.0
#: Turns of the loop from the last accept to the close of idle connections: accepted, registered, read, some to spare.
SETTLE_TURNS = 8


class LanePlan(NamedTuple):
    """A model version that is served: what it takes and gives, and its shared memory."""

    name: str
    version: str
    inputs: Sequence[TensorInfo]
    outputs: Sequence[TensorInfo]
    batched: bool
    row_capacity: int
    batching_reason: str
    arena: Arena
    instance_bells: Sequence[int]
    executor_index: int


class RefusedModel(NamedTuple):
    """A model version that was found and cannot be served."""

    name: str
    version: str
    reason: str


class WorkerPlan(NamedTuple):
    """What a worker is started with; descriptors are inherited, shared segments already mapped."""

    slot: int
    config: ServeConfig
    control: Control
    lanes: Sequence[LanePlan]
    refused: Sequence[RefusedModel]
    #: By what the port is for: "http", "grpc", "metrics".
    listeners: Mapping[str, socket.socket]
    bell: int
    supervisor_bell: int
    #: Reads end-of-file when the supervisor has gone.
    supervisor_line: int


def main(plan: WorkerPlan) -> int:
    """Serves until told to stop; the exit status. Called in a fresh child of the supervisor."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = Worker(plan, loop)
    loop.run_until_complete(worker.start())
    # Nothing in the request path makes cycles; collections would only add pauses.
    gc.collect()
    gc.freeze()
    gc.disable()
    plan.control.set_ready(plan.slot, os.getpid(), True)
    os.eventfd_write(plan.supervisor_bell, 1)
    try:
        loop.run_forever()
    finally:
        plan.control.set_ready(plan.slot, os.getpid(), False)
    return 0


class Worker:
    """What lives as long as the process: the front end, the catalogue and the timers around it."""

    def __init__(self, plan: WorkerPlan, loop: asyncio.AbstractEventLoop) -> None:
        self._plan = plan
        self._loop = loop
        self._listening: list[Listening] = []
        self._is_stopping = False
        config = plan.config
        self._frontend = Frontend(
            loop,
            plan.control,
            plan.slot,
            plan.bell,
            max_body_bytes=config.max_body_bytes,
            max_held_bytes=max(MAX_HELD_BYTES, 2 * config.max_body_bytes),
            head_timeout_ns=int(config.head_timeout_s * 1e9),
            idle_timeout_ns=int(config.idle_timeout_s * 1e9),
        )
        models = []
        for lane in plan.lanes:
            spec = Spec(
                lane.name,
                lane.version,
                lane.batched,
                lane.row_capacity,
                [(name, datatype, shape) for name, datatype, shape in lane.inputs],
                [(name, datatype, shape) for name, datatype, shape in lane.outputs],
            )
            self._frontend.add_lane(LaneClient(lane.arena, spec, plan.slot, list(lane.instance_bells), self._frontend))
            models.append(_served(lane, config))
        models += [_refused(model) for model in plan.refused]
        self._handlers = Handlers(
            StaticCatalog(models), ServerInfo(config.server_name, __version__), self.snapshot, self.readiness
        )
        self._handlers.grpc = GrpcHandlers(self._handlers, self.is_serving)
        self._rings = [Ring(lane.arena) for lane in plan.lanes]

    async def start(self) -> None:
        """Begins to accept."""
        frontend, loop, plan = self._frontend, self._loop, self._plan
        frontend.start(self._handlers, loop.stop, Http2Connection)
        loop.add_reader(plan.bell, self._on_bell)
        loop.add_reader(plan.supervisor_line, self._on_supervisor_gone)
        # Probes and scrapes may have the descriptors that are left when inference connections wait for one.
        limit = connection_limit()
        for name, listener in plan.listeners.items():
            port = "metrics" if name == "metrics" else "http"
            port_limit = limit + RESERVED_COUNT // 2 if port == "metrics" else limit
            factory = functools.partial(Http1Connection, frontend, port)
            listening = Listening(loop, listener, factory, frontend.peers, port_limit)
            await listening.open()
            self._listening.append(listening)
        loop.call_later(TICK_S, self._tick)

    def _on_bell(self) -> None:
        self._frontend.on_bell()
        if self._plan.control.stopping and not self._is_stopping:
            self._stop()

    def _tick(self) -> None:
        # First: whatever fails below, time-outs go on.
        self._loop.call_later(TICK_S, self._tick)
        self._frontend.on_tick()
        for listening in self._listening:
            listening.on_tick()
        self._handlers.grpc.tick()

    def _stop(self) -> None:
        """Takes what has reached this host by now, accepts nothing more, and ends when all of it is answered."""
        self._is_stopping = True
        for listening in self._listening:
            listening.close()
        self._settle(SETTLE_TURNS)

    def _settle(self, turns: int) -> None:
        """Lets the loop read what is readable: a connection only looks idle while its request waits in the kernel."""
        if turns:
            self._loop.call_soon(self._settle, turns - 1)
        else:
            self._frontend.stop()

    def _on_supervisor_gone(self) -> None:
        """Nobody will start another worker or tell this one to stop: finishes what it holds, for a while."""
        self._loop.remove_reader(self._plan.supervisor_line)
        log.error("supervisor_gone", "finishing what is in flight")
        self._plan.control.draining = True
        if not self._is_stopping:
            self._stop()
        self._loop.call_later(5.0, self._loop.stop)

    def readiness(self) -> str:
        """Empty when the server takes work, else why not: draining, loading, or no model left."""
        if self._plan.control.draining:
            return "draining: the server is about to stop"
        states = [lane.arena.model_state for lane in self._plan.lanes]
        loading = [lane.name for lane, state in zip(self._plan.lanes, states, strict=True) if _STATES[state] == LOADING]
        if loading:
            return f"loading: {', '.join(loading)}"
        if all(_STATES[state] == UNAVAILABLE for state in states):
            return "no model could be loaded"
        return ""

    def is_serving(self, model: str) -> bool | None:
        """Whether the server ("") or a model of this name takes work; None for a name that is no model's."""
        if not model:
            return not self.readiness()
        states = [lane.arena.model_state for lane in self._plan.lanes if lane.name == model]
        if not states:
            return False if any(refused.name == model for refused in self._plan.refused) else None
        return not self._plan.control.draining and any(_STATES[state] == READY for state in states)

    def snapshot(self) -> snapshot.Snapshot:
        """All counters of all processes, out of shared memory."""
        control = self._plan.control
        pages = [control.page(index) for index in range(control.worker_count)]
        blocks = []
        for lane, ring in zip(self._plan.lanes, self._rings, strict=True):
            depth = sum(ring.row_counts()[1:4])
            for index in range(control.worker_count + 1):
                block = snapshot.from_counters(lane.name, lane.version, stats.read_block(lane.arena, index))
                blocks.append(block._replace(queue_depth_rows=depth if index == 0 else 0))
        processes = [
            procfs.read_process(os.getppid(), "supervisor"),
            *(procfs.read_process(page["pid"], "worker", index) for index, page in enumerate(pages)),
            *(
                procfs.read_process(lane.arena.executor_pid, "executor", lane.executor_index)
                for lane in self._plan.lanes
            ),
        ]
        worker_restarts, executor_restarts = control.restarts
        return snapshot.Snapshot(
            models=snapshot.merge(blocks),
            processes=[process for process in processes if process is not None],
            connections={"http": sum(page["connections_open"] for page in pages)},
            accepted={"http": sum(page["connections_total"] for page in pages)},
            restarts={("worker", "died"): worker_restarts, ("executor", "died"): executor_restarts},
        )


def _served(lane: LanePlan, config: ServeConfig) -> ServedModel:
    return ServedModel(
        lane.name,
        lane.version,
        lane.inputs,
        lane.outputs,
        batched=lane.batched,
        max_batch=lane.row_capacity if lane.batched else 0,
        batching_reason=lane.batching_reason,
        state=lambda: _STATES[lane.arena.model_state],
        reason=lambda: lane.arena.model_reason,
        instances=config.instances,
        max_queue_delay_us=config.max_queue_delay_us,
    )


def _refused(model: RefusedModel) -> ServedModel:
    return ServedModel(
        model.name,
        model.version,
        (),
        (),
        batched=False,
        max_batch=0,
        state=lambda: UNAVAILABLE,
        reason=lambda: model.reason,
    )
