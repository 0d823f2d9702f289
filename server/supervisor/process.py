"""The supervisor: owns listeners, arenas and children. It starts, watches, restarts and drains; it never touches
traffic.
"""

from __future__ import annotations

import functools
import os
import selectors
import signal
import sys
import time
from collections import deque
from collections.abc import Callable

from server import __version__, log
from server._fast.layout import Control
from server.config import ServeConfig
from server.demo import files as demo_files
from server.models import repository
from server.models.repository import ModelVersion, RepositoryError
from server.supervisor import announce
from server.supervisor.children import Child, start_child
from server.supervisor.lanes import Lane, executor_plan, worker_lanes
from server.supervisor.listeners import ListenError, open_all_listeners
from server.supervisor.restart_policy import restart_delay_ns

EXIT_OK = 0
EXIT_BAD_MODEL = 65
EXIT_INTERNAL = 70
EXIT_OS_ERROR = 71
EXIT_TEMPORARY = 75

MODEL_READY = 1
MODEL_RESTARTING = 2
MODEL_FAILED = 3

#: Deaths of one child in a row, each early, after which the server gives up on its own crash loop.
MAX_EARLY_WORKER_DEATHS = 10
#: A worker may have been filling rows when its model failed: they are refused after this.
REFUSE_AGAIN_NS = 1_000_000_000
#: How long to wait when the system has no process or descriptor left for a child.
START_AGAIN_NS = 1_000_000_000
#: How long executors may take to end once the workers have gone.
EXECUTOR_GRACE_NS = 5_000_000_000
#: How long a worker may hold its connections after a second signal.
FAST_GRACE_NS = 1_000_000_000


def run(config: ServeConfig) -> int:
    """Serves until SIGTERM or SIGINT; the exit status (sysexits)."""
    started_ns = time.monotonic_ns()
    # Before any child can import onnxruntime, whose wheels carry a telemetry client.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    log.setup(role="supervisor", log_format=config.log_format, level=config.log_level)
    path = config.path or demo_files.MODEL
    try:
        versions = repository.scan(path)
    except RepositoryError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    usable = [version for version in versions if version.error is None]
    for version in versions:
        if version.error is not None:
            log.error("model_refused", model=version.name, version=version.version, reason=version.error)
    if not usable:
        print(f"error: none of the {len(versions)} models under {path} can be served", file=sys.stderr)
        for version in versions:
            print(f"  {version.name} {version.version}: {version.error}", file=sys.stderr)
        return EXIT_BAD_MODEL
    try:
        supervisor = Supervisor(config, usable, versions, started_ns)
    except ListenError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_OS_ERROR
    except OSError as error:
        print(
            f"error: cannot set up shared memory and descriptors: {error}; see `ulimit -n` and free memory",
            file=sys.stderr,
        )
        return EXIT_OS_ERROR
    return supervisor.serve()


class Supervisor:
    """All state of the parent process. One thread; everything happens in serve()'s loop."""

    def __init__(
        self, config: ServeConfig, usable: list[ModelVersion], found: list[ModelVersion], started_ns: int
    ) -> None:
        self.config = config
        self.found = found
        self.started_ns = started_ns
        #: One listener per worker and port, by what the port is for.
        self.listeners = open_all_listeners(config)
        self.control = Control.create(config.workers, started_ns)
        self.lanes = [Lane(version, config, config.workers) for version in usable]
        self.worker_bells = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(config.workers)]
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        #: End-of-file when the supervisor has gone (workers watch), and when all workers have too (executors watch).
        self.supervisor_line = os.pipe2(os.O_CLOEXEC)
        self.workers_line = os.pipe2(os.O_CLOEXEC)
        self.workers: dict[int, Child] = {}
        self.executors: dict[int, Child] = {}
        #: How long the last children of a kind and number served.
        self.served_ns: dict[tuple[str, int], deque[int]] = {}
        self.timers: list[tuple[int, Callable[[], None]]] = []
        self.selector = selectors.DefaultSelector()
        self.signals: deque[int] = deque()
        self.announced = False
        self.stage = "serving"
        self.exit_status = EXIT_OK

    # -- the loop

    def serve(self) -> int:
        """Starts the children and reacts until the last has gone; the exit status."""
        self._watch_signals()
        self.selector.register(self.bell, selectors.EVENT_READ, self._on_bell)
        for index in range(len(self.lanes)):
            self._start_executor(index)
        for index in range(self.config.workers):
            self._start_worker(index)
        while self.stage != "ended":
            now_ns = time.monotonic_ns()
            timeout_ns = min((due for due, _ in self.timers), default=now_ns + 60_000_000_000) - now_ns
            for key, _ in self.selector.select(max(0, timeout_ns) / 1e9):
                key.data()
            now_ns = time.monotonic_ns()
            due = [action for at, action in self.timers if at <= now_ns]
            self.timers = [timer for timer in self.timers if timer[0] > now_ns]
            for action in due:
                action()
            while self.signals:
                self._on_signal(self.signals.popleft())
        return self.exit_status

    def _after(self, delay_ns: int, action: Callable[[], None]) -> None:
        self.timers.append((time.monotonic_ns() + delay_ns, action))

    def _watch_signals(self) -> None:
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _frame: self.signals.append(number))
        self.selector.register(read, selectors.EVENT_READ, functools.partial(os.read, read, 4096))
        self.signal_pipe = (read, write)

    def _on_bell(self) -> None:
        os.eventfd_read(self.bell)
        now_ns = time.monotonic_ns()
        for index, child in self.workers.items():
            if child.ready_ns == 0 and self.control.page(index)["ready"]:
                child.ready_ns = now_ns
        for index, child in self.executors.items():
            if child.ready_ns == 0 and self.lanes[index].arena.model_state == MODEL_READY:
                child.ready_ns = now_ns
        self._announce()

    def _announce(self) -> None:
        """Prints the banner, once, as soon as every model and every worker is ready or known to have failed."""
        if self.announced or self.stage != "serving":
            return
        if any(lane.arena.model_state not in (MODEL_READY, MODEL_FAILED) for lane in self.lanes):
            return
        if not all(self.control.page(index)["ready"] for index in range(self.config.workers)):
            return
        self.announced = True
        ports = {name: listeners[0].getsockname()[1] for name, listeners in self.listeners.items()}
        if all(lane.arena.model_state == MODEL_FAILED for lane in self.lanes):
            for lane in self.lanes:
                print(f"error: {lane.name} {lane.version} cannot be loaded: {lane.arena.model_reason}", file=sys.stderr)
            self.exit_status = EXIT_BAD_MODEL
            self._stop_workers()
            return
        announce.ready(self.config, self.lanes, self.found, ports, self.started_ns)
        log.info("ready", version=__version__, models=len(self.lanes), ports=ports)

    # -- children

    def _start_worker(self, index: int) -> None:
        if self.stage != "serving":
            return

        def main() -> int:
            from server.worker.process import WorkerPlan
            from server.worker.process import main as worker_main

            lanes, refused = worker_lanes(self.lanes, self.found)
            return worker_main(
                WorkerPlan(
                    slot=index,
                    config=self.config,
                    control=self.control,
                    lanes=lanes,
                    refused=refused,
                    listeners={name: listeners[index] for name, listeners in self.listeners.items()},
                    bell=self.worker_bells[index],
                    supervisor_bell=self.bell,
                    supervisor_line=self.supervisor_line[0],
                )
            )

        def shed() -> None:
            self._shed()
            for listeners in self.listeners.values():
                for position, listener in enumerate(listeners):
                    if position != index:
                        listener.close()
            os.close(self.workers_line[0])

        child = self._try_start(f"worker-{index}", f"headrace-w{index}", main, shed)
        if child is None:
            self._after(START_AGAIN_NS, functools.partial(self._start_worker, index))
            return
        self.workers[index] = child
        self.selector.register(child.pidfd, selectors.EVENT_READ, functools.partial(self._on_worker_death, index))

    def _start_executor(self, index: int) -> None:
        # While the workers finish, too: what they hold may need it.
        if self.stage not in ("serving", "draining", "stopping"):
            return
        lane = self.lanes[index]

        def main() -> int:
            from server.executor.process import main as executor_main

            return executor_main(
                executor_plan(
                    lane,
                    control=self.control,
                    worker_bells=self.worker_bells,
                    supervisor_bell=self.bell,
                    lifeline=self.workers_line[0],
                    intra_op_threads=self.config.intra_op_threads,
                )
            )

        def shed() -> None:
            self._shed()
            self._close_listeners()
            os.close(self.workers_line[1])

        child = self._try_start(f"executor-{lane.name}", f"headrace-e{index}", main, shed)
        if child is None:
            self._after(START_AGAIN_NS, functools.partial(self._start_executor, index))
            return
        self.executors[index] = child
        lane.arena.executor_pid = child.pid
        self.selector.register(child.pidfd, selectors.EVENT_READ, functools.partial(self._on_executor_death, index))

    def _try_start(self, role: str, comm: str, main: Callable[[], int], shed: Callable[[], None]) -> Child | None:
        """None when the system is out of processes, memory or descriptors: the children that live serve on."""
        try:
            return start_child(role, comm, main, shed)
        except OSError as error:
            log.error("child_not_started", child=role, reason=error.strerror, again_in_ms=START_AGAIN_NS // 10**6)
            return None

    def _close_listeners(self) -> None:
        for listeners in self.listeners.values():
            for listener in listeners:
                listener.close()

    def _shed(self) -> None:
        """In a child: closes what only the supervisor needs, its ends of the lifelines above all."""
        self.selector.close()
        os.close(self.signal_pipe[0])
        os.close(self.signal_pipe[1])
        os.close(self.supervisor_line[1])
        for child in (*self.workers.values(), *self.executors.values()):
            os.close(child.pidfd)

    def _delay_ns(self, kind: str, index: int, child: Child) -> int:
        served_ns = self.served_ns.setdefault((kind, index), deque(maxlen=32))
        served_ns.append(time.monotonic_ns() - child.ready_ns if child.ready_ns else 0)
        return restart_delay_ns(served_ns)

    def _ring_everybody(self) -> None:
        """After a death: the dead may have taken a sleeper's flag without ringing its bell."""
        for lane in self.lanes:
            lane.ring_instances()
        for bell in self.worker_bells:
            os.eventfd_write(bell, 1)

    def _on_worker_death(self, index: int) -> None:
        child = self.workers.pop(index)
        self.selector.unregister(child.pidfd)
        status = child.reap()
        self.control.set_ready(index, 0, False)
        self.control.clear_bell(index)
        reaped = sum(lane.ring.reap_owner(index) for lane in self.lanes)
        self._ring_everybody()
        if self.stage == "stopping":
            if status != 0:
                log.error("worker_died_stopping", pid_dead=child.pid, status=status)
                self.exit_status = EXIT_TEMPORARY
            if not self.workers:
                self._stop_executors()
            return
        delay_ns = self._delay_ns("worker", index, child)
        log.error(
            "worker_died",
            pid_dead=child.pid,
            worker=index,
            status=status,
            rows_reaped=reaped,
            restart_in_ms=delay_ns // 10**6,
        )
        self.control.count_restart(True)
        if not self.announced and len(self.served_ns["worker", index]) >= MAX_EARLY_WORKER_DEATHS:
            print(f"error: worker {index} cannot start: see the log above", file=sys.stderr)
            self.exit_status = EXIT_INTERNAL
            self._stop_workers()
            return
        self._after(delay_ns, functools.partial(self._start_worker, index))

    def _on_executor_death(self, index: int) -> None:
        child = self.executors.pop(index)
        self.selector.unregister(child.pidfd)
        status = child.reap()
        lane = self.lanes[index]
        lane.arena.executor_pid = 0
        if self.stage in ("stopping executors", "ended"):
            if not self.executors:
                self.stage = "ended"
            return
        recovered = lane.ring.recover_executor()
        if lane.arena.model_state == MODEL_FAILED:
            log.error("model_failed", model=lane.name, version=lane.version, reason=lane.arena.model_reason)
            self._refuse_waiting(lane)
            self._after(REFUSE_AGAIN_NS, functools.partial(self._refuse_waiting, lane))
            self._announce()
            return
        lane.arena.set_state(MODEL_RESTARTING, f"its executor ended with status {status} and is being started again")
        self._ring_everybody()
        delay_ns = self._delay_ns("executor", index, child)
        log.error(
            "executor_died",
            pid_dead=child.pid,
            model=lane.name,
            status=status,
            batches_kept=recovered,
            restart_in_ms=delay_ns // 10**6,
        )
        self.control.count_restart(False)
        self._after(delay_ns, functools.partial(self._start_executor, index))

    def _refuse_waiting(self, lane: Lane) -> None:
        """Its model cannot be loaded any more: answers what was accepted while it could."""
        lane.refuse_waiting()
        self._ring_everybody()

    # -- the end

    def _on_signal(self, number: int) -> None:
        if self.stage == "serving":
            self.stage = "draining"
            self.control.draining = True
            log.info("draining", signal=signal.Signals(number).name, delay_s=self.config.drain_delay_s)
            self._after(int(self.config.drain_delay_s * 1e9), self._stop_workers)
        elif self.stage == "draining":
            self._stop_workers()
        elif self.stage == "stopping":
            log.info("stopping_faster")
            self.control.stopping = 2
            self._ring_everybody()
            self._after(FAST_GRACE_NS, self._kill_workers)

    def _stop_workers(self) -> None:
        """Tells the workers to finish what they hold; nothing new is accepted from here on."""
        if self.stage not in ("serving", "draining"):
            return
        self.stage = "stopping"
        self.control.draining = True
        self.control.stopping = 1
        self._close_listeners()
        self._ring_everybody()
        self._after(int(self.config.drain_timeout_s * 1e9), self._kill_workers)
        if not self.workers:
            self._stop_executors()

    def _kill_workers(self) -> None:
        if self.stage != "stopping":
            return
        for index, child in self.workers.items():
            open_count = self.control.page(index)["connections_open"]
            log.error("drain_timed_out", worker=index, connections_dropped=open_count)
            self.exit_status = EXIT_TEMPORARY
            child.kill(signal.SIGKILL)

    def _stop_executors(self) -> None:
        self.stage = "stopping executors"
        for lane in self.lanes:
            lane.arena.shut_down()
            lane.ring_instances()
        self._after(EXECUTOR_GRACE_NS, self._kill_executors)
        if not self.executors:
            self.stage = "ended"

    def _kill_executors(self) -> None:
        for child in self.executors.values():
            child.kill(signal.SIGKILL)
