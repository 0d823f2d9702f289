"""Ends processes that live but stand still, and models that do not come to an end of loading.

What counts as stuck is server.supervisor.stuck_policy; this module collects the marks and acts. A stuck process gets
SIGABRT, which makes it write down where each of its threads was, and two seconds later SIGKILL; what follows is what
follows every death: a worker's rows are taken back, an executor's batches run again in its successor, and an input that
brings down two executors by itself is refused.
"""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Iterator

from server import log
from server._fast import stats
from server._fast.layout import Control
from server.config import ServeConfig
from server.supervisor.children import Child
from server.supervisor.executors import Executors
from server.supervisor.lanes import MODEL_FAILED, MODEL_LOADING, MODEL_READY, MODEL_RESTARTING, Lane
from server.supervisor.lifecycle import Lifecycle
from server.supervisor.loop import Loop
from server.supervisor.stuck_policy import Mark, StuckPolicy, run_limit_ns
from server.supervisor.workers import Workers

#: Workers and idle executors show that they are well once a second.
MAX_PERIOD_NS = 1_000_000_000
#: What an aborted process has to write down where it was.
ABORT_GRACE_NS = 2_000_000_000
#: The place of the mark of a process that is not running a batch.
IDLE = -1


class Watchdog:
    """Looks at all children of a server every second, or more often where the limit is short."""

    def __init__(
        self,
        config: ServeConfig,
        loop: Loop,
        control: Control,
        workers: Workers,
        executors: Executors,
        models: Lifecycle,
    ) -> None:
        self._loop = loop
        self._control = control
        self._workers = workers
        self._executors = executors
        self._models = models
        #: The time that any process has; a model's run may have more.
        self._floor_ns = int(config.stuck_after_s * 1e9)
        self._load_ns = int(config.load_timeout_s * 1e9)
        self._period_ns = min(MAX_PERIOD_NS, self._floor_ns // 8) if self._floor_ns else MAX_PERIOD_NS
        self._policy = StuckPolicy(self._period_ns)

    def start(self) -> None:
        """Looks from now on."""
        if self._floor_ns or self._load_ns:
            self._loop.after(self._period_ns, self._look)

    def _look(self) -> None:
        self._loop.after(self._period_ns, self._look)
        now_ns = time.monotonic_ns()
        if self._load_ns:
            for lane in list(self._models.lanes):
                self._check_loading(lane, now_ns)
        if not self._floor_ns:
            return
        marks = list(self._marks())
        lanes = {lane.number: lane for lane in self._models.lanes}
        for stuck in self._policy.look(now_ns, marks, self._floor_ns, functools.partial(self._limit_ns, lanes)):
            kind, number = stuck.process
            child = self._child(kind, number)
            if child is None or child.is_aborted:
                # One process has several lanes, and more than one of them may be late.
                continue
            named: dict[str, object] = {"worker": number}
            if kind == "executor":
                named = {"model": lanes[number].name, "version": lanes[number].version}
            log.error(
                f"{kind}_stuck",
                "stands still and is replaced",
                pid_stuck=child.pid,
                **named,
                doing="nothing" if stuck.place == IDLE else "a run",
                age_ms=stuck.age_ns // 10**6,
                limit_ms=stuck.limit_ns // 10**6,
            )
            self._abort(child)

    def _marks(self) -> Iterator[Mark]:
        """How far each process is that should get on."""
        for index, child in self._workers.items():
            page = self._control.page(index)
            if page["ready"] and not child.is_aborted:
                yield Mark(("worker", index), IDLE, child.pid, page["heartbeat_ns"])
        idle: dict[int, list[Lane]] = {}
        busy: set[int] = set()
        for lane in self._models.lanes:
            executor = self._executors.child_of(lane)
            if executor is None or executor.is_aborted or lane.arena.model_state != MODEL_READY:
                continue
            held = lane.ring.held()
            for slab, generation, steps in held:
                yield Mark(("executor", lane.number), slab, executor.pid, (generation, steps))
            if held:
                busy.add(executor.pid)
            idle.setdefault(executor.pid, []).append(lane)
        for pid, lanes in idle.items():
            # Instances look at all their lanes: while they run batches of one, the others stand still.
            if pid not in busy:
                beats = tuple(lane.ring.beat() for lane in lanes)
                yield Mark(("executor", lanes[0].number), IDLE, pid, beats)

    def _limit_ns(self, lanes: dict[int, Lane], mark: Mark) -> int:
        kind, number = mark.process
        if kind == "worker" or mark.place == IDLE:
            return self._floor_ns
        arena = lanes[number].arena
        blocks = [stats.read_block(arena, index)["execute_counts"] for index in range(arena.owner_count)]
        return run_limit_ns(self._floor_ns, list(map(sum, zip(*blocks, strict=True))))

    def _child(self, kind: str, number: int) -> Child | None:
        if kind == "worker":
            return dict(self._workers.items()).get(number)
        return next((self._executors.child_of(lane) for lane in self._models.lanes if lane.number == number), None)

    def _abort(self, child: Child) -> None:
        child.is_aborted = True
        child.kill(signal.SIGABRT)
        # One that was stopped would not even see that.
        child.kill(signal.SIGCONT)
        self._loop.after(ABORT_GRACE_NS, functools.partial(child.kill, signal.SIGKILL))

    def _check_loading(self, lane: Lane, now_ns: int) -> None:
        """A model that does not come to an end of loading: a warm-up that hangs, a file system that does not answer."""
        child = self._executors.child_of(lane)
        if (
            child is None
            or lane.is_over
            or child.is_aborted
            or lane.arena.model_state not in (MODEL_LOADING, MODEL_RESTARTING)
            or not (since_ns := self._executors.loading_since_ns(lane))
            or now_ns - since_ns < self._load_ns
        ):
            return
        reason = f"it did not load within {self._load_ns / 1e9:g} s (--load-timeout)"
        if lane.arena.model_state == MODEL_LOADING:
            lane.arena.set_state(MODEL_FAILED, reason)
        log.error("load_timed_out", reason, model=lane.name, version=lane.version, pid_stuck=child.pid)
        self._abort(child)
