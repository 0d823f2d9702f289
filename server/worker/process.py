"""The worker process: one event loop on one listener per port, until the server stops or its supervisor has gone."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import uvloop

from server import __version__, log
from server._fast import admission, batch_cap, cost_table, stats
from server._fast.frontend import Frontend, Peer
from server._fast.http1_connection import Http1Connection
from server._fast.http2_connection import Http2Connection
from server._fast.infer_call import LaneClient
from server._fast.layout import Arena, Control
from server.channel import Channel, Document
from server.config import ServeConfig
from server.observe import procfs, snapshot
from server.option_values import SAME
from server.protocol.served import READY, UNAVAILABLE, ServerInfo, extension_names
from server.worker.grpc_handlers import GrpcHandlers
from server.worker.handlers import Handlers
from server.worker.link import Link
from server.worker.listening import RESERVED_COUNT, Listening, connection_limit
from server.worker.models import Models
from server.worker.regions import Regions
from server.worker.tracing import Lane, Tracing

#: Partial requests of all connections of a worker together.
MAX_HELD_BYTES = 1 << 30
TICK_S = 1.0
#: Memory and CPU time of a process take 180 us to read, most of what a scrape costs.
PROCESSES_AGE_S = 0.05
#: Turns of the loop from the last accept to the close of idle connections: accepted, registered, read, some to spare.
SETTLE_TURNS = 8


class WorkerPlan(NamedTuple):
    """What a worker is started with; descriptors are inherited, shared segments already mapped."""

    slot: int
    config: ServeConfig
    control: Control
    #: What the supervisor says of each lane, its arena, and the bells of its instances.
    lanes: Sequence[tuple[Document, Arena, Sequence[int]]]
    #: Versions without a lane, as Models.set_others takes them.
    others: Sequence[Sequence[Any]]
    #: Version labels: model, label, version.
    labels: Sequence[Sequence[str]]
    #: Clients' shared memory: name, key, offset, byte_size; and its descriptor.
    regions: Sequence[tuple[Document, int]]
    #: Trace settings, as Tracing.set takes them.
    tracing: Document
    channel: Channel
    #: By what they are for, as supervisor.listeners has them.
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
        self._processes: list[snapshot.Process | None] = []
        #: Executors, by their slot, that run more than one model.
        self._shared_slots: set[int] = set()
        self._processes_until_s = 0.0
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
            send_timeout_ns=int(config.send_timeout_s * 1e9),
            cors_origins=config.cors,
        )
        self._frontend.has_tensor_content_replies = config.enable_serialization_as_tensor_content
        self._models = Models(self._frontend, plan.slot, config)
        for document, arena, bells in plan.lanes:
            self._models.add(document, arena, bells)
        self._models.set_others(plan.others)
        self._models.set_labels(plan.labels)
        self._regions = Regions(self._frontend)
        for document, fd in plan.regions:
            self._regions.add(document, fd)
        self._tracing = Tracing(plan.control, self._traced_lanes)
        self._tracing.set(plan.tracing)
        self._link = Link(plan.channel, self._models, self._regions, self._tracing, loop)
        self._handlers = Handlers(
            self._models,
            ServerInfo(config.server_name, __version__, extension_names(has_client_shm=config.allow_client_shm)),
            self.snapshot,
            self.readiness,
            self._link.ask,
            self._regions.status,
            log_word=lambda: plan.control.log_word,
            traces=self._tracing.document,
            has_metrics=config.metrics_port == SAME,
            kserve_v1_status=config.kserve_v1_status,
        )
        self._handlers.grpc = GrpcHandlers(self._handlers, self.is_serving)

    async def start(self) -> None:
        """Begins to accept."""
        frontend, loop, plan = self._frontend, self._loop, self._plan
        frontend.start(self._handlers, loop.stop, _http2(plan.config), self._on_drained)
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

    def _traced_lanes(self) -> list[Lane]:
        return [Lane(lane.client, lane.model.name, lane.model.version) for lane in self._models.lanes.values()]

    def _on_drained(self, client: LaneClient) -> None:
        self._link.drained(self._models.drained(client))

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
        self._handlers.grpc.stop()
        self._tracing.flush()
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
        if waiting := self._models.waiting_for():
            return f"loading: {', '.join(waiting)}"
        states = [model.state() for model in self._models.models()]
        if states and all(state == UNAVAILABLE for state in states):
            return "no model could be loaded"
        return ""

    def is_serving(self, model: str) -> bool | None:
        """Whether the server ("") or a model of this name takes work; None for a name that is no model's."""
        if not model:
            return not self.readiness()
        found = self._models.find(model, None)
        if found is None:
            return None
        return not self._plan.control.draining and found.state() == READY

    def snapshot(self) -> snapshot.Snapshot:
        """All counters of all processes, out of shared memory, and what /proc said of them not long ago."""
        control = self._plan.control
        pages = [control.page(index) for index in range(control.worker_count)]
        blocks = []
        lanes = list(self._models.lanes.values())
        for lane in lanes:
            depth = sum(lane.ring.row_counts()[1:4])
            for index in range(control.worker_count + 1):
                counters = stats.read_block(lane.arena, index)
                block = snapshot.from_counters(lane.model.name, lane.model.version, counters)
                if index == 0:
                    costs = [cell[:3] for cell in cost_table.cells(lane.arena) if cell[3]]
                    block = block._replace(queue_depth_rows=depth, batch_costs=costs, **_prospects(lane.arena))
                blocks.append(block)
            cap, splits, unfit = batch_cap.read(lane.arena)
            blocks[-1] = blocks[-1]._replace(cap_rows=cap, split_count=splits, unfit_count=unfit)
            given, run = lane.arena.element_counts
            blocks[-1] = blocks[-1]._replace(given_elements=given, run_elements=run)
        now_s = self._loop.time()
        if now_s >= self._processes_until_s:
            self._processes_until_s = now_s + PROCESSES_AGE_S
            # Models may share one: it is told once, and what each of them has of its memory nobody knows.
            executors: dict[int, list[int]] = {}
            for lane in lanes:
                executors.setdefault(lane.arena.executor_pid, []).append(lane.number)
            self._processes = [
                procfs.read_process(os.getppid(), "supervisor"),
                *(procfs.read_process(page["pid"], "worker", index) for index, page in enumerate(pages)),
                *(procfs.read_process(pid, "executor", numbers[0]) for pid, numbers in executors.items() if pid),
            ]
            self._shared_slots = {numbers[0] for numbers in executors.values() if len(numbers) > 1}
        keys = {lane.number: (lane.model.name, lane.model.version) for lane in lanes}
        executor_bytes: dict[tuple[str, str], int] = {}
        for process in self._processes:
            if process is None or process.role != "executor" or process.slot in self._shared_slots:
                continue
            if (key := keys.get(process.slot)) is not None:
                executor_bytes[key] = executor_bytes.get(key, 0) + process.resident_bytes
        worker_restarts, executor_restarts = control.restarts
        workers_stuck, executors_stuck = control.stuck
        return snapshot.Snapshot(
            models=snapshot.merge(blocks),
            processes=[process for process in self._processes if process is not None],
            connection_count=sum(page["connections_open"] for page in pages),
            accepted_count=sum(page["connections_total"] for page in pages),
            restarts={
                ("worker", "died"): worker_restarts,
                ("executor", "died"): executor_restarts,
                ("worker", "stuck"): workers_stuck,
                ("executor", "stuck"): executors_stuck,
            },
            executor_bytes=executor_bytes,
            refusals=self._models.refusals(),
        )


def _prospects(arena: Arena) -> dict[str, Any]:
    """What a request to a lane can expect now, as fields of a Block."""
    now_ns = time.monotonic_ns()
    left_ns, work_ns, open_deadline_ns, _ = admission.look(arena, 1, now_ns)
    is_late = 0 < open_deadline_ns < now_ns + left_ns + work_ns
    return {"predicted_wait_ns": left_ns + work_ns, "overloaded": arena.newest_first or is_late}


def _http2(config: ServeConfig) -> Callable[[Frontend, str], Peer]:
    """What makes HTTP/2 connections."""
    return functools.partial(
        Http2Connection,
        max_age_ns=int(config.max_connection_age_s * 1e9),
        grace_ns=int(config.max_connection_age_grace_s * 1e9),
        max_streams=config.max_concurrent_streams,
        min_ping_ns=int(config.min_ping_interval_s * 1e9),
    )
